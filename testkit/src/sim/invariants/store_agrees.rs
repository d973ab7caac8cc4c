//! Once every instance has taken up everything, its store says what Kafka says: what it knows of is
//! done, up to the committed offset and no further.

use crate::sim::evidence::Evidence;

pub(super) fn check(evidence: &Evidence) -> Result<(), String> {
    if let Some(unreadable) = evidence.unreadable.first() {
        return Err(format!("a store cannot be read: {unreadable}"));
    }
    for stored in &evidence.stores {
        let end = evidence.ends.get(&stored.partition).copied().unwrap_or(0);
        for run in &stored.runs {
            let place = || format!("{}, {}@{}", stored.instance, stored.partition, run.span);
            if !run.history.state.is_confirmed() {
                return Err(format!("{}: {} though it is done", place(), run.history.state));
            }
            if run.span.end > end {
                return Err(format!("{}: done beyond the end, {end}", place()));
            }
        }
    }
    Ok(())
}
