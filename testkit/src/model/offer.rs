//! What the group asks of a member.

use countersign::kafka::{Polled, TopicPartition};

/// A rebalance event that the caller has to answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Offer {
    Assign(Vec<TopicPartition>),
    Revoke(Vec<TopicPartition>),
    Lost(Vec<TopicPartition>),
}

impl Offer {
    pub(super) fn partitions(&self) -> &[TopicPartition] {
        match self {
            Self::Assign(partitions) | Self::Revoke(partitions) | Self::Lost(partitions) => {
                partitions
            }
        }
    }

    pub(super) fn polled(&self) -> Polled {
        match self {
            Self::Assign(partitions) => Polled::Assign(partitions.clone()),
            Self::Revoke(partitions) => Polled::Revoke(partitions.clone()),
            Self::Lost(partitions) => Polled::Lost(partitions.clone()),
        }
    }
}
