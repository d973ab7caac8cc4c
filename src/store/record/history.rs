//! What happened to a span, in order: one record holds what happened to the same span (or to a
//! wider one from the same first offset) within one session, so that a clean transaction leaves one
//! record per partition and not two.

use countersign_statemachine::{Event, PartitionId, Span};
use serde::{Deserialize, Serialize};

use super::{AuthorId, Fields, Malformed, Stored, code, decode, encode, key};

/// The place of a happening in the order of all: the session's number, then a count within it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Sequence(pub u64);

/// 2^40 happenings of a session are enough for 34 years at 1,000 a second.
const SESSION_SHIFT: u32 = 40;

impl Sequence {
    /// The first of a session.
    pub const fn first_of(session: u32) -> Self {
        Self((session as u64) << SESSION_SHIFT)
    }

    /// The session it belongs to.
    pub const fn session(self) -> u32 {
        let [high, middle, low, ..] = self.0.to_be_bytes();
        u32::from_be_bytes([0, high, middle, low])
    }
}

/// What is known of a happening beyond its event. The order of the variants is persisted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum StoredNote {
    /// Nothing.
    None,
    /// It happened in the transaction of this number of the same session's process.
    Transaction(u64),
    /// The message failed with this error.
    Failure(String),
    /// Kafka's commit names this author and this transaction of it.
    Author(AuthorId, u64),
    /// This operator ordered it, for this reason.
    Operator(String, String),
}

/// One happening.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Happening {
    /// Its place in the order of all.
    pub sequence: Sequence,
    /// When, in milliseconds since 1970 UTC.
    pub at_ms: u64,
    /// What happened.
    pub event: Event,
    /// To which offsets.
    pub span: Span,
    /// To how many messages.
    pub count: u64,
    /// What else is known.
    pub note: StoredNote,
}

/// What happened to the spans that begin at one offset, within one session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryRecord {
    /// Which partition.
    pub partition: PartitionId,
    /// The first happening: its span's first offset and its sequence are in the key.
    pub first: Happening,
    /// What followed; all begin at the same offset, sequences rise.
    pub later: Vec<Happening>,
}

#[derive(Serialize, Deserialize)]
struct Wire {
    at_ms: u64,
    happenings: Vec<HappeningWire>,
}

#[derive(Serialize, Deserialize)]
struct HappeningWire {
    /// From the happening before.
    step: u64,
    /// From the happening before; a clock may be set back.
    after_ms: i64,
    event: u8,
    len: u64,
    gaps: u64,
    note: StoredNote,
}

impl HistoryRecord {
    /// What the keys of all records of `partition` begin with.
    pub fn prefix_of(partition: PartitionId) -> Vec<u8> {
        key(Self::KIND, &[&partition.0.to_be_bytes()])
    }

    /// The key of the record of `partition` whose first happening is of this span and sequence.
    pub fn key_at(partition: PartitionId, first: u64, sequence: Sequence) -> Vec<u8> {
        let fields: [&[u8]; 3] =
            [&partition.0.to_be_bytes(), &first.to_be_bytes(), &sequence.0.to_be_bytes()];
        key(Self::KIND, &fields)
    }

    /// Everything that happened, in order.
    pub fn happenings(&self) -> impl Iterator<Item = &Happening> {
        std::iter::once(&self.first).chain(&self.later)
    }

    /// The happening that came last.
    pub fn last(&self) -> &Happening {
        self.later.last().unwrap_or(&self.first)
    }

    /// The widest span of it.
    pub fn span(&self) -> Span {
        let end = self.happenings().map(|happening| happening.span.end).max();
        Span { first: self.first.span.first, end: end.unwrap_or(self.first.span.end) }
    }
}

impl Stored for HistoryRecord {
    const KIND: u8 = 0x06;
    const NAME: &'static str = "history";

    fn key(&self) -> Vec<u8> {
        Self::key_at(self.partition, self.first.span.first, self.first.sequence)
    }

    fn value(&self) -> Vec<u8> {
        let mut before = (self.first.sequence.0, self.first.at_ms);
        let wires = self.happenings().map(|happening| {
            let (sequence, at_ms) = (happening.sequence.0, happening.at_ms);
            let wire = HappeningWire {
                step: sequence.saturating_sub(before.0),
                after_ms: at_ms.wrapping_sub(before.1).cast_signed(),
                event: code::event(happening.event),
                len: happening.span.len(),
                gaps: happening.span.len().saturating_sub(happening.count),
                note: happening.note.clone(),
            };
            before = (sequence, at_ms);
            wire
        });
        let happenings = wires.collect();
        encode(&Wire { at_ms: self.first.at_ms, happenings })
    }

    fn read(key: &[u8], value: &[u8]) -> Result<Self, Malformed> {
        let mut fields = Fields::of::<Self>(key)?;
        let partition = PartitionId(fields.u32()?);
        let first = fields.u64()?;
        let sequence = fields.u64()?;
        fields.end()?;
        let wire: Wire = decode(Self::NAME, value)?;
        let damaged = || Malformed::Damaged { record: Self::NAME };
        let mut before = (sequence, wire.at_ms);
        let mut happenings = Vec::new();
        for wire in wire.happenings {
            let happening = read_happening(first, before, wire).ok_or_else(damaged)?;
            before = (happening.sequence.0, happening.at_ms);
            happenings.push(happening);
        }
        let mut happenings = happenings.into_iter();
        let first = happenings.next().filter(|it| it.sequence.0 == sequence);
        let later = happenings.collect();
        Ok(Self { partition, first: first.ok_or_else(damaged)?, later })
    }
}

fn read_happening(first: u64, before: (u64, u64), wire: HappeningWire) -> Option<Happening> {
    Some(Happening {
        sequence: Sequence(before.0.checked_add(wire.step)?),
        at_ms: before.1.wrapping_add(wire.after_ms.cast_unsigned()),
        event: code::to_event(wire.event)?,
        span: Span::new(first, first.checked_add(wire.len)?)?,
        count: wire.len.checked_sub(wire.gaps)?,
        note: wire.note,
    })
}
