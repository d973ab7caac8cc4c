//! A store in memory, for tests: what was not flushed is lost in a crash, and writes can be made to
//! fail.

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Batch, KeyRange, Order, Store, StoreError, Visitor};

/// The disk of a [`MemoryStore`]: it outlives the store, as a disk outlives a process.
#[derive(Debug, Clone, Default)]
pub struct MemoryImage {
    live: BTreeMap<Vec<u8>, Vec<u8>>,
    durable: BTreeMap<Vec<u8>, Vec<u8>>,
    /// What the durable image lacks, in order.
    unflushed: Vec<Batch>,
    writes_left: Option<u64>,
    flushes_left: Option<u64>,
    full: bool,
}

impl MemoryImage {
    /// An empty disk, to be shared with the stores on it.
    pub fn shared() -> Arc<Mutex<Self>> {
        Arc::default()
    }

    /// The process dies: what was not flushed is gone.
    pub fn crash(&mut self) {
        self.crash_keeping(0);
    }

    /// The process dies, and of the batches that were not flushed the first `kept` had reached the
    /// disk all the same.
    pub fn crash_keeping(&mut self, kept: usize) {
        for batch in self.unflushed.drain(..).take(kept) {
            change(&mut self.durable, &batch);
        }
        self.live.clone_from(&self.durable);
    }

    /// How many batches a crash would lose.
    pub fn unflushed(&self) -> usize {
        self.unflushed.len()
    }

    /// Lets the `n`-th write from now on fail with [`StoreError::Full`], and everything after it
    /// until the store is made anew. 1 is the next one.
    pub fn fail_write(&mut self, n: u64) {
        self.writes_left = Some(n);
    }

    /// The same for flushes.
    pub fn fail_flush(&mut self, n: u64) {
        self.flushes_left = Some(n);
    }

    /// Takes back failures that were asked for and have not come yet.
    pub fn spare(&mut self) {
        self.writes_left = None;
        self.flushes_left = None;
    }

    /// Overwrites a value behind the store's back, as damage does; `None` removes the key.
    pub fn damage(&mut self, key: &[u8], value: Option<Vec<u8>>) {
        let mut batch = Batch::default();
        match value {
            Some(value) => batch.put(key.to_vec(), value),
            None => batch.delete(key.to_vec()),
        }
        change(&mut self.live, &batch);
        change(&mut self.durable, &batch);
    }

    /// Every key and value, as a running process sees them.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.live.iter().map(|(key, value)| (key.as_slice(), value.as_slice()))
    }
}

fn change(map: &mut BTreeMap<Vec<u8>, Vec<u8>>, batch: &Batch) {
    for (key, value) in batch.iter() {
        match value {
            Some(value) => map.insert(key.to_vec(), value.to_vec()),
            None => map.remove(key),
        };
    }
}

/// Counts down to a failure; `true` when it is due.
fn due(left: &mut Option<u64>) -> bool {
    let Some(n) = left else { return false };
    *n = n.saturating_sub(1);
    if *n > 0 {
        return false;
    }
    *left = None;
    true
}

/// A store on a [`MemoryImage`].
#[derive(Debug)]
pub struct MemoryStore {
    image: Arc<Mutex<MemoryImage>>,
}

impl MemoryStore {
    /// Opens the disk, as a process does that was just started: with room on it again.
    pub fn new(image: Arc<Mutex<MemoryImage>>) -> Self {
        let store = Self { image };
        store.image().full = false;
        store
    }

    fn image(&self) -> MutexGuard<'_, MemoryImage> {
        self.image.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for MemoryStore {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.image().live.get(key).cloned())
    }

    fn scan(&self, range: &KeyRange, order: Order, visit: Visitor<'_>) -> Result<(), StoreError> {
        let to = range.to.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let image = self.image();
        if range.to.as_ref().is_some_and(|to| *to <= range.from) {
            return Ok(());
        }
        let keys = image.live.range::<[u8], _>((Bound::Included(range.from.as_slice()), to));
        let mut rising;
        let mut falling;
        let keys: &mut dyn Iterator<Item = (&Vec<u8>, &Vec<u8>)> = match order {
            Order::Rising => {
                rising = keys;
                &mut rising
            }
            Order::Falling => {
                falling = keys.rev();
                &mut falling
            }
        };
        for (key, value) in keys {
            if let ControlFlow::Break(()) = visit(key, value) {
                break;
            }
        }
        Ok(())
    }

    fn apply(&mut self, batch: &Batch) -> Result<(), StoreError> {
        let mut image = self.image();
        if image.full || due(&mut image.writes_left) {
            image.full = true;
            return Err(StoreError::Full);
        }
        change(&mut image.live, batch);
        image.unflushed.push(batch.clone());
        Ok(())
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        let mut image = self.image();
        if image.full || due(&mut image.flushes_left) {
            image.full = true;
            return Err(StoreError::Full);
        }
        let MemoryImage { durable, unflushed, .. } = &mut *image;
        for batch in unflushed.drain(..) {
            change(durable, &batch);
        }
        Ok(())
    }

    fn size_on_disk(&self) -> Result<u64, StoreError> {
        let image = self.image();
        Ok(image.durable.iter().map(|(key, value)| (key.len() + value.len()) as u64).sum())
    }
}
