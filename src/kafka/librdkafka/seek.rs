//! Where fetching is to go on.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::client::NativeClient;

use super::lists::list;
use super::raw;
use crate::kafka::{KafkaError, TopicPartition};

/// How long librdkafka's own threads may take to tell a fetcher where to go on.
const TIMEOUT: Duration = Duration::from_secs(1);

/// Positions that librdkafka could not be told yet.
#[derive(Debug, Default)]
pub(super) struct Unsought(BTreeMap<TopicPartition, u64>);

impl Unsought {
    pub(super) fn add(&mut self, starts: &[(TopicPartition, u64)]) {
        self.0.extend(starts.iter().cloned());
    }

    pub(super) fn forget(&mut self, partitions: &[TopicPartition]) {
        self.0.retain(|partition, _| !partitions.contains(partition));
    }

    /// Tells librdkafka, and gives those that it was told. It refuses while a fetcher is still
    /// being stopped or started (`rd_kafka_toppar_seek`: `__PREV_IN_PROGRESS`, `__STATE`).
    pub(super) fn tell(
        &mut self,
        client: &NativeClient,
    ) -> Result<Vec<TopicPartition>, KafkaError> {
        if self.0.is_empty() {
            return Ok(Vec::new());
        }
        let starts = self.0.iter().map(|(partition, offset)| (partition, Some(*offset), ""));
        let starts = list("seek_partitions", starts)?;
        if let Err(failure) = raw::seek(client, &starts, TIMEOUT) {
            tracing::debug!(message = failure.message, "positions are told again");
            return Ok(Vec::new());
        }
        let is_sought = |partition: &TopicPartition| {
            let number = i32::try_from(partition.partition).ok();
            let element = number.and_then(|n| starts.find_partition(&partition.topic, n));
            element.is_some_and(|element| element.error().is_ok())
        };
        let sought: Vec<_> = self.0.keys().filter(|tp| is_sought(tp)).cloned().collect();
        self.forget(&sought);
        Ok(sought)
    }
}
