//! Forgetting old history, a little at each call: the runs keep what became of every message.
//!
//! Where nothing of the history is left, the runs forget as well what only it explains: how often
//! a message was tried. Then neighbours of one outcome are one run again. Without that each message
//! that ever failed would be two runs for good, in memory and in the store.

use std::ops::ControlFlow;

use countersign_statemachine::{PartitionId, Span};

use super::journal::visit;
use super::record::{HistoryRecord, Ordinal, Stored, StoredTransaction};
use super::{Batch, Journal, KeyRange, Order, StoreError};

/// How many history records are looked at in one call at least: some ten times what a transaction
/// over a few partitions adds, so that the sweep keeps up.
const LOOKED_AT: usize = 64;

/// And at least so many for each record that was added since the last call, so that it keeps up
/// where many messages fail too: a pass then takes a third of the time that history is kept.
const LOOKED_AT_PER_ADDED: usize = 4;

/// How many runs are looked at in one call at most, a millisecond's work: there may be a million
/// to be joined after a long time without.
const RUNS_LOOKED_AT: usize = 256;

/// How many partitions are looked at in one call at most: most have little to be looked at.
const PARTITIONS_LOOKED_AT: usize = 16;

/// How many transactions are removed in one call at most.
const TRANSACTIONS_REMOVED: usize = 32;

/// How far the sweep over the history has come.
#[derive(Debug, Default)]
pub(super) struct Sweep {
    /// Where it is, or the one before if that is gone.
    partition: PartitionId,
    /// The key of this partition's history that it goes on from; empty: from the beginning.
    from: Vec<u8>,
    /// What is kept of this partition before that key covers no offset from here on.
    free_from: u64,
    /// History that ended before is removed; rises with the transactions removed.
    cutoff_ms: u64,
    /// How many history records were added since the last call.
    added: usize,
}

impl Sweep {
    /// Takes note of a record that is written: the sweep may have passed its key.
    pub(super) fn note(&mut self, record: &HistoryRecord, is_new: bool) {
        self.added += usize::from(is_new);
        if record.partition == self.partition && record.key() < self.from {
            self.free_from = self.free_from.max(record.span().end);
        }
    }

    fn turn_to(&mut self, partition: PartitionId) {
        self.partition = partition;
        self.from.clear();
        self.free_from = 0;
    }
}

/// What one call may still look at.
struct Left {
    partitions: usize,
    looks: usize,
    runs: usize,
}

/// What was seen of a partition's history.
#[derive(Default)]
struct Seen {
    /// The keys of what is to be removed.
    old: Vec<Vec<u8>>,
    /// The keys of what is kept, and what it covers.
    kept: Vec<(Vec<u8>, Span)>,
    /// The last key of both.
    last: Option<Vec<u8>>,
    /// The key behind it, if the partition has more.
    next: Option<Vec<u8>>,
}

impl Journal {
    /// Removes some of the history that is older than the options want it, and returns how many
    /// records that were, runs that were joined with others among them. Bounded work; meant to be
    /// called once per transaction.
    ///
    /// History of messages that are not done is kept, whatever its age. Of done messages without
    /// history the runs tell the outcome only.
    ///
    /// # Errors
    /// The store is damaged, full or failed.
    pub fn prune(&mut self, now_ms: u64) -> Result<usize, StoreError> {
        let mut batch = Batch::default();
        let removed = self.prune_transactions(now_ms, &mut batch)?;
        let swept = self.sweep(&mut batch);
        // Else the runs in memory would be ahead of the store.
        self.note_failure(&swept);
        let swept = swept?;
        self.write(&batch)?;
        self.ordinals.start += removed as u64;
        Ok(removed + swept)
    }

    fn prune_transactions(&mut self, now_ms: u64, batch: &mut Batch) -> Result<usize, StoreError> {
        let kept = self.ordinals.end - self.ordinals.start;
        let session = self.session()?;
        let history_ms = u64::try_from(session.options.history.as_millis()).unwrap_or(u64::MAX);
        let mut cutoff_ms = session.sweep.cutoff_ms.max(now_ms.saturating_sub(history_ms));
        let surplus = kept.saturating_sub(session.options.history_transactions);
        let mut removed = 0;
        let range = KeyRange {
            from: StoredTransaction::key_at(Ordinal(self.ordinals.start)),
            to: Some(StoredTransaction::key_at(Ordinal(self.ordinals.end))),
        };
        visit::<StoredTransaction>(&*self.store, &range, Order::Rising, |transaction| {
            let too_many = (removed as u64) < surplus;
            if removed >= TRANSACTIONS_REMOVED || !(too_many || transaction.at_ms < cutoff_ms) {
                return ControlFlow::Break(());
            }
            if too_many {
                cutoff_ms = cutoff_ms.max(transaction.at_ms);
            }
            batch.delete(transaction.key());
            removed += 1;
            ControlFlow::Continue(())
        })?;
        self.session()?.sweep.cutoff_ms = cutoff_ms;
        Ok(removed)
    }

    /// Goes on from where the last call stopped; behind the last partition it begins anew.
    fn sweep(&mut self, batch: &mut Batch) -> Result<usize, StoreError> {
        let added = std::mem::take(&mut self.session()?.sweep.added);
        let looks = LOOKED_AT.max(added.saturating_mul(LOOKED_AT_PER_ADDED));
        let partitions = PARTITIONS_LOOKED_AT.min(self.partitions.len());
        let mut left = Left { partitions, looks, runs: RUNS_LOOKED_AT };
        let mut removed = 0;
        while left.partitions > 0 {
            let Some(id) = self.swept_partition()? else { break };
            let runs = self.runs_of(id);
            let seen = self.look_at(id, &mut left)?;
            let is_passed = self.forget_between(id, &seen, &mut left)?;
            removed += seen.old.len() + runs.saturating_sub(self.runs_of(id));
            seen.old.into_iter().for_each(|key| batch.delete(key));
            self.put_runs(id, batch);
            if !is_passed {
                break;
            }
            self.session()?.sweep.turn_to(PartitionId(id.0.saturating_add(1)));
            left.partitions -= 1;
        }
        Ok(removed)
    }

    fn swept_partition(&mut self) -> Result<Option<PartitionId>, StoreError> {
        let wanted = self.session()?.sweep.partition;
        let next = self.partitions.range(wanted..).next().or(self.partitions.first_key_value());
        let id = next.map(|(&id, _)| id);
        if let Some(id) = id.filter(|&id| id != wanted) {
            self.session()?.sweep.turn_to(id);
        }
        Ok(id)
    }

    fn runs_of(&self, id: PartitionId) -> usize {
        self.partitions.get(&id).map_or(0, |partition| partition.runs.len())
    }

    /// Reads on in a partition's history.
    fn look_at(&mut self, id: PartitionId, left: &mut Left) -> Result<Seen, StoreError> {
        let all = KeyRange::of_prefix(&HistoryRecord::prefix_of(id));
        let sweep = &self.session()?.sweep;
        let cutoff_ms = sweep.cutoff_ms;
        let range = KeyRange { from: sweep.from.clone().max(all.from), to: all.to };
        let mut seen = Seen::default();
        visit::<HistoryRecord>(&*self.store, &range, Order::Rising, |record| {
            let key = record.key();
            if left.looks == 0 {
                seen.next = Some(key);
                return ControlFlow::Break(());
            }
            left.looks -= 1;
            seen.last = Some(key.clone());
            if record.last().at_ms < cutoff_ms && self.is_done(&record) {
                seen.old.push(key);
            } else {
                seen.kept.push((key, record.span()));
            }
            ControlFlow::Continue(())
        })?;
        Ok(seen)
    }

    /// Lets the runs forget their details where no history is kept, and moves the sweep on. Gives
    /// whether the whole partition is passed.
    fn forget_between(
        &mut self,
        id: PartitionId,
        seen: &Seen,
        left: &mut Left,
    ) -> Result<bool, StoreError> {
        let mut free_from = self.session()?.sweep.free_from;
        let Some(partition) = self.partitions.get_mut(&id) else { return Ok(true) };
        let mut forget = |until: u64, free_from: &mut u64| {
            let Some(free) = Span::new(*free_from, until) else { return true };
            let (looked_at, next) = partition.runs.forget_details(free, left.runs);
            left.runs -= looked_at;
            *free_from = next;
            next == until
        };
        let mut from = None;
        for (key, kept) in &seen.kept {
            if !forget(kept.first, &mut free_from) {
                from = Some(key.clone());
                break;
            }
            free_from = free_from.max(kept.end);
        }
        let from = from.or_else(|| seen.next.clone());
        let is_passed = from.is_none() && forget(u64::MAX, &mut free_from);
        let sweep = &mut self.session()?.sweep;
        sweep.free_from = free_from;
        // What is added meanwhile has a higher key than the last, or the sweep is told.
        let behind = seen.last.as_ref().map(|last| [last.as_slice(), &[0]].concat());
        if let Some(from) = from.or(behind) {
            sweep.from = from;
        }
        Ok(is_passed)
    }

    fn is_done(&self, record: &HistoryRecord) -> bool {
        let partition = self.partitions.get(&record.partition);
        partition.is_none_or(|partition| partition.runs.is_confirmed(record.span()))
    }
}
