//! How much memory messages and their results may take.
//!
//! Shared by the poll loop, which fills, the runs of handlers, which make results, and the driver,
//! which frees what is committed. Results may take half of it, messages the rest: the larger
//! results are beside their messages, the less is read ahead. Each owned partition has the same
//! share of both. What nobody else needs may be taken beyond it; who has less than its share always
//! goes on, whatever the others hold.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::kafka::Batch;

/// What a record costs beyond its bytes: its entry, its lane, its output, librdkafka's message for
/// that, and what the allocator loses. Measured: the peak memory of copying many records with
/// budgets from 24 to 128 MiB.
pub(super) const RECORD_OVERHEAD: usize = 600;

#[derive(Debug, Clone)]
pub(crate) struct Budget(Arc<Whole>);

#[derive(Debug)]
struct Whole {
    limit: usize,
    messages: AtomicUsize,
    results: AtomicUsize,
    /// How much of it messages may take.
    for_messages: AtomicUsize,
    /// How many partitions share it.
    shares: AtomicUsize,
}

impl Budget {
    pub(crate) fn new(limit_bytes: usize) -> Self {
        Self(Arc::new(Whole {
            limit: limit_bytes,
            messages: AtomicUsize::new(0),
            results: AtomicUsize::new(0),
            // Until it is known how large results are.
            for_messages: AtomicUsize::new(limit_bytes / 2),
            shares: AtomicUsize::new(0),
        }))
    }

    /// The share of a partition whose ownership begins.
    pub(crate) fn share(&self) -> Share {
        self.0.shares.fetch_add(1, Ordering::Relaxed);
        Share(Arc::new(Part {
            whole: self.clone(),
            messages: AtomicUsize::new(0),
            results: AtomicUsize::new(0),
            freed: AtomicUsize::new(0),
            seen: AtomicUsize::new(0),
            is_paused: AtomicBool::new(false),
        }))
    }

    /// All of it.
    pub(super) fn limit(&self) -> usize {
        self.0.limit
    }

    /// A small part of it, but no more than `most`.
    pub(super) fn grain(&self, most: usize) -> usize {
        (self.0.limit / 256).clamp(1, most)
    }

    fn results_most(&self) -> usize {
        self.0.limit / 2
    }

    /// How much messages may take now, beside the results that there are.
    fn for_messages(&self) -> usize {
        let results = self.0.results.load(Ordering::Relaxed).min(self.results_most());
        self.0.for_messages.load(Ordering::Relaxed).min(self.0.limit - results)
    }

    pub(super) fn set_for_messages(&self, bytes: usize) {
        self.0.for_messages.store(bytes, Ordering::Relaxed);
    }

    fn shares(&self) -> usize {
        self.0.shares.load(Ordering::Relaxed).max(1)
    }

    /// The messages that each partition may hold, whatever the others do.
    pub(super) fn fair(&self) -> usize {
        self.for_messages() / self.shares()
    }

    /// Whether a transaction that holds so much leaves too little for the one after it.
    pub(super) fn is_large(&self, messages: usize, results: usize) -> bool {
        messages >= self.0.limit / 2 || results >= self.results_most() / 2
    }

    fn messages(&self) -> usize {
        self.0.messages.load(Ordering::Relaxed)
    }

    pub(super) fn is_spent(&self) -> bool {
        self.messages() >= self.for_messages()
    }

    /// Whether there is so much room that nobody need be held to its share.
    pub(super) fn is_low(&self) -> bool {
        self.messages() < self.for_messages() / 4 * 3
    }

    /// Whether more is taken than may be: what is only read is to be given back by whoever has more
    /// than its share.
    pub(super) fn is_over(&self) -> bool {
        let results = self.0.results.load(Ordering::Relaxed);
        self.messages().saturating_add(results) > self.0.limit + self.0.limit / 8
    }

    /// Gives back what was taken for a batch that nobody wants, of a share that is gone.
    pub(super) fn give_back(&self, batch: &Batch) {
        self.0.messages.fetch_sub(cost(batch), Ordering::Relaxed);
    }
}

/// What the messages and results of one partition take of the budget.
#[derive(Debug, Clone)]
pub(crate) struct Share(Arc<Part>);

#[derive(Debug)]
struct Part {
    whole: Budget,
    messages: AtomicUsize,
    results: AtomicUsize,
    /// All that was ever given back.
    freed: AtomicUsize,
    /// How much of that was seen before.
    seen: AtomicUsize,
    /// Whether the partition is not read for want of memory.
    is_paused: AtomicBool,
}

impl Drop for Part {
    fn drop(&mut self) {
        self.whole.0.shares.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Share {
    pub(super) fn take(&self, batch: &Batch) {
        let cost = cost(batch);
        self.0.whole.0.messages.fetch_add(cost, Ordering::Relaxed);
        self.0.messages.fetch_add(cost, Ordering::Relaxed);
    }

    pub(super) fn give_back(&self, batch: &Batch) {
        self.0.whole.give_back(batch);
        self.0.messages.fetch_sub(cost(batch), Ordering::Relaxed);
        self.0.freed.fetch_add(cost(batch), Ordering::Relaxed);
    }

    fn messages(&self) -> usize {
        self.0.messages.load(Ordering::Relaxed)
    }

    pub(super) fn whole(&self) -> &Budget {
        &self.0.whole
    }

    /// Whether the partition has all that others must leave to it.
    pub(super) fn is_full(&self) -> bool {
        self.messages() >= self.0.whole.fair()
    }

    /// Whether it has more than that.
    pub(super) fn is_above(&self) -> bool {
        self.messages() > self.0.whole.fair()
    }

    /// Whether it may be read again once it was paused: every partition can always hold a message.
    pub(super) fn is_small(&self) -> bool {
        self.messages() <= self.0.whole.fair() / 2
    }

    /// Whether it would take longer than twice the time since this was asked last until what it
    /// holds is worked off.
    pub(super) fn is_slow(&self) -> bool {
        let freed = self.0.freed.load(Ordering::Relaxed);
        let before = self.0.seen.swap(freed, Ordering::Relaxed);
        freed.wrapping_sub(before) < self.messages() / 2
    }

    /// What it may keep when others need the rest: somewhat less, so that they find it at once.
    pub(super) fn kept(&self) -> usize {
        self.0.whole.fair() / 4 * 3
    }

    pub(super) fn pause(&self, is_paused: bool) {
        self.0.is_paused.store(is_paused, Ordering::Relaxed);
    }

    /// Whether the partition is not read for want of memory.
    pub(super) fn is_paused(&self) -> bool {
        self.0.is_paused.load(Ordering::Relaxed)
    }

    /// Whether there is memory for results of so many bytes; with a `margin`, for a third more.
    pub(super) fn has_room(&self, bytes: usize, margin: bool) -> bool {
        let whole = &self.0.whole;
        let most = if margin { whole.results_most() / 4 * 3 } else { whole.results_most() };
        let all = whole.0.results.load(Ordering::Relaxed);
        if all.saturating_add(bytes) <= most {
            return true;
        }
        let own = self.0.results.load(Ordering::Relaxed);
        own.saturating_add(bytes) <= most / whole.shares()
    }

    pub(super) fn take_results(&self, bytes: usize) {
        self.0.whole.0.results.fetch_add(bytes, Ordering::Relaxed);
        self.0.results.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn give_results_back(&self, bytes: usize) {
        self.0.whole.0.results.fetch_sub(bytes, Ordering::Relaxed);
        self.0.results.fetch_sub(bytes, Ordering::Relaxed);
        self.0.freed.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// What messages and their results cost, about, and what follows from it.
#[derive(Debug)]
pub(super) struct Costs {
    limit: usize,
    message: usize,
    results: usize,
    /// Both when the rest was computed.
    of: (usize, usize),
    /// How much is for messages: as much as holds as many of them as of their results.
    for_messages: usize,
    /// How many messages of a partition may be under way, in powers of two.
    at_once: u64,
}

impl Costs {
    /// More messages than this are never under way of a partition.
    const MANY: usize = 16_384;

    pub(super) fn new(limit_bytes: usize) -> Self {
        let (message, results) = (RECORD_OVERHEAD, 0);
        let (for_messages, at_once) = (limit_bytes / 2, u64::MAX);
        Self { limit: limit_bytes, message, results, of: (0, 0), for_messages, at_once }
    }

    pub(super) fn saw_messages(&mut self, batch: &Batch) {
        self.message = (self.message * 7 + cost_of(1, batch)) / 8;
        self.look();
    }

    /// Large results count at once, small ones little by little.
    pub(super) fn saw_results(&mut self, messages: usize, bytes: usize) {
        let each = bytes / messages.max(1);
        self.results = if each > self.results {
            self.results.midpoint(each + 1)
        } else {
            self.results - (self.results - each).div_ceil(16)
        };
        self.look();
    }

    fn look(&mut self) {
        let is_close = |now: usize, then: usize| now.abs_diff(then) <= then / 16;
        if !is_close(self.message, self.of.0) || !is_close(self.results, self.of.1) {
            self.of = (self.message, self.results);
            let both = self.message.saturating_add(self.results).max(1);
            let part = (self.limit / both).saturating_mul(self.message);
            self.for_messages = if self.results == 0 { self.limit } else { part };
            self.for_messages = self.for_messages.max(self.limit / 2);
            let fit = (self.limit / 2 / both).max(1);
            self.at_once = if fit >= Self::MANY { u64::MAX } else { 1 << fit.ilog2() };
        }
    }

    /// The results of a message.
    pub(super) fn results(&self) -> usize {
        self.results
    }

    pub(super) fn for_messages(&self) -> usize {
        self.for_messages
    }

    /// How many messages of a partition may be under way: those cannot be given back. It was `told`
    /// so many and is not told of small changes.
    pub(super) fn at_once(&self, told: u64) -> u64 {
        let at_once = self.at_once;
        if told > 0 && at_once > told && at_once / 4 < told { told } else { at_once }
    }
}

fn cost(batch: &Batch) -> usize {
    batch.bytes() + batch.len() * RECORD_OVERHEAD
}

/// What so many records of a batch cost, about.
pub(super) fn cost_of(records: usize, batch: &Batch) -> usize {
    cost(batch) / batch.len().max(1) * records
}

#[cfg(test)]
#[path = "budget_test.rs"]
mod tests;
