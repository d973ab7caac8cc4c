//! What a driver is made of, and how it is told to stop.

use std::sync::Arc;
use std::time::Duration;

use countersign_statemachine::Settings;
use countersign_statemachine::worker::Effect;
use tokio::sync::watch;

use crate::destinations::Destinations;
use crate::handler::Work;
use crate::kafka::Kafka;
use crate::status::StatusCell;

use super::{Clerk, Desk, Gate, Rate, Reaper, Scout, Watchdog};

/// What a driver is made of.
pub(crate) struct Parts<K: Kafka> {
    pub(crate) kafka: Arc<K>,
    pub(crate) watchdog: Watchdog,
    /// Where producers are closed.
    pub(crate) reaper: Reaper,
    pub(crate) settings: Settings,
    /// Which worker of the process this is.
    pub(crate) worker: u32,
    pub(crate) transactional_ids: Vec<String>,
    /// The topics that are read.
    pub(crate) inputs: Arc<[Arc<str>]>,
    pub(crate) retry_backoff: Duration,
    pub(crate) provenance: bool,
    pub(crate) destinations: Destinations,
    /// How long one call of the handler may take.
    pub(crate) deadline: Option<Duration>,
    pub(crate) rate: Rate,
    /// What the handlers of all workers pass.
    pub(crate) gate: Gate,
    /// How much input may be in memory.
    pub(crate) budget_bytes: usize,
    pub(crate) work: Arc<dyn Work>,
    pub(crate) clerk: Clerk,
    pub(crate) scout: Scout,
    /// Where orders of operators come in.
    pub(crate) desk: Desk,
    pub(crate) status: StatusCell,
    pub(crate) stop: watch::Receiver<Stop>,
    /// Asked before each effect; `false` ends the driver there, as a crash would.
    pub(crate) probe: Option<Probe>,
}

/// Decides before an effect of a worker whether its driver lives on.
pub type Probe = Arc<dyn Fn(u32, &Effect) -> bool + Send + Sync>;

/// Whether the driver should go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stop {
    /// It should.
    No,
    /// It should finish what is under way.
    Drain,
    /// It should end at once.
    Abort,
}
