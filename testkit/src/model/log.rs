//! One partition's log: data records, control records and what a reader may see of them.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use countersign::kafka::{Header, Output};

/// Which records a reader is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    /// Everything in the log, open and aborted transactions included.
    ReadUncommitted,
    /// Only what lies below the last stable offset and was not aborted.
    ReadCommitted,
}

/// What became of the transaction that a record was written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Written outside any transaction.
    Plain,
    /// Its marker is not written yet.
    Open,
    /// Its commit marker is written.
    Committed,
    /// Its abort marker is written.
    Aborted,
}

/// A data record as it stands in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelRecord {
    /// Its offset.
    pub offset: u64,
    /// Its key.
    pub key: Option<Bytes>,
    /// Its value.
    pub value: Option<Bytes>,
    /// Its headers, in order.
    pub headers: Vec<Header>,
    /// Milliseconds; virtual time since the cluster was made unless the producer set it.
    pub timestamp: i64,
    /// Who wrote it.
    pub writer: Option<Writer>,
    /// What became of its transaction.
    pub outcome: Outcome,
}

/// Who wrote a record within a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Writer {
    /// The producer id.
    pub producer_id: u64,
    /// The producer's epoch.
    pub epoch: u32,
    /// The coordinator's transaction, numbered through the cluster: equal numbers, one fate.
    pub transaction: u64,
}

#[derive(Debug)]
enum Entry {
    Data(ModelRecord),
    Control,
}

#[derive(Debug, Default)]
pub(super) struct Log {
    start: u64,
    entries: VecDeque<Entry>,
    /// First offset of each producer's open transaction.
    open: BTreeMap<u64, u64>,
    epochs: BTreeMap<u64, u32>,
}

impl Log {
    pub(super) fn start(&self) -> u64 {
        self.start
    }

    pub(super) fn end(&self) -> u64 {
        self.start + self.entries.len() as u64
    }

    pub(super) fn last_stable(&self) -> u64 {
        self.open.values().copied().min().unwrap_or_else(|| self.end())
    }

    /// Whether a produce needs no verification by the coordinator (KIP-890 part 1).
    pub(super) fn is_open(&self, producer_id: u64) -> bool {
        self.open.contains_key(&producer_id)
    }

    pub(super) fn epoch(&self, producer_id: u64) -> Option<u32> {
        self.epochs.get(&producer_id).copied()
    }

    pub(super) fn append(&mut self, output: &Output, writer: Option<Writer>, now_ms: i64) {
        let offset = self.end();
        if let Some(writer) = writer {
            self.open.entry(writer.producer_id).or_insert(offset);
            self.epochs.insert(writer.producer_id, writer.epoch);
        }
        self.entries.push_back(Entry::Data(ModelRecord {
            offset,
            key: output.key.clone(),
            value: output.value.clone(),
            headers: output.headers.clone(),
            timestamp: output.timestamp.unwrap_or(now_ms),
            writer,
            outcome: if writer.is_some() { Outcome::Open } else { Outcome::Plain },
        }));
    }

    /// Writes a control record. It occupies an offset even if the producer wrote nothing here.
    pub(super) fn write_marker(&mut self, producer_id: u64, epoch: u32, commit: bool) {
        self.epochs.insert(producer_id, epoch);
        if let Some(first) = self.open.remove(&producer_id) {
            let outcome = if commit { Outcome::Committed } else { Outcome::Aborted };
            self.decide(producer_id, first, outcome);
        }
        self.entries.push_back(Entry::Control);
    }

    fn decide(&mut self, producer_id: u64, first: u64, outcome: Outcome) {
        let skip = index(first.saturating_sub(self.start));
        for entry in self.entries.iter_mut().skip(skip) {
            if let Entry::Data(record) = entry
                && record.outcome == Outcome::Open
                && record.writer.is_some_and(|writer| writer.producer_id == producer_id)
            {
                record.outcome = outcome;
            }
        }
    }

    /// Removes everything below `offset`, as retention does.
    pub(super) fn truncate(&mut self, offset: u64) {
        while self.start < offset && self.entries.pop_front().is_some() {
            self.start += 1;
        }
    }

    pub(super) fn records(&self, isolation: Isolation) -> impl Iterator<Item = &ModelRecord> {
        let stable = self.last_stable();
        self.data_from(self.start).filter(move |record| match isolation {
            Isolation::ReadUncommitted => true,
            Isolation::ReadCommitted => record.offset < stable && record.is_visible(),
        })
    }

    /// Records that a `read_committed` reader at `offset` gets next.
    pub(super) fn visible_from(&self, offset: u64) -> impl Iterator<Item = &ModelRecord> {
        let stable = self.last_stable();
        self.data_from(offset)
            .take_while(move |record| record.offset < stable)
            .filter(|record| record.is_visible())
    }

    fn data_from(&self, offset: u64) -> impl Iterator<Item = &ModelRecord> {
        let skip = index(offset.saturating_sub(self.start));
        self.entries.iter().skip(skip).filter_map(|entry| match entry {
            Entry::Data(record) => Some(record),
            Entry::Control => None,
        })
    }
}

fn index(distance: u64) -> usize {
    usize::try_from(distance).unwrap_or(usize::MAX)
}

impl ModelRecord {
    fn is_visible(&self) -> bool {
        match self.outcome {
            Outcome::Plain | Outcome::Committed => true,
            Outcome::Open | Outcome::Aborted => false,
        }
    }

    pub(super) fn bytes(&self) -> usize {
        let headers: usize = self
            .headers
            .iter()
            .map(|header| header.name.len() + header.value.as_ref().map_or(0, Bytes::len))
            .sum();
        self.key.as_ref().map_or(0, Bytes::len)
            + self.value.as_ref().map_or(0, Bytes::len)
            + headers
    }
}
