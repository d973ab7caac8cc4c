//! How long commits say where other partitions ended when the group began to read a topic: until
//! all of them have a commit.

use crate::entry::PartitionId;
use crate::first_start::FirstStart;
use crate::settings::Settings;

use super::effect::Effect;
use super::partition::Partition;
use super::{Time, Worker};

/// How often it is asked whether every partition of a topic has a commit by now. All commits but
/// the first few of a group do without what others read it for.
pub(super) const PATIENCE: Time = Time::from_secs(60);

/// What the commits of a partition say of the others.
#[derive(Debug)]
pub(crate) struct ToldFirstStart {
    pub(super) first_start: FirstStart,
    /// How many bytes that takes.
    len: u64,
}

impl ToldFirstStart {
    pub(super) fn new(first_start: FirstStart) -> Self {
        Self { len: first_start.encoded_len() as u64, first_start }
    }
}

impl Partition {
    /// These partitions of the topic have no commit; the others need not be told of any more.
    fn settle_first_start(&mut self, without_commit: &[u32]) {
        let Some(ToldFirstStart { mut first_start, .. }) = self.first_start.take() else { return };
        if first_start.retain(without_commit) {
            self.first_start = Some(ToldFirstStart::new(first_start));
        } else {
            // Older versions read what is committed without it.
            self.unsaved = true;
        }
    }

    /// How long the metadata of a commit may be, beside what it says of other partitions.
    pub(super) fn metadata_bytes(&self, settings: &Settings) -> u64 {
        let taken = self.first_start.as_ref().map_or(0, |told| told.len);
        (settings.metadata_bytes as u64).saturating_sub(taken)
    }
}

impl Worker {
    pub(super) fn advance_first_starts(&mut self) {
        if self.ask_uncommitted_at.is_none_or(|due| due > self.now) {
            return;
        }
        let telling = self.partitions.values().filter(|p| p.first_start.is_some());
        let ids: Vec<PartitionId> = telling.map(|partition| partition.id).collect();
        self.ask_uncommitted_at = (!ids.is_empty()).then_some(self.now + PATIENCE);
        if !ids.is_empty() {
            self.effects.push_back(Effect::AskUncommitted(ids));
        }
    }

    pub(super) fn on_uncommitted(&mut self, topics: &[(PartitionId, Vec<u32>)]) {
        for (id, without_commit) in topics {
            if let Some(partition) = self.partitions.get_mut(id) {
                partition.settle_first_start(without_commit);
            }
        }
    }
}
