//! What can be asked about a group and its topics.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use super::{KafkaError, TopicPartition};

/// A committed offset as the group has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// The next offset to consume.
    pub offset: u64,
    /// The commit's metadata; empty where none was given.
    pub metadata: String,
}

/// What is in a partition's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogRange {
    /// The first offset that still exists.
    pub start: u64,
    /// The last stable offset: where a `read_committed` reader stops.
    pub end: u64,
}

/// A topic as the cluster describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    /// Its name.
    pub name: Arc<str>,
    /// Its id (KIP-516): another one under the same name is another topic.
    pub id: [u8; 16],
    /// How many partitions it has.
    pub partitions: u32,
}

impl Topic {
    /// All of its partitions, in order.
    pub fn all(&self) -> impl Iterator<Item = TopicPartition> + '_ {
        TopicPartition::all_of(Arc::clone(&self.name), self.partitions)
    }
}

/// Who is in the group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Members {
    /// Whether no rebalance is under way.
    pub is_stable: bool,
    /// All of them.
    pub all: Vec<Member>,
    /// Which of them is assigned what. In a rebalance it may be anything.
    pub assigned: BTreeMap<TopicPartition, Member>,
}

/// A member of the group, as the coordinator knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its id, of this membership only.
    pub id: String,
    /// The `group.instance.id`, which names the instance and its worker.
    pub instance: Option<String>,
    /// From where it came.
    pub host: String,
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.instance.as_deref().unwrap_or(&self.id);
        write!(f, "{name} at {}", self.host.trim_start_matches('/'))
    }
}

/// An answer for each partition asked for, in that order, with why there is none for some; or why
/// nothing was told of any.
pub type Each<T> = Result<Vec<Result<T, KafkaError>>, KafkaError>;

/// What was told of every partition.
///
/// # Errors
/// Nothing was told of one of them: the first one's error.
pub fn of_all<T>(each: Each<T>) -> Result<Vec<T>, KafkaError> {
    each?.into_iter().collect()
}

/// Questions about group and topics; each waits at most `timeout`.
///
/// A question about many partitions is answered for each: one without a leader, or with a commit
/// that is pending, keeps nobody from learning of the others.
pub trait Admin: Send + 'static {
    /// The cluster's id.
    fn cluster_id(
        &mut self,
        timeout: Duration,
    ) -> impl Future<Output = Result<String, KafkaError>> + Send;

    /// Describes topics, in the order asked.
    ///
    /// # Errors
    /// [`UnknownTopic`](super::ErrorKind::UnknownTopic) if one does not exist.
    fn topics(
        &mut self,
        names: &[Arc<str>],
        timeout: Duration,
    ) -> impl Future<Output = Result<Vec<Topic>, KafkaError>> + Send;

    /// The largest record batch that each topic takes (`max.message.bytes`), in the order asked;
    /// `None` where we may not know.
    ///
    /// # Errors
    /// [`UnknownTopic`](super::ErrorKind::UnknownTopic) if one does not exist.
    fn max_message_bytes(
        &mut self,
        names: &[Arc<str>],
        timeout: Duration,
    ) -> impl Future<Output = Result<Vec<Option<u32>>, KafkaError>> + Send;

    /// The group's committed offsets. One that is pending within `timeout` is told as such, and
    /// hides no other (KIP-447, `require_stable`).
    ///
    /// # Errors
    /// For a partition [`Pending`](super::ErrorKind::Pending) while an open transaction may still
    /// change its offset.
    fn committed(
        &mut self,
        partitions: &[TopicPartition],
        timeout: Duration,
    ) -> impl Future<Output = Each<Option<Committed>>> + Send;

    /// The group's committed offsets, in the order asked. Pending ones do not count and are not
    /// waited for: a busy partition always has one.
    fn committed_now(
        &mut self,
        partitions: &[TopicPartition],
        timeout: Duration,
    ) -> impl Future<Output = Result<Vec<Option<Committed>>, KafkaError>> + Send;

    /// The group's members. One of the consumer protocol (KIP-848) is never told as stable.
    fn members(
        &mut self,
        timeout: Duration,
    ) -> impl Future<Output = Result<Members, KafkaError>> + Send;

    /// The ranges of partitions' logs that a `read_committed` reader can see.
    ///
    /// # Errors
    /// For a partition why its leader does not tell, or that it has none.
    fn log_ranges(
        &mut self,
        partitions: &[TopicPartition],
        timeout: Duration,
    ) -> impl Future<Output = Each<LogRange>> + Send;
}
