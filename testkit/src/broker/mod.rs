//! A real Apache Kafka on this machine, without Docker.
//!
//! [`LocalKafka`] fetches the broker's jars through Maven once, formats a data directory and runs
//! one process that is broker and controller. The process never outlives the test: a watchdog
//! holds the read end of a pipe and kills the broker when the test process is gone, however it
//! ended.

mod error;
mod jars;
mod jvm;
mod local;
mod options;
mod ports;
mod topics;

pub use error::LocalKafkaError;
pub use jars::KAFKA_VERSION;
pub use local::LocalKafka;
pub use options::LocalKafkaOptions;
