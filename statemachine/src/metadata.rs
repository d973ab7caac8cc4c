//! The metadata of a committed offset: what must move with a partition to its next owner.
//!
//! The bytes are described in `docs/format.md`. They travel as text in Kafka's offset metadata,
//! whose length brokers limit (`offset.metadata.max.bytes`, 4,096 by default; one byte more aborts
//! the transaction), so that [`CommitMetadata::encoded_len`] is exact.
//!
//! An unknown version is an error and never counts as empty: whoever treats what it cannot read as
//! nothing would do completed messages again.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::first_start::FirstStart;
use crate::span::Span;

/// Who wrote a commit.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Author {
    /// The instance's name with its worker, as in the transactional id.
    pub instance: String,
    /// Random per start of the process.
    pub incarnation: u64,
    /// The transaction's number within the incarnation.
    pub number: u64,
}

/// A message that a careful owner announces before its handler runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Trial {
    /// The message.
    pub offset: u64,
    /// How often it was announced without an end that somebody lived to tell.
    pub deliveries: u32,
    /// Whether it is announced now: the last of the deliveries is under way.
    pub announced: bool,
}

/// What a commit says beyond its offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitMetadata {
    /// Who wrote it.
    pub author: Author,
    /// The author that this owner found when it took the partition over.
    pub prev: Option<Author>,
    /// The topic's id: the same name may come to mean another topic.
    pub topic_id: [u8; 16],
    /// Done messages at or above the committed offset; rising, not touching.
    pub completed: Vec<Span>,
    /// Failed messages that are not done, with how often they failed; rising.
    pub attempts: Vec<(u64, u32)>,
    /// The owner let the partition go in good order.
    pub released: bool,
    /// Takeovers in a row, with this very offset, that found no `released`.
    pub takeovers: u32,
    /// The owner has done messages since it took the partition up, other than by trying them.
    pub advanced: bool,
    /// Messages below this offset are tried one at a time.
    pub careful: Option<u64>,
    /// The message that is being tried, or was the last time.
    pub trial: Option<Trial>,
    /// Where other partitions of the topic ended when the group began to read it, while some of
    /// them have no commit.
    pub first_start: Option<FirstStart>,
}

/// Why metadata cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum MetadataError {
    /// It was written by a newer Countersign.
    #[error("version {0} of the commit metadata is not known; upgrade this instance")]
    UnknownVersion(u8),
    /// Its text was written by a newer Countersign.
    #[error("text form {0} of the commit metadata is not known; upgrade this instance")]
    UnknownForm(u32),
    /// Its text begins as ours does, and is not what we write.
    #[error("the text of the commit metadata is damaged")]
    DamagedText,
    /// It is cut off or damaged.
    #[error("the commit metadata is malformed at byte {at}")]
    Malformed {
        /// How far it could be read.
        at: usize,
    },
}

impl MetadataError {
    /// What an operator can do about it.
    pub fn advice(&self) -> &'static str {
        match self {
            Self::UnknownVersion(_) | Self::UnknownForm(_) => {
                "run the version that wrote it, or a newer one"
            }
            Self::DamagedText | Self::Malformed { .. } => {
                "what it said of messages that are done is lost: to go on from the offset all the \
                 same, stop the group and set the offset with kafka-consumer-groups \
                 --reset-offsets; messages behind it that are done are then done again"
            }
        }
    }
}

const VERSION: u8 = 1;

/// The version of metadata with a first start. Older versions of Countersign stop at it; all else
/// is written in the version that they read.
const VERSION_WITH_FIRST_START: u8 = 2;

const HAS_PREV: u8 = 1;
const RELEASED: u8 = 1 << 1;
const HAS_TRIAL: u8 = 1 << 2;
const ANNOUNCED: u8 = 1 << 3;
const CAREFUL: u8 = 1 << 4;
const ADVANCED: u8 = 1 << 5;
const KNOWN: u8 = HAS_PREV | RELEASED | HAS_TRIAL | ANNOUNCED | CAREFUL | ADVANCED;

/// How long an author's name may be for [`CommitMetadata::most_bytes`] to hold.
pub const NAME_BYTES_MAX: usize = 80;

/// The highest attempt that a commit tells; more are told as this many.
pub const ATTEMPT_MAX: u32 = 0x3fff;

/// Everything but the two lists, with the longest numbers, and one failed message to spare.
const FRAME_BYTES: u64 =
    2 + 2 * (1 + NAME_BYTES_MAX as u64 + 8 + 10) + 16 + 5 + 2 * 10 + 10 + 15 + 13;

/// What the two lists may take of so many bytes.
pub(crate) fn spare_bytes(metadata_bytes: usize) -> usize {
    metadata_bytes.saturating_sub(usize::try_from(FRAME_BYTES).unwrap_or(usize::MAX))
}

impl CommitMetadata {
    /// At most how many bytes metadata takes that lists so many completed spans and failed
    /// messages, none of them `distance` or more beyond the committed offset.
    ///
    /// The first start, if there is one, comes to it.
    ///
    /// A number takes one byte more for each 128 that it is large, at most; and the numbers of a
    /// list together are no larger than the distance.
    pub fn most_bytes(completed: u64, attempts: u64, distance: u64) -> u64 {
        let longer = varint_len(distance) - 1;
        let spread = distance / 128;
        let spans = 2 * completed + spread.min(2 * completed * longer);
        // A distance of up to ten bytes, and an attempt of two.
        let failed = 3 * attempts + spread.min(attempts * longer);
        FRAME_BYTES + spans + failed
    }

    /// Encodes it for a commit of `offset`: positions are written relative to it.
    ///
    /// # Panics
    /// A completed span or an attempt lies below `offset`, which no commit can mean.
    #[must_use]
    pub fn encode(&self, offset: u64) -> Vec<u8> {
        let version = if self.first_start.is_some() { VERSION_WITH_FIRST_START } else { VERSION };
        let mut out = vec![version, self.flags()];
        put_author(&mut out, &self.author);
        if let Some(prev) = &self.prev {
            put_author(&mut out, prev);
        }
        out.extend_from_slice(&self.topic_id);
        put_varint(&mut out, u64::from(self.takeovers));
        put_varint(&mut out, self.completed.len() as u64);
        let mut from = offset;
        for span in &self.completed {
            put_varint(&mut out, distance(from, span.first));
            put_varint(&mut out, span.len() - 1);
            from = span.end;
        }
        put_varint(&mut out, self.attempts.len() as u64);
        let mut from = offset;
        for &(at, attempt) in &self.attempts {
            put_varint(&mut out, distance(from, at));
            put_varint(&mut out, u64::from(attempt));
            from = at;
        }
        if let Some(until) = self.careful {
            put_varint(&mut out, distance(offset, until));
        }
        if let Some(trial) = self.trial {
            put_varint(&mut out, distance(offset, trial.offset));
            put_varint(&mut out, u64::from(trial.deliveries));
        }
        if let Some(first_start) = &self.first_start {
            first_start.encode(&mut out);
        }
        out
    }

    /// How many bytes [`encode`](Self::encode) gives.
    pub fn encoded_len(&self, offset: u64) -> usize {
        self.encode(offset).len()
    }

    fn flags(&self) -> u8 {
        let flags = [
            (HAS_PREV, self.prev.is_some()),
            (RELEASED, self.released),
            (HAS_TRIAL, self.trial.is_some()),
            (ANNOUNCED, self.trial.is_some_and(|trial| trial.announced)),
            (CAREFUL, self.careful.is_some()),
            (ADVANCED, self.advanced),
        ];
        flags.into_iter().filter(|(_, set)| *set).fold(0, |flags, (flag, _)| flags | flag)
    }

    /// Decodes what a commit of `offset` says. Inverse of [`encode`](Self::encode), and strict:
    /// bytes that no encoder writes are refused.
    ///
    /// # Errors
    /// See [`MetadataError`].
    pub fn decode(offset: u64, bytes: &[u8]) -> Result<Self, MetadataError> {
        let mut input = Input { bytes, at: 0 };
        let has_first_start = match input.byte()? {
            VERSION => false,
            VERSION_WITH_FIRST_START => true,
            version => return Err(MetadataError::UnknownVersion(version)),
        };
        let flags = input.byte()?;
        let has = |flag| flags & flag != 0;
        if flags & !KNOWN != 0 || has(ANNOUNCED) && !has(HAS_TRIAL) {
            return Err(input.malformed());
        }
        let author = input.author()?;
        let prev = if has(HAS_PREV) { Some(input.author()?) } else { None };
        let topic_id = input.array()?;
        let takeovers = input.varint_u32()?;
        let completed = input.completed(offset)?;
        let attempts = input.attempts(offset)?;
        let careful = if has(CAREFUL) { Some(input.beyond(offset)?) } else { None };
        let trial = if has(HAS_TRIAL) {
            Some(Trial {
                offset: input.beyond(offset)?,
                deliveries: input.varint_u32()?,
                announced: has(ANNOUNCED),
            })
        } else {
            None
        };
        let first_start =
            if has_first_start { Some(FirstStart::decode(&mut input)?) } else { None };
        if input.at != bytes.len() {
            return Err(input.malformed());
        }
        Ok(Self {
            author,
            prev,
            topic_id,
            completed,
            attempts,
            released: has(RELEASED),
            takeovers,
            advanced: has(ADVANCED),
            careful,
            trial,
            first_start,
        })
    }
}

fn distance(from: u64, to: u64) -> u64 {
    to.checked_sub(from).expect("positions in a commit's metadata rise from its offset")
}

fn put_author(out: &mut Vec<u8>, author: &Author) {
    put_varint(out, author.instance.len() as u64);
    out.extend_from_slice(author.instance.as_bytes());
    out.extend_from_slice(&author.incarnation.to_be_bytes());
    put_varint(out, author.number);
}

pub(crate) fn varint_len(value: u64) -> u64 {
    u64::from((u64::BITS - value.leading_zeros()).max(1).div_ceil(7))
}

/// LEB128, as in protocol buffers.
pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    loop {
        let low = u8::try_from(value & 0x7f).expect("seven bits fit a byte");
        value >>= 7;
        if value == 0 {
            out.push(low);
            return;
        }
        out.push(low | 0x80);
    }
}

pub(crate) struct Input<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Input<'_> {
    pub(crate) fn malformed(&self) -> MetadataError {
        MetadataError::Malformed { at: self.at }
    }

    fn take(&mut self, len: usize) -> Result<&[u8], MetadataError> {
        let end = self.at.checked_add(len).ok_or_else(|| self.malformed())?;
        let taken = self.bytes.get(self.at..end).ok_or_else(|| self.malformed())?;
        self.at = end;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, MetadataError> {
        Ok(self.array::<1>()?[0])
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], MetadataError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    pub(crate) fn varint(&mut self) -> Result<u64, MetadataError> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            let shifted = bits << shift;
            if shifted >> shift != bits {
                return Err(self.malformed());
            }
            value |= shifted;
            if byte & 0x80 == 0 {
                // A longer form of the same number is one that no encoder writes.
                return if byte == 0 && shift > 0 { Err(self.malformed()) } else { Ok(value) };
            }
        }
        Err(self.malformed())
    }

    pub(crate) fn varint_u32(&mut self) -> Result<u32, MetadataError> {
        let value = self.varint()?;
        u32::try_from(value).map_err(|_| self.malformed())
    }

    fn author(&mut self) -> Result<Author, MetadataError> {
        let len = self.varint()?;
        let len = usize::try_from(len).map_err(|_| self.malformed())?;
        let at = self.at;
        let name = std::str::from_utf8(self.take(len)?);
        let instance = name.map_err(|_| MetadataError::Malformed { at })?.to_owned();
        let incarnation = u64::from_be_bytes(self.array()?);
        let number = self.varint()?;
        Ok(Author { instance, incarnation, number })
    }

    fn sum(&self, from: u64, distance: u64) -> Result<u64, MetadataError> {
        from.checked_add(distance).filter(|&sum| sum < u64::MAX).ok_or_else(|| self.malformed())
    }

    fn completed(&mut self, offset: u64) -> Result<Vec<Span>, MetadataError> {
        let mut spans: Vec<Span> = Vec::new();
        let mut from = offset;
        for _ in 0..self.varint()? {
            let gap = self.varint()?;
            if gap == 0 && !spans.is_empty() {
                return Err(self.malformed());
            }
            let first = self.sum(from, gap)?;
            let last = self.varint()?;
            let end = self.sum(self.sum(first, last)?, 1)?;
            spans.push(Span { first, end });
            from = end;
        }
        Ok(spans)
    }

    fn attempts(&mut self, offset: u64) -> Result<Vec<(u64, u32)>, MetadataError> {
        let mut attempts: Vec<(u64, u32)> = Vec::new();
        let mut from = offset;
        for _ in 0..self.varint()? {
            let gap = self.varint()?;
            if gap == 0 && !attempts.is_empty() {
                return Err(self.malformed());
            }
            from = self.sum(from, gap)?;
            attempts.push((from, self.varint_u32()?));
        }
        Ok(attempts)
    }

    fn beyond(&mut self, offset: u64) -> Result<u64, MetadataError> {
        let gap = self.varint()?;
        self.sum(offset, gap)
    }
}
