//! The unfinished offsets of one partition, and how far each is.
//!
//! Invariants: pieces do not overlap and are dense (every offset is a message); touching pieces of
//! the same phase are one piece. Offsets between pieces hold no message. What is counted is counted
//! as pieces come and go, so that no question about the whole needs a walk through it.

use std::collections::{BTreeMap, BTreeSet};

use crate::span::Span;

/// How far a message is within this process. Only `Done` outlives an abort.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// It was read and waits for admission.
    Received,
    /// Its `Start` is part of store write `write`, which is not flushed yet.
    Admitting { write: u64 },
    /// Signed in; its handler may run.
    Ready,
    /// Its handler runs.
    Running,
    /// It failed and waits until its retry is due.
    Waiting,
    /// Its outputs are at hand.
    Finished,
    /// Its outputs are part of transaction `number`.
    Sent { number: u64 },
    /// It is done, though an earlier message is not.
    Done,
}

impl Phase {
    const KINDS: usize = 8;

    fn kind(self) -> usize {
        match self {
            Self::Received => 0,
            Self::Admitting { .. } => 1,
            Self::Ready => 2,
            Self::Running => 3,
            Self::Waiting => 4,
            Self::Finished => 5,
            Self::Sent { .. } => 6,
            Self::Done => 7,
        }
    }

    /// Whether its handler has yet to end well.
    pub(crate) fn is_open(self) -> bool {
        self == Self::Received || self.is_under_way()
    }

    /// Whether it is signed in and its handler has yet to end well.
    pub(crate) fn is_under_way(self) -> bool {
        match self {
            Self::Admitting { .. } | Self::Ready | Self::Running | Self::Waiting => true,
            Self::Received | Self::Finished | Self::Sent { .. } | Self::Done => false,
        }
    }

    /// Whether the message is done once transactions up to `number` are committed.
    fn done_with(self, number: u64) -> bool {
        match self {
            Self::Done => true,
            Self::Sent { number: sent } => sent <= number,
            Self::Received
            | Self::Admitting { .. }
            | Self::Ready
            | Self::Running
            | Self::Waiting
            | Self::Finished => false,
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Body {
    end: u64,
    phase: Phase,
}

/// Messages in one phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) span: Span,
    pub(crate) phase: Phase,
}

/// What there is of one kind of phase.
#[derive(Debug, Clone, Copy, Default)]
struct Tally {
    messages: u64,
    /// Pieces that no piece of the same phase precedes, gaps aside.
    groups: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Window {
    pieces: BTreeMap<u64, Body>,
    tallies: [Tally; Phase::KINDS],
    /// Where the finished pieces begin.
    finished: BTreeSet<u64>,
}

impl Window {
    pub(crate) fn iter(&self) -> impl Iterator<Item = Piece> + '_ {
        self.pieces
            .iter()
            .map(|(&first, body)| Piece { span: Span { first, end: body.end }, phase: body.phase })
    }

    /// How many messages it holds.
    pub(crate) fn messages(&self) -> u64 {
        self.tallies.iter().map(|tally| tally.messages).sum()
    }

    /// How many messages are in a phase of this kind, whatever its number.
    pub(crate) fn count(&self, phase: Phase) -> u64 {
        self.tally(phase).messages
    }

    /// How many runs of messages are in a phase of this kind; those of another number are others.
    pub(crate) fn groups(&self, phase: Phase) -> u64 {
        self.tally(phase).groups
    }

    fn tally(&self, phase: Phase) -> Tally {
        self.tallies.get(phase.kind()).copied().unwrap_or_default()
    }

    /// The piece that holds a message.
    pub(crate) fn at(&self, offset: u64) -> Option<Piece> {
        let (&first, body) = self.pieces.range(..=offset).next_back()?;
        let span = Span { first, end: body.end };
        span.contains(offset).then_some(Piece { span, phase: body.phase })
    }

    /// The spans whose results are at hand and in no transaction, in order.
    pub(crate) fn finished(&self) -> impl Iterator<Item = Span> + '_ {
        self.finished.iter().filter_map(|first| {
            let body = self.pieces.get(first)?;
            Some(Span { first: *first, end: body.end })
        })
    }

    /// The spans in a phase, in order.
    pub(crate) fn spans(&self, wanted: impl Fn(Phase) -> bool) -> Vec<Span> {
        self.iter().filter(|piece| wanted(piece.phase)).map(|piece| piece.span).collect()
    }

    pub(crate) fn any(&self, wanted: impl Fn(Phase) -> bool) -> bool {
        self.pieces.values().any(|body| wanted(body.phase))
    }

    /// Sets the phase of a span, whatever was there before.
    pub(crate) fn set(&mut self, span: Span, phase: Phase) {
        self.clear(span);
        let mut joined = span;
        if let Some((&first, body)) = self.pieces.range(..span.first).next_back()
            && body.end == span.first
            && body.phase == phase
        {
            joined.first = first;
            self.remove(first);
        }
        if let Some(body) = self.pieces.get(&span.end)
            && body.phase == phase
        {
            joined.end = body.end;
            self.remove(span.end);
        }
        self.insert(joined.first, Body { end: joined.end, phase });
    }

    fn insert(&mut self, first: u64, body: Body) {
        self.count_group_after(first, false);
        self.pieces.insert(first, body);
        if let Some(tally) = self.tallies.get_mut(body.phase.kind()) {
            tally.messages += body.end - first;
        }
        if body.phase == Phase::Finished {
            self.finished.insert(first);
        }
        self.count_group(first, true);
        self.count_group_after(first, true);
    }

    fn remove(&mut self, first: u64) -> Option<Body> {
        self.count_group(first, false);
        self.count_group_after(first, false);
        let body = self.pieces.remove(&first);
        if let Some(body) = body
            && let Some(tally) = self.tallies.get_mut(body.phase.kind())
        {
            tally.messages -= body.end - first;
            self.finished.remove(&first);
        }
        self.count_group_after(first, true);
        body
    }

    /// Counts the piece that begins at `first` where it begins a group, or no longer counts it.
    fn count_group(&mut self, first: u64, counts: bool) {
        let Some(phase) = self.pieces.get(&first).map(|body| body.phase) else { return };
        let before = self.pieces.range(..first).next_back().map(|(_, body)| body.phase);
        if before == Some(phase) {
            return;
        }
        if let Some(tally) = self.tallies.get_mut(phase.kind()) {
            if counts {
                tally.groups += 1;
            } else {
                tally.groups -= 1;
            }
        }
    }

    fn count_group_after(&mut self, first: u64, counts: bool) {
        let after = self.pieces.range(first + 1..).next().map(|(&after, _)| after);
        if let Some(after) = after {
            self.count_group(after, counts);
        }
    }

    /// Changes the phase of every piece that `change` gives a new one for.
    pub(crate) fn change(&mut self, change: impl Fn(Phase) -> Option<Phase>) -> Vec<Span> {
        let changed: Vec<(Span, Phase)> =
            self.iter().filter_map(|piece| Some((piece.span, change(piece.phase)?))).collect();
        for &(span, phase) in &changed {
            self.set(span, phase);
        }
        changed.into_iter().map(|(span, _)| span).collect()
    }

    fn clear(&mut self, span: Span) {
        let from = match self.pieces.range(..=span.first).next_back() {
            Some((&first, body)) if body.end > span.first => first,
            _ => span.first,
        };
        let hit: Vec<u64> = self.pieces.range(from..span.end).map(|(&first, _)| first).collect();
        for first in hit {
            let Some(body) = self.remove(first) else { continue };
            if first < span.first {
                self.insert(first, Body { end: span.first, phase: body.phase });
            }
            if body.end > span.end {
                self.insert(span.end, body);
            }
        }
    }

    /// Forgets what is in one of these phases from `offset` on.
    pub(crate) fn forget_from(&mut self, offset: u64, wanted: impl Fn(Phase) -> bool) {
        let from = self.at(offset).map_or(offset, |piece| piece.span.first);
        let pieces = self.pieces.range(from..).filter(|(_, body)| wanted(body.phase));
        let spans = pieces.filter_map(|(&first, body)| Span::new(first.max(offset), body.end));
        for span in spans.collect::<Vec<_>>() {
            self.clear(span);
        }
    }

    /// The end of the last message in one of these phases that begins below `offset`.
    pub(crate) fn last_below(&self, offset: u64, wanted: impl Fn(Phase) -> bool) -> Option<u64> {
        let mut pieces = self.pieces.range(..offset).rev();
        pieces.find(|(_, body)| wanted(body.phase)).map(|(_, body)| body.end)
    }

    /// The first message from `offset` on in one of these phases.
    pub(crate) fn first_from(&self, offset: u64, wanted: impl Fn(Phase) -> bool) -> Option<u64> {
        let from = self.at(offset).map_or(offset, |piece| piece.span.first);
        let mut pieces = self.pieces.range(from..);
        pieces.find(|(_, body)| wanted(body.phase)).map(|(&first, _)| first.max(offset))
    }

    /// Forgets everything below `offset`.
    pub(crate) fn forget_below(&mut self, offset: u64) {
        if let Some(span) = Span::new(0, offset) {
            self.clear(span);
        }
    }

    /// The first message in a phase.
    pub(crate) fn first(&self, wanted: impl Fn(Phase) -> bool) -> Option<u64> {
        self.pieces.iter().find(|(_, body)| wanted(body.phase)).map(|(&first, _)| first)
    }

    /// The lowest offset that is not done once transactions up to `number` are committed.
    pub(crate) fn lowest_unfinished(&self, number: u64) -> Option<u64> {
        let unfinished = |(_, body): &(&u64, &Body)| !body.phase.done_with(number);
        self.pieces.iter().find(unfinished).map(|(&first, _)| first)
    }

    /// What is done at or above `position` once transactions up to `number` are committed. Spans
    /// with nothing but a gap between them are one, as far as was `read`: beyond that, what looks
    /// like a gap may be a message.
    pub(crate) fn completed(&self, position: u64, number: u64, read: u64) -> Vec<Span> {
        let mut completed: Vec<Span> = Vec::new();
        let mut joins = false;
        for piece in self.iter() {
            // The position may lie within a piece: reading has got that far.
            let Some(open) = Span::new(piece.span.first.max(position), piece.span.end) else {
                continue;
            };
            let done = piece.phase.done_with(number);
            match completed.last_mut() {
                Some(last) if done && joins && open.first <= read.max(last.end) => {
                    last.end = open.end;
                }
                _ if done => completed.push(open),
                _ => {}
            }
            joins = done;
        }
        completed
    }

    /// The spans of transaction `number`, each widened over the gap that follows it: up to the next
    /// message, but not beyond the `position` that it commits. A gap after what is done already is
    /// a span of its own, without messages.
    pub(crate) fn widened(&self, number: u64, position: u64) -> Vec<(Span, u64)> {
        let mut widened: Vec<(Span, u64)> = Vec::new();
        let mut pieces = self.iter().peekable();
        while let Some(Piece { span, phase }) = pieces.next() {
            let next = pieces.peek().map_or(position, |next| next.span.first);
            let end = next.min(position).max(span.end);
            let (first, messages) = match phase {
                Phase::Sent { number: sent } if sent == number => (span.first, span.len()),
                Phase::Done => (span.end, 0),
                Phase::Received
                | Phase::Admitting { .. }
                | Phase::Ready
                | Phase::Running
                | Phase::Waiting
                | Phase::Finished
                | Phase::Sent { .. } => continue,
            };
            match widened.last_mut() {
                Some((last, counted)) if last.end == first => {
                    last.end = end;
                    *counted += messages;
                }
                _ => widened.extend(Span::new(first, end).map(|span| (span, messages))),
            }
        }
        widened
    }
}

#[cfg(test)]
#[path = "window_test.rs"]
mod tests;
