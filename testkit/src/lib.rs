//! What Countersign is tested with: a model Kafka in memory, and the conformance tests that the
//! model and a real Kafka both have to pass.

pub mod conformance;
pub mod model;
