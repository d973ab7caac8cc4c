//! How a local Kafka is set up.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::KafkaVersion;

/// How a local Kafka is set up; the default suits most tests.
#[derive(Debug, Clone)]
pub struct LocalKafkaOptions {
    /// The version of Apache Kafka.
    pub version: KafkaVersion,
    /// Broker settings, added to those for tests or in place of them.
    pub properties: BTreeMap<String, String>,
    /// The largest heap of each broker's Java machine.
    pub heap_mb: u32,
    /// The port for clients of the first broker, from which those of others count up; `None` takes
    /// free ones.
    pub port: Option<u16>,
    /// Where data, settings and log are kept, of several brokers in a directory of each one's id;
    /// `None` takes temporary directories that are removed in the end.
    pub dir: Option<PathBuf>,
    /// How long a broker may take until it answers.
    pub ready_timeout: Duration,
}

impl Default for LocalKafkaOptions {
    fn default() -> Self {
        Self {
            version: KafkaVersion::default(),
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

/// One broker among those of its cluster.
#[derive(Debug, Clone, Copy)]
pub(super) struct Member<'a> {
    /// From 1.
    pub(super) id: u16,
    /// Of this broker.
    pub(super) ports: Ports,
    /// The controllers' ports: broker 1 has the first. Brokers with a higher id than there are
    /// controllers are brokers only.
    pub(super) controllers: &'a [u16],
    /// How many brokers the cluster has.
    pub(super) brokers: u16,
}

impl Member<'_> {
    fn is_controller(&self) -> bool {
        usize::from(self.id) <= self.controllers.len()
    }
}

/// A second listener, whose clients are told to come to the proxy.
#[derive(Debug, Clone, Copy)]
pub(super) struct Proxied {
    pub(super) listener: u16,
    pub(super) advertised: u16,
}

const FOR_TESTS: &[(&str, &str)] = &[
    ("auto.create.topics.enable", "false"),
    ("controller.listener.names", "CONTROLLER"),
    ("group.consumer.min.heartbeat.interval.ms", "100"),
    ("group.consumer.min.session.timeout.ms", "1000"),
    ("group.initial.rebalance.delay.ms", "0"),
    ("group.min.session.timeout.ms", "1000"),
    ("inter.broker.listener.name", "PLAINTEXT"),
    ("log.cleaner.enable", "false"),
    // Tests write records with old timestamps, which must not be removed under them.
    ("log.retention.ms", "-1"),
    ("num.io.threads", "4"),
    ("num.network.threads", "2"),
    ("offsets.topic.num.partitions", "4"),
    ("transaction.abort.timed.out.transaction.cleanup.interval.ms", "1000"),
    ("transaction.state.log.num.partitions", "4"),
];

/// For the broker of a cluster of one.
const ALONE: &[(&str, &str)] = &[
    // A killed broker must be taken for gone before its next start has read what the cluster is.
    // Otherwise it leads its partitions at once, with its listeners closed, and once it is taken
    // for gone it drops the transaction markers that it could not send: "these partitions are
    // likely deleted". Records of an aborted transaction then become visible with the next commit.
    ("broker.heartbeat.interval.ms", "200"),
    ("broker.session.timeout.ms", "1000"),
];

/// For each broker of several: they share the processors, and one that starves for a second must
/// not be taken for gone.
const AMONG_OTHERS: &[(&str, &str)] =
    &[("broker.heartbeat.interval.ms", "500"), ("broker.session.timeout.ms", "3000")];

/// Where the number of replicas is set, and that of those that must have a record.
const REPLICATION: &[(&str, &str)] = &[
    ("default.replication.factor", "min.insync.replicas"),
    ("offsets.topic.replication.factor", "min.insync.replicas"),
    ("share.coordinator.state.topic.replication.factor", "share.coordinator.state.topic.min.isr"),
    ("transaction.state.log.replication.factor", "transaction.state.log.min.isr"),
];

/// With three brokers each may be away: three replicas, of which two must have a record. With
/// fewer there is one, and what a broker leads is away while it is.
fn replicas(brokers: u16) -> [&'static str; 2] {
    if brokers < 3 { ["1", "1"] } else { ["3", "2"] }
}

/// The text of `server.properties`.
pub(super) fn server_properties(
    options: &LocalKafkaOptions,
    member: &Member<'_>,
    data: &Path,
) -> String {
    let liveness = if member.brokers == 1 { ALONE } else { AMONG_OTHERS };
    let mut settings: BTreeMap<&str, String> =
        FOR_TESTS.iter().chain(liveness).map(|&(name, value)| (name, value.to_owned())).collect();
    let [factor, least] = replicas(member.brokers);
    for (name, min_in_sync) in REPLICATION {
        settings.insert(name, factor.to_owned());
        settings.insert(min_in_sync, least.to_owned());
    }
    settings.insert("node.id", member.id.to_string());
    settings.insert("log.dirs", data.display().to_string());
    listen(member, &mut settings);
    for (name, value) in &options.properties {
        settings.insert(name, value.clone());
    }
    let mut text = String::new();
    for (name, value) in settings {
        writeln!(text, "{name}={value}").expect("writing to a string does not fail");
    }
    text
}

/// Sets what the broker is and where it listens.
fn listen(member: &Member<'_>, settings: &mut BTreeMap<&str, String>) {
    let Ports { client, controller, proxied } = member.ports;
    let mut roles = "broker";
    let mut listeners = format!("PLAINTEXT://127.0.0.1:{client}");
    let mut advertised = listeners.clone();
    let mut protocols = "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT".to_owned();
    if let Some(Proxied { listener, advertised: proxy }) = proxied {
        protocols.push_str(",PROXIED:PLAINTEXT");
        listeners = format!("{listeners},PROXIED://127.0.0.1:{listener}");
        advertised = format!("{advertised},PROXIED://127.0.0.1:{proxy}");
    }
    if member.is_controller() {
        roles = "broker,controller";
        listeners = format!("{listeners},CONTROLLER://127.0.0.1:{controller}");
    }
    let voter = |(id, port)| format!("{id}@127.0.0.1:{port}");
    let voters: Vec<String> = (1..).zip(member.controllers).map(voter).collect();
    settings.insert("process.roles", roles.to_owned());
    settings.insert("listeners", listeners);
    settings.insert("advertised.listeners", advertised);
    settings.insert("listener.security.protocol.map", protocols);
    settings.insert("controller.quorum.voters", voters.join(","));
}
