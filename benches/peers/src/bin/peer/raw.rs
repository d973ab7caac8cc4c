//! The loop that everybody writes: begin, copy, flush, send offsets, commit, again.

use std::error::Error;
use std::time::{Duration, Instant};

use rdkafka::bindings::{rd_kafka_flush, rd_kafka_resp_err_t};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::Message as _;
use rdkafka::producer::{BaseProducer, Producer as _};

use crate::client::{self, Options, PATIENCE, Positions};

/// How long a read waits for the first message of a transaction.
const IDLE: Duration = Duration::from_millis(100);
/// Looking at the clock for every message would cost more than some messages do.
const CLOCK_EVERY: u64 = 64;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    options: Options,
    /// End a transaction as soon as nothing waits
    #[arg(long)]
    early: bool,
    /// librdkafka's retry.backoff.ms, which is how long the first request of a transaction waits
    /// while the markers of the last are being written
    #[arg(long, default_value_t = 100)]
    retry_backoff_ms: u32,
}

pub(crate) fn run(args: &Args) -> Result<(), Box<dyn Error>> {
    let options = &args.options;
    let producer: BaseProducer = client::producer_config(options)
        .set("transactional.id", &options.group)
        .set("transaction.timeout.ms", "10000")
        .set("retry.backoff.ms", args.retry_backoff_ms.to_string())
        // An event per record would cost more than the record; a refused one fails the commit.
        .set("delivery.report.only.error", "true")
        .create()?;
    producer.init_transactions(PATIENCE)?;
    let consumer = client::consumer(options)?;
    let mut copying = Copying { args, consumer, producer, positions: Positions::default() };
    let mut committed = 0;
    while committed < options.records {
        committed += copying.transaction(options.bound(options.records - committed))?;
    }
    Ok(())
}

struct Copying<'a> {
    args: &'a Args,
    consumer: BaseConsumer,
    producer: BaseProducer,
    positions: Positions,
}

impl Copying<'_> {
    /// Runs one transaction and returns how many records it holds.
    fn transaction(&mut self, bound: u64) -> Result<u64, Box<dyn Error>> {
        let options = &self.args.options;
        let Some(first) = self.consumer.poll(IDLE) else { return Ok(0) };
        let mut message = first?;
        self.producer.begin_transaction()?;
        let end = Instant::now() + Duration::from_millis(options.commit_interval_ms);
        let mut count = 0;
        loop {
            client::copy(&self.producer, &options.output, &message, || ())?;
            self.positions.passed(message.partition(), message.offset());
            count += 1;
            if count == bound || (count % CLOCK_EVERY == 0 && Instant::now() >= end) {
                break;
            }
            match self.next(end) {
                Some(next) => message = next?,
                None => break,
            }
        }
        self.commit()?;
        Ok(count)
    }

    /// The next message, unless the transaction is to end before there is one.
    fn next(
        &self,
        end: Instant,
    ) -> Option<Result<rdkafka::message::BorrowedMessage<'_>, KafkaError>> {
        let waiting = self.consumer.poll(Duration::ZERO);
        if waiting.is_some() || self.args.early {
            return waiting;
        }
        self.consumer.poll(end.saturating_duration_since(Instant::now()))
    }

    fn commit(&mut self) -> Result<(), Box<dyn Error>> {
        flush(&self.producer)?;
        let group = self.consumer.group_metadata().ok_or("not a member of the group")?;
        let offsets = self.positions.offsets(&self.args.options.input)?;
        self.producer.send_offsets_to_transaction(&offsets, &group, PATIENCE)?;
        self.producer.commit_transaction(PATIENCE)?;
        Ok(())
    }
}

/// Waits until nothing is in flight. The binding's own flush sleeps 100 ms at a time where there
/// are no delivery reports to wake it.
fn flush(producer: &BaseProducer) -> Result<(), Box<dyn Error>> {
    let patience = i32::try_from(PATIENCE.as_millis())?;
    #[expect(unsafe_code, reason = "the binding has no other way to the C function")]
    // SAFETY: the pointer is that of a client that lives until the end of this call.
    let code = unsafe { rd_kafka_flush(producer.client().native_ptr(), patience) };
    match code {
        rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR => Ok(()),
        refused => Err(KafkaError::Flush(refused.into()).into()),
    }
}
