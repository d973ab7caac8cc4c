//! Dead letters: what a message that was given up leaves behind.

use std::sync::Arc;

use countersign_statemachine::worker::{Cause, GivenUp};

use crate::dead_letter::{DeadLetter, LetterDisposition};
use crate::wall_clock::now_ms;

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
        let first_failed = shelf.first_failed(offset).unwrap_or(last_failed);
        // As Kafka writes times.
        let signed = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX);
        let letter = DeadLetter {
            disposition: match cause {
                Cause::AttemptsUsedUp => LetterDisposition::MaxDeliveryAttemptsReached,
                Cause::Rejected => LetterDisposition::ClientRejected,
                Cause::Operator => LetterDisposition::Operator,
            },
            partition: shelf.partition.clone(),
            offset,
            timestamp: record.timestamp(),
            group: letters.group.clone(),
            instance: self.author.instance.clone(),
            attempts,
            first_failed: signed(first_failed),
            last_failed: signed(last_failed),
            reason: failure.reason,
            error: failure.message,
        };
        // Letters of one partition stay together, in the order in which they are given up.
        let to = shelf.partition.partition % letters.partitions.max(1);
        let output = letter.output(&record, &letters.topic, to);
        shelf.keep(&Arc::new(Results::one(offset, output)));
    }
}
