//! The record of one partition, run-length coded: offsets to histories.
//!
//! Invariants: runs do not overlap; touching runs of the same history are one run; a run's count is
//! at most its length. It is smaller only where the run spans offsets without a message (control
//! records, compacted ones): in a confirmed run, or in one that a rewind made pending and that has
//! not been read since. All other runs are dense.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::span::Span;
use crate::state::{History, Outcome, State};
use crate::transition::{Event, InvalidTransition, transition};

/// Contiguous received offsets with one history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// The offsets from the first message up to the next run or gap.
    pub span: Span,
    /// How many messages there are in the span.
    pub count: u64,
    /// What happened to each of them.
    pub history: History,
}

/// Why an event could not be applied to a span.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ApplyError {
    /// A part of the span does not allow the event.
    #[error("at {span}: {source}")]
    Invalid {
        /// The part.
        span: Span,
        /// What is wrong with it.
        source: InvalidTransition,
    },
    /// A part of the span was never admitted, and the event does not begin a history.
    #[error("offset {offset} has no history that {event:?} could continue")]
    Absent {
        /// The first offset of the part.
        offset: u64,
        /// The event.
        event: Event,
    },
}

/// The runs of one partition, and which of them changed since they were last written.
#[derive(Debug, Clone, Default)]
pub struct Runs {
    runs: BTreeMap<u64, Body>,
    touched: BTreeSet<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Body {
    end: u64,
    count: u64,
    history: History,
}

impl Body {
    fn run(self, first: u64) -> Run {
        let span = Span { first, end: self.end };
        Run { span, count: self.count, history: self.history }
    }
}

/// A change to be written: the run that now begins at `first`, if any does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// The key.
    pub first: u64,
    /// `None`: no run begins there any more.
    pub run: Option<Run>,
}

impl Runs {
    /// Rebuilds the record from stored runs.
    ///
    /// A damaged store cannot break the invariants: of overlapping runs the one read first stands,
    /// empty spans are dropped, counts are corrected, and what touches is joined. The corrections
    /// are changes like any other, so that writing them repairs the store.
    pub fn restore(stored: impl IntoIterator<Item = Run>) -> Self {
        let mut runs = Self::default();
        for run in stored {
            let Some(span) = Span::new(run.span.first, run.span.end) else {
                runs.touched.insert(run.span.first);
                continue;
            };
            let free = runs.at(span.first).is_none()
                && runs.next_first(span.first).is_none_or(|next| next >= span.end);
            if !free {
                runs.touched.insert(span.first);
                continue;
            }
            let dense = !is_sparse(run.history);
            let count = if dense { span.len() } else { run.count.min(span.len()) };
            let joined = runs.join(Run { count, ..run });
            if joined != run {
                runs.touched.extend([run.span.first, joined.span.first]);
            }
        }
        runs
    }

    /// Every run, in offset order.
    pub fn iter(&self) -> impl Iterator<Item = Run> + '_ {
        self.runs.iter().map(|(&first, body)| body.run(first))
    }

    /// The run that covers an offset.
    pub fn at(&self, offset: u64) -> Option<Run> {
        let (&first, body) = self.runs.range(..=offset).next_back()?;
        (offset < body.end).then(|| body.run(first))
    }

    /// The runs that share an offset with `span`.
    pub fn overlapping(&self, span: Span) -> Vec<Run> {
        let from = self.at(span.first).map_or(span.first, |run| run.span.first);
        self.runs.range(from..span.end).map(|(&first, body)| body.run(first)).collect()
    }

    /// How many runs there are.
    pub fn len(&self) -> usize {
        self.runs.len()
    }

    /// Whether nothing is recorded.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Takes the changes since the last call.
    #[must_use = "changes that are not written are lost"]
    pub fn take_changes(&mut self) -> Vec<Change> {
        let touched = std::mem::take(&mut self.touched);
        touched
            .into_iter()
            .map(|first| Change { first, run: self.runs.get(&first).map(|body| body.run(first)) })
            .collect()
    }

    /// Applies an event to every message of a span.
    ///
    /// `Start` and `Intervened` begin a history where there is none. `Committed` closes gaps: the
    /// caller vouches that the span holds no message but those that were started, so that what was
    /// not read, or is pending (its message was compacted away since), joins the run before it.
    /// `FoundDone` cannot vouch for that: offsets without a history get one of their own, with no
    /// messages counted. Both leave alone what is confirmed. Other events must find a history
    /// everywhere in the span.
    ///
    /// # Errors
    /// Nothing was changed; see [`ApplyError`].
    pub fn apply(&mut self, span: Span, event: Event) -> Result<(), ApplyError> {
        let parts = self.parts(span);
        let next = match event {
            Event::Start | Event::Intervened(_) => Self::begun(span, &parts, event)?,
            Event::Committed(_) => Self::committed(span, &parts, event)?,
            Event::FoundDone(outcome) => Self::found(span, &parts, outcome)?,
            Event::ReplyLost | Event::RolledBack(_) | Event::Again | Event::Rewound => {
                Self::moved(span, &parts, event)?
            }
        };
        self.replace(span, &next);
        Ok(())
    }

    /// Whether every message of a span that is recorded is done.
    pub fn is_confirmed(&self, span: Span) -> bool {
        let from = self.at(span.first).map_or(span.first, |run| run.span.first);
        self.runs.range(from..span.end).all(|(_, body)| body.history.state.is_confirmed())
    }

    /// Leaves of the done messages of a span only their outcome, so that neighbours of one outcome
    /// are one run again, whatever they went through. What is not done is left alone.
    ///
    /// Looks at `most` runs. Gives how many it looked at, and the offset to go on from, which is
    /// the end of the span once all of it was looked at.
    pub fn forget_details(&mut self, span: Span, most: usize) -> (usize, u64) {
        let from = self.at(span.first).map_or(span.first, |run| run.span.first);
        let runs = self.runs.range(from..span.end).take(most.saturating_add(1));
        let mut runs: Vec<Run> = runs.map(|(&first, body)| body.run(first)).collect();
        let next = if runs.len() > most { runs.pop() } else { None };
        for run in &runs {
            let State::Confirmed(outcome) = run.history.state else { continue };
            let history = History::of_outcome(outcome);
            if let Some(part) = run.span.intersect(span)
                && run.history != history
            {
                self.replace(part, &[Run { history, ..part_of(*run, part) }]);
            }
        }
        let until = next.map_or(span.end, |run| run.span.first.max(span.first));
        (runs.len(), until)
    }

    /// The recorded parts of a span, cut to it.
    fn parts(&self, span: Span) -> Vec<Run> {
        let cut = |run: Run| Some(part_of(run, run.span.intersect(span)?));
        self.overlapping(span).into_iter().filter_map(cut).collect()
    }

    fn begun(span: Span, parts: &[Run], event: Event) -> Result<Vec<Run>, ApplyError> {
        let absent = |span: Span| Run { span, count: 0, history: History::NEW };
        let read = |run: Run| Run { count: run.span.len(), ..run };
        filled(span, parts, absent).into_iter().map(|run| step(read(run), event)).collect()
    }

    fn committed(span: Span, parts: &[Run], event: Event) -> Result<Vec<Run>, ApplyError> {
        let read = parts.iter().filter(|part| part.history.state != State::Pending);
        let mut next = read.map(|part| finish(*part, event)).collect::<Result<Vec<_>, _>>()?;
        if next.is_empty() {
            next.push(Run { span, count: 0, history: History::CLEAN });
        }
        stretch(span, &mut next);
        Ok(next)
    }

    fn found(span: Span, parts: &[Run], outcome: Outcome) -> Result<Vec<Run>, ApplyError> {
        let history = History { state: State::Confirmed(outcome), ..History::NEW };
        let unseen = |span| Run { span, count: 0, history };
        let event = Event::FoundDone(outcome);
        filled(span, parts, unseen).into_iter().map(|run| finish(run, event)).collect()
    }

    fn moved(span: Span, parts: &[Run], event: Event) -> Result<Vec<Run>, ApplyError> {
        let mut from = span.first;
        for part in parts {
            if part.span.first != from {
                return Err(ApplyError::Absent { offset: from, event });
            }
            from = part.span.end;
        }
        if from != span.end {
            return Err(ApplyError::Absent { offset: from, event });
        }
        parts.iter().map(|part| step(*part, event)).collect()
    }

    fn replace(&mut self, span: Span, next: &[Run]) {
        for old in self.overlapping(span) {
            self.remove(old.span.first);
            for kept in [
                Span::new(old.span.first, span.first.min(old.span.end)),
                Span::new(span.end.max(old.span.first), old.span.end),
            ]
            .into_iter()
            .flatten()
            {
                self.insert(part_of(old, kept));
            }
        }
        for run in next {
            self.insert(*run);
        }
    }

    fn remove(&mut self, first: u64) {
        self.runs.remove(&first);
        self.touched.insert(first);
    }

    fn insert(&mut self, run: Run) {
        let joined = self.join(run);
        self.touched.insert(joined.span.first);
    }

    /// Inserts a run, joined with touching ones of the same history.
    fn join(&mut self, run: Run) -> Run {
        let mut joined = run;
        let before = self.runs.range(..run.span.first).next_back().map(|(&f, b)| b.run(f));
        if let Some(before) = before.filter(|b| b.span.end == run.span.first)
            && before.history == run.history
        {
            self.remove(before.span.first);
            joined.span.first = before.span.first;
            joined.count += before.count;
        }
        let after = self.runs.get(&run.span.end).map(|body| body.run(run.span.end));
        if let Some(after) = after.filter(|after| after.history == run.history) {
            self.remove(after.span.first);
            joined.span.end = after.span.end;
            joined.count += after.count;
        }
        let body = Body { end: joined.span.end, count: joined.count, history: joined.history };
        self.runs.insert(joined.span.first, body);
        joined
    }

    fn next_first(&self, offset: u64) -> Option<u64> {
        self.runs.range(offset..).next().map(|(&first, _)| first)
    }
}

fn step(run: Run, event: Event) -> Result<Run, ApplyError> {
    let (history, _) = transition(run.history, event)
        .map_err(|source| ApplyError::Invalid { span: run.span, source })?;
    Ok(Run { history, ..run })
}

/// As [`step`], but leaves alone what is confirmed.
fn finish(run: Run, event: Event) -> Result<Run, ApplyError> {
    if run.history.state.is_confirmed() { Ok(run) } else { step(run, event) }
}

/// Whether a rewind made it pending and it was not read since: only a rewind leaves a message
/// pending that was never started in its life.
fn is_unread(history: History) -> bool {
    history.state == State::Pending && history.deliveries == 0
}

/// Whether a run of this history may span offsets without a message.
fn is_sparse(history: History) -> bool {
    history.state.is_confirmed() || is_unread(history)
}

/// The parts of a span with the gaps between them filled.
fn filled(span: Span, parts: &[Run], fill: impl Fn(Span) -> Run) -> Vec<Run> {
    let mut all = Vec::with_capacity(parts.len() + 1);
    let mut from = span.first;
    for part in parts {
        all.extend(Span::new(from, part.span.first).map(&fill));
        all.push(*part);
        from = part.span.end;
    }
    all.extend(Span::new(from, span.end).map(&fill));
    all
}

/// Widens runs until they cover the whole span: a gap goes to the run before it.
fn stretch(span: Span, runs: &mut [Run]) {
    let mut end = span.end;
    for run in runs.iter_mut().rev() {
        run.span.end = end;
        end = run.span.first;
    }
    if let Some(first) = runs.first_mut() {
        first.span.first = span.first;
    }
}

/// A part of a run. Its count is exact where the run is dense and an estimate elsewhere, chosen so
/// that the counts of a run's parts always add up to the count of the run.
fn part_of(run: Run, span: Span) -> Run {
    let below = |offset: u64| {
        let share = u128::from(run.count) * u128::from(offset - run.span.first);
        u64::try_from(share / u128::from(run.span.len())).expect("a share is at most the count")
    };
    Run { span, count: below(span.end) - below(span.first), history: run.history }
}
