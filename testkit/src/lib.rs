//! What tests of exactly-once processing need: a local real Kafka and a proxy that misbehaves on
//! purpose, a model Kafka in memory with the conformance tests that both have to pass, a reader
//! that shares no code with the library, a simulation, the mixed soak, and what the system tells of
//! a process.

pub mod broker;
pub mod conformance;
pub mod model;
pub mod process;
pub mod proxy;
pub mod reader;
pub mod sim;
pub mod soak;
