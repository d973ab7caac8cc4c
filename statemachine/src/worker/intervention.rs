//! What an operator orders about one message: pass over it, try it now, make a dead letter of it.
//!
//! ```text
//!  ordered --running--> stopping --its run ended--.
//!     |                                           v
//!     `--waiting, ready, received----------> concluded --committed--> recording --> answered
//!                                       or, for a retry, due -----------'
//! ```
//!
//! A message that is being handled is taken from its handler first, and whatever that says of it
//! meanwhile is not judged. Then the message is finished as any other, by the transaction that
//! sends it next: what comes to nothing is sent again, and the order with it.

use crate::breaker::Breaker;
use crate::entry::{Note, PartitionId};
use crate::settings::GiveUp;
use crate::span::Span;
use crate::state::{Reason, Verb};
use crate::transition::Event;

use super::Worker;
use super::effect::{Cause, Effect, GivenUp};
use super::input::{Failure, FailureKind, Intervention, Obstacle};
use super::notice::Notice;
use super::partition::{Partition, Tenure};
use super::window::Phase;

/// How far an order is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The message is being taken from its handler.
    Stopping,
    /// The message is finished, and its transaction is not committed yet.
    Concluded,
    /// It is carried out; store write `write` records it.
    Recording { write: u64 },
}

/// An order that is not answered yet.
#[derive(Debug)]
pub(super) struct Pending {
    order: Intervention,
    stage: Stage,
}

impl Partition {
    /// How far a message is that an operator decides about.
    fn decidable(&self, offset: u64) -> Result<Phase, Obstacle> {
        match self.tenure {
            Tenure::Recovering(_) => return Err(Obstacle::TakingUp),
            Tenure::Leaving { .. } | Tenure::Abandoned => return Err(Obstacle::LettingGo),
            Tenure::Owned => {}
        }
        match self.window.at(offset).map(|piece| piece.phase) {
            Some(Phase::Done) => Err(Obstacle::Done),
            Some(Phase::Finished | Phase::Sent { .. }) => Err(Obstacle::BeingCommitted),
            Some(
                phase @ (Phase::Received
                | Phase::Admitting { .. }
                | Phase::Ready
                | Phase::Running
                | Phase::Waiting),
            ) => Ok(phase),
            None if offset < self.position => Err(Obstacle::Done),
            None if offset < self.received => Err(Obstacle::NoMessage),
            None => Err(Obstacle::NotRead { next: self.received }),
        }
    }

    fn phase(&self, offset: u64) -> Option<Phase> {
        self.window.at(offset).map(|piece| piece.phase)
    }
}

impl Worker {
    pub(super) fn on_intervene(&mut self, id: PartitionId, order: Intervention) {
        match self.decidable(id, &order) {
            Err(obstacle) => self.answer(order.id, Err(obstacle)),
            Ok(Phase::Running) => self.cancel(id, order),
            Ok(phase) => self.carry_out(id, order, phase),
        }
    }

    fn decidable(&self, id: PartitionId, order: &Intervention) -> Result<Phase, Obstacle> {
        let partition = self.partitions.get(&id).ok_or(Obstacle::NotOwned)?;
        if self.interventions.contains_key(&(id, order.offset)) {
            return Err(Obstacle::UnderWay);
        }
        if order.verb == Verb::DeadLetter && self.settings.give_up != GiveUp::DeadLetter {
            return Err(Obstacle::NoLetters);
        }
        partition.decidable(order.offset)
    }

    fn answer(&mut self, id: u64, answer: Result<(), Obstacle>) {
        self.counts.interventions += u64::from(answer.is_ok());
        self.effects.push_back(Effect::Answer { id, answer });
    }

    fn cancel(&mut self, id: PartitionId, order: Intervention) {
        let offset = order.offset;
        let Some(partition) = self.partitions.get(&id) else { return };
        let Some((lane, _)) = partition.lanes.of(Span::one(offset)).next() else { return };
        self.effects.push_back(Effect::Cancel { partition: id, lane, offset });
        self.interventions.insert((id, offset), Pending { order, stage: Stage::Stopping });
    }

    /// Whether an operator's order is taking a message from its handler.
    pub(super) fn is_stopping(&self, id: PartitionId, offset: u64) -> bool {
        self.stage_of(id, offset) == Some(Stage::Stopping)
    }

    /// Whether a message is finished by an operator's order, and not committed yet.
    pub(super) fn is_concluded(&self, id: PartitionId, offset: u64) -> bool {
        self.stage_of(id, offset) == Some(Stage::Concluded)
    }

    fn stage_of(&self, id: PartitionId, offset: u64) -> Option<Stage> {
        self.interventions.get(&(id, offset)).map(|pending| pending.stage)
    }

    /// Runs of a partition went on or ended: what was to be taken from its handler may be at hand.
    pub(super) fn resume_interventions(&mut self, id: PartitionId) {
        let Some(partition) = self.partitions.get(&id) else { return };
        let tenure = partition.tenure;
        let all = self.interventions.range((id, 0)..=(id, u64::MAX));
        let stopped = all.filter_map(|(&(_, offset), pending)| {
            let phase = partition.phase(offset).filter(|phase| *phase != Phase::Running)?;
            (pending.stage == Stage::Stopping).then_some((offset, phase))
        });
        for (offset, phase) in stopped.collect::<Vec<_>>() {
            let Some(pending) = self.interventions.remove(&(id, offset)) else { continue };
            let order = pending.order;
            if !phase.is_open() {
                self.answer(order.id, Err(Obstacle::BeingCommitted));
            } else if tenure == Tenure::Abandoned {
                self.answer(order.id, Err(Obstacle::Moved));
            } else if order.verb == Verb::Retry && tenure != Tenure::Owned {
                self.answer(order.id, Err(Obstacle::LettingGo));
            } else {
                self.carry_out(id, order, Phase::Running);
            }
        }
    }

    /// Decides about a message that no handler has; `was` is how far it was.
    fn carry_out(&mut self, id: PartitionId, order: Intervention, was: Phase) {
        let Some(partition) = self.partitions.get_mut(&id) else { return };
        let Intervention { offset, verb, by, reason, .. } = order.clone();
        partition.retries.remove(&offset);
        let notice = Notice::Intervened {
            partition: id,
            offset,
            verb,
            by: by.clone(),
            reason: reason.clone(),
        };
        let first = (Event::Intervened(verb), Note::Operator { by, reason });
        let follows = follows(verb, was).iter().map(|event| (*event, Note::None));
        let moves: Vec<_> = std::iter::once(first)
            .chain(follows)
            .map(|(event, note)| partition.moved(Span::one(offset), event, note))
            .collect();
        let write = self.journal.next_write();
        let stage = match verb {
            Verb::Retry => {
                partition.try_anew(offset, was, write);
                Stage::Recording { write }
            }
            Verb::Skip | Verb::DeadLetter => {
                self.conclude(id, &order);
                Stage::Concluded
            }
        };
        self.note(moves);
        self.journal.hurry();
        self.notice(notice);
        self.interventions.insert((id, offset), Pending { order, stage });
    }

    /// The message is finished without its handler.
    fn conclude(&mut self, id: PartitionId, order: &Intervention) {
        let (offset, verb) = (order.offset, order.verb);
        let Some(partition) = self.partitions.get_mut(&id) else { return };
        let Some(outcome) = verb.outcome() else { return };
        let (epoch, attempts) = (partition.epoch, partition.attempt(offset));
        partition.conclude(offset, outcome);
        let effect = match verb {
            Verb::Skip | Verb::Retry => Effect::Skip { partition: id, epoch, offset },
            Verb::DeadLetter => {
                let kind = FailureKind::Permanent;
                let failure = Failure::new(Reason::Error, kind, order.reason.clone());
                let cause = Cause::Operator;
                Effect::DeadLetter(GivenUp {
                    partition: id,
                    epoch,
                    offset,
                    attempts,
                    cause,
                    failure,
                })
            }
        };
        self.effects.push_back(effect);
    }

    /// Messages of these partitions were committed: those that an operator has decided about are
    /// recorded at once, and then answered for.
    pub(super) fn record_interventions(&mut self, ids: &[PartitionId]) {
        let write = self.journal.next_write();
        let mut recorded = false;
        for (&(id, offset), pending) in &mut self.interventions {
            let Some(partition) = self.partitions.get(&id).filter(|_| ids.contains(&id)) else {
                continue;
            };
            let is_done = partition.phase(offset).is_none_or(|phase| phase == Phase::Done);
            if pending.stage == Stage::Concluded && is_done {
                pending.stage = Stage::Recording { write };
                recorded = true;
                match pending.order.verb {
                    Verb::Skip => self.counts.skipped += 1,
                    Verb::DeadLetter => self.counts.dead_letters += 1,
                    Verb::Retry => {}
                }
            }
        }
        if recorded {
            self.journal.hurry();
        }
    }

    /// Store writes up to `write` are flushed.
    pub(super) fn answer_recorded(&mut self, write: u64) {
        let is_recorded = |_: &(PartitionId, u64), pending: &Pending| match pending.stage {
            Stage::Recording { write: wanted } => wanted <= write,
            Stage::Stopping | Stage::Concluded => false,
        };
        for ((id, offset), pending) in self.take_pending(is_recorded) {
            if pending.order.verb == Verb::Retry {
                self.try_next(id, offset);
            }
            self.answer(pending.order.id, Ok(()));
        }
    }

    /// Orders are given up, but for those that are carried out and only not recorded yet.
    pub(super) fn answer_all(&mut self, obstacle: &Obstacle, of: impl Fn(PartitionId) -> bool) {
        for (_, pending) in self.take_pending(|(id, _), _| of(*id)) {
            let is_committed = pending.order.verb != Verb::Retry;
            let is_done = is_committed && matches!(pending.stage, Stage::Recording { .. });
            let answer = if is_done { Ok(()) } else { Err(obstacle.clone()) };
            self.answer(pending.order.id, answer);
        }
    }

    fn take_pending(
        &mut self,
        wanted: impl Fn(&(PartitionId, u64), &Pending) -> bool,
    ) -> Vec<((PartitionId, u64), Pending)> {
        let is_wanted =
            |(key, pending): (&(PartitionId, u64), &Pending)| wanted(key, pending).then_some(*key);
        let keys: Vec<_> = self.interventions.iter().filter_map(is_wanted).collect();
        let take = |key| self.interventions.remove(&key).map(|pending| (key, pending));
        keys.into_iter().filter_map(take).collect()
    }

    /// While the breaker is open one message is tried at a time: this one is the next.
    fn try_next(&mut self, id: PartitionId, offset: u64) {
        let now = self.now;
        let Some(partition) = self.partitions.get_mut(&id) else { return };
        if let Some(breaker) = self.breaker.as_mut().filter(|breaker| breaker.is_open()) {
            Breaker::hurry(breaker, now);
            partition.tried = offset.checked_sub(1);
            self.served = id.0.checked_sub(1).map(PartitionId);
        }
    }

    /// Kafka refused an output of a message that an operator has decided about: it waits for a
    /// retry as before. Whether there was one.
    pub(super) fn refuse_intervention(
        &mut self,
        id: PartitionId,
        offset: u64,
        message: &str,
    ) -> bool {
        // A retry that is only not recorded yet is none of them.
        if !self.is_concluded(id, offset) {
            return false;
        }
        let Some(pending) = self.interventions.remove(&(id, offset)) else { return false };
        let refused = Obstacle::LetterRefused(message.to_owned());
        self.answer(pending.order.id, Err(refused));
        let Some(partition) = self.partitions.get_mut(&id) else { return true };
        partition.outcomes.remove(&offset);
        partition.wait(offset);
        let attempts = partition.attempt(offset);
        let note = Note::Failure(message.to_owned());
        let event = Event::RolledBack(Reason::Aborted);
        let moved = partition.moved(Span::one(offset), event, note);
        self.note([moved]);
        let policy = self.settings.retry.default;
        let seed = self.settings.seed ^ offset;
        let due = policy.due(attempts.max(1), self.now, self.now, seed);
        self.retry(id, offset, attempts.max(1), due, message.to_owned());
        true
    }
}

impl Partition {
    /// The message is due at once, however often it has failed.
    fn try_anew(&mut self, offset: u64, was: Phase, write: u64) {
        self.forget_attempts(offset);
        if matches!(was, Phase::Waiting | Phase::Running) {
            self.admit_again(offset, write);
        }
    }
}

/// What the store is told beside the order itself: what is finished must have been started, and
/// what was taken from its handler is started once more.
fn follows(verb: Verb, was: Phase) -> &'static [Event] {
    match (verb, was) {
        (_, Phase::Waiting) => &[Event::Again, Event::Start],
        (Verb::Skip | Verb::DeadLetter, Phase::Received) => &[Event::Start],
        (Verb::Retry, Phase::Running) => {
            &[Event::RolledBack(Reason::Aborted), Event::Again, Event::Start]
        }
        (Verb::Retry, Phase::Received)
        | (Verb::Skip | Verb::DeadLetter, Phase::Running)
        | (
            _,
            Phase::Admitting { .. }
            | Phase::Ready
            | Phase::Finished
            | Phase::Sent { .. }
            | Phase::Done,
        ) => &[],
    }
}
