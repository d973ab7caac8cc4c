//! The calls of librdkafka that the safe binding lacks or gets wrong for us; all unsafe code of
//! the project is below here.
//!
//! Two rules make it sound. Every pointer that librdkafka gives is owned by one value here, which
//! frees it on drop, or is borrowed from such a value. And a value that belongs to a client
//! ([`Queue`],
//! [`Topic`], [`Event`]) is dropped before the client: its owners declare their fields in that
//! order.

#![expect(unsafe_code, reason = "the safe binding hides offsets, topics and deferred rebalances")]

mod admin;
mod event;
mod group;
mod produce;
mod records;

pub(super) use admin::{
    Configured, Description, LogEnd, cluster_id, committed, committed_now, describe_setting,
    describe_topics, log_ends, members, reach,
};
pub(super) use event::{Event, EventKind, Message, Rebalance};
pub(super) use group::{
    GroupMetadata, assign, assignment_lost, incremental_assign, incremental_unassign, pause,
    resume, seek, unassign, unsubscribe,
};
pub(super) use produce::{
    Held, Topic, abort_transaction, begin_transaction, commit_transaction, flush, in_flight,
    init_transactions, produce, produce_batch, purge, send_offsets,
};

pub(super) use records::{Doors, Queues};

use std::ffi::{CStr, c_char, c_int};
use std::ptr::NonNull;
use std::time::Duration;

use rdkafka::bindings as rd;
use rdkafka::client::NativeClient;
use rdkafka::error::RDKafkaErrorCode as Code;

use super::classify::Failure;

/// A queue of events.
#[derive(Debug)]
pub(super) struct Queue(NonNull<rd::rd_kafka_queue_t>);

// SAFETY: librdkafka's queues are locked inside; `rdkafka.h` allows their use from any thread.
unsafe impl Send for Queue {}
// SAFETY: as above; every method takes the queue's own lock.
unsafe impl Sync for Queue {}

impl Queue {
    /// The queue that a consumer's rebalances and errors come by, and its records too unless the
    /// queues of its partitions are forwarded to another one.
    pub(super) fn of_consumer(client: &NativeClient) -> Option<Self> {
        // SAFETY: the client is alive; the reference that is returned is ours to destroy.
        NonNull::new(unsafe { rd::rd_kafka_queue_get_consumer(client.ptr()) }).map(Self)
    }

    /// The queue that a producer's delivery reports and errors come by.
    pub(super) fn main(client: &NativeClient) -> Option<Self> {
        // SAFETY: as in `of_consumer`.
        NonNull::new(unsafe { rd::rd_kafka_queue_get_main(client.ptr()) }).map(Self)
    }

    /// A new queue, for the answer to a question.
    pub(super) fn new(client: &NativeClient) -> Option<Self> {
        // SAFETY: as in `of_consumer`.
        NonNull::new(unsafe { rd::rd_kafka_queue_new(client.ptr()) }).map(Self)
    }

    /// Waits for an event; `None` when the time is over or [`wake`](Queue::wake) was called.
    pub(super) fn poll(&self, wait: Duration) -> Option<Event> {
        // SAFETY: the queue is alive; the event that is returned is ours to destroy.
        let event = unsafe { rd::rd_kafka_queue_poll(self.0.as_ptr(), millis(wait)) };
        NonNull::new(event).map(Event::new)
    }

    /// Makes a waiting [`poll`](Queue::poll) return, or the next one if none waits.
    pub(super) fn wake(&self) {
        // SAFETY: the queue is alive, and yielding is allowed from any thread.
        unsafe { rd::rd_kafka_queue_yield(self.0.as_ptr()) }
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: this reference is ours and is not used again.
        unsafe { rd::rd_kafka_queue_destroy(self.0.as_ptr()) }
    }
}

/// The fatal error that a client has raised.
pub(super) fn fatal_error(client: &NativeClient) -> Option<Failure> {
    let mut words: [c_char; 512] = [0; 512];
    // SAFETY: the buffer is as long as is said, and librdkafka ends what it writes with a zero.
    let code = unsafe { rd::rd_kafka_fatal_error(client.ptr(), words.as_mut_ptr(), words.len()) };
    let code = Code::from(code);
    // SAFETY: the buffer was zeroed and librdkafka writes at most its length less one.
    let message = unsafe { text(words.as_ptr()) };
    (code != Code::NoError).then(|| Failure { fatal: true, ..Failure::of(code, message) })
}

/// Milliseconds as librdkafka takes them. Part of one counts as one, so that a short wait is not
/// a busy loop.
fn millis(time: Duration) -> c_int {
    c_int::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(c_int::MAX)
}

/// Copies a C string; an absent one is empty.
///
/// # Safety
/// `words` is null or points to a string that ends with a zero.
unsafe fn text(words: *const c_char) -> String {
    if words.is_null() {
        return String::new();
    }
    // SAFETY: the caller's promise.
    unsafe { CStr::from_ptr(words) }.to_string_lossy().into_owned()
}

/// Borrows bytes; absent ones are told from empty ones.
///
/// # Safety
/// `data` is null or points to `len` bytes that live as long as `'a`.
unsafe fn bytes<'a>(data: *const std::ffi::c_void, len: usize) -> Option<&'a [u8]> {
    // SAFETY: the caller's promise.
    (!data.is_null()).then(|| unsafe { std::slice::from_raw_parts(data.cast(), len) })
}

/// Reads an error and leaves it with its owner.
///
/// # Safety
/// `error` is null or points to an error that is alive.
unsafe fn read(error: *const rd::rd_kafka_error_t) -> Option<Failure> {
    if error.is_null() {
        return None;
    }
    // SAFETY: the caller's promise.
    unsafe {
        Some(Failure {
            code: rd::rd_kafka_error_code(error).into(),
            fatal: rd::rd_kafka_error_is_fatal(error) != 0,
            abortable: rd::rd_kafka_error_txn_requires_abort(error) != 0,
            retriable: rd::rd_kafka_error_is_retriable(error) != 0,
            message: text(rd::rd_kafka_error_string(error)),
        })
    }
}

/// Takes the error that a call returned.
///
/// # Safety
/// `error` is null or an error that the call has handed over.
unsafe fn take(error: *mut rd::rd_kafka_error_t) -> Result<(), Failure> {
    // SAFETY: the caller's promise; the error is not used after it is destroyed, and destroying
    // null is allowed.
    unsafe {
        let failure = read(error);
        rd::rd_kafka_error_destroy(error);
        failure.map_or(Ok(()), Err)
    }
}

/// Turns a returned code into a result.
fn check(code: rd::rd_kafka_resp_err_t) -> Result<(), Failure> {
    match Code::from(code) {
        Code::NoError => Ok(()),
        code => Err(Failure::of(code, code.to_string())),
    }
}
