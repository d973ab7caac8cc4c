//! What the journal can tell beyond the runs.

use std::ops::ControlFlow;

use countersign_statemachine::{Author, PartitionId};

use super::Journal;
use super::open::{each, visit};
use crate::store::record::{
    AuthorId, HistoryRecord, SessionRecord, SlotRecord, Stored, StoredTransaction,
};
use crate::store::{KeyRange, Order, StoreError};

impl Journal {
    /// The transactional ids that were ever used with this store.
    ///
    /// # Errors
    /// The store is damaged.
    pub fn slots(&self) -> Result<Vec<String>, StoreError> {
        let mut slots = Vec::new();
        each::<SlotRecord>(&*self.store, |record| slots.push(record.transactional_id))?;
        Ok(slots)
    }

    /// Every opening for work, in order.
    ///
    /// # Errors
    /// The store is damaged.
    pub fn sessions(&self) -> Result<Vec<SessionRecord>, StoreError> {
        let mut sessions = Vec::new();
        each::<SessionRecord>(&*self.store, |record| sessions.push(record))?;
        Ok(sessions)
    }

    /// The author of a number, with the transaction of his that is meant.
    pub fn author(&self, id: AuthorId, number: u64) -> Option<Author> {
        let record = self.authors.get(&id)?;
        Some(Author { instance: record.instance.clone(), incarnation: record.incarnation, number })
    }

    /// The kept history of whatever spans cover an offset, by first offset.
    ///
    /// # Errors
    /// The store is damaged.
    pub fn history_at(
        &self,
        id: PartitionId,
        offset: u64,
    ) -> Result<Vec<HistoryRecord>, StoreError> {
        let prefix = HistoryRecord::prefix_of(id);
        let mut range = KeyRange::of_prefix(&prefix);
        range.to = Some([prefix.as_slice(), &offset.saturating_add(1).to_be_bytes()].concat());
        let mut found = Vec::new();
        visit::<HistoryRecord>(&*self.store, &range, Order::Rising, |record| {
            if record.span().contains(offset) {
                found.push(record);
            }
            ControlFlow::Continue(())
        })?;
        Ok(found)
    }

    /// The kept transactions that `wanted` chooses, newest first, at most `limit`.
    ///
    /// # Errors
    /// The store is damaged.
    pub fn transactions(
        &self,
        limit: usize,
        wanted: impl Fn(&StoredTransaction) -> bool,
    ) -> Result<Vec<StoredTransaction>, StoreError> {
        let mut found = Vec::new();
        let range = KeyRange::of_prefix(&[StoredTransaction::KIND]);
        visit::<StoredTransaction>(&*self.store, &range, Order::Falling, |record| {
            if found.len() >= limit {
                return ControlFlow::Break(());
            }
            if wanted(&record) {
                found.push(record);
            }
            ControlFlow::Continue(())
        })?;
        Ok(found)
    }
}
