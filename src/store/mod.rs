//! The durable record of every message.
//!
//! Kafka is the truth, the store is the record: it never decides to skip a message, and it may be
//! deleted, stale, damaged or full without harm to exactly-once. What it adds is what Kafka cannot
//! say: errors, times, which transaction, which start of which instance, what a crash cut off.
//!
//! A [`Journal`] folds the worker's entries into runs and keeps their history. It writes to a
//! [`Store`], of which there are two: [`SledStore`] and, for tests, [`MemoryStore`].

mod error;
mod guard;
mod journal;
mod memory;
mod open;
mod prune;
pub mod record;
mod sled;
mod watch;

pub use error::StoreError;
pub use journal::{Journal, JournalOptions, PartitionName};
pub use memory::{MemoryImage, MemoryStore};
pub use open::{Damage, Opened, Quarantined, open_sled, open_sled_for_inspection, quarantine};
pub use record::Identity;
pub use sled::SledStore;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::ops::ControlFlow;

/// An ordered map of bytes to bytes that survives the process.
///
/// After an error of [`apply`](Store::apply) or [`flush`](Store::flush) a store need not accept
/// anything more until it is opened anew. No method panics.
pub trait Store: Send + Debug {
    /// Reads one value.
    ///
    /// # Errors
    /// The store is damaged or failed.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;

    /// Shows the keys of a range, in the given order, until the visitor breaks off.
    ///
    /// # Errors
    /// The store is damaged or failed; what was visited before is good.
    fn scan(&self, range: &KeyRange, order: Order, visit: Visitor<'_>) -> Result<(), StoreError>;

    /// Writes a batch: after a crash all of it is there or nothing of it, and nothing of it without
    /// the batches before it. It is durable after the next [`flush`](Store::flush).
    ///
    /// # Errors
    /// The store is full or failed.
    fn apply(&mut self, batch: &Batch) -> Result<(), StoreError>;

    /// Returns when every batch so far would survive a kill of the process.
    ///
    /// # Errors
    /// The store is full or failed.
    fn flush(&mut self) -> Result<(), StoreError>;

    /// How many bytes the store takes.
    ///
    /// # Errors
    /// The store failed.
    fn size_on_disk(&self) -> Result<u64, StoreError>;
}

/// What [`Store::scan`] calls with each key and value.
pub type Visitor<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>;

/// In which order to scan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// From the lowest key.
    Rising,
    /// From the highest key.
    Falling,
}

/// The keys from `from` up to but without `to`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRange {
    /// The lowest key of it.
    pub from: Vec<u8>,
    /// The lowest key above it; `None` if there is no key above it.
    pub to: Option<Vec<u8>>,
}

impl KeyRange {
    /// Every key.
    pub const ALL: Self = Self { from: Vec::new(), to: None };

    /// The keys that begin with `prefix`.
    pub fn of_prefix(prefix: &[u8]) -> Self {
        let mut to = prefix.to_vec();
        while let Some(last) = to.pop() {
            if let Some(next) = last.checked_add(1) {
                to.push(next);
                return Self { from: prefix.to_vec(), to: Some(to) };
            }
        }
        Self { from: prefix.to_vec(), to: None }
    }
}

/// Changes that belong together. Of several changes to a key, the last one stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    changes: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
}

impl Batch {
    /// Sets a key.
    pub fn put(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.changes.insert(key, Some(value));
    }

    /// Removes a key.
    pub fn delete(&mut self, key: Vec<u8>) {
        self.changes.insert(key, None);
    }

    /// The changes in key order; `None` removes the key.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        self.changes.iter().map(|(key, value)| (key.as_slice(), value.as_deref()))
    }

    /// What this batch makes of a key: `None` if it leaves it alone.
    pub fn pending(&self, key: &[u8]) -> Option<Option<&[u8]>> {
        self.changes.get(key).map(Option::as_deref)
    }

    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }
}
