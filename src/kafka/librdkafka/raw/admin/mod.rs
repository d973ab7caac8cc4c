//! Questions about group and topics.
//!
//! Those of librdkafka's admin API are asked by [`ask`], which waits for the answer on a queue of
//! its own; each has a module that makes the request and reads the answer.

mod configs;
mod group;
mod logs;
mod topics;

pub(in super::super) use configs::{Configured, describe_setting};
pub(in super::super) use group::{committed_now, members};
pub(in super::super) use logs::{LogEnd, log_ends};
pub(in super::super) use topics::{Description, describe_topics};

use std::ptr::{self, NonNull};
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::bindings as rd;
use rdkafka::client::NativeClient;
use rdkafka::error::RDKafkaErrorCode as Code;

use super::event::{offset_of, read_each};
use super::{Event, EventKind, Failure, Queue, check, millis, text};

/// The cluster's id; `None` if no broker has told it yet.
pub(in super::super) fn cluster_id(client: &NativeClient) -> Option<String> {
    // SAFETY: the client is alive; the string that is returned is copied and freed by
    // librdkafka's own allocator.
    unsafe {
        let id = rd::rd_kafka_clusterid(client.ptr(), 0);
        if id.is_null() {
            return None;
        }
        let copy = text(id);
        rd::rd_kafka_mem_free(client.ptr(), id.cast());
        Some(copy)
    }
}

/// Waits until a broker has answered.
pub(in super::super) fn reach(client: &NativeClient, timeout: Duration) -> Result<(), Failure> {
    let mut metadata = ptr::null();
    let (some_topics, no_topic) = (0, ptr::null_mut());
    // SAFETY: the client is alive; what is returned is freed below, once.
    let code = unsafe {
        rd::rd_kafka_metadata(
            client.ptr(),
            some_topics,
            no_topic,
            &raw mut metadata,
            millis(timeout),
        )
    };
    if !metadata.is_null() {
        // SAFETY: it was just returned and nothing of it is kept.
        unsafe { rd::rd_kafka_metadata_destroy(metadata) };
    }
    check(code)
}

/// A committed offset with its metadata; an offset below zero means none.
type Commit = (i64, Vec<u8>);

/// The stable commit of each partition of `list`, in its order; an offset below zero means none.
/// One that is pending is waited for, and all others with it.
pub(in super::super) fn committed(
    client: &NativeClient,
    list: &TopicPartitionList,
    timeout: Duration,
) -> Result<Vec<Result<Commit, Failure>>, Failure> {
    // SAFETY: client and list are alive; the call writes into the list's elements and is over
    // before they are read; their metadata lives as long as the list.
    unsafe {
        check(rd::rd_kafka_committed(client.ptr(), list.ptr(), millis(timeout)))?;
        Ok(read_each(list.ptr(), |element| offset_of(element)))
    }
}

/// The options of a request, freed in the end.
struct Options(NonNull<rd::rd_kafka_AdminOptions_t>);

impl Options {
    fn new(client: &NativeClient, of: rd::rd_kafka_admin_op_t, timeout: Duration) -> Option<Self> {
        // SAFETY: the client is alive; what is returned is ours.
        let options = unsafe { rd::rd_kafka_AdminOptions_new(client.ptr(), of) };
        let options = Self(NonNull::new(options)?);
        // SAFETY: the options are alive; an error text of no length is allowed, and a timeout out
        // of range leaves the default, which the wait for the answer bounds.
        unsafe {
            rd::rd_kafka_AdminOptions_set_request_timeout(
                options.0.as_ptr(),
                millis(timeout),
                ptr::null_mut(),
                0,
            );
        }
        Some(options)
    }
}

impl Drop for Options {
    fn drop(&mut self) {
        // SAFETY: they are ours and are not used again.
        unsafe { rd::rd_kafka_AdminOptions_destroy(self.0.as_ptr()) }
    }
}

fn no_memory() -> Failure {
    Failure::of(Code::CriticalSystemResource, "no memory for a question")
}

/// Asks by `send`, which is given the options and the queue, and waits for the answer. What the
/// request is made of need not outlive `send`: librdkafka copies it.
fn ask(
    client: &NativeClient,
    of: rd::rd_kafka_admin_op_t,
    timeout: Duration,
    send: impl FnOnce(*const rd::rd_kafka_AdminOptions_t, *mut rd::rd_kafka_queue_t),
) -> Result<Event, Failure> {
    let deadline = Instant::now() + timeout;
    let queue = Queue::new(client).ok_or_else(no_memory)?;
    let options = Options::new(client, of, timeout).ok_or_else(no_memory)?;
    send(options.0.as_ptr(), queue.0.as_ptr());
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let event = queue.poll(left);
        if let Some(event) = event.filter(|event| event.kind() == EventKind::Answer) {
            let failure = event.failure();
            return if failure.code == Code::NoError { Ok(event) } else { Err(failure) };
        }
        if left.is_zero() {
            return Err(Failure::of(Code::OperationTimedOut, "no answer in time"));
        }
    }
}
