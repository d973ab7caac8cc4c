//! The two queues of a consumer: one for records, one for everything else.
//!
//! `rd_kafka_queue_poll` gives one record per call, which takes a lock of the statistics and asks
//! for the time three times. `rd_kafka_consume_callback` does so once for many, but it must not be
//! used on the queue that rebalances come by: it would answer them itself. So the queues of the
//! partitions are forwarded to one of their own, which makes the other one wake up.
//!
//! `rd_kafka_consume_batch_queue` would do it too, but not right in librdkafka 2.12.1: it moves the
//! position for errors as well, so that the end of a partition counts as a record, and a pause
//! there would skip the next one (`rd_kafka_q_serve_rkmessages`).

use std::ffi::{CString, c_void};
use std::ptr::{self, NonNull};
use std::time::Duration;

use rdkafka::bindings as rd;
use rdkafka::client::NativeClient;
use rdkafka::error::RDKafkaErrorCode as Code;

use super::event::Message;
use super::{Event, Failure, Queue, Topic};
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

    /// Waits for an event or for records; `None` for records, if the time is over, or if
    /// [`wake`](Self::wake) was called.
    pub(in super::super) fn poll(&self, wait: Duration) -> Option<Event> {
        self.events.poll(wait)
    }

    /// Makes a waiting [`poll`](Self::poll) return, or the next one if none waits.
    pub(in super::super) fn wake(&self) {
        self.events.wake();
    }
}

/// The partitions whose records come by the queue for records, which is served through one of them.
///
/// `rd_kafka_consume_callback_queue` takes all that waits out of the queue, and puts back what is
/// not wanted yet. Meanwhile the queue is empty, so that the fetcher asks for more: a consumer that
/// takes little at a time held gigabytes. `rd_kafka_consume_callback` of a partition serves the
/// queue that it is forwarded to, and takes out no more than `consume.callback.max.messages`.
#[derive(Debug, Default)]
pub(in super::super) struct Doors(Vec<(TopicPartition, Topic)>);

impl Doors {
    /// Makes a partition's records come by the queue for records, from its next assignment on.
    pub(in super::super) fn open(
        &mut self,
        client: &NativeClient,
        queues: &Queues,
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
        unsafe { rd::rd_kafka_queue_forward(queue.0.as_ptr(), queues.records.0.as_ptr()) }
        self.0.push((partition.clone(), Topic::new(client, &topic)?));
        Ok(())
    }

    /// Partitions are given back: librdkafka ends their forwarding (`rd_kafka_toppar_fetch_stop`).
    pub(in super::super) fn close(&mut self, partitions: &[TopicPartition]) {
        self.0.retain(|(partition, _)| !partitions.contains(partition));
    }

    /// Hands the records that wait to `visit`, in order, until it says that it is enough.
    pub(in super::super) fn serve<F>(&self, client: &NativeClient, visit: F)
    where
        F: FnMut(&Message<'_>) -> bool,
    {
        let Some((partition, topic)) = self.0.last() else { return };
        let Ok(number) = i32::try_from(partition.partition) else { return };
        let mut serving = Serving { visit, client: client.ptr(), enough: false };
        let opaque = ptr::from_mut(&mut serving).cast::<c_void>();
        loop {
            // SAFETY: topic and client are alive; the callback is made for what `opaque` points
            // to, and is called during this call and on this thread only.
            let served = unsafe {
                let topic = topic.0.as_ptr();
                rd::rd_kafka_consume_callback(topic, number, 0, Some(hand::<F>), opaque)
            };
            // SAFETY: it is only used through this pointer until the function ends.
            let enough = unsafe { (*opaque.cast::<Serving<F>>()).enough };
            if served <= 0 || enough {
                return;
            }
        }
    }
}

struct Serving<F> {
    visit: F,
    client: *mut rd::rd_kafka_t,
    enough: bool,
}

/// Hands over one record, or the error in its place; librdkafka frees it afterwards.
///
/// # Safety
/// `message` is alive, and `opaque` points to a `Serving<F>` that nobody else uses.
unsafe extern "C" fn hand<F>(message: *mut rd::rd_kafka_message_t, opaque: *mut c_void)
where
    F: FnMut(&Message<'_>) -> bool,
{
    // SAFETY: the caller's promise; yielding from within the callback is what it is for: the rest
    // stays in the queue.
    unsafe {
        let Some(serving) = opaque.cast::<Serving<F>>().as_mut() else { return };
        let Some(message) = NonNull::new(message) else { return };
        if !(serving.visit)(&Message::new(message)) {
            serving.enough = true;
            rd::rd_kafka_yield(serving.client);
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
