//! A real Apache Kafka on this machine, without Docker.
//!
//! [`LocalKafka`] fetches the broker's jars through Maven once, formats a data directory and runs
//! one process that is broker and controller. [`LocalCluster`] runs several of them, each of which
//! can be stopped, killed and started again. No process outlives the test: a watchdog holds the
//! read end of a pipe and kills the broker when the test process is gone, however it ended.

mod cluster;
mod error;
mod jars;
mod java;
mod jvm;
mod local;
mod options;
mod ports;
mod topics;
mod version;

pub use cluster::LocalCluster;
pub use error::LocalKafkaError;
pub use local::LocalKafka;
pub use options::LocalKafkaOptions;
pub use version::{KafkaVersion, UnknownKafkaVersion};
