//! Every output of every visible input message is visible.

use std::collections::BTreeSet;

use crate::sim::evidence::Evidence;

pub(super) fn check(evidence: &Evidence) -> Result<(), String> {
    let seen: BTreeSet<(&str, Option<&str>, &str)> = evidence
        .outputs
        .iter()
        .map(|seen| (&*seen.at.topic, seen.key.as_deref(), seen.value.as_str()))
        .collect();
    for (partition, inputs) in &evidence.inputs {
        for input in inputs {
            let id = crate::sim::work::number(&input.value);
            let wanted = evidence.wanted(partition, input);
            let is_letter =
                |topic: &str| evidence.world.letters.as_ref().is_some_and(|l| l.0 == topic);
            let is_given_up = evidence.is_passed_over(partition, input.offset)
                || wanted.iter().any(|it| is_letter(&it.topic));
            if evidence.world.is_hopeless(id) && !is_given_up {
                return Err(format!("{partition}@{}: its dead letter is missing", input.offset));
            }
            for output in wanted {
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
