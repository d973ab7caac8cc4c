//! What a worker waits for, told when it is asked for: nothing of it is kept on a message's way.

use crate::entry::PartitionId;

use super::partition::{Partition, Tenure};
use super::window::Phase;
use super::{Time, Worker};

/// What a worker waits for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Health {
    /// When the oldest transaction that has not ended began.
    pub transaction: Option<Time>,
    /// When the store write began that is not flushed yet.
    pub write: Option<Time>,
    /// Every partition that has something left to do, and what its position waits for.
    pub partitions: Vec<Waiting>,
}

/// What the position of a partition waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waiting {
    /// Which partition.
    pub partition: PartitionId,
    /// Its committed offset. What is not moved for long is stuck.
    pub position: u64,
    /// What must come before it moves.
    pub step: Step,
    /// Whether nothing more of it is begun because its commit's metadata has no room to tell of it.
    pub lacks_room: bool,
}

/// What must come before a partition's position moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    /// It is being taken up: what Kafka knows of it is being asked for.
    TakeUp,
    /// The message at this offset has been read, and waits to be begun.
    Begin(u64),
    /// The store has not flushed that the message at this offset is begun.
    Record(u64),
    /// The handler has not ended with the message at this offset, or has no time for it yet.
    Handle(u64),
    /// The message at this offset has failed, and waits until its retry is due.
    Retry(u64),
    /// The message at this offset is sent by itself: the broker refused an output among its own and
    /// others'.
    Refused(u64),
    /// A transaction, with the message at this offset, has yet to be committed.
    Commit(u64),
}

impl Worker {
    /// What it waits for.
    pub fn health(&self) -> Health {
        Health {
            transaction: self.transactions.iter().map(|transaction| transaction.began).min(),
            write: self.journal.writing_since(),
            partitions: self.partitions.values().filter_map(|it| self.waiting(it)).collect(),
        }
    }

    fn waiting(&self, partition: &Partition) -> Option<Waiting> {
        Some(Waiting {
            partition: partition.id,
            position: partition.position,
            step: self.step(partition)?,
            lacks_room: partition.lacks_room(&self.settings),
        })
    }

    /// What the first message that is not done waits for; `None` if all are done.
    fn step(&self, partition: &Partition) -> Option<Step> {
        match partition.tenure {
            Tenure::Recovering(_) => return Some(Step::TakeUp),
            Tenure::Abandoned => return None,
            Tenure::Owned | Tenure::Leaving { .. } => {}
        }
        let first = partition.window.iter().find(|piece| piece.phase != Phase::Done)?;
        let offset = first.span.first;
        let is_suspect = || self.suspects.of(partition.id).iter().any(|span| span.contains(offset));
        Some(match first.phase {
            Phase::Received | Phase::Done => Step::Begin(offset),
            Phase::Admitting { .. } => Step::Record(offset),
            Phase::Ready | Phase::Running => Step::Handle(offset),
            Phase::Waiting => Step::Retry(offset),
            Phase::Finished | Phase::Sent { .. } if is_suspect() => Step::Refused(offset),
            Phase::Finished | Phase::Sent { .. } => Step::Commit(offset),
        })
    }
}
