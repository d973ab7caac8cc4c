//! Where the partitions of a topic ended when a group began to read it at the end.
//!
//! Such a group must not read what was there before, and must lose nothing that comes later. But a
//! member commits only what it owns, and another partition may be taken up later: by a slower
//! member, or after the death of one that never came to its first commit. So the first commits of
//! the group say where *all* partitions ended then, until each of them has a commit of its own.
//!
//! Ends, and not the time of the first start: the timestamps of records are what their producers
//! say, and one of before or after would make a message be lost or an old one be read.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::metadata::{CommitMetadata, Input, MetadataError, put_varint, spare_bytes, varint_len};
use crate::worker::{Commit, Label, PositionError};

/// What a first commit says of the other partitions of the topic.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FirstStart {
    /// How many partitions the topic had.
    pub partitions: u32,
    /// Where some of them ended, by number, rising. Of a topic with very many partitions the
    /// commits of those that were taken up together share the list.
    pub ends: Vec<(u32, u64)>,
}

/// A topic that a group begins to read, as one of its partitions sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beginning {
    /// Where each of its partitions ends, by number.
    pub ends: Arc<[u64]>,
    /// The number of this one.
    pub number: u32,
    /// Which one it is of those that are taken up together.
    pub nth: usize,
    /// How many are taken up together.
    pub of: usize,
}

/// What the commits of a topic's other partitions say of one that has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recorded {
    /// It is to be read from its beginning: it was added later, or the group began there.
    Nothing,
    /// Where it ended when the group began to read the topic.
    End(u64),
    /// It was there when the group began to read the topic at the end, and no commit says where it
    /// ended then.
    Lost,
    /// A commit of another partition cannot be read, and may say it.
    Unreadable {
        /// Which partition's.
        number: u32,
        /// Its committed offset.
        offset: u64,
        /// Why.
        source: MetadataError,
    },
}

impl FirstStart {
    /// What the first commit of one partition says. The list takes at most half of what the
    /// metadata may have beside everything else; if it is longer, each of the partitions that are
    /// taken up together has a part of it.
    pub fn of(beginning: &Beginning, metadata_bytes: usize) -> Self {
        let Beginning { ends, number, nth, of } = beginning;
        let most = spare_bytes(metadata_bytes) / 2;
        let partitions = u32::try_from(ends.len()).unwrap_or(u32::MAX);
        let others = || (0..partitions).zip(ends.iter().copied()).filter(|(at, _)| at != number);
        let all = Self { partitions, ends: others().collect() };
        if all.encoded_len() <= most {
            return all;
        }
        let mut part = Self { partitions, ends: Vec::new() };
        let is_its_part = |at: u32| usize::try_from(at).is_ok_and(|at| at % of.max(&1) == *nth);
        for end in others().filter(|(at, _)| is_its_part(*at)) {
            part.ends.push(end);
            if part.encoded_len() > most {
                part.ends.pop();
                break;
            }
        }
        part
    }

    /// Forgets the partitions that have a commit by now; gives whether any is left without one.
    pub(crate) fn retain(&mut self, without_commit: &[u32]) -> bool {
        self.ends.retain(|(number, _)| without_commit.contains(number));
        without_commit.iter().any(|&number| number < self.partitions)
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        put_varint(out, u64::from(self.partitions));
        put_varint(out, self.ends.len() as u64);
        let mut from = 0;
        for &(number, end) in &self.ends {
            put_varint(out, u64::from(number - from));
            put_varint(out, end);
            from = number;
        }
    }

    /// How many bytes it takes in a commit's metadata.
    pub(crate) fn encoded_len(&self) -> usize {
        let mut from = 0;
        let mut len = varint_len(u64::from(self.partitions)) + varint_len(self.ends.len() as u64);
        for &(number, end) in &self.ends {
            len += varint_len(u64::from(number - from)) + varint_len(end);
            from = number;
        }
        usize::try_from(len).unwrap_or(usize::MAX)
    }

    /// Decodes what [`encode`](Self::encode) made, and nothing else.
    pub(crate) fn decode(input: &mut Input<'_>) -> Result<Self, MetadataError> {
        let partitions = input.varint_u32()?;
        let mut ends: Vec<(u32, u64)> = Vec::new();
        let mut from = 0_u32;
        for _ in 0..input.varint()? {
            let gap = input.varint_u32()?;
            let number = from.checked_add(gap).filter(|number| *number < partitions);
            let number = number.filter(|_| gap > 0 || ends.is_empty());
            from = number.ok_or_else(|| input.malformed())?;
            ends.push((from, input.varint()?));
        }
        Ok(Self { partitions, ends })
    }
}

/// What the group's commits of a topic say of its partitions that have none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FirstStarts {
    /// How many partitions the topic had when the group began to read it at the end.
    partitions: Option<u32>,
    ends: BTreeMap<u32, u64>,
    unreadable: Option<(u32, u64, MetadataError)>,
}

impl FirstStarts {
    /// Reads the commits of a topic, each with the number of its partition. Those of a deleted
    /// topic of the same name say nothing.
    pub fn read<'a>(
        commits: impl IntoIterator<Item = (u32, &'a Commit)>,
        topic_id: [u8; 16],
    ) -> Self {
        let mut starts = Self::default();
        for (number, commit) in commits {
            let offset = commit.offset;
            let read = match &commit.label {
                Label::Foreign(_) => continue,
                Label::Unreadable(source) => Err(*source),
                Label::Ours(bytes) => CommitMetadata::decode(offset, bytes),
            };
            match read {
                Ok(metadata) if metadata.topic_id == topic_id => starts.add(metadata.first_start),
                Ok(_) => {}
                Err(source) => starts.unreadable = Some((number, offset, source)),
            }
        }
        starts
    }

    /// Of two members that began at the same time the earlier end holds: nothing is lost.
    fn add(&mut self, first_start: Option<FirstStart>) {
        let Some(FirstStart { partitions, ends }) = first_start else { return };
        self.partitions = Some(self.partitions.map_or(partitions, |known| known.min(partitions)));
        for (number, end) in ends {
            let known = self.ends.entry(number).or_insert(end);
            *known = end.min(*known);
        }
    }

    /// What they say of one partition.
    pub fn recorded(&self, number: u32) -> Recorded {
        match (self.ends.get(&number), self.unreadable, self.partitions) {
            (Some(&end), _, _) => Recorded::End(end),
            (None, Some((number, offset, source)), _) => {
                Recorded::Unreadable { number, offset, source }
            }
            (None, None, Some(partitions)) if number < partitions => Recorded::Lost,
            (None, None, _) => Recorded::Nothing,
        }
    }
}

impl Recorded {
    /// Where the partition is to be read from: an offset, or `None` for its beginning.
    pub(crate) fn start(self) -> Result<Option<u64>, PositionError> {
        match self {
            Self::Nothing => Ok(None),
            Self::End(end) => Ok(Some(end)),
            Self::Lost => Err(PositionError::NoStart),
            Self::Unreadable { number, offset, source } => {
                Err(PositionError::Sibling { number, offset, source })
            }
        }
    }
}
