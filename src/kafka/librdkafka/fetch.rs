//! Gathers the records of one poll into one batch per partition.

use countersign_statemachine::Disposition;
use rdkafka::error::RDKafkaErrorCode as Code;

use super::classify::{Failure, Unflagged, classify};
use super::events;
use super::raw::Message;
use super::rights::Names;
use crate::kafka::{BatchBuilder, KafkaError, PollLimit, Polled, TopicPartition};

/// A batch starts with room for as much as its partition's last one had, but not for more than
/// this: a small batch after a large one would hold the memory.
const MOST_RECORDS: usize = 4_096;
const MOST_BYTES: usize = 256 * 1_024;

/// The batches being filled.
#[derive(Debug, Default)]
pub(super) struct Batches {
    slots: Vec<Slot>,
    /// The slots with a batch, in the order of their first records.
    open: Vec<usize>,
    /// The slot of the last record; records come in runs of one partition.
    last: usize,
    records: usize,
    bytes: usize,
}

#[derive(Debug)]
struct Slot {
    /// Kept between polls, so that a record's partition is compared and not allocated.
    partition: TopicPartition,
    batch: Option<BatchBuilder>,
    last_records: usize,
    last_bytes: usize,
}

impl Batches {
    /// How many records wait.
    pub(super) fn records(&self) -> usize {
        self.records
    }

    /// Whether no more may be taken. A limit below one counts as one, since a record cannot be put
    /// back.
    pub(super) fn is_full(&self, limit: PollLimit) -> bool {
        self.records >= limit.records.max(1) || self.bytes >= limit.bytes.max(1)
    }

    /// Adds a record.
    pub(super) fn push(&mut self, message: &Message<'_>) {
        let Ok(offset) = u64::try_from(message.offset()) else { return };
        let index = self.slot(message);
        let slot = &mut self.slots[index];
        if slot.batch.is_none() {
            self.open.push(index);
        }
        let batch = slot.batch.get_or_insert_with(|| {
            let mut batch = BatchBuilder::new(slot.partition.clone());
            batch.reserve(slot.last_records.min(MOST_RECORDS), slot.last_bytes.min(MOST_BYTES));
            batch
        });
        let before = (batch.len(), batch.bytes());
        batch.push(offset, message.timestamp(), message.key(), message.value(), message.headers());
        self.records += batch.len() - before.0;
        self.bytes += batch.bytes() - before.1;
    }

    fn slot(&mut self, message: &Message<'_>) -> usize {
        let is = |slot: &Slot| {
            slot.partition.partition == message.partition()
                && slot.partition.topic.as_bytes() == message.topic()
        };
        if self.slots.get(self.last).is_some_and(is) {
            return self.last;
        }
        self.last = self.slots.iter().position(is).unwrap_or_else(|| {
            let topic = String::from_utf8_lossy(message.topic());
            let partition = TopicPartition::new(topic, message.partition());
            self.slots.push(Slot { partition, batch: None, last_records: 0, last_bytes: 0 });
            self.slots.len() - 1
        });
        self.last
    }

    /// Hands one partition's batch over, so that what follows in its log stands after it.
    pub(super) fn finish_partition(
        &mut self,
        partition: &TopicPartition,
        polled: &mut Vec<Polled>,
    ) {
        let slots = &self.slots;
        let Some(place) = self.open.iter().position(|index| slots[*index].partition == *partition)
        else {
            return;
        };
        let index = self.open.remove(place);
        self.close(index, polled);
    }

    /// Hands all batches over.
    pub(super) fn finish(&mut self, polled: &mut Vec<Polled>) {
        for index in std::mem::take(&mut self.open) {
            self.close(index, polled);
        }
        self.records = 0;
        self.bytes = 0;
    }

    fn close(&mut self, index: usize, polled: &mut Vec<Polled>) {
        let slot = &mut self.slots[index];
        if let Some(batch) = slot.batch.take() {
            slot.last_records = batch.len();
            slot.last_bytes = batch.bytes();
            polled.push(Polled::Records(batch.build()));
        }
    }

    /// Forgets what is known of partitions. Between polls only, when no batch is open.
    pub(super) fn forget(&mut self, partitions: &[TopicPartition]) {
        self.slots.retain(|slot| !partitions.contains(&slot.partition));
        self.last = 0;
    }
}

/// Takes in a record, or the error that came in its place.
pub(super) fn take(
    batches: &mut Batches,
    names: &Names,
    message: &Message<'_>,
    polled: &mut Vec<Polled>,
) -> Result<(), KafkaError> {
    match message.fault() {
        None => {
            batches.push(message);
            Ok(())
        }
        Some(failure) => {
            fail(batches, names, failure, || Some((message.place()?, message.offset())), polled)
        }
    }
}

/// Deals with an error; `place` tells which partition it is about, and where in it.
pub(super) fn fail(
    batches: &mut Batches,
    names: &Names,
    failure: Failure,
    place: impl FnOnce() -> Option<(TopicPartition, i64)>,
    polled: &mut Vec<Polled>,
) -> Result<(), KafkaError> {
    if failure.fatal {
        return Err(classify("poll", failure, Unflagged::Fatal));
    }
    match (failure.code, place()) {
        (Code::PartitionEOF, Some((partition, offset))) => {
            if let Ok(offset) = u64::try_from(offset) {
                batches.finish_partition(&partition, polled);
                polled.push(Polled::End { partition, offset });
            }
        }
        (Code::AutoOffsetReset | Code::OffsetOutOfRange, Some((partition, _))) => {
            tracing::warn!(%partition, "{}", failure.message);
            polled.push(Polled::OutOfRange(partition));
        }
        (Code::BadMessage | Code::BadCompression | Code::NotImplemented, Some((at, offset))) => {
            return Err(events::unreadable(&failure, &at, offset));
        }
        (code, place) => polled.push(refusal(names, code, failure, place)),
    }
    Ok(())
}

/// What a member is refused for good, or a passing fault. A connection that fails for its
/// credentials is one of several.
fn refusal(
    names: &Names,
    code: Code,
    failure: Failure,
    place: Option<(TopicPartition, i64)>,
) -> Polled {
    let place = place.map(|(partition, _)| partition);
    let topic = place.as_ref().map(|place| &*place.topic);
    let failure = names.explain(failure, topic.as_slice());
    // A topic that cannot be subscribed to has no partition.
    let partition = place.filter(|place| i32::try_from(place.partition).is_ok());
    let error = classify("poll", failure, Unflagged::Retriable);
    let is_of_connection = matches!(
        code,
        Code::SSL
            | Code::Authentication
            | Code::SaslAuthenticationFailed
            | Code::UnsupportedSASLMechanism
    );
    match error.disposition {
        Disposition::Permanent if !is_of_connection => Polled::Refused { partition, error },
        Disposition::Permanent
        | Disposition::Retriable
        | Disposition::Abortable
        | Disposition::Fatal
        | Disposition::Fenced => Polled::Fault(error),
    }
}
