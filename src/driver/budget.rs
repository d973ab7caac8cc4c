//! How much input may be in memory.
//!
//! Shared by the poll loop, which fills, and the driver, which frees what is committed. Each
//! partition has a share: one that cannot go on may hold half of it, so that the others go on.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::kafka::Batch;

/// What a record costs beyond its bytes: its entry, its output, librdkafka's message for that, and
/// what the allocator loses. Measured: the peak memory of copying many records with budgets from 24
/// to 128 MiB.
const RECORD_OVERHEAD: usize = 600;

#[derive(Debug, Clone)]
pub(super) struct Budget {
    used: Arc<AtomicUsize>,
    limit: usize,
}

impl Budget {
    pub(super) fn new(limit_bytes: usize) -> Self {
        Self { used: Arc::new(AtomicUsize::new(0)), limit: limit_bytes }
    }

    /// The share of a partition whose ownership begins.
    pub(super) fn share(&self) -> Share {
        Share { whole: self.clone(), used: Arc::new(AtomicUsize::new(0)) }
    }

    /// Whether a transaction that holds so much leaves too little for the one after it.
    pub(super) fn is_large(&self, cost: usize) -> bool {
        cost >= self.limit / 2
    }

    pub(super) fn is_spent(&self) -> bool {
        self.used.load(Ordering::Relaxed) >= self.limit
    }

    /// Gives back what was taken for a batch that nobody wants; gives whether this made room again.
    pub(super) fn give_back(&self, batch: &Batch) -> bool {
        falls_below(&self.used, cost(batch), self.limit)
    }
}

/// What the messages of one partition take of the budget.
#[derive(Debug, Clone)]
pub(super) struct Share {
    whole: Budget,
    used: Arc<AtomicUsize>,
}

impl Share {
    pub(super) fn take(&self, batch: &Batch) {
        self.whole.used.fetch_add(cost(batch), Ordering::Relaxed);
        self.used.fetch_add(cost(batch), Ordering::Relaxed);
    }

    /// Gives whether this made room again, for everybody or for this partition.
    pub(super) fn give_back(&self, batch: &Batch) -> bool {
        let for_all = self.whole.give_back(batch);
        falls_below(&self.used, cost(batch), self.whole.limit / 4) || for_all
    }

    /// Whether the others would soon have to wait for this partition.
    pub(super) fn is_large(&self) -> bool {
        self.used.load(Ordering::Relaxed) > self.whole.limit / 2
    }

    /// Whether a partition that was too large may read again.
    pub(super) fn is_small(&self) -> bool {
        self.used.load(Ordering::Relaxed) < self.whole.limit / 4
    }
}

fn cost(batch: &Batch) -> usize {
    batch.bytes() + batch.len() * RECORD_OVERHEAD
}

/// What so many records of a batch cost, about.
pub(super) fn cost_of(records: usize, batch: &Batch) -> usize {
    cost(batch) / batch.len().max(1) * records
}

fn falls_below(used: &AtomicUsize, cost: usize, limit: usize) -> bool {
    let before = used.fetch_sub(cost, Ordering::Relaxed);
    before >= limit && before - cost < limit
}
