//! The settings of a processor.

use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use countersign_statemachine::{
    Backoff, BreakerSettings, Expired, GiveUp, Order, Retries, RetryPolicy, Settings, StartAt,
};

use crate::commit_metadata::{DEFAULT_TEXT_LIMIT, max_binary_len};
use crate::kafka::librdkafka::{ClusterConfig, SettingError};
use crate::store::Damage;

/// The least that names an author and lists something beyond the position.
const METADATA_BYTES_MIN: usize = 512;

/// How long few messages wait for others to be signed in with, beside a long commit interval.
const WRITE_PAUSE_MAX: Duration = Duration::from_millis(10);

/// A commit takes some milliseconds; a broker that is slow or away may take longer.
const CLOSE_BUDGET_MAX: Duration = Duration::from_secs(5);

/// The settings of a processor. [`Config::new`] has defaults for everything that has no name.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Config {
    /// The cluster, the group, the input topics and librdkafka's settings.
    pub cluster: ClusterConfig,
    /// The topics that handlers may write to.
    pub outputs: Vec<String>,
    /// The directory of the store.
    pub store: PathBuf,
    /// What happens when the store is damaged.
    pub damage: Damage,
    /// How long the store keeps the history of transactions.
    pub history: Duration,
    /// The name of this instance: unique in the group, and the same after a restart.
    pub instance: String,
    /// What the transactional ids begin with, where brokers grant rights by prefix.
    pub transactional_id_prefix: Option<String>,
    /// How many group members run in this process.
    pub workers: u32,
    /// Whether each worker has two producers in turn, so that a transaction is filled while the one
    /// before it ends.
    pub pipelined: bool,
    /// How long a transaction is filled at most.
    pub commit_interval: Duration,
    /// With little traffic a transaction does not wait for its interval: it ends as soon as
    /// everything that was read is part of it, but not earlier than this after the one before it.
    pub commit_pause: Duration,
    /// How many messages a transaction holds at most.
    pub transaction_records: u64,
    /// Whether outputs carry a header that says where they come from.
    pub provenance: bool,
    /// Which messages of a partition wait for each other.
    pub order: Order,
    /// How many handlers one worker runs at once; what they hold counts to the memory, too.
    pub concurrency: u32,
    /// The brokers' `offset.metadata.max.bytes`: how much a commit can tell of what is done and
    /// what has failed beyond the committed offset.
    pub metadata_bytes: usize,
    /// How much memory one worker has for messages and their results, in bytes: up to half of it
    /// for results, the rest for messages, each partition with the same share. A message whose
    /// results alone are larger is handled all the same, and nothing of its partition beside it.
    pub memory_bytes: usize,
    /// Where a group starts that has no commit at all.
    pub start: StartAt,
    /// What happens when the commits of a known group are gone.
    pub expired: Expired,
    /// How failed messages are tried again, how often and how long, by the class of their error.
    pub retry: Retries,
    /// How often a message may end the process while it is the only one that is handled. With so
    /// many deliveries it is a poison pill, and given up.
    pub deliveries: u32,
    /// The topic for dead letters: what failed as often as it may, or permanently, goes there in
    /// the transaction that passes it. `None`: such a message stops the processor.
    pub dead_letters: Option<String>,
    /// When handling is cut down to single messages because too much fails. Without dead letters
    /// nothing is lost by going on, and it is not looked at; `None`: never.
    pub breaker: Option<BreakerSettings>,
    /// How long a handler may take with one message, or with one batch; `None`: as long as it
    /// wants. One that takes longer is cancelled where it waits, and its message has failed.
    pub deadline: Option<Duration>,
    /// How many messages are handled per second, over all workers; `None`: without limit.
    pub rate: Option<NonZeroU32>,
    /// How long a shutdown waits for work under way; a rebalance too, but for a third of
    /// `max.poll.interval.ms` at most. A handler that takes longer is cancelled, and its message is
    /// left to the next owner of its partition.
    pub drain: Duration,
    /// How long the first contact with Kafka is tried.
    pub connect_timeout: Duration,
}

impl Config {
    /// Settings with defaults for everything but the cluster and the store.
    pub fn new(cluster: ClusterConfig, store: impl Into<PathBuf>) -> Self {
        let store = store.into();
        Self {
            instance: default_instance(&store),
            cluster,
            outputs: Vec::new(),
            store,
            damage: Damage::Quarantine,
            history: Duration::from_secs(24 * 60 * 60),
            transactional_id_prefix: None,
            workers: 1,
            pipelined: true,
            commit_interval: Duration::from_millis(100),
            commit_pause: Duration::from_millis(5),
            transaction_records: 1_000_000,
            provenance: true,
            order: Order::Partition,
            concurrency: 128,
            metadata_bytes: DEFAULT_TEXT_LIMIT,
            memory_bytes: 64 << 20,
            start: StartAt::Earliest,
            expired: Expired::Fail,
            retry: Retries::default(),
            deliveries: 3,
            dead_letters: None,
            breaker: Some(BreakerSettings::default()),
            deadline: None,
            rate: None,
            drain: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(60),
        }
    }

    /// Checks what can be checked without a cluster.
    ///
    /// # Errors
    /// The first setting that is missing, out of range or contradicts another.
    pub fn check(&self) -> Result<(), SettingError> {
        self.cluster.check()?;
        let name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        let refuse = |field: &str, value: &dyn ToString, why: &str, remedy: &str| {
            Err(SettingError::new(field, value.to_string(), why, remedy))
        };
        if self.instance.is_empty() || self.instance.len() > 64 || !self.instance.chars().all(name)
        {
            let why = "a name has 1 to 64 letters, digits, '.', '_' or '-'";
            return refuse("instance", &self.instance, why, "choose one that a restart keeps");
        }
        let loops = |topic: &&String| self.cluster.topics.contains(topic);
        if let Some(topic) = self.dead_letters.iter().find(loops) {
            let why = "it is an input topic, so that dead letters would be processed";
            return refuse("dead_letters", topic, why, "name another topic");
        }
        if let Some(topic) = self.outputs.iter().find(loops) {
            let why = "it is an input topic, so that outputs would be processed again";
            return refuse("outputs", topic, why, "write to another topic");
        }
        if self.workers == 0 {
            return refuse("workers", &0, "nothing would run", "give at least 1");
        }
        if self.transaction_records == 0 {
            let why = "no transaction could hold a message";
            return refuse("transaction_records", &0, why, "give at least 1");
        }
        if self.concurrency == 0 {
            return refuse("concurrency", &0, "no handler could run", "give at least 1");
        }
        if self.deliveries == 0 {
            let why = "no message could be tried";
            return refuse("deliveries", &0, why, "give at least 1");
        }
        if self.metadata_bytes < METADATA_BYTES_MIN {
            let why = "a commit could not say who wrote it";
            return refuse("metadata_bytes", &self.metadata_bytes, why, "give at least 512");
        }
        self.check_retries()?;
        let third = Duration::from_millis(u64::from(self.cluster.transaction_timeout_ms)) / 3;
        if self.commit_interval > third {
            let why = "it is above a third of the transaction time-out: a slow commit would abort";
            let value = format!("{:?}", self.commit_interval);
            return refuse("commit_interval", &value, why, "shorten it or raise the time-out");
        }
        Ok(())
    }

    fn check_retries(&self) -> Result<(), SettingError> {
        let of = |policy: &RetryPolicy| {
            let RetryPolicy { backoff: Backoff { factor, jitter, .. }, attempts, .. } = policy;
            if *attempts == Some(0) {
                return Some(("max_attempts", "0".to_owned(), "a message is tried at least once"));
            }
            if factor.is_nan() || *factor < 1.0 {
                return Some(("retry_factor", factor.to_string(), "waits would become shorter"));
            }
            let is_share = (0.0..=1.0).contains(jitter);
            (!is_share).then(|| ("retry_jitter", jitter.to_string(), "a share is from 0 to 1"))
        };
        if let Some((setting, value, why)) = of(&self.retry.default) {
            return Err(SettingError::new(setting, value, why, "correct it"));
        }
        for (class, policy) in &self.retry.classes {
            if let Some((setting, value, why)) = of(policy) {
                let value = format!("{class}: {setting} {value}");
                return Err(SettingError::new("retry_class", value, why, "correct it"));
            }
        }
        Ok(())
    }

    /// The transactional ids of a worker, one for each of its producers.
    pub(crate) fn transactional_ids(&self, worker: u32) -> Vec<String> {
        let prefix = self.transactional_id_prefix.as_deref().map(|prefix| format!("{prefix}-"));
        let prefix = prefix.unwrap_or_default();
        let (group, instance) = (&self.cluster.group, &self.instance);
        (0..self.slots())
            .map(|slot| format!("{prefix}{group}-{instance}-{worker}-{slot}"))
            .collect()
    }

    fn slots(&self) -> u32 {
        if self.pipelined { 2 } else { 1 }
    }

    /// What the pure worker is told; `incarnation` is that of the process, or a later one if the
    /// worker starts anew.
    pub(crate) fn settings(&self, worker: u32, process: u64, incarnation: u64) -> Settings {
        let letters = self.dead_letters.is_some();
        let max_poll = Duration::from_millis(u64::from(self.cluster.max_poll_interval_ms));
        Settings {
            process,
            slots: self.slots(),
            commit_interval: self.commit_interval,
            commit_pause: self.commit_pause,
            write_pause: (self.commit_interval / 10).min(WRITE_PAUSE_MAX),
            transaction_records: self.transaction_records,
            transaction_bytes: self.memory_bytes as u64 / 2,
            transaction_timeout: Duration::from_millis(u64::from(
                self.cluster.transaction_timeout_ms,
            )),
            order: self.order,
            concurrency: u64::from(self.concurrency),
            metadata_bytes: max_binary_len(self.metadata_bytes),
            leave_budget: self.drain.min(max_poll / 3),
            // Both together must leave the group time to hear of it.
            close_budget: CLOSE_BUDGET_MAX.min(max_poll / 3),
            start: self.start,
            expired: self.expired,
            retry: self.retry.clone(),
            deliveries: self.deliveries,
            give_up: if letters { GiveUp::DeadLetter } else { GiveUp::Stop },
            breaker: self.breaker.filter(|_| letters),
            ..Settings::new(format!("{}-{worker}", self.instance), incarnation)
        }
    }
}

/// Host name and store path: different for two processes on one machine, and kept by a restart.
fn default_instance(store: &Path) -> String {
    let host = gethostname::gethostname();
    let path = std::path::absolute(store).unwrap_or_else(|_| store.to_owned());
    let raw = format!("{}{}", host.to_string_lossy(), path.to_string_lossy());
    let name: String = raw
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '.' | '_') { c } else { '-' })
        .collect();
    // The end of a long path tells more than its beginning.
    let skip = name.len().saturating_sub(64);
    name.get(skip..).unwrap_or_default().to_owned()
}
