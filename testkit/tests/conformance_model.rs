//! The model does what every implementation of the seam has to do.

use countersign_testkit::conformance::{ClientSpec, Cluster};
use countersign_testkit::conformance_tests;
use countersign_testkit::model::{Assignor, Isolation, ModelClient, ModelKafka, ModelProcess};

struct Model(ModelKafka);

impl Cluster for Model {
    type Kafka = ModelProcess;

    fn client(&self, spec: &ClientSpec) -> ModelProcess {
        self.0.client(ModelClient {
            group: spec.group.clone(),
            instance: spec.instance.clone(),
            inputs: spec.inputs.clone(),
            assignor: if spec.is_eager { Assignor::Range } else { Assignor::CooperativeSticky },
            session_timeout_ms: spec.session_timeout_ms,
            max_poll_interval_ms: spec.max_poll_interval_ms,
            transaction_timeout_ms: spec.transaction_timeout_ms,
            retry_backoff_ms: 100,
        })
    }

    async fn create_topic(&self, name: &str, partitions: u32, max_message_bytes: Option<usize>) {
        match max_message_bytes {
            Some(bytes) => self.0.create_topic_with(name, partitions, bytes),
            None => self.0.create_topic(name, partitions),
        }
    }

    async fn create_compacted_topic(&self, name: &str, partitions: u32) {
        self.0.create_topic(name, partitions);
        self.0.compact(name);
    }

    async fn set_max_message_bytes(&self, topic: &str, bytes: usize) {
        self.0.set_max_message_bytes(topic, bytes);
    }

    async fn produce(&self, topic: &str, partition: u32, values: &[&str]) {
        for value in values {
            self.0.append(topic, partition, None, value.as_bytes());
        }
    }

    async fn produce_aborted(&self, topic: &str, partition: u32, values: &[&str]) {
        let values: Vec<_> = values.iter().map(|value| value.as_bytes()).collect();
        self.0.append_aborted(topic, partition, &values);
    }

    async fn read_committed(&self, topic: &str) -> Vec<String> {
        let records = (0..16).flat_map(|p| self.0.records(topic, p, Isolation::ReadCommitted));
        records
            .map(|record| String::from_utf8_lossy(&record.value.unwrap_or_default()).into_owned())
            .collect()
    }
}

conformance_tests! {
    #[tokio::test(flavor = "current_thread", start_paused = true)]
    Model(ModelKafka::default())
}
