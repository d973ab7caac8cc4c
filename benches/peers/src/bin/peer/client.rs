//! What the loops over rdkafka have in common: options, clients, and how a record is copied.

use std::error::Error;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message as _};
use rdkafka::producer::{BaseProducer, BaseRecord, ProducerContext};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::util::IntoOpaque;

/// How long one call to Kafka may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// What every peer takes; benches/README.md says what it means.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    #[arg(long)]
    pub(crate) brokers: String,
    #[arg(long)]
    pub(crate) group: String,
    #[arg(long)]
    pub(crate) input: String,
    #[arg(long)]
    pub(crate) output: String,
    #[arg(long)]
    pub(crate) records: u64,
    #[arg(long)]
    pub(crate) commit_interval_ms: u64,
    #[arg(long)]
    pub(crate) transaction_records: u64,
    #[arg(long, default_value_t = 20)]
    pub(crate) linger_ms: u32,
    #[arg(long)]
    pub(crate) compression: Codec,
    #[arg(long)]
    pub(crate) state_dir: String,
}

/// How outputs are compressed.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub(crate) enum Codec {
    None,
    Lz4,
}

impl Codec {
    fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Lz4 => "lz4",
        }
    }
}

impl Options {
    /// How many records the next transaction may hold, with `left` to go.
    pub(crate) fn bound(&self, left: u64) -> u64 {
        if self.transaction_records == 0 { left } else { left.min(self.transaction_records) }
    }
}

/// A consumer that has subscribed.
pub(crate) fn consumer(options: &Options) -> Result<BaseConsumer, KafkaError> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", &options.brokers)
        .set("group.id", &options.group)
        .set("isolation.level", "read_committed")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "earliest")
        // The default makes a fetcher that met a full queue sleep for a second.
        .set("fetch.queue.backoff.ms", "10")
        .create()?;
    consumer.subscribe(&[&options.input])?;
    Ok(consumer)
}

/// The settings that both producers have.
pub(crate) fn producer_config(options: &Options) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", &options.brokers)
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("linger.ms", options.linger_ms.to_string())
        .set("compression.type", options.compression.name())
        .set("queue.buffering.max.messages", "500000");
    config
}

/// Sends a message to the partition of the same number, waiting for room.
pub(crate) fn copy<C, O>(
    producer: &BaseProducer<C>,
    topic: &str,
    message: &BorrowedMessage<'_>,
    opaque: impl Fn() -> O,
) -> Result<(), Box<dyn Error>>
where
    C: ProducerContext<DeliveryOpaque = O>,
    O: IntoOpaque,
{
    let mut record: BaseRecord<'_, [u8], [u8], O> =
        BaseRecord::with_opaque_to(topic, opaque()).partition(message.partition());
    record.key = message.key();
    record.payload = message.payload();
    record.timestamp = message.timestamp().to_millis();
    loop {
        match producer.send(record) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), refused)) => {
                record = refused;
                producer.poll(Duration::from_millis(10));
            }
            Err((error, _)) => return Err(error.into()),
        }
    }
}

/// Where each partition goes on.
#[derive(Debug, Default)]
pub(crate) struct Positions(Vec<Option<i64>>);

impl Positions {
    /// Notes that all of the partition up to the offset is done.
    pub(crate) fn passed(&mut self, partition: i32, offset: i64) {
        let index = usize::try_from(partition).unwrap_or_default();
        if index >= self.0.len() {
            self.0.resize(index + 1, None);
        }
        if let Some(position) = self.0.get_mut(index) {
            *position = Some(offset + 1);
        }
    }

    /// The positions that were noted since the last call, as they are committed.
    pub(crate) fn offsets(&mut self, topic: &str) -> Result<TopicPartitionList, KafkaError> {
        let mut offsets = TopicPartitionList::new();
        for (partition, position) in (0..).zip(&mut self.0) {
            if let Some(position) = position.take() {
                offsets.add_partition_offset(topic, partition, Offset::Offset(position))?;
            }
        }
        Ok(offsets)
    }
}
