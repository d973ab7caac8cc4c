//! One record per opening of the store for work: which start of the process it was, and when.

use serde::{Deserialize, Serialize};

use super::{Fields, Malformed, Stored, decode, encode, key};

/// One opening of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionRecord {
    /// Its number, rising.
    pub number: u32,
    /// The random number of that start of the process.
    pub incarnation: u64,
    /// When, in milliseconds since 1970 UTC.
    pub opened_at_ms: u64,
}

#[derive(Serialize, Deserialize)]
struct Wire {
    incarnation: u64,
    opened_at_ms: u64,
}

impl Stored for SessionRecord {
    const KIND: u8 = 0x02;
    const NAME: &'static str = "session";

    fn key(&self) -> Vec<u8> {
        key(Self::KIND, &[&self.number.to_be_bytes()])
    }

    fn value(&self) -> Vec<u8> {
        encode(&Wire { incarnation: self.incarnation, opened_at_ms: self.opened_at_ms })
    }

    fn read(key: &[u8], value: &[u8]) -> Result<Self, Malformed> {
        let mut fields = Fields::of::<Self>(key)?;
        let number = fields.u32()?;
        fields.end()?;
        let Wire { incarnation, opened_at_ms } = decode(Self::NAME, value)?;
        Ok(Self { number, incarnation, opened_at_ms })
    }
}
