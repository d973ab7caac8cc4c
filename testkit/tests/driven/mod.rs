//! The real driver on the model Kafka.

#![allow(dead_code, reason = "each test program starts in its own way")]

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
    start_as(kafka, input, processor, 1)
}

/// An instance with an empty store, whose process has this number.
pub(crate) fn start_as(
    kafka: &ModelKafka,
    input: &str,
    processor: Processor,
    incarnation: u64,
) -> JoinHandle<Result<(), RunError>> {
    let process = Arc::new(kafka.client(ModelClient::new(input, &[input])));
    let store = Box::new(MemoryStore::new(MemoryImage::shared()));
    tokio::spawn(simulation::run(processor, process, Host::Tasks, store, incarnation, None))
}
