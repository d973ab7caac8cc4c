//! The number of an author (one worker in one start of a process), so that records stay short.

use serde::{Deserialize, Serialize};

use super::{Fields, Malformed, Stored, decode, encode, key};

/// The number that the store gave an author.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AuthorId(pub u32);

/// What an author's number stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthorRecord {
    /// The number.
    pub id: AuthorId,
    /// The instance's name with its worker.
    pub instance: String,
    /// The random number of that start of the process.
    pub incarnation: u64,
}

#[derive(Serialize, Deserialize)]
struct Wire {
    instance: String,
    incarnation: u64,
}

impl Stored for AuthorRecord {
    const KIND: u8 = 0x04;
    const NAME: &'static str = "author";

    fn key(&self) -> Vec<u8> {
        key(Self::KIND, &[&self.id.0.to_be_bytes()])
    }

    fn value(&self) -> Vec<u8> {
        encode(&Wire { instance: self.instance.clone(), incarnation: self.incarnation })
    }

    fn read(key: &[u8], value: &[u8]) -> Result<Self, Malformed> {
        let mut fields = Fields::of::<Self>(key)?;
        let id = AuthorId(fields.u32()?);
        fields.end()?;
        let Wire { instance, incarnation } = decode(Self::NAME, value)?;
        Ok(Self { id, instance, incarnation })
    }
}
