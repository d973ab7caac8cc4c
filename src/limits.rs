//! How large records may be: what the output topics take, kept up to date.
//!
//! Whoever makes outputs compares them with a [`Limit`]; whoever makes producers asks for
//! [`Sizes`]. A limit that is out of date does no harm: Kafka refuses what is too large, and then
//! the limits are asked again at once.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::sleep;

use crate::driver::{Scout, persistently};
use crate::kafka::librdkafka::{ClusterConfig, Compression};
use crate::kafka::{DEFAULT_BATCH_BYTES, KafkaError, Sizes};

/// How often the limits are asked for though nothing says that they have changed.
const REFRESH: Duration = Duration::from_secs(60);

/// How long after an answer they are not asked for again.
const REST: Duration = Duration::from_secs(1);

/// The largest record that a compressing producer takes. A broker closes the connection on a
/// request of more than `socket.request.max.bytes`, 104,857,600 by default, which looks like an
/// outage and not like a refusal.
const COMPRESSED_RECORD_BYTES: u32 = 100_000_000;

/// How large a record for a topic may be, as the bytes of a batch of its own, not compressed.
#[derive(Debug, Clone)]
pub(crate) struct Limit(Arc<AtomicU32>);

impl Limit {
    /// `None` where there is none, or none is known.
    pub(crate) fn bytes(&self) -> Option<usize> {
        let bytes = self.0.load(Ordering::Relaxed);
        (bytes != u32::MAX).then_some(bytes as usize)
    }
}

impl Default for Limit {
    /// None.
    fn default() -> Self {
        Self(Arc::new(AtomicU32::new(u32::MAX)))
    }
}

/// The limits of the topics that are written to; clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Limits(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    topics: BTreeMap<Arc<str>, Limit>,
    compression: Compression,
    /// What the settings allow, whatever the topics take.
    record_bytes_max: Option<u32>,
    sizes: watch::Sender<Sizes>,
    /// Kafka refused something as too large.
    refused: Notify,
}

impl Limits {
    /// Nothing is known of these topics yet.
    pub(crate) fn new(topics: impl IntoIterator<Item = Arc<str>>, cluster: &ClusterConfig) -> Self {
        let limits = Self(Arc::new(Inner {
            topics: topics.into_iter().map(|topic| (topic, Limit::default())).collect(),
            compression: cluster.compression,
            record_bytes_max: cluster.record_bytes_max(),
            sizes: watch::Sender::default(),
            refused: Notify::new(),
        }));
        limits.set(&[]);
        limits
    }

    /// The limit of a topic; none for one that is not known here.
    pub(crate) fn of(&self, topic: &str) -> Limit {
        self.0.topics.get(topic).cloned().unwrap_or_default()
    }

    /// What producers are made with from now on.
    pub(crate) fn sizes(&self) -> watch::Receiver<Sizes> {
        self.0.sizes.subscribe()
    }

    /// Kafka refused a record as too large: a limit may have changed.
    pub(crate) fn doubt(&self) {
        self.0.refused.notify_one();
    }

    /// Learns the limits for the first time. What is not told, for want of rights, has no limit
    /// here, and Kafka decides.
    pub(crate) async fn learn(&self, scout: &Scout) {
        if let Err(error) = persistently(|| self.ask(scout)).await {
            tracing::info!(%error, "max.message.bytes is not told; Kafka will judge sizes");
        }
    }

    /// Keeps them up to date.
    pub(crate) async fn keep(&self, scout: &Scout) -> Infallible {
        loop {
            sleep(REST).await;
            tokio::select! {
                () = sleep(REFRESH) => {}
                () = self.0.refused.notified() => {}
            }
            if let Err(error) = self.ask(scout).await {
                tracing::debug!(%error, "max.message.bytes is not told");
            }
        }
    }

    async fn ask(&self, scout: &Scout) -> Result<(), KafkaError> {
        let topics: Vec<Arc<str>> = self.0.topics.keys().cloned().collect();
        let told = scout.max_message_bytes(topics.clone()).await?;
        self.set(&topics.into_iter().zip(told).collect::<Vec<_>>());
        Ok(())
    }

    pub(crate) fn set(&self, told: &[(Arc<str>, Option<u32>)]) {
        let most = self.0.record_bytes_max;
        let is_compressed = self.0.compression != Compression::None;
        for (topic, bytes) in told {
            // What compression makes of a record is known only once it is sent.
            let of_topic = bytes.filter(|_| !is_compressed).unwrap_or(u32::MAX);
            let of_producer = if is_compressed { COMPRESSED_RECORD_BYTES } else { u32::MAX };
            if let Some(limit) = self.0.topics.get(topic) {
                let bytes = of_topic.min(most.unwrap_or(of_producer));
                limit.0.store(bytes, Ordering::Relaxed);
            }
        }
        let known = || told.iter().filter_map(|(_, bytes)| *bytes);
        let largest = known().chain([DEFAULT_BATCH_BYTES]).max().unwrap_or(DEFAULT_BATCH_BYTES);
        let record_bytes = if is_compressed { COMPRESSED_RECORD_BYTES } else { largest };
        let batch_bytes = known().chain([DEFAULT_BATCH_BYTES]).min();
        let sizes = Sizes {
            batch_bytes: batch_bytes.unwrap_or(DEFAULT_BATCH_BYTES),
            record_bytes: most.unwrap_or(record_bytes),
        };
        self.0.sizes.send_if_modified(|now| {
            let is_new = *now != sizes;
            *now = sizes;
            is_new
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(compression: Compression, extra: &[(&str, &str)]) -> Limits {
        let mut cluster = ClusterConfig::new("", "", ["in"]);
        cluster.compression = compression;
        let extra = extra.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        cluster.extra = extra.collect();
        Limits::new(["a".into(), "b".into()], &cluster)
    }

    fn told(a: Option<u32>, b: Option<u32>) -> [(Arc<str>, Option<u32>); 2] {
        [("a".into(), a), ("b".into(), b)]
    }

    fn sizes(limits: &Limits) -> (u32, u32) {
        let sizes = *limits.sizes().borrow();
        (sizes.batch_bytes, sizes.record_bytes)
    }

    #[test]
    fn batches_fit_every_topic_and_records_the_one_they_are_for() {
        let limits = limits(Compression::None, &[]);
        assert_eq!(sizes(&limits), (1_000_000, 1_000_000));
        let (a, b) = (limits.of("a"), limits.of("b"));
        limits.set(&told(Some(20_000), Some(5_000_000)));
        assert_eq!((a.bytes(), b.bytes()), (Some(20_000), Some(5_000_000)));
        assert_eq!(sizes(&limits), (20_000, 5_000_000));
        limits.set(&told(None, Some(30_000)));
        assert_eq!(a.bytes(), None, "Kafka decides");
        assert_eq!(sizes(&limits), (30_000, 1_000_000));
        assert_eq!(limits.of("c").bytes(), None);
    }

    #[test]
    fn a_record_that_is_compressed_is_not_judged_by_what_it_was() {
        let limits = limits(Compression::Zstd, &[]);
        limits.set(&told(Some(20_000), Some(5_000_000)));
        assert_eq!(limits.of("a").bytes(), Some(100_000_000));
        assert_eq!(sizes(&limits), (20_000, 100_000_000));
    }

    #[test]
    fn what_is_set_by_hand_holds_too() {
        for compression in [Compression::None, Compression::Lz4] {
            let limits = limits(compression, &[("message.max.bytes", "7000")]);
            limits.set(&told(Some(20_000), Some(6_000)));
            assert_eq!(limits.of("a").bytes(), Some(7_000));
            assert_eq!(sizes(&limits), (6_000, 7_000));
        }
    }

    #[test]
    fn only_a_change_is_told() {
        let limits = limits(Compression::None, &[]);
        let mut sizes = limits.sizes();
        limits.set(&told(Some(2_000_000), None));
        assert!(sizes.has_changed().expect("the sender lives"));
        sizes.mark_unchanged();
        limits.set(&told(Some(2_000_000), None));
        assert!(!sizes.has_changed().expect("the sender lives"));
    }
}
