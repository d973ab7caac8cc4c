//! The store on sled.
//!
//! sled promises little: the rest of the library treats it as a record that may be lost. One tree
//! (each tree costs space), no flusher thread (it stops for good after its first error), blocking
//! flushes only (the asynchronous ones have deadlocked), never `len()` (it counts).

use std::fmt;
use std::io;
use std::ops::{Bound, ControlFlow};
use std::path::Path;

use super::guard::catching;
use super::{Batch, KeyRange, Order, Store, StoreError, Visitor};

/// Enough for the working set, which is the front of each partition.
const CACHE_BYTES: u64 = 16 * 1024 * 1024;

/// The file grows in segments, and a segment is used again only when all of it is dead.
const SEGMENT_BYTES: usize = 128 * 1024;

/// A store in a directory, through sled.
pub struct SledStore {
    db: sled::Db,
}

impl fmt::Debug for SledStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The map's own form prints every page.
        f.debug_struct("SledStore").finish_non_exhaustive()
    }
}

impl SledStore {
    /// Opens sled without any of [`open_sled`](super::open_sled)'s precautions but for panics.
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        catching(|| {
            let config = sled::Config::new()
                .path(path)
                .mode(sled::Mode::LowSpace)
                .cache_capacity(CACHE_BYTES)
                .segment_size(SEGMENT_BYTES)
                .flush_every_ms(None);
            let db = config.open().map_err(|error| of_open(path, error))?;
            Ok(Self { db })
        })
    }

    /// Whether this process was the one that made it.
    pub(super) fn is_new(&self) -> bool {
        !self.db.was_recovered()
    }

    /// Whether nobody keeps trees of their own in it.
    pub(super) fn has_only_our_tree(&self) -> bool {
        self.db.tree_names().len() == 1
    }
}

impl Store for SledStore {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        catching(|| {
            let value = self.db.get(key).map_err(|error| of_sled("reading", error))?;
            Ok(value.map(|value| value.to_vec()))
        })
    }

    fn scan(&self, range: &KeyRange, order: Order, visit: Visitor<'_>) -> Result<(), StoreError> {
        let to = range.to.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        catching(|| {
            let mut pairs = self.db.range::<&[u8], _>((Bound::Included(&*range.from), to));
            loop {
                let next = match order {
                    Order::Rising => pairs.next(),
                    Order::Falling => pairs.next_back(),
                };
                let Some(pair) = next else { return Ok(()) };
                let (key, value) = pair.map_err(|error| of_sled("scanning", error))?;
                if let ControlFlow::Break(()) = visit(&key, &value) {
                    return Ok(());
                }
            }
        })
    }

    fn apply(&mut self, batch: &Batch) -> Result<(), StoreError> {
        catching(|| {
            let mut changes = sled::Batch::default();
            for (key, value) in batch.iter() {
                match value {
                    Some(value) => changes.insert(key, value),
                    None => changes.remove(key),
                }
            }
            self.db.apply_batch(changes).map_err(|error| of_sled("writing", error))
        })
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        catching(|| self.db.flush().map(|_| ()).map_err(|error| of_sled("flushing", error)))
    }

    fn size_on_disk(&self) -> Result<u64, StoreError> {
        catching(|| self.db.size_on_disk().map_err(|error| of_sled("measuring", error)))
    }
}

fn of_sled(doing: &'static str, error: sled::Error) -> StoreError {
    match error {
        sled::Error::Io(source) => StoreError::of_io(doing, source),
        sled::Error::Corruption { .. }
        | sled::Error::CollectionNotFound(_)
        | sled::Error::Unsupported(_)
        | sled::Error::ReportableBug(_) => {
            StoreError::Corrupt { what: format!("{error} while {doing}").replace('\n', " ") }
        }
    }
}

fn of_open(path: &Path, error: sled::Error) -> StoreError {
    let sled::Error::Io(source) = error else { return of_sled("opening", error) };
    match source.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            StoreError::NotWritable { path: path.to_owned(), source }
        }
        io::ErrorKind::Other if source.to_string().contains("could not acquire lock") => {
            StoreError::Locked { path: path.to_owned() }
        }
        _ => StoreError::of_io("opening", source),
    }
}
