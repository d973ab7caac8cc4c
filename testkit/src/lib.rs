//! What tests of exactly-once processing need: a local real Kafka and a proxy that misbehaves on
//! purpose, a model Kafka in memory with the conformance tests that both have to pass, a reader
//! that shares no code with the library, a simulation, and the mixed soak.

pub mod broker;
pub mod conformance;
pub mod model;
pub mod proxy;
pub mod reader;
pub mod sim;
pub mod soak;
