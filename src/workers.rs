//! The workers of a run.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;

use crate::destinations::Destinations;
use crate::driver::{
    Clerk, Desk, Driver, Failures, Gate, Parts, Probe, Reaper, Scout, Watchdog, unless_it_panics,
};
use crate::error::RunError;
use crate::kafka::Kafka;
use crate::processor::Processor;
use crate::status::StatusCell;

/// What the workers of a run share.
pub(crate) struct Common<'a, K> {
    pub(crate) kafka: &'a Arc<K>,
    pub(crate) watchdog: Watchdog,
    pub(crate) reaper: Reaper,
    pub(crate) destinations: Destinations,
    pub(crate) gate: Gate,
    pub(crate) clerk: Clerk,
    pub(crate) scout: Scout,
    pub(crate) desk: Desk,
    pub(crate) probe: Option<Probe>,
    pub(crate) incarnation: u64,
}

impl Processor {
    /// Runs all workers to their ends, or until the run cannot go on.
    pub(crate) async fn run_workers<K: Kafka>(
        &self,
        common: &Common<'_, K>,
        failures: &mut Failures,
    ) -> Result<(), RunError> {
        let runs = (0..self.config.workers).zip(&self.cells).map(|(worker, status)| {
            self.keep_running(common.incarnation, status, move |renewed| {
                Driver::start(self.parts(common, worker, status, renewed))
            })
        });
        let limits = common.destinations.limits.keep(&common.scout);
        let limits = unless_it_panics("limits", limits);
        tokio::select! {
            biased;
            // What others fail of because of it is not the reason.
            Some(error) = failures.recv() => Err(error),
            results = join_all(runs) => results.into_iter().collect(),
            ended = limits => ended.map(|never| match never {}),
        }
    }

    fn parts<K: Kafka>(
        &self,
        common: &Common<'_, K>,
        worker: u32,
        status: &StatusCell,
        renewed: u64,
    ) -> Parts<K> {
        let config = &self.config;
        Parts {
            kafka: Arc::clone(common.kafka),
            watchdog: common.watchdog.clone(),
            reaper: common.reaper.clone(),
            settings: config.settings(worker, common.incarnation, renewed),
            worker,
            transactional_ids: config.transactional_ids(worker),
            inputs: self.inputs(),
            retry_backoff: Duration::from_millis(u64::from(config.cluster.retry_backoff_ms)),
            provenance: config.provenance,
            destinations: common.destinations.clone(),
            deadline: config.deadline,
            rate: self.rate.clone(),
            gate: common.gate.clone(),
            budget_bytes: config.memory_bytes,
            work: Arc::clone(&self.work),
            clerk: common.clerk.clone(),
            scout: common.scout.clone(),
            desk: common.desk.clone(),
            status: status.clone(),
            stop: self.stop(),
            probe: common.probe.clone(),
        }
    }

    /// Runs a worker; if it ends with an error the others finish what is under way.
    ///
    /// A request that was repeated because its connection was lost can arrive twice and take the id
    /// over from ourselves: the first repetition of `JoinGroup` with a group instance id is fenced
    /// by the second. So a fence after a loss of the connection is taken for our own, once for each
    /// loss, and the worker starts anew as a new process would. If there is another owner, it is
    /// fenced by that, or fences us again.
    async fn keep_running(
        &self,
        incarnation: u64,
        status: &StatusCell,
        start: impl Fn(u64) -> Result<Driver, RunError>,
    ) -> Result<(), RunError> {
        let window = 2 * Duration::from_millis(u64::from(self.config.cluster.session_timeout_ms));
        let mut incarnation = incarnation;
        loop {
            let result = match start(incarnation) {
                Ok(driver) => {
                    unless_it_panics("worker", Box::pin(driver.run())).await.and_then(|run| run)
                }
                Err(error) => Err(error),
            };
            match result {
                Err(error @ RunError::Fenced { .. }) if status.take_loss(window) => {
                    tracing::warn!(%error, "fenced after a lost connection; starting anew");
                    // Transactions are numbered from 1 again.
                    incarnation = incarnation.wrapping_add(1);
                }
                Err(error) => {
                    self.handle().shut_down();
                    return Err(error);
                }
                Ok(()) => return Ok(()),
            }
        }
    }
}
