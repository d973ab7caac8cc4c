//! Exactly-once read-process-write on Apache Kafka, with a durable record of every message.

pub mod kafka;
