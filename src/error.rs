//! Why a processor could not be built, or stopped.

use std::collections::BTreeMap;
use std::time::Duration;

use countersign_statemachine::worker::{Ground, PositionError, StopReason};
use countersign_statemachine::{Disposition, PartitionId};
use thiserror::Error;

use crate::driver::Identified;
use crate::kafka::librdkafka::SettingError;
use crate::kafka::{ErrorKind, KafkaError, TopicPartition};
use crate::store::StoreError;

/// Why a processor ended.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RunError {
    /// A setting does not fit the cluster, or a topic does not exist.
    #[error("{0}")]
    Config(KafkaError),
    /// A setting cannot be used.
    #[error(transparent)]
    Setting(SettingError),
    /// No broker answered in time.
    #[error(
        "no answer from Kafka at {brokers} for {:.1} s: {source}; check the address and that the \
         broker runs",
        waited.as_secs_f32()
    )]
    Unreachable {
        /// The configured brokers.
        brokers: String,
        /// How long it was tried.
        waited: Duration,
        /// The last error.
        #[source]
        source: KafkaError,
    },
    /// Kafka refuses: credentials or access rights.
    #[error("Kafka does not allow it: {0}")]
    NotAuthorized(String),
    /// The store failed.
    #[error(transparent)]
    Store(StoreError),
    /// Another process owns the same id.
    #[error(
        "fenced: another process took over the id {id:?} ({message}); give each instance a name \
         of its own with --instance, or stop the other one"
    )]
    Fenced {
        /// The transactional id, or the group instance id.
        id: String,
        /// Kafka's words.
        message: String,
    },
    /// A message failed in a way that policy does not allow to pass over.
    #[error("stopped by policy: {partition}@{offset} failed {attempts} times: {message}")]
    Message {
        /// Which partition.
        partition: TopicPartition,
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
        "stopped by policy: the process ended in each of the {deliveries} times that it handled \
         {partition}@{offset} with nothing beside it"
    )]
    PoisonPill {
        /// Which partition.
        partition: TopicPartition,
        /// Which message.
        offset: u64,
        /// How often it ended the process.
        deliveries: u32,
    },
    /// So much fails that policy does not allow to go on.
    #[error(
        "stopped by policy: too many messages fail, the last one {partition}@{offset}: {message}"
    )]
    Breaker {
        /// Which partition.
        partition: TopicPartition,
        /// The message that failed last.
        offset: u64,
        /// The error.
        message: String,
    },
    /// The committed offset of a partition cannot be worked with.
    #[error("stopped by policy: {partition}: {source}")]
    Position {
        /// Which partition.
        partition: TopicPartition,
        /// What is wrong with it.
        #[source]
        source: PositionError,
    },
    /// The next messages of a partition are no longer in the log.
    #[error("stopped by policy: {partition}: the next messages were deleted before they were read")]
    OutOfRange {
        /// Which partition.
        partition: TopicPartition,
    },
    /// What Kafka shows contradicts the protocol.
    #[error("{0}")]
    Protocol(String),
    /// It was told to end at once.
    #[error("aborted before everything under way was finished; the next start takes it up")]
    Aborted,
    /// A client failed for good.
    #[error(transparent)]
    Kafka(KafkaError),
    /// A call to Kafka does not return, and nothing can take its place: of the consumer, or one of
    /// a producer or admin client after too many others.
    #[error(
        "{name}: {call} has not returned for {:.0} s; check the brokers, and start again",
        waited.as_secs_f32()
    )]
    Hung {
        /// Which loop: the name of its thread.
        name: String,
        /// Which call, in Kafka's words.
        call: &'static str,
        /// How long it has taken.
        waited: Duration,
    },
    /// A loop or a task of the processor panicked.
    #[error("{name} panicked, which is a fault of Countersign: {message}")]
    Panicked {
        /// Which one: the name of its thread, or what the task does.
        name: String,
        /// The panic's text.
        message: String,
    },
    /// The operating system gives no thread.
    #[error(
        "no thread for {name}: {source}; raise the limit of processes and threads (ulimit -u, \
         pids.max of the control group)"
    )]
    Thread {
        /// What the thread is for.
        name: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

impl RunError {
    pub(crate) fn of_setting(error: SettingError) -> Self {
        Self::Setting(error)
    }

    pub(crate) fn of_kafka(error: KafkaError) -> Self {
        match error.kind {
            ErrorKind::NotAuthorized => Self::NotAuthorized(error.to_string()),
            ErrorKind::Config | ErrorKind::UnknownTopic => Self::Config(error),
            ErrorKind::NoThread => {
                let source = std::io::Error::other(error.message);
                Self::Thread { name: error.call.to_owned(), source }
            }
            ErrorKind::Timeout
            | ErrorKind::Pending
            | ErrorKind::Transport
            | ErrorKind::Coordinator
            | ErrorKind::AllBrokersDown
            | ErrorKind::QueueFull
            | ErrorKind::TooLarge
            | ErrorKind::Rejected
            | ErrorKind::UnknownPartition
            | ErrorKind::Fenced
            | ErrorKind::FencedInstance
            | ErrorKind::StaleGeneration
            | ErrorKind::NoGeneration
            | ErrorKind::InvalidTransactionState
            | ErrorKind::PollExceeded
            | ErrorKind::Other => Self::Kafka(error),
        }
    }

    pub(crate) fn of_consumer(error: KafkaError, instance: &str) -> Self {
        match error.kind {
            ErrorKind::FencedInstance => {
                Self::Fenced { id: instance.to_owned(), message: error.message }
            }
            _ => Self::of_kafka(error),
        }
    }

    pub(crate) fn of_worker(
        reason: StopReason,
        refused: Option<KafkaError>,
        known: &BTreeMap<PartitionId, Identified>,
        transactional_ids: &[String],
    ) -> Self {
        let name = |id: PartitionId| {
            let known = known.get(&id).map(|known| known.partition.clone());
            known.unwrap_or_else(|| TopicPartition::new("?", id.0))
        };
        match reason {
            StopReason::Fenced { slot, message } => {
                let id = transactional_ids.get(slot as usize).cloned().unwrap_or_default();
                Self::Fenced { id, message }
            }
            StopReason::Refused { call: _, message } => {
                refused.map_or(Self::NotAuthorized(message), Self::of_kafka)
            }
            StopReason::Denied { ground: Ground::Right, message } => Self::NotAuthorized(message),
            StopReason::Denied { ground: Ground::Setting, message } => {
                let (kind, disposition) = (ErrorKind::Config, Disposition::Permanent);
                Self::Config(KafkaError::new("poll", kind, disposition, message))
            }
            StopReason::Message { partition, offset, attempts, message } => {
                Self::Message { partition: name(partition), offset, attempts, message }
            }
            StopReason::PoisonPill { partition, offset, deliveries } => {
                Self::PoisonPill { partition: name(partition), offset, deliveries }
            }
            StopReason::Breaker { partition, offset, message } => {
                Self::Breaker { partition: name(partition), offset, message }
            }
            StopReason::Position { partition, source } => {
                Self::Position { partition: name(partition), source }
            }
            StopReason::Store(message) => Self::Protocol(message),
            torn @ StopReason::Torn { .. } => Self::Protocol(torn.to_string()),
        }
    }
}
