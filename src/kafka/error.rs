//! Errors of calls to Kafka, classed once.

use countersign_statemachine::Disposition;
use thiserror::Error;

/// A failed call to Kafka.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{call}: {message}")]
#[non_exhaustive]
pub struct KafkaError {
    /// Which call failed, in Kafka's words: `init_transactions`, `commit_transaction`, ...
    pub call: &'static str,
    /// What kind of error it is.
    pub kind: ErrorKind,
    /// What the caller can do, from librdkafka's flags: fatal, then abortable, then retriable.
    pub disposition: Disposition,
    /// librdkafka's words.
    pub message: String,
}

impl KafkaError {
    /// Makes an error.
    pub fn new(
        call: &'static str,
        kind: ErrorKind,
        disposition: Disposition,
        message: impl Into<String>,
    ) -> Self {
        Self { call, kind, disposition, message: message.into() }
    }
}

impl KafkaError {
    /// Nothing was heard in time.
    pub(crate) fn no_answer(call: &'static str) -> Self {
        Self::new(call, ErrorKind::Timeout, Disposition::Retriable, "no broker answered in time")
    }

    /// Whether a record was refused for what it is, so that trying again cannot help.
    pub fn is_refusal(&self) -> bool {
        use ErrorKind::{Rejected, TooLarge, UnknownPartition, UnknownTopic};
        matches!(self.kind, Rejected | TooLarge | UnknownPartition | UnknownTopic)
    }

    /// Whether Kafka could not be reached, as opposed to having refused.
    pub fn is_connection(&self) -> bool {
        matches!(self.kind, ErrorKind::Timeout | ErrorKind::Transport | ErrorKind::AllBrokersDown)
    }
}

/// The kinds of error that the processor tells apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// No answer in time.
    Timeout,
    /// An open transaction may still change the committed offset that was asked for.
    Pending,
    /// The connection failed or no broker could be reached.
    Transport,
    /// The coordinator of the group or of the transactional id is being created or is moving.
    Coordinator,
    /// Every known broker is away.
    AllBrokersDown,
    /// Credentials or access rights do not allow it; the message names which.
    NotAuthorized,
    /// A setting is invalid.
    Config,
    /// The local send queue is full.
    QueueFull,
    /// The record is larger than the producer or the topic accepts.
    TooLarge,
    /// The broker does not take this record: malformed, too old, or against its policy.
    Rejected,
    /// No such topic.
    UnknownTopic,
    /// No such partition.
    UnknownPartition,
    /// A newer producer has the same transactional id, or the coordinator ended the transaction.
    Fenced,
    /// A newer consumer has the same group instance id.
    FencedInstance,
    /// The member's generation is over.
    StaleGeneration,
    /// The member is in no generation: nothing was sent.
    NoGeneration,
    /// The call does not fit the transaction's state: an alarm, as `delayed-endtxn.md` explains.
    InvalidTransactionState,
    /// The member missed `max.poll.interval.ms`.
    PollExceeded,
    /// The operating system gives no thread.
    NoThread,
    /// Anything else.
    Other,
}
