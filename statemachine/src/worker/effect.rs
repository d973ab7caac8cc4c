//! What the worker asks of the shell.

use crate::entry::{Entry, PartitionId};
use crate::span::Span;

use super::input::{Denied, Failure, Obstacle};
use super::notice::Notice;
use super::stop::StopReason;

/// Something to be done outside. Effects are to be started in the order they are given.
#[derive(Debug, Clone, PartialEq)]
#[must_use = "an effect that is not performed stalls the worker"]
pub enum Effect {
    /// Find out what Kafka and the store know of these partitions, each with the ownership that
    /// begins; answered by `Input::Recovered`, for all at once or for some at a time.
    ///
    /// All producer slots are open by then, so that no transaction of a former self is undecided.
    Recover(Vec<(PartitionId, u64)>),
    /// End the group's assignment: fetching starts at these offsets. A partition without one is
    /// owned, and is not fetched before `Fetch`.
    Assign(Vec<(PartitionId, Option<u64>)>),
    /// Fetch partitions that are assigned, from these offsets on.
    Fetch(Vec<Start>),
    /// End the group's revocation.
    Unassign(Vec<PartitionId>),
    /// Leave the group; what is still owned is then revoked.
    Leave,
    /// Find out whether this is still refused; answered by `Input::Denied` if it is.
    AskAgain(Denied),
    /// Find out which partitions of the topics of these have no commit; answered by
    /// `Input::Uncommitted`, or not at all.
    AskUncommitted(Vec<PartitionId>),
    /// Write to the store and flush; answered by `Input::Stored`.
    Write {
        /// The write's number.
        write: u64,
        /// What to write, in order.
        entries: Vec<Entry>,
    },
    /// Run the handler for each message of the spans, in order, beside those of other lanes;
    /// answered by `Finished` for one prefix after another, and by `Failed` or `Yielded` where it
    /// ends early. A lane has one at a time.
    Handle {
        /// Which partition.
        partition: PartitionId,
        /// Its ownership.
        epoch: u64,
        /// Which lane.
        lane: u64,
        /// Which messages, in order.
        spans: Vec<Span>,
        /// How often the first of them failed before.
        attempt: u32,
        /// Whether it runs under the solo that this worker has.
        solo: bool,
        /// Whether it runs whatever memory its results take: nothing of the partition can be done
        /// before it. It is one message then.
        at_any_cost: bool,
    },
    /// Wait until no handler of the process runs, and keep others from starting; answered by
    /// `Input::Solo`.
    AskSolo,
    /// The solo is over, or is not waited for any more: others may run.
    EndSolo,
    /// The message is given up: its dead letter is its only output. It comes before the `Send` of
    /// the message.
    DeadLetter(GivenUp),
    /// The message is passed over: it has no outputs, whatever it had before. It comes before the
    /// `Send` of the message.
    Skip {
        /// Which partition.
        partition: PartitionId,
        /// Its ownership.
        epoch: u64,
        /// Which message.
        offset: u64,
    },
    /// Stop the handler of a lane before it begins this message, and cancel it if it is at it;
    /// answered by `Yielded` unless it ends first.
    Cancel {
        /// Which partition.
        partition: PartitionId,
        /// Which lane.
        lane: u64,
        /// Which message.
        offset: u64,
    },
    /// What became of an operator's order.
    Answer {
        /// Which order.
        id: u64,
        /// Whether it is carried out: a skip and a dead letter once they are committed, a retry
        /// once it is due; and recorded in the store.
        answer: Result<(), Obstacle>,
    },
    /// Stop the handlers of every lane after the message they are at; each answers by `Yielded`
    /// unless it ends first.
    Interrupt {
        /// Which partition.
        partition: PartitionId,
    },
    /// Cancel the handlers of every lane where they wait; each answers by `Yielded` unless it ends
    /// first. One that blocks its thread cannot be cancelled.
    Halt {
        /// Which partition.
        partition: PartitionId,
    },
    /// Forget a partition: handlers, messages, results.
    Forget {
        /// Which partition.
        partition: PartitionId,
    },
    /// Forget the messages of a partition from this offset on, and read on there. What was read
    /// before and has yet to be told is not to be told any more.
    ReadAgain {
        /// Which partition.
        partition: PartitionId,
        /// Its ownership.
        epoch: u64,
        /// The next offset to be read.
        offset: u64,
    },
    /// Messages are done: they and their results may be dropped.
    Release {
        /// Which partition.
        partition: PartitionId,
        /// The position: everything below it is done.
        offset: u64,
        /// What is done above it since the last release.
        beyond: Vec<Span>,
    },
    /// Create the slot's producer anew and register its transactional id.
    Open {
        /// Which slot.
        slot: u32,
        /// What makes it necessary.
        why: Renewal,
    },
    /// Send the outputs of the span's messages, beginning the transaction if none is open.
    Send {
        /// Which slot.
        slot: u32,
        /// The transaction's number.
        number: u64,
        /// Which partition.
        partition: PartitionId,
        /// Which messages.
        span: Span,
    },
    /// Wait until everything sent is acknowledged; answered by `Flushed`.
    Flush {
        /// Which slot.
        slot: u32,
    },
    /// Send the offsets and commit; answered by `Committed`.
    Commit {
        /// Which slot.
        slot: u32,
        /// The transaction's number.
        number: u64,
        /// What to commit.
        offsets: Vec<Position>,
    },
    /// Abort; answered by `Aborted`.
    Abort {
        /// Which slot.
        slot: u32,
    },
    /// Read the stable commits of partitions; answered by `Input::Commits`.
    ReadCommits {
        /// The transaction that is in doubt.
        number: u64,
        /// Which partitions.
        partitions: Vec<PartitionId>,
    },
    /// Something an operator should know.
    Notice(Notice),
    /// The end: nothing more will be asked.
    Stop(Result<(), StopReason>),
}

/// Where reading a partition starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Start {
    /// Which partition.
    pub partition: PartitionId,
    /// The next offset to read.
    pub offset: u64,
}

/// An offset to be committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// Which partition.
    pub partition: PartitionId,
    /// The next offset to consume.
    pub offset: u64,
    /// The encoded [`CommitMetadata`](crate::CommitMetadata).
    pub metadata: Vec<u8>,
}

/// Why a producer is created anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Renewal {
    /// The worker starts.
    Start,
    /// A call took so long that a copy of its request may arrive late (`delayed-endtxn.md`).
    Suspicious,
    /// Its settings are out of date.
    Outdated,
    /// A call failed in a way that this producer does not survive.
    Failed,
    /// It is not known whether the transaction was committed.
    InDoubt,
}

/// A message that is given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GivenUp {
    /// Which partition.
    pub partition: PartitionId,
    /// Its ownership.
    pub epoch: u64,
    /// Which message.
    pub offset: u64,
    /// How often it has failed.
    pub attempts: u32,
    /// Why it is given up.
    pub cause: Cause,
    /// How it failed last.
    pub failure: Failure,
}

/// Why a message is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cause {
    /// It failed as often as it may.
    AttemptsUsedUp,
    /// It was tried again for as long as it may be.
    BudgetUsedUp,
    /// Trying again cannot help.
    Rejected,
    /// It ended the process as often as it may.
    PoisonPill,
    /// An operator ordered it.
    Operator,
}
