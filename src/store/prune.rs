//! Forgetting old history, a little at each call: the runs keep what became of every message.

use std::ops::ControlFlow;

use super::journal::visit;
use super::record::{HistoryRecord, Ordinal, Stored, StoredTransaction};
use super::{Batch, Journal, KeyRange, Order, StoreError};

/// How many history records are looked at in one call: some ten times what a transaction over a
/// few partitions adds, so that the sweep keeps up.
const LOOKED_AT: usize = 64;

/// How many transactions are removed in one call at most.
const TRANSACTIONS_REMOVED: usize = 32;

/// How far the sweep over the history has come.
#[derive(Debug, Default)]
pub(super) struct Sweep {
    /// The key it goes on from; empty: from the beginning.
    from: Vec<u8>,
    /// History that ended before is removed; rises with the transactions removed.
    cutoff_ms: u64,
}

impl Journal {
    /// Removes some of the history that is older than the options want it, and returns how many
    /// records that were. Bounded work; meant to be called once per transaction.
    ///
    /// History of messages that are not done is kept, whatever its age.
    ///
    /// # Errors
    /// The store is damaged, full or failed.
    pub fn prune(&mut self, now_ms: u64) -> Result<usize, StoreError> {
        let mut batch = Batch::default();
        let removed = self.prune_transactions(now_ms, &mut batch)?;
        let swept = self.sweep_history(&mut batch)?;
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

    fn sweep_history(&mut self, batch: &mut Batch) -> Result<usize, StoreError> {
        let all = KeyRange::of_prefix(&[HistoryRecord::KIND]);
        let sweep = &mut self.session()?.sweep;
        let cutoff_ms = sweep.cutoff_ms;
        let from = std::mem::take(&mut sweep.from).max(all.from);
        let range = KeyRange { from, to: all.to };
        let mut seen = 0;
        let mut next = None;
        let mut old = Vec::new();
        visit::<HistoryRecord>(&*self.store, &range, Order::Rising, |record| {
            if seen == LOOKED_AT {
                next = Some(record.key());
                return ControlFlow::Break(());
            }
            seen += 1;
            if record.last().at_ms < cutoff_ms {
                old.push(record);
            }
            ControlFlow::Continue(())
        })?;
        old.retain(|record| self.is_done(record));
        for record in &old {
            batch.delete(record.key());
        }
        // The end is reached: the next call begins anew.
        self.session()?.sweep.from = next.unwrap_or_default();
        Ok(old.len())
    }

    fn is_done(&self, record: &HistoryRecord) -> bool {
        let Some(partition) = self.partitions.get(&record.partition) else { return true };
        let runs = partition.runs.overlapping(record.span());
        runs.iter().all(|run| run.history.state.is_confirmed())
    }
}
