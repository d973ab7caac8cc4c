//! The record of an order that was carried out without an owner.

use std::path::Path;

use countersign_statemachine::{Entry, Event, Moved, Note, PartitionId, Reason, Span, State};
use thiserror::Error;

use super::Request;
use crate::store::{Journal, JournalOptions, PartitionName, StoreError, open_sled_for_inspection};
use crate::wall_clock::now_ms;

/// Why an order is not recorded; it is carried out all the same.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RecordError {
    /// The store has never seen the partition.
    #[error("the store has never seen {topic}/{partition}")]
    UnknownPartition {
        /// The topic.
        topic: String,
        /// The partition.
        partition: u32,
    },
    /// The store cannot be opened or written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Writes down in the store of a processor that does not run what was ordered, by whom and why.
/// Its next start would find out that the message is done, but not how.
///
/// # Errors
/// [`RecordError`].
pub fn record(store: &Path, request: &Request) -> Result<(), RecordError> {
    let inspected = Journal::inspect(Box::new(open_sled_for_inspection(store)?))?;
    let identity = inspected.identity().clone();
    drop(inspected);
    let options = JournalOptions::new(rand::random(), now_ms());
    let opened = Box::new(open_sled_for_inspection(store)?);
    let mut journal = Journal::open(opened, &identity, options)?;
    let is_meant = |(_, name): &(PartitionId, &PartitionName)| {
        name.topic == request.topic && name.partition == request.partition
    };
    let id = journal.partitions().filter(is_meant).last().map(|(id, _)| id);
    let Some(id) = id else {
        let (topic, partition) = (request.topic.clone(), request.partition);
        return Err(RecordError::UnknownPartition { topic, partition });
    };
    let state = journal.run_at(id, request.offset).map(|run| run.history.state);
    let entries = entries(id, request, state);
    journal.append(&entries, now_ms())?;
    Ok(journal.flush()?)
}

/// What happened to the message, whatever the store thinks of it.
fn entries(id: PartitionId, request: &Request, state: Option<State>) -> Vec<Entry> {
    let operator = Note::Operator { by: request.by.clone(), reason: request.reason.clone() };
    let events = match (request.verb.outcome(), state) {
        // Another tool set the offset back before.
        (_, Some(State::Confirmed(_))) => Vec::new(),
        (Some(outcome), _) => vec![(Event::FoundDone(outcome), operator)],
        (None, Some(State::InDoubt)) => vec![
            (Event::RolledBack(Reason::Crashed), Note::None),
            (Event::Intervened(request.verb), operator),
        ],
        (None, _) => vec![(Event::Intervened(request.verb), operator)],
    };
    let moved = |(event, note)| {
        Entry::Moved(Moved { partition: id, span: Span::one(request.offset), event, note })
    };
    events.into_iter().map(moved).collect()
}
