//! Kafka through librdkafka.
//!
//! The methods of the seam that wait block the calling thread and never yield, as librdkafka's own
//! calls do: give each consumer, producer and admin a thread of its own, and do not call them on a
//! thread that drives other futures.

mod admin;
mod change;
mod classify;
mod commits;
mod config;
mod consumer;
mod context;
mod drain;
mod events;
mod fetch;
mod group;
mod lists;
mod producer;
mod ranges;
mod raw;
mod reader;
mod rights;
mod seek;
mod seen;
mod settings;
mod topics;

pub use admin::LibrdAdmin;
pub use config::{Assignor, ClusterConfig, Compression, GroupProtocol, SettingError};
pub use consumer::LibrdConsumer;
pub use group::LibrdGroup;
pub use producer::LibrdProducer;
pub use reader::{ReadFrom, read_topic};

use super::{Kafka, KafkaError, Sizes};

/// A cluster, reached by librdkafka.
#[derive(Debug, Clone)]
pub struct LibrdKafka(ClusterConfig);

impl LibrdKafka {
    /// Checks the settings. Nothing is connected yet.
    ///
    /// # Errors
    /// The first setting that is missing, contradicts another one, is unknown or would break
    /// exactly-once.
    pub fn new(config: ClusterConfig) -> Result<Self, SettingError> {
        config.check()?;
        Ok(Self(config))
    }

    /// The settings.
    pub fn config(&self) -> &ClusterConfig {
        &self.0
    }
}

impl Kafka for LibrdKafka {
    type Consumer = LibrdConsumer;
    type Producer = LibrdProducer;
    type Admin = LibrdAdmin;
    type Group = LibrdGroup;

    fn consumer(&self, worker: u32) -> Result<LibrdConsumer, KafkaError> {
        LibrdConsumer::new(&self.0, worker)
    }

    fn producer(&self, transactional_id: &str, sizes: Sizes) -> Result<LibrdProducer, KafkaError> {
        LibrdProducer::new(&self.0, transactional_id, sizes)
    }

    fn admin(&self) -> Result<LibrdAdmin, KafkaError> {
        LibrdAdmin::new(&self.0)
    }
}
