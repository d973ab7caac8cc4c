//! A transactional id that this store's owner has used: each is initialised again at the next
//! start, which ends what a former self left open.

use super::{Fields, Malformed, Stored, decode, encode, key};

/// A transactional id in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotRecord {
    /// The id.
    pub transactional_id: String,
}

impl Stored for SlotRecord {
    const KIND: u8 = 0x08;
    const NAME: &'static str = "slot";

    fn key(&self) -> Vec<u8> {
        key(Self::KIND, &[self.transactional_id.as_bytes()])
    }

    fn value(&self) -> Vec<u8> {
        encode(&())
    }

    fn read(key: &[u8], value: &[u8]) -> Result<Self, Malformed> {
        let damaged = Malformed::Damaged { record: Self::NAME };
        let fields = Fields::of::<Self>(key)?;
        let transactional_id = std::str::from_utf8(fields.rest).map_err(|_| damaged)?.to_owned();
        decode::<()>(Self::NAME, value)?;
        Ok(Self { transactional_id })
    }
}
