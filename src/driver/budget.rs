//! How much input may be in memory.
//!
//! Shared by the poll loop, which fills, and the driver, which frees what is committed.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::kafka::Batch;

/// What a record costs beyond its bytes: its entry, and its outputs' bookkeeping.
const RECORD_OVERHEAD: usize = 200;

#[derive(Debug, Clone)]
pub(super) struct Budget {
    used: Arc<AtomicUsize>,
    limit: usize,
}

impl Budget {
    pub(super) fn new(limit_bytes: usize) -> Self {
        Self { used: Arc::new(AtomicUsize::new(0)), limit: limit_bytes }
    }

    fn cost(batch: &Batch) -> usize {
        batch.bytes() + batch.len() * RECORD_OVERHEAD
    }

    pub(super) fn take(&self, batch: &Batch) {
        self.used.fetch_add(Self::cost(batch), Ordering::Relaxed);
    }

    /// Gives whether this made room again.
    pub(super) fn give_back(&self, batch: &Batch) -> bool {
        let cost = Self::cost(batch);
        let before = self.used.fetch_sub(cost, Ordering::Relaxed);
        before >= self.limit && before - cost < self.limit
    }

    pub(super) fn is_spent(&self) -> bool {
        self.used.load(Ordering::Relaxed) >= self.limit
    }
}
