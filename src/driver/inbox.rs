//! What reaches the driver: news from the threads and the handlers, in one queue.

use std::sync::Arc;

use countersign_statemachine::PartitionId;
use countersign_statemachine::worker::{Call, Failure, Obstacle, Refusal, SlotEvent};
use tokio::sync::{mpsc, oneshot};

use crate::error::RunError;
use crate::kafka::{Batch, KafkaError, TopicPartition};
use crate::store::StoreError;

use super::desk::Wish;
use super::results::Results;
use super::watchdog::Trouble;

/// Something that happened outside of the driver.
#[derive(Debug)]
pub(crate) enum News {
    /// Messages were read.
    Records { of: Reading, batch: Batch },
    /// Reading reached the end of what is stable.
    AtEnd { of: Reading, offset: u64 },
    /// Others need memory that a partition takes beyond its share.
    Crowded { of: Reading },
    /// The group gives partitions.
    Assigned(Vec<TopicPartition>),
    /// The group takes partitions back.
    Revoked(Vec<TopicPartition>),
    /// Partitions may have another owner already.
    Lost(Vec<TopicPartition>),
    /// The position of a partition is no longer in the log.
    OutOfRange(TopicPartition),
    /// The consumer met a passing fault.
    Fault(KafkaError),
    /// The consumer is refused for good: to read a partition, or to be in the group.
    Refused { partition: Option<TopicPartition>, error: KafkaError },
    /// The consumer ended.
    ConsumerFailed(KafkaError),
    /// Handlers ended well.
    Finished { partition: PartitionId, epoch: u64, lane: u64, results: Arc<Results> },
    /// A handler failed.
    Failed { partition: PartitionId, epoch: u64, lane: u64, offset: u64, failure: Failure },
    /// A run ended before its last message.
    Yielded { partition: PartitionId, epoch: u64, lane: u64 },
    /// An operator orders something, and waits for an answer.
    Wished(Wish, oneshot::Sender<Result<(), Obstacle>>),
    /// A producer slot reports; `life` tells which of its loops.
    Slot { slot: u32, life: u64, news: SlotNews },
    /// Something that the worker cannot do without hangs, or has panicked.
    Broken(RunError),
    /// A store write ended.
    Stored { write: u64, result: Result<(), StoreError> },
}

/// What is heard of a producer slot.
#[derive(Debug)]
pub(crate) enum SlotNews {
    /// An order was carried out.
    Done(SlotEvent),
    /// A call failed for good; whose outputs were refused, if it is known.
    Failed { call: Call, error: KafkaError, refusal: Option<Refusal> },
    /// The loop hangs, or has panicked.
    Trouble(Trouble),
}

/// Under which ownership a partition is read, and since when without a gap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reading {
    pub(crate) partition: PartitionId,
    pub(crate) epoch: u64,
    /// How often reading has begun anew at an earlier offset.
    pub(crate) again: u64,
}

/// Where news goes in. Never blocks: what is under way is bounded by the budget.
#[derive(Debug, Clone)]
pub(crate) struct Inbox(mpsc::UnboundedSender<News>);

impl Inbox {
    pub(crate) fn new() -> (Self, mpsc::UnboundedReceiver<News>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self(sender), receiver)
    }

    /// Sends news; once the driver has ended nobody wants them.
    pub(crate) fn send(&self, news: News) {
        let _ = self.0.send(news);
    }
}
