//! Messages that may end the process are tried one at a time, each announced before.
//!
//! ```text
//! candidate -> (`AskSolo`) -> `Solo` -> announced by a commit -> handled -> committed -> `EndSolo`
//! ```
//!
//! From before the announcement until a commit takes it back, this worker has the solo: no other
//! handler of the process runs, so that nothing but the announced message can be to blame. Between
//! two trials others get their turn.

use std::ops::Bound;

use crate::entry::{Note, PartitionId};
use crate::settings::GiveUp;
use crate::span::Span;
use crate::state::Reason;
use crate::transition::Event;

use super::caution::{Stage, Trying};
use super::effect::{Cause, Effect};
use super::input::{Failure, FailureKind};
use super::notice::Notice;
use super::partition::{Partition, Tenure};
use super::schedule::Begun;
use super::stop::StopReason;
use super::window::Phase;
use super::{Time, Worker};

/// How long handlers that run are waited for at first; others stand still meanwhile.
const PATIENCE: Time = Time::from_secs(1);

/// How long at most.
const PATIENCE_MOST: Time = Time::from_secs(60);

/// Whether this worker may run a handler that nothing runs beside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Solo {
    /// It may not; it does not ask before `rest` is over, which is that of the others.
    No { rest: Time, patience: Time },
    /// It waits for those that run.
    Asked { until: Time, patience: Time },
    /// It may: for this message.
    Ours { partition: PartitionId, offset: u64 },
}

impl Solo {
    pub(super) const NO: Self = Self::No { rest: Time::ZERO, patience: PATIENCE };
}

impl Partition {
    /// The next message to be tried: the one that was announced when the process ended, or the
    /// first.
    fn candidate(&self) -> Option<u64> {
        let until = self.caution.until.filter(|_| self.may_try())?;
        let suspect = self.caution.suspect.map(|(offset, _)| offset);
        let first = || self.lanes.first_ready().filter(|&first| first < until);
        suspect.filter(|&offset| self.lanes.is_ready(offset)).or_else(first)
    }

    /// The message that ended the process so often that it is not tried again.
    fn pill(&self, most: u32) -> Option<(u64, u32)> {
        let suspect = self.caution.suspect.filter(|_| self.may_try());
        suspect.filter(|&(offset, deaths)| deaths >= most && self.lanes.is_ready(offset))
    }

    fn may_try(&self) -> bool {
        self.tenure == Tenure::Owned && !self.held && self.caution.trying.is_none()
    }

    /// Whether messages have yet to be tried, and passed by a commit, before others are handled:
    /// one of these might end the process before what was found out is known to the next owner.
    /// Those that wait for a retry do not hold others up.
    pub(super) fn is_trying(&self) -> bool {
        let Some(until) = self.caution.until else { return false };
        let below = |at: Option<u64>| at.is_some_and(|at| at < until);
        let is_on_its_way = |phase| match phase {
            Phase::Admitting { .. } | Phase::Finished | Phase::Sent { .. } => true,
            Phase::Received | Phase::Ready | Phase::Running | Phase::Waiting | Phase::Done => false,
        };
        self.caution.trying.is_some()
            || below(self.lanes.first_ready())
            || below(self.lanes.first_next())
            || below(self.window.first(is_on_its_way))
    }

    /// The next commit says that the message is tried.
    fn announce(&mut self, offset: u64) {
        self.caution.trying = Some(Trying { offset, stage: Stage::Announcing });
        self.unsaved = true;
    }

    /// Begins the run of the announced message.
    fn begin_trial(&mut self) -> Option<Begun> {
        let announced = self.caution.trying.filter(|trying| trying.stage == Stage::Announced);
        let offset = announced.filter(|_| self.tenure == Tenure::Owned)?.offset;
        self.caution.trying = Some(Trying { offset, stage: Stage::Running });
        self.note_run();
        let (lane, spans) = self.lanes.start(&self.window, offset.checked_sub(1), 1, |_| None)?;
        self.window.set(Span::one(offset), Phase::Running);
        self.lanes.refresh(lane, &self.window);
        Some(Begun { lane, spans, attempt: self.attempt(offset), at_any_cost: true })
    }

    /// Takes note of the end of the trial. Its handler has ended, or its message does not wait for
    /// a handler any more: an operator has decided about it, or an output of an earlier message of
    /// its lane was refused.
    pub(super) fn look_after_trial(&mut self) {
        let Some(Trying { offset, stage }) = self.caution.trying else { return };
        let goes_on = match stage {
            Stage::Announcing | Stage::Announced => self.lanes.is_ready(offset),
            Stage::Running => self.is_at(offset),
            Stage::Ended => true,
        };
        if !goes_on {
            self.end_trial();
        }
    }

    /// The announcement is taken back by the next commit, whether or not the handler has ended: a
    /// rebalance is not to count.
    pub(super) fn end_trial(&mut self) {
        self.unsaved |= self.caution.end();
    }

    /// Whether a handler is at a message.
    fn is_at(&self, offset: u64) -> bool {
        self.window.at(offset).is_some_and(|piece| piece.phase == Phase::Running)
    }

    /// Whether what its next commit says is waited for by a handler.
    pub(super) fn hurries(&self) -> bool {
        self.held || self.caution.waits_for_commit()
    }
}

impl Worker {
    /// The solo is this worker's. What it was asked for may have changed since.
    pub(super) fn on_solo(&mut self) {
        let next = self.next_candidate();
        if let Solo::Asked { .. } = self.solo
            && let Some((id, offset)) = next
            && let Some(partition) = self.partitions.get_mut(&id)
        {
            self.tried = Some(id);
            self.solo = Solo::Ours { partition: id, offset };
            partition.announce(offset);
            let delivery = partition.caution.deaths(offset) + 1;
            let most = self.settings.deliveries;
            self.notice(Notice::Tried { partition: id, offset, delivery, most });
        } else {
            self.end_solo(Time::ZERO, PATIENCE);
        }
    }

    pub(super) fn advance_trials(&mut self) {
        let is_careful = self.partitions.values().any(|p| p.caution.until.is_some());
        if !is_careful && matches!(self.solo, Solo::No { .. }) {
            return;
        }
        self.give_up_pills();
        if let Solo::Ours { partition, offset } = self.solo {
            self.advance_trial(partition, offset);
        }
        let wants = self.wants_solo();
        match self.solo {
            Solo::No { rest, patience } if wants && rest <= self.now => {
                self.solo = Solo::Asked { until: self.now + patience, patience };
                self.effects.push_back(Effect::AskSolo);
            }
            Solo::Asked { .. } if !wants => self.end_solo(Time::ZERO, PATIENCE),
            // A handler takes so long that the others shall not stand still for it.
            Solo::Asked { until, patience } if until <= self.now => {
                let longer = patience.saturating_mul(2).min(PATIENCE_MOST);
                self.end_solo(self.now + patience, longer);
            }
            Solo::No { .. } | Solo::Asked { .. } | Solo::Ours { .. } => {}
        }
    }

    fn advance_trial(&mut self, id: PartitionId, offset: u64) {
        let Some(partition) = self.partitions.get_mut(&id) else {
            return self.end_solo(Time::ZERO, PATIENCE);
        };
        // Before the next commit, which must not announce a message that it passes.
        partition.look_after_trial();
        if let Some(begun) = partition.begin_trial() {
            let (partition, epoch) = (partition.id, partition.epoch);
            let Begun { lane, spans, attempt, at_any_cost } = begun;
            self.effects.push_back(Effect::Handle {
                partition,
                epoch,
                lane,
                spans,
                attempt,
                solo: true,
                at_any_cost,
            });
        } else if partition.caution.trying.is_none() && !partition.is_at(offset) {
            self.end_solo(Time::ZERO, PATIENCE);
        }
    }

    fn end_solo(&mut self, rest: Time, patience: Time) {
        self.solo = Solo::No { rest, patience };
        self.effects.push_back(Effect::EndSolo);
    }

    fn wants_solo(&self) -> bool {
        self.partitions.values().any(|p| p.candidate().is_some()) && self.allowance().runs > 0
    }

    /// The partitions take turns.
    fn next_candidate(&self) -> Option<(PartitionId, u64)> {
        let of = |(id, partition): (&PartitionId, &Partition)| Some((*id, partition.candidate()?));
        let later = self.tried.map_or(Bound::Unbounded, Bound::Excluded);
        let mut after = self.partitions.range((later, Bound::Unbounded));
        after.find_map(of).or_else(|| self.partitions.iter().find_map(of))
    }

    pub(super) fn solo_due(&self) -> Option<Time> {
        match self.solo {
            Solo::No { rest, .. } => {
                Some(rest).filter(|&rest| rest > self.now && self.wants_solo())
            }
            Solo::Asked { until, .. } => Some(until),
            Solo::Ours { .. } => None,
        }
    }

    fn give_up_pills(&mut self) {
        let most = self.settings.deliveries;
        let pill = |partition: &Partition| Some((partition.id, partition.pill(most)?));
        let pills: Vec<_> = self.partitions.values().filter_map(pill).collect();
        for (id, (offset, deaths)) in pills {
            self.give_up_pill(id, offset, deaths);
        }
    }

    fn give_up_pill(&mut self, id: PartitionId, offset: u64, deliveries: u32) {
        let message = format!(
            "the process ended in each of the {deliveries} times that it handled this message \
             with nothing beside it"
        );
        let Some(partition) = self.partitions.get(&id) else { return };
        let note = Note::Failure(message.clone());
        let moved = partition.moved(Span::one(offset), Event::RolledBack(Reason::Crashed), note);
        let attempts = partition.attempt(offset);
        self.note([moved]);
        let failure = Failure::new(Reason::Crashed, FailureKind::Permanent, message);
        match self.settings.give_up {
            GiveUp::DeadLetter => {
                self.dead_letter(id, offset, attempts, Cause::PoisonPill, failure);
            }
            GiveUp::Stop => {
                self.stop(Err(StopReason::PoisonPill { partition: id, offset, deliveries }));
            }
        }
    }
}
