//! The real driver on the model Kafka.

use std::sync::Arc;

use countersign::kafka::librdkafka::ClusterConfig;
use countersign::simulation::{self, Host, RunError};
use countersign::store::{MemoryImage, MemoryStore};
use countersign::{Config, Processor};
use countersign_testkit::model::{ModelClient, ModelKafka};
use tokio::task::JoinHandle;

/// Reads one topic, in a group of its name, and writes to `out`.
pub(crate) fn config(input: &str) -> Config {
    let cluster = ClusterConfig::new("model:9092", input, [input.to_owned()]);
    let mut config = Config::new(cluster, "in-memory");
    config.outputs = vec!["out".to_owned()];
    config
}

/// An instance with an empty store.
pub(crate) fn start(
    kafka: &ModelKafka,
    input: &str,
    processor: Processor,
) -> JoinHandle<Result<(), RunError>> {
    let process = kafka.client(ModelClient::new(input, &[input]));
    let store = Box::new(MemoryStore::new(MemoryImage::shared()));
    tokio::spawn(simulation::run(processor, Arc::new(process), Host::Tasks, store, 1, None))
}
