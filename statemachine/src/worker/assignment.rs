//! Who owns what: assignment, revocation, loss and shutdown.
//!
//! A revocation is answered only when nothing of its partitions is under way, or when its budget is
//! used up. Until then no other member can be given them. A transaction in doubt does not hold a
//! partition back: its pending offsets make the next owner wait (KIP-447).

use crate::entry::PartitionId;

use super::effect::{Effect, Start};
use super::first_starts::PATIENCE;
use super::found::Found;
use super::input::{Denied, Obstacle};
use super::partition::{Partition, Tenure, Wait};
use super::recovery::recover;
use super::refusal::Subject;
use super::stop::StopReason;
use super::transaction::{Loss, Slot, Transaction};
use super::window::Phase;
use super::{Time, Worker};

/// How long the group may take to let a member go that has nothing under way.
const LEAVE_PATIENCE: Time = Time::from_secs(5);

/// How far the worker is in shutting down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Drain {
    /// It is not.
    No,
    /// What is under way may end until then.
    Until(Time),
    /// It is leaving the group, and ends then even if the group does not answer.
    Leaving { until: Time },
}

/// A rebalance that waits for its answer. They are answered in the order they came.
#[derive(Debug)]
pub(super) enum Rebalance {
    /// The partitions are being recovered; `asked` once the questions are out.
    Assigning { ids: Vec<PartitionId>, asked: bool },
    /// The partitions are being let go, within a budget; `None` if they are lost already.
    Revoking { ids: Vec<PartitionId>, deadline: Option<Time> },
}

impl Worker {
    pub(super) fn on_assigned(&mut self, ids: Vec<PartitionId>) {
        self.refusals.end(Subject::Member(Denied::Membership));
        self.rebalances.push_back(Rebalance::Assigning { ids, asked: false });
    }

    pub(super) fn on_recovered(&mut self, found: &[(PartitionId, u64, Found)]) {
        for (id, epoch, found) in found {
            self.take_over(*id, *epoch, found);
        }
        self.fetch_late(found);
    }

    /// Those that the group's assignment did not wait for begin now.
    fn fetch_late(&mut self, found: &[(PartitionId, u64, Found)]) {
        let is_assigning = |id: PartitionId| {
            self.rebalances.iter().any(|rebalance| match rebalance {
                Rebalance::Assigning { ids, .. } => ids.contains(&id),
                Rebalance::Revoking { .. } => false,
            })
        };
        let is_late = |id: PartitionId| !is_assigning(id) && !self.is_let_go(id);
        let start = |(id, epoch, _): &(PartitionId, u64, Found)| {
            let partition = self.partitions.get(id).filter(|_| is_late(*id))?;
            let begins = partition.epoch == *epoch && partition.tenure == Tenure::Owned;
            begins.then_some(Start { partition: *id, offset: partition.position })
        };
        let starts: Vec<Start> = found.iter().filter_map(start).collect();
        if !starts.is_empty() && !self.stopped {
            self.effects.push_back(Effect::Fetch(starts));
        }
    }

    pub(super) fn on_unready(&mut self, ids: &[(PartitionId, u64)]) {
        for (id, epoch) in ids {
            if let Some(partition) = self.partitions.get_mut(id)
                && partition.epoch == *epoch
                && partition.is_recovering()
            {
                partition.tenure = Tenure::Recovering(Wait::Alone);
            }
        }
    }

    fn take_over(&mut self, id: PartitionId, epoch: u64, found: &Found) {
        let Some(partition) = self.partitions.get_mut(&id) else { return };
        if partition.epoch != epoch || !partition.is_recovering() {
            return;
        }
        match recover(id, found, &self.settings) {
            Err(source) => self.stop(Err(StopReason::Position { partition: id, source })),
            Ok(recovery) => {
                partition.begin(&recovery, found.topic_id);
                if partition.first_start.is_some() {
                    self.ask_uncommitted_at.get_or_insert(self.now + PATIENCE);
                }
                match self.drain {
                    Drain::No => {}
                    Drain::Until(until) => partition.leave(until),
                    Drain::Leaving { .. } => partition.tenure = Tenure::Abandoned,
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
        self.leave(&ids, deadline);
        self.rebalances.push_back(Rebalance::Revoking { ids, deadline: Some(deadline) });
    }

    pub(super) fn on_lost(&mut self, ids: Vec<PartitionId>) {
        self.abandon(&ids);
        self.rebalances.push_back(Rebalance::Revoking { ids, deadline: None });
    }

    pub(super) fn on_drain(&mut self) {
        if self.drain != Drain::No {
            return;
        }
        let deadline = self.now + self.settings.leave_budget;
        self.drain = Drain::Until(deadline);
        let ids: Vec<PartitionId> = self.partitions.keys().copied().collect();
        self.leave(&ids, deadline);
    }

    fn leave(&mut self, ids: &[PartitionId], deadline: Time) {
        for &id in ids {
            let Some(partition) = self.partitions.get_mut(&id) else { continue };
            if partition.tenure == Tenure::Owned {
                partition.leave(deadline);
                partition.end_trial();
                if partition.is_running() {
                    self.effects.push_back(Effect::Interrupt { partition: id });
                }
            }
        }
    }

    /// Gives partitions up without a commit; open transactions that hold messages of them abort.
    pub(super) fn abandon(&mut self, ids: &[PartitionId]) {
        let mut sent = Vec::new();
        for id in ids {
            let Some(partition) = self.partitions.get_mut(id) else { continue };
            if !partition.is_recovering() {
                partition.tenure = Tenure::Abandoned;
            }
            let numbers = partition.window.iter().filter_map(|piece| match piece.phase {
                Phase::Sent { number } => Some(number),
                Phase::Received
                | Phase::Admitting { .. }
                | Phase::Ready
                | Phase::Running
                | Phase::Waiting
                | Phase::Finished
                | Phase::Done => None,
            });
            sent.extend(numbers);
        }
        let open = |number| self.transactions.iter().any(|t| t.number == number && t.is_open());
        if let Some(number) = sent.into_iter().filter(|&number| open(number)).min() {
            self.abort_from(number, Loss::Lost, "partitions of it were lost");
        }
    }

    pub(super) fn advance_rebalance(&mut self) {
        self.hurry_overdue();
        while let Some(rebalance) = self.rebalances.pop_front() {
            let waiting = match rebalance {
                Rebalance::Assigning { ids, asked } => self.advance_assigning(ids, asked),
                Rebalance::Revoking { ids, deadline } => self.advance_revoking(ids, deadline),
            };
            if let Some(waiting) = waiting {
                self.rebalances.push_front(waiting);
                break;
            }
        }
        self.advance_drain();
    }

    /// No committed offset is read before every slot is registered: an open transaction of a former
    /// self would hold it pending until its time-out. What is taken back meanwhile, comes when the
    /// worker is leaving, or takes longer than the others is not waited for and not started.
    fn advance_assigning(&mut self, ids: Vec<PartitionId>, asked: bool) -> Option<Rebalance> {
        let mut wanted = ids.clone();
        wanted.retain(|id| !self.is_let_go(*id));
        if wanted.is_empty() && self.drain != Drain::No {
            self.assign_abandoned(&ids);
            return None;
        }
        let undecided = |slot: &Slot| matches!(slot, Slot::Opening { .. } | Slot::Closed { .. });
        if !asked && !wanted.is_empty() {
            if self.slots.iter().any(undecided) {
                return Some(Rebalance::Assigning { ids, asked });
            }
            self.ask(&wanted);
        }
        let mut known = wanted.iter().filter_map(|id| self.partitions.get(id));
        if known.any(|p| p.tenure == Tenure::Recovering(Wait::Assignment)) {
            return Some(Rebalance::Assigning { ids, asked: true });
        }
        let start = |id: PartitionId| {
            let known = self.partitions.get(&id).filter(|p| !p.is_recovering())?;
            wanted.contains(&id).then_some(known.position)
        };
        let starts = ids.iter().map(|&id| (id, start(id))).collect();
        self.effects.push_back(Effect::Assign(starts));
        None
    }

    /// The budget is used up while partitions are still being recovered. Without an answer that
    /// names all of them the group's revocation would never come; nothing of them is handled.
    fn assign_abandoned(&mut self, ids: &[PartitionId]) {
        let mut starts = Vec::new();
        for &id in ids {
            if !self.partitions.contains_key(&id) {
                self.take_up(id);
            }
            let Some(partition) = self.partitions.get_mut(&id) else { continue };
            partition.tenure = Tenure::Abandoned;
            starts.push((id, None));
        }
        self.effects.push_back(Effect::Assign(starts));
    }

    fn ask(&mut self, ids: &[PartitionId]) {
        // What is recovered from the store must be all that was noted.
        self.write_journal();
        let begun = ids.iter().map(|&id| (id, self.take_up(id))).collect();
        self.effects.push_back(Effect::Recover(begun));
    }

    /// Begins an ownership; gives its epoch.
    fn take_up(&mut self, id: PartitionId) -> u64 {
        self.epochs += 1;
        self.partitions.insert(id, Partition::new(id, self.epochs, self.settings.order));
        self.epochs
    }

    fn is_let_go(&self, id: PartitionId) -> bool {
        let leaving = match self.drain {
            Drain::No => false,
            Drain::Until(deadline) => deadline <= self.now,
            Drain::Leaving { .. } => true,
        };
        leaving
            || self.rebalances.iter().any(|rebalance| match rebalance {
                Rebalance::Assigning { .. } => false,
                Rebalance::Revoking { ids, .. } => ids.contains(&id),
            })
    }

    fn advance_revoking(
        &mut self,
        ids: Vec<PartitionId>,
        deadline: Option<Time>,
    ) -> Option<Rebalance> {
        // They may have been recovered after the group took them back.
        match deadline {
            Some(deadline) => self.leave(&ids, deadline),
            None => self.abandon(&ids),
        }
        if !self.are_settled(ids.iter()) {
            return Some(Rebalance::Revoking { ids, deadline });
        }
        let aborting = self.transactions.iter().filter(|t| t.is_aborting());
        let aborting: Vec<u64> = aborting.map(|transaction| transaction.number).collect();
        for id in &ids {
            let Some(partition) = self.partitions.remove(id) else { continue };
            self.note(partition.let_go(&aborting));
            self.suspects.forget(*id);
            self.refusals.end(Subject::Member(Denied::Reading(*id)));
            self.answer_all(&Obstacle::Moved, |of| of == *id);
            self.effects.push_back(Effect::Forget { partition: *id });
        }
        // Another worker of this process may be the next owner: what it writes must come after.
        self.write_journal();
        self.effects.push_back(Effect::Unassign(ids));
        None
    }

    /// Leaves the group once everything is settled, and ends once nothing is owned any more.
    fn advance_drain(&mut self) {
        let settled = self.rebalances.is_empty() && self.are_settled(self.partitions.keys());
        if matches!(self.drain, Drain::Until(_)) && settled && !self.stopped {
            self.drain = Drain::Leaving { until: self.now + LEAVE_PATIENCE };
            self.effects.push_back(Effect::Leave);
        }
        if let Drain::Leaving { until } = self.drain
            && (self.partitions.is_empty() || until <= self.now)
        {
            self.stop(Ok(()));
        }
    }

    fn are_settled<'a>(&self, mut ids: impl Iterator<Item = &'a PartitionId>) -> bool {
        ids.all(|id| {
            let settled = |p: &Partition| p.is_settled() && !self.is_under_way(p);
            self.partitions.get(id).is_none_or(settled)
        })
    }

    /// Whether a transaction that is not ended, nor in doubt, holds messages or the position.
    fn is_under_way(&self, partition: &Partition) -> bool {
        let holds = |transaction: &Transaction| {
            let number = transaction.number;
            partition.window.any(|phase| phase == Phase::Sent { number })
                || transaction.sent.iter().any(|sent| {
                    sent.position.partition == partition.id && sent.epoch == partition.epoch
                })
        };
        // Nothing can be committed by one that is being aborted, and its pending offsets make the
        // next owner wait: a partition that is given up need not.
        let given_up = partition.tenure == Tenure::Abandoned;
        let counts = |t: &Transaction| !(t.is_undecided() || given_up && t.is_aborting());
        self.transactions.iter().any(|t| counts(t) && holds(t))
    }

    pub(super) fn rebalance_due(&self) -> Option<Time> {
        let deadline = |partition: &Partition| match partition.tenure {
            Tenure::Leaving { until, .. } => Some(until),
            Tenure::Recovering(_) | Tenure::Owned | Tenure::Abandoned => None,
        };
        let drain = match self.drain {
            Drain::Until(deadline) => Some(deadline),
            Drain::Leaving { until } => Some(until),
            Drain::No => None,
        };
        self.partitions.values().filter_map(deadline).chain(drain).min()
    }

    pub(super) fn is_revoking(&self) -> bool {
        matches!(self.rebalances.front(), Some(Rebalance::Revoking { .. }))
    }
}
