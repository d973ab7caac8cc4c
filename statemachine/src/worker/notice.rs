//! What the worker tells people.

use crate::entry::PartitionId;
use crate::span::Span;
use crate::state::Verb;

use super::effect::{Cause, Renewal};

/// Something an operator should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// A partition is given to this worker, and this is where it starts.
    Recovered {
        /// Which partition.
        partition: PartitionId,
        /// The next offset to be read.
        offset: u64,
        /// Messages that an earlier process left unfinished and Kafka shows as done.
        found_done: u64,
        /// Messages that an earlier process left unfinished and that are handled again.
        again: u64,
    },
    /// The committed offset was set by another tool.
    OutsideReset {
        /// Which partition.
        partition: PartitionId,
        /// The committed offset.
        offset: u64,
    },
    /// The committed offset is below messages that were confirmed: they are handled again.
    Rewound {
        /// Which partition.
        partition: PartitionId,
        /// From where on.
        span: Span,
    },
    /// The last owner ended without letting the partition go.
    TakenOver {
        /// Which partition.
        partition: PartitionId,
        /// The committed offset.
        offset: u64,
        /// How often that has happened with this offset.
        takeovers: u32,
    },
    /// A message may have ended the process: from now on they are tried one at a time.
    CarefulBegun {
        /// Which partition.
        partition: PartitionId,
        /// The messages that may have been under way.
        span: Span,
    },
    /// All of them are done.
    CarefulEnded {
        /// Which partition.
        partition: PartitionId,
        /// The committed offset.
        offset: u64,
    },
    /// A message is tried while nothing else is handled.
    Tried {
        /// Which partition.
        partition: PartitionId,
        /// Which message.
        offset: u64,
        /// Which of its announced deliveries it is.
        delivery: u32,
        /// How many it may have.
        most: u32,
    },
    /// The reply to a commit was lost.
    InDoubt {
        /// The transaction's number.
        number: u64,
        /// The error.
        message: String,
    },
    /// A transaction in doubt was decided.
    Decided {
        /// The transaction's number.
        number: u64,
        /// Whether it was committed.
        committed: bool,
    },
    /// A transaction was aborted.
    Aborted {
        /// The transaction's number.
        number: u64,
        /// The error.
        message: String,
    },
    /// A message failed and is tried again.
    Retry {
        /// Which partition.
        partition: PartitionId,
        /// Which message.
        offset: u64,
        /// How often it has failed.
        attempt: u32,
        /// When it is tried again, in milliseconds from now.
        wait_ms: u64,
        /// The error.
        message: String,
    },
    /// A message is given up and becomes a dead letter.
    DeadLettered {
        /// Which partition.
        partition: PartitionId,
        /// Which message.
        offset: u64,
        /// How often it has failed.
        attempts: u32,
        /// Why it is given up.
        cause: Cause,
        /// The error.
        message: String,
    },
    /// An operator's order is being carried out.
    Intervened {
        /// Which partition.
        partition: PartitionId,
        /// Which message.
        offset: u64,
        /// What is to become of it.
        verb: Verb,
        /// Who ordered it.
        by: String,
        /// Why.
        reason: String,
    },
    /// Too much fails: single messages are tried until one succeeds.
    BreakerOpened {
        /// The last error.
        message: String,
    },
    /// A message succeeded: everything is handled again.
    BreakerClosed,
    /// A producer is created anew.
    Renewing {
        /// Which slot.
        slot: u32,
        /// Why.
        why: Renewal,
    },
}
