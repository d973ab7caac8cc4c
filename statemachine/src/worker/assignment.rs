//! Who owns what: assignment, revocation, loss and shutdown.
//!
//! A revocation is answered only when nothing of its partitions is under way, or when its budget is
//! used up. Until then no other member can be given them. A transaction in doubt does not hold a
//! partition back: its pending offsets make the next owner wait (KIP-447).

use crate::entry::PartitionId;

use super::effect::{Effect, Start, StopReason};
use super::input::Found;
use super::partition::{Partition, Tenure};
use super::recovery::recover;
use super::transaction::Slot;
use super::window::Phase;
use super::{Time, Worker};

/// How far the worker is in shutting down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Drain {
    /// It is not.
    No,
    /// What is under way may end until then.
    Until(Time),
    /// It is leaving the group.
    Leaving,
}

/// A rebalance that waits for its answer.
#[derive(Debug)]
pub(super) enum Rebalance {
    /// The partitions are being recovered; `asked` once the questions are out.
    Assigning { ids: Vec<PartitionId>, asked: bool },
    /// The partitions are being let go.
    Revoking { ids: Vec<PartitionId> },
}

impl Worker {
    pub(super) fn on_assigned(&mut self, ids: &[PartitionId]) {
        for &id in ids {
            self.epochs += 1;
            self.partitions.insert(id, Partition::new(id, self.epochs));
        }
        self.rebalance = Some(Rebalance::Assigning { ids: ids.to_vec(), asked: false });
    }

    pub(super) fn on_recovered(&mut self, id: PartitionId, epoch: u64, found: &Found) {
        let Some(partition) = self.partitions.get_mut(&id) else { return };
        if partition.epoch != epoch || partition.tenure != Tenure::Recovering {
            return;
        }
        match recover(id, found, &self.settings) {
            Err(source) => self.stop(Err(StopReason::Position { partition: id, source })),
            Ok(recovery) => {
                partition.begin(&recovery, found.topic_id);
                match self.drain {
                    Drain::No => {}
                    Drain::Until(deadline) => partition.tenure = Tenure::Leaving { deadline },
                    Drain::Leaving => partition.tenure = Tenure::Abandoned,
                }
                self.note(recovery.moves);
                for notice in recovery.notices {
                    self.notice(notice);
                }
            }
        }
    }

    pub(super) fn on_revoked(&mut self, ids: Vec<PartitionId>) {
        let deadline = self.now + self.settings.leave_budget;
        for &id in &ids {
            self.leave(id, deadline);
        }
        self.rebalance = Some(Rebalance::Revoking { ids });
    }

    pub(super) fn on_lost(&mut self, ids: Vec<PartitionId>) {
        self.abandon(&ids);
        self.rebalance = Some(Rebalance::Revoking { ids });
    }

    pub(super) fn on_drain(&mut self) {
        if self.drain != Drain::No {
            return;
        }
        let deadline = self.now + self.settings.leave_budget;
        self.drain = Drain::Until(deadline);
        let ids: Vec<PartitionId> = self.partitions.keys().copied().collect();
        for id in ids {
            self.leave(id, deadline);
        }
    }

    fn leave(&mut self, id: PartitionId, deadline: Time) {
        let Some(partition) = self.partitions.get_mut(&id) else { return };
        if partition.tenure == Tenure::Owned {
            partition.tenure = Tenure::Leaving { deadline };
            if partition.is_running() {
                self.effects.push_back(Effect::Interrupt { partition: id });
            }
        }
    }

    /// Gives partitions up without a commit; open transactions that hold messages of them abort.
    fn abandon(&mut self, ids: &[PartitionId]) {
        let mut sent = Vec::new();
        for id in ids {
            let Some(partition) = self.partitions.get_mut(id) else { continue };
            if partition.tenure != Tenure::Recovering {
                partition.tenure = Tenure::Abandoned;
            }
            let numbers = partition.window.iter().filter_map(|piece| match piece.phase {
                Phase::Sent { number } => Some(number),
                Phase::Admitting { .. }
                | Phase::Ready
                | Phase::Running
                | Phase::Waiting
                | Phase::Finished
                | Phase::Done => None,
            });
            sent.extend(numbers);
        }
        if let Some(number) = sent.into_iter().min() {
            self.abort_from(number, "partitions of it were lost");
        }
    }

    pub(super) fn advance_rebalance(&mut self) {
        self.give_up_overdue();
        match self.rebalance.take() {
            None => {}
            Some(Rebalance::Assigning { ids, asked }) => self.advance_assigning(ids, asked),
            Some(Rebalance::Revoking { ids }) => self.advance_revoking(ids),
        }
        self.advance_drain();
    }

    /// No committed offset is read before every slot is registered: an open transaction of a former
    /// self would hold it pending until its time-out.
    fn advance_assigning(&mut self, ids: Vec<PartitionId>, asked: bool) {
        let undecided = |slot: &Slot| matches!(slot, Slot::Opening | Slot::Closed { .. });
        if !asked && self.slots.iter().any(undecided) {
            self.rebalance = Some(Rebalance::Assigning { ids, asked });
            return;
        }
        if !asked {
            // What is recovered from the store must be all that was noted.
            self.write_journal();
            for partition in ids.iter().filter_map(|id| self.partitions.get(id)) {
                let (partition, epoch) = (partition.id, partition.epoch);
                self.effects.push_back(Effect::Recover { partition, epoch });
            }
        }
        let known = ids.iter().filter_map(|id| self.partitions.get(id));
        if known.clone().any(|partition| partition.tenure == Tenure::Recovering) {
            self.rebalance = Some(Rebalance::Assigning { ids, asked: true });
            return;
        }
        let starts = known.map(|p| Start { partition: p.id, offset: p.position }).collect();
        self.effects.push_back(Effect::Assign(starts));
    }

    fn advance_revoking(&mut self, ids: Vec<PartitionId>) {
        if !self.are_settled(ids.iter()) {
            self.rebalance = Some(Rebalance::Revoking { ids });
            return;
        }
        let undecided = self.undecided();
        for id in &ids {
            let Some(partition) = self.partitions.remove(id) else { continue };
            self.note(partition.let_go(&undecided));
            self.alone.remove(id);
            self.effects.push_back(Effect::Forget { partition: *id });
        }
        self.effects.push_back(Effect::Unassign(ids));
    }

    /// Leaves the group once everything is settled, and ends once nothing is owned any more.
    fn advance_drain(&mut self) {
        let settled = self.rebalance.is_none() && self.are_settled(self.partitions.keys());
        if matches!(self.drain, Drain::Until(_)) && settled && !self.stopped {
            self.drain = Drain::Leaving;
            self.effects.push_back(Effect::Leave);
        }
        if self.drain == Drain::Leaving && self.partitions.is_empty() {
            self.stop(Ok(()));
        }
    }

    fn are_settled<'a>(&self, mut ids: impl Iterator<Item = &'a PartitionId>) -> bool {
        let undecided = self.undecided();
        ids.all(|id| self.partitions.get(id).is_none_or(|p| p.is_settled(&undecided)))
    }

    fn undecided(&self) -> Vec<u64> {
        self.transactions.iter().filter(|t| t.is_undecided()).map(|t| t.number).collect()
    }

    fn give_up_overdue(&mut self) {
        let overdue: Vec<PartitionId> = self
            .partitions
            .values()
            .filter(|p| matches!(p.tenure, Tenure::Leaving { deadline } if deadline <= self.now))
            .map(|partition| partition.id)
            .collect();
        if !overdue.is_empty() {
            self.abandon(&overdue);
        }
    }

    pub(super) fn rebalance_due(&self) -> Option<Time> {
        let deadline = |partition: &Partition| match partition.tenure {
            Tenure::Leaving { deadline } => Some(deadline),
            Tenure::Recovering | Tenure::Owned | Tenure::Abandoned => None,
        };
        self.partitions.values().filter_map(deadline).min()
    }

    pub(super) fn is_revoking(&self) -> bool {
        matches!(self.rebalance, Some(Rebalance::Revoking { .. }))
    }
}
