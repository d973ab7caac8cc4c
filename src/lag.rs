//! How far the group is behind.

use std::sync::Arc;

use countersign_statemachine::StartAt;

use crate::driver::{Host, Loops, Scout, Watchdog};
use crate::error::RunError;
use crate::kafka::librdkafka::LibrdKafka;
use crate::kafka::{Kafka, KafkaError, LogRange, Topic, TopicPartition, of_all};
use crate::processor::Processor;

/// How far the whole group is behind, in offsets: control records and compacted ones count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Lag {
    /// From the committed offsets to the last stable offsets of now.
    pub behind: u64,
    /// From the committed offsets to the last stable offsets of the first question.
    pub behind_first_end: u64,
}

/// Asks how far the group is behind; made by [`Processor::lag_gauge`].
#[derive(Debug)]
pub struct LagGauge {
    scout: Scout,
    topics: Vec<Arc<str>>,
    start: StartAt,
    partitions: Vec<Partition>,
}

#[derive(Debug)]
struct Partition {
    name: TopicPartition,
    first_end: u64,
}

impl Processor {
    /// A gauge with a connection of its own, that works while the processor runs.
    ///
    /// # Errors
    /// Settings that librdkafka refuses.
    pub fn lag_gauge(&self) -> Result<LagGauge, RunError> {
        let cluster = self.config.cluster.clone();
        let topics = cluster.topics.iter().map(|topic| Arc::from(topic.as_str())).collect();
        let kafka = LibrdKafka::new(cluster).map_err(RunError::of_setting)?;
        let (watchdog, _) = Watchdog::start(Host::Threads, Loops::default());
        let scout = Scout::start(&watchdog, move || kafka.admin())?;
        Ok(LagGauge { scout, topics, start: self.config.start, partitions: Vec::new() })
    }
}

impl LagGauge {
    /// Asks once: for the commits, and for begin and end of all partitions.
    ///
    /// # Errors
    /// Kafka does not answer now, or refuses; it may be asked again.
    pub async fn read(&mut self) -> Result<Lag, KafkaError> {
        if self.partitions.is_empty() {
            self.partitions = self.discover().await?;
        }
        let names: Vec<_> = self.partitions.iter().map(|it| it.name.clone()).collect();
        let commits = of_all(self.scout.committed(names.clone()).await)?;
        let logs = of_all(self.scout.log_ranges(names).await)?;
        let mut lag = Lag::default();
        let found = self.partitions.iter().zip(commits).zip(logs);
        for ((Partition { first_end, .. }, commit), log) in found {
            let begin = match self.start {
                StartAt::Earliest => log.start,
                StartAt::Latest => log.end,
            };
            let position = commit.map_or(begin, |commit| commit.offset.max(log.start));
            lag.behind += log.end.saturating_sub(position);
            lag.behind_first_end += first_end.saturating_sub(position);
        }
        Ok(lag)
    }

    async fn discover(&self) -> Result<Vec<Partition>, KafkaError> {
        let topics = self.scout.topics(self.topics.clone()).await?;
        let names: Vec<_> = topics.iter().flat_map(Topic::all).collect();
        let logs = of_all(self.scout.log_ranges(names.clone()).await)?;
        let partition = |(name, log): (_, LogRange)| Partition { name, first_end: log.end };
        Ok(names.into_iter().zip(logs).map(partition).collect())
    }
}
