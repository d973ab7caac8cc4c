//! Reads topics while they grow.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message as _;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::{Isolation, POLL_INTERVAL, ReaderError, consumer, partitions};

/// How long it may take until a topic is known.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Tells `read` the topic and the partition of each record as it becomes visible, from the topics'
/// starts on, until `is_over`. Brokers may go and come meanwhile.
///
/// # Errors
/// A topic does not exist, or a record is gone before it was read.
pub fn follow(
    bootstrap: &str,
    topics: &[&str],
    isolation: Isolation,
    is_over: &AtomicBool,
    mut read: impl FnMut(&str, u32),
) -> Result<(), ReaderError> {
    let consumer = consumer(bootstrap, "countersign-follower", isolation)?;
    let mut assignment = TopicPartitionList::new();
    for topic in topics {
        for partition in partitions(&consumer, topic, TIMEOUT)? {
            assignment
                .add_partition_offset(topic, partition, Offset::Beginning)
                .map_err(ReaderError::kafka("assigning", topic))?;
        }
    }
    consumer.assign(&assignment).map_err(ReaderError::kafka("assigning", bootstrap))?;
    while !is_over.load(Ordering::Relaxed) {
        match consumer.poll(POLL_INTERVAL) {
            Some(Ok(message)) => read(message.topic(), message.partition().unsigned_abs()),
            Some(Err(
                source @ KafkaError::MessageConsumption(RDKafkaErrorCode::AutoOffsetReset),
            )) => return Err(ReaderError::kafka("reading", bootstrap)(source)),
            // The end of a partition, or a broker that is away: it is tried again.
            Some(Err(_)) | None => {}
        }
    }
    Ok(())
}
