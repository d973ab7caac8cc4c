//! What the worker asks the store to write down.

use serde::{Deserialize, Serialize};

use crate::metadata::Author;
use crate::span::Span;
use crate::transition::Event;

/// A partition, by the number that the store gave it. The shell knows its topic.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
pub struct PartitionId(pub u32);

/// One line of the store's journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Entry {
    /// Something happened to a span of messages.
    Moved(Moved),
    /// A transaction ended, or its end was learned.
    Transaction(TransactionRecord),
}

/// Something happened to every message of a span.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moved {
    /// Which partition.
    pub partition: PartitionId,
    /// Which messages.
    pub span: Span,
    /// What happened.
    pub event: Event,
    /// What else is known of it.
    pub note: Note,
}

/// What is known of an event beyond the event itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Note {
    /// Nothing.
    None,
    /// It happened in this process's transaction of this number.
    Transaction(u64),
    /// The message failed with this error.
    Failure(String),
    /// Kafka's commit names this author.
    Author(Author),
    /// An operator ordered it.
    Operator {
        /// Who.
        by: String,
        /// Why.
        reason: String,
    },
}

/// A transaction as it is remembered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransactionRecord {
    /// Who made it.
    pub author: Author,
    /// The producer slot it was made on.
    pub slot: u32,
    /// How it ended.
    pub end: End,
    /// How long it was open, in microseconds.
    pub open_us: u64,
    /// What it held, per partition.
    pub parts: Vec<Part>,
}

/// How a transaction ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum End {
    /// Kafka confirmed the commit.
    Committed,
    /// The reply was lost, and the stable commit shows that it was committed.
    FoundCommitted,
    /// It was aborted, or the stable commit shows that it was not committed.
    Aborted,
    /// The reply was lost.
    InDoubt,
}

/// What a transaction held of one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Which partition.
    pub partition: PartitionId,
    /// From its first to its last message; `None` if it moved the position only.
    pub span: Option<Span>,
    /// How many messages.
    pub messages: u64,
    /// How many outputs they had.
    pub outputs: u64,
    /// The offset it committed.
    pub offset: u64,
}
