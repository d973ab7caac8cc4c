//! Whether a processor makes progress, and what it waits for where it does not.

use std::fmt;
use std::time::Duration;

use countersign_statemachine::worker::Step;
use tokio::time::Instant;

use crate::kafka::TopicPartition;

/// Whether a processor makes progress: how old the oldest thing of each kind is that it waits for,
/// over all workers, and which partitions stand still. `Display` tells people what is not well.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Health {
    /// How long ago a worker told its health last, of the one that did so longest ago: a second, or
    /// its loop stands still. `None` before all have begun.
    pub told: Option<Duration>,
    /// How long the group has been waiting for the answer to the oldest assignment or revocation.
    pub assignment: Option<Duration>,
    /// How long the oldest transaction has been open that has not ended.
    pub transaction: Option<Duration>,
    /// How long the oldest write to the store has been under way that is not flushed.
    pub write: Option<Duration>,
    /// Whether a worker reads nothing because its input fills the memory that it may take.
    pub memory_spent: bool,
    /// The partitions that have something left to do and whose committed offset has not moved for
    /// [`STUCK`](Self::STUCK), with the reason.
    pub stuck: Vec<Stuck>,
}

/// A partition whose committed offset has not moved for long.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stuck {
    /// The input topic.
    pub topic: String,
    /// The partition within it.
    pub partition: u32,
    /// The committed offset.
    pub offset: u64,
    /// For how long it has not moved.
    pub since: Duration,
    /// What it waits for.
    pub why: Why,
    /// Whether nothing more of the partition is begun either, because the metadata of its commit
    /// has no room to tell of it.
    pub lacks_room: bool,
    /// Whether it is not read, or only its first message is handled, for want of memory.
    pub lacks_memory: bool,
}

/// What a partition waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Why {
    /// Kafka has not told where the group stands in it: its leader is away, or a transaction of its
    /// last owner is still open.
    TakeUp,
    /// The message at this offset has been read and is not begun.
    Begin(u64),
    /// The store has not flushed that the message at this offset is begun.
    Store(u64),
    /// The handler has not ended with the message at this offset, or has had no time for it.
    Handler(u64),
    /// The message at this offset has failed and waits for its retry.
    Retry(u64),
    /// The broker has refused an output, and the message at this offset is sent by itself.
    Refused(u64),
    /// The transaction with the message at this offset is not committed.
    Commit(u64),
}

impl Health {
    /// A worker tells its health every second; one that does not for so long stands still.
    pub const TOLD: Duration = Duration::from_secs(10);
    /// A revocation may take a third of `max.poll.interval.ms`, 100 s by default; the group waits
    /// for the rest of it, and then goes on without the member.
    pub const ASSIGNMENT: Duration = Duration::from_secs(120);
    /// Kafka ends a transaction after `transaction.timeout.ms`, 10 s by default, and looks every
    /// 10 s; to settle it takes seconds.
    pub const TRANSACTION: Duration = Duration::from_secs(30);
    /// A flush takes milliseconds; a disk that takes so long for one is ill.
    pub const WRITE: Duration = Duration::from_secs(10);
    /// Longer than a transaction of another owner, or the election of a leader, holds a partition
    /// up as a rule.
    pub const STUCK: Duration = Duration::from_secs(10);

    /// Whether nothing has been waited for longer than the constants say.
    pub fn is_well(&self) -> bool {
        let Self { told, assignment, transaction, write, memory_spent: _, stuck } = self;
        let exceeds = |age: &Option<Duration>, most: Duration| age.is_some_and(|age| age > most);
        !exceeds(told, Self::TOLD)
            && !exceeds(assignment, Self::ASSIGNMENT)
            && !exceeds(transaction, Self::TRANSACTION)
            && !exceeds(write, Self::WRITE)
            && stuck.is_empty()
    }

    pub(crate) fn of<'a>(vitals: impl Iterator<Item = &'a Vital>) -> Self {
        let now = Instant::now();
        let mut health = Self::default();
        for vital in vitals {
            health.add(vital, now);
        }
        health
    }

    fn add(&mut self, vital: &Vital, now: Instant) {
        let age = |since: Instant| now.saturating_duration_since(since);
        let older = |oldest: &mut Option<Duration>, since: Option<Instant>| {
            *oldest = (*oldest).max(since.map(age));
        };
        older(&mut self.told, vital.told);
        older(&mut self.assignment, vital.assignment);
        older(&mut self.transaction, vital.transaction);
        older(&mut self.write, vital.write);
        self.memory_spent |= vital.memory_spent;
        for standing in &vital.standing {
            let since = age(standing.since);
            if since > Self::STUCK {
                self.stuck.push(standing.stuck(since));
            }
        }
    }
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_well() {
            return f.write_str("well");
        }
        let mut told = Vec::new();
        let mut tell = |age: Option<Duration>, most: Duration, what: &str| {
            told.extend(
                age.filter(|age| *age > most).map(|age| format!("{what} {}", seconds(age))),
            );
        };
        tell(self.told, Self::TOLD, "a worker has not answered for");
        tell(self.assignment, Self::ASSIGNMENT, "the group has waited for an answer for");
        tell(self.transaction, Self::TRANSACTION, "a transaction has been open for");
        tell(self.write, Self::WRITE, "the store has not flushed a write for");
        told.extend(self.stuck.iter().map(ToString::to_string));
        if self.memory_spent {
            told.push("the memory for input is full".to_owned());
        }
        f.write_str(&told.join("; "))
    }
}

impl fmt::Display for Stuck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { topic, partition, offset, since, why, lacks_room, lacks_memory } = self;
        write!(f, "{topic}/{partition} has stood at {offset} for {}: {why}", seconds(*since))?;
        if *lacks_room {
            f.write_str(", and the metadata of its commit has no room for more")?;
        }
        if *lacks_memory {
            f.write_str(", and there is no memory for more")?;
        }
        Ok(())
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TakeUp => f.write_str("Kafka has not told where the group stands"),
            Self::Begin(at) => write!(f, "message {at} is not begun"),
            Self::Store(at) => write!(f, "the store has not flushed the start of message {at}"),
            Self::Handler(at) => write!(f, "the handler has not ended with message {at}"),
            Self::Retry(at) => write!(f, "message {at} has failed and waits for its retry"),
            Self::Refused(at) => {
                write!(f, "the broker refused an output, and message {at} is sent by itself")
            }
            Self::Commit(at) => write!(f, "the transaction with message {at} is not committed"),
        }
    }
}

fn seconds(age: Duration) -> String {
    format!("{} s", age.as_secs())
}

/// What a worker tells of its health, by when it was.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Vital {
    pub(crate) told: Option<Instant>,
    pub(crate) assignment: Option<Instant>,
    pub(crate) transaction: Option<Instant>,
    pub(crate) write: Option<Instant>,
    pub(crate) memory_spent: bool,
    pub(crate) standing: Vec<Standing>,
}

/// A partition that has something left to do, and since when it stands where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) partition: TopicPartition,
    pub(crate) offset: u64,
    pub(crate) since: Instant,
    pub(crate) step: Step,
    pub(crate) lacks_room: bool,
    pub(crate) lacks_memory: bool,
}

impl Standing {
    fn stuck(&self, since: Duration) -> Stuck {
        let why = match self.step {
            Step::TakeUp => Why::TakeUp,
            Step::Begin(at) => Why::Begin(at),
            Step::Record(at) => Why::Store(at),
            Step::Handle(at) => Why::Handler(at),
            Step::Retry(at) => Why::Retry(at),
            Step::Refused(at) => Why::Refused(at),
            Step::Commit(at) => Why::Commit(at),
        };
        Stuck {
            topic: self.partition.topic.to_string(),
            partition: self.partition.partition,
            offset: self.offset,
            since,
            why,
            lacks_room: self.lacks_room,
            lacks_memory: self.lacks_memory,
        }
    }
}
