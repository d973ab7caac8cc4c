//! What becomes of a message that failed: it waits for its retry, is given up, or stops the worker.

use crate::breaker::{Breaker, BreakerAction, Leave, Switch};
use crate::entry::{Note, PartitionId};
use crate::settings::GiveUp;
use crate::span::Span;
use crate::state::{Outcome, Reason};
use crate::transition::Event;

use super::effect::{Cause, Effect, GivenUp, Notice};
use super::input::{Failure, FailureClass};
use super::schedule::Allowance;
use super::stop::StopReason;
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
        let most = self.settings.attempts.filter(|_| is_open).map(|limit| limit.saturating_sub(1));
        let attempts = partition.count_attempt(offset, failure.reason, most);
        // If the letter itself was refused, nothing is left to be done with it.
        let may_be_letter = partition.outcomes.remove(&offset).is_none()
            && self.settings.give_up == GiveUp::DeadLetter
            && failure.class != FailureClass::Fatal;
        partition.wait(offset);
        let note = Note::Failure(failure.message.clone());
        let moved = partition.moved(Span::one(offset), Event::RolledBack(failure.reason), note);
        self.note([moved]);
        self.counts.failures += 1;
        self.note_failure(id, offset, &failure.message);
        if self.stopped {
            return;
        }
        match self.cause(attempts, failure.class) {
            None => self.retry(id, offset, attempts, failure.message),
            Some(cause) if may_be_letter => {
                self.dead_letter(id, offset, attempts, cause, failure);
            }
            Some(_) => self.give_up(id, offset, attempts, failure.message),
        }
    }

    /// The message whose output Kafka refused fails by itself.
    pub(super) fn blame(&mut self, id: PartitionId, offset: u64, message: String) {
        let class = FailureClass::Retryable;
        self.fail(id, offset, Failure { reason: Reason::Error, class, message });
    }

    /// Why a message that failed so often is given up; `None` if it is tried again.
    fn cause(&self, attempts: u32, class: FailureClass) -> Option<Cause> {
        let is_open = self.breaker.as_ref().is_some_and(Breaker::is_open);
        let gives_way = self.breaker.as_ref().is_none_or(Breaker::gives_way);
        // Then the last attempt was not counted.
        let failed = attempts.saturating_add(u32::from(is_open));
        let used_up = self.settings.attempts.is_some_and(|limit| failed >= limit);
        match class {
            FailureClass::Retryable if used_up && gives_way => Some(Cause::AttemptsUsedUp),
            FailureClass::Retryable => None,
            FailureClass::Permanent | FailureClass::Fatal => Some(Cause::Rejected),
        }
    }

    pub(super) fn retry(&mut self, id: PartitionId, offset: u64, attempt: u32, message: String) {
        let wait = self.settings.retry.wait(attempt, self.settings.seed ^ offset);
        let due = self.now + wait;
        let Some(partition) = self.partitions.get_mut(&id) else { return };
        partition.retries.insert(offset, due);
        let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        self.notice(Notice::Retry { partition: id, offset, attempt, wait_ms, message });
    }

    fn give_up(&mut self, id: PartitionId, offset: u64, attempts: u32, message: String) {
        self.stop(Err(StopReason::Message { partition: id, offset, attempts, message }));
    }

    /// The message is finished: its dead letter is its output.
    fn dead_letter(
        &mut self,
        id: PartitionId,
        offset: u64,
        attempts: u32,
        cause: Cause,
        failure: Failure,
    ) {
        let message = failure.message.clone();
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
