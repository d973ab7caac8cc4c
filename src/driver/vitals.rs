//! When something moved last, as the driver sees it. Looked at once a second, so that it costs a
//! message nothing.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use countersign_statemachine::PartitionId;
use countersign_statemachine::worker::Waiting;
use tokio::time::Instant;

use crate::health::{Standing, Vital};

use super::Driver;

/// How often it is looked at.
const EVERY: Duration = Duration::from_secs(1);

/// What the driver remembers between two looks.
#[derive(Debug)]
pub(super) struct Vitals {
    /// When each rebalance came that the group waits for, in order.
    rebalances: VecDeque<Instant>,
    /// Where the position of each partition stood that has something left to do, and since when.
    positions: BTreeMap<PartitionId, (u64, Instant)>,
    /// When the next look is due.
    due: Instant,
}

impl Vitals {
    pub(super) fn new(now: Instant) -> Self {
        Self { rebalances: VecDeque::new(), positions: BTreeMap::new(), due: now }
    }

    /// The group gives or takes partitions, and waits for the answer.
    pub(super) fn rebalance(&mut self) {
        self.rebalances.push_back(Instant::now());
    }

    /// The oldest rebalance is answered.
    pub(super) fn answered(&mut self) {
        self.rebalances.pop_front();
    }

    /// When the next look is due.
    pub(super) fn due(&self) -> Instant {
        self.due
    }

    /// Since when each position stands where it is.
    fn follow(&mut self, waiting: &[Waiting], now: Instant) {
        let before = std::mem::take(&mut self.positions);
        let since = |it: &Waiting| {
            let same = before.get(&it.partition).filter(|(at, _)| *at == it.position);
            (it.partition, same.copied().unwrap_or((it.position, now)))
        };
        self.positions = waiting.iter().map(since).collect();
    }
}

impl Driver {
    /// What has ended waits for nothing.
    pub(super) fn end_vitals(&self) {
        self.status.vital(Vital::default());
    }

    /// Looks at what waits, if it is time to.
    pub(super) fn look_at_vitals(&mut self) {
        let now = Instant::now();
        if now < self.vitals.due {
            return;
        }
        self.vitals.due = now + EVERY;
        let health = self.worker.health();
        self.vitals.follow(&health.partitions, now);
        let short: BTreeSet<PartitionId> = self.short_of_memory().map(|(id, _)| id).collect();
        let standing = |it: &Waiting| {
            let (_, since) = *self.vitals.positions.get(&it.partition)?;
            let partition = self.name(it.partition)?;
            let Waiting { partition: _, position: offset, step, lacks_room } = *it;
            let lacks_memory = short.contains(&it.partition);
            Some(Standing { partition, offset, since, step, lacks_room, lacks_memory })
        };
        let at = |time: Duration| self.started + time;
        self.status.vital(Vital {
            told: Some(now),
            assignment: self.vitals.rebalances.front().copied(),
            transaction: health.transaction.map(at),
            write: health.write.map(at),
            memory_spent: self.budget.is_spent(),
            standing: health.partitions.iter().filter_map(standing).collect(),
        });
    }
}
