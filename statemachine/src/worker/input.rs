//! What the shell tells the worker.

use std::fmt;
use std::sync::Arc;
use thiserror::Error;

use crate::Disposition;
use crate::entry::PartitionId;
use crate::span::Span;
use crate::state::{Reason, Verb};

use super::found::{Commit, Found};

/// Something that happened outside.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// The group gives these partitions; answered by [`Effect::Recover`] and one
    /// [`Effect::Assign`].
    ///
    /// [`Effect::Recover`]: super::Effect::Recover
    /// [`Effect::Assign`]: super::Effect::Assign
    Assigned(Vec<PartitionId>),
    /// What Kafka and the store know of partitions, each with its ownership; answers `Recover`.
    Recovered(Vec<(PartitionId, u64, Found)>),
    /// Kafka does not tell yet where these partitions stand, each with its ownership, and is asked
    /// again: one has no leader, or another owner's transaction is open. The others need not wait.
    Unready(Vec<(PartitionId, u64)>),
    /// The group takes these partitions back; answered by one `Unassign`.
    Revoked(Vec<PartitionId>),
    /// These partitions may have another owner already; answered by one `Unassign`.
    Lost(Vec<PartitionId>),
    /// Messages were read: dense spans in rising order.
    Received {
        /// Which partition.
        partition: PartitionId,
        /// The ownership under which they were polled.
        epoch: u64,
        /// Which offsets.
        spans: Vec<Span>,
        /// In `order = key` a hash of each message's key, in the same order; else nothing.
        keys: Vec<u64>,
    },
    /// Other partitions need the memory that messages of this one take: what was read from this
    /// offset on and not begun is to be read again later. Answered by `ReadAgain` if there is any.
    Crowded {
        /// Which partition.
        partition: PartitionId,
        /// The ownership under which they were read.
        epoch: u64,
        /// From which offset on.
        from: u64,
    },
    /// How many messages of a partition may be under way at once, as far as memory goes: at first
    /// any number. With 0 only the first that is not done is handled, and nothing beside it.
    Memory {
        /// Which partition.
        partition: PartitionId,
        /// The ownership that it is for.
        epoch: u64,
        /// How many.
        messages: u64,
    },
    /// Reading reached the end of what is stable.
    AtEnd {
        /// Which partition.
        partition: PartitionId,
        /// The ownership under which it was polled.
        epoch: u64,
        /// The next offset to be read.
        offset: u64,
    },
    /// A store write is flushed.
    Stored {
        /// The write's number.
        write: u64,
    },
    /// Handlers ended well for a prefix of what is running in a lane.
    Finished {
        /// Which partition.
        partition: PartitionId,
        /// The ownership under which they ran.
        epoch: u64,
        /// Which lane.
        lane: u64,
        /// Which messages, in order.
        spans: Vec<Span>,
    },
    /// A handler failed; nothing after it in its lane was started.
    Failed {
        /// Which partition.
        partition: PartitionId,
        /// The ownership under which it ran.
        epoch: u64,
        /// Which lane.
        lane: u64,
        /// Which message.
        offset: u64,
        /// What went wrong.
        failure: Failure,
    },
    /// The dead letter of a message is larger than its topic takes; nothing of it was sent.
    LetterTooLarge {
        /// Which partition.
        partition: PartitionId,
        /// The ownership under which the message was given up.
        epoch: u64,
        /// Which message.
        offset: u64,
        /// The error, for people.
        message: String,
    },
    /// The handler of a lane was interrupted; what did not finish was not started.
    Yielded {
        /// Which partition.
        partition: PartitionId,
        /// The ownership under which it ran.
        epoch: u64,
        /// Which lane.
        lane: u64,
    },
    /// Kafka does not let the group's member do its work, and goes on refusing by itself. It is
    /// told again and again, for as long as it is so.
    Denied {
        /// What it is not let do.
        denied: Denied,
        /// Why.
        ground: Ground,
        /// The error, for people.
        message: String,
    },
    /// No other handler of the process runs, and none starts before `EndSolo`; answers `AskSolo`.
    Solo,
    /// Something happened on a producer slot.
    Slot(u32, SlotEvent),
    /// The stable commits of partitions; answers `ReadCommits`.
    Commits {
        /// The transaction that is in doubt.
        number: u64,
        /// What is committed, for each partition asked for.
        commits: Vec<(PartitionId, Option<Commit>)>,
    },
    /// This transaction holds so much of the memory for input that it had better end, so that there
    /// is room for what follows while it is flushed.
    Large {
        /// Which one.
        number: u64,
    },
    /// Which partitions of the topics have no commit, by number; answers `AskUncommitted`.
    Uncommitted(Vec<(PartitionId, Vec<u32>)>),
    /// How much memory messages hold that are sent in a transaction; told once for each `Send`.
    Weighed {
        /// Which transaction.
        number: u64,
        /// How many messages.
        messages: u64,
        /// How many bytes they hold.
        bytes: u64,
    },
    /// Producers are made with other settings from now on.
    Outdated,
    /// An operator's order about one message; answered by [`Effect::Answer`].
    ///
    /// [`Effect::Answer`]: super::Effect::Answer
    Intervene(PartitionId, Intervention),
    /// Finish what runs, commit, release, leave.
    Drain,
    /// The store cannot be written.
    StoreFailed(String),
    /// Nothing but time passed.
    Tick,
}

/// What happened on a producer slot.
#[derive(Debug, Clone, PartialEq)]
pub enum SlotEvent {
    /// The transactional id is registered: older producers are fenced and their transaction ended.
    Opened,
    /// All records of the open transaction are acknowledged.
    Flushed {
        /// How many outputs each partition had.
        outputs: Vec<(PartitionId, u64)>,
    },
    /// The transaction is committed.
    Committed {
        /// A late copy of a request may still be under way; see the duration rule.
        suspicious: bool,
    },
    /// The transaction is aborted.
    Aborted {
        /// A late copy of a request may still be under way; see the duration rule.
        suspicious: bool,
    },
    /// A call failed for good: it was repeated as long as it may be.
    Failed {
        /// Which call.
        call: Call,
        /// What the error leaves to do.
        disposition: Disposition,
        /// Whether an output was refused for what it is, and not for how Kafka is.
        refusal: Option<Refusal>,
        /// The error, for people.
        message: String,
    },
    /// A call did not return, and its producer was given up. Nothing more is heard of it: what was
    /// ordered behind the call is not carried out, and neither is the rest of a `Commit` whose
    /// offsets were being sent.
    GivenUp {
        /// Which call.
        call: Call,
        /// For how long, for people.
        message: String,
    },
}

/// Outputs that Kafka does not take, however often they are sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// Those of one of these messages at least; if none is named, of any of the transaction's.
    Among(Vec<(PartitionId, Span)>),
    /// Those of each of these messages.
    Of(Vec<(PartitionId, u64)>),
}

/// What a member of the group is not let do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Denied {
    /// To be a member.
    Membership,
    /// To read a partition that it owns.
    Reading(PartitionId),
}

/// Why a member of the group is not let do something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ground {
    /// A right is missing.
    Right,
    /// A setting does not fit the group or the brokers.
    Setting,
}

/// The calls of a transactional producer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Call {
    /// Creating the producer and `init_transactions`.
    Open,
    /// `begin_transaction`, and handing records over.
    Send,
    /// Waiting for delivery reports.
    Flush,
    /// `send_offsets_to_transaction`.
    SendOffsets,
    /// `commit_transaction`.
    Commit,
    /// `abort_transaction`.
    Abort,
}

/// How a message failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What it counts as.
    pub reason: Reason,
    /// Whether trying again can help.
    pub kind: FailureKind,
    /// The class that the handler gave it, if it did.
    pub class: Option<Arc<str>>,
    /// The error, for people.
    pub message: String,
}

impl Failure {
    /// A failure that the handler gave no class.
    pub fn new(reason: Reason, kind: FailureKind, message: impl Into<String>) -> Self {
        Self { reason, kind, class: None, message: message.into() }
    }

    /// The name of its class: what the handler says, or else its reason.
    pub fn class(&self) -> &str {
        self.class.as_deref().unwrap_or(self.reason.name())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.class {
            Some(class) => write!(f, "{class}: {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

/// Whether trying a failed message again can help.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FailureKind {
    /// It can.
    Retryable,
    /// It cannot.
    Permanent,
    /// The processor itself cannot go on.
    Fatal,
}

/// An operator's order about one message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Intervention {
    /// By which it is answered; never used twice.
    pub id: u64,
    /// Which message.
    pub offset: u64,
    /// What is to become of it.
    pub verb: Verb,
    /// Who orders it.
    pub by: String,
    /// Why.
    pub reason: String,
}

/// Why an order is not carried out. Nothing was done unless it says so.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Obstacle {
    /// The partition is not this worker's.
    #[error("the partition is not owned here")]
    NotOwned,
    /// The partition was just given to this worker.
    #[error("the partition is being taken up; order it again in a moment")]
    TakingUp,
    /// The group takes the partition back, or the processor is ending.
    #[error("the partition is being let go; order it again from its next owner")]
    LettingGo,
    /// The partition was lost before the transaction was known to be committed.
    #[error("the partition moved before this was known to be done; ask its new owner")]
    Moved,
    /// The processor stopped before the transaction was known to be committed.
    #[error("the processor stopped before this was known to be done; start it and look again")]
    Stopped,
    /// The message's result is on its way.
    #[error("its handler has finished, and its result is being committed")]
    BeingCommitted,
    /// The message is done.
    #[error("it is done already")]
    Done,
    /// There is no message at this offset.
    #[error("there is no message at this offset: it holds a control record or was compacted away")]
    NoMessage,
    /// The message was not read yet.
    #[error("it is not read yet: the next offset to be read is {next}")]
    NotRead {
        /// The next offset to be read.
        next: u64,
    },
    /// Another order for the message is under way.
    #[error("another order for it is being carried out")]
    UnderWay,
    /// The processor has no topic for dead letters.
    #[error("the processor has no topic of dead letters; start it with --dead-letters, or skip it")]
    NoLetters,
    /// Kafka refused the dead letter.
    #[error("Kafka refused its dead letter, and it waits as before: {0}")]
    LetterRefused(String),
}
