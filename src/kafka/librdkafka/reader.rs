//! Reads a topic from its start to its end, without a group: for people who look at it.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use countersign_statemachine::Disposition;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError as BindingError, RDKafkaErrorCode as Code};
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};

use super::classify::classify_binding;
use super::config::ClusterConfig;
use super::context::Context;
use super::lists::list;
use super::ranges::log_ranges;
use super::settings;
use crate::kafka::{BatchBuilder, ErrorKind, KafkaError, LogRange, Record, TopicPartition, of_all};

/// How long one wait for records is.
const POLL: Duration = Duration::from_millis(100);

/// Where reading begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReadFrom {
    /// At the first record of every partition of this topic that still exists.
    Start(String),
    /// At one offset of one partition, which alone is read.
    Offset(TopicPartition, u64),
}

/// Hands the records of a topic to `visit`, as a `read_committed` reader sees them, up to the end
/// that each partition has now; stops early if it says so. Partitions come interleaved, each in
/// order. No offset is committed and no group is joined.
///
/// # Errors
/// The topic does not exist, or nothing is heard of Kafka for `patience`.
pub fn read_topic<B>(
    config: &ClusterConfig,
    from: &ReadFrom,
    patience: Duration,
    mut visit: impl FnMut(&Record) -> ControlFlow<B>,
) -> Result<Option<B>, KafkaError> {
    let mut settings = settings::admin(config);
    settings.set("enable.partition.eof", "true");
    let consumer: BaseConsumer<Context> = BaseConsumer::from_config_and_context(&settings, Context)
        .map_err(|error| classify_binding("rd_kafka_new", &error))?;
    let mut left = ends(&consumer, from, patience)?;
    let starts = left.iter().map(|(partition, range)| (partition, Some(range.start), ""));
    consumer
        .assign(&list("assign", starts)?)
        .map_err(|error| classify_binding("assign", &error))?;
    left.retain(|_, range| range.start < range.end);
    let mut heard = Instant::now();
    while !left.is_empty() {
        match consumer.poll(POLL) {
            Some(Ok(message)) => {
                heard = Instant::now();
                let (partition, next) = place(&message);
                let Some(range) = left.get(&partition) else { continue };
                if next >= range.end {
                    left.remove(&partition);
                }
                if let ControlFlow::Break(found) = visit(&owned(&message, partition)) {
                    return Ok(Some(found));
                }
            }
            // What is left of the partition are control records and aborted ones.
            Some(Err(BindingError::PartitionEOF(number))) => {
                heard = Instant::now();
                left.retain(|partition, _| i32::try_from(partition.partition) != Ok(number));
            }
            Some(Err(error)) if !is_passing(&error) => {
                return Err(classify_binding("poll", &error));
            }
            Some(Err(_)) | None => {}
        }
        if heard.elapsed() > patience {
            let message = format!("nothing was heard for {patience:?}");
            let kind = ErrorKind::Timeout;
            return Err(KafkaError::new("poll", kind, Disposition::Retriable, message));
        }
    }
    Ok(None)
}

/// Where each partition begins and ends.
type Ends = BTreeMap<TopicPartition, LogRange>;

fn ends(
    consumer: &BaseConsumer<Context>,
    from: &ReadFrom,
    patience: Duration,
) -> Result<Ends, KafkaError> {
    let (partitions, first) = match from {
        ReadFrom::Offset(partition, offset) => (vec![partition.clone()], *offset),
        ReadFrom::Start(topic) => {
            let metadata = consumer
                .fetch_metadata(Some(topic), patience)
                .map_err(|error| classify_binding("metadata", &error))?;
            let count = metadata.topics().first().map_or(0, |topic| topic.partitions().len());
            if count == 0 {
                let message = format!("topic {topic} does not exist");
                let kind = ErrorKind::UnknownTopic;
                return Err(KafkaError::new("metadata", kind, Disposition::Permanent, message));
            }
            let count = u32::try_from(count).unwrap_or(u32::MAX);
            (TopicPartition::all_of(topic.as_str().into(), count).collect(), 0)
        }
    };
    let ranges = of_all(log_ranges(consumer.client().native_client(), &partitions, patience))?;
    let from = |range: LogRange| LogRange { start: range.start.max(first), ..range };
    Ok(partitions.into_iter().zip(ranges.into_iter().map(from)).collect())
}

/// What librdkafka gets over by itself.
fn is_passing(error: &BindingError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            Code::BrokerTransportFailure
                | Code::AllBrokersDown
                | Code::OperationTimedOut
                | Code::Resolve
        )
    )
}

fn place(message: &BorrowedMessage<'_>) -> (TopicPartition, u64) {
    let number = u32::try_from(message.partition()).unwrap_or(u32::MAX);
    let offset = u64::try_from(message.offset()).unwrap_or(0);
    (TopicPartition::new(message.topic(), number), offset + 1)
}

fn owned(message: &BorrowedMessage<'_>, partition: TopicPartition) -> Record {
    let mut builder = BatchBuilder::new(partition);
    let headers = message.headers().into_iter().flat_map(|headers| headers.iter());
    builder.push(
        u64::try_from(message.offset()).unwrap_or(0),
        message.timestamp().to_millis(),
        message.key(),
        message.payload(),
        headers.map(|header| (header.key.as_bytes(), header.value)),
    );
    builder.build().record(0).expect("a record was added")
}
