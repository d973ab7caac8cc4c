//! Taking partitions up: what Kafka and the store know of each, asked for until all is told.
//!
//! There may be thousands, so that each round has one question of a kind for all of them. What one
//! round does not tell is asked for in the next; those that are told go on meanwhile.

use std::mem::take;
use std::time::Duration;

use countersign_statemachine::worker::{Found, Input, Siblings};
use countersign_statemachine::{Disposition, PartitionId, StartAt};
use futures::FutureExt;
use tokio::time::{Instant, sleep};

use crate::commit_metadata::commit_of;
use crate::error::RunError;
use crate::kafka::{Committed, ErrorKind, KafkaError, LogRange, TopicPartition};

use super::clerk::Clerk;
use super::jobs::Finding;
use super::scout::Scout;
use super::siblings::Topics;
use super::{Driver, Identified};

/// The waits between rounds. One that took longer is followed by as long a wait, since others want
/// to ask, too.
const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// How long a partition may take before people are told, and how often they are told again.
const PATIENCE: Duration = Duration::from_secs(10);
const REMINDER: Duration = Duration::from_secs(60);

/// A partition that is being taken up.
#[derive(Debug)]
struct Waiting {
    known: Identified,
    epoch: u64,
    since: Instant,
    /// When people are told next that it is not ready.
    told_at: Instant,
}

/// Partitions that are being taken up.
#[derive(Debug)]
pub(super) struct TakeUp {
    waiting: Vec<Waiting>,
    start: StartAt,
    wait: Duration,
}

/// What came of a round of questions.
pub(super) struct Round {
    found: Vec<(PartitionId, u64, Found)>,
    /// What must be asked for again, and why.
    unready: Vec<(Waiting, KafkaError)>,
    took: Duration,
    wait: Duration,
}

impl Driver {
    pub(super) fn recover(&mut self, begun: &[(PartitionId, u64)]) {
        for &(id, epoch) in begun {
            self.open_shelf(id, epoch);
            self.clerk.claim(id, self.number);
        }
        let since = Instant::now();
        let waiting = begun.iter().filter_map(|&(id, epoch)| {
            let known = self.known.get(&id)?.clone();
            Some(Waiting { known, epoch, since, told_at: since + PATIENCE })
        });
        let take_up = TakeUp { waiting: waiting.collect(), start: self.start, wait: FIRST_WAIT };
        self.ask(take_up, Duration::ZERO);
    }

    fn ask(&mut self, take_up: TakeUp, wait: Duration) {
        let (scout, clerk) = (self.scout.clone(), self.clerk.clone());
        let job = async move {
            sleep(wait).await;
            Finding::Recovered(take_up.ask(&scout, &clerk).await)
        };
        self.jobs.push(job.boxed());
    }

    /// Tells the worker, and asks again for what is not known.
    pub(super) fn recovered(&mut self, round: Round) {
        let Round { found, unready, took, wait } = round;
        self.handle(Input::Recovered(found));
        let is_ours = |it: &Waiting| {
            self.shelves.get(&it.known.id).is_some_and(|shelf| shelf.epoch == it.epoch)
        };
        let unready: Vec<_> = unready.into_iter().filter(|(it, _)| is_ours(it)).collect();
        if unready.is_empty() {
            return;
        }
        let ids = unready.iter().map(|(it, _)| (it.known.id, it.epoch)).collect();
        let waiting = unready.into_iter().map(|(it, error)| it.tell(&error)).collect();
        self.handle(Input::Unready(ids));
        let next = TakeUp { waiting, start: self.start, wait: (wait * 2).min(LONGEST_WAIT) };
        self.ask(next, wait.max(took));
    }
}

impl Waiting {
    fn tell(mut self, error: &KafkaError) -> Self {
        let now = Instant::now();
        let (partition, waits) = (&self.known.partition, self.since.elapsed());
        if self.told_at <= now {
            self.told_at = now + REMINDER;
            let since = waits.as_secs();
            tracing::warn!(
                %partition, %error, "not taken up for {since} s; the others go on"
            );
        } else {
            tracing::debug!(%partition, %error, ?waits, "asking again");
        }
        self
    }

    fn name(&self) -> TopicPartition {
        self.known.partition.clone()
    }
}

/// Whether it may become better by itself. A topic may be new to a broker, or be deleted.
fn is_passing(error: &KafkaError) -> bool {
    error.disposition == Disposition::Retriable
        || matches!(error.kind, ErrorKind::UnknownTopic | ErrorKind::UnknownPartition)
}

impl TakeUp {
    async fn ask(mut self, scout: &Scout, clerk: &Clerk) -> Result<Round, RunError> {
        let began = Instant::now();
        let mut unready = Vec::new();
        let asked = take(&mut self.waiting);
        let commits = scout.committed(asked.iter().map(Waiting::name).collect()).await;
        let with_commit = told(asked, commits, &mut unready)?;
        let logs = scout.log_ranges(with_commit.iter().map(|(it, _)| it.name()).collect()).await;
        let with_log = told(with_commit, logs, &mut unready)?;
        let committed = |commit: &Option<Committed>| commit.as_ref().map_or(0, |it| it.offset);
        let asked = with_log.iter().map(|((it, commit), _)| (it.known.id, committed(commit)));
        let runs = clerk.runs(asked.collect()).await?;
        let names: Vec<_> = with_log.iter().map(|((it, _), _)| it.name()).collect();
        let mut topics = Topics::new(self.start, names.iter());
        let mut found = Vec::with_capacity(runs.len());
        for (((it, commit), log), runs) in with_log.into_iter().zip(runs) {
            let siblings = match &commit {
                Some(_) => Ok(Siblings::None(None)),
                None => topics.siblings(scout, &it.known).await,
            };
            match siblings {
                Ok(siblings) => {
                    let what = found_of(&it.known, commit, siblings, log, runs);
                    found.push((it.known.id, it.epoch, what));
                }
                Err(error) if is_passing(&error) => unready.push((it, error)),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Round { found, unready, took: began.elapsed(), wait: self.wait })
    }
}

fn found_of(
    known: &Identified,
    commit: Option<Committed>,
    siblings: Siblings,
    log: LogRange,
    runs: Vec<countersign_statemachine::Run>,
) -> Found {
    Found {
        commit: commit.map(commit_of),
        siblings,
        // A message that was only signed in proves no commit: the first one may never have come.
        known: runs.iter().any(|run| run.history.state.is_confirmed()),
        log_start: log.start,
        log_end: log.end,
        topic_id: known.topic_id,
        runs,
    }
}

/// What asks for a partition.
trait Asks {
    fn waiting(self) -> Waiting;
}

impl Asks for Waiting {
    fn waiting(self) -> Waiting {
        self
    }
}

impl<T> Asks for (Waiting, T) {
    fn waiting(self) -> Waiting {
        self.0
    }
}

/// Those of which something was told, with it.
fn told<A: Asks, T>(
    asked: Vec<A>,
    each: Result<Vec<Result<T, KafkaError>>, KafkaError>,
    unready: &mut Vec<(Waiting, KafkaError)>,
) -> Result<Vec<(A, T)>, RunError> {
    let each = match each {
        Ok(each) => each,
        Err(error) => asked.iter().map(|_| Err(error.clone())).collect(),
    };
    let mut all = Vec::with_capacity(asked.len());
    for (it, answer) in asked.into_iter().zip(each) {
        match answer {
            Ok(answer) => all.push((it, answer)),
            Err(error) if is_passing(&error) => unready.push((it.waiting(), error)),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(all)
}
