//! What tests of exactly-once processing need: a local real Kafka, a proxy that misbehaves on
//! purpose, and a reader that shares no code with the library.

pub mod broker;
pub mod proxy;
pub mod reader;
