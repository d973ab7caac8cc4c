//! From received to finished: admission, handlers, retries.

use std::collections::BTreeMap;
use std::ops::Bound;

use crate::entry::{Moved, Note, PartitionId};
use crate::span::Span;
use crate::transition::Event;

use super::effect::Effect;
use super::input::Failure;
use super::lanes::Quota;
use super::partition::{Partition, Tenure};
use super::window::Phase;
use super::{Time, Worker};

impl Partition {
    pub(super) fn moved(&self, span: Span, event: Event, note: Note) -> Moved {
        Moved { partition: self.id, span, event, note }
    }
}

impl Worker {
    pub(super) fn on_received(
        &mut self,
        id: PartitionId,
        epoch: u64,
        spans: &[Span],
        keys: &[u64],
    ) {
        let Some(partition) = self.owned(id, epoch) else { return };
        if partition.tenure == Tenure::Owned {
            let beyond = partition.receive(spans, keys);
            // What a former owner completed is needed for nothing.
            if !beyond.is_empty() {
                let offset = partition.position;
                self.effects.push_back(Effect::Release { partition: id, offset, beyond });
            }
            self.note_read(id);
        }
    }

    /// What is read while the partition is being let go is not admitted, and so the end is not
    /// reached either: a commit may not pass what was dropped.
    pub(super) fn on_at_end(&mut self, id: PartitionId, epoch: u64, offset: u64) {
        let Some(partition) = self.owned(id, epoch) else { return };
        if partition.tenure == Tenure::Owned {
            partition.at_end(offset);
            self.note_read(id);
        }
    }

    pub(super) fn on_finished(&mut self, id: PartitionId, epoch: u64, lane: u64, spans: &[Span]) {
        if let Some(partition) = self.owned(id, epoch) {
            partition.finished(lane, spans);
            self.note_success(spans.iter().map(|span| span.len()).sum());
            self.resume_interventions(id);
        }
    }

    pub(super) fn on_yielded(&mut self, id: PartitionId, epoch: u64, lane: u64) {
        if let Some(partition) = self.owned(id, epoch) {
            partition.stop_run(lane);
            self.resume_interventions(id);
        }
    }

    pub(super) fn on_failed(
        &mut self,
        (id, epoch, lane): (PartitionId, u64, u64),
        offset: u64,
        failure: Failure,
    ) {
        let Some(partition) = self.owned(id, epoch) else { return };
        partition.stop_run(lane);
        // What was to be taken from its handler is not judged.
        if !self.is_stopping(id, offset) {
            self.fail(id, offset, failure);
        }
        self.resume_interventions(id);
    }

    pub(super) fn advance_handling(&mut self) {
        self.retry_due();
        self.admit();
        self.advance_trials();
        if !self.stopped {
            self.begin_runs();
        }
    }

    /// Admits what there is room for, one batch per write: what is admitted while another write is
    /// under way would only wait for it.
    fn admit(&mut self) {
        if self.journal.is_writing() || self.admits_from() > self.now {
            return;
        }
        let write = self.journal.next_write();
        let mut moves = Vec::new();
        for partition in self.partitions.values_mut() {
            for span in partition.admit(write, &self.settings) {
                moves.push(partition.moved(span, Event::Start, Note::None));
            }
        }
        if !moves.is_empty() {
            self.note(moves);
            self.journal.hurry();
        }
    }

    /// From when on the next messages are admitted, if no write is under way. A flush costs the
    /// same however little it holds: few messages wait for more.
    fn admits_from(&self) -> Time {
        let rested = self.journal.rests_until(self.settings.write_pause);
        let waiting =
            || self.partitions.values().map(|p| p.admissible(&self.settings)).sum::<u64>();
        let is_worth_it = || waiting() >= Quota::of_a_write(&self.settings);
        if rested > self.now && is_worth_it() { Time::ZERO } else { rested }
    }

    /// Begins runs of lanes, one of each partition in turn, as long as handlers are free.
    fn begin_runs(&mut self) {
        let running: u64 = self.partitions.values().map(|p| p.lanes.running()).sum();
        let allowance = self.allowance();
        let mut free = allowance.runs.saturating_sub(running);
        while free > 0
            && let Some(partition) = next_after(&mut self.partitions, self.served)
        {
            self.served = Some(partition.id);
            let Some(begun) = partition.begin_run(allowance) else { return };
            free -= 1;
            self.effects.push_back(Effect::Handle {
                partition: partition.id,
                epoch: partition.epoch,
                lane: begun.lane,
                spans: begun.spans,
                attempt: begun.attempt,
                solo: false,
                at_any_cost: begun.at_any_cost,
            });
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
                partition.admit_again(offset, write);
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
        let is_received = owned.clone().any(|p| p.window.count(Phase::Received) > 0);
        let retries = owned.flat_map(|p| p.retries.values().copied());
        let admission = (is_received && !self.journal.is_writing()).then(|| self.admits_from());
        // What is not due any more waits for something else.
        let admission = admission.filter(|&due| due > self.now);
        retries.chain(self.probe_due()).chain(admission).min()
    }
}

/// The next partition, in turn, that has something to run.
fn next_after(
    partitions: &mut BTreeMap<PartitionId, Partition>,
    served: Option<PartitionId>,
) -> Option<&mut Partition> {
    let can_run = |(id, partition): (&PartitionId, &Partition)| partition.can_run().then_some(*id);
    let later = served.map_or(Bound::Unbounded, Bound::Excluded);
    let next = partitions.range((later, Bound::Unbounded)).find_map(can_run);
    let id = next.or_else(|| partitions.iter().find_map(can_run))?;
    partitions.get_mut(&id)
}
