//! A paced producer and a `read_committed` reader, and the time a message takes from one to the
//! other. The time of sending stands in the message; both are in this process, with one clock.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::Message as _;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::case::Data;
use crate::child::now_ms;
use crate::data;

/// How many partitions input and output have.
pub(crate) const PARTITIONS: u32 = 4;
const BYTES: usize = 200;
/// Where the time of sending stands in a value, after its number.
const TIME_AT: usize = 8;
/// How long a message may take before it counts as lost.
const PATIENCE: Duration = Duration::from_secs(30);
/// The same once the peer has ended: what it wrote can only be on its way to the reader.
const PATIENCE_AFTER_END: Duration = Duration::from_secs(5);
/// How long the sender sleeps at least: a wake-up for every message would take a CPU of its own.
const TICK: Duration = Duration::from_millis(1);
/// How often the sender looks whether its first message has come through.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);

type Failure = Box<dyn Error + Send + Sync>;

/// How fast and how long. The first message goes alone: when it has come through, the peer is
/// ready, however long it took to start.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// Messages a second.
    pub(crate) rate: u64,
    pub(crate) warm_up_s: u64,
    pub(crate) measured_s: u64,
}

impl Pace {
    /// How many messages there are.
    pub(crate) fn messages(&self) -> u64 {
        self.warm_up_messages() + self.measured_s * self.rate
    }

    fn warm_up_messages(&self) -> u64 {
        1 + self.warm_up_s * self.rate
    }
}

/// What the reader and the sender share.
#[derive(Debug)]
struct Exchange {
    base: Instant,
    pace: Pace,
    /// The first message has come.
    ready: AtomicBool,
    /// The reader is done.
    stopped: AtomicBool,
}

/// What the reader saw after the warm-up.
#[derive(Debug)]
pub(crate) struct Measured {
    /// How long each message took, in microseconds.
    pub(crate) times_us: Vec<u32>,
    /// When the first and the last came, in milliseconds since the epoch.
    pub(crate) from_ms: f64,
    pub(crate) to_ms: f64,
}

/// Sends all messages, and receives all of them once.
pub(crate) fn exchange(
    brokers: &str,
    input: &str,
    output: &str,
    pace: Pace,
    has_ended: &dyn Fn() -> bool,
) -> Result<Measured, Box<dyn Error>> {
    let consumer = reader(brokers, output)?;
    let exchange = Arc::new(Exchange {
        base: Instant::now(),
        pace,
        ready: AtomicBool::new(false),
        stopped: AtomicBool::new(false),
    });
    let sender = {
        let (brokers, topic) = (brokers.to_owned(), input.to_owned());
        let exchange = Arc::clone(&exchange);
        thread::spawn(move || exchange.send(&brokers, &topic))
    };
    let received = exchange.receive(&consumer, has_ended);
    exchange.stopped.store(true, Ordering::Relaxed);
    let sent = sender.join().map_err(|_| "the sender panicked")?;
    sent.map_err(|error| format!("sending: {error}"))?;
    received
}

impl Exchange {
    fn send(&self, brokers: &str, topic: &str) -> Result<(), Failure> {
        let producer: BaseProducer = ClientConfig::new()
            .set("bootstrap.servers", brokers)
            // Enough for what is sent at once to be one request.
            .set("linger.ms", "0.2")
            // The broker takes one request after another: what waits for it must grow into batches,
            // or a queue of small requests that has built up once never goes down again.
            .set("max.in.flight.requests.per.connection", "2")
            .set("delivery.report.only.error", "true")
            .create()?;
        self.send_one(&producer, topic, 0)?;
        while !self.ready.load(Ordering::Relaxed) {
            if self.stopped.load(Ordering::Relaxed) {
                return Ok(());
            }
            thread::sleep(LOOK_INTERVAL);
        }
        let started = Instant::now();
        let period = Duration::from_secs(1) / u32::try_from(self.pace.rate)?;
        for index in 1..self.pace.messages() {
            let due = started + period * u32::try_from(index)?;
            // After a sleep all that are due by then are sent at once.
            if Instant::now() < due {
                thread::sleep(TICK.max(due.saturating_duration_since(Instant::now())));
            }
            if self.stopped.load(Ordering::Relaxed) {
                return Ok(());
            }
            self.send_one(&producer, topic, index)?;
        }
        Ok(producer.flush(PATIENCE)?)
    }

    fn send_one(&self, producer: &BaseProducer, topic: &str, index: u64) -> Result<(), Failure> {
        let mut value = Vec::with_capacity(BYTES + 16);
        data::fill(&mut value, Data::Random, index, BYTES);
        let sent_us = u64::try_from(self.base.elapsed().as_micros())?;
        if let Some(time) = value.get_mut(TIME_AT..TIME_AT + 8) {
            time.copy_from_slice(&sent_us.to_be_bytes());
        }
        // What is sent in one tick goes to one partition.
        let tick = index * 1_000 / self.pace.rate;
        let partition = i32::try_from(tick % u64::from(PARTITIONS))?;
        let record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(topic).partition(partition);
        producer.send(record.payload(&value)).map_err(|(error, _)| error)?;
        Ok(())
    }

    fn receive(
        &self,
        consumer: &BaseConsumer,
        has_ended: &dyn Fn() -> bool,
    ) -> Result<Measured, Box<dyn Error>> {
        let messages = self.pace.messages();
        let mut seen = vec![false; usize::try_from(messages)?];
        let mut measured = Measured { times_us: Vec::new(), from_ms: 0.0, to_ms: 0.0 };
        let mut left = messages;
        let mut heard = Instant::now();
        while left > 0 {
            match consumer.poll(Duration::from_millis(100)) {
                Some(Ok(message)) => {
                    heard = Instant::now();
                    let index = self.note(message.payload(), &mut measured)?;
                    let seen = seen.get_mut(usize::try_from(index)?).ok_or("an unknown message")?;
                    if std::mem::replace(seen, true) {
                        return Err(format!("NOT EXACT: message {index} came twice").into());
                    }
                    left -= 1;
                }
                Some(Err(error)) if is_passing(&error) => {}
                Some(Err(error)) => return Err(error.into()),
                None => {}
            }
            let silence = heard.elapsed();
            if silence > PATIENCE || (has_ended() && silence > PATIENCE_AFTER_END) {
                return Err(format!("{left} of {messages} messages did not come").into());
            }
        }
        measured.to_ms = now_ms();
        Ok(measured)
    }

    /// Takes the time of a message, and gives its number.
    fn note(&self, value: Option<&[u8]>, measured: &mut Measured) -> Result<u64, Box<dyn Error>> {
        let now_us = u64::try_from(self.base.elapsed().as_micros())?;
        let (index, sent_us) = stamp(value).ok_or("a damaged message")?;
        self.ready.store(true, Ordering::Relaxed);
        if index >= self.pace.warm_up_messages() {
            if measured.times_us.is_empty() {
                measured.from_ms = now_ms();
            }
            measured.times_us.push(u32::try_from(now_us.saturating_sub(sent_us))?);
        }
        Ok(index)
    }
}

fn reader(brokers: &str, topic: &str) -> Result<BaseConsumer, KafkaError> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        // Required by the client; nothing joins or commits.
        .set("group.id", "bench-peers-reader")
        .set("enable.auto.commit", "false")
        .set("isolation.level", "read_committed")
        .create()?;
    let mut assignment = TopicPartitionList::new();
    for partition in (0..).take(PARTITIONS as usize) {
        assignment.add_partition_offset(topic, partition, Offset::Beginning)?;
    }
    consumer.assign(&assignment)?;
    Ok(consumer)
}

/// What librdkafka says of a topic that was made a moment ago.
fn is_passing(error: &KafkaError) -> bool {
    matches!(
        error,
        KafkaError::MessageConsumption(
            RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::BrokerTransportFailure
        )
    )
}

/// A message's number and when it was sent.
fn stamp(value: Option<&[u8]>) -> Option<(u64, u64)> {
    let index = data::index(value?, Data::Random)?;
    let sent = value?.get(TIME_AT..)?.first_chunk()?;
    Some((index, u64::from_be_bytes(*sent)))
}
