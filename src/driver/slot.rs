//! The loop of a producer slot: one thread, one transactional id, blocking calls.
//!
//! It carries out what the worker orders and reports what came of it. Calls that may be repeated
//! with the same arguments are repeated here until their deadline; every other decision is the
//! worker's. The clock of the duration rule starts when nothing is in flight any more.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use countersign_statemachine::worker::{Call, Refusal, SlotEvent, is_suspicious};
use countersign_statemachine::{Disposition, PartitionId, Span};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::kafka::{CommitOffset, ErrorKind, Kafka, KafkaError, Producer, Unsent};
use crate::provenance::Mark;

use super::inbox::{Inbox, News, SlotNews};
use super::order::{Order, Sending, SlotConfig, name_of};
use super::pulse::{GivenUp, Pulse};
use super::reaper::Reaper;
use super::results::Results;
use super::sent::Sent;

/// How many records may stay in the local queue when it is full, at first.
const QUEUE_FULL_KEEP: usize = 10_000;

/// How long one call may take before it is looked at again.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) struct SlotLoop<K: Kafka> {
    kafka: Arc<K>,
    group: K::Group,
    config: SlotConfig,
    inbox: Inbox,
    pulse: Pulse,
    reaper: Reaper,
    producer: Option<K::Producer>,
    begun: bool,
    /// A call failed: what was ordered before the worker knew is passed over.
    failed: bool,
    outputs: BTreeMap<PartitionId, u64>,
    sent: Sent,
    /// Since when delivery reports of the open transaction are waited for.
    waits: Option<Instant>,
    mark: String,
}

/// Why an order was not carried out.
enum Undone {
    /// A call failed; whose outputs were refused, if it is known.
    Failed(Call, KafkaError, Option<Refusal>),
    /// Another loop has the slot.
    GivenUp,
}

impl From<GivenUp> for Undone {
    fn from(GivenUp: GivenUp) -> Self {
        Self::GivenUp
    }
}

type CallResult<T = ()> = Result<T, Undone>;

/// A call that is told to whoever watches the loop.
struct Watched {
    pulse: Pulse,
    call: Call,
}

impl Watched {
    async fn during<T>(
        &self,
        within: Duration,
        future: impl Future<Output = T>,
    ) -> Result<T, GivenUp> {
        self.pulse.during(name_of(self.call), within, future).await
    }
}

fn failed(call: Call) -> impl FnOnce(KafkaError) -> Undone {
    move |error| Undone::Failed(call, error, None)
}

impl<K: Kafka> SlotLoop<K> {
    pub(super) fn new(
        (kafka, group): (Arc<K>, K::Group),
        config: SlotConfig,
        inbox: Inbox,
        pulse: Pulse,
        reaper: Reaper,
    ) -> Self {
        Self {
            kafka,
            group,
            config,
            inbox,
            pulse,
            reaper,
            producer: None,
            begun: false,
            failed: false,
            outputs: BTreeMap::new(),
            sent: Sent::default(),
            waits: None,
            mark: String::new(),
        }
    }

    pub(super) async fn run(mut self, mut orders: mpsc::UnboundedReceiver<Order>) {
        while let Some(order) = orders.recv().await {
            // The driver has ended: what it ordered last could take the id from its successor.
            if orders.is_closed() {
                return;
            }
            let passed_over = matches!(order, Order::Send(_) | Order::Flush | Order::Commit(_));
            if self.failed && passed_over {
                continue;
            }
            let (call, started) = (order.call(), Instant::now());
            let done = self.carry_out(order).await;
            let took_us = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
            tracing::debug!(slot = self.config.slot, ?call, took_us, "producer call");
            // What failed has returned, too.
            if done.is_err() && self.pulse.leave().is_err() {
                return;
            }
            match done {
                Ok(None) => {}
                Ok(Some(event)) => self.report(SlotNews::Done(event)),
                Err(Undone::Failed(call, error, refusal)) => {
                    self.failed = true;
                    self.report(SlotNews::Failed { call, error, refusal });
                }
                Err(Undone::GivenUp) => {
                    tracing::warn!(slot = self.config.slot, ?call, took_us, "a lost call returned");
                    return;
                }
            }
        }
    }

    fn report(&self, news: SlotNews) {
        let SlotConfig { slot, life, .. } = self.config;
        self.inbox.send(News::Slot { slot, life, news });
    }

    async fn carry_out(&mut self, order: Order) -> CallResult<Option<SlotEvent>> {
        match order {
            Order::Open => self.open().await.map(Some),
            Order::Send(sending) => self.send(&sending).await.map(|()| None),
            Order::Flush => self.flush().await.map(Some),
            Order::Commit(offsets) => self.commit(&offsets).await.map(Some),
            Order::Abort => self.abort().await.map(Some),
        }
    }

    fn producer(&mut self, call: Call) -> CallResult<&mut K::Producer> {
        self.producer.as_mut().ok_or_else(|| {
            let error = KafkaError::new(
                "producer",
                ErrorKind::Other,
                Disposition::Fatal,
                "the slot has no producer",
            );
            failed(call)(error)
        })
    }

    /// The producer, for a call under watch.
    fn watched(&mut self, call: Call) -> CallResult<(&mut K::Producer, Watched)> {
        let watched = Watched { pulse: self.pulse.clone(), call };
        Ok((self.producer(call)?, watched))
    }

    /// A former producer is closed elsewhere, which may take long: its transaction, if any, is
    /// ended by the registration.
    async fn open(&mut self) -> CallResult<SlotEvent> {
        if let Some(former) = self.producer.take() {
            self.reaper.close(former);
        }
        self.end();
        let (id, sizes) = (&self.config.transactional_id, *self.config.sizes.borrow());
        self.pulse.enter(name_of(Call::Open), CALL_TIMEOUT)?;
        let mut producer = self.kafka.producer(id, sizes).map_err(failed(Call::Open))?;
        let deadline = Instant::now() + self.config.transaction_timeout * 3;
        loop {
            let init = producer.init(CALL_TIMEOUT);
            match self.pulse.during(name_of(Call::Open), CALL_TIMEOUT, init).await? {
                Ok(()) => break,
                Err(error) if may_repeat(&error, deadline) => {}
                Err(error) => {
                    self.reaper.close(producer);
                    return Err(failed(Call::Open)(error));
                }
            }
        }
        self.producer = Some(producer);
        self.failed = false;
        Ok(SlotEvent::Opened)
    }

    fn begin(&mut self) -> CallResult {
        if !self.begun {
            self.producer(Call::Send)?.begin().map_err(failed(Call::Send))?;
            self.begun = true;
        }
        Ok(())
    }

    async fn send(&mut self, sending: &Sending) -> CallResult {
        self.pulse.enter(name_of(Call::Send), CALL_TIMEOUT)?;
        self.begin()?;
        let mark = self.config.provenance.then(|| Mark::new(&sending.author, &sending.partition));
        for &(span, ref results) in &sending.parts {
            let places = results.places(span);
            *self.outputs.entry(sending.id).or_default() += places.len() as u64;
            self.sent.note(sending.id, results, places.clone());
            match &mark {
                Some(mark) => self.send_marked(span, sending.id, results, mark).await?,
                None => self.hand_over(places, sending.id, results).await?,
            }
        }
        Ok(self.pulse.leave()?)
    }

    /// Each mark is of one output.
    async fn send_marked(
        &mut self,
        span: Span,
        id: PartitionId,
        results: &Results,
        mark: &Mark,
    ) -> CallResult {
        for offset in span.first..span.end {
            let places = results.places(Span::one(offset));
            let of = u32::try_from(places.len()).unwrap_or(u32::MAX);
            for (n, index) in (1_u32..).zip(places) {
                mark.write(offset, n, of, &mut self.mark);
                self.hand_over(index..index + 1, id, results).await?;
            }
        }
        Ok(())
    }

    async fn hand_over(
        &mut self,
        mut left: Range<usize>,
        id: PartitionId,
        results: &Results,
    ) -> CallResult {
        let mut keep = QUEUE_FULL_KEEP;
        loop {
            let mark = self.config.provenance.then_some(self.mark.as_bytes());
            let Some(producer) = &mut self.producer else { return Ok(()) };
            match producer.send(results.outputs(), left.clone(), mark) {
                Ok(()) => return Ok(()),
                Err(Unsent { index, error }) if error.kind == ErrorKind::QueueFull => {
                    // A few large records can fill it, too.
                    keep = if index == left.start { keep / 2 } else { QUEUE_FULL_KEEP };
                    left.start = index;
                    self.make_room(keep).await?;
                }
                Err(Unsent { index, error }) => {
                    let message = results.message_of(index).map(|offset| (id, offset));
                    return Err(self.unsent(error, message).await);
                }
            }
        }
    }

    /// An output was not taken: for what it is, or because of one that was sent before it.
    async fn unsent(&mut self, error: KafkaError, message: Option<(PartitionId, u64)>) -> Undone {
        let is_of_another = !error.is_refusal() && error.disposition == Disposition::Abortable;
        if is_of_another {
            match self.delivered(0, CALL_TIMEOUT).await {
                Err(Undone::GivenUp) => return Undone::GivenUp,
                Err(Undone::Failed(call, earlier, refusal)) if earlier.is_refusal() => {
                    return Undone::Failed(call, earlier, refusal);
                }
                Err(Undone::Failed(..)) | Ok(()) => {}
            }
        }
        Undone::Failed(Call::Send, error, message.map(|message| Refusal::Of(vec![message])))
    }

    /// How long delivery reports may still be waited for: what is not delivered by then is aborted
    /// while its transaction is not timed out, and something smaller is tried.
    fn patience(&mut self) -> Duration {
        let since = *self.waits.get_or_insert_with(Instant::now);
        (self.config.transaction_timeout * 3 / 4).saturating_sub(since.elapsed())
    }

    /// Waits until at most `in_flight` records are without a delivery report.
    async fn delivered(&mut self, in_flight: usize, timeout: Duration) -> CallResult {
        let (producer, watched) = self.watched(Call::Flush)?;
        let flushed = watched.during(timeout, producer.flush(in_flight, timeout)).await?;
        let refused = producer.refused();
        flushed.map_err(|error| Undone::Failed(Call::Flush, error, self.sent.refusal(&refused)))
    }

    async fn make_room(&mut self, keep: usize) -> CallResult {
        let patience = self.patience();
        self.delivered(keep, patience).await?;
        Ok(self.pulse.enter(name_of(Call::Send), CALL_TIMEOUT)?)
    }

    async fn flush(&mut self) -> CallResult<SlotEvent> {
        if self.begun {
            let patience = self.patience();
            self.delivered(0, patience).await?;
        }
        let outputs = self.outputs.iter().map(|(&id, &outputs)| (id, outputs)).collect();
        Ok(SlotEvent::Flushed { outputs })
    }

    async fn commit(&mut self, offsets: &[CommitOffset]) -> CallResult<SlotEvent> {
        self.begin()?;
        let deadline = Instant::now() + self.config.transaction_timeout;
        let offsets_suspicious = self.send_offsets(offsets, deadline).await?;
        let started = Instant::now();
        let deadline = started + self.config.transaction_timeout;
        let (producer, watched) = self.watched(Call::Commit)?;
        let mut repeated = false;
        loop {
            match watched.during(CALL_TIMEOUT, producer.commit(CALL_TIMEOUT)).await? {
                Ok(()) => break,
                // After a time-out only the same call may be made again.
                Err(error) if may_repeat(&error, deadline) => repeated = true,
                Err(error) => return Err(failed(Call::Commit)(error)),
            }
        }
        let slow = is_suspicious(Call::Commit, started.elapsed(), self.config.retry_backoff);
        self.end();
        Ok(SlotEvent::Committed { suspicious: offsets_suspicious || slow || repeated })
    }

    /// Gives whether a copy of the request may arrive late.
    async fn send_offsets(
        &mut self,
        offsets: &[CommitOffset],
        deadline: Instant,
    ) -> CallResult<bool> {
        let group = self.group.clone();
        let backoff = self.config.retry_backoff;
        let (producer, watched) = self.watched(Call::SendOffsets)?;
        let started = Instant::now();
        let mut repeated = false;
        loop {
            let sent = producer.send_offsets(offsets, &group, CALL_TIMEOUT);
            match watched.during(CALL_TIMEOUT, sent).await? {
                Ok(()) => break,
                Err(error) if may_repeat(&error, deadline) => repeated = true,
                Err(error) => return Err(failed(Call::SendOffsets)(error)),
            }
        }
        Ok(repeated || is_suspicious(Call::SendOffsets, started.elapsed(), backoff))
    }

    async fn abort(&mut self) -> CallResult<SlotEvent> {
        // An error before it leaves copies of requests that may arrive late.
        let has_failed = std::mem::replace(&mut self.failed, false);
        if !self.begun {
            self.end();
            return Ok(SlotEvent::Aborted { suspicious: has_failed });
        }
        let backoff = self.config.retry_backoff;
        let started = Instant::now();
        let deadline = started + self.config.transaction_timeout;
        let (producer, watched) = self.watched(Call::Abort)?;
        loop {
            match watched.during(CALL_TIMEOUT, producer.abort(CALL_TIMEOUT)).await? {
                Ok(()) => break,
                Err(error) if may_repeat(&error, deadline) => {}
                Err(error) => return Err(failed(Call::Abort)(error)),
            }
        }
        let slow = is_suspicious(Call::Abort, started.elapsed(), backoff);
        self.end();
        Ok(SlotEvent::Aborted { suspicious: has_failed || slow })
    }

    fn end(&mut self) {
        self.begun = false;
        self.outputs.clear();
        self.sent = Sent::default();
        self.waits = None;
    }
}

fn may_repeat(error: &KafkaError, deadline: Instant) -> bool {
    error.disposition == Disposition::Retriable && Instant::now() < deadline
}

#[cfg(test)]
#[path = "slot_test.rs"]
mod tests;
