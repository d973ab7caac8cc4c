//! Sending and transactions.

use std::ffi::{CStr, c_int, c_void};
use std::ops::Range;
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::bindings as rd;
use rdkafka::client::NativeClient;
use rdkafka::error::RDKafkaErrorCode as Code;

use super::{Failure, GroupMetadata, check, millis, take};
use crate::kafka::Header;
use crate::kafka::Output;
use crate::provenance;

/// A topic. Keeping it spares librdkafka a search by name for each record that is written to it.
#[derive(Debug)]
pub(in super::super) struct Topic(pub(super) NonNull<rd::rd_kafka_topic_t>);

// SAFETY: librdkafka's topics are counted and locked inside.
unsafe impl Send for Topic {}

impl Topic {
    /// Opens a topic.
    pub(in super::super) fn new(client: &NativeClient, name: &CStr) -> Result<Self, Failure> {
        // SAFETY: client and name are alive; the name is copied; no settings means the client's.
        let topic = unsafe { rd::rd_kafka_topic_new(client.ptr(), name.as_ptr(), ptr::null_mut()) };
        // SAFETY: this reads the calling thread's last error.
        let code = || Code::from(unsafe { rd::rd_kafka_last_error() });
        NonNull::new(topic).map(Self).ok_or_else(|| Failure::of(code(), code().to_string()))
    }
}

impl Drop for Topic {
    fn drop(&mut self) {
        // SAFETY: the topic is ours and is not used again.
        unsafe { rd::rd_kafka_topic_destroy(self.0.as_ptr()) }
    }
}

/// Headers on their way into librdkafka, which owns them once the record is accepted.
struct Headers(*mut rd::rd_kafka_headers_t);

impl Headers {
    /// The record's headers, and its provenance in the place of an earlier one.
    fn new(headers: &[Header], mark: Option<&[u8]>) -> Result<Self, Failure> {
        if headers.is_empty() && mark.is_none() {
            return Ok(Self(ptr::null_mut()));
        }
        // SAFETY: the list that is returned is ours.
        let list = Self(unsafe { rd::rd_kafka_headers_new(headers.len() + 1) });
        for header in headers {
            if mark.is_none() || &*header.name != provenance::HEADER {
                list.add(&header.name, header.value.as_deref())?;
            }
        }
        if mark.is_some() {
            list.add(provenance::HEADER, mark)?;
        }
        Ok(list)
    }

    fn add(&self, name: &str, value: Option<&[u8]>) -> Result<(), Failure> {
        let (value, len) = pointer(value);
        // SAFETY: the list is alive; name and value are copied.
        check(unsafe {
            rd::rd_kafka_header_add(
                self.0,
                name.as_ptr().cast(),
                name.len().cast_signed(),
                value,
                len.cast_signed(),
            )
        })
    }
}

impl Drop for Headers {
    fn drop(&mut self) {
        if !self.0.is_null() {
            // SAFETY: the list is still ours, since a record that took it sets it to null.
            unsafe { rd::rd_kafka_headers_destroy(self.0) }
        }
    }
}

fn pointer(bytes: Option<&[u8]>) -> (*mut c_void, usize) {
    bytes.map_or((ptr::null_mut(), 0), |bytes| (bytes.as_ptr().cast_mut().cast(), bytes.len()))
}

/// The outputs of which records are in flight. Their values are not copied when they are handed
/// over, since the results that they belong to are kept until the transaction is decided anyway.
#[derive(Debug, Default)]
pub(in super::super) struct Held(Vec<Arc<Vec<Output>>>);

impl Held {
    /// Outputs come in runs of the same.
    fn keep(&mut self, outputs: &Arc<Vec<Output>>) {
        if !self.0.last().is_some_and(|last| Arc::ptr_eq(last, outputs)) {
            self.0.push(Arc::clone(outputs));
        }
    }

    /// Lets go of them if none is in flight any more.
    pub(in super::super) fn release(&mut self, client: &NativeClient) {
        if in_flight(client) == 0 {
            self.0.clear();
        }
    }
}

impl Drop for Held {
    /// What was not released may be in flight and must not be freed.
    fn drop(&mut self) {
        std::mem::forget(std::mem::take(&mut self.0));
    }
}

fn number_of(output: &Output) -> Result<i32, Failure> {
    i32::try_from(output.partition).map_err(|_| {
        Failure::of(Code::UnknownPartition, format!("{} is no partition", output.partition))
    })
}

/// Hands outputs of one topic and partition over, of which each is a key and a value and nothing
/// else: what `rd_kafka_produce_batch` can carry. It asks for clock, topic and partition once, and
/// `rd_kafka_producev` for each record. `held` is the client's that the topic is of. Delivery
/// reports tell the numbers of the records, from `number` on.
///
/// # Errors
/// The index of the first that was not taken, and why. If it is too large, those behind it are
/// taken.
pub(in super::super) fn produce_batch(
    topic: &Topic,
    (outputs, which, number): (&Arc<Vec<Output>>, Range<usize>, usize),
    held: &mut Held,
) -> Result<(), (usize, Failure)> {
    let first = which.start;
    let numbered = (number..).zip(&outputs[which]);
    let mut messages: Vec<_> = numbered.map(|(number, output)| message(output, number)).collect();
    let count = c_int::try_from(messages.len()).unwrap_or(c_int::MAX);
    let partition = number_of(&outputs[first]).map_err(|failure| (first, failure))?;
    held.keep(outputs);
    // SAFETY: the topic is alive, and there are `count` messages. Keys are always copied. Without a
    // flag values are neither copied nor written nor freed, and `held` keeps them as long as a
    // record is in flight.
    unsafe {
        rd::rd_kafka_produce_batch(topic.0.as_ptr(), partition, 0, messages.as_mut_ptr(), count);
    }
    let results = (first..).zip(&messages);
    for (index, message) in results {
        check(message.err).map_err(|failure| (index, failure))?;
    }
    Ok(())
}

/// A message that points to the output's key and value.
fn message(output: &Output, number: usize) -> rd::rd_kafka_message_t {
    let (payload, len) = pointer(output.value.as_deref());
    let (key, key_len) = pointer(output.key.as_deref());
    rd::rd_kafka_message_t {
        err: rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR,
        rkt: ptr::null_mut(),
        partition: 0,
        payload,
        len,
        key,
        key_len,
        offset: 0,
        _private: ptr::without_provenance_mut(number),
    }
}

/// Hands one of the outputs over. `held` is this client's; the delivery report tells the number.
pub(in super::super) fn produce(
    client: &NativeClient,
    topic: &Topic,
    (outputs, index, number): (&Arc<Vec<Output>>, usize, usize),
    mark: Option<&[u8]>,
    held: &mut Held,
) -> Result<(), Failure> {
    let output = &outputs[index];
    let (value, value_len) = pointer(output.value.as_deref());
    let (key, key_len) = pointer(output.key.as_deref());
    let mut headers = Headers::new(&output.headers, mark)?;
    let partition = number_of(output)?;
    // SAFETY: each tag is followed by the types that `rdkafka.h` gives for it, and `END` ends
    // them. Client and topic are alive; keys are always copied. Without a flag the value is neither
    // copied nor written nor freed, and `held` keeps it as long as a record is in flight.
    let code = unsafe {
        rd::rd_kafka_producev(
            client.ptr(),
            rd::rd_kafka_vtype_t::RD_KAFKA_VTYPE_RKT,
            topic.0.as_ptr(),
            rd::rd_kafka_vtype_t::RD_KAFKA_VTYPE_PARTITION,
            partition,
            rd::rd_kafka_vtype_t::RD_KAFKA_VTYPE_MSGFLAGS,
            0,
            rd::rd_kafka_vtype_t::RD_KAFKA_VTYPE_VALUE,
            value,
            value_len,
            rd::rd_kafka_vtype_t::RD_KAFKA_VTYPE_KEY,
            key,
            key_len,
            rd::rd_kafka_vtype_t::RD_KAFKA_VTYPE_TIMESTAMP,
            output.timestamp.unwrap_or(0),
            rd::rd_kafka_vtype_t::RD_KAFKA_VTYPE_HEADERS,
            headers.0,
            rd::rd_kafka_vtype_t::RD_KAFKA_VTYPE_OPAQUE,
            ptr::without_provenance_mut::<c_void>(number),
            rd::rd_kafka_vtype_t::RD_KAFKA_VTYPE_END,
        )
    };
    check(code)?;
    headers.0 = ptr::null_mut();
    held.keep(outputs);
    Ok(())
}

/// How many records and events are not done with.
pub(in super::super) fn in_flight(client: &NativeClient) -> usize {
    // SAFETY: the client is alive.
    usize::try_from(unsafe { rd::rd_kafka_outq_len(client.ptr()) }).unwrap_or(0)
}

/// Gives up what is in flight; it is reported as failed.
pub(in super::super) fn purge(client: &NativeClient) {
    let what = rd::RD_KAFKA_PURGE_F_QUEUE | rd::RD_KAFKA_PURGE_F_INFLIGHT;
    // SAFETY: the client is alive. Only a client that is no producer is refused.
    unsafe { rd::rd_kafka_purge(client.ptr(), what) };
}

/// Waits until nothing is in flight; meanwhile records are sent without lingering.
pub(in super::super) fn flush(client: &NativeClient, timeout: Duration) -> bool {
    // SAFETY: the client is alive.
    let code = unsafe { rd::rd_kafka_flush(client.ptr(), millis(timeout)) };
    Code::from(code) == Code::NoError
}

/// Registers the transactional id.
pub(in super::super) fn init_transactions(
    client: &NativeClient,
    timeout: Duration,
) -> Result<(), Failure> {
    // SAFETY: the client is alive; the error is handed over.
    unsafe { take(rd::rd_kafka_init_transactions(client.ptr(), millis(timeout))) }
}

/// Begins a transaction.
pub(in super::super) fn begin_transaction(client: &NativeClient) -> Result<(), Failure> {
    // SAFETY: the client is alive; the error is handed over.
    unsafe { take(rd::rd_kafka_begin_transaction(client.ptr())) }
}

/// Adds offsets to the transaction.
pub(in super::super) fn send_offsets(
    client: &NativeClient,
    offsets: &TopicPartitionList,
    group: &GroupMetadata,
    timeout: Duration,
) -> Result<(), Failure> {
    // SAFETY: all three are alive and are copied; the error is handed over.
    unsafe {
        take(rd::rd_kafka_send_offsets_to_transaction(
            client.ptr(),
            offsets.ptr(),
            group.as_ptr(),
            millis(timeout),
        ))
    }
}

/// Commits. Delivery reports must be read meanwhile if there are any to come.
pub(in super::super) fn commit_transaction(
    client: &NativeClient,
    timeout: Duration,
) -> Result<(), Failure> {
    // SAFETY: the client is alive; the error is handed over.
    unsafe { take(rd::rd_kafka_commit_transaction(client.ptr(), millis(timeout))) }
}

/// Aborts. Delivery reports must be read meanwhile if there are any to come.
pub(in super::super) fn abort_transaction(
    client: &NativeClient,
    timeout: Duration,
) -> Result<(), Failure> {
    // SAFETY: the client is alive; the error is handed over.
    unsafe { take(rd::rd_kafka_abort_transaction(client.ptr(), millis(timeout))) }
}
