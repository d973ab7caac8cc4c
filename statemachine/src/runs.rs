//! The record of one partition, run-length coded: offsets to histories.
//!
//! Invariants: runs do not overlap; a run that is not confirmed is dense (its count is its length);
//! a confirmed run may span offsets without a message (control records, compacted ones), so that
//! its count may be smaller than its length; touching runs of the same history are one run.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::span::Span;
use crate::state::{History, State};
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
    /// Rebuilds the record from stored runs. Of overlapping ones, the one read first stands, so that
    /// a damaged store cannot break the invariants.
    pub fn restore(stored: impl IntoIterator<Item = Run>) -> Self {
        let mut runs = Self::default();
        for run in stored {
            let free = runs.at(run.span.first).is_none()
                && runs.next_first(run.span.first).is_none_or(|next| next >= run.span.end);
            if free {
                let body = Body { end: run.span.end, count: run.count, history: run.history };
                runs.runs.insert(run.span.first, body);
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
    /// `Start` begins a history where there is none. `Committed` and `FoundDone` close gaps: the
    /// caller vouches that the span holds no message but the recorded ones, so that it becomes one
    /// confirmed run. Other events must find a history everywhere in the span.
    ///
    /// # Errors
    /// Nothing was changed; see [`ApplyError`].
    pub fn apply(&mut self, span: Span, event: Event) -> Result<(), ApplyError> {
        let parts = self.parts(span);
        let next = match event {
            Event::Start => Self::started(span, &parts)?,
            Event::Committed(_) | Event::FoundDone(_) => Self::closed(span, &parts, event)?,
            Event::ReplyLost | Event::RolledBack(_) | Event::Again | Event::Rewound => {
                Self::moved(span, &parts, event)?
            }
        };
        self.replace(span, &next);
        Ok(())
    }

    /// The recorded parts of a span, cut to it.
    fn parts(&self, span: Span) -> Vec<Run> {
        let cut = |run: Run| {
            let kept = run.span.intersect(span)?;
            Some(Run { span: kept, count: share(run, kept), history: run.history })
        };
        self.overlapping(span).into_iter().filter_map(cut).collect()
    }

    fn started(span: Span, parts: &[Run]) -> Result<Vec<Run>, ApplyError> {
        let mut next = Vec::with_capacity(parts.len() + 1);
        let mut from = span.first;
        let absent = |first, end| {
            let span = Span::new(first, end)?;
            Some(Run { span, count: span.len(), history: History::NEW })
        };
        for part in parts {
            next.extend(absent(from, part.span.first));
            next.push(*part);
            from = part.span.end;
        }
        next.extend(absent(from, span.end));
        next.iter().map(|part| step(*part, Event::Start)).collect()
    }

    fn closed(span: Span, parts: &[Run], event: Event) -> Result<Vec<Run>, ApplyError> {
        let mut next: Vec<Run> = Vec::with_capacity(parts.len());
        for part in parts {
            let done = if part.history.state.is_confirmed() { *part } else { step(*part, event)? };
            next.push(done);
        }
        // Nothing recorded: the span holds no message that this store has seen.
        if next.is_empty() {
            next.push(Run { span, count: 0, history: confirmed_by(event) });
        }
        stretch(span, &mut next);
        Ok(next)
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
                self.insert(Run { span: kept, count: share(old, kept), history: old.history });
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

    /// Inserts a run and joins it with touching ones of the same history.
    fn insert(&mut self, run: Run) {
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
        self.touched.insert(joined.span.first);
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

/// The history of a span that is done although this store has seen no message in it.
fn confirmed_by(event: Event) -> History {
    match event {
        Event::FoundDone(outcome) => History { state: State::Confirmed(outcome), ..History::NEW },
        Event::Committed(_)
        | Event::Start
        | Event::ReplyLost
        | Event::RolledBack(_)
        | Event::Again
        | Event::Rewound => History::CLEAN,
    }
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

/// How many messages of a run lie in a part of it: exact where the run is dense, and for a confirmed
/// run with gaps (which only an operator's rewind ever splits) the proportional share.
fn share(run: Run, part: Span) -> u64 {
    if run.count == run.span.len() || run.span == part {
        return run.count.min(part.len());
    }
    let share = u128::from(run.count) * u128::from(part.len()) / u128::from(run.span.len());
    u64::try_from(share).unwrap_or(u64::MAX)
}
