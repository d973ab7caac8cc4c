//! A transactional producer.
//!
//! It reads its own events. A delivery report is one event for a whole batch of records, so that
//! it costs next to nothing, and the records are freed by the thread that made them. What is in
//! flight is counted by `rd_kafka_outq_len`. The binding's `flush` and `commit_transaction` poll in
//! steps of 100 ms and are not used.
//!
//! # How a flush waits
//!
//! An idempotent producer has one request per partition under way
//! (`rd_kafka_toppar_producer_serve` takes the *messages* in flight for requests), and what stands
//! behind it and does not linger is due at once: the thread of the broker polls without a pause
//! until the answer is there. That is why `linger.ms` is long. Batches are sent when they are full,
//! and a flush waits for their reports first. Only then `rd_kafka_flush` is called, beside which
//! nothing lingers (`rk_flushing`), for what does not fill a batch; meanwhile another thread reads
//! the events. Calling it for a moment at a time does not do: on a busy machine the moment is over
//! before the thread of the broker has woken up.

use std::ffi::CString;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use countersign_statemachine::Disposition;
use rdkafka::client::NativeClient;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::error::RDKafkaErrorCode as Code;
use rdkafka::producer::{BaseProducer, Producer as _};

use super::classify::{Failure, Unflagged, classify, classify_binding};
use super::config::ClusterConfig;
use super::context::Context;
use super::drain::{Drainer, Reading};
use super::events::explain;
use super::group::LibrdGroup;
use super::lists::list;
use super::raw::{self, GroupMetadata, Held, Queue};
use super::rights::Names;
use super::seen::Seen;
use super::settings;
use super::topics::Topics;
use crate::kafka::{CommitOffset, ErrorKind, KafkaError, Output, Producer, Refused, Sizes, Unsent};

/// How long a flush goes on before it is looked at whether a record has failed.
const LOOK: Duration = Duration::from_millis(100);

/// How many records are sent before delivery reports are read, which frees what they are about.
const SENT_MAX: usize = 1_024;

/// How long a connection is waited for before it is asked for again.
const CONNECT: Duration = Duration::from_millis(50);

const SEND_OFFSETS: &str = "send_offsets_to_transaction";

/// How long a dropped producer waits for the reports of what it gives up.
const PURGE: Duration = Duration::from_millis(500);

/// A producer of librdkafka. Dropping it gives up what is in flight and an open transaction.
#[must_use = "dropping a producer gives up its open transaction"]
pub struct LibrdProducer {
    // Topics and queue belong to the client and are dropped before it.
    topics: Topics,
    drainer: Drainer,
    queue: Arc<Queue>,
    base: BaseProducer<Context>,
    held: Held,
    names: Names,
    seen: Seen,
    /// Since the events were read.
    sent: usize,
    /// How many records were taken in this transaction.
    taken: usize,
}

/// How many outputs, from the first on, go to the same partition and are only key and value.
fn plain_alike(outputs: &[Output]) -> usize {
    let Some(first) = outputs.first() else { return 0 };
    let is_alike = |output: &&Output| {
        let is_plain = output.headers.is_empty() && output.timestamp.is_none();
        let is_there = output.partition == first.partition && output.topic == first.topic;
        is_plain && is_there
    };
    outputs.iter().take(SENT_MAX).take_while(is_alike).count()
}

fn refused(native: &NativeClient, output: &Output, failure: Failure) -> KafkaError {
    let call = "produce";
    if failure.code == Code::Fatal {
        return classify(call, raw::fatal_error(native).unwrap_or(failure), Unflagged::Fatal);
    }
    let message =
        format!("a record for {}/{}: {}", output.topic, output.partition, failure.message);
    classify(call, Failure { message, ..failure }, Unflagged::Abortable)
}

impl fmt::Debug for LibrdProducer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LibrdProducer").field("seen", &self.seen).finish_non_exhaustive()
    }
}

impl LibrdProducer {
    pub(super) fn new(
        config: &ClusterConfig,
        transactional_id: &str,
        sizes: Sizes,
    ) -> Result<Self, KafkaError> {
        let call = "rd_kafka_new";
        let config_error = |message: &str| {
            KafkaError::new(call, ErrorKind::Config, Disposition::Permanent, message)
        };
        if transactional_id.is_empty() {
            return Err(config_error("the transactional id is empty"));
        }
        let settings = settings::producer(config, transactional_id, sizes);
        let full =
            settings::full_batch(&settings).map_err(|error| classify_binding(call, &error))?;
        let base = BaseProducer::from_config_and_context(&settings, Context)
            .map_err(|error| classify_binding(call, &error))?;
        let queue = Queue::main(base.client().native_client())
            .ok_or_else(|| config_error("the producer has no queue"))?;
        let queue = Arc::new(queue);
        Ok(Self {
            topics: Topics::new(full),
            drainer: Drainer::start(Arc::clone(&queue))?,
            queue,
            base,
            held: Held::default(),
            names: Names::of_producer(config, transactional_id),
            seen: Seen::default(),
            sent: 0,
            taken: 0,
        })
    }

    fn native(&self) -> &NativeClient {
        self.base.client().native_client()
    }

    /// Waits for a broker, if one answers in time: a registration that begins while none is
    /// connected waits for a timer of 500 ms (`rd_kafka_txn_coord_query`).
    fn connect(&self, timeout: Duration) {
        let start = Instant::now();
        // The first answer may come over the connection to a bootstrap address, which is closed as
        // soon as the brokers' names are known. Who asks while a connection was just begun is
        // forgotten until a timer of one second (`rd_kafka_connect_any`): it is asked again.
        for _ in 0..2 {
            while start.elapsed() < timeout && raw::reach(self.native(), CONNECT).is_err() {}
        }
    }

    /// Adds offsets of a group without members to the transaction.
    ///
    /// The broker takes them while the group is empty. Once it has a member, it refuses them,
    /// because they name a member that it does not have: without any name a transaction is taken
    /// whoever is in the group (`validateOffsetCommit` of the group coordinator).
    ///
    /// # Errors
    /// [`ErrorKind::StaleGeneration`]: the group has a member.
    pub fn send_offsets_from_outside(
        &mut self,
        offsets: &[CommitOffset],
        group: &str,
        timeout: Duration,
    ) -> Result<(), KafkaError> {
        let metadata = CString::new(group).ok().and_then(|group| GroupMetadata::outside(&group));
        let metadata = metadata.ok_or_else(|| {
            let message = "the group's name cannot be used";
            KafkaError::new(SEND_OFFSETS, ErrorKind::Config, Disposition::Permanent, message)
        })?;
        self.send_offsets_of(offsets, &metadata, timeout)
    }

    fn send_offsets_of(
        &mut self,
        offsets: &[CommitOffset],
        group: &GroupMetadata,
        timeout: Duration,
    ) -> Result<(), KafkaError> {
        let elements = offsets
            .iter()
            .map(|commit| (&commit.partition, Some(commit.offset), &*commit.metadata));
        let offsets = list(SEND_OFFSETS, elements)?;
        let sent = raw::send_offsets(self.native(), &offsets, group, timeout);
        // Offsets are committed with the rights of a reader.
        let sent = sent.map_err(|failure| self.names.as_reader().explain(failure, &[]));
        sent.map_err(self.error(SEND_OFFSETS))
    }

    /// Sends the first of the outputs, and those after it that can go with it; gives where the rest
    /// begins.
    fn send_some(
        &mut self,
        outputs: &Arc<Vec<Output>>,
        which: Range<usize>,
        mark: Option<&[u8]>,
    ) -> Result<usize, Unsent> {
        let first = which.start;
        let native = self.base.client().native_client();
        let topic = self.topics.get(native, &outputs[first].topic);
        let topic = topic.map_err(|error| Unsent { index: first, error })?;
        let plain = if mark.is_none() { plain_alike(&outputs[which]) } else { 0 };
        let end = first + plain.max(1);
        // For one alone a list is only an allocation more.
        let sent = if plain > 1 {
            let records = (outputs, first..end, self.taken);
            raw::produce_batch(&topic.handle, records, &mut self.held)
        } else {
            let record = (outputs, first, self.taken);
            raw::produce(native, &topic.handle, record, mark, &mut self.held)
                .map_err(|failure| (first, failure))
        };
        let taken = sent.as_ref().map_or_else(|(index, _)| *index, |()| end);
        topic.sent(&outputs[first..taken]);
        self.sent += taken - first;
        self.taken += taken - first;
        sent.map_err(|(index, failure)| Unsent {
            index,
            error: refused(native, &outputs[index], failure),
        })?;
        Ok(end)
    }

    /// Reads the events that wait.
    fn drain(&mut self) {
        while self.read_one(Duration::ZERO) {}
    }

    /// Reads an event; gives whether one came in time.
    fn read_one(&mut self, timeout: Duration) -> bool {
        let event = self.queue.poll(timeout);
        event.map(|event| self.seen.read(event, &mut self.topics)).is_some()
    }

    /// Makes a call that fails with a timeout if events are not read meanwhile: aborted records
    /// have reports, which the call waits for.
    fn while_draining(
        &mut self,
        act: impl FnOnce(&NativeClient) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        self.drain();
        let native = self.base.client().native_client();
        if raw::in_flight(native) == 0 {
            return act(native);
        }
        let topics = self.topics.take();
        let into = Reading { seen: std::mem::take(&mut self.seen), topics };
        let (result, read) = self.drainer.during(into, || act(native));
        let Some(Reading { seen, topics }) = read else {
            return Err(Failure::of(Code::Fail, "the thread that reads events has panicked"));
        };
        (self.seen, self.topics) = (seen, topics);
        result
    }

    fn failed(&self) -> Result<(), KafkaError> {
        match (&self.seen.failed, raw::fatal_error(self.native())) {
            // What killed the client is also why the record failed.
            (_, Some(fatal)) => Err(self.classed("delivery", fatal)),
            (Some(failed), None) => Err(self.purged().unwrap_or_else(|| failed.clone())),
            (None, None) => Ok(()),
        }
    }

    /// Why records were given up. librdkafka keeps the error that a transaction failed with
    /// (`rd_kafka_txn_set_abortable_error`), and purges all records; any call for which the
    /// transaction is in the wrong state tells it (`rd_kafka_txn_require_states0`).
    fn purged(&self) -> Option<KafkaError> {
        let failure = self.seen.is_purged.then(|| raw::begin_transaction(self.native()))?.err()?;
        (failure.abortable || failure.fatal).then(|| self.classed("delivery", failure))
    }

    fn classed(&self, call: &'static str, failure: Failure) -> KafkaError {
        classify(call, self.names.explain(failure, &self.topics.sent_to()), Unflagged::Fatal)
    }

    /// Classes a transactional call's error.
    fn error(&mut self, call: &'static str) -> impl FnOnce(Failure) -> KafkaError + '_ {
        move |failure| {
            self.drain();
            explain(self.classed(call, failure), self.seen.fault.take())
        }
    }
}

impl Producer for LibrdProducer {
    type Group = LibrdGroup;

    async fn init(&mut self, timeout: Duration) -> Result<(), KafkaError> {
        self.seen = Seen::default();
        let start = Instant::now();
        self.connect(timeout);
        let left = timeout.saturating_sub(start.elapsed());
        raw::init_transactions(self.native(), left).map_err(self.error("init_transactions"))
    }

    fn begin(&mut self) -> Result<(), KafkaError> {
        self.drain();
        self.held.release(self.base.client().native_client());
        self.topics.forget_sent();
        self.seen = Seen::default();
        self.taken = 0;
        raw::begin_transaction(self.native()).map_err(self.error("begin_transaction"))
    }

    fn send(
        &mut self,
        outputs: &Arc<Vec<Output>>,
        which: Range<usize>,
        mark: Option<&[u8]>,
    ) -> Result<(), Unsent> {
        let mut left = which;
        while !left.is_empty() {
            if self.sent >= SENT_MAX {
                self.sent = 0;
                self.drain();
            }
            left.start = self.send_some(outputs, left.clone(), mark)?;
        }
        Ok(())
    }

    async fn flush(&mut self, in_flight: usize, timeout: Duration) -> Result<(), KafkaError> {
        let start = Instant::now();
        loop {
            self.drain();
            self.failed()?;
            if raw::in_flight(self.native()) <= in_flight {
                self.held.release(self.base.client().native_client());
                return Ok(());
            }
            let left = timeout.saturating_sub(start.elapsed());
            if left.is_zero() {
                let count = raw::in_flight(self.native());
                let message = format!("{count} records are without a delivery report");
                let kind = ErrorKind::Timeout;
                let error = KafkaError::new("flush", kind, Disposition::Retriable, message);
                return Err(explain(error, self.seen.fault.take()));
            }
            let look = LOOK.min(left);
            if self.topics.hold_a_batch() {
                self.read_one(look);
            } else {
                let flush = |native: &NativeClient| {
                    raw::flush(native, look);
                    Ok(())
                };
                self.while_draining(flush).map_err(self.error("flush"))?;
            }
        }
    }

    fn refused(&self) -> Refused {
        self.seen.refused.clone()
    }

    async fn send_offsets(
        &mut self,
        offsets: &[CommitOffset],
        group: &LibrdGroup,
        timeout: Duration,
    ) -> Result<(), KafkaError> {
        let metadata = group.metadata().ok_or_else(|| {
            KafkaError::new(
                SEND_OFFSETS,
                ErrorKind::NoGeneration,
                Disposition::Abortable,
                "the member is in no generation that may commit; nothing was sent",
            )
        })?;
        self.send_offsets_of(offsets, &metadata, timeout)
    }

    /// Refuses with the first failed delivery report, if there is one.
    async fn commit(&mut self, timeout: Duration) -> Result<(), KafkaError> {
        self.drain();
        self.failed()?;
        self.while_draining(|native| raw::commit_transaction(native, timeout))
            .map_err(self.error("commit_transaction"))
    }

    async fn abort(&mut self, timeout: Duration) -> Result<(), KafkaError> {
        self.while_draining(|native| raw::abort_transaction(native, timeout))
            .map_err(self.error("abort_transaction"))
    }
}

impl Drop for LibrdProducer {
    /// Gives up what is in flight and reads the reports of it, for which the binding's own drop
    /// would wait in steps of 100 ms.
    fn drop(&mut self) {
        raw::purge(self.native());
        let start = Instant::now();
        while raw::in_flight(self.native()) > 0 && start.elapsed() < PURGE {
            self.read_one(LOOK);
        }
        self.held.release(self.base.client().native_client());
    }
}
