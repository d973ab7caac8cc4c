//! The two queues of a consumer: one for records, one for everything else.
//!
//! `rd_kafka_queue_poll` gives one record per call, which takes a lock of the statistics and asks
//! for the time three times. `rd_kafka_consume_batch_queue` does so once for many, but it must not
//! be used on the queue that rebalances come by: it would answer them itself. So the queues of the
//! partitions are forwarded to one of their own, which makes the other one wake up.

use std::ffi::{CString, c_void};
use std::ptr::{self, NonNull};
use std::time::Duration;

use rdkafka::bindings as rd;
use rdkafka::client::NativeClient;
use rdkafka::error::RDKafkaErrorCode as Code;

use super::event::Message;
use super::{Event, Failure, Queue};
use crate::kafka::TopicPartition;

/// The queues of a consumer.
#[derive(Debug)]
pub(in super::super) struct Queues {
    // It wakes the other one, and is dropped before it.
    records: Queue,
    events: Queue,
}

/// Wakes the queue that is waited on.
///
/// # Safety
/// `events` is a queue that is alive.
unsafe extern "C" fn wake(_: *mut rd::rd_kafka_t, events: *mut c_void) {
    // SAFETY: the caller's promise; yielding is allowed from any thread.
    unsafe { rd::rd_kafka_queue_yield(events.cast()) }
}

impl Queues {
    /// The queues of a consumer.
    pub(in super::super) fn new(client: &NativeClient) -> Option<Self> {
        let queues = Self { records: Queue::new(client)?, events: Queue::of_consumer(client)? };
        let events = queues.events.0.as_ptr().cast();
        // SAFETY: both queues are alive, and `events` until the call in `drop` has ended this.
        unsafe { rd::rd_kafka_queue_cb_event_enable(queues.records.0.as_ptr(), Some(wake), events) }
        Some(queues)
    }

    /// Makes a partition's records come by the queue for records, from its next assignment on.
    pub(in super::super) fn forward(
        &self,
        client: &NativeClient,
        partition: &TopicPartition,
    ) -> Result<(), Failure> {
        let unknown = || Failure::of(Code::UnknownPartition, format!("{partition} has no queue"));
        let topic = CString::new(&*partition.topic).map_err(|_| unknown())?;
        let number = i32::try_from(partition.partition).map_err(|_| unknown())?;
        // SAFETY: client and name are alive; the reference that is returned is ours to destroy.
        let queue =
            unsafe { rd::rd_kafka_queue_get_partition(client.ptr(), topic.as_ptr(), number) };
        let queue = Queue(NonNull::new(queue).ok_or_else(unknown)?);
        // SAFETY: both queues are alive; a queue keeps the one that it is forwarded to.
        unsafe { rd::rd_kafka_queue_forward(queue.0.as_ptr(), self.records.0.as_ptr()) }
        Ok(())
    }

    /// Waits for an event or for records; `None` for records, if the time is over, or if
    /// [`wake`](Self::wake) was called.
    pub(in super::super) fn poll(&self, wait: Duration) -> Option<Event> {
        self.events.poll(wait)
    }

    /// Makes a waiting [`poll`](Self::poll) return, or the next one if none waits.
    pub(in super::super) fn wake(&self) {
        self.events.wake();
    }

    /// Takes up to `most` records that wait, in the place of what `taken` holds.
    pub(in super::super) fn take(&self, most: usize, taken: &mut Taken) {
        taken.clear();
        taken.0.reserve(most);
        // SAFETY: the queue is alive; there is room for `most` messages, which become ours, and so
        // many are written as the call says. An error is negative and nothing is written.
        unsafe {
            let count = rd::rd_kafka_consume_batch_queue(
                self.records.0.as_ptr(),
                0,
                taken.0.as_mut_ptr(),
                most,
            );
            taken.0.set_len(usize::try_from(count).unwrap_or(0).min(most));
        }
    }
}

impl Drop for Queues {
    fn drop(&mut self) {
        // SAFETY: the queue is alive; once this returns the callback is not called any more.
        unsafe {
            rd::rd_kafka_queue_cb_event_enable(self.records.0.as_ptr(), None, ptr::null_mut());
        }
    }
}

/// Records and errors that were taken from a queue.
#[derive(Debug, Default)]
pub(in super::super) struct Taken(Vec<*mut rd::rd_kafka_message_t>);

// SAFETY: messages belong to nobody but their holder once they were taken from their queue.
unsafe impl Send for Taken {}

impl Taken {
    /// How many there are.
    pub(in super::super) fn len(&self) -> usize {
        self.0.len()
    }

    /// What was taken, in order.
    pub(in super::super) fn messages(&self) -> impl Iterator<Item = Message<'_>> {
        // The borrow of `self` keeps the messages alive.
        self.0.iter().filter_map(|message| NonNull::new(*message).map(Message::new))
    }

    /// Frees what was taken.
    pub(in super::super) fn clear(&mut self) {
        for message in self.0.drain(..) {
            // SAFETY: the message is ours and is not used again.
            unsafe { rd::rd_kafka_message_destroy(message) }
        }
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.clear();
    }
}
