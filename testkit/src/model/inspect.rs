//! What a test does from outside: topics, plain records, hooks, and a look at everything.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use countersign::kafka::{Committed, Output, TopicPartition};

use super::cluster::{State, Topic};
use super::log::{Isolation, Log, ModelRecord};
use super::offsets::CommitRecord;
use super::transactions::TransactionState;
use super::{ModelKafka, Writer};

/// A transaction that is not ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenTransaction {
    /// The transactional id.
    pub transactional_id: Arc<str>,
    /// The cluster's number of the transaction.
    pub number: u64,
    /// Ongoing, or ending.
    pub state: TransactionState,
}

impl ModelKafka {
    /// Creates a topic; under the name of a deleted one it is another topic.
    ///
    /// # Panics
    /// If the topic exists.
    pub fn create_topic(&self, name: &str, partitions: u32) {
        self.create_topic_with(name, partitions, 1_048_588);
    }

    /// Creates a topic with its own `max.message.bytes`.
    ///
    /// # Panics
    /// If the topic exists.
    pub fn create_topic_with(&self, name: &str, partitions: u32, max_message_bytes: usize) {
        self.with(|state| {
            let number = state.next_number();
            let mut id = [0xC5; 16];
            id[8..].copy_from_slice(&number.to_be_bytes());
            let logs = (0..partitions).map(|_| Log::default()).collect();
            let is_compacted = false;
            let topic = Topic { id, max_message_bytes, is_compacted, logs };
            let former = state.topics.insert(Arc::from(name), topic);
            assert!(former.is_none(), "topic {name} exists");
            state.rebalance_subscribers(name);
        });
    }

    /// Changes a topic's `max.message.bytes`.
    pub fn set_max_message_bytes(&self, name: &str, max_message_bytes: usize) {
        self.with(|state| {
            if let Some(topic) = state.topics.get_mut(name) {
                topic.max_message_bytes = max_message_bytes;
            }
        });
    }

    /// Compacts a topic from now on: it takes no records without a key, and keeps all others.
    pub fn compact(&self, name: &str) {
        self.with(|state| {
            if let Some(topic) = state.topics.get_mut(name) {
                topic.is_compacted = true;
            }
        });
    }

    /// Adds partitions to a topic.
    pub fn add_partitions(&self, name: &str, partitions: u32) {
        self.with(|state| {
            if let Some(topic) = state.topics.get_mut(name) {
                topic.logs.extend((0..partitions).map(|_| Log::default()));
            }
            state.rebalance_subscribers(name);
        });
    }

    /// The last replica of a partition goes away.
    pub fn lose_leader(&self, topic: &str, partition: u32) {
        self.with(|state| {
            state.leaderless.insert(TopicPartition::new(topic, partition));
            state.changed();
        });
    }

    /// It comes back, with everything that it had.
    pub fn elect_leader(&self, topic: &str, partition: u32) {
        self.with(|state| {
            state.leaderless.remove(&TopicPartition::new(topic, partition));
            state.changed();
        });
    }

    /// Deletes a topic. Committed offsets stay, for they go by name.
    pub fn delete_topic(&self, name: &str) {
        self.with(|state| {
            state.topics.remove(name);
            state.changed();
        });
    }

    /// Writes a record outside any transaction and returns its offset.
    ///
    /// # Panics
    /// If the partition does not exist.
    pub fn append(&self, topic: &str, partition: u32, key: Option<&[u8]>, value: &[u8]) -> u64 {
        self.append_output(&Output {
            topic: Arc::from(topic),
            partition,
            key: key.map(Bytes::copy_from_slice),
            value: Some(Bytes::copy_from_slice(value)),
            headers: Vec::new(),
            timestamp: None,
        })
    }

    /// Writes a record with headers and timestamp outside any transaction.
    ///
    /// # Panics
    /// If the partition does not exist.
    pub fn append_output(&self, output: &Output) -> u64 {
        self.write(output, None)
    }

    /// Writes records as an aborted transaction of a foreign producer.
    ///
    /// # Panics
    /// If the partition does not exist.
    pub fn append_aborted(&self, topic: &str, partition: u32, values: &[&[u8]]) {
        self.append_transaction(topic, partition, values, false);
    }

    /// Writes records as a transaction of a foreign producer and returns the first one's offset.
    ///
    /// # Panics
    /// If the partition does not exist.
    pub fn append_committed(&self, topic: &str, partition: u32, values: &[&[u8]]) -> u64 {
        self.append_transaction(topic, partition, values, true)
    }

    fn append_transaction(
        &self,
        topic: &str,
        partition: u32,
        values: &[&[u8]],
        commit: bool,
    ) -> u64 {
        let first = self.high_watermark(topic, partition);
        let transaction = self.with(State::next_number);
        let writer = Writer { producer_id: transaction, epoch: 0, transaction };
        for value in values {
            let output = Output {
                topic: Arc::from(topic),
                partition,
                key: None,
                value: Some(Bytes::copy_from_slice(value)),
                headers: Vec::new(),
                timestamp: None,
            };
            self.write(&output, Some(writer));
        }
        self.with(|state| {
            state.outcomes.insert(transaction, commit);
            if let Some(log) = state.log_mut(&TopicPartition::new(topic, partition)) {
                log.write_marker(writer.producer_id, writer.epoch, commit);
            }
            state.changed();
        });
        first
    }

    fn write(&self, output: &Output, writer: Option<Writer>) -> u64 {
        let partition = TopicPartition::new(output.topic.clone(), output.partition);
        self.with(|state| {
            let now_ms = state.now_ms();
            state.changed();
            let log = state.log_mut(&partition).expect("the test made the topic");
            log.append(output, writer, now_ms);
            log.end() - 1
        })
    }

    /// Removes a partition's records below `offset`, as retention does.
    pub fn truncate(&self, topic: &str, partition: u32, offset: u64) {
        self.with(|state| {
            if let Some(log) = state.log_mut(&TopicPartition::new(topic, partition)) {
                log.truncate(offset);
            }
            state.changed();
        });
    }

    /// The records of a partition; of one that does not exist, none.
    pub fn records(&self, topic: &str, partition: u32, isolation: Isolation) -> Vec<ModelRecord> {
        self.with(|state| {
            let topic = state.topics.get(topic);
            let log = topic.and_then(|topic| topic.log(partition));
            log.map(|log| log.records(isolation).cloned().collect()).unwrap_or_default()
        })
    }

    /// The end of a partition's log, control records included.
    pub fn high_watermark(&self, topic: &str, partition: u32) -> u64 {
        let partition = TopicPartition::new(topic, partition);
        self.with(|state| state.log_mut(&partition).map_or(0, |log| log.end()))
    }

    /// A group's committed offset, without waiting for pending ones.
    pub fn committed(&self, group: &str, partition: &TopicPartition) -> Option<Committed> {
        self.with(|state| state.groups.get(group)?.offsets.committed.get(partition).cloned())
    }

    /// Every committed offset of a partition, in the order in which they became visible.
    pub fn commit_history(&self, group: &str, partition: &TopicPartition) -> Vec<CommitRecord> {
        self.with(|state| {
            let group = state.groups.get(group);
            let history = group.and_then(|group| group.offsets.history.get(partition));
            history.cloned().unwrap_or_default()
        })
    }

    /// Moves a group's offset from outside, as an operator's tool does.
    pub fn set_committed(&self, group: &str, partition: &TopicPartition, committed: Committed) {
        self.put_committed(group, partition, Some(committed));
    }

    /// Removes a group's offset, as `offsets.retention.minutes` does.
    pub fn expire_offset(&self, group: &str, partition: &TopicPartition) {
        self.put_committed(group, partition, None);
    }

    fn put_committed(&self, group: &str, partition: &TopicPartition, to: Option<Committed>) {
        self.with(|state| {
            let now = state.now;
            state.group(&Arc::from(group)).offsets.set(partition.clone(), to, now);
            state.changed();
        });
    }

    /// Transactions that are ongoing or ending.
    pub fn open_transactions(&self) -> Vec<OpenTransaction> {
        self.with(|state| {
            let open = state.transactions.iter().filter(|(_, transaction)| {
                matches!(
                    transaction.state,
                    TransactionState::Ongoing
                        | TransactionState::PrepareCommit
                        | TransactionState::PrepareAbort
                )
            });
            let describe = |(id, transaction): (&Arc<str>, &super::transactions::Transaction)| {
                OpenTransaction {
                    transactional_id: id.clone(),
                    number: transaction.number,
                    state: transaction.state,
                }
            };
            open.map(describe).collect()
        })
    }

    /// The transaction that a record belongs to, by the cluster's number.
    pub fn transaction_of(&self, topic: &str, partition: u32, offset: u64) -> Option<u64> {
        let records = self.records(topic, partition, Isolation::ReadUncommitted);
        let record = records.into_iter().find(|record| record.offset == offset)?;
        record.writer.map(|writer| writer.transaction)
    }

    /// Whether a transaction was committed; `None` while it is open.
    pub fn is_committed(&self, transaction: u64) -> Option<bool> {
        self.with(|state| state.outcomes.get(&transaction).copied())
    }

    /// A group's generation and the number of its members.
    pub fn group_state(&self, group: &str) -> Option<(i32, usize)> {
        self.with(|state| {
            let group = state.groups.get(group)?;
            Some((group.generation, group.memberships.len()))
        })
    }
}

impl State {
    fn rebalance_subscribers(&mut self, topic: &str) {
        let subscribed: BTreeSet<_> = self
            .members
            .values()
            .filter(|member| member.member_id.is_some())
            .filter(|member| member.topics.iter().any(|name| &**name == topic))
            .map(|member| member.group.clone())
            .collect();
        for group in subscribed {
            self.start_rebalance(&group);
        }
        self.changed();
    }

    pub(super) fn crash(&mut self, client: u64) {
        if let Some(client) = self.clients.get_mut(&client) {
            client.is_crashed = true;
        }
        self.producers
            .values_mut()
            .filter(|producer| producer.client() == client)
            .for_each(super::producer_state::ProducerState::crash);
        for handle in self.members_of(client) {
            self.stop_heart_beats(handle);
        }
        self.changed();
    }

    pub(super) fn set_frozen(&mut self, client: u64, is_frozen: bool) {
        if let Some(client) = self.clients.get_mut(&client) {
            client.is_frozen = is_frozen;
        }
        if !is_frozen {
            self.resume_delivery(client);
        }
        for handle in self.members_of(client) {
            if is_frozen {
                self.stop_heart_beats(handle);
            } else {
                self.restart_heart_beats(handle);
            }
        }
        self.changed();
    }

    fn members_of(&self, client: u64) -> Vec<u64> {
        let members = self.members.iter().filter(|(_, member)| member.client == client);
        members.map(|(handle, _)| *handle).collect()
    }
}
