//! What the driver holds of one partition: the messages read and the results at hand.

use std::collections::{BTreeMap, VecDeque};
use std::hash::{DefaultHasher, Hasher};
use std::sync::Arc;

use countersign_statemachine::Span;
use tokio::task::AbortHandle;

use crate::kafka::{Batch, Record, TopicPartition};

use super::brake::Brake;
use super::budget::{self, Share};
use super::results::Results;

/// A run that is under way; it is cancelled when this is dropped.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) brake: Arc<Brake>,
    pub(super) task: AbortHandle,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// How many runs are kept at least before those that have ended are dropped.
const RUNNING_LEAST: usize = 64;

#[derive(Debug)]
pub(super) struct Shelf {
    pub(super) partition: TopicPartition,
    pub(super) epoch: u64,
    /// How often reading has begun anew; what was read before is dropped.
    pub(super) again: u64,
    /// How many messages the worker was told may be under way; at first, any number.
    pub(super) memory: u64,
    /// Each batch with the index of its first new record.
    batches: VecDeque<(Batch, usize)>,
    received: u64,
    results: BTreeMap<u64, (u64, Arc<Results>)>,
    /// By lane; those that have ended are looked for when there are many.
    running: BTreeMap<u64, Running>,
    running_most: usize,
    /// When messages that are not done failed first, in milliseconds since the epoch.
    failed: BTreeMap<u64, u64>,
    /// Done messages whose batches are still here, from the position on.
    done: BTreeMap<u64, u64>,
    pub(super) share: Share,
}

impl Shelf {
    pub(super) fn new(partition: TopicPartition, epoch: u64, share: Share) -> Self {
        Self {
            partition,
            epoch,
            again: 0,
            memory: u64::MAX,
            batches: VecDeque::new(),
            received: 0,
            results: BTreeMap::new(),
            running: BTreeMap::new(),
            running_most: RUNNING_LEAST,
            failed: BTreeMap::new(),
            done: BTreeMap::new(),
            share,
        }
    }

    /// Takes a batch in; gives the offsets that are new, as dense spans.
    pub(super) fn receive(&mut self, batch: Batch) -> Vec<Span> {
        let from = batch.index_of(self.received);
        let mut spans: Vec<Span> = Vec::new();
        for offset in (from..batch.len()).filter_map(|index| batch.offset(index)) {
            Span::one(offset).append_to(&mut spans);
        }
        if let Some(last) = spans.last() {
            self.received = last.end;
        }
        self.batches.push_back((batch, from));
        spans
    }

    /// The lanes of a batch's new messages, in `order = key`.
    pub(super) fn keys(&self, batch: &Batch) -> Vec<u64> {
        let new = batch.index_of(self.received)..batch.len();
        new.filter_map(|index| Some(lane_of(batch.record(index)?.key()))).collect()
    }

    /// The batches that hold the messages of a span.
    pub(super) fn batches(&self, span: Span) -> Vec<(Batch, usize)> {
        let from = self.batches.partition_point(|(batch, _)| batch.end() <= span.first);
        let reached = self.batches.range(from..);
        reached.take_while(|(batch, _)| batch.begins_below(span.end)).cloned().collect()
    }

    /// How much memory the messages of a span hold, about.
    pub(super) fn cost(&self, span: Span) -> usize {
        let from = self.batches.partition_point(|(batch, _)| batch.end() <= span.first);
        let reached = self.batches.range(from..);
        reached
            .take_while(|(batch, _)| batch.begins_below(span.end))
            .map(|(batch, _)| {
                let records = batch.index_of(span.end) - batch.index_of(span.first);
                budget::cost_of(records, batch)
            })
            .sum()
    }

    /// A message that is not done.
    pub(super) fn record(&self, offset: u64) -> Option<Record> {
        let batches = self.batches(Span::one(offset));
        let (batch, _) = batches.first()?;
        batch.record(batch.index_of(offset)).filter(|record| record.offset() == offset)
    }

    pub(super) fn note_failure(&mut self, offset: u64, now_ms: u64) {
        self.failed.entry(offset).or_insert(now_ms);
    }

    pub(super) fn first_failed(&self, offset: u64) -> Option<u64> {
        self.failed.get(&offset).copied()
    }

    pub(super) fn start(&mut self, lane: u64, running: Running) {
        if self.running.len() >= self.running_most {
            self.running.retain(|_, running| !running.task.is_finished());
            self.running_most = RUNNING_LEAST.max(2 * self.running.len());
        }
        self.running.insert(lane, running);
    }

    pub(super) fn interrupt(&self) {
        for running in self.running.values() {
            running.brake.interrupt();
        }
    }

    /// Cancels every run where it waits.
    pub(super) fn halt(&self) {
        for running in self.running.values() {
            running.brake.cancel_from(0);
        }
    }

    /// Takes a message from the handler of its lane.
    pub(super) fn cancel(&self, lane: u64, offset: u64) {
        if let Some(running) = self.running.get(&lane) {
            running.brake.cancel_from(offset);
        }
    }

    /// Keeps results; they replace earlier ones of the same messages.
    pub(super) fn keep(&mut self, results: &Arc<Results>) {
        for span in results.spans() {
            self.keep_span(span, results);
        }
    }

    fn keep_span(&mut self, span: Span, results: &Arc<Results>) {
        for (part, old) in self.parts(span) {
            self.results.remove(&part.first);
            if let Some(before) = Span::new(part.first, span.first) {
                self.results.insert(before.first, (before.end, Arc::clone(&old)));
            }
            if let Some(after) = Span::new(span.end, part.end) {
                self.results.insert(after.first, (after.end, old));
            }
        }
        self.results.insert(span.first, (span.end, Arc::clone(results)));
    }

    /// The results that overlap a span, whole.
    fn parts(&self, span: Span) -> Vec<(Span, Arc<Results>)> {
        let before = self.results.range(..span.first).next_back();
        let from = before.filter(|(_, (end, _))| *end > span.first).map_or(span.first, |(&f, _)| f);
        self.results
            .range(from..span.end)
            .map(|(&first, (end, results))| (Span { first, end: *end }, Arc::clone(results)))
            .collect()
    }

    /// The results of the messages of a span, cut to it.
    pub(super) fn results(&self, span: Span) -> Vec<(Span, Arc<Results>)> {
        let cut = |(part, results): (Span, _)| Some((part.intersect(span)?, results));
        self.parts(span).into_iter().filter_map(cut).collect()
    }

    /// From which message on others may have the memory: what is before it is the partition's
    /// share, and one message at least.
    pub(super) fn shared_from(&self) -> Option<u64> {
        let mut left = self.share.kept();
        for (nth, (batch, fresh)) in self.batches.iter().enumerate() {
            let cost = budget::cost_of(batch.len(), batch);
            if cost > left {
                let each = budget::cost_of(1, batch).max(1);
                let kept = (left / each).max(usize::from(nth == 0));
                return batch.offset(fresh + kept).or(Some(batch.end()));
            }
            left -= cost;
        }
        None
    }

    /// Forgets messages that nothing was begun with, from `offset` on: they are read again.
    pub(super) fn read_again(&mut self, offset: u64) {
        while let Some((batch, fresh)) = self.batches.back_mut() {
            if batch.end() <= offset {
                break;
            }
            self.share.give_back(batch);
            if batch.offset(*fresh).is_some_and(|first| first < offset) {
                let begin = batch.offset(*fresh).unwrap_or(u64::MAX);
                *batch = batch.only(|at| (begin..offset).contains(&at));
                *fresh = 0;
                self.share.take(batch);
                break;
            }
            self.batches.pop_back();
        }
        // It is told once more what of them is done.
        self.done.split_off(&offset);
        if let Some(mut last) = self.done.last_entry() {
            let end = last.get().min(&offset).to_owned();
            *last.get_mut() = end;
        }
        self.received = offset;
        self.again += 1;
    }

    /// Drops what is done: everything below `offset`, and spans above it. Gives whether the
    /// partition may be read again if it was paused.
    pub(super) fn release(&mut self, offset: u64, beyond: &[Span]) -> bool {
        let was_small = self.share.is_small();
        self.release_below(offset);
        if !beyond.is_empty() || !self.done.is_empty() {
            self.release_beyond(offset, beyond);
        }
        !was_small && self.share.is_small()
    }

    fn release_below(&mut self, offset: u64) {
        while let Some((&first, (end, _))) = self.results.first_key_value() {
            if *end > offset {
                break;
            }
            self.results.remove(&first);
        }
        self.failed = self.failed.split_off(&offset);
        while let Some((batch, _)) = self.batches.front() {
            if batch.end() > offset {
                break;
            }
            self.share.give_back(batch);
            self.batches.pop_front();
        }
    }

    fn release_beyond(&mut self, offset: u64, beyond: &[Span]) {
        for span in beyond {
            for (part, _) in self.parts(*span) {
                if span.first <= part.first && part.end <= span.end {
                    self.results.remove(&part.first);
                }
            }
            self.note_done(*span);
        }
        self.done.retain(|_, end| *end > offset);
        if let Some((first, last)) = beyond.first().zip(beyond.last()) {
            self.thin_out(Span { first: first.first, end: last.end });
        }
    }

    fn note_done(&mut self, span: Span) {
        let mut joined = span;
        if let Some((&first, end)) = self.done.range(..span.first).next_back()
            && *end == span.first
        {
            joined.first = first;
        }
        if let Some(end) = self.done.remove(&span.end) {
            joined.end = end;
        }
        self.done.insert(joined.first, joined.end);
    }

    /// Copies what is left of the batches that hold a span, where that is less than half.
    fn thin_out(&mut self, span: Span) {
        let from = self.batches.partition_point(|(batch, _)| batch.end() <= span.first);
        for (batch, fresh) in self.batches.range_mut(from..) {
            if !batch.begins_below(span.end) {
                break;
            }
            let done = &self.done;
            let is_done = |at: u64| done.range(..=at).next_back().is_some_and(|(_, end)| at < *end);
            let offsets = (*fresh..batch.len()).filter_map(|index| batch.offset(index));
            let left = offsets.filter(|at| !is_done(*at)).count();
            if left * 2 < batch.len() {
                let begin = batch.offset(*fresh).unwrap_or(u64::MAX);
                let thin = batch.only(|at| at >= begin && !is_done(at));
                self.share.take(&thin);
                self.share.give_back(batch);
                (*batch, *fresh) = (thin, 0);
            }
        }
        self.batches.retain(|(batch, _)| !batch.is_empty());
    }
}

/// The lane of a key in `order = key`; messages without a key share that of the empty one.
fn lane_of(key: Option<&[u8]>) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(key.unwrap_or_default());
    hasher.finish()
}

#[cfg(test)]
#[path = "shelf_test.rs"]
mod tests;
