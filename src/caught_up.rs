//! Ending once everything that was there at the start is done.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use crate::driver::{Host, Loops, Scout, Watchdog, existing, persistently};
use crate::error::RunError;
use crate::kafka::librdkafka::LibrdKafka;
use crate::kafka::{Kafka, KafkaError, LogRange, Topic, TopicPartition, of_all};
use crate::processor::{Handle, Processor};

/// How often the group's commits are looked at.
const INTERVAL: Duration = Duration::from_millis(200);

impl Processor {
    /// Watches the group, and shuts this processor down once the committed offset of every input
    /// partition, whoever commits it, has reached the last stable offset of when this was called.
    /// An empty partition has nothing to be reached.
    ///
    /// To be awaited beside [`run`](Self::run).
    ///
    /// # Errors
    /// Kafka refuses an answer.
    pub fn shut_down_when_caught_up(
        &self,
    ) -> impl Future<Output = Result<(), RunError>> + Send + use<> {
        let cluster = self.config.cluster.clone();
        let handle = self.handle();
        async move {
            let kafka = LibrdKafka::new(cluster.clone()).map_err(RunError::of_setting)?;
            let (watchdog, _) = Watchdog::start(Host::Threads, Loops::default());
            let scout = Scout::start(&watchdog, move || kafka.admin())?;
            watch(&scout, &cluster.topics, &handle).await.map_err(RunError::of_kafka)
        }
    }
}

async fn watch(scout: &Scout, topics: &[String], handle: &Handle) -> Result<(), KafkaError> {
    let goals = goals(scout, topics).await?;
    while !are_reached(scout, &goals).await? {
        sleep(INTERVAL).await;
    }
    handle.shut_down();
    Ok(())
}

/// The end of each partition that has messages.
async fn goals(scout: &Scout, topics: &[String]) -> Result<Vec<(TopicPartition, u64)>, KafkaError> {
    let names: Vec<Arc<str>> = topics.iter().map(|topic| Arc::from(topic.as_str())).collect();
    let topics = existing(scout, &names, Duration::ZERO).await?;
    let all: Vec<_> = topics.iter().flat_map(Topic::all).collect();
    let logs = persistently(|| async { of_all(scout.log_ranges(all.clone()).await) }).await?;
    let goal =
        |(partition, log): (_, LogRange)| (log.end > log.start).then_some((partition, log.end));
    Ok(all.into_iter().zip(logs).filter_map(goal).collect())
}

async fn are_reached(scout: &Scout, goals: &[(TopicPartition, u64)]) -> Result<bool, KafkaError> {
    if goals.is_empty() {
        return Ok(true);
    }
    let partitions: Vec<_> = goals.iter().map(|(partition, _)| partition.clone()).collect();
    let commits =
        persistently(|| async { of_all(scout.committed(partitions.clone()).await) }).await?;
    let mut pairs = commits.iter().zip(goals);
    Ok(pairs.all(|(commit, (_, end))| commit.as_ref().is_some_and(|c| c.offset >= *end)))
}
