//! How a local Kafka is set up.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How a local Kafka is set up; the default suits most tests.
#[derive(Debug, Clone)]
pub struct LocalKafkaOptions {
    /// Broker settings, added to those for tests or in place of them.
    pub properties: BTreeMap<String, String>,
    /// The largest heap of the broker's Java machine.
    pub heap_mb: u32,
    /// The port for clients; `None` takes a free one.
    pub port: Option<u16>,
    /// Where data, settings and log are kept; `None` takes a temporary directory that is removed
    /// in the end.
    pub dir: Option<PathBuf>,
    /// How long the broker may take until it answers.
    pub ready_timeout: Duration,
}

impl Default for LocalKafkaOptions {
    fn default() -> Self {
        Self {
            properties: BTreeMap::new(),
            heap_mb: 384,
            port: None,
            dir: None,
            ready_timeout: Duration::from_secs(60),
        }
    }
}

impl LocalKafkaOptions {
    /// Sets a broker setting.
    #[must_use]
    pub fn property(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.properties.insert(name.into(), value.into());
        self
    }
}

/// The ports of one broker.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ports {
    pub(super) client: u16,
    pub(super) controller: u16,
    pub(super) proxied: Option<Proxied>,
}

/// A second listener, whose clients are told to come to the proxy.
#[derive(Debug, Clone, Copy)]
pub(super) struct Proxied {
    pub(super) listener: u16,
    pub(super) advertised: u16,
}

const FOR_TESTS: &[(&str, &str)] = &[
    ("auto.create.topics.enable", "false"),
    // A killed broker must be taken for gone before its next start has read what the cluster is.
    // Otherwise it leads its partitions at once, with its listeners closed, and once it is taken
    // for gone it drops the transaction markers that it could not send: "these partitions are
    // likely deleted". Records of an aborted transaction then become visible with the next commit.
    ("broker.heartbeat.interval.ms", "200"),
    ("broker.session.timeout.ms", "1000"),
    ("controller.listener.names", "CONTROLLER"),
    ("group.consumer.min.heartbeat.interval.ms", "100"),
    ("group.consumer.min.session.timeout.ms", "1000"),
    ("group.initial.rebalance.delay.ms", "0"),
    ("group.min.session.timeout.ms", "1000"),
    ("inter.broker.listener.name", "PLAINTEXT"),
    ("log.cleaner.enable", "false"),
    // Tests write records with old timestamps, which must not be removed under them.
    ("log.retention.ms", "-1"),
    ("node.id", "1"),
    ("num.io.threads", "4"),
    ("num.network.threads", "2"),
    ("offsets.topic.num.partitions", "4"),
    ("offsets.topic.replication.factor", "1"),
    ("process.roles", "broker,controller"),
    ("share.coordinator.state.topic.min.isr", "1"),
    ("share.coordinator.state.topic.replication.factor", "1"),
    ("transaction.abort.timed.out.transaction.cleanup.interval.ms", "1000"),
    ("transaction.state.log.min.isr", "1"),
    ("transaction.state.log.num.partitions", "4"),
    ("transaction.state.log.replication.factor", "1"),
];

/// The text of `server.properties`.
pub(super) fn server_properties(options: &LocalKafkaOptions, ports: Ports, data: &Path) -> String {
    let mut settings: BTreeMap<&str, String> =
        FOR_TESTS.iter().map(|&(name, value)| (name, value.to_owned())).collect();
    let Ports { client, controller, proxied } = ports;
    let mut listeners = format!("PLAINTEXT://127.0.0.1:{client}");
    let mut advertised = listeners.clone();
    let mut protocols = "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT".to_owned();
    if let Some(Proxied { listener, advertised: proxy }) = proxied {
        protocols.push_str(",PROXIED:PLAINTEXT");
        listeners = format!("{listeners},PROXIED://127.0.0.1:{listener}");
        advertised = format!("{advertised},PROXIED://127.0.0.1:{proxy}");
    }
    settings.insert("listeners", format!("{listeners},CONTROLLER://127.0.0.1:{controller}"));
    settings.insert("advertised.listeners", advertised);
    settings.insert("listener.security.protocol.map", protocols);
    settings.insert("controller.quorum.voters", format!("1@127.0.0.1:{controller}"));
    settings.insert("log.dirs", data.display().to_string());
    for (name, value) in &options.properties {
        settings.insert(name, value.clone());
    }
    let mut text = String::new();
    for (name, value) in settings {
        writeln!(text, "{name}={value}").expect("writing to a string does not fail");
    }
    text
}
