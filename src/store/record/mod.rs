//! The records of the store: one file per kind. `docs/format.md` has every byte.
//!
//! A key is a kind byte and big-endian fields, so that keys sort by partition and offset. A value
//! is a version byte and postcard. Kind bytes, the codes in `code` and the order of wire fields
//! are persisted: they are never changed and never used again for something else.

mod author;
mod code;
mod history;
mod identity;
mod run;
mod session;
mod slot;
mod topic;
mod transaction;

pub use author::{AuthorId, AuthorRecord};
pub use history::{Happening, HistoryRecord, Sequence, StoredNote};
pub use identity::{FORMAT, Identity, IdentityRecord};
pub use run::RunRecord;
pub use session::SessionRecord;
pub use slot::SlotRecord;
pub use topic::TopicRecord;
pub use transaction::{Ordinal, StoredTransaction};

use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

/// Bytes that are not the record that their key announces.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Malformed {
    /// The value has a version that this build does not know.
    #[error("a {record} record has version {version}, which this version does not know")]
    Version {
        /// The kind of record.
        record: &'static str,
        /// The version found.
        version: u8,
    },
    /// The bytes do not decode.
    #[error("a {record} record is damaged")]
    Damaged {
        /// The kind of record.
        record: &'static str,
    },
    /// The key's first byte is no known kind.
    #[error("a key is of no known kind of record (first byte: {kind:?})")]
    Kind {
        /// The first byte; `None` if the key is empty.
        kind: Option<u8>,
    },
}

/// A kind of record.
pub trait Stored: Sized {
    /// The first byte of its keys. Persisted, never reuse.
    const KIND: u8;
    /// What messages call it.
    const NAME: &'static str;

    /// The key it is stored under.
    fn key(&self) -> Vec<u8>;

    /// The value it is stored as.
    fn value(&self) -> Vec<u8>;

    /// Reads it back.
    ///
    /// # Errors
    /// [`Malformed`] if key or value are not of this kind; never panics, whatever the bytes.
    fn read(key: &[u8], value: &[u8]) -> Result<Self, Malformed>;
}

/// A record of any kind.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "each variant is the record type of its name")]
pub enum Record {
    Identity(IdentityRecord),
    Session(SessionRecord),
    Topic(TopicRecord),
    Author(AuthorRecord),
    Run(RunRecord),
    History(HistoryRecord),
    Transaction(StoredTransaction),
    Slot(SlotRecord),
}

impl Record {
    /// Reads a record of whatever kind the key announces.
    ///
    /// # Errors
    /// [`Malformed`]; never panics, whatever the bytes.
    pub fn read(key: &[u8], value: &[u8]) -> Result<Self, Malformed> {
        let kind = key.first().copied();
        match kind {
            Some(IdentityRecord::KIND) => IdentityRecord::read(key, value).map(Self::Identity),
            Some(SessionRecord::KIND) => SessionRecord::read(key, value).map(Self::Session),
            Some(TopicRecord::KIND) => TopicRecord::read(key, value).map(Self::Topic),
            Some(AuthorRecord::KIND) => AuthorRecord::read(key, value).map(Self::Author),
            Some(RunRecord::KIND) => RunRecord::read(key, value).map(Self::Run),
            Some(HistoryRecord::KIND) => HistoryRecord::read(key, value).map(Self::History),
            Some(StoredTransaction::KIND) => {
                StoredTransaction::read(key, value).map(Self::Transaction)
            }
            Some(SlotRecord::KIND) => SlotRecord::read(key, value).map(Self::Slot),
            Some(_) | None => Err(Malformed::Kind { kind }),
        }
    }
}

/// The version of every value so far. A kind whose wire changes gets its next number.
const VERSION: u8 = 1;

fn encode<T: Serialize>(wire: &T) -> Vec<u8> {
    postcard::to_extend(wire, vec![VERSION]).expect("a vector takes every byte of a plain struct")
}

fn decode<T: DeserializeOwned>(record: &'static str, value: &[u8]) -> Result<T, Malformed> {
    let damaged = Malformed::Damaged { record };
    let (&version, rest) = value.split_first().ok_or_else(|| damaged.clone())?;
    if version != VERSION {
        return Err(Malformed::Version { record, version });
    }
    match postcard::take_from_bytes(rest) {
        Ok((wire, [])) => Ok(wire),
        Ok(_) | Err(_) => Err(damaged),
    }
}

/// The fields of a key behind its kind byte.
struct Fields<'a> {
    record: &'static str,
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    fn of<R: Stored>(key: &'a [u8]) -> Result<Self, Malformed> {
        match key.split_first() {
            Some((&kind, rest)) if kind == R::KIND => Ok(Self { record: R::NAME, rest }),
            Some(_) | None => Err(Malformed::Damaged { record: R::NAME }),
        }
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, rest) =
            self.rest.split_first_chunk::<N>().ok_or(Malformed::Damaged { record: self.record })?;
        self.rest = rest;
        Ok(*taken)
    }

    fn u32(&mut self) -> Result<u32, Malformed> {
        self.take().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Result<u64, Malformed> {
        self.take().map(u64::from_be_bytes)
    }

    fn end(self) -> Result<(), Malformed> {
        if self.rest.is_empty() { Ok(()) } else { Err(Malformed::Damaged { record: self.record }) }
    }
}

/// A key of a kind byte and fields.
fn key(kind: u8, fields: &[&[u8]]) -> Vec<u8> {
    let mut key = vec![kind];
    for field in fields {
        key.extend_from_slice(field);
    }
    key
}

#[cfg(test)]
mod tests;
