//! The mixed soak: two processes on a real Kafka, killed in turn, with messages that fail in six
//! ways. Each of the messages must end once, as its outputs or as its dead letter.
//!
//! A message's number decides what it does ([`plan`]); a plain consumer reads what became of it
//! ([`log`]); and [`check`] compares the two without a line of the library's. `make soak` runs it.

pub mod check;
#[cfg(test)]
mod check_test;
pub mod log;
pub mod plan;
mod process;
pub mod worker;

use std::ffi::OsString;
use std::fmt::{self, Display, Formatter};
use std::io;
use std::num::NonZeroU64;
use std::path::Path;
use std::process::ExitStatus;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use thiserror::Error;

use crate::broker::{LocalKafka, LocalKafkaError, LocalKafkaOptions};
use crate::reader::{Isolation, LoadRecord, ReaderError, committed_offsets, for_each, load};

use check::Verdict;
use log::{INPUT, LETTERS, Log, LogError};
use plan::{OUTPUTS, Plan};
use process::{Process, Workers};
use worker::GROUP;

/// How many partitions each topic has.
const PARTITIONS: u32 = 4;

const INSTANCES: [&str; 2] = ["a", "b"];

/// One kill in so many takes the store directory with it. Not an even number: both are to lose it.
const KILLS_PER_LOST_STORE: u32 = 3;

/// How long any step may take beyond the time that it is given.
const PATIENCE: Duration = Duration::from_secs(180);

const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// How many records are loaded before the clock is looked at.
const PACE: u64 = 64;

/// What is run.
#[derive(Debug)]
pub struct Settings<'a> {
    /// How a worker is started: program and arguments, which the brokers, the name of the instance
    /// and the directory of its store follow; it calls [`worker::work`] with these.
    pub command: &'a [OsString],
    /// Where stores and the workers' logs are kept.
    pub dir: &'a Path,
    /// How long messages are loaded.
    pub time: Duration,
    /// Messages per second.
    pub rate: NonZeroU64,
    /// How often a process is killed.
    pub kill_interval: Duration,
    /// How long the broker is away in the middle.
    pub broker_away: Option<Duration>,
}

/// What happened.
#[derive(Debug, Default)]
pub struct Report {
    /// How many messages there were.
    pub messages: u64,
    /// How many kills.
    pub kills: u32,
    /// How many of them took the store, too.
    pub lost_stores: u32,
    /// How long the broker was away.
    pub broker_away: Duration,
    /// From the first message to the commit of the last.
    pub took: Duration,
    /// Outputs and letters of transactions that came to nothing: kills that hit one.
    pub aborted: u64,
    /// What the check found.
    pub verdict: Verdict,
}

/// The soak could not be run, or did not end.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SoakError {
    /// There is no broker.
    #[error(transparent)]
    Kafka(#[from] LocalKafkaError),
    /// Messages could not be loaded, or the group not be asked.
    #[error(transparent)]
    Reader(#[from] ReaderError),
    /// What became of them could not be read.
    #[error(transparent)]
    Log(#[from] LogError),
    /// A worker could not be started or killed.
    #[error("a worker could not be started, killed or robbed of its store")]
    Process(#[from] io::Error),
    /// A worker ended by itself.
    #[error("worker {instance} ended with {status}; see its log")]
    Ended {
        /// Its name.
        instance: &'static str,
        /// How.
        status: ExitStatus,
    },
    /// A worker did not end when it was asked to.
    #[error("worker {instance} did not end within {PATIENCE:?} of SIGTERM; see its log")]
    NotEnded {
        /// Its name.
        instance: &'static str,
    },
    /// The work does not go on.
    #[error("{committed} of {total} messages were committed, and no more within {PATIENCE:?}")]
    Behind {
        /// How many were.
        committed: u64,
        /// How many should have been.
        total: u64,
    },
}

/// Runs it all and checks what came of it.
///
/// # Errors
/// See [`SoakError`]; violations are not errors but in the report.
pub fn run(settings: &Settings<'_>) -> Result<Report, SoakError> {
    let kafka = LocalKafka::start_with(&options(settings))?;
    for topic in [INPUT, LETTERS].iter().chain(&OUTPUTS) {
        kafka.create_topic(topic, PARTITIONS)?;
    }
    let workers =
        Workers { command: settings.command, brokers: kafka.bootstrap(), dir: settings.dir };
    let messages = settings.rate.get() * settings.time.as_secs();
    let mut soak = Soak {
        settings,
        kafka: &kafka,
        processes: [workers.start(INSTANCES[0])?, workers.start(INSTANCES[1])?],
        workers,
        report: Report { messages, ..Report::default() },
    };
    let started = Instant::now();
    soak.load_and_kill()?;
    soak.catch_up()?;
    soak.report.took = started.elapsed();
    soak.end()?;
    soak.judge()
}

/// A broker that starves for a second would be taken for gone by its own controller. One that is
/// killed and comes back must be, though: otherwise it forgets the markers of aborted transactions,
/// whose outputs then appear a second time (`docs/architecture.md`, "Known limits").
fn options(settings: &Settings<'_>) -> LocalKafkaOptions {
    let options = LocalKafkaOptions::default();
    match settings.broker_away {
        None => options.property("broker.session.timeout.ms", "6000"),
        Some(_) => options,
    }
}

struct Soak<'a> {
    settings: &'a Settings<'a>,
    kafka: &'a LocalKafka,
    workers: Workers<'a>,
    processes: [Process; 2],
    report: Report,
}

impl Soak<'_> {
    fn load_and_kill(&mut self) -> Result<(), SoakError> {
        let pace = Pace::new(self.settings.time, self.report.messages);
        let bootstrap = self.kafka.bootstrap();
        let patience =
            self.settings.time + self.settings.broker_away.unwrap_or_default() + PATIENCE;
        thread::scope(|scope| {
            let feeding = scope.spawn(|| feed(bootstrap, &pace, patience));
            let killed = self.kill_until(|| feeding.is_finished());
            // Whatever happened, there is nothing left to wait for.
            pace.is_over.store(true, Ordering::Relaxed);
            let fed = feeding.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            killed.and(fed.map_err(SoakError::from))
        })
    }

    /// Kills the processes in turn, and takes the broker away in the middle.
    fn kill_until(&mut self, is_over: impl Fn() -> bool) -> Result<(), SoakError> {
        let started = Instant::now();
        let mut due = started + self.settings.kill_interval;
        let mut away = self.settings.broker_away;
        while !is_over() {
            sleep(POLL_INTERVAL);
            if started.elapsed() >= self.settings.time / 2
                && let Some(away) = away.take()
            {
                self.kafka.kill()?;
                sleep(away);
                self.kafka.restart()?;
                self.report.broker_away = away;
                due = Instant::now() + self.settings.kill_interval;
            }
            if Instant::now() >= due {
                self.kill()?;
                due += self.settings.kill_interval;
            }
        }
        Ok(())
    }

    fn kill(&mut self) -> Result<(), SoakError> {
        let kills = self.report.kills;
        let [first, second] = &mut self.processes;
        let (process, instance) =
            if kills.is_multiple_of(2) { (first, INSTANCES[0]) } else { (second, INSTANCES[1]) };
        if let Some(status) = process.kill()? {
            return Err(SoakError::Ended { instance, status });
        }
        self.report.kills += 1;
        if self.report.kills.is_multiple_of(KILLS_PER_LOST_STORE) {
            self.workers.remove_store(instance)?;
            self.report.lost_stores += 1;
        }
        *process = self.workers.start(instance)?;
        Ok(())
    }

    /// Waits until the group has committed everything, however busy the machine is.
    fn catch_up(&self) -> Result<(), SoakError> {
        let total = self.report.messages;
        let (mut known, mut deadline) = (0, Instant::now() + PATIENCE);
        loop {
            let offsets = committed_offsets(self.kafka.bootstrap(), GROUP, INPUT, PATIENCE)?;
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
        for (process, instance) in self.processes.iter_mut().zip(INSTANCES) {
            match process.terminate(PATIENCE)? {
                Some(status) if status.success() => {}
                Some(status) => return Err(SoakError::Ended { instance, status }),
                None => return Err(SoakError::NotEnded { instance }),
            }
        }
        Ok(())
    }

    /// How often partitions were taken up at most: after each kill, by each process when it starts,
    /// and again when it has lost them because the broker was away.
    fn takeovers(&self) -> u32 {
        let processes = u32::try_from(INSTANCES.len()).unwrap_or(u32::MAX);
        let rounds = if self.report.broker_away.is_zero() { 1 } else { 2 };
        self.report.kills.saturating_add(processes.saturating_mul(rounds))
    }

    fn judge(mut self) -> Result<Report, SoakError> {
        let bootstrap = self.kafka.bootstrap();
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

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { messages, kills, lost_stores, broker_away, took, aborted, verdict } = self;
        let took = took.as_secs_f64();
        writeln!(f, "{messages} messages in {took:.1} s, all caught up")?;
        writeln!(f, "{kills} kills -9, {lost_stores} of them with the loss of the store")?;
        if !broker_away.is_zero() {
            writeln!(f, "the broker was killed, and away for {broker_away:?}")?;
        }
        writeln!(f, "{aborted} outputs and dead letters in aborted transactions")?;
        write!(f, "{verdict}")
    }
}
