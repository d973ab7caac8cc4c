//! The mixed soak: processes on a real Kafka that are killed in turn, or whose brokers are, or of
//! which one is left alone and measured; with messages that fail in six ways. Each of the messages
//! must end once, as its outputs or as its dead letter.
//!
//! A message's number decides what it does ([`plan`]); a plain consumer reads what became of it
//! ([`log`]); and [`check`] compares the two without a line of the library's. `make soak` runs it.

pub mod check;
#[cfg(test)]
mod check_test;
mod error;
pub mod log;
mod pauses;
pub mod plan;
mod process;
mod report;
mod trouble;
mod usage;
pub mod worker;

pub use error::SoakError;
pub use pauses::{PAUSE_MAX, Pause};
pub use report::Report;
pub use usage::Growth;

use std::ffi::OsString;
use std::num::NonZeroU64;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use crate::broker::{KafkaVersion, LocalCluster, LocalKafkaOptions};
use crate::reader::{Isolation, LoadRecord, ReaderError, committed_offsets, for_each, load};

use log::{INPUT, LETTERS, Log};
use pauses::Watch;
use plan::{OUTPUTS, Plan};
use process::{Process, Workers};
use usage::Samples;
use worker::GROUP;

/// How many partitions each topic has.
const PARTITIONS: u32 = 4;

/// How long any step may take beyond the time that it is given.
const PATIENCE: Duration = Duration::from_secs(180);

const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// How many records are loaded before the clock is looked at.
const PACE: u64 = 64;

/// What is run.
#[derive(Debug)]
pub struct Settings<'a> {
    /// How a worker is started: program and arguments, which the history that its store is to keep
    /// (as `--history SECONDS`, or nothing), the brokers, the name of the instance and its store's
    /// directory follow; it calls [`worker::work`] with these.
    pub command: &'a [OsString],
    /// Where stores and the workers' logs are kept.
    pub dir: &'a Path,
    /// How long messages are loaded.
    pub time: Duration,
    /// Messages per second.
    pub rate: NonZeroU64,
    /// How many brokers there are.
    pub brokers: u16,
    /// Their version.
    pub kafka: KafkaVersion,
    /// What happens meanwhile.
    pub trouble: Trouble,
}

/// What happens while messages are handled.
#[derive(Debug, Clone, Copy)]
pub enum Trouble {
    /// Two processes are killed in turn.
    Kills {
        /// How often one is.
        interval: Duration,
        /// How long the first broker is away in the middle.
        broker_away: Option<Duration>,
    },
    /// The brokers of two processes are ended and started again in turn.
    Restarts {
        /// How often one is.
        interval: Duration,
    },
    /// Nothing: there is one process, and what it uses is measured.
    Nothing,
}

impl Trouble {
    /// The names of the processes.
    fn instances(self) -> &'static [&'static str] {
        match self {
            Self::Kills { .. } | Self::Restarts { .. } => &["a", "b"],
            Self::Nothing => &["a"],
        }
    }

    /// How much longer loading for a time may take.
    fn delay(self, time: Duration) -> Duration {
        match self {
            Self::Kills { broker_away, .. } => broker_away.unwrap_or_default(),
            Self::Restarts { .. } => time,
            Self::Nothing => Duration::ZERO,
        }
    }

    /// How long their stores keep history: where they are measured, so short that they forget as
    /// much as they learn from the first minutes on.
    fn history(self) -> Option<Duration> {
        match self {
            Self::Kills { .. } | Self::Restarts { .. } => None,
            Self::Nothing => Some(Duration::from_secs(60)),
        }
    }
}

/// Runs it all and checks what came of it.
///
/// # Errors
/// See [`SoakError`]; what the report finds wrong is no error.
pub fn run(settings: &Settings<'_>) -> Result<Report, SoakError> {
    let cluster = LocalCluster::start(settings.brokers, &options(settings))?;
    for topic in [INPUT, LETTERS].iter().chain(&OUTPUTS) {
        cluster.create_topic(topic, PARTITIONS)?;
    }
    let (command, dir) = (settings.command, settings.dir);
    let history = settings.trouble.history();
    let workers = Workers { command, brokers: cluster.bootstrap(), dir, history };
    let start = |&instance| Ok((instance, workers.start(instance)?));
    let processes =
        settings.trouble.instances().iter().map(start).collect::<Result<_, SoakError>>();
    let messages = settings.rate.get() * settings.time.as_secs();
    let mut soak = Soak {
        settings,
        cluster: &cluster,
        processes: processes?,
        workers,
        report: Report { messages, ..Report::default() },
    };
    let started = Instant::now();
    soak.work()?;
    soak.report.took = started.elapsed();
    soak.end()?;
    soak.judge()
}

/// A broker that starves for a second would be taken for gone by its own controller. One that is
/// killed and comes back must be, though: otherwise it forgets the markers of aborted transactions,
/// whose outputs then appear a second time (`docs/architecture.md`, "Known limits").
fn options(settings: &Settings<'_>) -> LocalKafkaOptions {
    let options = LocalKafkaOptions { version: settings.kafka, ..LocalKafkaOptions::default() };
    match settings.trouble {
        Trouble::Kills { broker_away: None, .. } | Trouble::Nothing => {
            options.property("broker.session.timeout.ms", "6000")
        }
        Trouble::Kills { broker_away: Some(_), .. } | Trouble::Restarts { .. } => options,
    }
}

struct Soak<'a> {
    settings: &'a Settings<'a>,
    cluster: &'a LocalCluster,
    workers: Workers<'a>,
    processes: Vec<(&'static str, Process)>,
    report: Report,
}

impl Soak<'_> {
    /// Loads everything, in trouble, and waits until it is done.
    fn work(&mut self) -> Result<(), SoakError> {
        match self.settings.trouble {
            Trouble::Kills { interval, broker_away } => {
                self.load(|soak, is_over| soak.kill_until(interval, broker_away, is_over))?;
                self.catch_up()
            }
            Trouble::Restarts { interval } => {
                let watch = Watch::default();
                let bootstrap = self.cluster.bootstrap();
                let silences = thread::scope(|scope| {
                    let watching = scope.spawn(|| watch.read(bootstrap));
                    let restart = |soak: &mut Self, is_over: &dyn Fn() -> bool| {
                        soak.restart_until(interval, &watch, is_over)
                    };
                    let worked = self.load(restart).and_then(|()| self.catch_up());
                    watch.end();
                    let silences = joined(watching);
                    worked.and(silences.map_err(SoakError::from))
                })?;
                self.report.pause = Some(watch.longest(silences));
                Ok(())
            }
            Trouble::Nothing => {
                let mut samples = Samples::default();
                self.load(|soak, is_over| soak.measure_until(&mut samples, is_over))?;
                self.report.growth = Some(samples.growth(self.settings.time));
                self.catch_up()
            }
        }
    }

    /// Loads everything, and makes trouble until that is over.
    fn load(
        &mut self,
        trouble: impl FnOnce(&mut Self, &dyn Fn() -> bool) -> Result<(), SoakError>,
    ) -> Result<(), SoakError> {
        let pace = Pace::new(self.settings.time, self.report.messages);
        let bootstrap = self.cluster.bootstrap();
        let patience =
            self.settings.time + self.settings.trouble.delay(self.settings.time) + PATIENCE;
        thread::scope(|scope| {
            let feeding = scope.spawn(|| feed(bootstrap, &pace, patience));
            let troubled = trouble(self, &|| feeding.is_finished());
            // Whatever happened, there is nothing left to wait for.
            pace.is_over.store(true, Ordering::Relaxed);
            troubled.and(joined(feeding).map_err(SoakError::from))
        })
    }

    /// Waits until the group has committed everything, however busy the machine is.
    fn catch_up(&self) -> Result<(), SoakError> {
        let total = self.report.messages;
        let (mut known, mut deadline) = (0, Instant::now() + PATIENCE);
        loop {
            let offsets = committed_offsets(self.cluster.bootstrap(), GROUP, INPUT, PATIENCE)?;
            let committed = offsets.values().map(|(offset, _)| offset).sum();
            if committed >= total {
                return Ok(());
            }
            if committed > known {
                (known, deadline) = (committed, Instant::now() + PATIENCE);
            }
            if Instant::now() >= deadline {
                return Err(SoakError::Behind { committed, total });
            }
            sleep(POLL_INTERVAL);
        }
    }

    fn end(&mut self) -> Result<(), SoakError> {
        for &mut (instance, ref mut process) in &mut self.processes {
            match process.terminate(PATIENCE)? {
                Some(status) if status.success() => {}
                Some(status) => return Err(SoakError::Ended { instance, status }),
                None => return Err(SoakError::NotEnded { instance }),
            }
        }
        Ok(())
    }

    /// How often partitions were taken up at most: after each kill, by each process when it starts,
    /// and again when it has lost them because a broker was away.
    fn takeovers(&self) -> u32 {
        let processes = u32::try_from(self.processes.len()).unwrap_or(u32::MAX);
        let was_away = u32::from(!self.report.broker_away.is_zero());
        let rounds = 1_u32.saturating_add(was_away).saturating_add(self.report.restarts);
        self.report.kills.saturating_add(processes.saturating_mul(rounds))
    }

    fn judge(mut self) -> Result<Report, SoakError> {
        let bootstrap = self.cluster.bootstrap();
        for topic in OUTPUTS.iter().chain(&[LETTERS]) {
            let count = |isolation| for_each(bootstrap, topic, isolation, PATIENCE, |_| {});
            self.report.aborted += count(Isolation::Uncommitted)? - count(Isolation::Committed)?;
        }
        let log = Log::read(bootstrap, PATIENCE)?;
        self.report.verdict = check::check(self.report.messages, &log, self.takeovers());
        Ok(self.report)
    }
}

/// Lets messages go evenly over a time.
struct Pace {
    started: Instant,
    time: Duration,
    total: u64,
    is_over: AtomicBool,
}

impl Pace {
    fn new(time: Duration, total: u64) -> Self {
        Self { started: Instant::now(), time, total, is_over: AtomicBool::new(false) }
    }

    /// Waits until it is time for the message with this number.
    fn wait(&self, index: u64) {
        if index.is_multiple_of(PACE) && !self.is_over.load(Ordering::Relaxed) {
            let millis = u128::from(index) * self.time.as_millis() / u128::from(self.total.max(1));
            let due = Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX));
            sleep(due.saturating_sub(self.started.elapsed()));
        }
    }
}

fn feed(bootstrap: &str, pace: &Pace, patience: Duration) -> Result<(), ReaderError> {
    let record = |index| {
        pace.wait(index);
        let plan = Plan::of(index);
        let (key, value) = (plan.key().into_bytes(), plan.value());
        LoadRecord { partition: None, key: Some(key), value: Some(value) }
    };
    load(bootstrap, INPUT, pace.total, patience, record, |_| {})
}

fn joined<T>(thread: thread::ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
