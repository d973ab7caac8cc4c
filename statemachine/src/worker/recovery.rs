//! What to make of a partition that was just given to this worker.
//!
//! Kafka is the truth, the store is the record: the committed offset and the completed runs in its
//! metadata say what is done (the set D), and the store's runs are brought in line with them.

use std::collections::BTreeMap;
use std::slice;

use crate::entry::{Moved, Note, PartitionId};
use crate::first_start::FirstStart;
use crate::metadata::{Author, CommitMetadata};
use crate::runs::Run;
use crate::settings::{Expired, Settings, StartAt};
use crate::span::Span;
use crate::state::{Outcome, Reason, State};
use crate::transition::Event;

use super::caution::{Caution, is_of};
use super::found::{Commit, Found, Label, Siblings};
use super::notice::Notice;
use super::stop::PositionError;

/// How a partition is taken up.
#[derive(Debug, PartialEq)]
pub(crate) struct Recovery {
    /// The committed offset, or where the group starts.
    pub(crate) position: u64,
    /// Whether the position must be committed before the first handler.
    pub(crate) fresh: bool,
    /// Done messages above the position.
    pub(crate) completed: Vec<Span>,
    /// How often messages that are not done have failed.
    pub(crate) attempts: BTreeMap<u64, u32>,
    /// Who wrote the commit.
    pub(crate) prev: Option<Author>,
    /// Whether the last owner let the partition go in good order.
    pub(crate) released: bool,
    /// What is known of messages that may end the process.
    pub(crate) caution: Caution,
    /// What is committed of where other partitions ended.
    pub(crate) first_start: Option<FirstStart>,
    /// What brings the store in line.
    pub(crate) moves: Vec<Moved>,
    /// What an operator should know.
    pub(crate) notices: Vec<Notice>,
}

/// Decides how a partition is taken up.
///
/// # Errors
/// See [`PositionError`]; nothing may be handled then.
pub(crate) fn recover(
    partition: PartitionId,
    found: &Found,
    settings: &Settings,
) -> Result<Recovery, PositionError> {
    let mut recovery = match &found.commit {
        None => first_start(found, settings)?,
        Some(commit) => from_commit(partition, commit, found, settings)?,
    };
    let tally = Truth::of(partition, &recovery, slice::from_ref(&settings.instance))
        .settle(&found.runs, &mut recovery);
    recovery.notices.push(Notice::Recovered {
        partition,
        offset: recovery.position,
        found_done: tally.found_done,
        again: tally.again,
    });
    Ok(recovery)
}

/// Brings what the store holds of a partition that nobody here owns in line with its commit: what
/// an earlier process left unfinished was done by another instance, or waits for its owner.
///
/// Must not be used while the partition may be owned: its owner knows better.
///
/// # Errors
/// The commit cannot be read: nothing is known of what is done.
pub fn settle_unowned(
    partition: PartitionId,
    commit: &Commit,
    runs: &[Run],
    ours: &[String],
) -> Result<Vec<Moved>, PositionError> {
    let (_, mut recovery) = read_commit(commit)?;
    let unfinished = runs.iter().filter(|run| !run.history.state.is_confirmed());
    let unfinished: Vec<Run> = unfinished.copied().collect();
    Truth::of(partition, &recovery, ours).settle(&unfinished, &mut recovery);
    Ok(recovery.moves)
}

fn first_start(found: &Found, settings: &Settings) -> Result<Recovery, PositionError> {
    let (position, first_start) = match (&found.siblings, found.known, settings.expired) {
        // A new partition of a topic that the group reads: nothing of it may be skipped.
        (Siblings::Some(recorded), _, _) => match recorded.start()? {
            None => (found.log_start, None),
            Some(end) => (within(end, found)?, None),
        },
        (Siblings::None(_), true, Expired::Fail) => return Err(PositionError::Expired),
        (Siblings::None(beginning), true, Expired::Restart)
        | (Siblings::None(beginning), false, Expired::Fail | Expired::Restart) => {
            match settings.start {
                StartAt::Earliest => (found.log_start, None),
                StartAt::Latest => {
                    let of = |it| FirstStart::of(it, settings.metadata_bytes);
                    (found.log_end, beginning.as_ref().map(of))
                }
            }
        }
    };
    Ok(Recovery {
        position,
        fresh: true,
        completed: Vec::new(),
        attempts: BTreeMap::new(),
        prev: None,
        released: false,
        caution: Caution::default(),
        first_start,
        moves: Vec::new(),
        notices: Vec::new(),
    })
}

/// An offset from which reading can go on.
fn within(offset: u64, found: &Found) -> Result<u64, PositionError> {
    if offset > found.log_end {
        return Err(PositionError::BeyondEnd { offset, end: found.log_end });
    }
    if offset < found.log_start {
        return Err(PositionError::BelowStart { offset, lost: found.log_start - offset });
    }
    Ok(offset)
}

fn from_commit(
    partition: PartitionId,
    commit: &Commit,
    found: &Found,
    settings: &Settings,
) -> Result<Recovery, PositionError> {
    let offset = commit.offset;
    let (metadata, mut recovery) = read_commit(commit)?;
    let topic_id = metadata.as_ref().map(|metadata| metadata.topic_id);
    if topic_id.is_some_and(|topic_id| topic_id != found.topic_id) {
        return Err(PositionError::OtherTopic { offset });
    }
    within(offset, found)?;
    // Or nobody would know, if this process ends at the first message, that somebody has tried.
    let mut alive = false;
    match metadata {
        None => recovery.notices.push(Notice::OutsideReset { partition, offset }),
        Some(metadata) => {
            alive = !metadata.released && is_of(&metadata.author, settings);
            recovery.caution = Caution::of(&metadata, found, settings);
            recovery.notices.extend(warnings(partition, offset, &recovery.caution));
        }
    }
    recovery.fresh = found.log_end > offset && !alive;
    Ok(recovery)
}

fn warnings(partition: PartitionId, offset: u64, caution: &Caution) -> Vec<Notice> {
    let takeovers = caution.takeovers;
    let taken_over = Notice::TakenOver { partition, offset, takeovers };
    let careful = caution.until.and_then(|until| Span::new(offset, until));
    let careful = careful.map(|span| Notice::CarefulBegun { partition, span });
    caution.counted.then_some(taken_over).into_iter().chain(careful).collect()
}

/// What a commit says by itself; without metadata where another tool wrote it.
fn read_commit(commit: &Commit) -> Result<(Option<CommitMetadata>, Recovery), PositionError> {
    let position = commit.offset;
    let metadata = read_metadata(commit)?;
    let told = metadata.as_ref();
    let recovery = Recovery {
        position,
        fresh: false,
        completed: told.map(|told| told.completed.clone()).unwrap_or_default(),
        attempts: told.map(|told| told.attempts.iter().copied().collect()).unwrap_or_default(),
        prev: told.map(|told| told.author.clone()),
        released: told.is_none_or(|told| told.released),
        caution: Caution::default(),
        first_start: told.and_then(|told| told.first_start.clone()),
        moves: Vec::new(),
        notices: Vec::new(),
    };
    Ok((metadata, recovery))
}

/// `None` where another tool wrote the commit.
fn read_metadata(commit: &Commit) -> Result<Option<CommitMetadata>, PositionError> {
    let offset = commit.offset;
    let read = match &commit.label {
        Label::Foreign(_) => return Ok(None),
        Label::Unreadable(source) => Err(*source),
        Label::Ours(bytes) => CommitMetadata::decode(offset, bytes),
    };
    read.map(Some).map_err(|source| PositionError::Metadata { offset, source })
}

/// The set D of done offsets, in order.
fn done(recovery: &Recovery) -> Vec<Span> {
    Span::new(0, recovery.position).into_iter().chain(recovery.completed.iter().copied()).collect()
}

#[derive(Default)]
struct Tally {
    found_done: u64,
    again: u64,
}

struct Truth<'a> {
    partition: PartitionId,
    /// The names under which this process commits.
    ours: &'a [String],
    done: Vec<Span>,
    author: Option<Author>,
}

impl<'a> Truth<'a> {
    fn of(partition: PartitionId, recovery: &Recovery, ours: &'a [String]) -> Self {
        Self { partition, ours, done: done(recovery), author: recovery.prev.clone() }
    }

    /// Brings stored runs in line with D.
    fn settle(&self, runs: &[Run], recovery: &mut Recovery) -> Tally {
        let mut tally = Tally::default();
        for run in runs {
            self.settle_run(run, recovery, &mut tally);
        }
        tally
    }

    fn settle_run(&self, run: &Run, recovery: &mut Recovery, tally: &mut Tally) {
        let mut from = run.span.first;
        for done in &self.done {
            let Some(part) = done.intersect(run.span) else { continue };
            if let Some(open) = Span::new(from, part.first) {
                self.settle_open(run, open, recovery, tally);
            }
            if !run.history.state.is_confirmed() {
                tally.found_done += part.len();
                recovery.moves.push(self.found_done(part));
            }
            from = part.end;
        }
        if let Some(open) = Span::new(from, run.span.end) {
            self.settle_open(run, open, recovery, tally);
        }
    }

    fn settle_open(&self, run: &Run, open: Span, recovery: &mut Recovery, tally: &mut Tally) {
        let mut push = |event| {
            recovery.moves.push(Moved {
                partition: self.partition,
                span: open,
                event,
                note: Note::None,
            });
        };
        match run.history.state {
            State::Pending => {}
            State::Processing | State::InDoubt => {
                push(Event::RolledBack(Reason::Crashed));
                push(Event::Again);
                tally.again += open.len();
            }
            State::RolledBack(_) => push(Event::Again),
            State::Confirmed(_) => {
                push(Event::Rewound);
                recovery.notices.push(Notice::Rewound { partition: self.partition, span: open });
            }
        }
        if run.history.attempt > 0 && !run.history.state.is_confirmed() {
            for offset in open.first..open.end {
                let attempt = recovery.attempts.entry(offset).or_default();
                *attempt = run.history.attempt.max(*attempt);
            }
        }
    }

    fn found_done(&self, span: Span) -> Moved {
        let (outcome, note) = match &self.author {
            Some(author) if self.ours.contains(&author.instance) => {
                (Outcome::Processed, Note::Author(author.clone()))
            }
            Some(author) => (Outcome::Elsewhere, Note::Author(author.clone())),
            None => (Outcome::Unknown, Note::None),
        };
        Moved { partition: self.partition, span, event: Event::FoundDone(outcome), note }
    }
}

/// What the stable commits say of a transaction in doubt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It was committed.
    Committed,
    /// It was not.
    NotCommitted,
    /// Some of its commits are there and some are not, which one transaction cannot be.
    Torn,
}

/// Decides a transaction in doubt by the partitions that were owned without a break: it is
/// committed exactly if the stable commit equals what was sent, offset and metadata byte for byte.
///
/// `None`: no partition is left to tell.
///
/// # Errors
/// A commit is not what was sent and cannot be read. It may have been that, and damaged since.
pub(crate) fn verdict<'a>(
    pairs: impl Iterator<Item = (&'a super::Position, Option<&'a Commit>)>,
) -> Result<Option<Verdict>, (PartitionId, PositionError)> {
    let mut verdict = None;
    for (sent, commit) in pairs {
        let is_there = is_there(sent, commit).map_err(|error| (sent.partition, error))?;
        let told = if is_there { Verdict::Committed } else { Verdict::NotCommitted };
        if verdict.is_some_and(|verdict| verdict != told) {
            return Ok(Some(Verdict::Torn));
        }
        verdict = Some(told);
    }
    Ok(verdict)
}

fn is_there(sent: &super::Position, commit: Option<&Commit>) -> Result<bool, PositionError> {
    let Some(commit) = commit else { return Ok(false) };
    let is_same = matches!(&commit.label, Label::Ours(bytes) if *bytes == sent.metadata);
    if is_same {
        return Ok(commit.offset == sent.offset);
    }
    read_metadata(commit).map(|_| false)
}

#[cfg(test)]
#[path = "recovery_test.rs"]
mod tests;
