//! Lists of partitions in librdkafka's form.

use countersign_statemachine::Disposition;
use rdkafka::client::NativeClient;
use rdkafka::{Offset, TopicPartitionList};

use super::classify::{Failure, Unflagged, classify, classify_binding};
use crate::kafka::{ErrorKind, KafkaError, TopicPartition};

/// Makes a list of partitions with offset and metadata.
pub(super) fn list<'a>(
    call: &'static str,
    elements: impl IntoIterator<Item = (&'a TopicPartition, Option<u64>, &'a str)>,
) -> Result<TopicPartitionList, KafkaError> {
    let mut list = TopicPartitionList::new();
    for (partition, offset, metadata) in elements {
        let refused = |kind, what: &str| {
            KafkaError::new(call, kind, Disposition::Abortable, format!("{partition}: {what}"))
        };
        if partition.topic.contains('\0') {
            return Err(refused(ErrorKind::UnknownTopic, "a topic's name has no zero"));
        }
        let number = i32::try_from(partition.partition)
            .map_err(|_| refused(ErrorKind::UnknownPartition, "no such partition"))?;
        let mut element = list.add_partition(&partition.topic, number);
        if let Some(offset) = offset {
            let offset =
                i64::try_from(offset).map_err(|_| refused(ErrorKind::Other, "no such offset"))?;
            element
                .set_offset(Offset::Offset(offset))
                .map_err(|error| refused(ErrorKind::Other, &error.to_string()))?;
        }
        if !metadata.is_empty() {
            element.set_metadata(metadata);
        }
    }
    Ok(list)
}

/// Makes a list of partitions alone.
pub(super) fn plain(
    call: &'static str,
    partitions: &[TopicPartition],
) -> Result<TopicPartitionList, KafkaError> {
    list(call, partitions.iter().map(|partition| (partition, None, "")))
}

/// Whether both name the same partitions, in whatever order.
pub(super) fn same<'a>(
    offered: &[TopicPartition],
    named: impl Iterator<Item = &'a TopicPartition>,
) -> bool {
    let mut offered: Vec<_> = offered.iter().collect();
    let mut named: Vec<_> = named.collect();
    offered.sort();
    named.sort();
    offered == named
}

/// Acts on partitions; the first that has an error of its own fails the call.
pub(super) fn each(
    client: &NativeClient,
    call: &'static str,
    list: &TopicPartitionList,
    act: impl FnOnce(&NativeClient, &TopicPartitionList) -> Result<(), Failure>,
) -> Result<(), KafkaError> {
    act(client, list).map_err(|error| classify(call, error, Unflagged::Retriable))?;
    for element in list.elements() {
        element.error().map_err(|error| {
            let mut error = classify_binding(call, &error);
            error.message =
                format!("{}/{}: {}", element.topic(), element.partition(), error.message);
            error
        })?;
    }
    Ok(())
}
