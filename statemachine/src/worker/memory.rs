//! How much of a partition may be under way when memory is short.
//!
//! What always goes on is the first message that is not done: everything that is finished behind it
//! may be waiting for it.

use crate::entry::PartitionId;

use super::Worker;
use super::partition::Partition;
use super::window::Phase;

impl Partition {
    /// Whether nothing is begun but what nothing can be done before.
    pub(super) fn is_short(&self) -> bool {
        self.memory != u64::MAX && self.window.count(Phase::Running) >= self.memory
    }

    /// How many messages may be begun now, as far as memory goes.
    pub(super) fn may_run(&self) -> u64 {
        if !self.is_short() {
            return self.memory.saturating_sub(self.window.count(Phase::Running));
        }
        let first = self.window.first(|phase| phase != Phase::Done);
        u64::from(first.is_some() && first == self.lanes.first_ready())
    }
}

impl Worker {
    pub(super) fn on_memory(&mut self, id: PartitionId, epoch: u64, messages: u64) {
        let owned = self.partitions.get_mut(&id).filter(|partition| partition.epoch == epoch);
        if let Some(partition) = owned {
            partition.memory = messages;
        }
    }
}
