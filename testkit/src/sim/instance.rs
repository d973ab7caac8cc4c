//! One process of the group: its lives, its store, and how each life ends.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use countersign::handler::{Message, each};
use countersign::kafka::librdkafka::ClusterConfig;
use countersign::simulation::{self, Host, Operator};
use countersign::statemachine::{Backoff, PartitionId};
use countersign::store::{MemoryImage, MemoryStore, StoreError};
use countersign::{Config, Handle, Processor, RunError};
use futures::FutureExt;
use rand::Rng;
use rand::rngs::StdRng;
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::{Instant, sleep};

use crate::model::{ModelClient, ModelKafka, ModelProcess, SIMULATED_PANIC};

use super::Failure;
use super::journal::Journal;
use super::probe::probe;
use super::store::CrashStore;
use super::work::Temper;
use super::world::{World, rng};

/// What all instances share.
#[derive(Debug, Clone)]
pub(super) struct Setting {
    pub(super) world: Arc<World>,
    pub(super) kafka: ModelKafka,
    pub(super) journal: Journal,
    pub(super) temper: Temper,
}

impl Setting {
    pub(super) fn new(world: &World, kafka: &ModelKafka, journal: &Journal) -> Self {
        Self {
            world: Arc::new(world.clone()),
            kafka: kafka.clone(),
            journal: journal.clone(),
            temper: Temper::new(world, journal),
        }
    }
}

/// The effect that is not carried out any more.
#[derive(Debug, Clone, Copy)]
pub(super) enum Last {
    /// The one with this number, counted from 1.
    Nth(u64),
    /// The first that gives partitions back.
    Unassign,
}

/// Where a life is to end.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Doom {
    /// Before which effect.
    pub(super) effect: Option<Last>,
    /// Within this write or flush of the store, counted from 1.
    pub(super) store_call: Option<u64>,
}

/// A process, dead or alive.
#[derive(Debug)]
pub(super) struct Instance {
    pub(super) name: String,
    setting: Setting,
    rng: StdRng,
    image: Arc<Mutex<MemoryImage>>,
    /// Copies of the store that someone may put back.
    copies: Vec<MemoryImage>,
    life: Option<Life>,
    restart_at: Instant,
    pub(super) doom: Doom,
}

#[derive(Debug)]
struct Life {
    process: ModelProcess,
    handle: Handle,
    operator: Operator,
    run: JoinHandle<Result<(), RunError>>,
    reaper: AbortHandle,
    is_leaving: bool,
    assigned: Arc<Mutex<BTreeSet<PartitionId>>>,
}

impl Instance {
    pub(super) fn new(number: u32, seed: u64, setting: Setting) -> Self {
        let name = format!("i{number}");
        Self {
            rng: rng(seed, &name),
            name,
            setting,
            image: MemoryImage::shared(),
            copies: Vec::new(),
            life: None,
            restart_at: Instant::now(),
            doom: Doom::default(),
        }
    }

    pub(super) fn store(&self) -> Arc<Mutex<MemoryImage>> {
        Arc::clone(&self.image)
    }

    fn image(&self) -> MutexGuard<'_, MemoryImage> {
        self.image.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sees to the instance: takes note of its end, and starts it when its time has come.
    ///
    /// # Errors
    /// It ended in a way that nothing explains.
    pub(super) fn watch(&mut self, away_longest: Duration) -> Result<(), Failure> {
        if let Some(life) = &mut self.life
            && let Some(result) = (&mut life.run).now_or_never()
        {
            let is_leaving = life.is_leaving;
            life.process.crash();
            life.reaper.abort();
            self.life = None;
            self.restart_at =
                Instant::now() + away_longest.mul_f64(self.rng.random_range(0.0..1.0));
            self.took(result, is_leaving)?;
        }
        if self.life.is_none() && self.restart_at <= Instant::now() {
            self.start();
        }
        Ok(())
    }

    fn took(
        &self,
        result: Result<Result<(), RunError>, tokio::task::JoinError>,
        is_leaving: bool,
    ) -> Result<(), Failure> {
        let ended = match result {
            Ok(Ok(())) if is_leaving => "end: left in good order",
            Ok(Err(RunError::Aborted)) => "end: crashed",
            // With several workers the other one may be the first to say so.
            Ok(Err(RunError::Store(StoreError::Full | StoreError::Closed { .. }))) => {
                "end: store full"
            }
            // A consumer is never made to hang.
            Ok(Err(RunError::Hung { call, .. })) if call != "consumer_poll" => {
                "end: too many calls hang"
            }
            Ok(Err(RunError::Panicked { message, .. })) if message == SIMULATED_PANIC => {
                "end: a loop panicked"
            }
            Err(error) if error.is_cancelled() => "end: crashed",
            Ok(Ok(())) => return self.fail("it ended though nobody asked it to"),
            Ok(Err(error)) => return self.fail(&format!("it stopped: {error}")),
            Err(error) => return self.fail(&format!("it panicked: {error}")),
        };
        self.setting.journal.count(ended);
        self.setting.journal.say(&self.name, format_args!("{ended}"));
        Ok(())
    }

    fn fail(&self, what: &str) -> Result<(), Failure> {
        self.setting.journal.say(&self.name, format_args!("{what}"));
        Err(Failure { invariant: "no_stop", what: format!("{}: {what}", self.name) })
    }

    /// Who decides about its messages.
    pub(super) fn operator(&self) -> Option<Operator> {
        self.life.as_ref().map(|life| life.operator.clone())
    }

    pub(super) fn is_alive(&self) -> bool {
        self.life.is_some()
    }

    pub(super) fn crash(&mut self, why: &str) {
        if let Some(life) = &self.life {
            self.setting.journal.say(&self.name, format_args!("crash: {why}"));
            life.process.crash();
            life.run.abort();
        }
    }

    pub(super) fn freeze(&self) {
        if let Some(life) = &self.life {
            self.setting.journal.say(&self.name, format_args!("freeze"));
            life.process.freeze();
        }
    }

    pub(super) fn thaw(&self) {
        if let Some(life) = &self.life {
            self.setting.journal.say(&self.name, format_args!("thaw"));
            life.process.thaw();
        }
    }

    pub(super) fn ask_to_leave(&mut self) {
        if let Some(life) = &mut self.life {
            self.setting.journal.say(&self.name, format_args!("asked to leave"));
            life.is_leaving = true;
            life.handle.shut_down();
        }
    }

    /// Lets the `n`-th write or flush of the store fail.
    pub(super) fn fill_disk(&mut self, n: u64, is_flush: bool) {
        let mut image = self.image();
        if is_flush { image.fail_flush(n) } else { image.fail_write(n) }
    }

    /// If it is dead, its time has come.
    pub(super) fn hurry(&mut self) {
        self.restart_at = self.restart_at.min(Instant::now());
    }

    /// No more harm is planned for it.
    pub(super) fn spare(&mut self) {
        self.doom = Doom::default();
        self.image().spare();
    }

    /// Someone keeps a copy of the store.
    pub(super) fn copy_store(&mut self) {
        let copy = self.image().clone();
        self.copies.push(copy);
    }

    /// What the store is when the process starts again.
    fn restore(&mut self) {
        let journal = self.setting.journal.clone();
        let lost = self.image().unflushed();
        let kept = self.rng.random_range(0..=lost);
        self.image().crash_keeping(kept);
        match self.rng.random_range(0..10) {
            0 => {
                journal.count("store: deleted");
                journal.say(&self.name, format_args!("its store is deleted"));
                self.image = MemoryImage::shared();
            }
            1..=2 if !self.copies.is_empty() => {
                journal.count("store: older copy");
                journal.say(&self.name, format_args!("an older copy of its store is put back"));
                let copy = self.copies[self.rng.random_range(0..self.copies.len())].clone();
                self.image = Arc::new(Mutex::new(copy));
                self.image().crash();
            }
            _ => {}
        }
    }

    fn start(&mut self) {
        let Setting { world, kafka, journal, temper } = self.setting.clone();
        if self.setting.world.pause_longest.is_some() && !temper.is_calm() {
            self.restore();
        }
        let process = kafka.client(client(&world, &self.name));
        let processor = processor(&world, &self.name, &temper, &process);
        let (handle, operator) = (processor.handle(), Operator::of(&processor));
        let doom = std::mem::take(&mut self.doom);
        let assigned = Arc::new(Mutex::new(BTreeSet::new()));
        let probe = probe(&self.name, &journal, &process, doom.effect, &assigned);
        let store = CrashStore::new(
            MemoryStore::new(Arc::clone(&self.image)),
            Arc::clone(&self.image),
            process.clone(),
            journal.clone(),
            doom.store_call,
            self.rng.random_range(0..3),
        );
        let incarnation = self.rng.random();
        journal.say(&self.name, format_args!("start {incarnation:016x} {doom:?}"));
        let run = tokio::spawn(simulation::run(
            processor,
            Arc::new(process.clone()),
            Host::Tasks,
            Box::new(store),
            incarnation,
            Some(probe),
        ));
        let (abort, dying) = (run.abort_handle(), process.clone());
        let reaper = tokio::spawn(async move {
            dying.crashed().await;
            abort.abort();
        });
        let reaper = reaper.abort_handle();
        let is_leaving = false;
        self.life = Some(Life { process, handle, operator, run, reaper, is_leaving, assigned });
    }

    /// Leaves for good.
    ///
    /// # Errors
    /// It does not end well, or not in time.
    pub(super) async fn leave(&mut self, world: &World) -> Result<(), Failure> {
        self.ask_to_leave();
        let deadline =
            Instant::now() + Duration::from_millis(u64::from(world.max_poll_interval_ms));
        // Far enough away to stay dead.
        let for_good = Duration::from_secs(1_000_000);
        while self.is_alive() {
            self.watch(for_good)?;
            if Instant::now() > deadline {
                let what = format!("{} does not leave", self.name);
                return Err(Failure { invariant: "bounded", what });
            }
            sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    /// Takes up every partition, alone, and leaves again.
    ///
    /// # Errors
    /// It does not get them in time, or does not end well.
    pub(super) async fn audit(&mut self, world: &World) -> Result<(), Failure> {
        self.start();
        let deadline = Instant::now() + world.healing_bound();
        let wanted = world.partitions().len();
        loop {
            self.watch(Duration::ZERO)?;
            let Some(life) = &self.life else { continue };
            let assigned = life.assigned.lock().unwrap_or_else(PoisonError::into_inner).len();
            if assigned == wanted {
                break;
            }
            if Instant::now() > deadline {
                let what = format!("{} gets {assigned} of {wanted} partitions", self.name);
                return Err(Failure { invariant: "bounded", what });
            }
            sleep(Duration::from_millis(50)).await;
        }
        sleep(Duration::from_secs(1)).await;
        self.leave(world).await
    }
}

fn client(world: &World, name: &str) -> ModelClient {
    let inputs: Vec<&str> = world.inputs.iter().map(|(topic, _)| topic.as_str()).collect();
    ModelClient {
        instance: world.is_static.then(|| name.to_owned()),
        assignor: world.assignor,
        session_timeout_ms: u64::from(world.session_timeout_ms),
        max_poll_interval_ms: u64::from(world.max_poll_interval_ms),
        transaction_timeout_ms: u64::from(world.transaction_timeout_ms),
        ..ModelClient::new(World::GROUP, &inputs)
    }
}

fn processor(world: &World, name: &str, temper: &Temper, process: &ModelProcess) -> Processor {
    let inputs = world.inputs.iter().map(|(topic, _)| topic.clone());
    let mut cluster = ClusterConfig::new("model:9092", World::GROUP, inputs);
    cluster.transaction_timeout_ms = world.transaction_timeout_ms;
    cluster.session_timeout_ms = world.session_timeout_ms;
    cluster.max_poll_interval_ms = world.max_poll_interval_ms;
    let mut config = Config::new(cluster, "in-memory");
    name.clone_into(&mut config.instance);
    config.outputs = world.outputs.iter().map(|(topic, _)| topic.clone()).collect();
    config.dead_letters = world.letters.as_ref().map(|(topic, _)| topic.clone());
    config.workers = world.workers;
    config.pipelined = world.pipelined;
    config.commit_interval = world.commit_interval;
    config.transaction_records = world.transaction_records;
    config.order = world.order;
    config.concurrency = world.concurrency;
    config.metadata_bytes = world.metadata_bytes;
    config.history = world.history;
    config.memory_bytes = world.memory_bytes;
    config.retry.default.attempts = world.letters.as_ref().map(|_| World::ATTEMPTS);
    config.retry.default.backoff = Backoff {
        base: Duration::from_millis(20),
        max: Duration::from_secs(1),
        ..Backoff::default()
    };
    let (temper, process) = (temper.clone(), process.clone());
    let handler = each(move |message: Message| {
        let process = process.clone();
        temper.clone().handle(message, move || process.crash())
    });
    let built = Processor::builder().config(config).handler(handler).build();
    built.expect("the world's settings fit each other")
}
