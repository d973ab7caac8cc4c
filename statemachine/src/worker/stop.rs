//! Why a worker ends by itself.

use thiserror::Error;

use crate::entry::PartitionId;

use super::input::{Call, Ground};

/// Why a worker stopped by itself.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum StopReason {
    /// Another process took the transactional id.
    #[error("slot {slot} was fenced by another owner of its transactional id: {message}")]
    Fenced {
        /// Which slot.
        slot: u32,
        /// The error.
        message: String,
    },
    /// Kafka refuses for good.
    #[error("{call:?} was refused for good: {message}")]
    Refused {
        /// Which call.
        call: Call,
        /// The error.
        message: String,
    },
    /// Kafka does not let the group's member do its work.
    #[error("{message}")]
    Denied {
        /// Why not.
        ground: Ground,
        /// The error.
        message: String,
    },
    /// A message failed in a way that policy does not allow to pass over.
    #[error(
        "the message at offset {offset} stops the processor after {attempts} attempts: {message}"
    )]
    Message {
        /// Which partition.
        partition: PartitionId,
        /// Which message.
        offset: u64,
        /// How often it has failed.
        attempts: u32,
        /// The error.
        message: String,
    },
    /// A message ends the process each time it is handled, and policy does not allow to pass over
    /// it.
    #[error(
        "the message at offset {offset} stops the processor: the process ended in each of the \
         {deliveries} times that it was handled with nothing beside it"
    )]
    PoisonPill {
        /// Which partition.
        partition: PartitionId,
        /// Which message.
        offset: u64,
        /// How often it ended the process while it was announced.
        deliveries: u32,
    },
    /// So much fails that policy does not allow to go on.
    #[error("too many messages fail, the last one at offset {offset}: {message}")]
    Breaker {
        /// Which partition.
        partition: PartitionId,
        /// The message that failed last.
        offset: u64,
        /// The error.
        message: String,
    },
    /// The committed offset cannot be worked with.
    #[error("{source}")]
    Position {
        /// Which partition.
        partition: PartitionId,
        /// What is wrong with it.
        source: PositionError,
    },
    /// The store cannot be written.
    #[error("the store failed: {0}")]
    Store(String),
    /// What Kafka shows contradicts the protocol.
    #[error("the commits of transaction {number} contradict each other: partly committed")]
    Torn {
        /// The transaction's number.
        number: u64,
    },
}

/// Why the committed offset of a partition cannot be worked with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum PositionError {
    /// The group had commits, and has none any more.
    #[error(
        "the group has no committed offset though the store knows it: it expired or was deleted; \
         set one with kafka-consumer-groups --reset-offsets, or allow the start policy to decide"
    )]
    Expired,
    /// The topic was deleted and created again.
    #[error("the committed offset {offset} belongs to a deleted topic of the same name")]
    OtherTopic {
        /// The committed offset.
        offset: u64,
    },
    /// The committed offset lies beyond the log.
    #[error("the committed offset {offset} lies beyond the end {end} of the log")]
    BeyondEnd {
        /// The committed offset.
        offset: u64,
        /// The last stable offset.
        end: u64,
    },
    /// The messages after the committed offset are no longer in the log.
    #[error(
        "{lost} messages from the committed offset {offset} on were deleted before they were read"
    )]
    BelowStart {
        /// The committed offset.
        offset: u64,
        /// How many offsets are gone.
        lost: u64,
    },
    /// The group began to read the topic at its end, and it is not known where this partition ended
    /// then.
    #[error(
        "the group began to read this topic at its end, and no commit says where this partition \
         ended then: set its offset with kafka-consumer-groups --reset-offsets"
    )]
    NoStart,
    /// Where to begin stands in the commit of another partition, which cannot be read.
    #[error(
        "it has no committed offset, and the metadata of the committed offset {offset} of \
         partition {number}, which may say where to begin, cannot be read: {source}; {}",
        source.advice()
    )]
    Sibling {
        /// The number of that partition.
        number: u32,
        /// Its committed offset.
        offset: u64,
        /// Why.
        source: crate::MetadataError,
    },
    /// The commit's metadata cannot be read.
    #[error(
        "the metadata of the committed offset {offset} cannot be read: {source}; {}",
        source.advice()
    )]
    Metadata {
        /// The committed offset.
        offset: u64,
        /// Why.
        source: crate::MetadataError,
    },
}
