//! The loop that asks Kafka: one thread, no membership, no transaction.
//!
//! A question that hangs is answered as one that no broker answered in time, and a new client asks
//! what comes after it.

use std::sync::Arc;
use std::time::Duration;

use countersign_statemachine::Disposition;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

use super::pulse::{GivenUp, Pulse};
use super::relay::{Hand, Relay, Unanswered};
use super::watchdog::Watchdog;
use crate::error::RunError;
use crate::kafka::{
    Admin, Committed, Each, ErrorKind, KafkaError, LogRange, Members, Topic, TopicPartition,
};

#[derive(Debug)]
enum Question {
    ClusterId(Reply<String>),
    Topics(Vec<Arc<str>>, Reply<Vec<Topic>>),
    MaxMessageBytes(Vec<Arc<str>>, Reply<Vec<Option<u32>>>),
    Committed(Vec<TopicPartition>, Reply<Vec<Result<Option<Committed>, KafkaError>>>),
    CommittedNow(Vec<TopicPartition>, Reply<Vec<Option<Committed>>>),
    Members(Reply<Members>),
    LogRanges(Vec<TopicPartition>, Reply<Vec<Result<LogRange, KafkaError>>>),
}

type Reply<T> = oneshot::Sender<Result<T, KafkaError>>;

/// The way to the scout.
#[derive(Debug, Clone)]
pub(crate) struct Scout(Relay<Question>);

/// How long one question may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The waits between tries of a question.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(2);

impl Scout {
    /// Starts the loop; `make` gives it, and each of its successors, a client of its own.
    ///
    /// # Errors
    /// Settings that librdkafka refuses, or the operating system gives no thread.
    pub(crate) fn start<A: Admin>(
        watchdog: &Watchdog,
        make: impl Fn() -> Result<A, KafkaError> + Send + Sync + 'static,
    ) -> Result<Self, RunError> {
        let hand = move || make().map(Asking).map_err(RunError::of_kafka);
        Relay::start(watchdog, "countersign-admin", hand).map(Self)
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
    ) -> Each<Option<Committed>> {
        self.ask(|reply| Question::Committed(partitions, reply)).await
    }

    /// The group's commits; pending ones do not count.
    pub(crate) async fn committed_now(
        &self,
        partitions: Vec<TopicPartition>,
    ) -> Result<Vec<Option<Committed>>, KafkaError> {
        self.ask(|reply| Question::CommittedNow(partitions, reply)).await
    }

    /// The group's members.
    pub(crate) async fn members(&self) -> Result<Members, KafkaError> {
        self.ask(Question::Members).await
    }

    /// What a `read_committed` reader sees of partitions.
    pub(crate) async fn log_ranges(&self, of: Vec<TopicPartition>) -> Each<LogRange> {
        self.ask(|reply| Question::LogRanges(of, reply)).await
    }

    /// Waits until the loop has ended, if this is the last way to it.
    pub(crate) async fn end(self) {
        self.0.end().await;
    }

    async fn ask<T>(&self, question: impl FnOnce(Reply<T>) -> Question) -> Result<T, KafkaError> {
        let answer = self.0.ask(question).await;
        answer.unwrap_or_else(|unanswered| {
            Err(match unanswered {
                Unanswered::Hung => KafkaError::no_answer("admin"),
                Unanswered::Ended => {
                    let (kind, message) = (ErrorKind::Other, "the admin client has ended");
                    KafkaError::new("admin", kind, Disposition::Fatal, message)
                }
            })
        })
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

struct Asking<A>(A);

impl<A: Admin> Hand<Question> for Asking<A> {
    /// A question or an answer that nobody waits for any more is dropped.
    async fn work(&mut self, question: Question, pulse: &Pulse) -> Result<(), GivenUp> {
        let Self(admin) = self;
        match question {
            Question::ClusterId(reply) => {
                answer(pulse, "cluster_id", reply, admin.cluster_id(TIMEOUT)).await
            }
            Question::Topics(names, reply) => {
                answer(pulse, "describe_topics", reply, admin.topics(&names, TIMEOUT)).await
            }
            Question::MaxMessageBytes(names, reply) => {
                let asked = admin.max_message_bytes(&names, TIMEOUT);
                answer(pulse, "describe_configs", reply, asked).await
            }
            Question::Committed(partitions, reply) => {
                let asked = admin.committed(&partitions, TIMEOUT);
                answer(pulse, "committed_offsets", reply, asked).await
            }
            Question::CommittedNow(partitions, reply) => {
                let asked = admin.committed_now(&partitions, TIMEOUT);
                answer(pulse, "committed_offsets", reply, asked).await
            }
            Question::Members(reply) => {
                answer(pulse, "describe_group", reply, admin.members(TIMEOUT)).await
            }
            Question::LogRanges(partitions, reply) => {
                let asked = admin.log_ranges(&partitions, TIMEOUT);
                answer(pulse, "list_offsets", reply, asked).await
            }
        }
    }
}

async fn answer<T>(
    pulse: &Pulse,
    call: &'static str,
    reply: Reply<T>,
    asked: impl Future<Output = Result<T, KafkaError>>,
) -> Result<(), GivenUp> {
    if reply.is_closed() {
        return Ok(());
    }
    let answered = pulse.during(call, TIMEOUT, asked).await?;
    let _ = reply.send(answered);
    Ok(())
}

#[cfg(test)]
#[path = "scout_test.rs"]
mod tests;
