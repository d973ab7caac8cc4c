//! Building a processor step by step.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use countersign_statemachine::{Backoff, BreakerSettings, Order, RetryPolicy, StartAt};

use crate::config::Config;
use crate::handler::{BatchHandler, Handler, Work, batch_work_of, work_of};
use crate::kafka::librdkafka::{ClusterConfig, SettingError};
use crate::processor::Processor;

/// Collects what a processor needs; [`Processor::builder`] starts one.
///
/// Brokers, group, inputs, store and handler are needed; the rest has defaults.
pub struct Builder {
    config: Config,
    work: Option<Arc<dyn Work>>,
}

impl std::fmt::Debug for Builder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Builder").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Builder {
    pub(crate) fn new() -> Self {
        let cluster = ClusterConfig::new("", "", Vec::<String>::new());
        Self { config: Config::new(cluster, PathBuf::new()), work: None }
    }

    /// Goes on from settings that were made elsewhere.
    #[must_use]
    pub fn config(self, config: Config) -> Self {
        Self { config, ..self }
    }

    /// Where to find Kafka: `host:port`, comma-separated.
    #[must_use]
    pub fn brokers(mut self, brokers: impl Into<String>) -> Self {
        self.config.cluster.brokers = brokers.into();
        self
    }

    /// The consumer group.
    #[must_use]
    pub fn group(mut self, group: impl Into<String>) -> Self {
        self.config.cluster.group = group.into();
        self
    }

    /// The topics to read.
    #[must_use]
    pub fn inputs(mut self, topics: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.config.cluster.topics = topics.into_iter().map(Into::into).collect();
        self
    }

    /// The topics that the handler may write to.
    #[must_use]
    pub fn outputs(mut self, topics: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.config.outputs = topics.into_iter().map(Into::into).collect();
        self
    }

    /// The directory of the store. Without [`instance`](Self::instance) the instance is named by it
    /// and the host.
    #[must_use]
    pub fn store(mut self, path: impl Into<PathBuf>) -> Self {
        let named = Config::new(self.config.cluster.clone(), path);
        self.config.store = named.store;
        self.config.instance = named.instance;
        self
    }

    /// The name of this instance: unique in the group, and the same after a restart.
    #[must_use]
    pub fn instance(mut self, name: impl Into<String>) -> Self {
        self.config.instance = name.into();
        self
    }

    /// How many group members run in this process (1).
    #[must_use]
    pub fn workers(mut self, workers: u32) -> Self {
        self.config.workers = workers;
        self
    }

    /// How long a transaction is filled at most (100 ms): the knob between latency and throughput.
    #[must_use]
    pub fn commit_interval(mut self, interval: Duration) -> Self {
        self.config.commit_interval = interval;
        self
    }

    /// How soon a transaction may follow the one before it when there is little traffic. 5 ms.
    #[must_use]
    pub fn commit_pause(mut self, pause: Duration) -> Self {
        self.config.commit_pause = pause;
        self
    }

    /// Where a group starts that has no commit at all (earliest).
    #[must_use]
    pub fn start(mut self, start: StartAt) -> Self {
        self.config.start = start;
        self
    }

    /// Which messages of a partition wait for each other (all of them).
    #[must_use]
    pub fn order(mut self, order: Order) -> Self {
        self.config.order = order;
        self
    }

    /// How many handlers run at once in each worker (128).
    #[must_use]
    pub fn concurrency(mut self, handlers: u32) -> Self {
        self.config.concurrency = handlers;
        self
    }

    /// How long failed messages wait before they are tried again (100 ms, doubled up to 10 s).
    #[must_use]
    pub fn retry(mut self, backoff: Backoff) -> Self {
        self.config.retry.default.backoff = backoff;
        self
    }

    /// How often a message may fail before the processor stops (without limit).
    #[must_use]
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.config.retry.default.attempts = Some(attempts);
        self
    }

    /// How long after its first failure a message is tried again (without limit).
    #[must_use]
    pub fn retry_budget(mut self, budget: Duration) -> Self {
        self.config.retry.default.budget = Some(budget);
        self
    }

    /// How failed messages are tried again whose last error is of this class: one that the handler
    /// names ([`HandlerError::class`](crate::HandlerError::class)), or `error`, `panic` or
    /// `deadline` where it names none.
    #[must_use]
    pub fn retry_class(mut self, class: impl Into<String>, policy: RetryPolicy) -> Self {
        self.config.retry.classes.insert(class.into(), policy);
        self
    }

    /// How often a message may end the process before it is given up (3): that it is this message
    /// is found by handling nothing beside it. See the documentation on failures.
    #[must_use]
    pub fn deliveries(mut self, deliveries: u32) -> Self {
        self.config.deliveries = deliveries;
        self
    }

    /// The topic for dead letters (none: a message that fails for good stops the processor). What
    /// failed as often as it may, or permanently, goes there in the transaction that passes it.
    #[must_use]
    pub fn dead_letters(mut self, topic: impl Into<String>) -> Self {
        self.config.dead_letters = Some(topic.into());
        self
    }

    /// When handling is cut down to single messages because too much fails, so that an outage does
    /// not carry a topic into the dead letters; `None`: never.
    #[must_use]
    pub fn breaker(mut self, breaker: Option<BreakerSettings>) -> Self {
        self.config.breaker = breaker;
        self
    }

    /// How long a handler may take with one message, or with one batch (as long as it wants). One
    /// that takes longer is cancelled where it waits, and its message has failed.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.config.deadline = Some(deadline);
        self
    }

    /// How many messages are handled per second, over all workers (without limit);
    /// [`Handle::set_rate`](crate::Handle::set_rate) changes it while it runs.
    #[must_use]
    pub fn rate(mut self, per_second: NonZeroU32) -> Self {
        self.config.rate = Some(per_second);
        self
    }

    /// Whether outputs carry the provenance header (they do).
    #[must_use]
    pub fn provenance(mut self, on: bool) -> Self {
        self.config.provenance = on;
        self
    }

    /// Any setting of librdkafka; those that would break exactly-once are refused by
    /// [`build`](Self::build).
    #[must_use]
    pub fn librdkafka(mut self, setting: impl Into<String>, value: impl Into<String>) -> Self {
        self.config.cluster.extra.insert(setting.into(), value.into());
        self
    }

    /// What is done with each message.
    #[must_use]
    pub fn handler(self, handler: impl Handler) -> Self {
        Self { work: Some(work_of(handler)), ..self }
    }

    /// What is done with up to `size` messages of a partition at once.
    #[must_use]
    pub fn batch_handler(self, size: usize, handler: impl BatchHandler) -> Self {
        Self { work: Some(batch_work_of(handler, size)), ..self }
    }

    /// Checks the settings.
    ///
    /// # Errors
    /// The first setting that is missing, out of range or would break exactly-once.
    pub fn build(self) -> Result<Processor, SettingError> {
        let missing = |what| SettingError::new(what, "", "it is missing", "set it before build()");
        if self.config.store.as_os_str().is_empty() {
            return Err(missing("store"));
        }
        let work = self.work.ok_or_else(|| missing("handler"))?;
        Processor::new(self.config, work)
    }
}
