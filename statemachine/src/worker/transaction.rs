//! One transaction, the producer slots it may run on, and what a failed call leaves to do.
//!
//! ```text
//! filling --> flushing --> flushed --> committing --> done
//!    |            |           |            |  \
//!    `------------+-----------+------------'   `--reply lost--> in doubt --verdict--> done
//!                 |
//!              aborting --> done
//! ```

use std::collections::BTreeSet;
use std::time::Duration;

use crate::Disposition;
use crate::entry::PartitionId;

use super::Time;
use super::input::Call;
use super::partition::Sent;
use super::suspects::Load;

/// How far a transaction is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// It takes outputs.
    Filling,
    /// Its outputs are being acknowledged.
    Flushing,
    /// Its outputs are acknowledged; it waits for the transaction before it.
    Flushed,
    /// Its offsets and its end are being sent.
    Committing,
    /// It is being aborted, or its producer is being replaced, which aborts it.
    Aborting,
    /// It has nothing to commit and is being aborted without a word.
    Withdrawn,
    /// The reply to its commit was lost; its producer is being replaced, which decides it.
    InDoubt,
    /// It is decided, and the stable commits are being read to learn how.
    Deciding,
}

/// Why a transaction comes to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Loss {
    /// Its outputs were not delivered.
    Undelivered,
    /// One of its calls failed after so long that it may have been too large.
    Late,
    /// One of its calls failed for another reason.
    Failed,
    /// One of its outputs was refused.
    Refused,
    /// The one before it came to nothing.
    Followed,
    /// Partitions of it were lost.
    Lost,
}

impl Loss {
    /// What it means that a call failed.
    pub(crate) fn of(call: Call) -> Self {
        match call {
            Call::Send | Call::Flush => Self::Undelivered,
            Call::Open | Call::SendOffsets | Call::Commit | Call::Abort => Self::Failed,
        }
    }
}

#[derive(Debug)]
pub(crate) struct Transaction {
    pub(crate) number: u64,
    pub(crate) slot: u32,
    pub(crate) stage: Stage,
    pub(crate) began: Time,
    /// When its interval is over.
    pub(crate) due: Time,
    pub(crate) load: Load,
    /// Whether it holds as much memory as it may.
    pub(crate) is_large: bool,
    /// The partitions of which it holds messages.
    pub(crate) holds: BTreeSet<PartitionId>,
    /// How many messages it holds.
    pub(crate) messages: u64,
    /// How many of them were weighed.
    pub(crate) weighed: u64,
    /// How many bytes those have.
    pub(crate) bytes: u64,
    /// Since when it is flushed.
    pub(crate) closed: Option<Time>,
    /// How long its flush took, once it has ended.
    pub(crate) flush_took: Time,
    /// How many outputs each partition has in it, once it is flushed.
    pub(crate) outputs: Vec<(PartitionId, u64)>,
    /// Why it comes to nothing, if it does.
    pub(crate) loss: Option<Loss>,
    /// The messages whose outputs were refused.
    pub(crate) blamed: Vec<(PartitionId, u64, String)>,
    /// What it commits, once it is committing.
    pub(crate) sent: Vec<Sent>,
}

impl Transaction {
    pub(crate) fn new(number: u64, slot: u32, (began, due): (Time, Time), load: Load) -> Self {
        Self {
            number,
            slot,
            stage: Stage::Filling,
            began,
            due,
            load,
            is_large: false,
            holds: BTreeSet::new(),
            messages: 0,
            weighed: 0,
            bytes: 0,
            closed: None,
            flush_took: Time::ZERO,
            outputs: Vec::new(),
            loss: None,
            blamed: Vec::new(),
            sent: Vec::new(),
        }
    }

    /// Whether it can still be aborted without asking Kafka what became of it.
    pub(crate) fn is_open(&self) -> bool {
        match self.stage {
            Stage::Filling | Stage::Flushing | Stage::Flushed => true,
            Stage::Committing
            | Stage::Aborting
            | Stage::Withdrawn
            | Stage::InDoubt
            | Stage::Deciding => false,
        }
    }

    /// Whether it certainly comes to nothing.
    pub(crate) fn is_aborting(&self) -> bool {
        match self.stage {
            Stage::Aborting | Stage::Withdrawn => true,
            Stage::Filling
            | Stage::Flushing
            | Stage::Flushed
            | Stage::Committing
            | Stage::InDoubt
            | Stage::Deciding => false,
        }
    }

    /// Whether only Kafka knows how it ended.
    pub(crate) fn is_undecided(&self) -> bool {
        match self.stage {
            Stage::InDoubt | Stage::Deciding => true,
            Stage::Filling
            | Stage::Flushing
            | Stage::Flushed
            | Stage::Committing
            | Stage::Aborting
            | Stage::Withdrawn => false,
        }
    }
}

/// The producer of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Slot {
    /// It is being created and registered, which failed `tries` times before.
    Opening { tries: u32 },
    /// It could not be registered and is tried again.
    Closed { tries: u32, due: Time },
    /// It has no open transaction.
    Idle,
    /// A transaction is on it.
    Busy,
}

/// What a failed call leaves to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Abort the transaction; the producer stays.
    Abort,
    /// Replace the producer: that aborts the transaction, which certainly was not committed.
    Renew,
    /// Replace the producer and read the stable commits: the transaction may be committed.
    Doubt,
    /// Another process owns the transactional id.
    Fenced,
    /// Kafka refuses for good.
    Refused,
}

/// Decides by the call, the error's class and the transaction's age (`reliability.md`, 1.2).
///
/// librdkafka cannot tell a transaction that the coordinator timed out from one that a newer
/// producer fenced (KIP-588): one that is older than its time-out is taken for the former.
pub(crate) fn after(
    call: Call,
    disposition: Disposition,
    age: Duration,
    timeout: Duration,
) -> Step {
    let timed_out = age >= timeout;
    match (call, disposition) {
        (_, Disposition::Fenced) if !timed_out => Step::Fenced,
        (Call::Open, Disposition::Fenced) => Step::Fenced,
        (Call::Open | Call::Send | Call::Flush | Call::SendOffsets, Disposition::Permanent) => {
            Step::Refused
        }
        (
            Call::Commit,
            Disposition::Retriable
            | Disposition::Fenced
            | Disposition::Fatal
            | Disposition::Permanent,
        ) => Step::Doubt,
        (Call::Send | Call::Flush, Disposition::Retriable | Disposition::Abortable)
        | (Call::SendOffsets | Call::Commit, Disposition::Abortable) => Step::Abort,
        (Call::Open, Disposition::Retriable | Disposition::Abortable | Disposition::Fatal)
        | (Call::Send | Call::Flush, Disposition::Fenced | Disposition::Fatal)
        | (Call::SendOffsets, Disposition::Retriable | Disposition::Fenced | Disposition::Fatal)
        | (Call::Abort, _) => Step::Renew,
    }
}

/// The duration rule: whether a call took so long that a copy of its request may arrive late and
/// end or change the producer's *next* transaction while every call says `Ok`.
///
/// librdkafka never sends a request again before `retry.backoff.ms` less 20 % jitter
/// (`rd_kafka_broker_buf_retry`), and repeats `TxnOffsetCommit` after a fixed 500 ms.
pub fn is_suspicious(call: Call, took: Duration, retry_backoff: Duration) -> bool {
    match call {
        Call::Commit | Call::Abort => took >= retry_backoff.mul_f64(0.8),
        Call::SendOffsets => took >= Duration::from_millis(400),
        Call::Open | Call::Send | Call::Flush => false,
    }
}

#[cfg(test)]
#[path = "transaction_test.rs"]
mod tests;
