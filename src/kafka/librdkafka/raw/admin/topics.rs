//! What topics there are.

use std::collections::BTreeMap;
use std::ffi::{CStr, c_char};
use std::ptr::NonNull;
use std::time::Duration;

use rdkafka::bindings as rd;
use rdkafka::client::NativeClient;
use rdkafka::error::RDKafkaErrorCode as Code;

use super::super::{Event, Failure, read, text};
use super::{ask, no_memory};

/// A topic as the cluster describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super::super) struct Description {
    /// Its name.
    pub(in super::super::super) name: String,
    /// Its id.
    pub(in super::super::super) id: [u8; 16],
    /// How many partitions it has.
    pub(in super::super::super) partitions: usize,
    /// The brokers that lead partitions; one without a leader is not named.
    pub(in super::super::super) leaders: BTreeMap<u32, i32>,
    /// Why there is no description.
    pub(in super::super::super) failure: Option<Failure>,
}

/// Topic names, freed in the end.
struct Names(NonNull<rd::rd_kafka_TopicCollection_t>);

impl Names {
    fn new(names: &[&CStr]) -> Option<Self> {
        let mut pointers: Vec<*const c_char> = names.iter().map(|name| name.as_ptr()).collect();
        // SAFETY: the names are alive and are copied; what is returned is ours.
        NonNull::new(unsafe {
            rd::rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len())
        })
        .map(Self)
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        // SAFETY: they are ours and are not used again.
        unsafe { rd::rd_kafka_TopicCollection_destroy(self.0.as_ptr()) }
    }
}

/// Describes topics.
pub(in super::super::super) fn describe_topics(
    client: &NativeClient,
    names: &[&CStr],
    timeout: Duration,
) -> Result<Vec<Description>, Failure> {
    let names = Names::new(names).ok_or_else(no_memory)?;
    let of = rd::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS;
    let answer = ask(client, of, timeout, |options, queue| {
        // SAFETY: all are alive, and librdkafka keeps its own references until it has answered.
        unsafe { rd::rd_kafka_DescribeTopics(client.ptr(), names.0.as_ptr(), options, queue) }
    })?;
    Ok(descriptions(&answer))
}

fn descriptions(answer: &Event) -> Vec<Description> {
    let mut len = 0;
    // SAFETY: the event is alive, is of this kind, and owns the descriptions.
    unsafe {
        let result = rd::rd_kafka_event_DescribeTopics_result(answer.0.as_ptr());
        let topics = rd::rd_kafka_DescribeTopics_result_topics(result, &raw mut len);
        if topics.is_null() {
            return Vec::new();
        }
        std::slice::from_raw_parts(topics, len).iter().map(|topic| describe(*topic)).collect()
    }
}

/// # Safety
/// `topic` is alive.
unsafe fn describe(topic: *const rd::rd_kafka_TopicDescription_t) -> Description {
    let mut partitions = 0;
    // SAFETY: the caller's promise; name, id and error belong to the topic and are copied.
    unsafe {
        let told = rd::rd_kafka_TopicDescription_partitions(topic, &raw mut partitions);
        let id = rd::rd_kafka_TopicDescription_topic_id(topic);
        let mut bytes = [0; 16];
        if !id.is_null() {
            let most = rd::rd_kafka_Uuid_most_significant_bits(id);
            let least = rd::rd_kafka_Uuid_least_significant_bits(id);
            bytes[..8].copy_from_slice(&most.to_be_bytes());
            bytes[8..].copy_from_slice(&least.to_be_bytes());
        }
        Description {
            name: text(rd::rd_kafka_TopicDescription_name(topic)),
            id: bytes,
            partitions,
            leaders: leaders(told, partitions),
            failure: read(rd::rd_kafka_TopicDescription_error(topic))
                .filter(|failure| failure.code != Code::NoError),
        }
    }
}

/// # Safety
/// `told` is null or points to `len` partitions that are alive.
unsafe fn leaders(
    told: *mut *const rd::rd_kafka_TopicPartitionInfo_t,
    len: usize,
) -> BTreeMap<u32, i32> {
    if told.is_null() {
        return BTreeMap::new();
    }
    // SAFETY: the caller's promise; a partition owns its leader, of which the number is copied.
    unsafe {
        let told = std::slice::from_raw_parts(told, len);
        let leader = |partition: &*const rd::rd_kafka_TopicPartitionInfo_t| {
            let leader = rd::rd_kafka_TopicPartitionInfo_leader(*partition);
            let number = rd::rd_kafka_TopicPartitionInfo_partition(*partition);
            let number = u32::try_from(number).ok().filter(|_| !leader.is_null())?;
            Some((number, rd::rd_kafka_Node_id(leader)))
        };
        told.iter().filter_map(leader).collect()
    }
}
