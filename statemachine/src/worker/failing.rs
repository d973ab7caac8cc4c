//! What becomes of a message that failed: it waits for its retry, is given up, or stops the worker.

use crate::breaker::{Breaker, BreakerAction, Leave, Switch};
use crate::entry::{Note, PartitionId};
use crate::retry::RetryPolicy;
use crate::settings::GiveUp;
use crate::span::Span;
use crate::state::{Outcome, Reason};
use crate::transition::Event;

use super::effect::{Cause, Effect, GivenUp};
use super::input::{Failure, FailureKind};
use super::notice::Notice;
use super::schedule::Allowance;
use super::stop::StopReason;
use super::transaction::Loss;
use super::window::Phase;
use super::{Time, Worker};

impl Worker {
    /// A message failed.
    pub(super) fn fail(&mut self, id: PartitionId, offset: u64, failure: Failure) {
        if self.refuse_intervention(id, offset, &failure.message) {
            return;
        }
        let Some(partition) = self.partitions.get_mut(&id) else { return };
        // While the breaker is open what is wrong is likely not the message.
        let is_open = self.breaker.as_ref().is_some_and(Breaker::is_open);
        let policy = self.settings.retry.of(failure.class());
        let most = policy.attempts.filter(|_| is_open).map(|limit| limit.saturating_sub(1));
        let attempts = partition.count_attempt(offset, failure.reason, most);
        let first = *partition.first_failures.entry(offset).or_insert(self.now);
        // If the letter itself was refused, nothing is left to be done with it.
        let may_be_letter = partition.outcomes.remove(&offset).is_none()
            && self.settings.give_up == GiveUp::DeadLetter
            && failure.kind != FailureKind::Fatal;
        partition.wait(offset);
        let told = failure.to_string();
        let note = Note::Failure(told.clone());
        let moved = partition.moved(Span::one(offset), Event::RolledBack(failure.reason), note);
        self.note([moved]);
        self.counts.failures += 1;
        self.note_failure(id, offset, &told);
        if self.stopped {
            return;
        }
        match self.cause(policy, attempts, first, failure.kind) {
            None => {
                let due = policy.due(attempts, first, self.now, self.settings.seed ^ offset);
                self.retry(id, offset, attempts, due, told);
            }
            Some(cause) if may_be_letter => {
                self.dead_letter(id, offset, attempts, cause, failure);
            }
            Some(_) => self.give_up(id, offset, attempts, told),
        }
    }

    /// There is nowhere left to put the message; one that an operator gave up goes on as it was.
    pub(super) fn on_letter_too_large(
        &mut self,
        id: PartitionId,
        epoch: u64,
        offset: u64,
        message: String,
    ) {
        let Some(partition) = self.owned(id, epoch) else { return };
        let attempts = partition.attempt(offset);
        let phase = partition.window.at(offset).map(|piece| piece.phase);
        if !self.is_concluded(id, offset) {
            self.give_up(id, offset, attempts, message);
        } else if let Some(Phase::Sent { number }) = phase {
            // It is in a transaction already, with nothing to be sent.
            self.abort_for((id, offset), number, message);
        } else {
            self.blame(id, offset, message);
        }
    }

    fn abort_for(&mut self, (id, offset): (PartitionId, u64), number: u64, message: String) {
        let Some(transaction) = self.transaction(number) else { return };
        let slot = transaction.slot;
        transaction.blamed.push((id, offset, message.clone()));
        self.abort(number, Loss::Refused, message);
        self.effects.push_back(Effect::Abort { slot });
    }

    /// The message whose output Kafka refused fails by itself.
    pub(super) fn blame(&mut self, id: PartitionId, offset: u64, message: String) {
        self.fail(id, offset, Failure::new(Reason::Error, FailureKind::Retryable, message));
    }

    /// Why a message that failed so often is given up; `None` if it is tried again.
    fn cause(
        &self,
        policy: RetryPolicy,
        attempts: u32,
        first: Time,
        kind: FailureKind,
    ) -> Option<Cause> {
        let is_open = self.breaker.as_ref().is_some_and(Breaker::is_open);
        let gives_way = self.breaker.as_ref().is_none_or(Breaker::gives_way);
        // Then the last attempt was not counted.
        let failed = attempts.saturating_add(u32::from(is_open));
        let spent = policy.is_spent(failed).then_some(Cause::AttemptsUsedUp);
        let over = policy.is_over(first, self.now).then_some(Cause::BudgetUsedUp);
        match kind {
            FailureKind::Retryable => spent.or(over).filter(|_| gives_way),
            FailureKind::Permanent | FailureKind::Fatal => Some(Cause::Rejected),
        }
    }

    pub(super) fn retry(
        &mut self,
        id: PartitionId,
        offset: u64,
        attempt: u32,
        due: Time,
        message: String,
    ) {
        let wait = due.saturating_sub(self.now);
        let Some(partition) = self.partitions.get_mut(&id) else { return };
        partition.retries.insert(offset, due);
        let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        self.notice(Notice::Retry { partition: id, offset, attempt, wait_ms, message });
    }

    fn give_up(&mut self, id: PartitionId, offset: u64, attempts: u32, message: String) {
        self.stop(Err(StopReason::Message { partition: id, offset, attempts, message }));
    }

    /// The message is finished: its dead letter is its output.
    pub(super) fn dead_letter(
        &mut self,
        id: PartitionId,
        offset: u64,
        attempts: u32,
        cause: Cause,
        failure: Failure,
    ) {
        let message = failure.to_string();
        let Some(partition) = self.partitions.get_mut(&id) else { return };
        let epoch = partition.epoch;
        partition.conclude(offset, Outcome::DeadLettered);
        let span = Span::one(offset);
        let again =
            [Event::Again, Event::Start].map(|event| partition.moved(span, event, Note::None));
        self.note(again);
        self.counts.dead_letters += 1;
        let given_up = GivenUp { partition: id, epoch, offset, attempts, cause, failure };
        self.effects.push_back(Effect::DeadLetter(given_up));
        self.notice(Notice::DeadLettered { partition: id, offset, attempts, cause, message });
    }

    /// How much may be begun now.
    pub(super) fn allowance(&self) -> Allowance {
        let leave = self.breaker.as_ref().map_or(Leave::Any, |breaker| breaker.leave(self.now));
        let (runs, messages) = match leave {
            Leave::Any => (self.settings.concurrency, self.settings.handle_records),
            Leave::One => (1, 1),
            Leave::None { .. } => (0, 0),
        };
        Allowance { runs, messages, is_probe: leave != Leave::Any }
    }

    /// When the next message may be tried though the breaker is open.
    pub(super) fn probe_due(&self) -> Option<Time> {
        match self.breaker.as_ref()?.leave(self.now) {
            Leave::None { until } => Some(until),
            Leave::Any | Leave::One => None,
        }
    }

    pub(super) fn note_success(&mut self, messages: u64) {
        let switch = self.breaker.as_mut().and_then(|breaker| breaker.succeeded(messages));
        match switch {
            Some(Switch::Closed) => self.notice(Notice::BreakerClosed),
            Some(Switch::Opened) | None => {}
        }
    }

    fn note_failure(&mut self, partition: PartitionId, offset: u64, message: &str) {
        let now = self.now;
        let Some(breaker) = &mut self.breaker else { return };
        let message = message.to_owned();
        match (breaker.failed(now), breaker.action()) {
            (Some(Switch::Opened), BreakerAction::Probe) => {
                self.notice(Notice::BreakerOpened { message });
            }
            (Some(Switch::Opened), BreakerAction::Stop) => {
                self.stop(Err(StopReason::Breaker { partition, offset, message }));
            }
            (Some(Switch::Closed) | None, _) => {}
        }
    }
}
