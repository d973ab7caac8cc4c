//! A Kafka in memory behind the library's seam, in virtual time.
//!
//! It keeps what exactly-once depends on: logs with control records, transactions by the
//! version-1 rules that librdkafka lives under, producer epochs, generations, pending offsets,
//! `read_committed`. It is deterministic: ordered maps, no threads, one seeded generator for
//! faults, and time from [`tokio::time::Instant`], so that a paused runtime makes time virtual.
//! Everything that time does happens in the order of its due times when someone looks.

mod admin;
mod assignor;
mod client;
mod cluster;
mod consumer;
mod faults;
mod groups;
mod inspect;
mod log;
mod member;
mod offer;
mod offsets;
mod producer;
mod producer_state;
mod request;
mod transactions;

pub use admin::ModelAdmin;
pub use assignor::Assignor;
pub use client::{ModelClient, ModelGroup, ModelProcess};
pub use consumer::ModelConsumer;
pub use faults::{Call, Fault, FaultRate, Faults};
pub use inspect::OpenTransaction;
pub use log::{Isolation, ModelRecord, Outcome, Writer};
pub use offsets::CommitRecord;
pub use producer::ModelProducer;
pub use transactions::TransactionState;

use std::collections::BTreeMap;
use std::fmt;
use std::future::pending;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use cluster::{Event, Outage, State};
use request::{Code, Reply, Request};

/// The settings of a [`ModelKafka`].
#[derive(Debug, Clone)]
pub struct ModelConfig {
    /// The cluster's id.
    pub cluster_id: String,
    /// How long a request and its reply take.
    pub latency: Duration,
    /// How long after `EndTxn` the markers are in the logs.
    pub marker_delay: Duration,
    /// The producers' `queue.buffering.max.messages`.
    pub queue_max_messages: usize,
    /// The broker's `offset.metadata.max.bytes`.
    pub offset_metadata_max_bytes: usize,
    /// How many bytes of records in a second get through to the broker, of all producers together;
    /// `None`: any number, at once.
    pub bytes_per_second: Option<u64>,
}

impl Default for ModelConfig {
    fn default() -> Self {
        Self {
            cluster_id: "model-cluster".to_owned(),
            latency: Duration::from_millis(1),
            marker_delay: Duration::from_millis(2),
            queue_max_messages: 100_000,
            offset_metadata_max_bytes: 4096,
            bytes_per_second: None,
        }
    }
}

/// A model cluster; clones are handles to the same one.
#[derive(Clone)]
pub struct ModelKafka {
    state: Arc<Mutex<State>>,
    changed: Arc<Notify>,
}

impl Default for ModelKafka {
    fn default() -> Self {
        Self::new(ModelConfig::default())
    }
}

impl fmt::Debug for ModelKafka {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ModelKafka").finish_non_exhaustive()
    }
}

/// What [`Fault::Panic`] panics with.
pub const SIMULATED_PANIC: &str = "simulated panic";

fn panic_quietly() {
    std::panic::resume_unwind(Box::new(SIMULATED_PANIC));
}

impl ModelKafka {
    /// Starts an empty cluster.
    pub fn new(config: ModelConfig) -> Self {
        let state = State::new(config, Instant::now());
        Self { state: Arc::new(Mutex::new(state)), changed: Arc::new(Notify::new()) }
    }

    /// Makes a process with clients of these settings.
    pub fn client(&self, config: ModelClient) -> ModelProcess {
        ModelProcess::new(self.clone(), config)
    }

    /// Replaces the plan of faults.
    pub fn set_faults(&self, faults: Faults) {
        self.with(|state| {
            let mut faults = faults;
            faults.count_on(&state.faults);
            state.faults = faults;
        });
    }

    /// How often each kind of call was struck by each kind of fault, under every plan so far.
    pub fn struck(&self) -> BTreeMap<(Call, &'static str), u64> {
        self.with(|state| state.faults.struck().clone())
    }

    /// Strikes the next call of this kind.
    pub fn fault(&self, call: Call, fault: Fault) {
        self.with(|state| state.faults.script(call, fault));
    }

    /// Strikes the call of this kind after `calls` further ones that go well.
    pub fn fault_after(&self, call: Call, calls: usize, fault: Fault) {
        self.with(|state| state.faults.script_after(call, calls, fault));
    }

    /// Lets the frames arrive that [`Fault::Held`] kept back, and tells how many they were.
    pub fn release(&self) -> usize {
        self.with(|state| {
            let held = std::mem::take(&mut state.held);
            for request in &held {
                // Nobody waits for the answer to a late frame.
                let _ = state.execute(request);
            }
            held.len()
        })
    }

    /// How many frames are kept back.
    pub fn held(&self) -> usize {
        self.with(|state| state.held.len())
    }

    /// Takes the broker away until [`broker_up`](Self::broker_up).
    pub fn broker_down(&self) {
        self.with(|state| {
            state.outage = Some(Outage { until: None });
            state.changed();
        });
    }

    /// Takes the broker away for a while.
    pub fn broker_down_for(&self, duration: Duration) {
        self.with(|state| {
            state.outage = Some(Outage { until: Some(state.now + duration) });
            state.changed();
        });
    }

    /// Brings the broker back.
    pub fn broker_up(&self) {
        self.with(State::broker_up);
    }

    fn latency(&self) -> Duration {
        self.with(|state| state.config.latency)
    }

    /// Acts on the cluster as it is now, and wakes those who wait for what changed.
    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        let (result, is_changed) = {
            // A panic elsewhere is that test's failure; the state is never left half changed.
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            let before = state.version;
            state.run_until(Instant::now());
            let result = act(&mut state);
            state.settle();
            (result, state.version != before)
        };
        if is_changed {
            self.changed.notify_waiters();
        }
        result
    }

    /// Looks again at every change until `look` finds something or the deadline passes.
    async fn wait_until<T>(
        &self,
        deadline: Instant,
        mut look: impl FnMut(&mut State) -> Option<T>,
    ) -> Option<T> {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            let (found, wake_at) = self.with(|state| {
                let found = look(state);
                // Only what happens after this look may wake us.
                changed.as_mut().enable();
                state.settle();
                (found, state.wake_at())
            });
            if found.is_some() || Instant::now() >= deadline {
                return found;
            }
            let until = wake_at.map_or(deadline, |at| at.min(deadline));
            tokio::select! {
                biased;
                () = changed => {}
                () = tokio::time::sleep_until(until) => {}
            }
        }
    }

    async fn until(&self, mut is_so: impl FnMut(&mut State) -> bool) {
        let far = Duration::from_secs(3600);
        while self.wait_until(Instant::now() + far, |s| is_so(s).then_some(())).await.is_none() {}
    }

    /// Waits while the client is frozen; never returns once it has crashed.
    async fn running(&self, client: u64) {
        self.until(|state| state.clients.get(&client).is_some_and(cluster::Client::is_running))
            .await;
    }

    async fn crash_here(&self, client: u64) {
        self.with(|state| state.crash(client));
        pending::<()>().await;
    }

    /// Sends one request through its fault, if it has one.
    async fn call(
        &self,
        client: u64,
        request: &Request,
        deadline: Instant,
        backoff: Duration,
    ) -> Result<Reply, Code> {
        self.running(client).await;
        let fault = self.with(|state| state.faults.next(request.call()));
        match fault {
            None | Some(Fault::Repeat) => {}
            Some(Fault::RequestLost) => return self.time_out(deadline).await,
            Some(Fault::ReplyLost) => {
                let _ = self.execute(client, request, deadline).await;
                return self.time_out(deadline).await;
            }
            Some(Fault::Retried { late }) => {
                let request = request.clone();
                self.with(|state| state.schedule(state.now + late, Event::Arrival(request)));
                self.back_off(backoff).await;
            }
            Some(Fault::Held) => {
                self.with(|state| state.held.push(request.clone()));
                self.back_off(backoff).await;
            }
            Some(Fault::Delay(delay)) => {
                let at = Instant::now() + delay;
                if at > deadline {
                    let request = request.clone();
                    self.with(|state| state.schedule(at, Event::Arrival(request)));
                    return self.time_out(deadline).await;
                }
                tokio::time::sleep_until(at).await;
            }
            Some(Fault::CoordinatorNotAvailable) => return Err(Code::CoordinatorNotAvailable),
            Some(Fault::CrashBefore) => self.crash_here(client).await,
            Some(Fault::CrashAfter) => {
                let _ = self.execute(client, request, deadline).await;
                self.crash_here(client).await;
            }
            Some(Fault::Hang(long)) => {
                tokio::time::sleep(long).await;
                return self.execute(client, request, Instant::now()).await;
            }
            Some(Fault::HangAfter) => {
                let _ = self.execute(client, request, deadline).await;
                pending::<()>().await;
            }
            Some(Fault::Panic) => panic_quietly(),
        }
        self.execute(client, request, deadline).await
    }

    async fn execute(
        &self,
        client: u64,
        request: &Request,
        deadline: Instant,
    ) -> Result<Reply, Code> {
        let executed =
            self.wait_until(deadline, |state| (!state.is_down()).then(|| state.execute(request)));
        let result = executed.await.unwrap_or(Err(Code::TimedOut));
        tokio::time::sleep(self.latency()).await;
        self.running(client).await;
        result
    }

    async fn time_out(&self, deadline: Instant) -> Result<Reply, Code> {
        tokio::time::sleep_until(deadline).await;
        Err(Code::TimedOut)
    }

    async fn back_off(&self, backoff: Duration) {
        let pause = self.with(|state| state.faults.backoff(backoff));
        tokio::time::sleep(pause).await;
    }
}
