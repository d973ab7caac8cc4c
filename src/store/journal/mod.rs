//! The journal: entries in, runs and their history out.
//!
//! Invariants: the mirror of the runs equals what is written, or the journal takes no more writes;
//! a batch holds all that its entries cause, so that a crash never leaves half of them; sequences
//! and ordinals rise and are never used twice.

mod append;
mod open;
mod read;

pub(super) use open::visit;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::ops::Range;
use std::time::Duration;

use countersign_statemachine::{PartitionId, Run, Runs};

use super::record::{
    AuthorId, AuthorRecord, Identity, Ordinal, Sequence, SlotRecord, Stored, TopicRecord,
};
use super::{Batch, Store, StoreError};

/// How a journal is kept.
#[derive(Debug, Clone)]
pub struct JournalOptions {
    /// The random number of this start of the process.
    pub incarnation: u64,
    /// When it is opened, in milliseconds since 1970 UTC.
    pub opened_at_ms: u64,
    /// How long history is kept; afterwards only the runs know of it.
    pub history: Duration,
    /// How many transactions' history is kept at most.
    pub history_transactions: u64,
}

impl JournalOptions {
    /// The defaults: a day of history, of at most 100,000 transactions.
    pub const fn new(incarnation: u64, opened_at_ms: u64) -> Self {
        Self {
            incarnation,
            opened_at_ms,
            history: Duration::from_secs(24 * 60 * 60),
            history_transactions: 100_000,
        }
    }
}

/// What a partition's number stands for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PartitionName {
    /// The topic's name.
    pub topic: String,
    /// The partition within it.
    pub partition: u32,
    /// The topic's id: the same name may come to mean another topic.
    pub topic_id: [u8; 16],
}

impl fmt::Display for PartitionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.partition)
    }
}

/// The record of every message, on a [`Store`].
#[derive(Debug)]
pub struct Journal {
    pub(super) store: Box<dyn Store>,
    identity: Identity,
    pub(super) writer: Writer,
    pub(super) partitions: BTreeMap<PartitionId, Partition>,
    numbers: HashMap<PartitionName, PartitionId>,
    authors: BTreeMap<AuthorId, AuthorRecord>,
    author_numbers: HashMap<(String, u64), AuthorId>,
    /// The kept transactions' ordinals.
    pub(super) ordinals: Range<u64>,
    /// Transactions of this session without a known end, which their end will overwrite.
    in_doubt: HashMap<(AuthorId, u64), Ordinal>,
}

/// Whether and how the journal may be written.
#[derive(Debug)]
pub(super) enum Writer {
    Open(Box<Session>),
    Closed(String),
}

#[derive(Debug)]
pub(super) struct Session {
    next: Sequence,
    pub(super) options: JournalOptions,
    pub(super) sweep: super::prune::Sweep,
}

#[derive(Debug)]
pub(super) struct Partition {
    name: PartitionName,
    pub(super) runs: Runs,
    /// Per first offset the history record that may still be added to.
    recent: BTreeMap<u64, Sequence>,
}

impl Partition {
    fn new(name: PartitionName, runs: Runs) -> Self {
        Self { name, runs, recent: BTreeMap::new() }
    }
}

impl Journal {
    /// Whose store it is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The number of a partition, given at the first call and kept for good. A topic that was
    /// deleted and made again under its name has another id, and so other numbers.
    ///
    /// # Errors
    /// The store is full or failed.
    pub fn intern(
        &mut self,
        topic: &str,
        partition: u32,
        topic_id: [u8; 16],
    ) -> Result<PartitionId, StoreError> {
        let name = PartitionName { topic: topic.to_owned(), partition, topic_id };
        if let Some(&id) = self.numbers.get(&name) {
            return Ok(id);
        }
        let id = PartitionId(self.partitions.last_key_value().map_or(0, |(last, _)| last.0 + 1));
        let record = TopicRecord { id, topic: topic.to_owned(), partition, topic_id };
        let mut batch = Batch::default();
        batch.put(record.key(), record.value());
        self.write(&batch)?;
        self.add_partition(record, Runs::default());
        Ok(id)
    }

    /// What a number stands for; `None` if this store did not give it.
    pub fn name_of(&self, id: PartitionId) -> Option<&PartitionName> {
        self.partitions.get(&id).map(|partition| &partition.name)
    }

    /// Every known partition, in the order in which they were met.
    pub fn partitions(&self) -> impl Iterator<Item = (PartitionId, &PartitionName)> {
        self.partitions.iter().map(|(&id, partition)| (id, &partition.name))
    }

    /// The runs of a partition, in offset order.
    pub fn runs(&self, id: PartitionId) -> impl Iterator<Item = Run> + '_ {
        self.partitions.get(&id).into_iter().flat_map(|partition| partition.runs.iter())
    }

    /// The run that covers an offset.
    pub fn run_at(&self, id: PartitionId, offset: u64) -> Option<Run> {
        self.partitions.get(&id)?.runs.at(offset)
    }

    /// The runs that are not confirmed: what must be settled with Kafka after a start.
    pub fn unfinished(&self, id: PartitionId) -> impl Iterator<Item = Run> + '_ {
        self.runs(id).filter(|run| !run.history.state.is_confirmed())
    }

    /// The runs that have to be settled with a committed offset: those that are not confirmed, and
    /// all that reach beyond it. What is done below it is of no use to whoever takes it up.
    pub fn runs_to_settle(&self, id: PartitionId, committed: u64) -> impl Iterator<Item = Run> {
        let concerned =
            move |run: &Run| run.span.end > committed || !run.history.state.is_confirmed();
        self.runs(id).filter(concerned)
    }

    /// Remembers a transactional id; the call of [`flush`](Self::flush) that follows makes it last.
    ///
    /// # Errors
    /// The store is full or failed.
    pub fn remember_slot(&mut self, transactional_id: &str) -> Result<(), StoreError> {
        let record = SlotRecord { transactional_id: transactional_id.to_owned() };
        let mut batch = Batch::default();
        batch.put(record.key(), record.value());
        self.write(&batch)
    }

    /// Returns when everything so far would survive a kill of the process.
    ///
    /// # Errors
    /// The store is full or failed; the journal then takes no more writes.
    pub fn flush(&mut self) -> Result<(), StoreError> {
        self.session()?;
        let result = self.store.flush();
        self.note_failure(&result);
        result
    }

    /// How many bytes the store takes.
    ///
    /// # Errors
    /// The store failed.
    pub fn size_on_disk(&self) -> Result<u64, StoreError> {
        self.store.size_on_disk()
    }

    pub(super) fn session(&mut self) -> Result<&mut Session, StoreError> {
        match &mut self.writer {
            Writer::Open(session) => Ok(session),
            Writer::Closed(why) => Err(StoreError::Closed { why: why.clone() }),
        }
    }

    pub(super) fn write(&mut self, batch: &Batch) -> Result<(), StoreError> {
        self.session()?;
        if batch.is_empty() {
            return Ok(());
        }
        let result = self.store.apply(batch);
        self.note_failure(&result);
        result
    }

    /// After a failed write the mirror is ahead of the store: nothing may be built on it.
    pub(super) fn note_failure<T>(&mut self, result: &Result<T, StoreError>) {
        if let Err(error) = result {
            self.writer = Writer::Closed(format!("an earlier write failed ({error})"));
        }
    }

    fn add_partition(&mut self, record: TopicRecord, runs: Runs) {
        let TopicRecord { id, topic, partition, topic_id } = record;
        let name = PartitionName { topic, partition, topic_id };
        self.numbers.insert(name.clone(), id);
        self.partitions.insert(id, Partition::new(name, runs));
    }
}
