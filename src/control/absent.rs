//! Orders about messages of a group that has no member.
//!
//! 1. The group is asked for its members: there must be none.
//! 2. A transactional id of the group's operators is registered, which ends what an earlier order
//!    left open, and lets two operators at once not both succeed.
//! 3. The stable commit is read, and the message: what a dead owner left open is ended by its
//!    time-out first.
//! 4. One transaction has the dead letter, if there is one, and the amended offset.
//!
//! A member may join at any time. One that is there when the offset arrives makes the broker refuse
//! it. One that came and went between 3 and that moment has moved the commit, which is looked at
//! once more before the end; it has left nothing pending, for a member that dies stays in the group
//! until its session is over, which takes longer than may pass here. One that joins later waits for
//! the end of this transaction, because its stable commit is pending.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use countersign_statemachine::{
    AmendError, Amended, Author, Disposition, NAME_BYTES_MAX, Reason, Unowned, Verb, amend,
};
use futures::executor::block_on;
use thiserror::Error;

use super::{Answer, OPERATOR_PREFIX, Request, Why};
use crate::commit_metadata::{DEFAULT_TEXT_LIMIT, armor, commit_of, max_binary_len};
use crate::dead_letter::{DeadLetter, LetterDisposition};
use crate::kafka::librdkafka::{
    ClusterConfig, LibrdAdmin, LibrdKafka, LibrdProducer, ReadFrom, SettingError, read_topic,
};
use crate::kafka::{
    Admin as _, CommitOffset, Committed, ErrorKind, Kafka as _, KafkaError, Member, Producer as _,
    Record, Sizes, TopicPartition, of_all,
};
use crate::origin::Origin;
use crate::wall_clock::now_ms;

/// How long one question may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Between two questions.
const PAUSE: Duration = Duration::from_millis(200);

/// Less than the shortest session of a member that brokers allow (`group.min.session.timeout.ms`).
const WINDOW: Duration = Duration::from_secs(5);

/// With what an order is carried out.
#[derive(Debug, Clone)]
pub struct Absent {
    /// The cluster and the group; its topics do not matter.
    pub cluster: ClusterConfig,
    /// The id of the transaction, the same for all orders about a group.
    pub transactional_id: String,
    /// The topic of dead letters.
    pub dead_letters: Option<String>,
    /// How long Kafka, and transactions that a dead owner left open, are waited for.
    pub patience: Duration,
}

/// Why an order is not carried out. Nothing was done unless it says so.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AbsentError {
    /// The group has members: only an owner may do it.
    #[error("the group has members")]
    HasMembers {
        /// Who owns the partition, as far as that is known.
        owner: Option<Member>,
    },
    /// The group was at work while the order was to be carried out.
    #[error(
        "the group got a member meanwhile, or Kafka was too slow to tell, and nothing was done; \
         order it again"
    )]
    Joined,
    /// The commit cannot be amended.
    #[error(transparent)]
    Amend(#[from] AmendError),
    /// There is no message at this offset.
    #[error("there is no message at this offset: it holds a control record or was compacted away")]
    NoMessage,
    /// There is nowhere to put a dead letter.
    #[error("name the topic of dead letters with --dead-letters")]
    NoLetters,
    /// A dead owner's transaction is still open.
    #[error(
        "a transaction that the last owner left open still holds the committed offset after \
         {waited:?}: it ends by its time-out; order it again then"
    )]
    Pending {
        /// How long was waited.
        waited: Duration,
    },
    /// The end of the transaction was not confirmed.
    #[error("it is not known whether it is done: {0}; order it again, and see")]
    Unknown(KafkaError),
    /// A setting cannot be used.
    #[error(transparent)]
    Setting(#[from] SettingError),
    /// Kafka does not answer, or refuses.
    #[error(transparent)]
    Kafka(#[from] KafkaError),
}

impl AbsentError {
    /// The answer to an order that was not carried out; `None` if Kafka could not be asked.
    pub fn answer(&self, request: &Request) -> Option<Answer> {
        let (why, owner) = match self {
            Self::HasMembers { owner } => (Why::NotOwned, owner.as_ref().map(Member::to_string)),
            Self::Unknown(_) => (Why::Unknown, None),
            Self::Joined | Self::Amend(_) | Self::NoMessage | Self::Pending { .. } => {
                (Why::Refused, None)
            }
            Self::NoLetters | Self::Setting(_) | Self::Kafka(_) => return None,
        };
        let Request { topic, partition, offset, .. } = request;
        let text = format!("{topic}/{partition}@{offset}: {self}");
        Some(Answer { owner, ..Answer::refused(why, text) })
    }
}

/// Carries an order out for a group without members. Blocks; not for a thread that drives futures.
///
/// # Errors
/// [`AbsentError`]; only [`Unknown`](AbsentError::Unknown) leaves open whether it was done.
pub fn intervene(absent: &Absent, request: &Request) -> Result<Answer, AbsentError> {
    let kafka = LibrdKafka::new(absent.cluster.clone())?;
    let admin = kafka.admin()?;
    let mut order = Order { absent, request, kafka, admin, topic_id: [0; 16] };
    order.carry_out()?;
    Ok(Answer::done_without_owner(request))
}

struct Order<'a> {
    absent: &'a Absent,
    request: &'a Request,
    kafka: LibrdKafka,
    admin: LibrdAdmin,
    /// Known from the amendment on.
    topic_id: [u8; 16],
}

impl Order<'_> {
    fn partition(&self) -> TopicPartition {
        TopicPartition::new(self.request.topic.as_str(), self.request.partition)
    }

    fn carry_out(&mut self) -> Result<(), AbsentError> {
        if self.request.verb == Verb::DeadLetter && self.absent.dead_letters.is_none() {
            return Err(AbsentError::NoLetters);
        }
        self.check_members()?;
        let mut producer = self.kafka.producer(&self.absent.transactional_id, Sizes::default())?;
        block_on(producer.init(self.absent.patience))?;
        let found = self.stable_commit()?;
        let amended = self.amend(found.as_ref())?;
        let letter = match self.request.verb {
            Verb::Retry => None,
            Verb::Skip | Verb::DeadLetter => Some(self.message()?),
        };
        // What was asked since may have taken its time.
        let read_at = Instant::now();
        if self.stable_commit()? != found {
            return Err(AbsentError::Joined);
        }
        producer.begin()?;
        let sent = self.fill(&mut producer, &amended, letter.as_ref()).and_then(|()| {
            let now = block_on(self.admin.committed_now(&[self.partition()], TIMEOUT))?;
            let is_same = now.into_iter().next().flatten() == found;
            if is_same && read_at.elapsed() < WINDOW { Ok(()) } else { Err(AbsentError::Joined) }
        });
        if let Err(error) = sent {
            // Its time-out ends what this does not.
            let _ = block_on(producer.abort(TIMEOUT));
            return Err(error);
        }
        match block_on(producer.commit(TIMEOUT)) {
            Ok(()) => Ok(()),
            Err(error) => self.settle(&amended, error),
        }
    }

    fn check_members(&mut self) -> Result<(), AbsentError> {
        let members = persistently(self.absent.patience, || block_on(self.admin.members(TIMEOUT)))?;
        if members.all.is_empty() {
            return Ok(());
        }
        let owner = members.assigned.get(&self.partition()).cloned();
        Err(AbsentError::HasMembers { owner })
    }

    fn stable_commit(&mut self) -> Result<Option<Committed>, AbsentError> {
        let partition = [self.partition()];
        let patience = self.absent.patience;
        let asked =
            persistently(patience, || of_all(block_on(self.admin.committed(&partition, TIMEOUT))));
        match asked {
            Ok(committed) => Ok(committed.into_iter().next().flatten()),
            Err(error) if error.kind == ErrorKind::Pending => {
                Err(AbsentError::Pending { waited: patience })
            }
            Err(error) => Err(error.into()),
        }
    }

    fn amend(&mut self, found: Option<&Committed>) -> Result<Amended, AbsentError> {
        let name = [Arc::from(self.request.topic.as_str())];
        let patience = self.absent.patience;
        let topics = persistently(patience, || block_on(self.admin.topics(&name, TIMEOUT)))?;
        let topic_id = topics.first().map_or([0; 16], |topic| topic.id);
        self.topic_id = topic_id;
        let partition = [self.partition()];
        let log = persistently(patience, || {
            of_all(block_on(self.admin.log_ranges(&partition, TIMEOUT)))
        })?;
        let (log_start, log_end) = log.first().map_or((0, 0), |log| (log.start, log.end));
        let commit = found.cloned().map(commit_of);
        let unowned = Unowned { commit, topic_id, log_start, log_end };
        let author = Author { instance: self.instance(), incarnation: rand::random(), number: 1 };
        let limit = max_binary_len(DEFAULT_TEXT_LIMIT);
        Ok(amend(&unowned, self.request.verb, self.request.offset, author, limit)?)
    }

    /// Under which name it is done.
    fn instance(&self) -> String {
        let mut name = format!("{OPERATOR_PREFIX}{}", self.request.by);
        while name.len() > NAME_BYTES_MAX {
            name.pop();
        }
        name
    }

    fn message(&self) -> Result<Record, AbsentError> {
        let offset = self.request.offset;
        let from = ReadFrom::Offset(self.partition(), offset);
        let found = read_topic(&self.absent.cluster, &from, self.absent.patience, |record| {
            ControlFlow::Break((record.offset() == offset).then(|| record.clone()))
        })?;
        found.flatten().ok_or(AbsentError::NoMessage)
    }

    fn fill(
        &mut self,
        producer: &mut LibrdProducer,
        amended: &Amended,
        message: Option<&Record>,
    ) -> Result<(), AbsentError> {
        if let Some(record) = message.filter(|_| self.request.verb == Verb::DeadLetter) {
            self.send_letter(producer, amended, record)?;
        }
        let offset = CommitOffset {
            partition: self.partition(),
            offset: amended.offset,
            metadata: armor(&amended.metadata),
        };
        let group = &self.absent.cluster.group;
        match producer.send_offsets_from_outside(&[offset], group, TIMEOUT) {
            Err(error) if error.kind == ErrorKind::StaleGeneration => Err(AbsentError::Joined),
            sent => Ok(sent?),
        }
    }

    fn send_letter(
        &mut self,
        producer: &mut LibrdProducer,
        amended: &Amended,
        record: &Record,
    ) -> Result<(), AbsentError> {
        let topic = self.absent.dead_letters.as_deref().ok_or(AbsentError::NoLetters)?;
        let asked = || block_on(self.admin.topics(&[Arc::from(topic)], TIMEOUT));
        let topics = persistently(self.absent.patience, asked)?;
        let partitions = topics.first().map_or(1, |topic| topic.partitions.max(1));
        let now = i64::try_from(now_ms()).unwrap_or(i64::MAX);
        let letter = DeadLetter {
            disposition: LetterDisposition::Operator,
            partition: self.partition(),
            offset: self.request.offset,
            timestamp: record.timestamp(),
            group: self.absent.cluster.group.clone(),
            instance: self.instance(),
            attempts: amended.attempts,
            first_failed: now,
            last_failed: now,
            reason: Reason::Error,
            class: None,
            origin: Some(Origin {
                topic_id: self.topic_id,
                partition: self.partition(),
                offset: self.request.offset,
            }),
            error: self.request.reason.clone(),
        };
        let output = letter.output(record, topic, self.request.partition % partitions);
        producer.send_one(output, None)?;
        Ok(block_on(producer.flush(0, TIMEOUT))?)
    }

    /// The end was not confirmed: registering the id again ends the transaction, and the stable
    /// commit tells how.
    fn settle(&mut self, amended: &Amended, error: KafkaError) -> Result<(), AbsentError> {
        let settled = (|| {
            let mut successor =
                self.kafka.producer(&self.absent.transactional_id, Sizes::default())?;
            block_on(successor.init(self.absent.patience))?;
            self.stable_commit()
        })();
        let metadata = armor(&amended.metadata);
        match settled {
            Ok(Some(found)) if found.offset == amended.offset && found.metadata == metadata => {
                Ok(())
            }
            Ok(_) => Err(error.into()),
            Err(_) => Err(AbsentError::Unknown(error)),
        }
    }
}

/// Asks until there is an answer, or one that time does not change, or patience ends.
fn persistently<T>(
    patience: Duration,
    mut question: impl FnMut() -> Result<T, KafkaError>,
) -> Result<T, KafkaError> {
    let began = Instant::now();
    loop {
        match question() {
            Err(error)
                if error.disposition == Disposition::Retriable && began.elapsed() < patience =>
            {
                thread::sleep(PAUSE);
            }
            answer => return answer,
        }
    }
}
