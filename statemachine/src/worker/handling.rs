//! From received to finished: admission, handlers, retries.

use std::collections::BTreeMap;

use crate::entry::{Moved, Note, PartitionId};
use crate::span::Span;
use crate::state::Reason;
use crate::transition::Event;

use super::effect::{Effect, Notice, StopReason};
use super::input::{Failure, FailureClass};
use super::partition::{Partition, Tenure};
use super::window::Phase;
use super::{Time, Worker};

/// How many runs of a partition are admitted at once: while one is handled the next is flushed.
const ADMITTED_RUNS: u64 = 2;

impl Partition {
    /// Store writes up to `write` are flushed: what they admitted may be handled.
    pub(super) fn stored(&mut self, write: u64) {
        self.window.change(|phase| match phase {
            Phase::Admitting { write: wanted } => (wanted <= write).then_some(Phase::Ready),
            Phase::Received
            | Phase::Ready
            | Phase::Running
            | Phase::Waiting
            | Phase::Finished
            | Phase::Sent { .. }
            | Phase::Done => None,
        });
    }

    /// What ran and did not finish may be started once more.
    fn stop_running(&mut self) {
        self.window.change(|phase| (phase == Phase::Running).then_some(Phase::Ready));
    }

    fn moved(&self, span: Span, event: Event, note: Note) -> Moved {
        Moved { partition: self.id, span, event, note }
    }
}

impl Worker {
    pub(super) fn on_received(&mut self, id: PartitionId, epoch: u64, spans: &[Span]) {
        let Some(partition) = self.owned(id, epoch) else { return };
        if partition.tenure == Tenure::Owned {
            partition.receive(spans);
        }
    }

    /// What is read while the partition is being let go is not admitted, and so the end is not
    /// reached either: a commit may not pass what was dropped.
    pub(super) fn on_at_end(&mut self, id: PartitionId, epoch: u64, offset: u64) {
        let Some(partition) = self.owned(id, epoch) else { return };
        if partition.tenure == Tenure::Owned {
            partition.at_end(offset);
        }
    }

    pub(super) fn on_finished(&mut self, id: PartitionId, epoch: u64, span: Span) {
        if let Some(partition) = self.owned(id, epoch) {
            partition.window.set(span, Phase::Finished);
        }
    }

    pub(super) fn on_yielded(&mut self, id: PartitionId, epoch: u64) {
        if let Some(partition) = self.owned(id, epoch) {
            partition.stop_running();
        }
    }

    pub(super) fn on_failed(&mut self, id: PartitionId, epoch: u64, offset: u64, failure: Failure) {
        let Some(partition) = self.owned(id, epoch) else { return };
        partition.stop_running();
        self.fail(id, offset, failure);
    }

    /// A message failed: it waits for its retry, or stops the worker.
    pub(super) fn fail(&mut self, id: PartitionId, offset: u64, failure: Failure) {
        let now = self.now;
        let Some(partition) = self.partitions.get_mut(&id) else { return };
        let Failure { reason, class, message } = failure;
        let attempt = partition.count_attempt(offset, reason);
        partition.window.set(Span::one(offset), Phase::Waiting);
        let wait = self.settings.retry.wait(attempt, self.settings.seed ^ offset);
        partition.retries.insert(offset, now + wait);
        let note = Note::Failure(message.clone());
        let moved = partition.moved(Span::one(offset), Event::RolledBack(reason), note);
        self.note([moved]);
        self.counts.failures += 1;
        let used_up = self.settings.attempts.is_some_and(|limit| attempt >= limit);
        if used_up || class != FailureClass::Retryable {
            let attempts = attempt;
            self.stop(Err(StopReason::Message { partition: id, offset, attempts, message }));
            return;
        }
        let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        self.notice(Notice::Retry { partition: id, offset, attempt, wait_ms, message });
    }

    /// The message whose output Kafka refused fails by itself.
    pub(super) fn blame(&mut self, id: PartitionId, offset: u64, message: String) {
        let class = FailureClass::Retryable;
        self.fail(id, offset, Failure { reason: Reason::Error, class, message });
    }

    pub(super) fn advance_handling(&mut self) {
        self.retry_due();
        self.admit();
        let limit = self.settings.handle_records;
        for partition in self.partitions.values_mut() {
            let Some(span) = partition.next_ready(limit) else { continue };
            partition.window.set(span, Phase::Running);
            self.effects.push_back(Effect::Handle {
                partition: partition.id,
                epoch: partition.epoch,
                span,
                attempt: partition.attempt(span.first),
            });
        }
    }

    fn admit(&mut self) {
        let write = self.journal.next_write();
        let limit = self.settings.handle_records.saturating_mul(ADMITTED_RUNS);
        let mut moves = Vec::new();
        for partition in self.partitions.values_mut() {
            for span in partition.admit(write, limit) {
                moves.push(partition.moved(span, Event::Start, Note::None));
            }
        }
        if !moves.is_empty() {
            self.note(moves);
            self.journal.hurry();
        }
    }

    fn retry_due(&mut self) {
        let (now, write) = (self.now, self.journal.next_write());
        let mut moves = Vec::new();
        for partition in self.partitions.values_mut() {
            if partition.tenure != Tenure::Owned {
                continue;
            }
            let (ready, later) = std::mem::take(&mut partition.retries)
                .into_iter()
                .partition(|&(_, due)| due <= now);
            partition.retries = later;
            for (offset, _) in BTreeMap::into_iter(ready) {
                let span = Span::one(offset);
                partition.window.set(span, Phase::Admitting { write });
                for event in [Event::Again, Event::Start] {
                    moves.push(Moved { partition: partition.id, span, event, note: Note::None });
                }
            }
        }
        if !moves.is_empty() {
            self.note(moves);
            self.journal.hurry();
        }
    }

    pub(super) fn handling_due(&self) -> Option<Time> {
        let owned = self.partitions.values().filter(|p| p.tenure == Tenure::Owned);
        owned.flat_map(|p| p.retries.values().copied()).min()
    }
}
