//! Counts and ranges per partition and state.

use std::collections::BTreeMap;

use countersign_statemachine::{End, Run, Span, State};
use serde::Serialize;

use super::utc;
use crate::store::record::StoredTransaction;
use crate::store::{Journal, StoreError};

/// How many ranges of a state are listed; the rest is counted.
const RANGES_MAX: usize = 20;

/// How many of the last transactions are listed.
const TRANSACTIONS_MAX: usize = 10;

/// How things stand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StateReport {
    /// The cluster's id.
    pub cluster_id: String,
    /// The consumer group.
    pub group: String,
    /// The instance.
    pub instance: String,
    /// Every partition.
    pub partitions: Vec<PartitionState>,
    /// The sums over all partitions.
    pub totals: Counts,
    /// The last transactions, newest first.
    pub last_transactions: Vec<LastTransaction>,
}

/// How a partition stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PartitionState {
    /// The topic's name.
    pub topic: String,
    /// The partition within it.
    pub partition: u32,
    /// How many messages are in which state.
    pub counts: Counts,
    /// Where the messages of each state are.
    pub ranges: BTreeMap<&'static str, Ranges>,
}

/// How many messages are in which state.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Known, and not being worked on.
    pub pending: u64,
    /// Signed in.
    pub processing: u64,
    /// Signed in, and the reply to the commit was lost.
    pub in_doubt: u64,
    /// Done, whatever the outcome.
    pub confirmed: u64,
    /// Done, by outcome.
    pub confirmed_by_outcome: BTreeMap<String, u64>,
    /// Undone, whatever the reason.
    pub rolled_back: u64,
    /// Undone, by reason.
    pub rolled_back_by_reason: BTreeMap<String, u64>,
    /// All of them.
    pub total: u64,
}

/// Where the messages of one state are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Ranges {
    /// The first ranges, rising.
    pub first: Vec<Range>,
    /// How many more there are.
    pub more: usize,
    #[serde(skip)]
    end: Option<u64>,
}

/// Offsets, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Range {
    /// The first offset.
    pub first: u64,
    /// The last offset.
    pub last: u64,
}

/// A transaction that ended lately.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LastTransaction {
    /// Who made it.
    pub instance: String,
    /// Its number with that start of the process.
    pub number: u64,
    /// How it ended.
    pub end: &'static str,
    /// When that was recorded, UTC.
    pub at: String,
    /// How long it was open, in microseconds.
    pub open_us: u64,
    /// How many messages it held.
    pub messages: u64,
    /// How many outputs they had.
    pub outputs: u64,
}

impl From<Span> for Range {
    fn from(span: Span) -> Self {
        Self { first: span.first, last: span.end - 1 }
    }
}

impl Ranges {
    /// Adds offsets above all others; touching ranges become one.
    fn add(&mut self, span: Span) {
        let touches = self.end == Some(span.first);
        self.end = Some(span.end);
        if touches {
            if self.more == 0
                && let Some(last) = self.first.last_mut()
            {
                last.last = span.end - 1;
            }
        } else if self.first.len() < RANGES_MAX {
            self.first.push(span.into());
        } else {
            self.more += 1;
        }
    }
}

impl Counts {
    fn add(&mut self, run: Run) {
        let n = run.count;
        self.total += n;
        match run.history.state {
            State::Pending => self.pending += n,
            State::Processing => self.processing += n,
            State::InDoubt => self.in_doubt += n,
            State::Confirmed(outcome) => {
                self.confirmed += n;
                *self.confirmed_by_outcome.entry(outcome.to_string()).or_default() += n;
            }
            State::RolledBack(reason) => {
                self.rolled_back += n;
                *self.rolled_back_by_reason.entry(reason.to_string()).or_default() += n;
            }
        }
    }
}

/// Reports how things stand.
///
/// # Errors
/// The store is damaged.
pub fn state(journal: &Journal) -> Result<StateReport, StoreError> {
    let mut totals = Counts::default();
    let mut partitions = Vec::new();
    for (id, name) in journal.partitions() {
        let mut counts = Counts::default();
        let mut ranges: BTreeMap<&'static str, Ranges> = BTreeMap::new();
        for run in journal.runs(id) {
            counts.add(run);
            totals.add(run);
            ranges.entry(run.history.state.name()).or_default().add(run.span);
        }
        let (topic, partition) = (name.topic.clone(), name.partition);
        partitions.push(PartitionState { topic, partition, counts, ranges });
    }
    partitions.sort_by(|a, b| (&a.topic, a.partition).cmp(&(&b.topic, b.partition)));
    let last = journal.transactions(TRANSACTIONS_MAX, |_| true)?;
    let last_transactions = last.iter().map(|stored| last_transaction(journal, stored)).collect();
    let identity = journal.identity().clone();
    Ok(StateReport {
        cluster_id: identity.cluster_id,
        group: identity.group,
        instance: identity.instance,
        partitions,
        totals,
        last_transactions,
    })
}

fn last_transaction(journal: &Journal, stored: &StoredTransaction) -> LastTransaction {
    let author = journal.author(stored.author, stored.number);
    LastTransaction {
        instance: author.map_or_else(|| "unknown".to_owned(), |author| author.instance),
        number: stored.number,
        end: end_name(stored.end),
        at: utc(stored.at_ms),
        open_us: stored.open_us,
        messages: stored.parts.iter().map(|part| part.messages).sum(),
        outputs: stored.parts.iter().map(|part| part.outputs).sum(),
    }
}

pub(super) const fn end_name(end: End) -> &'static str {
    match end {
        End::Committed => "committed",
        End::FoundCommitted => "found committed",
        End::Aborted => "aborted",
        End::InDoubt => "in doubt",
    }
}
