//! Whose store it is, and in which format. Its layout is the same in every format, so that each
//! version can name what it refuses.

use serde::{Deserialize, Serialize};

use super::{Fields, Malformed, Stored, decode, encode, key};

/// The format that this version reads and writes.
pub const FORMAT: u32 = 1;

/// Whose messages a store keeps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The cluster's id, as Kafka tells it.
    pub cluster_id: String,
    /// The consumer group.
    pub group: String,
    /// The instance's name.
    pub instance: String,
}

/// The first record of every store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdentityRecord {
    /// The format of all other records.
    pub format: u32,
    /// Whose messages they are.
    pub identity: Identity,
}

impl Stored for IdentityRecord {
    const KIND: u8 = 0x01;
    const NAME: &'static str = "identity";

    fn key(&self) -> Vec<u8> {
        key(Self::KIND, &[])
    }

    fn value(&self) -> Vec<u8> {
        encode(self)
    }

    fn read(key: &[u8], value: &[u8]) -> Result<Self, Malformed> {
        Fields::of::<Self>(key)?.end()?;
        decode(Self::NAME, value)
    }
}
