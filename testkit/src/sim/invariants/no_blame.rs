//! Only a message that was announced by as many processes as it may end is taken for a poison pill,
//! and every poison pill is, unless a person has decided about it.

use std::collections::BTreeSet;

use countersign::commit_metadata::disarm;
use countersign::dead_letter::LetterDisposition;
use countersign::kafka::TopicPartition;
use countersign::statemachine::CommitMetadata;

use crate::sim::evidence::{Evidence, Seen};
use crate::sim::work::number;

/// What the processors of all worlds are told by default.
const DELIVERIES: usize = 3;

pub(super) fn check(evidence: &Evidence) -> Result<(), String> {
    let pills = evidence.outputs.iter().filter(|seen| is_poison(seen));
    for letter in pills.clone() {
        let Some(origin) = &letter.provenance else { continue };
        let announced = announced(evidence, &origin.partition, origin.offset);
        if announced < DELIVERIES {
            let at = format!("{}@{}", origin.partition, origin.offset);
            return Err(format!("{at} is blamed; {announced} processes had announced it"));
        }
    }
    let found: BTreeSet<&str> = pills.map(|seen| seen.value.as_str()).collect();
    for (partition, inputs) in &evidence.inputs {
        for input in inputs.iter().filter(|it| evidence.world.is_pill(number(&it.value))) {
            let letter = evidence.letter(partition, input.offset);
            let is_decided = evidence.is_passed_over(partition, input.offset)
                || letter.is_some_and(|seen| seen.disposition == Some(LetterDisposition::Operator));
            if !is_decided && !found.contains(&*String::from_utf8_lossy(&input.value)) {
                return Err(format!("{partition}@{}: the poison pill is not found", input.offset));
            }
        }
    }
    Ok(())
}

fn is_poison(seen: &Seen) -> bool {
    seen.disposition == Some(LetterDisposition::PoisonPill)
}

/// By how many processes a message was announced.
fn announced(evidence: &Evidence, partition: &TopicPartition, offset: u64) -> usize {
    let history = evidence.commits.get(partition).into_iter().flatten();
    let authors = history.filter_map(|record| {
        let committed = record.committed.as_ref()?;
        let bytes = disarm(&committed.metadata).ok()?;
        let metadata = CommitMetadata::decode(committed.offset, &bytes).ok()?;
        let trial = metadata.trial.filter(|trial| trial.announced && trial.offset == offset)?;
        (trial.offset == offset).then_some(metadata.author.incarnation)
    });
    authors.collect::<BTreeSet<u64>>().len()
}
