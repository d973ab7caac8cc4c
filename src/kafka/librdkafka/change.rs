//! A change of the assignment, and how it is answered.

use rdkafka::client::NativeClient;

use super::classify::{Failure, Unflagged, classify};
use super::lists::plain;
use super::raw;
use crate::kafka::{KafkaError, TopicPartition};

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
