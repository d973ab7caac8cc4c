//! Every output of every visible input message is visible.

use std::collections::BTreeSet;

use crate::sim::evidence::Evidence;
use crate::sim::work::expected;

pub(super) fn check(evidence: &Evidence) -> Result<(), String> {
    let seen: BTreeSet<(&str, Option<&str>, &str)> = evidence
        .outputs
        .iter()
        .map(|seen| (&*seen.at.topic, seen.key.as_deref(), seen.value.as_str()))
        .collect();
    for (partition, inputs) in &evidence.inputs {
        for input in inputs {
            for output in expected(&input.value, &evidence.world) {
                let key = output.key.as_deref();
                if !seen.contains(&(output.topic.as_str(), key, output.value.as_str())) {
                    let value = &output.value;
                    return Err(format!("{partition}@{}: {value} is missing", input.offset));
                }
            }
        }
    }
    Ok(())
}
