//! An independent view of topics and groups, and a fast loader.
//!
//! Nothing here shares code with the library under test: the reader assigns partitions by itself,
//! joins no group, and asks the broker how far a `read_committed` reader may see.

mod load;

pub use load::{LoadRecord, load};

use std::collections::BTreeMap;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use thiserror::Error;

const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// Which records a reader sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    /// Those of committed transactions, up to the last stable offset (`read_committed`).
    Committed,
    /// All, those of aborted and open transactions included (`read_uncommitted`).
    Uncommitted,
}

impl Isolation {
    fn level(self) -> &'static str {
        match self {
            Self::Committed => "read_committed",
            Self::Uncommitted => "read_uncommitted",
        }
    }
}

/// A record as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnedRecord {
    /// Its partition.
    pub partition: u32,
    /// Its offset.
    pub offset: u64,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its value; `None` is a tombstone.
    pub value: Option<Vec<u8>>,
    /// Its headers, in order.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    /// Milliseconds since the epoch.
    pub timestamp: Option<i64>,
}

impl From<&BorrowedMessage<'_>> for OwnedRecord {
    fn from(message: &BorrowedMessage<'_>) -> Self {
        let headers = message.headers().into_iter().flat_map(|headers| headers.iter());
        Self {
            partition: message.partition().unsigned_abs(),
            offset: message.offset().unsigned_abs(),
            key: message.key().map(<[u8]>::to_vec),
            value: message.payload().map(<[u8]>::to_vec),
            headers: headers
                .map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec)))
                .collect(),
            timestamp: message.timestamp().to_millis(),
        }
    }
}

/// A topic could not be read, a group not be asked, or records not be loaded.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ReaderError {
    /// A call to Kafka failed.
    #[error("{call} {subject} failed")]
    Kafka {
        /// What was tried.
        call: &'static str,
        /// With which topic or group.
        subject: String,
        /// Why it failed.
        #[source]
        source: KafkaError,
    },
    /// The topic does not exist.
    #[error("topic {topic} does not exist; create it first")]
    UnknownTopic {
        /// Its name.
        topic: String,
    },
    /// The time ran out.
    #[error(
        "reading {topic} did not end within {timeout:?}; left: {left:?}; last fault: {fault:?}"
    )]
    ReadTimeout {
        /// The topic.
        topic: String,
        /// How long it might take.
        timeout: Duration,
        /// The partitions that were not read to their end, and their ends.
        left: BTreeMap<i32, i64>,
        /// What librdkafka said last.
        fault: Option<Box<KafkaError>>,
    },
    /// The time ran out.
    #[error("{acknowledged} of {total} records were acknowledged by {topic} within {timeout:?}")]
    LoadTimeout {
        /// The topic.
        topic: String,
        /// How many were.
        acknowledged: u64,
        /// How many should have been.
        total: u64,
        /// How long it might take.
        timeout: Duration,
    },
}

impl ReaderError {
    fn kafka(call: &'static str, subject: &str) -> impl FnOnce(KafkaError) -> Self {
        move |source| Self::Kafka { call, subject: subject.to_owned(), source }
    }
}

/// Reads a topic from its start to the end it has now.
///
/// # Errors
/// The topic does not exist, the broker cannot be reached, or it takes longer than `timeout`.
pub fn read_all(
    bootstrap: &str,
    topic: &str,
    isolation: Isolation,
    timeout: Duration,
) -> Result<Vec<OwnedRecord>, ReaderError> {
    let mut records = Vec::new();
    for_each(bootstrap, topic, isolation, timeout, |message| records.push(message.into()))?;
    records.sort_by_key(|record: &OwnedRecord| (record.partition, record.offset));
    Ok(records)
}

/// Hands every record of a topic, from its start to the end it has now, to `read`, and returns
/// their number. Records of one partition come in order.
///
/// # Errors
/// As [`read_all`].
pub fn for_each(
    bootstrap: &str,
    topic: &str,
    isolation: Isolation,
    timeout: Duration,
    mut read: impl FnMut(&BorrowedMessage<'_>),
) -> Result<u64, ReaderError> {
    let deadline = Instant::now() + timeout;
    let consumer = consumer(bootstrap, "countersign-reader", isolation)?;
    let mut left = assign(&consumer, topic, timeout)?;
    let mut count = 0;
    let mut fault = None;
    while !left.is_empty() {
        match consumer.poll(POLL_INTERVAL) {
            Some(Ok(message)) => {
                let (partition, offset) = (message.partition(), message.offset());
                let Some(&end) = left.get(&partition) else { continue };
                if offset < end {
                    read(&message);
                    count += 1;
                }
                if offset + 1 >= end {
                    left.remove(&partition);
                }
            }
            // The end of the log may be a control record, which is never delivered.
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                left.remove(&partition);
            }
            Some(Err(
                source @ KafkaError::MessageConsumption(RDKafkaErrorCode::AutoOffsetReset),
            )) => return Err(ReaderError::kafka("reading", topic)(source)),
            Some(Err(other)) => fault = Some(Box::new(other)),
            None => {}
        }
        if Instant::now() >= deadline && !left.is_empty() {
            return Err(ReaderError::ReadTimeout { topic: topic.to_owned(), timeout, left, fault });
        }
    }
    Ok(count)
}

fn consumer(
    bootstrap: &str,
    group: &str,
    isolation: Isolation,
) -> Result<BaseConsumer, ReaderError> {
    ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        // Required by the client; nothing joins or commits.
        .set("group.id", group)
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("enable.partition.eof", "true")
        .set("isolation.level", isolation.level())
        .set("auto.offset.reset", "error")
        .set("fetch.wait.max.ms", "50")
        .set("reconnect.backoff.max.ms", "500")
        .create()
        .map_err(ReaderError::kafka("creating a consumer for", bootstrap))
}

fn partitions(
    consumer: &BaseConsumer,
    topic: &str,
    timeout: Duration,
) -> Result<Vec<i32>, ReaderError> {
    let metadata = consumer
        .fetch_metadata(Some(topic), timeout)
        .map_err(ReaderError::kafka("describing", topic))?;
    let found = metadata.topics().iter().find(|found| found.name() == topic);
    match found {
        Some(found) if found.error().is_none() && !found.partitions().is_empty() => {
            Ok(found.partitions().iter().map(rdkafka::metadata::MetadataPartition::id).collect())
        }
        Some(_) | None => Err(ReaderError::UnknownTopic { topic: topic.to_owned() }),
    }
}

/// Assigns what has records and returns the ends: with `read_committed` the last stable offsets.
fn assign(
    consumer: &BaseConsumer,
    topic: &str,
    timeout: Duration,
) -> Result<BTreeMap<i32, i64>, ReaderError> {
    let mut ends = BTreeMap::new();
    let mut assignment = TopicPartitionList::new();
    for partition in partitions(consumer, topic, timeout)? {
        let (start, end) = consumer
            .fetch_watermarks(topic, partition, timeout)
            .map_err(ReaderError::kafka("asking for the end of", topic))?;
        if start < end {
            assignment
                .add_partition_offset(topic, partition, Offset::Offset(start))
                .map_err(ReaderError::kafka("assigning", topic))?;
            ends.insert(partition, end);
        }
    }
    consumer.assign(&assignment).map_err(ReaderError::kafka("assigning", topic))?;
    Ok(ends)
}

/// The group's committed offsets of a topic with their metadata, by partition; waits for pending
/// ones to be decided. A partition without one is left out.
///
/// # Errors
/// The topic does not exist, or an open transaction holds an offset pending longer than `timeout`.
pub fn committed_offsets(
    bootstrap: &str,
    group: &str,
    topic: &str,
    timeout: Duration,
) -> Result<BTreeMap<u32, (u64, String)>, ReaderError> {
    let consumer = consumer(bootstrap, group, Isolation::Committed)?;
    let mut asked = TopicPartitionList::new();
    for partition in partitions(&consumer, topic, timeout)? {
        asked.add_partition(topic, partition);
    }
    let deadline = Instant::now() + timeout;
    let answered = loop {
        match consumer.committed_offsets(asked.clone(), timeout) {
            Err(error) if is_moving(&error) && Instant::now() < deadline => sleep(POLL_INTERVAL),
            answer => break answer,
        }
    };
    let answered = answered.map_err(ReaderError::kafka("asking for the offsets of", group))?;
    let mut offsets = BTreeMap::new();
    for element in answered.elements() {
        element.error().map_err(ReaderError::kafka("asking for the offsets of", group))?;
        if let Offset::Offset(offset) = element.offset() {
            let metadata = element.metadata().to_owned();
            offsets.insert(element.partition().unsigned_abs(), (offset.unsigned_abs(), metadata));
        }
    }
    Ok(offsets)
}

/// Whether the group's coordinator is being created or is moving: a broker that has just started
/// answers so for a moment.
fn is_moving(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::NotCoordinator
                | RDKafkaErrorCode::CoordinatorLoadInProgress
                | RDKafkaErrorCode::CoordinatorNotAvailable
        )
    )
}
