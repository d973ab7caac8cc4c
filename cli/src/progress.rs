//! What is shown of a run: a bar on a terminal, otherwise a line in the log now and then.

use std::collections::VecDeque;
use std::io::{self, IsTerminal as _};
use std::time::{Duration, Instant};

use countersign::{Connection, Lag, LagGauge, Processor, RunError, Status, Watch};
use indicatif::{HumanCount, HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, interval_at};

use crate::logging::LogFormat;

/// How often a line is logged.
const LINE_INTERVAL: Duration = Duration::from_secs(5);
/// How often the bar is drawn.
const DRAW_INTERVAL: Duration = Duration::from_millis(200);
/// How often Kafka is asked about the lag: where it is logged, and where it is drawn.
const LAG_INTERVAL: Duration = LINE_INTERVAL;
const LAG_INTERVAL_DRAWN: Duration = Duration::from_secs(1);
/// Over how long the rate is measured.
const RATE_WINDOW: Duration = Duration::from_secs(5);

/// A bar that is drawn if standard error is a terminal and meant for people.
pub(crate) fn bar(format: LogFormat) -> ProgressBar {
    let drawn = format == LogFormat::Text && io::stderr().is_terminal();
    let target = if drawn { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    ProgressBar::with_draw_target(None, target)
}

/// Shows progress until [`end`](Progress::end).
pub(crate) struct Progress {
    tasks: [JoinHandle<()>; 2],
    bar: ProgressBar,
    status: Watch,
    started: Instant,
}

impl Progress {
    /// Starts to show how the processor gets on; `has_end` if it ends once it has caught up.
    pub(crate) fn start(
        processor: &Processor,
        bar: ProgressBar,
        has_end: bool,
    ) -> Result<Self, RunError> {
        let status = processor.handle().status();
        let gauge = processor.lag_gauge()?;
        let (sender, lag) = watch::channel(None);
        let drawn = !bar.is_hidden();
        let asked = if drawn { LAG_INTERVAL_DRAWN } else { LAG_INTERVAL };
        let view = View { status: status.clone(), lag, has_end, whole: None, rate: Rate::new() };
        let shown =
            if drawn { tokio::spawn(draw(view, bar.clone())) } else { tokio::spawn(log(view)) };
        let tasks = [tokio::spawn(ask(gauge, sender, asked)), shown];
        Ok(Self { tasks, bar, status, started: Instant::now() })
    }

    /// Ends with a line that sums the run up.
    pub(crate) fn end(self) {
        for task in self.tasks {
            task.abort();
        }
        self.bar.finish_and_clear();
        let Status { counts, .. } = self.status.get();
        let elapsed = self.started.elapsed();
        tracing::info!(
            confirmed = counts.confirmed,
            per_s = per_second(counts.confirmed, elapsed),
            seconds = elapsed.as_secs(),
            transactions = counts.committed,
            aborted = counts.aborted,
            in_doubt = counts.in_doubt,
            failures = counts.failures,
            dead_letters = counts.dead_letters,
            unfinished = counts.unfinished,
            "ended"
        );
    }
}

/// Asks for the lag for as long as the runtime lives; `None` while there is no answer.
async fn ask(mut gauge: LagGauge, lag: watch::Sender<Option<Lag>>, every: Duration) {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let answer = gauge.read().await;
        if let Err(error) = &answer {
            tracing::debug!(%error, "the lag is not known now");
        }
        lag.send_replace(answer.ok());
    }
}

async fn log(mut view: View) {
    let mut ticks = interval_at(tokio::time::Instant::now() + LINE_INTERVAL, LINE_INTERVAL);
    loop {
        ticks.tick().await;
        let Seen { status, per_s, lag, done } = view.look();
        let counts = status.counts;
        tracing::info!(
            per_s,
            lag = lag.map(|lag| lag.behind),
            done = done.map(|(done, _)| done),
            of = done.map(|(_, whole)| whole),
            confirmed = counts.confirmed,
            unfinished = counts.unfinished,
            transactions = counts.committed,
            aborted = counts.aborted,
            in_doubt = counts.in_doubt,
            failures = counts.failures,
            dead_letters = counts.dead_letters,
            connection = status.connection.name(),
            "progress"
        );
        if !status.health.is_well() {
            tracing::warn!(health = %status.health, "it does not get on");
        }
    }
}

async fn draw(mut view: View, bar: ProgressBar) {
    let open = style("{spinner} {msg}");
    let closed = style("{spinner} [{bar:30}] {percent:>3}% {human_pos}/{human_len}  {msg}");
    bar.set_style(open);
    let mut ticks = interval(DRAW_INTERVAL);
    loop {
        ticks.tick().await;
        let seen = view.look();
        if let Some((done, whole)) = seen.done {
            if bar.length() != Some(whole) {
                bar.set_length(whole);
                bar.set_style(closed.clone());
            }
            bar.set_position(done);
        }
        bar.set_message(seen.words());
        bar.tick();
    }
}

fn style(template: &str) -> ProgressStyle {
    let style = ProgressStyle::with_template(template);
    style
        .expect("the templates are constants that parse")
        .progress_chars("=> ")
        .tick_chars("-\\|/ ")
}

/// What progress is read from.
struct View {
    status: Watch,
    lag: watch::Receiver<Option<Lag>>,
    has_end: bool,
    /// How far the group was behind when it was first asked.
    whole: Option<u64>,
    rate: Rate,
}

/// Progress as of now.
struct Seen {
    status: Status,
    per_s: u64,
    lag: Option<Lag>,
    /// How much of how much is done, where there is an end.
    done: Option<(u64, u64)>,
}

impl View {
    fn look(&mut self) -> Seen {
        let status = self.status.get();
        let lag = *self.lag.borrow();
        let mut done = None;
        if let Some(lag) = lag.filter(|_| self.has_end) {
            let whole = *self.whole.get_or_insert(lag.behind_first_end);
            done = Some((whole.saturating_sub(lag.behind_first_end), whole));
        } else if let Some(whole) = self.whole {
            let confirmed = status.counts.confirmed;
            done = Some((confirmed.min(whole), whole));
        }
        let per_s = self.rate.next(status.counts.confirmed);
        Seen { status, per_s, lag, done }
    }
}

impl Seen {
    fn words(&self) -> String {
        let counts = self.status.counts;
        let lag = self.lag.map(|lag| HumanCount(lag.behind).to_string());
        let mut words = vec![
            format!("{}/s", HumanCount(self.per_s)),
            format!("lag {}", lag.unwrap_or_else(|| "unknown".to_owned())),
        ];
        if let (Some((done, whole)), 1..) = (self.done, self.per_s) {
            let left = Duration::from_secs(whole.saturating_sub(done) / self.per_s);
            words.push(format!("{} left", HumanDuration(left)));
        }
        let always = [
            ("confirmed", counts.confirmed),
            ("unfinished", counts.unfinished),
            ("transactions", counts.committed),
        ];
        let seldom = [
            ("aborted", counts.aborted),
            ("in doubt", counts.in_doubt),
            ("failures", counts.failures),
            ("dead letters", counts.dead_letters),
        ];
        let seldom = seldom.into_iter().filter(|(_, count)| *count > 0);
        let counted = always.into_iter().chain(seldom);
        words.extend(counted.map(|(name, count)| format!("{name} {}", HumanCount(count))));
        if self.status.connection != Connection::Connected {
            words.push(self.status.connection.name().to_owned());
        }
        if !self.status.health.is_well() {
            words.push(self.status.health.to_string());
        }
        words.join("  ")
    }
}

/// Messages per second over the last few seconds.
struct Rate(VecDeque<(Instant, u64)>);

impl Rate {
    fn new() -> Self {
        Self(VecDeque::from([(Instant::now(), 0)]))
    }

    fn next(&mut self, count: u64) -> u64 {
        let now = Instant::now();
        self.0.push_back((now, count));
        // One look from before the window stays, so that the window is always full.
        while self.0.get(1).is_some_and(|(at, _)| now - *at >= RATE_WINDOW) {
            self.0.pop_front();
        }
        let (since, before) = self.0.front().copied().unwrap_or((now, count));
        per_second(count.saturating_sub(before), now - since)
    }
}

fn per_second(count: u64, elapsed: Duration) -> u64 {
    let per_second = u128::from(count) * 1_000 / elapsed.as_millis().max(1);
    u64::try_from(per_second).unwrap_or(u64::MAX)
}
