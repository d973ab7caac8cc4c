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
    /// Where the commit stands in the group's own log. Not the order of markers but this one says
    /// which of two commits is the later one.
    pub position: u64,
    /// Whether it had no effect, because a commit that was sent later had become visible before.
    pub is_superseded: bool,
}

#[derive(Debug, Default)]
pub(super) struct Offsets {
    pub(super) committed: BTreeMap<TopicPartition, Committed>,
    /// The position of what is committed.
    positions: BTreeMap<TopicPartition, u64>,
    /// The end of the group's own log.
    end: u64,
    pub(super) history: BTreeMap<TopicPartition, Vec<CommitRecord>>,
    /// By producer id.
    pending: BTreeMap<u64, Pending>,
    epochs: BTreeMap<u64, u32>,
}

#[derive(Debug)]
struct Pending {
    transaction: u64,
    /// With their positions.
    offsets: BTreeMap<TopicPartition, (u64, Committed)>,
}

impl Offsets {
    /// Whether an open transaction may still change the offset (KIP-447).
    pub(super) fn is_pending(&self, partition: &TopicPartition) -> bool {
        self.pending.values().any(|pending| pending.offsets.contains_key(partition))
    }

    /// The next position in the group's own log.
    fn append(&mut self) -> u64 {
        self.end += 1;
        self.end
    }

    /// Sets an offset from outside.
    pub(super) fn set(
        &mut self,
        partition: TopicPartition,
        committed: Option<Committed>,
        at: Instant,
    ) {
        let position = self.append();
        self.show(partition, committed, at, None, position);
    }

    /// Makes a commit visible, unless one of a later position is
    /// (`OffsetMetadataManager.replayEndTransactionMarker`).
    fn show(
        &mut self,
        partition: TopicPartition,
        committed: Option<Committed>,
        at: Instant,
        transaction: Option<u64>,
        position: u64,
    ) {
        let is_superseded = self.positions.get(&partition).is_some_and(|last| *last > position);
        let record =
            CommitRecord { committed: committed.clone(), at, transaction, position, is_superseded };
        self.history.entry(partition.clone()).or_default().push(record);
        if is_superseded {
            return;
        }
        self.positions.insert(partition.clone(), position);
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
        let position = log.append();
        let pending = log
            .pending
            .entry(sender.producer_id)
            .or_insert_with(|| Pending { transaction, offsets: BTreeMap::new() });
        for offset in offsets {
            let committed = Committed { offset: offset.offset, metadata: offset.metadata.clone() };
            pending.offsets.insert(offset.partition.clone(), (position, committed));
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
            for (partition, (position, committed)) in pending.offsets {
                log.show(partition, Some(committed), now, Some(pending.transaction), position);
            }
        }
    }
}
