//! Dead letters: what a message that was given up leaves behind.

use std::sync::Arc;

use countersign_statemachine::worker::{Cause, GivenUp, Input};

use crate::dead_letter::{DeadLetter, LetterDisposition};
use crate::kafka::{Output, batch_bytes};
use crate::limits::Limit;
use crate::origin::Origin;
use crate::provenance::Mark;
use crate::wall_clock::now_ms;

use super::Driver;
use super::results::Results;

/// Where dead letters go.
#[derive(Debug, Clone)]
pub(crate) struct LetterBox {
    pub(crate) topic: Arc<str>,
    /// How many partitions it has.
    pub(crate) partitions: u32,
    /// The consumer group that gives messages up.
    pub(crate) group: String,
    /// How large a letter may be.
    pub(crate) limit: Limit,
}

impl Driver {
    /// The dead letter takes the place of the message's outputs.
    pub(super) fn dead_letter(&mut self, given_up: GivenUp) {
        let GivenUp { partition: id, epoch, offset, attempts, cause, failure } = given_up;
        let Some(letters) = &self.destinations.letters else { return };
        let Some(shelf) = self.shelves.get_mut(&id).filter(|shelf| shelf.epoch == epoch) else {
            return;
        };
        let Some(record) = shelf.record(offset) else { return };
        let last_failed = now_ms();
        let first_failed = shelf.first_failed(offset).unwrap_or(last_failed);
        // As Kafka writes times.
        let signed = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX);
        let mut letter = DeadLetter {
            disposition: match cause {
                Cause::BudgetUsedUp => LetterDisposition::RetryBudgetExhausted,
                Cause::AttemptsUsedUp => LetterDisposition::MaxDeliveryAttemptsReached,
                Cause::Rejected => LetterDisposition::ClientRejected,
                Cause::PoisonPill => LetterDisposition::PoisonPill,
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
            class: failure.class.as_deref().map(ToOwned::to_owned),
            error: failure.message,
            origin: self.known.get(&id).map(|known| Origin {
                topic_id: known.topic_id,
                partition: known.partition.clone(),
                offset,
            }),
        };
        // Letters of one partition stay together, in the order in which they are given up.
        let to = shelf.partition.partition % letters.partitions.max(1);
        let mark = self.provenance.then(|| {
            Mark::bytes_max(&self.author, &shelf.partition) + Mark::own_bytes(offset, 1, 1)
        });
        let (mut output, limit) = (letter.output(&record, &letters.topic, to), &letters.limit);
        if let Some(excess) = excess(&output, mark, limit) {
            letter.shorten(excess);
            output = letter.output(&record, &letters.topic, to);
        }
        let excess = excess(&output, mark, limit);
        // It is kept even if it cannot be sent: its message must not be passed without it.
        shelf.keep(&Arc::new(Results::of(offset, vec![output], &shelf.share)));
        if let Some(excess) = excess {
            let (topic, error) = (&letters.topic, &letter.error);
            let most = limit.bytes().unwrap_or_default();
            let message = format!(
                "its dead letter is {excess} bytes larger than the {most} that topic {topic:?} \
                 takes (max.message.bytes); raise that; the error was: {error}"
            );
            self.handle(Input::LetterTooLarge { partition: id, epoch, offset, message });
        }
    }
}

/// By how much a letter is too large.
fn excess(letter: &Output, mark: Option<usize>, limit: &Limit) -> Option<usize> {
    let limit = limit.bytes()?;
    batch_bytes(letter, mark).checked_sub(limit).filter(|excess| *excess > 0)
}
