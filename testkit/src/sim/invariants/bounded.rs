//! Nothing is left over: no open transaction, and every partition is done to its end.

use crate::sim::evidence::Evidence;

pub(super) fn check(evidence: &Evidence) -> Result<(), String> {
    if let Some(id) = evidence.open.first() {
        return Err(format!("{id} has an open transaction"));
    }
    for (partition, end) in &evidence.ends {
        let history = evidence.commits.get(partition).map(Vec::as_slice).unwrap_or_default();
        let offset = history.last().and_then(|record| Some(record.committed.as_ref()?.offset));
        if offset != Some(*end) {
            return Err(format!("{partition} is committed to {offset:?} of {end}"));
        }
    }
    Ok(())
}
