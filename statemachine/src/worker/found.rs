//! What Kafka and the store know of a partition that is taken up.

use crate::first_start::{Beginning, Recorded};
use crate::metadata::MetadataError;
use crate::runs::Run;

/// What is known of a partition that was just given to this worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The stable commit.
    pub commit: Option<Commit>,
    /// What is committed of the topic's other partitions; only if this one has no commit.
    pub siblings: Siblings,
    /// Whether the store has a record of a message of it that is done.
    pub known: bool,
    /// The first offset in the log.
    pub log_start: u64,
    /// The last stable offset.
    pub log_end: u64,
    /// The topic's id.
    pub topic_id: [u8; 16],
    /// The store's record of it.
    pub runs: Vec<Run>,
}

/// What is committed of a topic's other partitions, where one has no commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Siblings {
    /// Nothing: the group begins to read the topic. `None` if it has one partition only, or does
    /// not begin at the end.
    None(Option<Beginning>),
    /// Something, which says so much of this one.
    Some(Recorded),
}

/// A committed offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// The next offset to consume.
    pub offset: u64,
    /// Its metadata.
    pub label: Label,
}

/// The metadata of a committed offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Label {
    /// Empty or written by another tool: the offset was set from outside.
    Foreign(String),
    /// Written by a Countersign.
    Ours(Vec<u8>),
    /// Written by a Countersign, and its text cannot be read. It must never count as empty: what
    /// it says of messages that are done is not known.
    Unreadable(MetadataError),
}
