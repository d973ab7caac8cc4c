//! What a worker is told once.

use std::time::Duration;

use crate::backoff::Backoff;
use crate::breaker::BreakerSettings;
use crate::retry::Retries;

/// The worker's settings, checked by the shell.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// The instance's name with its worker, as in the transactional id.
    pub instance: String,
    /// Random per start of the process; a worker that starts anew within it has the next number.
    pub incarnation: u64,
    /// The incarnation that the process began with.
    pub process: u64,
    /// How many producers alternate: 1, or 2 for pipelined transactions.
    pub slots: u32,
    /// How long a transaction is filled at most.
    pub commit_interval: Duration,
    /// A transaction that nothing is about to join ends at once, but not earlier than so long after
    /// the one before it.
    pub commit_pause: Duration,
    /// How many messages a transaction holds at most.
    pub transaction_records: u64,
    /// How many bytes of memory the messages of a transaction hold at most, as far as it can be
    /// told before they are weighed.
    pub transaction_bytes: u64,
    /// After this the coordinator may have ended an open transaction by itself.
    pub transaction_timeout: Duration,
    /// How many messages one call of `Handle` covers at most. In order of the partition, twice as
    /// many are admitted at once: with the time that a store write takes, that bounds how fast one
    /// partition can be.
    pub handle_records: u64,
    /// How many messages of a partition are under way before its first commit, if the last owner
    /// ended without a word: one of them may have ended it, and few are quickly tried.
    pub takeover_records: u64,
    /// Which messages of a partition wait for each other.
    pub order: Order,
    /// How many handlers run at once.
    pub concurrency: u64,
    /// How long the metadata of a commit may be: one byte more and the broker refuses it.
    pub metadata_bytes: usize,
    /// How long a revocation or a shutdown waits for work under way.
    pub leave_budget: Duration,
    /// How long after that the last commit of a partition may take, which says that it is let go in
    /// good order. Handlers that are still running are cancelled before.
    pub close_budget: Duration,
    /// How long after the beginning of a store write the next messages are admitted at the
    /// earliest, unless half of what may be under way of a partition waits for it, of whatever
    /// partitions: each costs a flush, and under a trickle of messages each would have its own.
    pub write_pause: Duration,
    /// How long a lazy store write waits for another to ride with.
    pub lazy_write: Duration,
    /// Where a group starts that has no commit at all.
    pub start: StartAt,
    /// What happens when the commits of a known group are gone.
    pub expired: Expired,
    /// How failed messages are tried again, by the class of their error.
    pub retry: Retries,
    /// How often a message may end the process while it is announced.
    pub deliveries: u32,
    /// What happens to a message that failed for good.
    pub give_up: GiveUp,
    /// When handling is cut down to single messages; `None`: never.
    pub breaker: Option<BreakerSettings>,
    /// How long transactions pause after one was aborted.
    pub abort_backoff: Backoff,
    /// Seeds the jitter.
    pub seed: u64,
}

/// Which messages of a partition wait for each other: they are handled one after another, and their
/// outputs keep their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Order {
    /// All of them.
    Partition,
    /// Those with the same key; all that have none count as one key.
    Key,
    /// None.
    None,
}

impl Settings {
    /// Settings for a worker of which nothing else is known.
    pub fn new(instance: impl Into<String>, incarnation: u64) -> Self {
        Self {
            instance: instance.into(),
            incarnation,
            process: incarnation,
            slots: 2,
            commit_interval: Duration::from_millis(100),
            commit_pause: Duration::from_millis(5),
            transaction_records: 1_000_000,
            transaction_bytes: u64::MAX,
            transaction_timeout: Duration::from_secs(10),
            handle_records: 8_000,
            takeover_records: 128,
            order: Order::Partition,
            concurrency: 128,
            // Of 4,096 characters, the brokers' default.
            metadata_bytes: 3_069,
            leave_budget: Duration::from_secs(30),
            close_budget: Duration::from_secs(5),
            write_pause: Duration::from_millis(10),
            lazy_write: Duration::from_millis(50),
            start: StartAt::Earliest,
            expired: Expired::Fail,
            retry: Retries::default(),
            deliveries: 3,
            give_up: GiveUp::Stop,
            breaker: None,
            abort_backoff: Backoff { max: Duration::from_secs(5), ..Backoff::default() },
            seed: incarnation,
        }
    }
}

/// What happens to a message that failed for good: as often as it may, or permanently, or by ending
/// the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GiveUp {
    /// The worker stops; the message stays undone.
    Stop,
    /// Its dead letter takes the place of its outputs, and it is done.
    DeadLetter,
}

/// Where a group starts that has no commit at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StartAt {
    /// At the first message that still exists.
    Earliest,
    /// At the end: only messages that arrive from now on.
    Latest,
}

/// What happens when the commits of a known group are gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Expired {
    /// Stop: going on would do messages again or skip them.
    Fail,
    /// Start as a new group would.
    Restart,
}
