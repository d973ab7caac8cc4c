//! The seam to Kafka: what the processor needs of a cluster, as four small traits.
//!
//! Two things implement it: [`librdkafka`] for a real cluster, and the
//! model Kafka of the test kit. The same conformance tests run against both.
//!
//! Who owns what: one thread polls the [`Consumer`], one thread per slot drives a [`Producer`],
//! one thread asks the [`Admin`]. Methods that wait are `async`, so that the model can let virtual
//! time pass in them; the real implementation blocks its own thread instead of yielding.

mod admin;
mod batch;
mod error;
#[cfg(test)]
mod fake;
pub mod librdkafka;
mod size;

pub use admin::{Admin, Committed, Each, LogRange, Member, Members, Topic, of_all};
pub use batch::{Batch, BatchBuilder, Header, Record};
pub use error::{ErrorKind, KafkaError};
#[cfg(test)]
pub(crate) use fake::FakeAdmin;
pub use size::{DEFAULT_BATCH_BYTES, Sizes, batch_bytes};

use std::fmt;
use std::future::Future;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

/// One partition of one topic.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicPartition {
    /// The topic's name.
    pub topic: Arc<str>,
    /// The partition's number, from 0.
    pub partition: u32,
}

impl TopicPartition {
    /// Names a partition.
    pub fn new(topic: impl Into<Arc<str>>, partition: u32) -> Self {
        Self { topic: topic.into(), partition }
    }

    /// Names the partitions of a topic that has `count` of them, in order.
    pub fn all_of(topic: Arc<str>, count: u32) -> impl Iterator<Item = Self> {
        (0..count).map(move |partition| Self { topic: Arc::clone(&topic), partition })
    }
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.partition)
    }
}

/// A cluster, from which clients are made.
///
/// `consumer` and `producer` create a client and return at once; nothing is known of the cluster
/// until one of them is used.
pub trait Kafka: Send + Sync + 'static {
    /// The group member of one worker.
    type Consumer: Consumer<Group = Self::Group>;
    /// A transactional producer.
    type Producer: Producer<Group = Self::Group>;
    /// Questions that need neither membership nor a transaction.
    type Admin: Admin;
    /// Tells the group's current generation and member id.
    type Group: Group;

    /// Creates the consumer of worker `worker` and subscribes it to the input topics.
    ///
    /// # Errors
    /// Settings that librdkafka refuses.
    fn consumer(&self, worker: u32) -> Result<Self::Consumer, KafkaError>;

    /// Creates a producer with this transactional id, whose batches are not larger than `sizes`;
    /// [`Producer::init`] must follow.
    ///
    /// # Errors
    /// Settings that librdkafka refuses.
    fn producer(&self, transactional_id: &str, sizes: Sizes) -> Result<Self::Producer, KafkaError>;

    /// Creates a client for questions about the group and the topics.
    ///
    /// # Errors
    /// Settings that librdkafka refuses.
    fn admin(&self) -> Result<Self::Admin, KafkaError>;
}

/// A member of the consumer group, polled by one thread.
///
/// A rebalance is an answer of [`poll`](Consumer::poll) and is ended by the caller: `Assign` with
/// [`assign`](Consumer::assign), `Revoke` and `Lost` with [`unassign`](Consumer::unassign). Until
/// then the member does not rejoin, so that no other member can be given the partitions of a
/// `Revoke`, and polling goes on meanwhile.
pub trait Consumer: Send + 'static {
    /// Tells generation and member id to the producers.
    type Group: Group;

    /// Waits at most `wait` for something to happen and appends what did to `polled`.
    ///
    /// Takes no more than `limit` records. A repeated offset may be delivered after an incremental
    /// assignment; the caller ignores it.
    ///
    /// # Errors
    /// Only what ends this consumer; passing faults arrive as [`Polled::Fault`], and what may be
    /// allowed later as [`Polled::Refused`].
    fn poll(
        &mut self,
        wait: Duration,
        limit: PollLimit,
        polled: &mut Vec<Polled>,
    ) -> impl Future<Output = Result<(), KafkaError>> + Send;

    /// Ends an `Assign`: fetching starts at the given offsets. Must name all of its partitions. One
    /// without an offset is owned, and not fetched before [`start`](Consumer::start) tells where.
    ///
    /// # Errors
    /// The consumer is fatally failed or was given partitions that it was not offered.
    fn assign(&mut self, starts: &[(TopicPartition, Option<u64>)]) -> Result<(), KafkaError>;

    /// Begins to fetch partitions that were assigned without an offset, at the given ones.
    ///
    /// # Errors
    /// A partition is not assigned.
    fn start(&mut self, starts: &[(TopicPartition, u64)]) -> Result<(), KafkaError>;

    /// Ends a `Revoke` or `Lost`. Must name all of its partitions.
    ///
    /// # Errors
    /// The consumer is fatally failed.
    fn unassign(&mut self, partitions: &[TopicPartition]) -> Result<(), KafkaError>;

    /// Joins the group once more as soon as the `Assign` that waits is answered, with what is owned
    /// by then: the group gives out what nobody owns. For a cooperative member, and only while an
    /// `Assign` waits.
    ///
    /// A static member that died while it gave partitions back needs it. It owed the group a second
    /// rebalance; its successor takes its place without any (KIP-345), and what was given back
    /// would be nobody's for as long as the group is stable.
    ///
    /// # Errors
    /// The consumer is fatally failed, or no `Assign` waits.
    fn rejoin(&mut self) -> Result<(), KafkaError>;

    /// Stops fetching; records already fetched and not polled are fetched again on resumption. For
    /// assigned partitions only.
    ///
    /// # Errors
    /// A partition is not known; one that is known and not assigned may go unnoticed.
    fn pause(&mut self, partitions: &[TopicPartition]) -> Result<(), KafkaError>;

    /// Goes on fetching after [`pause`](Consumer::pause).
    ///
    /// # Errors
    /// A partition is not assigned.
    fn resume(&mut self, partitions: &[TopicPartition]) -> Result<(), KafkaError>;

    /// Goes on reading an assigned partition at this offset: nothing that was fetched before comes
    /// from the next poll on. If it is paused, from its resumption on.
    ///
    /// # Errors
    /// The partition is not assigned.
    fn seek(&mut self, partition: &TopicPartition, offset: u64) -> Result<(), KafkaError>;

    /// Starts leaving the group: a `Revoke` of everything owned follows from `poll`.
    ///
    /// # Errors
    /// The consumer is fatally failed.
    fn unsubscribe(&mut self) -> Result<(), KafkaError>;

    /// A handle by which producers ask for the group metadata.
    fn group(&self) -> Self::Group;

    /// A function that makes a waiting [`poll`](Consumer::poll) return early, from any thread.
    fn waker(&self) -> Waker;
}

/// Makes a waiting poll return early.
pub type Waker = Arc<dyn Fn() + Send + Sync>;

/// How much one poll may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PollLimit {
    /// Records.
    pub records: usize,
    /// Bytes of keys, values and headers; the last record may exceed it.
    pub bytes: usize,
}

/// What a poll brought.
#[derive(Debug)]
pub enum Polled {
    /// Records of one partition, in offset order.
    Records(Batch),
    /// The read position reached the last stable offset; `offset` lies beyond control records and
    /// aborted records.
    End {
        /// Which partition.
        partition: TopicPartition,
        /// The next offset to be fetched.
        offset: u64,
    },
    /// The group gives these partitions to this member, in addition to those it has.
    Assign(Vec<TopicPartition>),
    /// The group takes these partitions back; the member still owns them.
    Revoke(Vec<TopicPartition>),
    /// These partitions may already have another owner.
    Lost(Vec<TopicPartition>),
    /// The input position of a partition is no longer in the log.
    OutOfRange(TopicPartition),
    /// A passing fault, for the log and the connection state.
    Fault(KafkaError),
    /// The member is refused for good: to read this partition, or to be in the group. It goes on
    /// trying. A partition that is paused and resumed is told of again, if it is still so.
    Refused {
        /// Which partition it may not read; `None`: it is about the group.
        partition: Option<TopicPartition>,
        /// Why; it names the right or the setting.
        error: KafkaError,
    },
}

/// Tells the group's current metadata (KIP-447).
pub trait Group: Clone + Send + Sync + 'static {
    /// The generation (or member epoch) that the member is in; `None` while it is in none.
    ///
    /// A transaction that is sent without one is not fenced by the broker at all, so that
    /// implementations of [`Producer::send_offsets`] refuse to.
    fn generation(&self) -> Option<i32>;
}

/// One record to be produced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// The topic to write to.
    pub topic: Arc<str>,
    /// The partition to write to; decided before it is sent.
    pub partition: u32,
    /// The record's key.
    pub key: Option<Bytes>,
    /// The record's value; `None` is a tombstone.
    pub value: Option<Bytes>,
    /// The record's headers, in order.
    pub headers: Vec<Header>,
    /// Milliseconds since the epoch; `None` lets the producer set the time of sending.
    pub timestamp: Option<i64>,
}

/// An offset to be committed within a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitOffset {
    /// Which input partition.
    pub partition: TopicPartition,
    /// The next offset to consume.
    pub offset: u64,
    /// The commit's metadata.
    pub metadata: String,
}

/// An output that a producer did not take.
#[derive(Debug, thiserror::Error)]
#[error("output {index}: {error}")]
pub struct Unsent {
    /// Which one it is; all before it are taken.
    pub index: usize,
    /// Why.
    #[source]
    pub error: KafkaError,
}

/// Outputs that Kafka refused, as numbers: the first output that [`Producer::send`] took since
/// [`Producer::begin`] is 0, the next one 1.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Refused {
    /// Each of these is to blame.
    pub named: Vec<u64>,
    /// At least one of these is to blame; which, Kafka does not say.
    pub among: Vec<u64>,
}

/// A transactional producer, driven by one thread.
///
/// Calls follow librdkafka's transactional API (`rdkafka.h`, "Transactional producer API").
/// Every method that waits returns by its timeout.
pub trait Producer: Send + 'static {
    /// The group handle of the matching consumer.
    type Group: Group;

    /// Registers the transactional id: fences its other producers and ends their transaction.
    fn init(&mut self, timeout: Duration) -> impl Future<Output = Result<(), KafkaError>> + Send;

    /// Begins a transaction; local.
    ///
    /// # Errors
    /// The producer is in no state for it.
    fn begin(&mut self) -> Result<(), KafkaError>;

    /// Hands some of the outputs over for sending, in their order. The producer may keep them until
    /// they are flushed, so that it need not copy them. `mark` becomes the value of the provenance
    /// header of each and replaces one that it carries.
    ///
    /// # Errors
    /// Of the first that was not taken. [`ErrorKind::QueueFull`]: none behind it is taken either;
    /// wait with [`flush`](Producer::flush) and send them again. Others: the record is *not* part
    /// of the transaction, although a commit would succeed, and those behind it may be.
    ///
    /// # Panics
    /// There are no such outputs.
    fn send(
        &mut self,
        outputs: &Arc<Vec<Output>>,
        which: Range<usize>,
        mark: Option<&[u8]>,
    ) -> Result<(), Unsent>;

    /// Hands a single record over.
    ///
    /// # Errors
    /// See [`send`](Producer::send).
    fn send_one(&mut self, output: Output, mark: Option<&[u8]>) -> Result<(), KafkaError> {
        self.send(&Arc::new(vec![output]), 0..1, mark).map_err(|unsent| unsent.error)
    }

    /// Waits until at most `in_flight` records are without a delivery report.
    ///
    /// # Errors
    /// The first failed delivery report of this transaction, or a timeout.
    fn flush(
        &mut self,
        in_flight: usize,
        timeout: Duration,
    ) -> impl Future<Output = Result<(), KafkaError>> + Send;

    /// Which outputs of this transaction delivery reports have told to be refused for what they
    /// are, and not for how Kafka is.
    fn refused(&self) -> Refused;

    /// Adds consumed offsets to the transaction, with the group metadata of this moment.
    fn send_offsets(
        &mut self,
        offsets: &[CommitOffset],
        group: &Self::Group,
        timeout: Duration,
    ) -> impl Future<Output = Result<(), KafkaError>> + Send;

    /// Commits. All records must have been flushed.
    fn commit(&mut self, timeout: Duration) -> impl Future<Output = Result<(), KafkaError>> + Send;

    /// Aborts.
    fn abort(&mut self, timeout: Duration) -> impl Future<Output = Result<(), KafkaError>> + Send;
}
