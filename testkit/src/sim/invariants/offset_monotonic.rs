//! Committed offsets never go back, and every one is of a transaction. (That none becomes visible
//! after a later one is Kafka's own rule, by their places in the group's log.)

use crate::sim::evidence::Evidence;

pub(super) fn check(evidence: &Evidence) -> Result<(), String> {
    for (partition, history) in &evidence.commits {
        let mut last = 0;
        for record in history {
            let Some(committed) = &record.committed else {
                return Err(format!("{partition}: the committed offset was removed"));
            };
            if committed.offset < last {
                let offset = committed.offset;
                return Err(format!("{partition}: {offset} was committed after {last}"));
            }
            if record.transaction.is_none() {
                let offset = committed.offset;
                return Err(format!("{partition}: {offset} was committed outside a transaction"));
            }
            last = committed.offset;
        }
    }
    Ok(())
}
