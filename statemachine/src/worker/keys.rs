//! The lane of each message from the position on, in `order = key`; of those that are done, not for
//! long.

use std::collections::VecDeque;

use crate::span::Span;

use super::window::{Phase, Window};

/// So many lanes of messages that are done may always be known.
const FEW: u64 = 1_024;

/// Offsets with their lanes, in order.
#[derive(Debug, Default)]
pub(crate) struct Keys(VecDeque<(u64, u64)>);

impl Keys {
    /// Takes in messages that were read, from an offset on, with a lane for each.
    pub(super) fn note(&mut self, spans: &[Span], keys: &[u64], from: u64) {
        let offsets = spans.iter().flat_map(|span| span.first..span.end);
        let unseen = offsets.zip(keys).filter(|(at, _)| *at >= from);
        self.0.extend(unseen.map(|(at, &key)| (at, key)));
    }

    pub(super) fn forget_below(&mut self, offset: u64) {
        while self.0.front().is_some_and(|(at, _)| *at < offset) {
            self.0.pop_front();
        }
    }

    /// Forgets those that are to be read again.
    pub(super) fn forget_from(&mut self, offset: u64) {
        let kept = self.0.partition_point(|(at, _)| *at < offset);
        self.0.truncate(kept);
    }

    /// Forgets what is done beyond the position, once that is the most of what is known: behind a
    /// message that never ends there may be any number of others.
    pub(super) fn forget_done(&mut self, window: &Window) {
        let undone = window.messages() - window.count(Phase::Done);
        if self.0.len() as u64 <= 2 * undone + FEW {
            return;
        }
        let is_done = |at: u64| window.at(at).is_some_and(|piece| piece.phase == Phase::Done);
        self.0.retain(|(at, _)| !is_done(*at));
        self.0.shrink_to(2 * self.0.len());
    }

    /// The first messages of a span that are neighbours in one lane, with that.
    pub(super) fn first_of(&self, span: Span) -> Option<(u64, Span)> {
        let nth = self.0.partition_point(|(at, _)| *at < span.first);
        let &(first, lane) = self.0.get(nth).filter(|(at, _)| *at < span.end)?;
        let mut part = Span::one(first);
        for &(at, key) in self.0.range(nth + 1..) {
            if key != lane || at != part.end || at >= span.end {
                break;
            }
            part.end += 1;
        }
        Some((lane, part))
    }
}

#[cfg(test)]
#[path = "keys_test.rs"]
mod tests;
