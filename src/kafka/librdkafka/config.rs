//! The settings of a cluster and their checks.

use std::collections::BTreeMap;
use std::fmt;

use thiserror::Error;

use super::settings;

/// How to reach a cluster and how to be a member of the group.
///
/// Start from [`ClusterConfig::new`], whose timings fit each other.
#[derive(Clone, PartialEq, Eq)]
pub struct ClusterConfig {
    /// Where to find the cluster: `host:port`, comma-separated.
    pub brokers: String,
    /// The consumer group (`group.id`).
    pub group: String,
    /// The topics to read.
    pub topics: Vec<String>,
    /// Makes static members (KIP-345): the consumer of worker `w` gets the `group.instance.id`
    /// `{instance}-{w}`. A static member that restarts within `session_timeout_ms` causes no
    /// rebalance.
    pub instance: Option<String>,
    /// How the classic protocol shares out partitions.
    pub assignor: Assignor,
    /// Which rebalance protocol to speak.
    pub group_protocol: GroupProtocol,
    /// When the coordinator gives an open transaction up (`transaction.timeout.ms`).
    pub transaction_timeout_ms: u32,
    /// When the coordinator gives a silent member up (`session.timeout.ms`). The broker decides it
    /// where `group_protocol` is `Consumer`.
    pub session_timeout_ms: u32,
    /// When a member that is not polled gives itself up (`max.poll.interval.ms`).
    pub max_poll_interval_ms: u32,
    /// How long librdkafka waits before it repeats a request (`retry.backoff.ms`).
    ///
    /// It is the clock by which a repeated `EndTxn` is noticed: a call that took less than 0.8 of
    /// it cannot have left a late copy behind. A lower value makes false alarms, a higher one slow
    /// retries.
    pub retry_backoff_ms: u32,
    /// How long a batch waits for more records (`linger.ms`). The end of a transaction does not
    /// wait for it, so that a short time makes nothing faster: it only makes batches small.
    pub linger_ms: u32,
    /// How outputs are compressed (`compression.type`).
    pub compression: Compression,
    /// Any other setting of librdkafka, by its own name. A `consumer.` or `producer.` before the
    /// name sets it on that side only. Settings that would break exactly-once are refused.
    pub extra: BTreeMap<String, String>,
}

impl ClusterConfig {
    /// Settings with defaults for everything but the names.
    pub fn new(
        brokers: impl Into<String>,
        group: impl Into<String>,
        topics: impl IntoIterator<Item = impl Into<String>>,
    ) -> Self {
        Self {
            brokers: brokers.into(),
            group: group.into(),
            topics: topics.into_iter().map(Into::into).collect(),
            instance: None,
            assignor: Assignor::CooperativeSticky,
            group_protocol: GroupProtocol::Classic,
            transaction_timeout_ms: 10_000,
            session_timeout_ms: 15_000,
            max_poll_interval_ms: 300_000,
            retry_backoff_ms: 100,
            linger_ms: 500,
            compression: Compression::None,
            extra: BTreeMap::new(),
        }
    }

    /// Checks everything that can be checked without the cluster.
    ///
    /// # Errors
    /// The first setting that is missing, contradicts another one or would break exactly-once.
    pub fn check(&self) -> Result<(), SettingError> {
        self.check_names()?;
        self.check_timings()?;
        if self.group_protocol == GroupProtocol::Consumer && self.assignor == Assignor::RoundRobin {
            return Err(SettingError::new(
                "assignor",
                "roundrobin",
                "the broker's assignors are uniform and range",
                "use cooperative-sticky (the broker's default) or range",
            ));
        }
        settings::check_extra(self)
    }

    /// How large a record may be before it is compressed, where a setting that is passed through
    /// says so (`message.max.bytes`).
    pub(crate) fn record_bytes_max(&self) -> Option<u32> {
        settings::record_bytes_max(self)
    }

    fn check_names(&self) -> Result<(), SettingError> {
        let empty = |name, remedy| SettingError::new(name, "", "it is empty", remedy);
        if self.brokers.trim().is_empty() {
            return Err(empty("brokers", "give host:port of at least one broker"));
        }
        if self.group.is_empty() {
            return Err(empty("group", "name the consumer group"));
        }
        if self.topics.is_empty() {
            return Err(empty("topics", "name at least one input topic"));
        }
        let topics = self.topics.iter().map(|topic| ("topics", topic));
        for (setting, name) in topics.chain(self.instance.iter().map(|name| ("instance", name))) {
            if !is_legal(name) {
                return Err(SettingError::new(
                    setting,
                    name,
                    "it is not a legal name",
                    "use 1 to 240 of the characters A-Z a-z 0-9 . _ -",
                ));
            }
        }
        Ok(())
    }

    fn check_timings(&self) -> Result<(), SettingError> {
        let too_small = |name, value: u32, least: u32| {
            let why = format!("it is below {least} ms");
            Err(SettingError::new(name, value, why, "raise it"))
        };
        if self.transaction_timeout_ms < 1_000 {
            return too_small("transaction_timeout_ms", self.transaction_timeout_ms, 1_000);
        }
        if self.retry_backoff_ms < 10 {
            return too_small("retry_backoff_ms", self.retry_backoff_ms, 10);
        }
        let mut rising = vec![
            ("linger_ms", self.linger_ms),
            ("transaction_timeout_ms", self.transaction_timeout_ms),
            ("session_timeout_ms", self.session_timeout_ms),
            ("max_poll_interval_ms", self.max_poll_interval_ms),
        ];
        if self.group_protocol == GroupProtocol::Consumer {
            rising.retain(|(name, _)| *name != "session_timeout_ms");
        }
        let backoff = ("retry_backoff_ms", self.retry_backoff_ms);
        let transaction = ("transaction_timeout_ms", self.transaction_timeout_ms);
        let pairs = rising.windows(2).map(|pair| (pair[0], pair[1]));
        for (low, high) in pairs.chain([(backoff, transaction)]) {
            if low.1 >= high.1 {
                let why = format!("it is not below {} = {}", high.0, high.1);
                return Err(SettingError::new(low.0, low.1, why, "lower it or raise the other"));
            }
        }
        Ok(())
    }
}

/// Kafka's rule for topics, with room for the worker's number after it.
fn is_legal(name: &str) -> bool {
    (1..=240).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

impl fmt::Debug for ClusterConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterConfig")
            .field("brokers", &self.brokers)
            .field("group", &self.group)
            .field("topics", &self.topics)
            .field("instance", &self.instance)
            .field("assignor", &self.assignor)
            .field("group_protocol", &self.group_protocol)
            .field("transaction_timeout_ms", &self.transaction_timeout_ms)
            .field("session_timeout_ms", &self.session_timeout_ms)
            .field("max_poll_interval_ms", &self.max_poll_interval_ms)
            .field("retry_backoff_ms", &self.retry_backoff_ms)
            .field("linger_ms", &self.linger_ms)
            .field("compression", &self.compression)
            // Values may be passwords.
            .field("extra", &self.extra.keys())
            .finish()
    }
}

/// How the classic protocol shares out partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Assignor {
    /// Members keep what they have; only moved partitions stop (KIP-429).
    #[default]
    CooperativeSticky,
    /// Ranges per topic; every rebalance stops all members.
    Range,
    /// Partitions in turn; every rebalance stops all members.
    RoundRobin,
}

/// Which rebalance protocol to speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum GroupProtocol {
    /// Members decide (`JoinGroup`, `SyncGroup`).
    #[default]
    Classic,
    /// The broker decides (KIP-848); needs Kafka 4.
    Consumer,
}

/// How outputs are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// LZ4: cheap.
    Lz4,
    /// Zstandard: small.
    Zstd,
    /// Gzip.
    Gzip,
    /// Snappy.
    Snappy,
}

impl Compression {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
        }
    }
}

/// A setting that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("setting {setting} = {value:?}: {why}; {remedy}")]
#[non_exhaustive]
pub struct SettingError {
    /// Its name.
    pub setting: String,
    /// Its value, unless that may be a secret.
    pub value: String,
    /// What is wrong.
    pub why: String,
    /// What to do.
    pub remedy: String,
}

impl SettingError {
    pub(crate) fn new(
        setting: impl Into<String>,
        value: impl fmt::Display,
        why: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            setting: setting.into(),
            value: value.to_string(),
            why: why.into(),
            remedy: remedy.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> ClusterConfig {
        ClusterConfig::new("localhost:9092", "group", ["in"])
    }

    #[test]
    fn the_defaults_are_accepted() {
        assert_eq!(config().check(), Ok(()));
        let consumer = ClusterConfig { group_protocol: GroupProtocol::Consumer, ..config() };
        assert_eq!(consumer.check(), Ok(()));
    }

    #[test]
    fn bad_fields_are_refused_by_name() {
        type Change = fn(&mut ClusterConfig);
        let table: &[(&str, Change)] = &[
            ("brokers", |c| c.brokers = " ".into()),
            ("group", |c| c.group = String::new()),
            ("topics", |c| c.topics.clear()),
            ("topics", |c| c.topics.push(String::new())),
            ("topics", |c| c.topics.push("a b".into())),
            ("topics", |c| c.topics.push("a\0".into())),
            ("instance", |c| c.instance = Some(String::new())),
            ("transaction_timeout_ms", |c| c.transaction_timeout_ms = 999),
            ("transaction_timeout_ms", |c| c.transaction_timeout_ms = 15_000),
            ("session_timeout_ms", |c| c.session_timeout_ms = 300_000),
            ("retry_backoff_ms", |c| c.retry_backoff_ms = 9),
            ("retry_backoff_ms", |c| c.retry_backoff_ms = 10_000),
            ("linger_ms", |c| c.linger_ms = 10_000),
            ("assignor", |c| {
                c.assignor = Assignor::RoundRobin;
                c.group_protocol = GroupProtocol::Consumer;
            }),
            ("transaction_timeout_ms", |c| {
                c.transaction_timeout_ms = 300_000;
                c.group_protocol = GroupProtocol::Consumer;
            }),
        ];
        for (setting, change) in table {
            let mut config = config();
            change(&mut config);
            let error = config.check().expect_err(setting);
            assert_eq!(error.setting, *setting, "{error}");
        }
    }

    #[test]
    fn settings_that_break_the_guarantee_are_refused_by_name() {
        let table = [
            ("enable.auto.commit", "true"),
            ("enable.auto.offset.store", "true"),
            ("isolation.level", "read_uncommitted"),
            ("transactional.id", "mine"),
            ("enable.idempotence", "false"),
            ("acks", "1"),
            ("request.required.acks", "1"),
            ("enable.partition.eof", "false"),
            ("group.id", "other"),
            ("group.instance.id", "other"),
            ("max.in.flight", "6"),
            ("max.in.flight.requests.per.connection", "1000"),
            ("auto.offset.reset", "latest"),
            ("allow.auto.create.topics", "true"),
            ("enable.gapless.guarantee", "true"),
            ("delivery.report.only.error", "true"),
            ("retry.backoff.ms", "10"),
            ("retry.backoff.max.ms", "99"),
            ("message.timeout.ms", "10001"),
            ("delivery.timeout.ms", "0"),
            ("socket.timeout.ms", "60000"),
            ("heartbeat.interval.ms", "15000"),
            ("retries", "0"),
            ("check.crcs", "false"),
            ("linger.ms", "soon"),
            ("consumer.isolation.level", "read_uncommitted"),
            ("producer.acks", "0"),
            ("max.in.flight", "many"),
            ("no.such.setting", "1"),
            ("producer.no.such.setting", "1"),
            ("fetch.min.bytes", "few"),
        ];
        for (setting, value) in table {
            let mut config = config();
            config.extra.insert(setting.into(), value.into());
            let error = config.check().expect_err(setting);
            assert_eq!(error.setting, setting, "{error}");
            assert!(!error.why.is_empty() && !error.remedy.is_empty(), "{error:?}");
        }
    }

    #[test]
    fn harmless_settings_pass_through() {
        let table = [
            ("client.id", "me"),
            ("consumer.client.id", "me"),
            ("fetch.min.bytes", "1"),
            ("consumer.fetch.queue.backoff.ms", "20"),
            ("producer.batch.size", "100000"),
            ("max.in.flight", "5"),
            ("message.timeout.ms", "10000"),
            ("socket.timeout.ms", "5000"),
            ("retry.backoff.max.ms", "100"),
            ("statistics.interval.ms", "1000"),
        ];
        for (setting, value) in table {
            let mut config = config();
            config.extra.insert(setting.into(), value.into());
            assert_eq!(config.check(), Ok(()), "{setting}");
        }
    }

    #[test]
    fn a_value_that_may_be_a_secret_is_not_shown() {
        let mut config = config();
        config.extra.insert("no.such.password".into(), "hunter2".into());
        let error = config.check().expect_err("no such setting");
        assert!(!format!("{error} {error:?} {config:?}").contains("hunter2"));
    }
}
