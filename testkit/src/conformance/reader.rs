//! A consumer that answers rebalances and remembers what it saw.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use countersign::kafka::{
    Consumer, ErrorKind, Kafka, KafkaError, PollLimit, Polled, TopicPartition,
};
use tokio::time::Instant;

use super::{ClientSpec, Cluster, DEADLINE};

const POLL: Duration = Duration::from_millis(100);

/// A consumer with a memory.
#[derive(Debug)]
pub struct Reader<C> {
    /// The consumer.
    pub consumer: C,
    /// Values read, by partition, in order.
    pub values: BTreeMap<TopicPartition, Vec<String>>,
    /// The last end reported of each partition.
    pub ends: BTreeMap<TopicPartition, u64>,
    /// Partitions that are assigned.
    pub owned: BTreeSet<TopicPartition>,
    /// A revocation that is not answered.
    pub revoked: Option<Vec<TopicPartition>>,
    /// A loss that is not answered.
    pub lost: Option<Vec<TopicPartition>>,
    /// Partitions whose position is not in the log.
    pub out_of_range: BTreeSet<TopicPartition>,
    /// Kinds of passing faults.
    pub faults: Vec<ErrorKind>,
    /// What ended the consumer.
    pub error: Option<KafkaError>,
    /// Where to start reading; elsewhere at 0.
    pub starts: BTreeMap<TopicPartition, u64>,
    /// Partitions that are assigned without being read.
    pub later: BTreeSet<TopicPartition>,
    /// How much one poll takes.
    pub limit: PollLimit,
    /// Whether to join once more after the next assignment.
    pub rejoins: bool,
}

impl<C: Consumer> Reader<C> {
    /// Wraps a consumer.
    pub fn new(consumer: C) -> Self {
        Self {
            consumer,
            values: BTreeMap::new(),
            ends: BTreeMap::new(),
            owned: BTreeSet::new(),
            revoked: None,
            lost: None,
            out_of_range: BTreeSet::new(),
            faults: Vec::new(),
            error: None,
            starts: BTreeMap::new(),
            later: BTreeSet::new(),
            limit: PollLimit { records: 1000, bytes: 1 << 20 },
            rejoins: false,
        }
    }

    /// Polls once; assignments are taken, revocations and losses are left to the test.
    pub async fn poll(&mut self) {
        let mut polled = Vec::new();
        if let Err(error) = self.consumer.poll(POLL, self.limit, &mut polled).await {
            self.error = Some(error);
        }
        for polled in polled {
            self.handle(polled);
        }
    }

    fn handle(&mut self, polled: Polled) {
        match polled {
            Polled::Records(batch) => {
                let values = self.values.entry(batch.partition().clone()).or_default();
                let records = (0..batch.len()).filter_map(|index| batch.record(index));
                values.extend(records.map(|record| {
                    String::from_utf8_lossy(record.value().unwrap_or_default()).into_owned()
                }));
            }
            Polled::End { partition, offset } => {
                self.ends.insert(partition, offset);
            }
            Polled::Assign(partitions) => self.assign(&partitions),
            Polled::Revoke(partitions) => self.revoked = Some(partitions),
            Polled::Lost(partitions) => self.lost = Some(partitions),
            Polled::OutOfRange(partition) => {
                self.out_of_range.insert(partition);
            }
            Polled::Fault(error) | Polled::Refused { error, .. } => self.faults.push(error.kind),
        }
    }

    fn assign(&mut self, partitions: &[TopicPartition]) {
        if std::mem::take(&mut self.rejoins) {
            self.consumer.rejoin().expect("an assignment waits");
        }
        let start = |p: &TopicPartition| {
            let offset = self.starts.get(p).copied().unwrap_or(0);
            (p.clone(), (!self.later.contains(p)).then_some(offset))
        };
        let starts: Vec<_> = partitions.iter().map(start).collect();
        self.consumer.assign(&starts).expect("the offer is answered");
        self.owned.extend(partitions.iter().cloned());
    }

    /// Answers a revocation or a loss.
    pub fn give_back(&mut self) {
        for partitions in self.revoked.take().into_iter().chain(self.lost.take()) {
            self.consumer.unassign(&partitions).expect("the offer is answered");
            self.owned.retain(|partition| !partitions.contains(partition));
        }
    }

    /// Polls until the condition holds.
    pub async fn until(&mut self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + DEADLINE;
        while !is_so(self) {
            assert!(Instant::now() < deadline, "in time: {what}");
            self.poll().await;
        }
    }

    /// Polls for a while during which the condition must not come true.
    pub async fn never(&mut self, duration: Duration, what: &str, is_so: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + duration;
        while Instant::now() < deadline {
            self.poll().await;
            assert!(!is_so(self), "not now: {what}");
        }
    }

    /// The values of one partition.
    pub fn of(&self, topic: &str, partition: u32) -> Vec<&str> {
        let values = self.values.get(&TopicPartition::new(topic, partition));
        values.into_iter().flatten().map(String::as_str).collect()
    }
}

/// A member that has partitions.
pub(super) async fn joined<C: Cluster>(
    cluster: &C,
    spec: &ClientSpec,
) -> Reader<<C::Kafka as Kafka>::Consumer> {
    let consumer = cluster.client(spec).consumer(0).expect("valid settings");
    let mut reader = Reader::new(consumer);
    reader.until("partitions are assigned", |reader| !reader.owned.is_empty()).await;
    reader
}
