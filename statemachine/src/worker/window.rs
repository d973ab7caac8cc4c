//! The unfinished offsets of one partition, and how far each is.
//!
//! Invariants: pieces do not overlap and are dense (every offset is a message); touching pieces of
//! the same phase are one piece. Offsets between pieces hold no message.

use std::collections::BTreeMap;

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

#[derive(Debug, Default)]
pub(crate) struct Window {
    pieces: BTreeMap<u64, Body>,
}

impl Window {
    pub(crate) fn iter(&self) -> impl Iterator<Item = Piece> + '_ {
        self.pieces
            .iter()
            .map(|(&first, body)| Piece { span: Span { first, end: body.end }, phase: body.phase })
    }

    /// How many messages it holds.
    pub(crate) fn messages(&self) -> u64 {
        self.iter().map(|piece| piece.span.len()).sum()
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
        }
        if let Some(body) = self.pieces.get(&span.end)
            && body.phase == phase
        {
            joined.end = body.end;
            self.pieces.remove(&span.end);
        }
        self.pieces.insert(joined.first, Body { end: joined.end, phase });
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
            let Some(body) = self.pieces.remove(&first) else { continue };
            if first < span.first {
                self.pieces.insert(first, Body { end: span.first, phase: body.phase });
            }
            if body.end > span.end {
                self.pieces.insert(span.end, body);
            }
        }
    }

    /// Forgets everything below `offset`.
    pub(crate) fn forget_below(&mut self, offset: u64) {
        if let Some(span) = Span::new(0, offset) {
            self.clear(span);
        }
    }

    /// The lowest offset that is not done once transactions up to `number` are committed.
    pub(crate) fn lowest_unfinished(&self, number: u64) -> Option<u64> {
        let unfinished = |(_, body): &(&u64, &Body)| !body.phase.done_with(number);
        self.pieces.iter().find(unfinished).map(|(&first, _)| first)
    }

    /// What is done at or above `position` once transactions up to `number` are committed. Spans
    /// with nothing but a gap between them are one.
    pub(crate) fn completed(&self, position: u64, number: u64) -> Vec<Span> {
        let mut completed: Vec<Span> = Vec::new();
        let mut joins = false;
        for piece in self.iter() {
            // The position may lie within a piece: reading has got that far.
            let Some(open) = Span::new(piece.span.first.max(position), piece.span.end) else {
                continue;
            };
            let done = piece.phase.done_with(number);
            match completed.last_mut() {
                Some(last) if done && joins => last.end = open.end,
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
