//! All outputs of a message and the offset that passes it are of one transaction.

use std::collections::BTreeMap;

use countersign::commit_metadata::disarm;
use countersign::kafka::{Committed, TopicPartition};
use countersign::statemachine::CommitMetadata;

use crate::model::CommitRecord;
use crate::sim::evidence::Evidence;

pub(super) fn check(evidence: &Evidence) -> Result<(), String> {
    let mut of_message: BTreeMap<(&TopicPartition, u64), u64> = BTreeMap::new();
    for seen in &evidence.outputs {
        let Some(provenance) = &seen.provenance else { continue };
        let Some(transaction) = seen.transaction else {
            return Err(format!("{}@{} is in no transaction", seen.at, seen.offset));
        };
        let message = (&provenance.partition, provenance.offset);
        let first = *of_message.entry(message).or_insert(transaction);
        if first != transaction {
            let (partition, offset) = message;
            return Err(format!(
                "the outputs of {partition}@{offset} are in transactions {first} and {transaction}"
            ));
        }
    }
    for ((partition, offset), transaction) in of_message {
        let history = evidence.commits.get(partition).map(Vec::as_slice).unwrap_or_default();
        let passed_by = passing(history, offset);
        if passed_by != Some(transaction) {
            return Err(format!(
                "the outputs of {partition}@{offset} are in transaction {transaction}, \
                 and its offset in {passed_by:?}; commits in the group's log: {}",
                told(history)
            ));
        }
    }
    Ok(())
}

fn told(history: &[CommitRecord]) -> String {
    let tell = |record: &CommitRecord| {
        let offset = record.committed.as_ref().map(|committed| committed.offset);
        format!("{offset:?} of {:?} at {}", record.transaction, record.position)
    };
    history.iter().map(tell).collect::<Vec<_>>().join(", ")
}

/// The transaction of the first commit that says that an offset is done, in the order of the
/// group's own log: the markers of a pipelined transaction may be written before those of the one
/// before it.
fn passing(history: &[CommitRecord], offset: u64) -> Option<u64> {
    let beyond =
        |record: &&CommitRecord| record.committed.as_ref().is_some_and(|it| is_done(it, offset));
    history.iter().filter(beyond).min_by_key(|record| record.position)?.transaction
}

fn is_done(committed: &Committed, offset: u64) -> bool {
    let listed = || {
        let bytes = disarm(&committed.metadata).ok()?;
        let metadata = CommitMetadata::decode(committed.offset, &bytes).ok()?;
        Some(metadata.completed.iter().any(|span| span.contains(offset)))
    };
    committed.offset > offset || listed() == Some(true)
}
