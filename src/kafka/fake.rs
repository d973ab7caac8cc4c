//! What the tests ask instead of a cluster.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use countersign_statemachine::Disposition;
use tokio::time::Instant;

use super::{
    Admin, Committed, Each, ErrorKind, KafkaError, LogRange, Member, Members, Topic,
    TopicPartition, of_all,
};

/// A cluster in which nothing was ever written or committed.
pub(crate) struct FakeAdmin {
    /// No topic is known before.
    known_from: Instant,
    members: Members,
}

impl FakeAdmin {
    /// Knows every topic from `known_from` on, and nobody is in the group.
    pub(crate) fn known_from(known_from: Instant) -> Self {
        let members = Members { is_stable: true, all: Vec::new(), assigned: BTreeMap::new() };
        Self { known_from, members }
    }

    /// Knows every topic, and that the partition belongs to the only member.
    pub(crate) fn owned(partition: TopicPartition, owner: Member) -> Self {
        let assigned = [(partition, owner.clone())].into();
        let members = Members { is_stable: true, all: vec![owner], assigned };
        Self { known_from: Instant::now(), members }
    }
}

impl Admin for FakeAdmin {
    async fn cluster_id(&mut self, _: Duration) -> Result<String, KafkaError> {
        Ok("cluster".to_owned())
    }

    async fn topics(&mut self, names: &[Arc<str>], _: Duration) -> Result<Vec<Topic>, KafkaError> {
        if Instant::now() < self.known_from {
            let (kind, message) = (ErrorKind::UnknownTopic, "no such topic");
            return Err(KafkaError::new("topics", kind, Disposition::Retriable, message));
        }
        let topic = |name: &Arc<str>| Topic { name: name.clone(), id: [1; 16], partitions: 1 };
        Ok(names.iter().map(topic).collect())
    }

    async fn max_message_bytes(
        &mut self,
        names: &[Arc<str>],
        _: Duration,
    ) -> Result<Vec<Option<u32>>, KafkaError> {
        Ok(names.iter().map(|_| None).collect())
    }

    async fn committed(&mut self, of: &[TopicPartition], _: Duration) -> Each<Option<Committed>> {
        Ok(of.iter().map(|_| Ok(None)).collect())
    }

    async fn committed_now(
        &mut self,
        of: &[TopicPartition],
        timeout: Duration,
    ) -> Result<Vec<Option<Committed>>, KafkaError> {
        of_all(self.committed(of, timeout).await)
    }

    async fn members(&mut self, _: Duration) -> Result<Members, KafkaError> {
        Ok(self.members.clone())
    }

    async fn log_ranges(&mut self, of: &[TopicPartition], _: Duration) -> Each<LogRange> {
        Ok(of.iter().map(|_| Ok(LogRange { start: 0, end: 0 })).collect())
    }
}
