//! Opening a store directory, whatever state it is in.
//!
//! Damaged files make sled return errors, panic, or hang; all of it happens in a thread that is
//! watched. What is damaged is moved aside, never deleted, and a new store is made: nothing is lost
//! by it, for Kafka has the truth.

use std::fs;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::record::{FORMAT, HistoryRecord, IdentityRecord, Record, Stored, StoredTransaction};
use super::watch::{Looked, Patience, watched};
use super::{KeyRange, Order, SledStore, Store, StoreError};

/// What to do with a damaged store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Damage {
    /// Move it beside and make a new one.
    #[default]
    Quarantine,
    /// Return the error.
    Refuse,
}

/// An open store, and how it came to be.
#[derive(Debug)]
pub struct Opened {
    /// The store.
    pub store: SledStore,
    /// Whether there was none before.
    pub is_new: bool,
    /// The damaged store that was moved aside for it: to be said loudly.
    pub quarantined: Option<Quarantined>,
}

/// A damaged store that was moved aside.
#[derive(Debug)]
pub struct Quarantined {
    /// Where it is now.
    pub to: PathBuf,
    /// What was wrong with it.
    pub because: StoreError,
}

/// Opens the store at `path` for work; makes it if there is none.
///
/// # Errors
/// [`Locked`](StoreError::Locked), [`NotAStore`](StoreError::NotAStore) (what this program did not
/// make is never moved), [`NotWritable`](StoreError::NotWritable), [`Full`](StoreError::Full); with
/// [`Damage::Refuse`] also what is damaged.
pub fn open_sled(path: &Path, policy: Damage) -> Result<Opened, StoreError> {
    create_dir(path)?;
    match open_watched(path) {
        Ok(store) => Ok(Opened { is_new: store.is_new(), store, quarantined: None }),
        Err(because) if because.is_damage() && policy == Damage::Quarantine => {
            let to = quarantine(path)?;
            create_dir(path)?;
            let store = open_watched(path)?;
            Ok(Opened { store, is_new: true, quarantined: Some(Quarantined { to, because }) })
        }
        Err(error) => Err(error),
    }
}

/// Opens the store at `path` to look at it: nothing is made and nothing is moved.
///
/// # Errors
/// [`Missing`](StoreError::Missing), [`Locked`](StoreError::Locked), or what is damaged.
pub fn open_sled_for_inspection(path: &Path) -> Result<SledStore, StoreError> {
    let missing = || StoreError::Missing { path: path.to_owned() };
    if !path.join(DATA_FILE).is_file() {
        check_is_ours(path)?;
        return Err(missing());
    }
    let store = open_watched(path)?;
    match store.get(&KeyRange::of_prefix(&[IdentityRecord::KIND]).from)? {
        Some(_) => Ok(store),
        None => Err(missing()),
    }
}

/// Moves a damaged store beside itself and returns where it is now.
///
/// # Errors
/// [`QuarantineFailed`](StoreError::QuarantineFailed).
pub fn quarantine(path: &Path) -> Result<PathBuf, StoreError> {
    let time = Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string();
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
    let name = format!("{}.quarantined-{time}", name.unwrap_or_else(|| "store".to_owned()));
    let free = |n: &u32| {
        let suffix = if *n == 0 { String::new() } else { format!("-{n}") };
        let to = path.with_file_name(format!("{name}{suffix}"));
        (!to.exists()).then_some(to)
    };
    let to = (0..u32::MAX).find_map(|n| free(&n)).unwrap_or_else(|| path.with_file_name(&name));
    match fs::rename(path, &to) {
        Ok(()) => Ok(to),
        Err(source) => Err(StoreError::QuarantineFailed { path: path.to_owned(), to, source }),
    }
}

fn create_dir(path: &Path) -> Result<(), StoreError> {
    if path.exists() {
        return check_is_ours(path);
    }
    fs::create_dir_all(path).map_err(|source| match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StoreError::Full,
        _ => StoreError::NotWritable { path: path.to_owned(), source },
    })
}

const DATA_FILE: &str = "db";

/// Sockets of a processor that was killed; see [`crate::control`].
const CONTROL: &str = "control.sock";

/// Refuses what sled cannot have made, before sled adds its files to it.
fn check_is_ours(path: &Path) -> Result<(), StoreError> {
    let not_ours = |found: String| Err(StoreError::NotAStore { path: path.to_owned(), found });
    if !path.exists() {
        return Ok(());
    }
    if !path.is_dir() {
        return not_ours("a file".to_owned());
    }
    let entries =
        fs::read_dir(path).map_err(|error| StoreError::of_io("listing the directory", error))?;
    let mut stranger = None;
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name == DATA_FILE {
            return Ok(());
        }
        let of_sled = ["conf", "blobs"].contains(&name.as_str()) || name.starts_with("snap.");
        let of_sled = of_sled || name.starts_with(CONTROL);
        if !of_sled {
            stranger = Some(name);
        }
    }
    stranger.map_or(Ok(()), not_ours)
}

/// Opens and checks in a thread of its own, for as long as that goes on.
fn open_watched(path: &Path) -> Result<SledStore, StoreError> {
    let of_thread = path.to_owned();
    watched(path, Patience::USUAL, move |looked| {
        let held = fs::metadata(of_thread.join(DATA_FILE)).map_or(0, |it| it.len());
        let store = SledStore::open(&of_thread)?;
        check_contents(&of_thread, &store, held, looked)?;
        Ok(store)
    })
}

/// Reads what will be relied on: everything but the history, which may be large and explains only.
fn check_contents(
    path: &Path,
    store: &SledStore,
    held: u64,
    looked: &Looked,
) -> Result<(), StoreError> {
    match store.get(&[IdentityRecord::KIND])? {
        None => return check_unnamed(path, store, held),
        Some(value) => {
            let record = IdentityRecord::read(&[IdentityRecord::KIND], &value)?;
            if record.format != FORMAT {
                // The journal refuses it, naming both formats.
                return Ok(());
            }
        }
    }
    let below = KeyRange { from: Vec::new(), to: Some(vec![HistoryRecord::KIND]) };
    let above = KeyRange { from: vec![StoredTransaction::KIND + 1], to: None };
    for range in [below, above] {
        let mut malformed = None;
        store.scan(&range, Order::Rising, &mut |key, value| {
            looked.at_one();
            match Record::read(key, value) {
                Ok(_) => ControlFlow::Continue(()),
                Err(error) => {
                    malformed = Some(error);
                    ControlFlow::Break(())
                }
            }
        })?;
        if let Some(source) = malformed {
            return Err(source.into());
        }
    }
    Ok(())
}

/// A store without an identity: new, one whose identity was destroyed, or somebody else's.
///
/// sled takes a file of rubbish for an empty one. So a file that held bytes and has no record is
/// damaged; it may also be new and its first record was never written, and then moving it away
/// loses nothing.
fn check_unnamed(path: &Path, store: &SledStore, held: u64) -> Result<(), StoreError> {
    let mut first = None;
    store.scan(&KeyRange::ALL, Order::Rising, &mut |key, value| {
        first = Some(Record::read(key, value).is_ok());
        ControlFlow::Break(())
    })?;
    match first {
        None if store.has_only_our_tree() && held == 0 => Ok(()),
        None if store.has_only_our_tree() => {
            Err(StoreError::Corrupt { what: format!("none of its {held} bytes is readable") })
        }
        Some(true) => Err(StoreError::Corrupt { what: "its identity record is gone".to_owned() }),
        None | Some(false) => Err(StoreError::NotAStore {
            path: path.to_owned(),
            found: "a database of another program".to_owned(),
        }),
    }
}
