//! Questions about the group and the topics.

use std::sync::Arc;
use std::time::Duration;

use countersign::kafka::{
    Admin, Committed, Each, ErrorKind, KafkaError, LogRange, Members, Topic, TopicPartition,
};
use countersign_statemachine::Disposition;
use tokio::time::Instant;

use super::cluster::State;
use super::faults::{Call, Fault};
use super::request::Code;
use super::{ModelKafka, panic_quietly};

/// An admin client on the model.
#[derive(Debug)]
pub struct ModelAdmin {
    kafka: ModelKafka,
    client: u64,
    group: Arc<str>,
}

impl ModelAdmin {
    pub(super) fn new(kafka: ModelKafka, client: u64, group: Arc<str>) -> Self {
        Self { kafka, client, group }
    }

    /// Asks once the broker is there; `None` from `ask` means: not decided, ask again.
    async fn ask<T>(
        &self,
        call: Call,
        name: &'static str,
        timeout: Duration,
        ask: impl FnMut(&mut State) -> Option<T>,
    ) -> Result<T, KafkaError> {
        self.kafka.running(self.client).await;
        let mut deadline = Instant::now() + timeout;
        match self.kafka.with(|state| state.faults.next(call)) {
            Some(Fault::RequestLost | Fault::ReplyLost) => {
                tokio::time::sleep_until(deadline).await;
                return Err(Code::TimedOut.error(name));
            }
            Some(Fault::CoordinatorNotAvailable) => {
                return Err(Code::CoordinatorNotAvailable.error(name));
            }
            Some(Fault::CrashBefore | Fault::CrashAfter) => {
                self.kafka.crash_here(self.client).await;
            }
            Some(Fault::Delay(delay) | Fault::Retried { late: delay }) => {
                tokio::time::sleep_until(deadline.min(Instant::now() + delay)).await;
            }
            Some(Fault::Hang(long)) => {
                tokio::time::sleep(long).await;
                deadline = Instant::now();
            }
            Some(Fault::HangAfter) => std::future::pending().await,
            Some(Fault::Panic) => panic_quietly(),
            Some(Fault::Held | Fault::Repeat) | None => {}
        }
        tokio::time::sleep(self.kafka.latency()).await;
        let mut ask = ask;
        let answer = self
            .kafka
            .wait_until(deadline, |state| if state.is_down() { None } else { ask(state) });
        let answer = answer.await.ok_or_else(|| Code::TimedOut.error(name));
        self.kafka.running(self.client).await;
        answer
    }
}

impl Admin for ModelAdmin {
    async fn cluster_id(&mut self, timeout: Duration) -> Result<String, KafkaError> {
        let id = |state: &mut State| Some(state.config.cluster_id.clone());
        self.ask(Call::Metadata, "cluster_id", timeout, id).await
    }

    async fn topics(
        &mut self,
        names: &[Arc<str>],
        timeout: Duration,
    ) -> Result<Vec<Topic>, KafkaError> {
        let describe = |state: &mut State| {
            Some(names.iter().map(|name| state.describe(name)).collect::<Result<Vec<_>, _>>())
        };
        self.ask(Call::Metadata, "describe_topics", timeout, describe).await?
    }

    async fn max_message_bytes(
        &mut self,
        names: &[Arc<str>],
        timeout: Duration,
    ) -> Result<Vec<Option<u32>>, KafkaError> {
        let largest = |state: &mut State| {
            let largest = |name: &Arc<str>| {
                let topic = state.topics.get(name).ok_or_else(|| unknown("describe_configs", name));
                topic.map(|topic| u32::try_from(topic.max_message_bytes).ok())
            };
            Some(names.iter().map(largest).collect::<Result<Vec<_>, _>>())
        };
        self.ask(Call::Metadata, "describe_configs", timeout, largest).await?
    }

    async fn committed(
        &mut self,
        partitions: &[TopicPartition],
        timeout: Duration,
    ) -> Each<Option<Committed>> {
        let group = self.group.clone();
        let fetch = |state: &mut State| {
            let offsets = &state.group(&group).offsets;
            let each = |partition| {
                let pending = offsets.is_pending(partition).then(|| pending(partition));
                pending.map_or_else(|| Ok(offsets.committed.get(partition).cloned()), Err)
            };
            Some(partitions.iter().map(each).collect())
        };
        self.ask(Call::OffsetFetch, "committed_offsets", timeout, fetch).await
    }

    async fn committed_now(
        &mut self,
        partitions: &[TopicPartition],
        timeout: Duration,
    ) -> Result<Vec<Option<Committed>>, KafkaError> {
        let group = self.group.clone();
        let now = |state: &mut State| {
            let committed = &state.group(&group).offsets.committed;
            Some(partitions.iter().map(|partition| committed.get(partition).cloned()).collect())
        };
        self.ask(Call::OffsetFetch, "list_group_offsets", timeout, now).await
    }

    async fn members(&mut self, timeout: Duration) -> Result<Members, KafkaError> {
        let group = self.group.clone();
        let members = |state: &mut State| Some(state.group(&group).members());
        self.ask(Call::Metadata, "describe_groups", timeout, members).await
    }

    async fn log_ranges(
        &mut self,
        partitions: &[TopicPartition],
        timeout: Duration,
    ) -> Each<LogRange> {
        let ranges = |state: &mut State| {
            Some(partitions.iter().map(|partition| state.log_range(partition)).collect())
        };
        self.ask(Call::ListOffsets, "list_offsets", timeout, ranges).await
    }
}

fn unknown(call: &'static str, topic: &str) -> KafkaError {
    let message = format!("topic {topic} does not exist");
    KafkaError::new(call, ErrorKind::UnknownTopic, Disposition::Permanent, message)
}

fn pending(partition: &TopicPartition) -> KafkaError {
    let message = format!("{partition}: an open transaction may still change the offset");
    KafkaError::new("committed_offsets", ErrorKind::Pending, Disposition::Retriable, message)
}

impl State {
    fn describe(&self, name: &Arc<str>) -> Result<Topic, KafkaError> {
        let Some(topic) = self.topics.get(name) else {
            return Err(unknown("describe_topics", name));
        };
        Ok(Topic { name: name.clone(), id: topic.id, partitions: topic.partition_count() })
    }

    fn log_range(&self, partition: &TopicPartition) -> Result<LogRange, KafkaError> {
        let topic = self.topics.get(&partition.topic);
        let Some(log) = topic.and_then(|topic| topic.log(partition.partition)) else {
            let kind = ErrorKind::UnknownPartition;
            let message = format!("partition {partition} does not exist");
            return Err(KafkaError::new("list_offsets", kind, Disposition::Permanent, message));
        };
        if self.leaderless.contains(partition) {
            let message = format!("{partition}: it has no leader");
            let (kind, disposition) = (ErrorKind::Other, Disposition::Retriable);
            return Err(KafkaError::new("list_offsets", kind, disposition, message));
        }
        Ok(LogRange { start: log.start(), end: log.last_stable() })
    }
}
