//! The settings of `countersign run`: flags, a file with the same names, and what becomes of them.

mod handling;
mod retries;

pub(crate) use handling::{HandlerName, Handling};

use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use clap::Args;
use countersign::Config;
use countersign::kafka::librdkafka::{ClusterConfig, SettingError};
use serde::Deserialize;

use crate::failure::Failure;
use crate::logging::LogFormat;
use crate::values::{
    Assignor, Compression, GroupProtocol, Interval, Memory, MessageOrder, OnDamagedStore,
    OnExpired, OnManyFailures, Passed, Start, names, passed_settings,
};
use retries::ClassRetry;

/// All of them can stand in the file too; none is needed until both were read.
#[derive(Clone, Default, Args, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Settings {
    /// Where to find Kafka
    #[arg(long, value_name = "HOST:PORT[,..]")]
    pub(crate) brokers: Option<String>,
    /// The consumer group
    #[arg(long, value_name = "NAME")]
    pub(crate) group: Option<String>,
    /// The topics to read
    #[arg(long, value_name = "TOPIC[,..]", value_delimiter = ',')]
    #[serde(deserialize_with = "names")]
    input: Option<Vec<String>>,
    /// The topic to write to; more than one for a handler that names them, the first by default
    #[arg(long, value_name = "TOPIC[,..]", value_delimiter = ',')]
    #[serde(deserialize_with = "names")]
    output: Option<Vec<String>>,
    /// The directory of the store, of this instance alone; made if it is missing
    #[arg(long, value_name = "DIR")]
    pub(crate) store: Option<PathBuf>,
    /// What is done with each message [default: copy]
    #[arg(long, value_enum, value_name = "NAME")]
    handler: Option<HandlerName>,
    /// The command of the handler exec: it reads messages as lines of JSON and answers each
    #[arg(long, value_name = "COMMAND")]
    exec: Option<String>,
    /// How many of them run [default: 1]
    #[arg(long, value_name = "N")]
    exec_processes: Option<u32>,
    /// End with code 0 once the group has committed all that was there at the start
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "true", hide_possible_values = true)]
    until_caught_up: Option<bool>,
    /// Settings by the same names, in TOML; flags win
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    config: Option<PathBuf>,
    /// Any setting of librdkafka; those that would break exactly-once are refused. In the file: a
    /// table `librdkafka`, the place for passwords
    #[arg(short = 'X', long = "librdkafka", value_name = "SETTING=VALUE")]
    #[serde(deserialize_with = "passed_settings")]
    pub(crate) librdkafka: Vec<Passed>,
    /// How the log is written [default: text]
    #[arg(long, value_enum, value_name = "FORMAT")]
    log_format: Option<LogFormat>,

    /// The name of this instance: unique in the group, kept by a restart [default: host and store]
    #[arg(long, value_name = "NAME", help_heading = "The group")]
    instance: Option<String>,
    /// How many group members run in this process [default: 1]
    #[arg(long, value_name = "N", help_heading = "The group")]
    workers: Option<u32>,
    /// Where a group starts that has no commit at all [default: earliest]
    #[arg(long, value_enum, value_name = "WHERE", help_heading = "The group")]
    start: Option<Start>,
    /// What to do when the commits of a known group are gone [default: fail]
    #[arg(long, value_enum, value_name = "POLICY", help_heading = "The group")]
    on_expired_commit: Option<OnExpired>,
    /// How members share out partitions [default: cooperative-sticky]
    #[arg(long, value_enum, value_name = "NAME", help_heading = "The group")]
    assignor: Option<Assignor>,
    /// Which rebalance protocol to speak; consumer (KIP-848) needs Kafka 4 [default: classic]
    #[arg(long, value_enum, value_name = "NAME", help_heading = "The group")]
    group_protocol: Option<GroupProtocol>,
    /// When the coordinator gives a silent member up [default: 15s]
    #[arg(long, value_name = "TIME", help_heading = "The group")]
    session_timeout: Option<Interval>,
    /// When a member that is stuck gives itself up [default: 5m]
    #[arg(long, value_name = "TIME", help_heading = "The group")]
    max_poll_interval: Option<Interval>,

    /// Which messages of a partition wait for each other: all, those with the same key (those
    /// without one count as one key), or none [default: partition]
    #[arg(long, value_enum, value_name = "WHICH", help_heading = "Handlers")]
    order: Option<MessageOrder>,
    /// How many handlers run at once in each group member [default: 128]
    #[arg(long, value_name = "N", help_heading = "Handlers")]
    concurrency: Option<u32>,

    /// How long a transaction is filled at most [default: 100ms]
    #[arg(long, value_name = "TIME", help_heading = "Transactions")]
    commit_interval: Option<Interval>,
    /// How many messages a transaction holds at most [default: 1000000]
    #[arg(long, value_name = "N", help_heading = "Transactions")]
    max_transaction_records: Option<u64>,
    /// When the coordinator gives an open transaction up [default: 10s]
    #[arg(long, value_name = "TIME", help_heading = "Transactions")]
    transaction_timeout: Option<Interval>,
    /// How long a batch of outputs waits for more [default: 500ms]
    #[arg(long, value_name = "TIME", help_heading = "Transactions")]
    linger: Option<Interval>,
    /// How long a request to Kafka waits before it is repeated [default: 100ms]
    #[arg(long, value_name = "TIME", help_heading = "Transactions")]
    retry_backoff: Option<Interval>,
    /// What the transactional ids begin with
    #[arg(long, value_name = "PREFIX", help_heading = "Transactions")]
    pub(crate) transactional_id_prefix: Option<String>,
    /// End one transaction before the next is filled
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "true", hide_possible_values = true)]
    #[arg(help_heading = "Transactions")]
    no_pipelining: Option<bool>,
    /// Leave out the header that says from which message an output was made
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "true", hide_possible_values = true)]
    #[arg(help_heading = "Transactions")]
    no_provenance: Option<bool>,
    /// How outputs are compressed [default: none]
    #[arg(long, value_enum, value_name = "CODEC", help_heading = "Transactions")]
    compression: Option<Compression>,

    /// How long the first contact with Kafka is tried [default: 1m]
    #[arg(long, value_name = "TIME", help_heading = "Limits")]
    connect_timeout: Option<Interval>,
    /// How long a shutdown or a rebalance waits for work under way [default: 30s]
    #[arg(long, value_name = "TIME", help_heading = "Limits")]
    drain: Option<Interval>,
    /// How often a message may fail before it is given up [default: without limit]
    #[arg(long, value_name = "N", help_heading = "Failures")]
    max_attempts: Option<u32>,
    /// How often a message may end the process before it is given up [default: 3]
    #[arg(long, value_name = "N", help_heading = "Failures")]
    max_deliveries: Option<u32>,
    /// The topic for messages that failed for good [default: none, they stop the processor]
    #[arg(long, value_name = "TOPIC", help_heading = "Failures")]
    pub(crate) dead_letters: Option<String>,
    /// What happens when too many messages fail: single ones are tried until one succeeds, the
    /// processor stops, or nothing [default: probe; go-on without dead letters]
    #[arg(long, value_enum, value_name = "POLICY", help_heading = "Failures")]
    on_many_failures: Option<OnManyFailures>,
    /// How long the first wait before a failed message is tried again is [default: 100ms]
    #[arg(long, value_name = "TIME", help_heading = "Failures")]
    retry_base: Option<Interval>,
    /// How long such a wait is at most [default: 10s]
    #[arg(long, value_name = "TIME", help_heading = "Failures")]
    retry_max: Option<Interval>,
    /// By how much each wait is longer than the one before [default: 2]
    #[arg(long, value_name = "FACTOR", help_heading = "Failures")]
    retry_factor: Option<f64>,
    /// Which share of a wait is left to chance, from 0 to 1 [default: 0.2]
    #[arg(long, value_name = "SHARE", help_heading = "Failures")]
    retry_jitter: Option<f64>,
    /// How long after its first failure a message is tried again [default: without limit]
    #[arg(long, value_name = "TIME", help_heading = "Failures")]
    retry_budget: Option<Interval>,
    /// What holds for errors of one class instead, such as http-503:base=1s,attempts=20 or
    /// panic:attempts=1; the names are base, factor, max, jitter, attempts and budget. In the file:
    /// a table `retry-class` with a table for each class
    #[arg(long, value_name = "CLASS:NAME=VALUE[,..]", help_heading = "Failures")]
    #[serde(deserialize_with = "retries::classes")]
    retry_class: Vec<ClassRetry>,
    /// How long a handler may take with a message, which then has failed [default: without limit;
    /// 30s for the handler exec]
    #[arg(long, value_name = "TIME", help_heading = "Failures")]
    deadline: Option<Interval>,
    /// How many messages are handled per second, over all workers [default: without limit]
    #[arg(long, value_name = "N", help_heading = "Limits")]
    rate: Option<NonZeroU32>,
    /// How much messages and their results one worker holds in memory [default: 64MiB]
    #[arg(long, value_name = "SIZE", help_heading = "Limits")]
    memory: Option<Memory>,
    /// How long the store keeps the history of transactions [default: 24h]
    #[arg(long, value_name = "TIME", help_heading = "Limits")]
    history: Option<Interval>,
    /// What to do with a damaged store: move it aside and make a new one, or stop
    /// [default: quarantine]
    #[arg(long, value_enum, value_name = "POLICY", help_heading = "Limits")]
    on_damaged_store: Option<OnDamagedStore>,
}

impl Settings {
    /// Adds what the file says and no flag does.
    pub(crate) fn with_file(self) -> Result<Self, Failure> {
        let Some(path) = self.config.clone() else { return Ok(self) };
        let file = Self::read(&path)?;
        Ok(self.over(file))
    }

    pub(crate) fn read(path: &Path) -> Result<Self, Failure> {
        let shown = path.display();
        let text = std::fs::read_to_string(path)
            .map_err(|error| Failure::usage(format!("--config {shown}: {error}")))?;
        // Without the line itself, which may hold a password.
        toml::from_str(&text).map_err(|error| {
            let before = error.span().and_then(|span| text.get(..span.start));
            let line = before.map_or_else(String::new, |before| {
                format!(", line {}", before.matches('\n').count() + 1)
            });
            Failure::usage(format!("--config {shown}{line}: {}", error.message()))
        })
    }

    fn over(self, file: Self) -> Self {
        Self {
            brokers: self.brokers.or(file.brokers),
            group: self.group.or(file.group),
            input: self.input.or(file.input),
            output: self.output.or(file.output),
            store: self.store.or(file.store),
            handler: self.handler.or(file.handler),
            exec: self.exec.or(file.exec),
            exec_processes: self.exec_processes.or(file.exec_processes),
            until_caught_up: self.until_caught_up.or(file.until_caught_up),
            config: self.config,
            // Later ones replace earlier ones.
            librdkafka: [file.librdkafka, self.librdkafka].concat(),
            log_format: self.log_format.or(file.log_format),
            instance: self.instance.or(file.instance),
            workers: self.workers.or(file.workers),
            start: self.start.or(file.start),
            on_expired_commit: self.on_expired_commit.or(file.on_expired_commit),
            assignor: self.assignor.or(file.assignor),
            group_protocol: self.group_protocol.or(file.group_protocol),
            session_timeout: self.session_timeout.or(file.session_timeout),
            max_poll_interval: self.max_poll_interval.or(file.max_poll_interval),
            order: self.order.or(file.order),
            concurrency: self.concurrency.or(file.concurrency),
            linger: self.linger.or(file.linger),
            retry_backoff: self.retry_backoff.or(file.retry_backoff),
            commit_interval: self.commit_interval.or(file.commit_interval),
            max_transaction_records: self.max_transaction_records.or(file.max_transaction_records),
            transaction_timeout: self.transaction_timeout.or(file.transaction_timeout),
            transactional_id_prefix: self.transactional_id_prefix.or(file.transactional_id_prefix),
            no_pipelining: self.no_pipelining.or(file.no_pipelining),
            no_provenance: self.no_provenance.or(file.no_provenance),
            compression: self.compression.or(file.compression),
            connect_timeout: self.connect_timeout.or(file.connect_timeout),
            drain: self.drain.or(file.drain),
            max_attempts: self.max_attempts.or(file.max_attempts),
            max_deliveries: self.max_deliveries.or(file.max_deliveries),
            dead_letters: self.dead_letters.or(file.dead_letters),
            on_many_failures: self.on_many_failures.or(file.on_many_failures),
            retry_base: self.retry_base.or(file.retry_base),
            retry_max: self.retry_max.or(file.retry_max),
            retry_factor: self.retry_factor.or(file.retry_factor),
            retry_jitter: self.retry_jitter.or(file.retry_jitter),
            retry_budget: self.retry_budget.or(file.retry_budget),
            retry_class: [file.retry_class, self.retry_class].concat(),
            deadline: self.deadline.or(file.deadline),
            rate: self.rate.or(file.rate),
            memory: self.memory.or(file.memory),
            history: self.history.or(file.history),
            on_damaged_store: self.on_damaged_store.or(file.on_damaged_store),
        }
    }

    pub(crate) fn log_format(&self) -> LogFormat {
        self.log_format.unwrap_or(LogFormat::Text)
    }

    pub(crate) fn until_caught_up(&self) -> bool {
        self.until_caught_up.unwrap_or(false)
    }

    /// What the library is told.
    pub(crate) fn processor(&self) -> Result<Config, Failure> {
        let Self { brokers, group, input, output, store, .. } = self;
        let (Some(brokers), Some(group), Some(input), Some(output), Some(store)) =
            (brokers, group, input, output, store)
        else {
            return Err(self.missing());
        };
        let cluster = self.cluster(ClusterConfig::new(brokers, group, input));
        let mut config = Config::new(cluster, store);
        config.outputs.clone_from(output);
        set(&mut config.instance, self.instance.clone());
        config.transactional_id_prefix.clone_from(&self.transactional_id_prefix);
        config.retry = self.retries();
        set(&mut config.deliveries, self.max_deliveries);
        set(&mut config.workers, self.workers);
        set(&mut config.order, self.order.map(Into::into));
        set(&mut config.concurrency, self.concurrency);
        set(&mut config.start, self.start.map(Into::into));
        set(&mut config.expired, self.on_expired_commit.map(Into::into));
        set(&mut config.commit_interval, self.commit_interval.map(|it| it.0));
        set(&mut config.transaction_records, self.max_transaction_records);
        set(&mut config.pipelined, self.no_pipelining.map(|no| !no));
        set(&mut config.provenance, self.no_provenance.map(|no| !no));
        set(&mut config.connect_timeout, self.connect_timeout.map(|it| it.0));
        set(&mut config.drain, self.drain.map(|it| it.0));
        config.rate = self.rate;
        config.dead_letters.clone_from(&self.dead_letters);
        set(&mut config.breaker, self.on_many_failures.map(OnManyFailures::breaker));
        // The handler exec has its own, which begins when a child has the message.
        if self.handler != Some(HandlerName::Exec) {
            config.deadline = self.deadline.map(|it| it.0);
        }
        set(&mut config.memory_bytes, self.memory.map(|it| it.0));
        set(&mut config.history, self.history.map(|it| it.0));
        set(&mut config.damage, self.on_damaged_store.map(Into::into));
        Ok(config)
    }

    fn missing(&self) -> Failure {
        let given = [
            ("brokers", self.brokers.is_some()),
            ("group", self.group.is_some()),
            ("input", self.input.is_some()),
            ("output", self.output.is_some()),
            ("store", self.store.is_some()),
        ];
        let missing = given.iter().filter(|(_, given)| !given).map(|(name, _)| format!("--{name}"));
        let missing: Vec<String> = missing.collect();
        let remedy = "give it as a flag, or by the same name in the file of --config";
        Failure::usage(format!("missing: {}; {remedy}", missing.join(", ")))
    }

    fn cluster(&self, mut cluster: ClusterConfig) -> ClusterConfig {
        set(&mut cluster.assignor, self.assignor.map(Into::into));
        set(&mut cluster.group_protocol, self.group_protocol.map(Into::into));
        set(&mut cluster.compression, self.compression.map(Into::into));
        set(&mut cluster.transaction_timeout_ms, self.transaction_timeout.map(milliseconds));
        set(&mut cluster.session_timeout_ms, self.session_timeout.map(milliseconds));
        set(&mut cluster.max_poll_interval_ms, self.max_poll_interval.map(milliseconds));
        set(&mut cluster.retry_backoff_ms, self.retry_backoff.map(milliseconds));
        set(&mut cluster.linger_ms, self.linger.map(milliseconds));
        let passed = self.librdkafka.iter();
        cluster.extra = passed.map(|it| (it.name.clone(), it.value.clone())).collect();
        cluster
    }

    /// An error in the words of the command line.
    pub(crate) fn refused(&self, error: &SettingError) -> Failure {
        let SettingError { setting, value, why, remedy, .. } = error;
        if self.librdkafka.iter().any(|passed| passed.name == *setting) {
            let (why, remedy) = match remedy.strip_prefix("set ") {
                Some(field) => ("it has a flag of its own", format!("use {}", flag_of(field))),
                None => (why.as_str(), remedy.clone()),
            };
            return Failure::usage(format!("-X {setting}={value}: {why}; {remedy}"));
        }
        Failure::usage(format!("{} {value:?}: {why}; {remedy}", flag_of(setting)))
    }
}

/// The flag that sets a field of the library.
fn flag_of(field: &str) -> String {
    let flag = match field {
        "topics" => "input",
        "outputs" => "output",
        "transaction_records" => "max-transaction-records",
        other => other.strip_suffix("_ms").unwrap_or(other),
    };
    format!("--{}", flag.replace('_', "-"))
}

fn milliseconds(interval: Interval) -> u32 {
    u32::try_from(interval.0.as_millis()).unwrap_or(u32::MAX)
}

fn set<T>(field: &mut T, given: Option<T>) {
    if let Some(given) = given {
        *field = given;
    }
}
