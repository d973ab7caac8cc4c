//! What a processor shows of itself while it runs.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use countersign_statemachine::worker::Counts;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::driver::{LoopStatus, Loops};
use crate::health::{Health, Vital};

/// The connection to Kafka.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Connection {
    /// Nothing was heard of the cluster yet.
    #[default]
    Connecting,
    /// Brokers answer.
    Connected,
    /// Brokers do not answer; work goes on by itself when they do.
    Degraded(String),
    /// The processor gave up.
    Failed(String),
}

impl Connection {
    /// The state's name.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Connected => "connected",
            Self::Degraded(_) => "degraded",
            Self::Failed(_) => "failed",
        }
    }
}

/// What a processor shows of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Status {
    /// The connection to Kafka.
    pub connection: Connection,
    /// What was done so far, by all workers.
    pub counts: Counts,
    /// Whether nothing is being handled or committed.
    pub idle: bool,
    /// What the loops are at that make blocking calls, as of now: those of all workers, and those
    /// that they share. One that has ended is not told. A change of these wakes nobody.
    pub loops: Vec<LoopStatus>,
    /// How many threads hang in a call to Kafka that was given up. Their clients were replaced.
    pub given_up: usize,
    /// Whether it makes progress, as of now. A change of it wakes nobody.
    pub health: Health,
    /// What one worker told last, of which the health is made.
    pub(crate) vital: Vital,
}

/// One worker's share of the status.
#[derive(Debug, Clone)]
pub(crate) struct StatusCell {
    sender: Arc<watch::Sender<Vec<Status>>>,
    worker: usize,
    /// When a fault of the connection was met last.
    lost: Arc<Mutex<Option<Instant>>>,
}

impl StatusCell {
    /// A cell for each worker, and where they can be watched.
    pub(crate) fn new(workers: usize, loops: Loops) -> (Vec<Self>, Watch) {
        let (sender, receiver) = watch::channel(vec![Status::default(); workers]);
        let sender = Arc::new(sender);
        let cell = |worker| Self { sender: Arc::clone(&sender), worker, lost: Arc::default() };
        ((0..workers).map(cell).collect(), Watch { workers: receiver, loops })
    }

    /// Something came from a broker. It may have been fetched before the connection was lost, so
    /// that it does not end that.
    pub(crate) fn heard(&self) {
        let connecting = |status: &Status| status.connection == Connection::Connecting;
        if self.sender.borrow().get(self.worker).is_some_and(connecting) {
            self.connection(Connection::Connected);
        }
    }

    /// Whether the connection was lost within `window`; each loss is told once.
    pub(crate) fn take_loss(&self, window: Duration) -> bool {
        let lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner).take();
        lost.is_some_and(|lost| lost.elapsed() <= window)
    }

    /// Gives whether the state changed.
    pub(crate) fn connection(&self, connection: Connection) -> bool {
        if let Connection::Degraded(_) = connection {
            let mut lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
            *lost = Some(Instant::now());
        }
        self.sender.send_if_modified(|all| {
            let Some(status) = all.get_mut(self.worker) else { return false };
            // A repeated fault is no change, whatever its words.
            if status.connection.name() == connection.name() {
                return false;
            }
            match &connection {
                Connection::Connecting | Connection::Connected => {
                    tracing::info!(worker = self.worker, state = connection.name(), "connection");
                }
                Connection::Degraded(error) | Connection::Failed(error) => {
                    let state = connection.name();
                    tracing::warn!(worker = self.worker, state, %error, "connection");
                }
            }
            status.connection = connection;
            true
        })
    }

    /// Wakes nobody: what is old is old by the time alone.
    pub(crate) fn vital(&self, vital: Vital) {
        self.sender.send_if_modified(|all| {
            if let Some(status) = all.get_mut(self.worker) {
                status.vital = vital;
            }
            false
        });
    }

    pub(crate) fn counts(&self, counts: Counts, idle: bool) {
        self.sender.send_if_modified(|all| match all.get_mut(self.worker) {
            Some(status) if status.counts != counts || status.idle != idle => {
                status.counts = counts;
                status.idle = idle;
                true
            }
            Some(_) | None => false,
        });
    }
}

/// The status of a processor, as of now.
#[derive(Debug, Clone)]
pub struct Watch {
    workers: watch::Receiver<Vec<Status>>,
    loops: Loops,
}

impl Watch {
    /// The sum over all workers; the connection is the worst of theirs.
    pub fn get(&self) -> Status {
        let rank = |connection: &Connection| match connection {
            Connection::Connected => 0,
            Connection::Connecting => 1,
            Connection::Degraded(_) => 2,
            Connection::Failed(_) => 3,
        };
        let all = self.workers.borrow();
        let worst = all.iter().map(|status| &status.connection).max_by_key(|c| rank(c));
        let mut sum = Status {
            connection: worst.cloned().unwrap_or_default(),
            counts: Counts::default(),
            idle: all.iter().all(|status| status.idle),
            loops: self.loops.status(),
            given_up: self.loops.given_up(),
            health: Health::of(all.iter().map(|status| &status.vital)),
            vital: Vital::default(),
        };
        for counts in all.iter().map(|status| status.counts) {
            let Counts { confirmed, committed, aborted, in_doubt, renewed, .. } = counts;
            let Counts { failures, dead_letters, skipped, interventions, unfinished, .. } = counts;
            sum.counts.confirmed += confirmed;
            sum.counts.committed += committed;
            sum.counts.aborted += aborted;
            sum.counts.in_doubt += in_doubt;
            sum.counts.renewed += renewed;
            sum.counts.failures += failures;
            sum.counts.dead_letters += dead_letters;
            sum.counts.skipped += skipped;
            sum.counts.interventions += interventions;
            sum.counts.unfinished += unfinished;
        }
        sum
    }

    /// Waits until something changes. Gives `false` once the processor has ended.
    pub async fn changed(&mut self) -> bool {
        self.workers.changed().await.is_ok()
    }
}
