//! Requests as frames that can arrive late or twice, and the broker's answers to them.

use std::sync::Arc;
use std::time::Duration;

use countersign::kafka::{CommitOffset, ErrorKind, KafkaError, Output, TopicPartition};
use countersign_statemachine::Disposition;

use super::faults::Call;

/// The sender of a transactional request, as the frame carries it.
#[derive(Debug, Clone)]
pub(super) struct Sender {
    pub(super) transactional_id: Arc<str>,
    pub(super) producer_id: u64,
    pub(super) epoch: u32,
}

/// Group metadata as the frame carries it (KIP-447).
#[derive(Debug, Clone)]
pub(super) struct GroupMetadata {
    pub(super) group: Arc<str>,
    pub(super) generation: i32,
    pub(super) member_id: Arc<str>,
    pub(super) instance: Option<Arc<str>>,
}

#[derive(Debug, Clone)]
pub(super) enum Request {
    InitProducerId { transactional_id: Arc<str>, timeout: Duration },
    AddPartitionsToTxn { sender: Sender, partitions: Vec<TopicPartition> },
    AddOffsetsToTxn { sender: Sender, group: Arc<str> },
    TxnOffsetCommit { sender: Sender, metadata: GroupMetadata, offsets: Vec<CommitOffset> },
    EndTxn { sender: Sender, commit: bool },
    Produce { sender: Sender, outputs: Vec<Output> },
}

impl Request {
    pub(super) fn call(&self) -> Call {
        match self {
            Self::InitProducerId { .. } => Call::InitProducerId,
            Self::AddOffsetsToTxn { .. } => Call::AddOffsetsToTxn,
            Self::TxnOffsetCommit { .. } => Call::TxnOffsetCommit,
            Self::EndTxn { .. } => Call::EndTxn,
            Self::AddPartitionsToTxn { .. } | Self::Produce { .. } => Call::Produce,
        }
    }
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Reply {
    Done,
    Producer { producer_id: u64, epoch: u32 },
}

/// Kafka's error codes, as far as the model's broker gives them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Code {
    ConcurrentTransactions,
    CoordinatorNotAvailable,
    FencedInstanceId,
    IllegalGeneration,
    InvalidProducerEpoch,
    InvalidProducerIdMapping,
    InvalidRecord,
    InvalidTxnState,
    MessageTooLarge,
    OffsetMetadataTooLarge,
    /// Not a broker's answer: there was none in time.
    TimedOut,
    UnknownMemberId,
    UnknownTopicOrPartition,
}

impl Code {
    /// The error as librdkafka reports it from a transactional call.
    pub(super) fn error(self, call: &'static str) -> KafkaError {
        let (kind, disposition, message) = match self {
            Self::ConcurrentTransactions => {
                (ErrorKind::Timeout, Disposition::Retriable, "another transaction is ending")
            }
            Self::CoordinatorNotAvailable => {
                (ErrorKind::Other, Disposition::Retriable, "coordinator not available")
            }
            Self::FencedInstanceId => {
                (ErrorKind::FencedInstance, Disposition::Abortable, "fenced instance id")
            }
            Self::IllegalGeneration => {
                (ErrorKind::StaleGeneration, Disposition::Abortable, "illegal generation")
            }
            Self::InvalidProducerEpoch => {
                (ErrorKind::Fenced, Disposition::Fenced, "fenced by a newer producer epoch")
            }
            Self::InvalidProducerIdMapping => {
                (ErrorKind::Other, Disposition::Abortable, "producer id not known to the id")
            }
            Self::InvalidRecord => {
                (ErrorKind::Rejected, Disposition::Abortable, "the broker does not take a record")
            }
            Self::InvalidTxnState => (
                ErrorKind::InvalidTransactionState,
                Disposition::Fatal,
                "request does not fit the transaction's state",
            ),
            Self::MessageTooLarge => {
                (ErrorKind::TooLarge, Disposition::Abortable, "larger than the topic accepts")
            }
            Self::OffsetMetadataTooLarge => {
                (ErrorKind::Other, Disposition::Abortable, "offset metadata string too large")
            }
            Self::TimedOut => (ErrorKind::Timeout, Disposition::Retriable, "no answer in time"),
            Self::UnknownMemberId => {
                (ErrorKind::StaleGeneration, Disposition::Abortable, "unknown member id")
            }
            Self::UnknownTopicOrPartition => {
                (ErrorKind::UnknownPartition, Disposition::Abortable, "no such partition")
            }
        };
        KafkaError::new(call, kind, disposition, message)
    }

    /// The error as a delivery report gives it: the transaction must be aborted.
    pub(super) fn delivery_error(self) -> KafkaError {
        let mut error = self.error("produce");
        if error.disposition != Disposition::Fenced {
            error.disposition = Disposition::Abortable;
        }
        error
    }
}

impl Code {
    /// Whether librdkafka sends the request again by itself.
    pub(super) fn is_retried(self) -> bool {
        match self {
            Self::ConcurrentTransactions | Self::CoordinatorNotAvailable => true,
            Self::FencedInstanceId
            | Self::IllegalGeneration
            | Self::InvalidProducerEpoch
            | Self::InvalidProducerIdMapping
            | Self::InvalidRecord
            | Self::InvalidTxnState
            | Self::MessageTooLarge
            | Self::OffsetMetadataTooLarge
            | Self::TimedOut
            | Self::UnknownMemberId
            | Self::UnknownTopicOrPartition => false,
        }
    }
}
