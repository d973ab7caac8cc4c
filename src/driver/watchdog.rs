//! Watches the loops of a run from outside: what hangs in a call, and what ends in a panic.
//!
//! A call that takes longer than its own time-out and a margin is told to whoever started the
//! loop, once. What is done about it is theirs: producers and admin clients are given up and
//! replaced, the run ends with an error where a client cannot be, and the store is only reported.

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::error::RunError;

use super::host::{Host, Loop, panicked};
use super::pulse::{Calling, LoopStatus, Pulse};

/// How long a call may take beyond its own time-out.
pub(crate) const MARGIN: Duration = Duration::from_secs(5);

/// How often the loops are looked at.
const TICK: Duration = Duration::from_secs(1);

/// How many threads may hang in calls that do not return. Each holds a client of librdkafka with
/// its own threads and connections; with more than this something else is wrong.
const GIVEN_UP_MAX: usize = 8;

/// What is told of a loop.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// It does not come back from a call.
    Overdue(Overdue),
    /// It panicked, and has ended.
    Panicked(RunError),
}

/// A call that does not return.
#[derive(Debug, Clone)]
pub(crate) struct Overdue {
    pub(crate) name: Arc<str>,
    pub(crate) call: &'static str,
    /// How long it has taken.
    pub(crate) waited: Duration,
    number: u64,
}

impl Overdue {
    /// The run cannot go on without it.
    pub(crate) fn into_error(self) -> RunError {
        let Self { name, call, waited, number: _ } = self;
        RunError::Hung { name: name.to_string(), call, waited }
    }
}

impl fmt::Display for Overdue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} has not returned for {:.0} s", self.call, self.waited.as_secs_f32())
    }
}

type Tell = Arc<dyn Fn(Trouble) + Send + Sync>;

struct Watched {
    name: Arc<str>,
    pulse: Pulse,
    margin: Duration,
    tell: Tell,
    /// The call that was seen last, and when on the watchdog's own clock.
    seen: Option<(u64, Duration)>,
    /// The call that was told.
    told: u64,
}

/// The loops of a run; clones share them. Those that have ended are taken out.
#[derive(Clone, Default)]
pub(crate) struct Loops(Arc<Mutex<Vec<Watched>>>);

impl fmt::Debug for Loops {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.status()).finish()
    }
}

impl Loops {
    fn all(&self) -> MutexGuard<'_, Vec<Watched>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What each of them is at.
    pub(crate) fn status(&self) -> Vec<LoopStatus> {
        let status =
            |it: &Watched| LoopStatus { name: it.name.to_string(), state: it.pulse.state() };
        self.all().iter().map(status).collect()
    }

    /// How many hang in calls that were given up.
    pub(crate) fn given_up(&self) -> usize {
        self.all().iter().filter(|it| it.pulse.is_given_up()).count()
    }

    /// Looks at all of them; `now` is on the watchdog's own clock.
    fn look(&self, now: Duration) {
        let mut overdue = Vec::new();
        let mut all = self.all();
        all.retain(|it| !it.pulse.has_ended());
        for it in all.iter_mut() {
            overdue.extend(it.look(now).map(|overdue| (Arc::clone(&it.tell), overdue)));
        }
        drop(all);
        // Who is told may start another loop.
        for (tell, overdue) in overdue {
            tell(Trouble::Overdue(overdue));
        }
    }
}

impl Watched {
    fn look(&mut self, now: Duration) -> Option<Overdue> {
        let Some(Calling { call, within, since, number }) = self.pulse.calling() else {
            self.seen = None;
            return None;
        };
        let first = self.seen.filter(|(seen, _)| *seen == number).map_or(now, |(_, first)| first);
        self.seen = Some((number, first));
        if self.told == number || now < first + within + self.margin {
            return None;
        }
        self.told = number;
        let (name, waited) = (Arc::clone(&self.name), since.elapsed());
        Some(Overdue { name, call, waited, number })
    }
}

/// Starts the loops of a run and watches them; clones are the same one.
#[derive(Clone)]
pub(crate) struct Watchdog(Arc<Inner>);

struct Inner {
    host: Host,
    loops: Loops,
    failures: mpsc::UnboundedSender<RunError>,
    ticking: AbortHandle,
}

impl fmt::Debug for Watchdog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watchdog").field("loops", &self.0.loops).finish_non_exhaustive()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.ticking.abort();
        self.loops.all().clear();
    }
}

/// What the run cannot go on after.
pub(crate) type Failures = mpsc::UnboundedReceiver<RunError>;

impl Watchdog {
    /// Begins to watch.
    pub(crate) fn start(host: Host, loops: Loops) -> (Self, Failures) {
        let (sender, failures) = mpsc::unbounded_channel();
        let ticking = tokio::spawn(tick(loops.clone())).abort_handle();
        (Self(Arc::new(Inner { host, loops, failures: sender, ticking })), failures)
    }

    /// Starts a loop that is told to `tell` if it panics, or if it takes longer for a call than
    /// the call's own time-out and `margin`.
    ///
    /// # Errors
    /// The operating system gives no thread.
    #[must_use = "a loop that is a task ends when this is dropped"]
    pub(crate) fn spawn<F>(
        &self,
        name: &str,
        margin: Duration,
        tell: impl Fn(Trouble) + Send + Sync + 'static,
        body: impl FnOnce(Pulse) -> F,
    ) -> Result<(Loop, Pulse), RunError>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (name, pulse, tell): (Arc<str>, _, Tell) = (name.into(), Pulse::new(), Arc::new(tell));
        let task = body(pulse.clone());
        let (of_task, ending, told) = (Arc::clone(&name), pulse.clone(), Arc::clone(&tell));
        let guarded = async move {
            let end = AssertUnwindSafe(task).catch_unwind().await;
            ending.end();
            if let Err(panic) = end {
                told(Trouble::Panicked(panicked(&of_task, panic.as_ref())));
            }
        };
        let started = self.0.host.spawn(&name, guarded)?;
        let of = pulse.clone();
        let watched = Watched { name, pulse: of, margin, tell, seen: None, told: 0 };
        self.0.loops.all().push(watched);
        Ok((started, pulse))
    }

    /// Gives a loop up if it is still at the call, so that another one may take its place; whether
    /// it is.
    ///
    /// # Errors
    /// There are too many by now.
    pub(crate) fn give_up(&self, pulse: &Pulse, overdue: &Overdue) -> Result<bool, RunError> {
        if !pulse.give_up(overdue.number) {
            return Ok(false);
        }
        let given_up = self.0.loops.given_up();
        let Overdue { name, call, waited, number: _ } = overdue;
        let waited_s = waited.as_secs_f32();
        let told = "a call to Kafka does not return: its client is given up and replaced";
        tracing::warn!(%name, call, waited_s, given_up, "{told}");
        if given_up > GIVEN_UP_MAX { Err(overdue.clone().into_error()) } else { Ok(true) }
    }

    /// Ends the run.
    pub(crate) fn fail(&self, error: RunError) {
        self.failing().fail(error);
    }

    /// Ends the run, without keeping the watchdog.
    pub(crate) fn failing(&self) -> Failing {
        Failing(self.0.failures.clone())
    }
}

/// Ends the run.
#[derive(Debug, Clone)]
pub(crate) struct Failing(mpsc::UnboundedSender<RunError>);

impl Failing {
    /// Ends the run with this error.
    pub(crate) fn fail(&self, error: RunError) {
        // A run that is ending has its reason already.
        let _ = self.0.send(error);
    }
}

/// A process that was stopped for a while finds all of its calls late when it goes on, though none
/// of them hangs: so time counts only as far as it was seen to pass.
async fn tick(loops: Loops) {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut clock, mut last) = (Duration::ZERO, Instant::now());
    loop {
        ticks.tick().await;
        let now = Instant::now();
        clock += (now - last).min(2 * TICK);
        last = now;
        loops.look(clock);
    }
}
