//! A processor, from its start to its end.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use futures::future::join;
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep, timeout};

use crate::builder::Builder;
use crate::config::Config;
use crate::control::Server;
use crate::destinations::Destinations;
use crate::driver::{
    Clerk, Desk, Gate, Host, Loops, Place, Probe, Rate, Reaper, Scout, Stop, Watchdog, existing,
    settle_unowned,
};
use crate::error::RunError;
use crate::handler::Work;
use crate::kafka::librdkafka::{LibrdKafka, SettingError};
use crate::kafka::{Kafka, KafkaError};
use crate::signals;
use crate::status::{Connection, StatusCell, Watch};
use crate::store::{self, Identity, Journal, JournalOptions, Store, StoreError};
use crate::wall_clock::now_ms;
use crate::workers::Common;

/// Reads, processes and writes, each message exactly once.
///
/// ```no_run
/// use countersign::{Outputs, Processor, To, handler};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let processor = Processor::builder()
///     .brokers("localhost:9092")
///     .group("invoicing")
///     .inputs(["orders"])
///     .outputs(["invoices"])
///     .store("invoicing-store")
///     .handler(handler::each(|order| async move {
///         let bytes = order.record().value_bytes().unwrap_or_default();
///         Ok(Outputs::one(To::topic("invoices").value(bytes)))
///     }))
///     .build()?;
/// processor.run_until_signal().await?;
/// # Ok(())
/// # }
/// ```
pub struct Processor {
    pub(crate) config: Config,
    pub(crate) work: Arc<dyn Work>,
    stop: Arc<watch::Sender<Stop>>,
    pub(crate) cells: Vec<StatusCell>,
    watch: Watch,
    loops: Loops,
    pub(crate) rate: Rate,
    /// Where orders of operators come in.
    pub(crate) desk: Desk,
}

impl std::fmt::Debug for Processor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Processor").field("config", &self.config).finish_non_exhaustive()
    }
}

/// Stops a running processor and shows its status.
#[derive(Debug, Clone)]
pub struct Handle {
    stop: Arc<watch::Sender<Stop>>,
    watch: Watch,
    rate: Rate,
}

impl Handle {
    /// Finishes what is under way, commits it, and leaves the group.
    pub fn shut_down(&self) {
        self.stop_with(Stop::Drain);
    }

    /// Ends at once; the next start takes up what was under way.
    pub fn abort(&self) {
        self.stop_with(Stop::Abort);
    }

    /// From now on at most so many messages per second are handled, over all workers; `None`:
    /// without limit.
    pub fn set_rate(&self, per_second: Option<NonZeroU32>) {
        self.rate.set(per_second);
    }

    /// The status.
    pub fn status(&self) -> Watch {
        self.watch.clone()
    }

    fn stop_with(&self, wanted: Stop) {
        self.stop.send_if_modified(|stop| {
            let further = *stop < wanted;
            *stop = wanted.max(*stop);
            further
        });
    }
}

impl Processor {
    /// Starts building a processor.
    pub fn builder() -> Builder {
        Builder::new()
    }

    pub(crate) fn new(mut config: Config, work: Arc<dyn Work>) -> Result<Self, SettingError> {
        config.cluster.instance.get_or_insert_with(|| config.instance.clone());
        config.check()?;
        let (stop, _) = watch::channel(Stop::No);
        let rate = Rate::default();
        rate.set(config.rate);
        let loops = Loops::default();
        let (cells, watch) = StatusCell::new(config.workers as usize, loops.clone());
        let (stop, desk) = (Arc::new(stop), Desk::default());
        Ok(Self { config, work, stop, cells, watch, loops, rate, desk })
    }

    /// A handle that works while the processor runs.
    pub fn handle(&self) -> Handle {
        Handle { stop: Arc::clone(&self.stop), watch: self.watch.clone(), rate: self.rate.clone() }
    }

    /// Runs until it is told to stop by its [`Handle`], or cannot go on.
    ///
    /// # Errors
    /// Why it cannot go on; nothing is lost or doubled by any of it.
    pub async fn run(self) -> Result<(), RunError> {
        let kafka = LibrdKafka::new(self.config.cluster.clone()).map_err(RunError::of_setting)?;
        let store = self.config.store.clone();
        let place = Place { host: Host::Threads, control: Some(store) };
        self.run_on(Arc::new(kafka), place, open_store, rand::random(), None).await
    }

    /// Like [`run`](Self::run), and shuts down on Ctrl-C and `SIGTERM`; the second one aborts.
    ///
    /// # Errors
    /// Like [`run`](Self::run).
    pub async fn run_until_signal(self) -> Result<(), RunError> {
        let handle = self.handle();
        let signals = tokio::spawn(async move {
            signals::next().await;
            tracing::info!("shutting down; a second signal aborts");
            handle.shut_down();
            signals::next().await;
            handle.abort();
        });
        let result = self.run().await;
        signals.abort();
        result
    }

    /// Runs on any Kafka, any store and any host.
    pub(crate) async fn run_on<K: Kafka>(
        self,
        kafka: Arc<K>,
        place: Place,
        open: impl AsyncFnOnce(&Config) -> Result<Box<dyn Store>, StoreError>,
        incarnation: u64,
        probe: Option<Probe>,
    ) -> Result<(), RunError> {
        let result = self.work_on(kafka, place, open, incarnation, probe).await;
        if let Err(error) = &result {
            for cell in &self.cells {
                cell.connection(Connection::Failed(error.to_string()));
            }
        }
        result
    }

    async fn work_on<K: Kafka>(
        &self,
        kafka: Arc<K>,
        place: Place,
        open: impl AsyncFnOnce(&Config) -> Result<Box<dyn Store>, StoreError>,
        incarnation: u64,
        probe: Option<Probe>,
    ) -> Result<(), RunError> {
        let (config, Place { host, control }) = (&self.config, place);
        let (watchdog, mut failures) = Watchdog::start(host, self.loops.clone());
        let asked = Arc::clone(&kafka);
        let scout = Scout::start(&watchdog, move || asked.admin())?;
        // Nothing is under way before both are known, so that any stop ends it well.
        let mut told = self.stop.subscribe();
        let (cluster_id, destinations) = tokio::select! {
            biased;
            Some(error) = failures.recv() => return Err(error),
            known = self.look_round(&scout) => known?,
            _ = told.wait_for(|stop| *stop != Stop::No) => return Ok(()),
        };
        let Some(store) = self.unless_stopped(open(config)).await else { return Ok(()) };
        let journal = self.journal(store?, cluster_id, incarnation)?;
        let clerk = Clerk::start(journal, &watchdog)?;
        tokio::select! {
            biased;
            Some(error) = failures.recv() => return Err(error),
            claimed = self.claim(&kafka, &clerk, &watchdog) => claimed?,
            _ = told.wait_for(|stop| *stop != Stop::No) => return Ok(()),
        }
        let reaper = Reaper::start(&watchdog)?;
        let desk = self.desk.clone();
        let server = control.and_then(|store| {
            let failing = watchdog.failing();
            Server::start(&store, desk.clone(), (clerk.clone(), scout.clone()), failing)
        });
        let common = Common {
            kafka: &kafka,
            watchdog,
            reaper,
            destinations,
            gate: Gate::default(),
            clerk,
            scout,
            desk,
            probe,
            incarnation,
        };
        let result = self.run_workers(&common, &mut failures).await;
        let Common { reaper, clerk, scout, .. } = common;
        if result.is_ok() {
            self.settle(&scout, &clerk).await;
        }
        Server::end(server).await;
        // Whoever opens the store next finds it closed.
        clerk.end().await;
        if !matches!(result, Err(RunError::Aborted)) {
            join(scout.end(), reaper.end()).await;
        }
        result
    }

    /// Gives nothing if the processor is told to stop before it has ended.
    async fn unless_stopped<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let mut told = self.stop.subscribe();
        tokio::select! {
            biased;
            done = work => Some(done),
            _ = told.wait_for(|stop| *stop != Stop::No) => None,
        }
    }

    /// The cluster's id, and what is written to; what is read must exist.
    async fn look_round(&self, scout: &Scout) -> Result<(String, Destinations), RunError> {
        let cluster_id = self.first_contact(scout).await?;
        existing(scout, &self.inputs(), Duration::ZERO).await?;
        Ok((cluster_id, Destinations::find(&self.config, scout).await?))
    }

    /// Learns what became of messages whose partitions went to other instances. The next owner does
    /// not need it; whoever looks into the store does.
    async fn settle(&self, scout: &Scout, clerk: &Clerk) {
        let (config, workers) = (&self.config, 0..self.config.workers);
        let ours: Vec<String> =
            workers.map(|worker| config.settings(worker, 0, 0).instance).collect();
        if let Err(error) = settle_unowned(scout, clerk, &ours).await {
            tracing::debug!(%error, "some messages stay unsettled until the next start");
        }
    }

    /// Tells at once what was asked before: a new receiver takes the value as seen.
    pub(crate) fn stop(&self) -> watch::Receiver<Stop> {
        let mut stop = self.stop.subscribe();
        stop.mark_changed();
        stop
    }

    async fn first_contact(&self, scout: &Scout) -> Result<String, RunError> {
        let started = Instant::now();
        loop {
            // A question may take longer than what is left.
            let left = self.config.connect_timeout.saturating_sub(started.elapsed());
            let asked = timeout(left, scout.cluster_id()).await;
            let source = match asked.unwrap_or_else(|_| Err(KafkaError::no_answer("clusterid"))) {
                Ok(cluster_id) => return Ok(cluster_id),
                Err(error) if error.is_connection() => error,
                Err(error) => return Err(RunError::of_kafka(error)),
            };
            let waited = started.elapsed();
            if waited >= self.config.connect_timeout {
                let brokers = self.config.cluster.brokers.clone();
                return Err(RunError::Unreachable { brokers, waited, source });
            }
            tracing::info!(error = %source, "waiting for Kafka");
            sleep(Duration::from_millis(500)).await;
        }
    }

    pub(crate) fn inputs(&self) -> Arc<[Arc<str>]> {
        self.config.cluster.topics.iter().map(|topic| Arc::from(topic.as_str())).collect()
    }

    fn journal(
        &self,
        store: Box<dyn Store>,
        cluster_id: String,
        incarnation: u64,
    ) -> Result<Journal, StoreError> {
        let identity = Identity {
            cluster_id,
            group: self.config.cluster.group.clone(),
            instance: self.config.instance.clone(),
        };
        let options = JournalOptions::new(incarnation, now_ms());
        Journal::open(store, &identity, JournalOptions { history: self.config.history, ..options })
    }
}

/// May take long, so that it has a thread of its own: a stop does not wait for it.
async fn open_store(config: &Config) -> Result<Box<dyn Store>, StoreError> {
    let (path, damage) = (config.store.clone(), config.damage);
    let (sender, opened) = oneshot::channel();
    thread::Builder::new()
        .name("store-opener".to_owned())
        // Once nobody waits for it any more, it is closed again.
        .spawn(move || drop(sender.send(store::open_sled(&path, damage))))
        .map_err(|source| StoreError::Io { doing: "starting a thread", source })?;
    let opened = opened.await.unwrap_or_else(|_| Err(StoreError::closed()))?;
    if let Some(quarantined) = &opened.quarantined {
        tracing::error!(
            moved_to = %quarantined.to.display(),
            because = %quarantined.because,
            "the store was damaged and is replaced by a new one; nothing is lost or doubled by it"
        );
    }
    Ok(Box::new(opened.store))
}
