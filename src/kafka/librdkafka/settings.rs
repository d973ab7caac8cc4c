//! Our settings in librdkafka's words, and which of its own are refused.

use std::collections::BTreeMap;

use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::KafkaError as BindingError;

use super::config::{Assignor, ClusterConfig, GroupProtocol, SettingError};
use super::topics::Full;
use crate::kafka::{DEFAULT_BATCH_BYTES, Sizes};

/// Which client a setting is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Consumer,
    Producer,
}

impl Side {
    /// The name that `key` has on this side; `None` if it is for the other side.
    fn own(self, key: &str) -> Option<&str> {
        let (ours, theirs) = match self {
            Self::Consumer => ("consumer.", "producer."),
            Self::Producer => ("producer.", "consumer."),
        };
        if key.starts_with(theirs) { None } else { Some(key.strip_prefix(ours).unwrap_or(key)) }
    }
}

const TYPED: &str = "it has a field of its own";
const GUARANTEE: &str = "exactly-once needs it as it is";
const REMOVE: &str = "remove it";

/// Settings that are never passed on: name, why, and what to do.
const REFUSED: &[(&str, &str, &str)] = &[
    ("acks", GUARANTEE, REMOVE),
    ("allow.auto.create.topics", "a mistyped name would become a topic", "create the topics"),
    ("auto.commit.enable", "offsets are committed in transactions only", REMOVE),
    ("auto.commit.interval.ms", "offsets are committed in transactions only", REMOVE),
    ("auto.offset.reset", "the start of each partition is decided before it is read", REMOVE),
    ("bootstrap.servers", TYPED, "set brokers"),
    ("compression.codec", TYPED, "set compression"),
    ("compression.type", TYPED, "set compression"),
    ("delivery.report.only.error", GUARANTEE, REMOVE),
    ("enable.auto.commit", "offsets are committed in transactions only", REMOVE),
    ("enable.auto.offset.store", "offsets are committed in transactions only", REMOVE),
    ("enable.gapless.guarantee", "it makes passing errors fatal", REMOVE),
    ("enable.idempotence", GUARANTEE, REMOVE),
    ("enable.partition.eof", "the end of a partition is how lag is known", REMOVE),
    ("group.id", TYPED, "set group"),
    ("group.instance.id", TYPED, "set instance"),
    ("group.protocol", TYPED, "set group_protocol"),
    ("group.remote.assignor", TYPED, "set assignor"),
    ("isolation.level", "records of aborted transactions would be processed", REMOVE),
    ("linger.ms", TYPED, "set linger_ms"),
    ("log.queue", "log lines are read from the queue of events", REMOVE),
    ("max.poll.interval.ms", TYPED, "set max_poll_interval_ms"),
    ("metadata.broker.list", TYPED, "set brokers"),
    ("offset.store.method", "offsets are committed in transactions only", REMOVE),
    ("partition.assignment.strategy", TYPED, "set assignor"),
    ("queue.buffering.max.ms", TYPED, "set linger_ms"),
    ("queuing.strategy", GUARANTEE, REMOVE),
    ("request.required.acks", GUARANTEE, REMOVE),
    ("retry.backoff.ms", "it is the clock of the late-EndTxn rule", "set retry_backoff_ms"),
    ("session.timeout.ms", TYPED, "set session_timeout_ms"),
    ("transaction.timeout.ms", TYPED, "set transaction_timeout_ms"),
    ("transactional.id", "each slot of each instance has its own", REMOVE),
];

/// What one setting may be at least and at most.
struct Bound {
    name: &'static str,
    least: i64,
    most: i64,
    why: String,
}

fn bounds(config: &ClusterConfig) -> Vec<Bound> {
    let transaction = i64::from(config.transaction_timeout_ms);
    let backoff = i64::from(config.retry_backoff_ms);
    let in_flight = "more than 5 requests in flight are not idempotent";
    let bound = |name, least, most, why: &str| Bound { name, least, most, why: why.to_owned() };
    let message = format!("it must be 1 to transaction_timeout_ms = {transaction}");
    let socket = format!(
        "a lost request would be noticed only after transaction_timeout_ms = {transaction}"
    );
    let clock = format!("it would shorten retry_backoff_ms = {backoff}");
    let session = i64::from(config.session_timeout_ms);
    let heartbeat = format!("it must be below session_timeout_ms = {session}");
    let retries = "a record that is not sent again breaks its transaction";
    vec![
        bound("max.in.flight", 1, 5, in_flight),
        bound("max.in.flight.requests.per.connection", 1, 5, in_flight),
        bound("message.timeout.ms", 1, transaction, &message),
        bound("delivery.timeout.ms", 1, transaction, &message),
        bound("socket.timeout.ms", 10, transaction, &socket),
        bound("retry.backoff.max.ms", backoff, i64::MAX, &clock),
        bound("heartbeat.interval.ms", 1, session - 1, &heartbeat),
        bound("retries", 1, i64::MAX, retries),
        bound("message.send.max.retries", 1, i64::MAX, retries),
    ]
}

/// Checks the settings that are passed through.
pub(super) fn check_extra(config: &ClusterConfig) -> Result<(), SettingError> {
    let bounds = bounds(config);
    for (key, value) in &config.extra {
        let name = [Side::Consumer, Side::Producer]
            .into_iter()
            .find_map(|side| side.own(key))
            .unwrap_or(key);
        if let Some((_, why, remedy)) = REFUSED.iter().find(|(refused, ..)| *refused == name) {
            return Err(SettingError::new(key, value, *why, *remedy));
        }
        if let Some(bound) = bounds.iter().find(|bound| bound.name == name) {
            check_bound(key, value, bound)?;
        }
        if name == "check.crcs" && value != "true" {
            let why = "a damaged record would be processed";
            return Err(SettingError::new(key, value, why, REMOVE));
        }
        if name == "heartbeat.interval.ms" && config.group_protocol == GroupProtocol::Consumer {
            let why = "the broker decides it for the consumer protocol";
            return Err(SettingError::new(key, value, why, REMOVE));
        }
    }
    let worker = 0;
    for client in
        [consumer(config, worker), producer(config, "check", Sizes::default()), admin(config)]
    {
        client.create_native_config().map_err(|error| of_binding(config, &error))?;
    }
    Ok(())
}

fn check_bound(key: &str, value: &str, bound: &Bound) -> Result<(), SettingError> {
    match value.trim().parse::<i64>() {
        Ok(number) if (bound.least..=bound.most).contains(&number) => Ok(()),
        Ok(_) => Err(SettingError::new(key, value, &bound.why, "correct it or remove it")),
        Err(_) => Err(SettingError::new(key, value, "it is not a number", "correct it")),
    }
}

/// librdkafka's own verdict. The value is left out, since it may be a password.
fn of_binding(config: &ClusterConfig, error: &BindingError) -> SettingError {
    let BindingError::ClientConfig(_, words, name, _) = error else {
        return SettingError::new("extra", "...", error.to_string(), "correct it");
    };
    let is_of_name = |key: &&String| {
        [Side::Consumer, Side::Producer].iter().any(|side| side.own(key) == Some(name))
    };
    let key = config.extra.keys().find(is_of_name).unwrap_or(name);
    SettingError::new(key, "...", words.trim(), "see librdkafka's CONFIGURATION.md")
}

fn base(config: &ClusterConfig) -> BTreeMap<&'static str, String> {
    let backoff = config.retry_backoff_ms;
    BTreeMap::from([
        ("bootstrap.servers", config.brokers.clone()),
        ("client.id", "countersign".into()),
        ("allow.auto.create.topics", "false".into()),
        ("retry.backoff.ms", backoff.to_string()),
        // A lower maximum would cut the backoff, and with it the late-EndTxn rule's clock.
        ("retry.backoff.max.ms", backoff.max(1_000).to_string()),
        // The transactional default, the transaction's timeout, hides a lost EndTxn for as long.
        ("socket.timeout.ms", config.transaction_timeout_ms.min(10_000).to_string()),
        // The default maximum of 10 s made repeated faults cost 8 s per commit.
        ("reconnect.backoff.ms", "50".into()),
        ("reconnect.backoff.max.ms", "1000".into()),
    ])
}

fn finish(
    config: &ClusterConfig,
    side: Side,
    settings: BTreeMap<&'static str, String>,
) -> ClientConfig {
    let mut client = ClientConfig::new();
    for (name, value) in settings {
        client.set(name, value);
    }
    // Those for one side only come last, so that they win over those for both.
    let (own, both): (Vec<_>, Vec<_>) = config
        .extra
        .iter()
        .filter_map(|(key, value)| side.own(key).map(|name| (name != key, name, value)))
        .partition(|(prefixed, ..)| *prefixed);
    for (_, name, value) in both.into_iter().chain(own) {
        client.set(name, value);
    }
    let debug = client.get("debug").is_some();
    // `tracing` filters; librdkafka's debug lines are made only if `debug` asks for them.
    client.set_log_level(if debug { RDKafkaLogLevel::Debug } else { RDKafkaLogLevel::Info });
    client
}

fn reader(config: &ClusterConfig) -> BTreeMap<&'static str, String> {
    let mut settings = base(config);
    settings.extend([
        ("group.id", config.group.clone()),
        // `committed` is stable (KIP-447) only with it.
        ("isolation.level", "read_committed".into()),
        ("enable.auto.commit", "false".into()),
        ("enable.auto.offset.store", "false".into()),
        ("auto.offset.reset", "error".into()),
    ]);
    settings
}

/// The settings of a worker's consumer.
pub(super) fn consumer(config: &ClusterConfig, worker: u32) -> ClientConfig {
    let mut settings = reader(config);
    settings.extend([
        ("enable.partition.eof", "true".into()),
        ("check.crcs", "true".into()),
        ("max.poll.interval.ms", config.max_poll_interval_ms.to_string()),
        // The default makes a fetcher that met a full queue sleep for a second.
        ("fetch.queue.backoff.ms", "10".into()),
        ("queued.min.messages", "20000".into()),
        // What one serving takes out of the queue, which makes the fetcher ask for as much again.
        ("consume.callback.max.messages", "1000".into()),
        ("queued.max.messages.kbytes", "8192".into()),
    ]);
    if let Some(instance) = &config.instance {
        settings.insert("group.instance.id", format!("{instance}-{worker}"));
    }
    match config.group_protocol {
        GroupProtocol::Classic => {
            let session = config.session_timeout_ms;
            settings.extend([
                ("group.protocol", "classic".into()),
                ("partition.assignment.strategy", strategy(config.assignor).into()),
                ("session.timeout.ms", session.to_string()),
                // Members learn of a rebalance by their next heartbeat, and one that gives
                // partitions back calls for another: at 3 s, the default, these rest for seconds.
                ("heartbeat.interval.ms", (session / 3).clamp(1, 500).to_string()),
            ]);
        }
        GroupProtocol::Consumer => {
            settings.insert("group.protocol", "consumer".into());
            if config.assignor == Assignor::Range {
                settings.insert("group.remote.assignor", "range".into());
            }
        }
    }
    finish(config, Side::Consumer, settings)
}

/// The name of an assignor.
pub(super) fn strategy(assignor: Assignor) -> &'static str {
    match assignor {
        Assignor::CooperativeSticky => "cooperative-sticky",
        Assignor::Range => "range",
        Assignor::RoundRobin => "roundrobin",
    }
}

/// What `batch.size` and `message.max.bytes` may be.
const BATCH_BYTES_MAX: u32 = i32::MAX as u32;
const RECORD_BYTES_MIN: u32 = 1_000;
const RECORD_BYTES_MAX: u32 = 1_000_000_000;

/// How large a record the settings that are passed through allow, before it is compressed.
pub(super) fn record_bytes_max(config: &ClusterConfig) -> Option<u32> {
    // That of one side wins, as in `finish`.
    let names = ["producer.message.max.bytes", "message.max.bytes"];
    let set = names.into_iter().find_map(|name| config.extra.get(name));
    set.and_then(|value| value.trim().parse().ok())
}

/// The settings of a producer.
pub(super) fn producer(
    config: &ClusterConfig,
    transactional_id: &str,
    sizes: Sizes,
) -> ClientConfig {
    let mut settings = base(config);
    settings.extend([
        ("transactional.id", transactional_id.into()),
        ("enable.idempotence", "true".into()),
        ("acks", "all".into()),
        ("transaction.timeout.ms", config.transaction_timeout_ms.to_string()),
        ("linger.ms", config.linger_ms.to_string()),
        ("compression.type", config.compression.name().into()),
        // Reports of what went well pace a flush; an event is for a whole batch.
        ("delivery.report.only.error", "false".into()),
        ("queue.buffering.max.kbytes", "131072".into()),
        ("batch.size", DEFAULT_BATCH_BYTES.to_string()),
        (
            "message.max.bytes",
            sizes.record_bytes.clamp(RECORD_BYTES_MIN, RECORD_BYTES_MAX).to_string(),
        ),
    ]);
    let mut client = finish(config, Side::Producer, settings);
    // What is set by hand may be smaller, and not so large that a topic refuses whole batches.
    let set = client.get("batch.size").and_then(|value| value.trim().parse().ok());
    if set.is_some_and(|set: u32| set > sizes.batch_bytes) {
        client.set("batch.size", sizes.batch_bytes.clamp(1, BATCH_BYTES_MAX).to_string());
    }
    client
}

/// When a batch of a producer with these settings is full.
pub(super) fn full_batch(settings: &ClientConfig) -> Result<Full, BindingError> {
    let native = settings.create_native_config()?;
    let number = |name| native.get(name).map(|value| value.trim().parse().unwrap_or(u32::MAX));
    let (bytes, records) = (number("batch.size")?, number("batch.num.messages")?);
    Ok(Full { bytes: bytes.into(), records: records as usize })
}

/// The settings of the client for questions. It never joins the group.
pub(super) fn admin(config: &ClusterConfig) -> ClientConfig {
    let mut client = finish(config, Side::Consumer, reader(config));
    // A rule of the classic protocol, which this client speaks without joining.
    client.remove("heartbeat.interval.ms");
    client
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::Kafka as _;
    use crate::kafka::librdkafka::{Compression, LibrdKafka};

    fn config(extra: &[(&str, &str)]) -> ClusterConfig {
        let mut config = ClusterConfig::new("127.0.0.1:1", "group", ["in"]);
        config.extra =
            extra.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        config
    }

    #[test]
    fn each_side_gets_its_settings() {
        let mut config = config(&[
            ("fetch.min.bytes", "7"),
            ("consumer.client.id", "reader"),
            ("producer.client.id", "writer"),
        ]);
        config.instance = Some("host".into());
        config.compression = Compression::Lz4;
        let (consumer, producer) =
            (consumer(&config, 3), producer(&config, "id", Sizes::default()));
        let table = [
            (&consumer, "client.id", Some("reader")),
            (&producer, "client.id", Some("writer")),
            (&consumer, "fetch.min.bytes", Some("7")),
            (&consumer, "group.instance.id", Some("host-3")),
            (&consumer, "partition.assignment.strategy", Some("cooperative-sticky")),
            (&consumer, "isolation.level", Some("read_committed")),
            (&consumer, "auto.offset.reset", Some("error")),
            (&consumer, "enable.partition.eof", Some("true")),
            (&consumer, "transactional.id", None),
            (&producer, "transactional.id", Some("id")),
            (&producer, "retry.backoff.ms", Some("100")),
            (&producer, "compression.type", Some("lz4")),
            (&producer, "delivery.report.only.error", Some("false")),
            (&producer, "group.id", None),
            (&admin(&config), "group.instance.id", None),
            (&admin(&config), "isolation.level", Some("read_committed")),
        ];
        for (client, name, value) in table {
            assert_eq!(client.get(name), value, "{name}");
        }
    }

    #[test]
    fn one_sides_setting_wins_over_the_common_one() {
        let config = config(&[("client.id", "both"), ("producer.client.id", "writer")]);
        assert_eq!(consumer(&config, 0).get("client.id"), Some("both"));
        assert_eq!(producer(&config, "id", Sizes::default()).get("client.id"), Some("writer"));
    }

    #[test]
    fn batches_of_several_records_stay_below_the_smallest_limit() {
        let sizes = Sizes { batch_bytes: 20_000, record_bytes: 5_000_000 };
        let table = [
            (&[][..], "20000", "5000000"),
            (&[("batch.size", "500")], "500", "5000000"),
            (&[("batch.size", "500000")], "20000", "5000000"),
            (&[("producer.message.max.bytes", "7000")], "20000", "7000"),
        ];
        for (extra, batch, record) in table {
            let client = producer(&config(extra), "id", sizes);
            assert_eq!(client.get("batch.size"), Some(batch), "{extra:?}");
            assert_eq!(client.get("message.max.bytes"), Some(record), "{extra:?}");
        }
        let large = Sizes { batch_bytes: u32::MAX, record_bytes: u32::MAX };
        let client = producer(&config(&[]), "id", large);
        assert_eq!(client.get("batch.size"), Some("1000000"));
        client.create_native_config().expect("both are in range");
    }

    #[test]
    fn the_consumer_protocol_leaves_to_the_broker_what_it_decides() {
        let mut config = config(&[]);
        config.group_protocol = GroupProtocol::Consumer;
        let client = consumer(&config, 0);
        let left = ["session.timeout.ms", "heartbeat.interval.ms", "partition.assignment.strategy"];
        for name in left {
            assert_eq!(client.get(name), None, "{name}");
        }
    }

    #[test]
    fn librdkafka_accepts_what_the_check_accepts() {
        for (assignor, group_protocol, transaction_timeout_ms) in [
            (Assignor::CooperativeSticky, GroupProtocol::Classic, 10_000),
            (Assignor::Range, GroupProtocol::Classic, 1_000),
            (Assignor::RoundRobin, GroupProtocol::Classic, 14_999),
            (Assignor::CooperativeSticky, GroupProtocol::Consumer, 10_000),
            (Assignor::Range, GroupProtocol::Consumer, 60_000),
        ] {
            let config = ClusterConfig {
                assignor,
                group_protocol,
                transaction_timeout_ms,
                // One for the consumer and one for the producer, given to both.
                ..config(&[("fetch.min.bytes", "1"), ("batch.size", "100000")])
            };
            let kafka = LibrdKafka::new(config).expect("accepted");
            drop(kafka.consumer(0).expect("a consumer"));
            drop(kafka.producer("id", Sizes::default()).expect("a producer"));
            drop(kafka.admin().expect("an admin"));
        }
    }
}
