//! The group coordinator's offsets: committed, pending, and their history.

use std::collections::BTreeMap;
use std::sync::Arc;

use countersign::kafka::{CommitOffset, Committed, TopicPartition};
use tokio::time::Instant;

use super::cluster::State;
use super::request::{Code, GroupMetadata, Reply, Sender};
use super::transactions::Transaction;

/// One change of a group's committed offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitRecord {
    /// What was committed; `None`: the offset was removed.
    pub committed: Option<Committed>,
    /// When it became visible.
    pub at: Instant,
    /// The transaction that it was committed in; `None`: from outside.
    pub transaction: Option<u64>,
}

#[derive(Debug, Default)]
pub(super) struct Offsets {
    pub(super) committed: BTreeMap<TopicPartition, Committed>,
    pub(super) history: BTreeMap<TopicPartition, Vec<CommitRecord>>,
    /// By producer id.
    pending: BTreeMap<u64, Pending>,
    epochs: BTreeMap<u64, u32>,
}

#[derive(Debug)]
struct Pending {
    transaction: u64,
    offsets: BTreeMap<TopicPartition, Committed>,
}

impl Offsets {
    /// Whether an open transaction may still change the offset (KIP-447).
    pub(super) fn is_pending(&self, partition: &TopicPartition) -> bool {
        self.pending.values().any(|pending| pending.offsets.contains_key(partition))
    }

    pub(super) fn set(
        &mut self,
        partition: TopicPartition,
        committed: Option<Committed>,
        at: Instant,
        transaction: Option<u64>,
    ) {
        let record = CommitRecord { committed: committed.clone(), at, transaction };
        self.history.entry(partition.clone()).or_default().push(record);
        match committed {
            Some(committed) => self.committed.insert(partition, committed),
            None => self.committed.remove(&partition),
        };
    }
}

impl State {
    /// Checks generation and member only: whether the member owns the partitions is not asked.
    pub(super) fn txn_offset_commit(
        &mut self,
        sender: &Sender,
        metadata: &GroupMetadata,
        offsets: &[CommitOffset],
    ) -> Result<Reply, Code> {
        self.validate_member(metadata)?;
        let longest = self.config.offset_metadata_max_bytes;
        if offsets.iter().any(|offset| offset.metadata.len() > longest) {
            return Err(Code::OffsetMetadataTooLarge);
        }
        let log = self.group(&metadata.group).offsets.epochs.get(&sender.producer_id);
        if log.is_some_and(|epoch| *epoch > sender.epoch) {
            return Err(Code::InvalidProducerEpoch);
        }
        let open = self.group(&metadata.group).offsets.pending.get(&sender.producer_id);
        let transaction = match open.map(|pending| pending.transaction) {
            Some(transaction) => transaction,
            None => self.verify_group(sender, &metadata.group)?,
        };
        let log = &mut self.group(&metadata.group).offsets;
        log.epochs.insert(sender.producer_id, sender.epoch);
        let pending = log
            .pending
            .entry(sender.producer_id)
            .or_insert_with(|| Pending { transaction, offsets: BTreeMap::new() });
        for offset in offsets {
            let committed = Committed { offset: offset.offset, metadata: offset.metadata.clone() };
            pending.offsets.insert(offset.partition.clone(), committed);
        }
        self.changed();
        Ok(Reply::Done)
    }

    pub(super) fn decide_offsets(
        &mut self,
        group: &Arc<str>,
        transaction: &Transaction,
        commit: bool,
    ) {
        let now = self.now;
        let log = &mut self.group(group).offsets;
        log.epochs.insert(transaction.producer_id, transaction.epoch);
        let Some(pending) = log.pending.remove(&transaction.producer_id) else { return };
        if commit {
            for (partition, committed) in pending.offsets {
                log.set(partition, Some(committed), now, Some(pending.transaction));
            }
        }
    }
}
