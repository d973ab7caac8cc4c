//! A change of the assignment, and how it is answered.

use countersign_statemachine::Disposition;
use rdkafka::client::NativeClient;
use rdkafka::consumer::{BaseConsumer, Consumer as _};

use super::classify::{Failure, Unflagged, classify, classify_binding};
use super::context::Context;
use super::lists::plain;
use super::raw;
use crate::kafka::{ErrorKind, KafkaError, TopicPartition};

/// A rebalance that waits for its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    Assign(Vec<TopicPartition>),
    Revoke(Vec<TopicPartition>),
    Lost(Vec<TopicPartition>),
}

impl Change {
    pub(super) fn partitions(&self) -> &[TopicPartition] {
        match self {
            Self::Assign(list) | Self::Revoke(list) | Self::Lost(list) => list,
        }
    }

    /// Answers a rebalance without taking anything.
    pub(super) fn release(
        &self,
        client: &NativeClient,
        incremental: bool,
    ) -> Result<(), KafkaError> {
        match self {
            Self::Assign(_) if incremental => {
                let none = plain("incremental_assign", &[])?;
                raw::incremental_assign(client, &none).map_err(dead("incremental_assign"))
            }
            Self::Revoke(list) | Self::Lost(list) if incremental => {
                let list = plain("incremental_unassign", list)?;
                raw::incremental_unassign(client, &list).map_err(dead("incremental_unassign"))
            }
            Self::Assign(list) if list.is_empty() => {
                raw::assign(client, &plain("assign", &[])?).map_err(dead("assign"))
            }
            Self::Assign(_) | Self::Revoke(_) | Self::Lost(_) => {
                raw::unassign(client).map_err(dead("assign"))
            }
        }
    }
}

/// An error that ends the consumer.
pub(super) fn dead(call: &'static str) -> impl Fn(Failure) -> KafkaError {
    move |failure| classify(call, failure, Unflagged::Fatal)
}

/// A mistake of the caller.
pub(super) fn caller(call: &'static str, message: impl Into<String>) -> KafkaError {
    KafkaError::new(call, ErrorKind::Other, Disposition::Fatal, message)
}

/// Asks the group for partitions of these topics.
pub(super) fn subscribe(base: &BaseConsumer<Context>, topics: &[String]) -> Result<(), KafkaError> {
    let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
    base.subscribe(&topics).map_err(|error| classify_binding("subscribe", &error))
}
