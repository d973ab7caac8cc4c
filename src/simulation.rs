//! The same processor on another Kafka, another store and virtual time.
//!
//! For tests: a [`Processor`] runs unchanged on any implementation of the seam, as tasks of one
//! thread, and ends where a probe says that it crashes. See the test kit.

use std::sync::Arc;

pub use crate::driver::{Host, Probe};
pub use crate::error::RunError;

use crate::driver::{self, Place};
use crate::handler::{Handler, Topics, work_of};
use crate::kafka::{Batch, Kafka, Topic};
use crate::limits::Limit;
use crate::processor::Processor;
use crate::store::Store;

/// Runs a processor on `kafka` and `store`. Before each effect the probe is asked, with the
/// worker's number; where it says no, that worker ends there as in a crash. `incarnation` is the
/// number that is random elsewhere.
///
/// # Errors
/// [`RunError::Aborted`] after a crash; else like [`Processor::run`].
pub async fn run<K: Kafka>(
    processor: Processor,
    kafka: Arc<K>,
    host: Host,
    store: Box<dyn Store>,
    incarnation: u64,
    probe: Option<Probe>,
) -> Result<(), RunError> {
    let place = Place { host, control: None };
    processor.run_on(kafka, place, |_| Ok(store), incarnation, probe).await
}

/// Runs a handler over a batch as a driver does, without one, and gives how many outputs its
/// messages had: for measurements.
pub async fn handle(handler: impl Handler, batch: Batch, outputs: &[Topic]) -> usize {
    let topics = Topics::new(outputs, |_| Limit::default());
    driver::run_alone(&*work_of(handler), batch, Arc::new(topics)).await
}
