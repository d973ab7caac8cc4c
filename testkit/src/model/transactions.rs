//! The transaction coordinator under version-1 rules (KIP-98, KIP-890 part 1).
//!
//! One epoch serves many transactions, and `EndTxn` is checked against the epoch and the state
//! only: that a copy belongs to an earlier transaction cannot be seen here. This is the hazard of
//! `delayed-endtxn.md`, and it is what the model is for.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use countersign::kafka::TopicPartition;
use tokio::time::Instant;

use super::cluster::{Event, State};
use super::faults::{Call, Fault};
use super::request::{Code, Reply, Sender};

/// The coordinator's states.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransactionState {
    /// The id is registered and has no transaction.
    Empty,
    /// Partitions or offsets were added.
    Ongoing,
    /// Decided to commit; markers are being written.
    PrepareCommit,
    /// Decided to abort; markers are being written.
    PrepareAbort,
    /// All commit markers are written.
    CompleteCommit,
    /// All abort markers are written.
    CompleteAbort,
}

/// What the coordinator knows of one transactional id.
#[derive(Debug, Clone)]
pub(super) struct Transaction {
    pub(super) producer_id: u64,
    pub(super) epoch: u32,
    pub(super) state: TransactionState,
    /// Counts transactions through the cluster.
    pub(super) number: u64,
    pub(super) partitions: BTreeSet<TopicPartition>,
    pub(super) groups: BTreeSet<Arc<str>>,
    pub(super) timeout: Duration,
    pub(super) deadline: Option<Instant>,
}

impl Transaction {
    fn new(producer_id: u64, timeout: Duration) -> Self {
        Self {
            producer_id,
            epoch: 0,
            state: TransactionState::Empty,
            number: 0,
            partitions: BTreeSet::new(),
            groups: BTreeSet::new(),
            timeout,
            deadline: None,
        }
    }

    fn is_from(&self, sender: &Sender) -> bool {
        self.producer_id == sender.producer_id && self.epoch == sender.epoch
    }
}

impl State {
    pub(super) fn init_producer_id(
        &mut self,
        transactional_id: &Arc<str>,
        timeout: Duration,
    ) -> Result<Reply, Code> {
        let new_id = self.next_number();
        let transaction = self
            .transactions
            .entry(transactional_id.clone())
            .or_insert_with(|| Transaction::new(new_id, timeout));
        transaction.timeout = timeout;
        match transaction.state {
            TransactionState::Ongoing => {
                // The epoch of the abort is one up, so that the fenced producer cannot end it.
                transaction.epoch += 1;
                self.prepare(transactional_id, false);
                Err(Code::ConcurrentTransactions)
            }
            TransactionState::PrepareCommit | TransactionState::PrepareAbort => {
                Err(Code::ConcurrentTransactions)
            }
            TransactionState::Empty
            | TransactionState::CompleteCommit
            | TransactionState::CompleteAbort => {
                transaction.epoch += 1;
                transaction.state = TransactionState::Empty;
                let reply = Reply::Producer {
                    producer_id: transaction.producer_id,
                    epoch: transaction.epoch,
                };
                self.changed();
                Ok(reply)
            }
        }
    }

    pub(super) fn add_partitions(
        &mut self,
        sender: &Sender,
        partitions: &[TopicPartition],
    ) -> Result<Reply, Code> {
        let transaction = self.open_transaction(sender)?;
        transaction.partitions.extend(partitions.iter().cloned());
        Ok(Reply::Done)
    }

    pub(super) fn add_offsets(&mut self, sender: &Sender, group: &Arc<str>) -> Result<Reply, Code> {
        let transaction = self.open_transaction(sender)?;
        transaction.groups.insert(group.clone());
        Ok(Reply::Done)
    }

    /// Adding opens a transaction where none is: after a late `EndTxn` this splits one in two.
    fn open_transaction(&mut self, sender: &Sender) -> Result<&mut Transaction, Code> {
        let number = self.next_number();
        let now = self.now;
        let transaction = self.transaction_of(sender)?;
        match transaction.state {
            TransactionState::PrepareCommit | TransactionState::PrepareAbort => {
                return Err(Code::ConcurrentTransactions);
            }
            TransactionState::Ongoing => {}
            TransactionState::Empty
            | TransactionState::CompleteCommit
            | TransactionState::CompleteAbort => {
                transaction.state = TransactionState::Ongoing;
                transaction.number = number;
                transaction.deadline = Some(now + transaction.timeout);
                transaction.partitions.clear();
                transaction.groups.clear();
            }
        }
        Ok(transaction)
    }

    fn transaction_of(&mut self, sender: &Sender) -> Result<&mut Transaction, Code> {
        let transaction = self
            .transactions
            .get_mut(&sender.transactional_id)
            .ok_or(Code::InvalidProducerIdMapping)?;
        if !transaction.is_from(sender) {
            return Err(Code::InvalidProducerEpoch);
        }
        Ok(transaction)
    }

    pub(super) fn end_transaction(&mut self, sender: &Sender, commit: bool) -> Result<Reply, Code> {
        let transaction = self.transaction_of(sender)?;
        match (transaction.state, commit) {
            (TransactionState::Ongoing, _) => {
                self.prepare(&sender.transactional_id, commit);
                Ok(Reply::Done)
            }
            (TransactionState::CompleteCommit, true) | (TransactionState::CompleteAbort, false) => {
                Ok(Reply::Done)
            }
            (TransactionState::PrepareCommit, true) | (TransactionState::PrepareAbort, false) => {
                Err(Code::ConcurrentTransactions)
            }
            (TransactionState::CompleteCommit | TransactionState::PrepareCommit, false)
            | (TransactionState::CompleteAbort | TransactionState::PrepareAbort, true)
            | (TransactionState::Empty, _) => Err(Code::InvalidTxnState),
        }
    }

    /// The number of the ongoing transaction that the partition was added to.
    pub(super) fn verify_partition(
        &self,
        sender: &Sender,
        partition: &TopicPartition,
    ) -> Result<u64, Code> {
        self.verify(sender, |transaction| transaction.partitions.contains(partition))
    }

    /// The number of the ongoing transaction that the group was added to.
    pub(super) fn verify_group(&self, sender: &Sender, group: &Arc<str>) -> Result<u64, Code> {
        self.verify(sender, |transaction| transaction.groups.contains(group))
    }

    fn verify(
        &self,
        sender: &Sender,
        is_added: impl Fn(&Transaction) -> bool,
    ) -> Result<u64, Code> {
        let transaction = self
            .transactions
            .get(&sender.transactional_id)
            .ok_or(Code::InvalidProducerIdMapping)?;
        if !transaction.is_from(sender) {
            return Err(Code::InvalidProducerEpoch);
        }
        if transaction.state != TransactionState::Ongoing || !is_added(transaction) {
            return Err(Code::InvalidTxnState);
        }
        Ok(transaction.number)
    }

    /// The coordinator gives up an idle transaction. Its producer then looks fenced (KIP-588 is
    /// not in librdkafka).
    pub(super) fn time_out_transaction(&mut self, transactional_id: &Arc<str>) {
        if let Some(transaction) = self.transactions.get_mut(transactional_id) {
            transaction.epoch += 1;
            self.prepare(transactional_id, false);
        }
    }

    fn prepare(&mut self, transactional_id: &Arc<str>, commit: bool) {
        let delay = match self.faults.next(Call::WriteTxnMarkers) {
            Some(Fault::Delay(delay)) => delay,
            _ => Duration::ZERO,
        };
        if let Some(transaction) = self.transactions.get_mut(transactional_id) {
            transaction.deadline = None;
            transaction.state = if commit {
                TransactionState::PrepareCommit
            } else {
                TransactionState::PrepareAbort
            };
        }
        let at = self.now + self.config.marker_delay + delay;
        self.schedule(at, Event::WriteMarkers { transactional_id: transactional_id.clone() });
        self.changed();
    }

    pub(super) fn write_markers(&mut self, transactional_id: &Arc<str>) {
        let Some(transaction) = self.transactions.get_mut(transactional_id) else { return };
        let commit = transaction.state == TransactionState::PrepareCommit;
        transaction.state =
            if commit { TransactionState::CompleteCommit } else { TransactionState::CompleteAbort };
        let transaction = transaction.clone();
        for partition in &transaction.partitions {
            if let Some(log) = self.log_mut(partition) {
                log.write_marker(transaction.producer_id, transaction.epoch, commit);
            }
        }
        for group in &transaction.groups {
            self.decide_offsets(group, &transaction, commit);
        }
        self.outcomes.insert(transaction.number, commit);
        self.changed();
    }
}
