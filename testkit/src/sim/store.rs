//! A store on which a process dies within a write.

use std::sync::{Arc, Mutex, PoisonError};

use countersign::store::{
    Batch, KeyRange, MemoryImage, MemoryStore, Order, Store, StoreError, Visitor,
};

use crate::model::ModelProcess;

use super::journal::Journal;

#[derive(Debug)]
pub(super) struct CrashStore {
    store: MemoryStore,
    image: Arc<Mutex<MemoryImage>>,
    process: ModelProcess,
    journal: Journal,
    /// Calls until the crash.
    left: Option<u64>,
    /// How many unflushed batches reach the disk all the same.
    kept: usize,
}

impl CrashStore {
    pub(super) fn new(
        store: MemoryStore,
        image: Arc<Mutex<MemoryImage>>,
        process: ModelProcess,
        journal: Journal,
        left: Option<u64>,
        kept: usize,
    ) -> Self {
        Self { store, image, process, journal, left, kept }
    }

    /// Crashes when it is time; after that nothing reaches the disk.
    fn live_on(&mut self) -> Result<(), StoreError> {
        if self.process.is_crashed() {
            return Err(StoreError::Full);
        }
        let Some(left) = &mut self.left else { return Ok(()) };
        *left = left.saturating_sub(1);
        if *left > 0 {
            return Ok(());
        }
        let mut image = self.image.lock().unwrap_or_else(PoisonError::into_inner);
        if image.unflushed() > 0 {
            self.journal.count("store: unflushed at a crash");
        }
        image.crash_keeping(self.kept);
        self.journal.count("crash: within a store call");
        self.process.crash();
        Err(StoreError::Full)
    }
}

impl Store for CrashStore {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.store.get(key)
    }

    fn scan(&self, range: &KeyRange, order: Order, visit: Visitor<'_>) -> Result<(), StoreError> {
        self.store.scan(range, order, visit)
    }

    fn apply(&mut self, batch: &Batch) -> Result<(), StoreError> {
        self.live_on()?;
        self.store.apply(batch)
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        self.live_on()?;
        self.store.flush()
    }

    fn size_on_disk(&self) -> Result<u64, StoreError> {
        self.store.size_on_disk()
    }
}
