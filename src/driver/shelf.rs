//! What the driver holds of one partition: the messages read and the results at hand.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use countersign_statemachine::Span;
use tokio::task::AbortHandle;

use crate::kafka::{Batch, TopicPartition};

use super::budget::Share;
use super::run::Results;

/// A run that is under way; it is cancelled when this is dropped.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) interrupted: Arc<AtomicBool>,
    pub(super) task: AbortHandle,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Debug)]
pub(super) struct Shelf {
    pub(super) partition: TopicPartition,
    pub(super) epoch: u64,
    /// Each batch with the index of its first new record.
    batches: VecDeque<(Batch, usize)>,
    received: u64,
    results: BTreeMap<u64, (u64, Arc<Results>)>,
    running: Option<Running>,
    pub(super) share: Share,
}

impl Shelf {
    pub(super) fn new(partition: TopicPartition, epoch: u64, share: Share) -> Self {
        Self {
            partition,
            epoch,
            batches: VecDeque::new(),
            received: 0,
            results: BTreeMap::new(),
            running: None,
            share,
        }
    }

    /// Takes a batch in; gives the offsets that are new, as dense spans.
    pub(super) fn receive(&mut self, batch: Batch) -> Vec<Span> {
        let from = batch.index_of(self.received);
        let mut spans: Vec<Span> = Vec::new();
        for offset in (from..batch.len()).filter_map(|index| batch.offset(index)) {
            match spans.last_mut() {
                Some(last) if last.end == offset => last.end += 1,
                _ => spans.push(Span::one(offset)),
            }
        }
        if let Some(last) = spans.last() {
            self.received = last.end;
        }
        self.batches.push_back((batch, from));
        spans
    }

    /// The batches that hold the messages of a span.
    pub(super) fn batches(&self, span: Span) -> Vec<(Batch, usize)> {
        let overlaps = |(batch, _): &&(Batch, usize)| {
            let first = batch.offset(0).unwrap_or(u64::MAX);
            let last = batch.offset(batch.len().saturating_sub(1)).unwrap_or(0);
            first < span.end && last >= span.first
        };
        self.batches.iter().filter(overlaps).cloned().collect()
    }

    pub(super) fn start(&mut self, running: Running) {
        self.running = Some(running);
    }

    pub(super) fn interrupt(&self) {
        if let Some(running) = &self.running {
            running.interrupted.store(true, Ordering::Relaxed);
        }
    }

    /// Keeps results; they replace earlier ones of the same messages.
    pub(super) fn keep(&mut self, span: Span, results: &Arc<Results>) {
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

    /// Drops what is done. Gives whether this made room for more input.
    pub(super) fn release(&mut self, offset: u64) -> bool {
        while let Some((&first, (end, _))) = self.results.first_key_value() {
            if *end > offset {
                break;
            }
            self.results.remove(&first);
        }
        let mut room = false;
        while let Some((batch, _)) = self.batches.front() {
            if batch.offset(batch.len().saturating_sub(1)).is_some_and(|last| last >= offset) {
                break;
            }
            room |= self.share.give_back(batch);
            self.batches.pop_front();
        }
        room
    }
}
