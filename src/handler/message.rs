//! What a handler is given.

use crate::kafka::{Record, TopicPartition};

/// An input message with its decoded value.
#[derive(Debug, Clone)]
pub struct Message<T = ()> {
    record: Record,
    attempt: u32,
    value: T,
}

impl Message {
    pub(crate) fn new(record: Record, attempt: u32) -> Self {
        Self { record, attempt, value: () }
    }

    pub(crate) fn with<T>(self, value: T) -> Message<T> {
        Message { record: self.record, attempt: self.attempt, value }
    }
}

impl<T> Message<T> {
    /// The decoded value.
    pub fn value(&self) -> &T {
        &self.value
    }

    /// Takes the decoded value.
    pub fn into_value(self) -> T {
        self.value
    }

    /// The record as it was read: bytes, headers, timestamp.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// The partition it was read from.
    pub fn partition(&self) -> &TopicPartition {
        self.record.partition()
    }

    /// Its offset.
    pub fn offset(&self) -> u64 {
        self.record.offset()
    }

    /// The key's bytes.
    pub fn key(&self) -> Option<&[u8]> {
        self.record.key()
    }

    /// Which try this is, from 1. Crashes, aborted transactions and rebalances do not count.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// A key for systems outside of Kafka, which may see a message more than once: the same for
    /// every delivery of this message, and for no other message.
    pub fn idempotency_key(&self) -> String {
        format!("{}@{}", self.partition(), self.offset())
    }
}
