//! A real Kafka through librdkafka does what every implementation of the seam has to do: the same
//! functions that the model passes.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use countersign::kafka::librdkafka::{Assignor, ClusterConfig, LibrdKafka};
use countersign_testkit::broker::LocalKafka;
use countersign_testkit::conformance::{ClientSpec, Cluster, DEADLINE};
use countersign_testkit::conformance_tests;
use countersign_testkit::reader::{Isolation, LoadRecord, load, read_all};
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};

/// One broker for all tests, each of which has topics, groups and ids of its own.
struct Real(&'static LocalKafka);

impl Real {
    fn shared() -> Self {
        Self(LocalKafka::shared().unwrap())
    }
}

fn ms(ms: u64) -> u32 {
    u32::try_from(ms).unwrap()
}

impl Cluster for Real {
    type Kafka = LibrdKafka;

    fn client(&self, spec: &ClientSpec) -> LibrdKafka {
        let mut config = ClusterConfig::new(self.0.bootstrap(), &spec.group, &spec.inputs);
        config.instance.clone_from(&spec.instance);
        config.assignor = if spec.is_eager { Assignor::Range } else { Assignor::CooperativeSticky };
        config.session_timeout_ms = ms(spec.session_timeout_ms);
        // librdkafka wants the poll interval above the session's time-out, which is above the
        // transaction's.
        config.max_poll_interval_ms =
            ms(spec.max_poll_interval_ms).max(config.session_timeout_ms + 1);
        config.transaction_timeout_ms =
            ms(spec.transaction_timeout_ms).min(config.session_timeout_ms - 1);
        LibrdKafka::new(config).unwrap()
    }

    async fn create_topic(&self, name: &str, partitions: u32, max_message_bytes: Option<usize>) {
        let bytes = max_message_bytes.map(|bytes| bytes.to_string());
        let configs: Vec<_> =
            bytes.iter().map(|bytes| ("max.message.bytes", bytes.as_str())).collect();
        self.0.create_topic_with(name, partitions, &configs).unwrap();
    }

    async fn create_compacted_topic(&self, name: &str, partitions: u32) {
        self.0.create_topic_with(name, partitions, &[("cleanup.policy", "compact")]).unwrap();
    }

    async fn set_max_message_bytes(&self, topic: &str, bytes: usize) {
        self.0.alter_topic(topic, &[("max.message.bytes", &bytes.to_string())]).unwrap();
    }

    async fn produce(&self, topic: &str, partition: u32, values: &[&str]) {
        let record = |index| LoadRecord {
            partition: Some(partition),
            key: None,
            value: Some(values[usize::try_from(index).unwrap()].as_bytes().to_vec()),
        };
        let total = values.len() as u64;
        load(self.0.bootstrap(), topic, total, DEADLINE, record, |_| {}).unwrap();
    }

    async fn produce_aborted(&self, topic: &str, partition: u32, values: &[&str]) {
        let producer: BaseProducer = ClientConfig::new()
            .set("bootstrap.servers", self.0.bootstrap())
            .set("transactional.id", format!("{topic}-{partition}-aborted"))
            .create()
            .unwrap();
        producer.init_transactions(DEADLINE).unwrap();
        producer.begin_transaction().unwrap();
        for value in values {
            let record =
                BaseRecord::<(), str>::to(topic).partition(i32::try_from(partition).unwrap());
            producer.send(record.payload(value)).unwrap();
        }
        producer.flush(DEADLINE).unwrap();
        producer.abort_transaction(DEADLINE).unwrap();
    }

    async fn read_committed(&self, topic: &str) -> Vec<String> {
        let timeout = Duration::from_secs(60);
        let records = read_all(self.0.bootstrap(), topic, Isolation::Committed, timeout).unwrap();
        let text = |value: Vec<u8>| String::from_utf8(value).unwrap();
        records.into_iter().map(|record| text(record.value.unwrap_or_default())).collect()
    }
}

conformance_tests! {
    #[tokio::test(flavor = "current_thread")]
    Real::shared()
}
