//! Exactly-once read-process-write on Apache Kafka, with a durable record of every message.

pub mod commit_metadata;
pub mod inspection;
pub mod kafka;
pub mod store;
