//! The outputs of handled messages, and which message each is of.

use std::ops::Range;
use std::sync::Arc;

use countersign_statemachine::Span;

use crate::kafka::Output;

use super::budget::Share;
use super::meter::Charge;

/// The outputs of messages of one lane, ready to be sent, and to be sent again.
#[derive(Debug)]
pub(crate) struct Results {
    index: Index,
    outputs: Arc<Vec<Output>>,
    charge: Charge,
}

/// The same while messages are still being handled.
#[derive(Debug, Default)]
pub(crate) struct Draft {
    index: Index,
    pub(super) outputs: Vec<Output>,
}

/// Where the outputs of each message are.
#[derive(Debug, Default)]
struct Index {
    /// The messages, in order, each span with how many messages there are before it.
    spans: Vec<(Span, usize)>,
    /// Where the outputs of each message end.
    ends: Vec<usize>,
}

impl Index {
    fn push(&mut self, offset: u64, end: usize) {
        match self.spans.last_mut() {
            Some((span, _)) if span.end == offset => span.end += 1,
            _ => self.spans.push((Span::one(offset), self.ends.len())),
        }
        self.ends.push(end);
    }

    /// How many messages there are before `offset`.
    fn before(&self, offset: u64) -> usize {
        let nth = self.spans.partition_point(|(span, _)| span.end <= offset);
        self.spans.get(nth).map_or(self.ends.len(), |(span, before)| {
            let after_first = usize::try_from(offset.saturating_sub(span.first));
            after_first.map_or(usize::MAX, |after_first| before + after_first)
        })
    }

    /// Where the outputs of so many messages end.
    fn end_of(&self, messages: usize) -> usize {
        let last = messages.checked_sub(1).and_then(|last| self.ends.get(last));
        last.copied().unwrap_or(0)
    }
}

impl Draft {
    /// Whether no message is done.
    pub(super) fn is_empty(&self) -> bool {
        self.index.ends.is_empty()
    }

    /// The message at `offset` is done; what was added since the one before is its outputs.
    pub(super) fn push(&mut self, offset: u64) {
        self.index.push(offset, self.outputs.len());
    }

    pub(super) fn finish(self, charge: Charge) -> Results {
        Results { index: self.index, outputs: Arc::new(self.outputs), charge }
    }
}

impl Results {
    /// One message with these outputs.
    pub(super) fn of(offset: u64, outputs: Vec<Output>, share: &Share) -> Self {
        let charge = Charge::of(share, &outputs);
        let mut draft = Draft { outputs, ..Draft::default() };
        draft.push(offset);
        draft.finish(charge)
    }

    /// How many messages there are.
    pub(super) fn messages(&self) -> usize {
        self.index.ends.len()
    }

    /// What they take of the budget.
    pub(super) fn bytes(&self) -> usize {
        self.charge.bytes()
    }

    /// What those of some of the messages take, about.
    pub(super) fn bytes_of(&self, messages: Span) -> usize {
        let some = self.index.before(messages.end) - self.index.before(messages.first);
        self.bytes() / self.messages().max(1) * some
    }

    /// The messages.
    pub(super) fn spans(&self) -> impl Iterator<Item = Span> + '_ {
        self.index.spans.iter().map(|(span, _)| *span)
    }

    /// All outputs, in order.
    pub(super) fn outputs(&self) -> &Arc<Vec<Output>> {
        &self.outputs
    }

    /// Where among them those of these messages are.
    pub(super) fn places(&self, messages: Span) -> Range<usize> {
        let end_before = |offset| self.index.end_of(self.index.before(offset));
        end_before(messages.first)..end_before(messages.end)
    }

    /// Which message the output at a place is of.
    pub(super) fn message_of(&self, place: usize) -> Option<u64> {
        let Index { spans, ends } = &self.index;
        let nth = ends.partition_point(|end| *end <= place);
        let (span, before) = spans.iter().rev().find(|(_, before)| *before <= nth)?;
        let offset = span.first + u64::try_from(nth - before).ok()?;
        span.contains(offset).then_some(offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Messages with so many outputs each.
    fn results(messages: &[(u64, usize)]) -> Results {
        let output = Output {
            topic: "out".into(),
            partition: 0,
            key: None,
            value: None,
            headers: Vec::new(),
            timestamp: None,
        };
        let mut draft = Draft::default();
        for &(offset, outputs) in messages {
            let end = draft.outputs.len() + outputs;
            draft.outputs.resize(end, output.clone());
            draft.push(offset);
        }
        draft.finish(Charge::default())
    }

    #[test]
    fn outputs_are_found_by_messages_over_gaps() {
        let results = results(&[(5, 2), (6, 0), (9, 1), (10, 3), (20, 1)]);
        let places = |first, end| results.places(Span { first, end });
        assert_eq!(places(5, 6), 0..2);
        assert_eq!(places(9, 11), 2..6);
        assert_eq!(places(0, 100), 0..7);
        assert_eq!(places(10, 20), 3..6);
        for (first, end) in [(0, 5), (6, 7), (7, 9), (11, 20), (21, 30)] {
            assert!(places(first, end).is_empty(), "{first} to {end}");
        }
    }

    #[test]
    fn messages_are_found_by_outputs() {
        let results = results(&[(5, 2), (6, 0), (9, 1), (10, 3), (20, 1)]);
        let messages: Vec<_> = (0..7).map(|place| results.message_of(place)).collect();
        assert_eq!(messages, [5, 5, 9, 10, 10, 10, 20].map(Some));
        assert_eq!(results.message_of(7), None);
    }
}
