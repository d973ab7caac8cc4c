//! Fills a topic quickly.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _, ProducerContext, PurgeConfig};

use super::{POLL_INTERVAL, ReaderError};

const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);

/// A record to be loaded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LoadRecord {
    /// Where to; `None` lets the key's murmur2 hash decide, as the Java clients do.
    pub partition: Option<u32>,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its value.
    pub value: Option<Vec<u8>>,
}

/// Counts delivery reports.
#[derive(Debug, Default)]
struct Reports {
    acknowledged: AtomicU64,
    failed: Mutex<Option<KafkaError>>,
}

#[derive(Clone)]
struct LoadContext(Arc<Reports>);

impl ClientContext for LoadContext {}

impl ProducerContext for LoadContext {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        match result {
            Ok(_) => {
                self.0.acknowledged.fetch_add(1, Ordering::Relaxed);
            }
            Err((error, _)) => {
                let mut failed = self.0.failed.lock().unwrap_or_else(PoisonError::into_inner);
                failed.get_or_insert_with(|| error.clone());
            }
        }
    }
}

/// Writes `total` records, of which `record` makes the one at each index, and returns once all are
/// acknowledged. `progress` hears now and then how many are.
///
/// # Errors
/// A record was refused, or it takes longer than `timeout`.
pub fn load(
    bootstrap: &str,
    topic: &str,
    total: u64,
    timeout: Duration,
    mut record: impl FnMut(u64) -> LoadRecord,
    progress: impl FnMut(u64),
) -> Result<(), ReaderError> {
    let reports = Arc::new(Reports::default());
    let producer = loader(bootstrap, &reports)?;
    let deadline = Instant::now() + timeout;
    let mut load = Load { producer, reports, topic, total, timeout, deadline, progress };
    let mut reported = Instant::now();
    for index in 0..total {
        load.send(&record(index))?;
        // A look at the clock for every record would cost more than sending it.
        if index % 1024 == 0 && reported.elapsed() >= PROGRESS_INTERVAL {
            load.poll(Duration::ZERO)?;
            reported = Instant::now();
        }
    }
    while load.acknowledged() < total {
        load.poll(POLL_INTERVAL)?;
    }
    (load.progress)(total);
    Ok(())
}

fn loader(
    bootstrap: &str,
    reports: &Arc<Reports>,
) -> Result<BaseProducer<LoadContext>, ReaderError> {
    ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("enable.idempotence", "true")
        .set("linger.ms", "5")
        .set("batch.size", "1000000")
        .set("batch.num.messages", "100000")
        .set("queue.buffering.max.messages", "500000")
        .set("partitioner", "murmur2_random")
        .set("reconnect.backoff.max.ms", "500")
        .create_with_context(LoadContext(Arc::clone(reports)))
        .map_err(ReaderError::kafka("creating a producer for", bootstrap))
}

struct Load<'a, P> {
    producer: BaseProducer<LoadContext>,
    reports: Arc<Reports>,
    topic: &'a str,
    total: u64,
    timeout: Duration,
    deadline: Instant,
    progress: P,
}

impl<P: FnMut(u64)> Load<'_, P> {
    fn acknowledged(&self) -> u64 {
        self.reports.acknowledged.load(Ordering::Relaxed)
    }

    fn send(&mut self, record: &LoadRecord) -> Result<(), ReaderError> {
        let mut next: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(self.topic);
        if let Some(partition) = record.partition {
            next = next.partition(i32::try_from(partition).unwrap_or(i32::MAX));
        }
        if let Some(key) = &record.key {
            next = next.key(key);
        }
        if let Some(value) = &record.value {
            next = next.payload(value);
        }
        loop {
            match self.producer.send(next) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), refused)) => {
                    next = refused;
                    self.poll(POLL_INTERVAL)?;
                }
                Err((source, _)) => {
                    return Err(ReaderError::kafka("writing to", self.topic)(source));
                }
            }
        }
    }

    fn poll(&mut self, wait: Duration) -> Result<(), ReaderError> {
        self.producer.poll(wait);
        let failed = self.reports.failed.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(source) = failed {
            return Err(ReaderError::kafka("writing to", self.topic)(source));
        }
        let acknowledged = self.acknowledged();
        (self.progress)(acknowledged);
        if Instant::now() >= self.deadline && acknowledged < self.total {
            // Otherwise dropping the producer would wait for what cannot be sent.
            self.producer.purge(PurgeConfig::default().queue().inflight());
            return Err(ReaderError::LoadTimeout {
                topic: self.topic.to_owned(),
                acknowledged,
                total: self.total,
                timeout: self.timeout,
            });
        }
        Ok(())
    }
}
