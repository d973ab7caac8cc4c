//! The loop without transactions: offsets are committed once the outputs are acknowledged, so that
//! a crash doubles some outputs and loses none.

use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::{DeliveryResult, Message as _};
use rdkafka::producer::{BaseProducer, Producer as _, ProducerContext};

use crate::client::{self, Options, PATIENCE, Positions};

/// How long a read waits when nothing is there: delivery reports are served in between.
const IDLE: Duration = Duration::from_millis(1);
/// How many records are copied before delivery reports and the clock are looked at.
const SERVE_EVERY: u64 = 64;

/// What is acknowledged. An idempotent producer has its records acknowledged in order of each
/// output partition, and one input partition goes to one output partition.
#[derive(Debug, Default)]
struct Acknowledged {
    positions: Positions,
    failed: Option<KafkaError>,
}

#[derive(Clone, Default)]
struct Reports(Arc<Mutex<Acknowledged>>);

impl ClientContext for Reports {}

impl ProducerContext for Reports {
    /// The offset of the input.
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, offset: usize) {
        let mut acknowledged = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match result {
            Ok(message) => {
                let offset = i64::try_from(offset).unwrap_or_default();
                acknowledged.positions.passed(message.partition(), offset);
            }
            Err((error, _)) => acknowledged.failed = Some(error.clone()),
        }
    }
}

pub(crate) fn run(options: &Options) -> Result<(), Box<dyn Error>> {
    let reports = Reports::default();
    let producer: BaseProducer<Reports> =
        client::producer_config(options).create_with_context(reports.clone())?;
    let consumer = client::consumer(options)?;
    let interval = Duration::from_millis(options.commit_interval_ms);
    let mut end = Instant::now() + interval;
    let mut since = 0;
    for count in 1..=options.records {
        let message = next(&consumer, &producer)?;
        let offset = usize::try_from(message.offset())?;
        client::copy(&producer, &options.output, &message, || offset)?;
        since += 1;
        let mut due = since == options.transaction_records;
        if count % SERVE_EVERY == 0 {
            producer.poll(Duration::ZERO);
            due |= Instant::now() >= end;
        }
        if due {
            commit(&consumer, &reports, options, CommitMode::Async)?;
            since = 0;
            end = Instant::now() + interval;
        }
    }
    producer.flush(PATIENCE)?;
    commit(&consumer, &reports, options, CommitMode::Sync)
}

fn next<'a>(
    consumer: &'a BaseConsumer,
    producer: &BaseProducer<Reports>,
) -> Result<rdkafka::message::BorrowedMessage<'a>, KafkaError> {
    loop {
        if let Some(message) = consumer.poll(Duration::ZERO) {
            return message;
        }
        producer.poll(Duration::ZERO);
        if let Some(message) = consumer.poll(IDLE) {
            return message;
        }
    }
}

fn commit(
    consumer: &BaseConsumer,
    reports: &Reports,
    options: &Options,
    mode: CommitMode,
) -> Result<(), Box<dyn Error>> {
    let mut acknowledged = reports.0.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(error) = acknowledged.failed.take() {
        return Err(error.into());
    }
    let offsets = acknowledged.positions.offsets(&options.input)?;
    if offsets.count() > 0 {
        consumer.commit(&offsets, mode)?;
    }
    Ok(())
}
