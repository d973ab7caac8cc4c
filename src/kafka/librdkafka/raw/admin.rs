//! Questions about group and topics.

use std::ffi::{CStr, c_char};
use std::ptr::{self, NonNull};
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::bindings as rd;
use rdkafka::client::NativeClient;
use rdkafka::error::RDKafkaErrorCode as Code;

use super::event::elements;
use super::{Event, EventKind, Failure, Queue, bytes, check, millis, read, text};

/// A topic as the cluster describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct Description {
    /// Its name.
    pub(in super::super) name: String,
    /// Its id.
    pub(in super::super) id: [u8; 16],
    /// How many partitions it has.
    pub(in super::super) partitions: usize,
    /// Why there is no description.
    pub(in super::super) failure: Option<Failure>,
}

/// The cluster's id; `None` if it was not told in time.
pub(in super::super) fn cluster_id(client: &NativeClient, timeout: Duration) -> Option<String> {
    // SAFETY: the client is alive; the string that is returned is copied and freed by
    // librdkafka's own allocator.
    unsafe {
        let id = rd::rd_kafka_clusterid(client.ptr(), millis(timeout));
        if id.is_null() {
            return None;
        }
        let copy = text(id);
        rd::rd_kafka_mem_free(client.ptr(), id.cast());
        Some(copy)
    }
}

/// The committed offset and metadata of each partition of `list`, in its order; an offset below
/// zero means none.
pub(in super::super) fn committed(
    client: &NativeClient,
    list: &TopicPartitionList,
    timeout: Duration,
) -> Result<Vec<(i64, Vec<u8>)>, Failure> {
    // SAFETY: client and list are alive; the call writes into the list's elements and is over
    // before they are read; their metadata lives as long as the list.
    unsafe {
        check(rd::rd_kafka_committed(client.ptr(), list.ptr(), millis(timeout)))?;
        let Some(list) = list.ptr().as_ref() else { return Ok(Vec::new()) };
        elements(list)
            .iter()
            .map(|element| {
                check(element.err)?;
                let metadata = bytes(element.metadata, element.metadata_size).unwrap_or_default();
                Ok((element.offset, metadata.to_vec()))
            })
            .collect()
    }
}

/// Frees what a request is made of.
struct Request {
    names: NonNull<rd::rd_kafka_TopicCollection_t>,
    options: NonNull<rd::rd_kafka_AdminOptions_t>,
}

impl Request {
    fn new(client: &NativeClient, names: &[&CStr], timeout: Duration) -> Option<Self> {
        let mut pointers: Vec<*const c_char> = names.iter().map(|name| name.as_ptr()).collect();
        // SAFETY: the names are alive and are copied; what is returned is ours.
        let (names, options) = unsafe {
            (
                rd::rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len()),
                rd::rd_kafka_AdminOptions_new(
                    client.ptr(),
                    rd::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS,
                ),
            )
        };
        let request = Self { names: NonNull::new(names)?, options: NonNull::new(options)? };
        // SAFETY: the options are alive; an error text of no length is allowed, and a timeout out
        // of range leaves the default, which the wait for the answer bounds.
        unsafe {
            rd::rd_kafka_AdminOptions_set_request_timeout(
                request.options.as_ptr(),
                millis(timeout),
                ptr::null_mut(),
                0,
            );
        }
        Some(request)
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        // SAFETY: both are ours and are not used again.
        unsafe {
            rd::rd_kafka_TopicCollection_destroy(self.names.as_ptr());
            rd::rd_kafka_AdminOptions_destroy(self.options.as_ptr());
        }
    }
}

/// Describes topics.
pub(in super::super) fn describe_topics(
    client: &NativeClient,
    names: &[&CStr],
    timeout: Duration,
) -> Result<Vec<Description>, Failure> {
    let deadline = Instant::now() + timeout;
    let no_memory = || Failure::of(Code::CriticalSystemResource, "no queue for the answer");
    let queue = Queue::new(client).ok_or_else(no_memory)?;
    let request = Request::new(client, names, timeout).ok_or_else(no_memory)?;
    // SAFETY: all are alive, and librdkafka keeps its own references until it has answered.
    unsafe {
        rd::rd_kafka_DescribeTopics(
            client.ptr(),
            request.names.as_ptr(),
            request.options.as_ptr(),
            queue.0.as_ptr(),
        );
    }
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let event = queue.poll(left);
        if let Some(event) = event.filter(|event| event.kind() == EventKind::Topics) {
            return descriptions(&event);
        }
        if left.is_zero() {
            return Err(Failure::of(Code::OperationTimedOut, "no answer in time"));
        }
    }
}

fn descriptions(event: &Event) -> Result<Vec<Description>, Failure> {
    let failure = event.failure();
    if failure.code != Code::NoError {
        return Err(failure);
    }
    let mut len = 0;
    // SAFETY: the event is alive, is of this kind, and owns the descriptions.
    unsafe {
        let result = rd::rd_kafka_event_DescribeTopics_result(event.0.as_ptr());
        let topics = rd::rd_kafka_DescribeTopics_result_topics(result, &raw mut len);
        if topics.is_null() {
            return Ok(Vec::new());
        }
        Ok(std::slice::from_raw_parts(topics, len).iter().map(|topic| describe(*topic)).collect())
    }
}

/// # Safety
/// `topic` is alive.
unsafe fn describe(topic: *const rd::rd_kafka_TopicDescription_t) -> Description {
    let mut partitions = 0;
    // SAFETY: the caller's promise; name, id and error belong to the topic and are copied.
    unsafe {
        rd::rd_kafka_TopicDescription_partitions(topic, &raw mut partitions);
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
            failure: read(rd::rd_kafka_TopicDescription_error(topic))
                .filter(|failure| failure.code != Code::NoError),
        }
    }
}
