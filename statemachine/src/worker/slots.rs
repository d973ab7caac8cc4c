//! What the producer slots report, and what becomes of a slot.

use crate::Disposition;
use crate::entry::{End, PartitionId};

use super::effect::{Effect, Renewal};
use super::found::Commit;
use super::input::{Call, Refusal, SlotEvent};
use super::notice::Notice;
use super::partition::Tenure;
use super::recovery::{Verdict, verdict};
use super::refusal::Subject;
use super::stop::StopReason;
use super::transaction::{Loss, Slot, Stage, Step, after};
use super::{Time, Worker};

/// So many unexplained fencings within [`FENCES_WITHIN`] are the work of another process.
const FENCES_MAX: usize = 3;

const FENCES_WITHIN: Time = Time::from_secs(60);

/// A slot's call failed for good.
struct Fault {
    call: Call,
    disposition: Disposition,
    refusal: Option<Refusal>,
    message: String,
}

impl Worker {
    pub(super) fn on_slot(&mut self, slot: u32, event: SlotEvent) {
        let number = self.transactions.iter().find(|t| t.slot == slot).map(|t| t.number);
        match (event, number) {
            (SlotEvent::Opened, number) => self.on_opened(slot, number),
            (SlotEvent::Flushed { outputs }, Some(number)) => {
                if let Some(transaction) = self.transaction(number)
                    && transaction.stage == Stage::Flushing
                {
                    transaction.stage = Stage::Flushed;
                    transaction.outputs = outputs;
                    self.note_flushed(number);
                }
            }
            (SlotEvent::Committed { suspicious }, Some(number)) => {
                self.free(slot, suspicious);
                self.finish_committed(number, End::Committed);
            }
            (SlotEvent::Aborted { suspicious }, Some(number)) => {
                self.free(slot, suspicious);
                self.finish_aborted(number);
            }
            (SlotEvent::Failed { call, disposition, refusal, message }, number) => {
                self.on_fault(slot, number, &Fault { call, disposition, refusal, message });
            }
            (SlotEvent::GivenUp { call, message }, number) => {
                self.on_given_up(slot, number, call, message);
            }
            (
                SlotEvent::Flushed { .. } | SlotEvent::Committed { .. } | SlotEvent::Aborted { .. },
                None,
            ) => {}
        }
    }

    /// Each producer is replaced as soon as it has no transaction.
    pub(super) fn on_outdated(&mut self) {
        for (slot, state) in (0_u32..).zip(self.slots.clone()) {
            match state {
                Slot::Idle => self.open(slot, Renewal::Outdated),
                Slot::Busy | Slot::Opening { .. } => {
                    self.outdated.insert(slot);
                }
                Slot::Closed { .. } => {}
            }
        }
    }

    fn on_opened(&mut self, slot: u32, number: Option<u64>) {
        self.set_slot(slot, Slot::Idle);
        self.settle_opened(number);
        // It may have been made just before its settings changed.
        if self.outdated.contains(&slot) {
            self.open(slot, Renewal::Outdated);
        }
    }

    /// The registration has decided what the former producer left open.
    fn settle_opened(&mut self, number: Option<u64>) {
        let Some(transaction) = number.and_then(|number| self.transaction(number)) else { return };
        let number = transaction.number;
        match transaction.stage {
            Stage::Aborting | Stage::Withdrawn => self.finish_aborted(number),
            Stage::InDoubt => {
                transaction.stage = Stage::Deciding;
                let partitions = self.witnesses(number);
                if partitions.is_empty() {
                    self.on_commits(number, &[]);
                } else {
                    self.effects.push_back(Effect::ReadCommits { number, partitions });
                }
            }
            Stage::Filling
            | Stage::Flushing
            | Stage::Flushed
            | Stage::Committing
            | Stage::Deciding => {}
        }
    }

    fn on_fault(&mut self, slot: u32, number: Option<u64>, fault: &Fault) {
        let of = number.and_then(|number| self.transactions.iter().find(|t| t.number == number));
        let stage = of.map(|transaction| transaction.stage);
        let age = of.map_or(Time::ZERO, |t| self.now.saturating_sub(t.began));
        let loss = of.map_or(Loss::Failed, |t| self.loss_now(t, Loss::of(fault.call)));
        // What was sent after an abort was ordered fails because of it.
        if stage.is_some_and(|stage| matches!(stage, Stage::Aborting | Stage::Withdrawn))
            && matches!(fault.call, Call::Send | Call::Flush | Call::SendOffsets)
        {
            return;
        }
        let timeout = self.settings.transaction_timeout;
        let step = match after(fault.call, fault.disposition, age, timeout) {
            // Taken for a time-out until it repeats.
            Step::Fenced if !self.is_twin() => {
                after(fault.call, fault.disposition, age.max(timeout), timeout)
            }
            // What it has been let do before may be allowed again.
            Step::Refused if self.bears(Subject::Producing, self.counts.confirmed > 0) => {
                Step::Renew
            }
            step => step,
        };
        let message = fault.message.clone();
        match (step, number) {
            (Step::Fenced, _) if fault.call == Call::Open && !self.has_twin() => {
                self.close_slot(slot);
            }
            (Step::Fenced, _) => self.stop(Err(StopReason::Fenced { slot, message })),
            (Step::Refused, _) => {
                self.stop(Err(StopReason::Refused { call: fault.call, message }));
            }
            (Step::Renew, _) if fault.call == Call::Open => self.close_slot(slot),
            (Step::Abort, Some(number)) => {
                let loss = fault.refusal.as_ref().map_or(loss, |refusal| {
                    self.find_blame(number, refusal, &message);
                    Loss::Refused
                });
                self.abort(number, loss, message);
                self.effects.push_back(Effect::Abort { slot });
            }
            (Step::Renew, Some(number)) => {
                // Registering the new producer aborts what the old one left open.
                self.abort(number, loss, message);
                self.open(slot, Renewal::Failed);
            }
            (Step::Doubt, Some(number)) => self.doubt((slot, number), loss, message),
            (Step::Abort | Step::Renew | Step::Doubt, None) => self.open(slot, Renewal::Failed),
        }
    }

    /// The producer's transaction is what a fatal error of the call would leave. An abort that was
    /// ordered behind the call is made by the registration of the next producer.
    fn on_given_up(&mut self, slot: u32, number: Option<u64>, call: Call, message: String) {
        if call == Call::Open {
            return self.close_slot(slot);
        }
        let transaction = number.and_then(|number| self.transaction(number));
        let open = transaction.filter(|t| !t.is_aborting()).map(|t| t.number);
        let of = open.and_then(|number| self.transactions.iter().find(|t| t.number == number));
        let loss = of.map_or(Loss::Failed, |t| self.loss_now(t, Loss::Failed));
        let timeout = self.settings.transaction_timeout;
        match (open, after(call, Disposition::Fatal, Time::ZERO, timeout)) {
            (Some(number), Step::Doubt) => self.doubt((slot, number), loss, message),
            (Some(number), Step::Abort | Step::Renew | Step::Fenced | Step::Refused) => {
                self.abort(number, loss, message);
                self.open(slot, Renewal::Failed);
            }
            (None, _) => self.open(slot, Renewal::Failed),
        }
    }

    /// Counts a fencing that no time-out of a transaction explains; gives whether there were so
    /// many that another process must own the ids.
    ///
    /// One alone proves nothing. A late copy of `AddOffsetsToTxn` or `AddPartitionsToTxn` arrives
    /// after the commit and opens a transaction that this worker does not know of; while the worker
    /// is idle the coordinator times it out, which raises the epoch; and the first call of the next
    /// transaction is fenced. Two live owners fence each other at every transaction.
    fn is_twin(&mut self) -> bool {
        self.fences.retain(|at| *at + FENCES_WITHIN > self.now);
        self.fences.push_back(self.now);
        self.has_twin()
    }

    fn has_twin(&self) -> bool {
        self.fences.len() >= FENCES_MAX
    }

    fn doubt(&mut self, (slot, number): (u32, u64), loss: Loss, message: String) {
        self.counts.in_doubt += 1;
        if let Some(transaction) = self.transaction(number) {
            transaction.stage = Stage::InDoubt;
            transaction.loss = Some(loss);
        }
        let moves: Vec<_> = self.partitions.values().flat_map(|p| p.in_doubt(number)).collect();
        self.note(moves);
        self.record(number, End::InDoubt);
        self.notice(Notice::InDoubt { number, message });
        self.abort_from(number + 1, Loss::Followed, "the transaction before it is in doubt");
        self.open(slot, Renewal::InDoubt);
    }

    /// The partitions that can tell whether a transaction was committed: owned since then without
    /// a break.
    fn witnesses(&self, number: u64) -> Vec<PartitionId> {
        let transaction = self.transactions.iter().find(|t| t.number == number);
        let sent = transaction.into_iter().flat_map(|t| &t.sent);
        sent.filter(|sent| {
            self.partitions
                .get(&sent.position.partition)
                .is_some_and(|p| p.epoch == sent.epoch && p.tenure != Tenure::Abandoned)
        })
        .map(|sent| sent.position.partition)
        .collect()
    }

    pub(super) fn on_commits(&mut self, number: u64, commits: &[(PartitionId, Option<Commit>)]) {
        let witnesses = self.witnesses(number);
        let Some(transaction) = self.transaction(number) else { return };
        if transaction.stage != Stage::Deciding {
            return;
        }
        let pairs = transaction.sent.iter().filter_map(|sent| {
            let id = sent.position.partition;
            let (_, commit) = commits.iter().find(|(asked, _)| *asked == id)?;
            witnesses.contains(&id).then_some((&sent.position, commit.as_ref()))
        });
        let verdict = match verdict(pairs) {
            Ok(verdict) => verdict,
            Err((partition, source)) => {
                return self.stop(Err(StopReason::Position { partition, source }));
            }
        };
        match verdict {
            Some(Verdict::Committed) => self.finish_committed(number, End::FoundCommitted),
            Some(Verdict::NotCommitted) => self.finish_aborted(number),
            Some(Verdict::Torn) => self.stop(Err(StopReason::Torn { number })),
            // Its partitions are gone: their next owner reads the verdict from the commits.
            None => self.transactions.retain(|t| t.number != number),
        }
    }

    pub(super) fn set_slot(&mut self, slot: u32, state: Slot) {
        if let Some(entry) = self.slots.get_mut(slot as usize) {
            *entry = state;
        }
    }

    /// The slot's transaction has ended.
    pub(super) fn free(&mut self, slot: u32, suspicious: bool) {
        if suspicious {
            self.open(slot, Renewal::Suspicious);
        } else if self.outdated.contains(&slot) {
            self.open(slot, Renewal::Outdated);
        } else {
            self.set_slot(slot, Slot::Idle);
        }
    }

    pub(super) fn open(&mut self, slot: u32, why: Renewal) {
        self.counts.renewed += 1;
        self.outdated.remove(&slot);
        self.set_slot(slot, Slot::Opening { tries: 0 });
        self.notice(Notice::Renewing { slot, why });
        self.effects.push_back(Effect::Open { slot, why });
    }

    fn close_slot(&mut self, slot: u32) {
        self.outdated.remove(&slot);
        let tries = match self.slots.get(slot as usize) {
            Some(Slot::Closed { tries, .. } | Slot::Opening { tries }) => tries.saturating_add(1),
            Some(Slot::Idle | Slot::Busy) | None => 1,
        };
        let wait = self.settings.abort_backoff.wait(tries, self.settings.seed);
        self.set_slot(slot, Slot::Closed { tries, due: self.now + wait });
    }

    pub(super) fn advance_slots(&mut self) {
        for (slot, state) in (0_u32..).zip(&mut self.slots) {
            if let Slot::Closed { due, tries } = *state
                && due <= self.now
            {
                *state = Slot::Opening { tries };
                self.effects.push_back(Effect::Open { slot, why: Renewal::Failed });
            }
        }
    }
}
