//! A transaction as it ended, in the order in which the ends were learned.

use countersign_statemachine::{End, Part, PartitionId, Span};
use serde::{Deserialize, Serialize};

use super::{AuthorId, Fields, Malformed, Stored, code, decode, encode, key};

/// The place of a transaction in the order in which they were recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ordinal(pub u64);

/// A transaction; its author is a number, see [`AuthorRecord`](super::AuthorRecord).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredTransaction {
    /// Its place.
    pub ordinal: Ordinal,
    /// When its end was recorded, in milliseconds since 1970 UTC.
    pub at_ms: u64,
    /// Who made it.
    pub author: AuthorId,
    /// Its number with that author.
    pub number: u64,
    /// The producer slot it was made on.
    pub slot: u32,
    /// How it ended.
    pub end: End,
    /// How long it was open, in microseconds.
    pub open_us: u64,
    /// What it held.
    pub parts: Vec<Part>,
}

#[derive(Serialize, Deserialize)]
struct Wire {
    at_ms: u64,
    author: AuthorId,
    number: u64,
    slot: u32,
    end: u8,
    open_us: u64,
    parts: Vec<PartWire>,
}

#[derive(Serialize, Deserialize)]
struct PartWire {
    partition: u32,
    offset: u64,
    span: Option<SpanWire>,
    messages: u64,
    outputs: u64,
}

/// Relative to the committed offset, which as a rule is the span's end.
#[derive(Serialize, Deserialize)]
struct SpanWire {
    end_from_offset: i64,
    len: u64,
}

impl PartWire {
    fn of(part: &Part) -> Self {
        let span = part.span.map(|span| SpanWire {
            end_from_offset: span.end.wrapping_sub(part.offset).cast_signed(),
            len: span.len(),
        });
        let Part { partition, span: _, messages, outputs, offset } = *part;
        Self { partition: partition.0, offset, span, messages, outputs }
    }

    fn read(self) -> Option<Part> {
        let span = match self.span {
            None => None,
            Some(wire) => {
                let end = self.offset.wrapping_add(wire.end_from_offset.cast_unsigned());
                Some(Span::new(end.checked_sub(wire.len)?, end)?)
            }
        };
        let Self { partition, offset, span: _, messages, outputs } = self;
        Some(Part { partition: PartitionId(partition), span, messages, outputs, offset })
    }
}

impl StoredTransaction {
    /// The key of a transaction.
    pub fn key_at(ordinal: Ordinal) -> Vec<u8> {
        key(Self::KIND, &[&ordinal.0.to_be_bytes()])
    }
}

impl Stored for StoredTransaction {
    const KIND: u8 = 0x07;
    const NAME: &'static str = "transaction";

    fn key(&self) -> Vec<u8> {
        Self::key_at(self.ordinal)
    }

    fn value(&self) -> Vec<u8> {
        encode(&Wire {
            at_ms: self.at_ms,
            author: self.author,
            number: self.number,
            slot: self.slot,
            end: code::end(self.end),
            open_us: self.open_us,
            parts: self.parts.iter().map(PartWire::of).collect(),
        })
    }

    fn read(key: &[u8], value: &[u8]) -> Result<Self, Malformed> {
        let mut fields = Fields::of::<Self>(key)?;
        let ordinal = Ordinal(fields.u64()?);
        fields.end()?;
        let wire: Wire = decode(Self::NAME, value)?;
        let damaged = || Malformed::Damaged { record: Self::NAME };
        let end = code::to_end(wire.end).ok_or_else(damaged)?;
        let parts: Option<Vec<Part>> = wire.parts.into_iter().map(PartWire::read).collect();
        let parts = parts.ok_or_else(damaged)?;
        Ok(Self {
            ordinal,
            at_ms: wire.at_ms,
            author: wire.author,
            number: wire.number,
            slot: wire.slot,
            end,
            open_us: wire.open_us,
            parts,
        })
    }
}
