//! Exactly-once read-process-write on Apache Kafka, with a durable record of every message.
//!
//! A [`Processor`] reads topics as a member of a consumer group, runs a [`handler`] for each
//! message and puts the outputs and the consumed offset into one Kafka transaction. What happens to
//! each message is recorded in an embedded store, and [`inspection`] tells it.

mod builder;
mod caught_up;
mod claim;
pub mod commit_metadata;
mod config;
pub mod control;
pub mod dead_letter;
mod destinations;
mod driver;
mod error;
pub mod handler;
mod health;
pub mod inspection;
pub mod kafka;
mod lag;
mod limits;
pub mod origin;
mod processor;
pub mod provenance;
mod signals;
pub mod simulation;
mod status;
pub mod store;
mod telemetry;
mod wall_clock;
mod workers;

pub use builder::Builder;
pub use config::Config;
pub use countersign_statemachine as statemachine;
pub use countersign_statemachine::Order;
pub use driver::{LoopState, LoopStatus};
pub use error::RunError;
pub use handler::{HandlerError, Message, Outputs, Partitioning, To};
pub use health::{Health, Stuck, Why};
pub use lag::{Lag, LagGauge};
pub use processor::{Handle, Processor};
pub use status::{Connection, Status, Watch};
