//! Dead letters: what a message that was given up leaves behind.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use countersign_statemachine::PartitionId;
use countersign_statemachine::worker::{Cause, Failure};

use crate::dead_letter::{DeadLetter, LetterDisposition};

use super::Driver;
use super::run::Results;

/// Where dead letters go.
#[derive(Debug, Clone)]
pub(crate) struct LetterBox {
    pub(crate) topic: Arc<str>,
    /// How many partitions it has.
    pub(crate) partitions: u32,
    /// The consumer group that gives messages up.
    pub(crate) group: String,
}

/// A message that is given up.
pub(super) struct GivenUp {
    pub(super) partition: PartitionId,
    pub(super) epoch: u64,
    pub(super) offset: u64,
    pub(super) attempts: u32,
    pub(super) cause: Cause,
    pub(super) failure: Failure,
}

impl Driver {
    /// The dead letter takes the place of the message's outputs.
    pub(super) fn dead_letter(&mut self, given_up: GivenUp) {
        let GivenUp { partition: id, epoch, offset, attempts, cause, failure } = given_up;
        let Some(letters) = &self.letters else { return };
        let Some(shelf) = self.shelves.get_mut(&id).filter(|shelf| shelf.epoch == epoch) else {
            return;
        };
        let Some(record) = shelf.record(offset) else { return };
        let last_failed = now_ms();
        let letter = DeadLetter {
            disposition: match cause {
                Cause::AttemptsUsedUp => LetterDisposition::MaxDeliveryAttemptsReached,
                Cause::Rejected => LetterDisposition::ClientRejected,
            },
            partition: shelf.partition.clone(),
            offset,
            timestamp: record.timestamp(),
            group: letters.group.clone(),
            instance: self.author.instance.clone(),
            attempts,
            first_failed: shelf.first_failed(offset).unwrap_or(last_failed),
            last_failed,
            reason: failure.reason,
            error: failure.message,
        };
        // Letters of one partition stay together, in the order in which they are given up.
        let to = shelf.partition.partition % letters.partitions.max(1);
        let output = letter.output(&record, &letters.topic, to);
        shelf.keep(&Arc::new(Results::one(offset, output)));
    }
}

/// Milliseconds since the epoch.
pub(super) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
