//! The loop that asks Kafka: one thread, no membership, no transaction.

use std::sync::Arc;
use std::time::Duration;

use countersign_statemachine::Disposition;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep};

use super::host::{Host, Loop};
use crate::kafka::{
    Admin, Committed, ErrorKind, KafkaError, LogRange, Members, Topic, TopicPartition,
};

#[derive(Debug)]
enum Question {
    ClusterId(Reply<String>),
    Topics(Vec<Arc<str>>, Reply<Vec<Topic>>),
    MaxMessageBytes(Vec<Arc<str>>, Reply<Vec<Option<u32>>>),
    Committed(Vec<TopicPartition>, Reply<Vec<Option<Committed>>>),
    AnyCommitted(Vec<TopicPartition>, Reply<bool>),
    Members(Reply<Members>),
    LogRanges(Vec<TopicPartition>, Reply<Vec<LogRange>>),
}

type Reply<T> = oneshot::Sender<Result<T, KafkaError>>;

/// The way to the scout.
#[derive(Debug, Clone)]
pub(crate) struct Scout(mpsc::UnboundedSender<Question>, Arc<Loop>);

/// How long one question may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The waits between tries of a question.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(2);

impl Scout {
    /// Starts the loop.
    pub(crate) fn start(admin: impl Admin, host: Host) -> Self {
        let (sender, receiver) = mpsc::unbounded_channel();
        Self(sender, Arc::new(host.spawn("countersign-admin", run(admin, receiver))))
    }

    /// The cluster's id.
    pub(crate) async fn cluster_id(&self) -> Result<String, KafkaError> {
        self.ask(Question::ClusterId).await
    }

    /// Describes topics.
    pub(crate) async fn topics(&self, names: Vec<Arc<str>>) -> Result<Vec<Topic>, KafkaError> {
        self.ask(|reply| Question::Topics(names, reply)).await
    }

    /// The largest record batch that each topic takes.
    pub(crate) async fn max_message_bytes(
        &self,
        names: Vec<Arc<str>>,
    ) -> Result<Vec<Option<u32>>, KafkaError> {
        self.ask(|reply| Question::MaxMessageBytes(names, reply)).await
    }

    /// The group's stable commits.
    pub(crate) async fn committed(
        &self,
        partitions: Vec<TopicPartition>,
    ) -> Result<Vec<Option<Committed>>, KafkaError> {
        self.ask(|reply| Question::Committed(partitions, reply)).await
    }

    /// Whether the group has committed an offset of any of these.
    pub(crate) async fn any_committed(
        &self,
        partitions: Vec<TopicPartition>,
    ) -> Result<bool, KafkaError> {
        self.ask(|reply| Question::AnyCommitted(partitions, reply)).await
    }

    /// The group's members.
    pub(crate) async fn members(&self) -> Result<Members, KafkaError> {
        self.ask(Question::Members).await
    }

    /// What a `read_committed` reader sees of partitions.
    pub(crate) async fn log_ranges(
        &self,
        of: Vec<TopicPartition>,
    ) -> Result<Vec<LogRange>, KafkaError> {
        self.ask(|reply| Question::LogRanges(of, reply)).await
    }

    /// Waits until the loop has ended, if this is the last way to it.
    pub(crate) async fn end(self) {
        let Self(sender, owner) = self;
        drop(sender);
        if let Some(owner) = Arc::into_inner(owner) {
            owner.ended().await;
        }
    }

    async fn ask<T>(&self, question: impl FnOnce(Reply<T>) -> Question) -> Result<T, KafkaError> {
        let closed = || {
            KafkaError::new(
                "admin",
                ErrorKind::Other,
                Disposition::Fatal,
                "the admin client has ended",
            )
        };
        let (reply, answer) = oneshot::channel();
        self.0.send(question(reply)).map_err(|_| closed())?;
        answer.await.unwrap_or_else(|_| Err(closed()))
    }
}

/// Asks until there is an answer, or one that time does not change.
///
/// # Errors
/// The first error that is not retriable.
pub(crate) async fn persistently<T, F>(mut question: impl FnMut() -> F) -> Result<T, KafkaError>
where
    F: Future<Output = Result<T, KafkaError>>,
{
    let mut wait = FIRST_WAIT;
    loop {
        match question().await {
            Err(error) if error.disposition == Disposition::Retriable => {
                tracing::debug!(%error, "asking again");
                sleep(wait).await;
                wait = (wait * 2).min(LONGEST_WAIT);
            }
            answer => return answer,
        }
    }
}

/// Describes topics, and asks until there is an answer. One that is not known may be new to the
/// broker that was asked, for as long as `patience`.
///
/// # Errors
/// One of them does not exist: who made a slip in its name, or deleted it, must hear of it.
pub(crate) async fn existing(
    scout: &Scout,
    names: &[Arc<str>],
    patience: Duration,
) -> Result<Vec<Topic>, KafkaError> {
    let deadline = Instant::now() + patience;
    let is_final =
        |error: &KafkaError| error.kind == ErrorKind::UnknownTopic && deadline <= Instant::now();
    let asked = persistently(|| async {
        match scout.topics(names.to_vec()).await {
            Err(error) if is_final(&error) => Ok(Err(error)),
            answer => answer.map(Ok),
        }
    });
    asked.await?
}

/// An answer that nobody waits for any more is dropped.
async fn run(mut admin: impl Admin, mut questions: mpsc::UnboundedReceiver<Question>) {
    while let Some(question) = questions.recv().await {
        match question {
            Question::ClusterId(reply) => {
                let _ = reply.send(admin.cluster_id(TIMEOUT).await);
            }
            Question::Topics(names, reply) => {
                let _ = reply.send(admin.topics(&names, TIMEOUT).await);
            }
            Question::MaxMessageBytes(names, reply) => {
                let _ = reply.send(admin.max_message_bytes(&names, TIMEOUT).await);
            }
            Question::Committed(partitions, reply) => {
                let _ = reply.send(admin.committed(&partitions, TIMEOUT).await);
            }
            Question::AnyCommitted(partitions, reply) => {
                let _ = reply.send(admin.any_committed(&partitions, TIMEOUT).await);
            }
            Question::Members(reply) => {
                let _ = reply.send(admin.members(TIMEOUT).await);
            }
            Question::LogRanges(partitions, reply) => {
                let _ = reply.send(admin.log_ranges(&partitions, TIMEOUT).await);
            }
        }
    }
}

#[cfg(test)]
#[path = "scout_test.rs"]
mod tests;
