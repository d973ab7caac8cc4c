//! What a producer slot is told.

use std::sync::Arc;
use std::time::Duration;

use countersign_statemachine::worker::Call;
use countersign_statemachine::{Author, PartitionId, Span};
use tokio::sync::watch;

use crate::kafka::{CommitOffset, Sizes, TopicPartition};

use super::results::Results;

/// What the worker orders of a slot.
#[derive(Debug)]
pub(super) enum Order {
    /// Create the producer anew and register its id.
    Open,
    /// Send the outputs of messages.
    Send(Sending),
    /// Wait for all delivery reports.
    Flush,
    /// Send the offsets and commit.
    Commit(Vec<CommitOffset>),
    /// Abort.
    Abort,
}

impl Order {
    /// The last call of those that it takes.
    pub(super) fn call(&self) -> Call {
        match self {
            Self::Open => Call::Open,
            Self::Send(_) => Call::Send,
            Self::Flush => Call::Flush,
            Self::Commit(_) => Call::Commit,
            Self::Abort => Call::Abort,
        }
    }
}

/// Outputs to be sent.
#[derive(Debug)]
pub(super) struct Sending {
    pub(super) id: PartitionId,
    pub(super) partition: TopicPartition,
    /// Who sends them.
    pub(super) author: Author,
    /// Which messages, of which results.
    pub(super) parts: Vec<(Span, Arc<Results>)>,
}

/// What a slot is told once.
#[derive(Debug, Clone)]
pub(super) struct SlotConfig {
    pub(super) slot: u32,
    /// Which of the slot's loops it is: one that hangs is replaced.
    pub(super) life: u64,
    pub(super) transactional_id: String,
    pub(super) transaction_timeout: Duration,
    pub(super) retry_backoff: Duration,
    pub(super) provenance: bool,
    /// How large batches may be, now.
    pub(super) sizes: watch::Receiver<Sizes>,
}

/// What a call is called while it is under way.
const NAMES: [(Call, &str); 6] = [
    (Call::Open, "init_transactions"),
    (Call::Send, "produce"),
    (Call::Flush, "flush"),
    (Call::SendOffsets, "send_offsets_to_transaction"),
    (Call::Commit, "commit_transaction"),
    (Call::Abort, "abort_transaction"),
];

/// The call of this name.
pub(super) fn call_of(name: &str) -> Option<Call> {
    NAMES.iter().find(|(_, known)| *known == name).map(|(call, _)| *call)
}

/// The name of this call.
pub(super) fn name_of(call: Call) -> &'static str {
    NAMES.iter().find(|(known, _)| *known == call).map_or("", |(_, name)| name)
}
