//! The same processor on another Kafka, another store and virtual time.
//!
//! For tests: a [`Processor`] runs unchanged on any implementation of the seam, as tasks of one
//! thread, and ends where a probe says that it crashes. See the test kit.

use std::sync::Arc;

pub use crate::driver::{Host, Probe};
pub use crate::error::RunError;

use countersign_statemachine::Verb;
use countersign_statemachine::worker::Obstacle;

use crate::driver::{self, Desk, Place, Wish};
use crate::handler::{Handler, Topics, work_of};
use crate::kafka::{Batch, Kafka, Topic, TopicPartition};
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
    processor.run_on(kafka, place, async |_| Ok(store), incarnation, probe).await
}

/// A person who decides about messages of a processor; clones are the same one.
#[derive(Debug, Clone)]
pub struct Operator(Desk);

impl Operator {
    /// The operator of a processor, which need not run yet.
    pub fn of(processor: &Processor) -> Self {
        Self(processor.desk.clone())
    }

    /// Orders something about one message, as [`control::ask`](crate::control::ask) does without a
    /// socket, and waits until it is carried out.
    ///
    /// # Errors
    /// Why it is not, or is not known to be.
    pub async fn order(
        &self,
        partition: TopicPartition,
        offset: u64,
        verb: Verb,
    ) -> Result<(), Obstacle> {
        let (by, reason) = ("operator".to_owned(), "it is in the way".to_owned());
        self.0.ask(&Wish { partition, offset, verb, by, reason }).await
    }
}

/// Runs a handler over a batch as a driver does, without one, and gives how many outputs its
/// messages had: for measurements.
pub async fn handle(handler: impl Handler, batch: Batch, outputs: &[Topic]) -> usize {
    let topics = Topics::new(outputs, |_| Limit::default());
    driver::run_alone(&*work_of(handler), batch, Arc::new(topics)).await
}
