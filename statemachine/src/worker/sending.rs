//! Which finished messages of a partition a transaction takes.

use std::collections::BTreeSet;

use crate::settings::Settings;
use crate::span::Span;

use super::partition::{Partition, Room, Tenure};
use super::window::Phase;

/// Which of the finished messages are meant.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Pick<'a> {
    /// All of them.
    All,
    /// All but these.
    Without(&'a [Span]),
    /// These alone.
    Only(&'a [Span]),
}

impl Pick<'_> {
    /// The first part of a span that is meant; `None` if its first message is not.
    fn first_of(self, span: Span) -> Option<Span> {
        match self {
            Self::All => Some(span),
            Self::Without(others) => {
                let next = others.get(others.partition_point(|other| other.end <= span.first));
                Span::new(span.first, next.map_or(span.end, |next| next.first.min(span.end)))
            }
            Self::Only(others) => {
                let holds = others.get(others.partition_point(|other| other.end <= span.first));
                holds.filter(|other| other.contains(span.first))?.intersect(span)
            }
        }
    }
}

impl Partition {
    /// What is finished and not preceded by an open message of its lane: an output may not overtake
    /// that of an earlier message.
    fn free(&self) -> impl Iterator<Item = (u64, Span)> + '_ {
        let parts = self.window.finished().flat_map(|span| self.lanes.of(span));
        parts.filter(|(lane, span)| {
            self.lanes.first_open(*lane).is_none_or(|first| span.first < first)
        })
    }

    /// Those of them that are meant. What is left out holds up what follows it in its lane.
    fn picked<'a>(&'a self, pick: Pick<'a>) -> impl Iterator<Item = Span> + 'a {
        let mut held_up = BTreeSet::new();
        self.free().filter_map(move |(lane, span)| {
            if held_up.contains(&lane) {
                return None;
            }
            let part = pick.first_of(span);
            if part != Some(span) {
                held_up.insert(lane);
            }
            part
        })
    }

    /// Up to `limit` messages that can be sent.
    fn sendable(&self, limit: u64, pick: Pick<'_>) -> Vec<Span> {
        let mut left = limit;
        let mut spans: Vec<Span> = Vec::new();
        for span in self.picked(pick) {
            let end = span.end.min(span.first.saturating_add(left));
            let Some(part) = Span::new(span.first, end) else { break };
            left -= part.len();
            part.append_to(&mut spans);
        }
        spans
    }

    /// Those of them that nothing open precedes at all: they move the position.
    fn leading(&self, limit: u64, pick: Pick<'_>) -> Vec<Span> {
        let mut left = limit;
        let mut spans = Vec::new();
        for piece in self.window.iter().take_while(|piece| !piece.phase.is_open()) {
            if piece.phase == Phase::Finished {
                let Some(picked) = pick.first_of(piece.span) else { break };
                let end = picked.end.min(picked.first.saturating_add(left));
                let Some(part) = Span::new(picked.first, end) else { break };
                left -= part.len();
                spans.push(part);
                if part != piece.span {
                    break;
                }
            }
        }
        spans
    }

    /// Takes up to `limit` finished messages into transaction `number`.
    pub(crate) fn take_finished(
        &mut self,
        number: u64,
        (limit, pick): (u64, Pick<'_>),
        settings: &Settings,
    ) -> Vec<Span> {
        if self.tenure == Tenure::Abandoned || self.window.count(Phase::Finished) == 0 {
            return Vec::new();
        }
        if self.room == Room::Enough {
            let spans = self.sendable(limit, pick);
            self.set_all(&spans, Phase::Sent { number });
            if self.fits(0, 0, settings) {
                return spans;
            }
            self.set_all(&spans, Phase::Finished);
            self.room = Room::Spent;
        }
        let spans = self.leading(limit, pick);
        self.set_all(&spans, Phase::Sent { number });
        spans
    }

    fn set_all(&mut self, spans: &[Span], phase: Phase) {
        for span in spans {
            self.window.set(*span, phase);
        }
    }

    /// Whether a message could be sent.
    pub(crate) fn has_finished(&self) -> bool {
        self.can_send(Pick::All)
    }

    /// Whether one of these messages could be sent.
    pub(crate) fn can_send(&self, pick: Pick<'_>) -> bool {
        let leads = || !self.leading(1, pick).is_empty();
        self.tenure != Tenure::Abandoned
            && self.window.count(Phase::Finished) > 0
            && (leads() || self.room == Room::Enough && self.picked(pick).next().is_some())
    }
}
