//! What a slot sent in its open transaction, and whose outputs were refused of it.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use countersign_statemachine::worker::Refusal;
use countersign_statemachine::{PartitionId, Span};

use crate::kafka::Refused;

use super::results::Results;

/// What was sent in the open transaction: for each part the number of its first output, whose
/// messages it is of, their results and which of the outputs.
#[derive(Debug, Default)]
pub(super) struct Sent {
    parts: Vec<(u64, PartitionId, Arc<Results>, Range<usize>)>,
    outputs: u64,
}

impl Sent {
    pub(super) fn note(&mut self, id: PartitionId, results: &Arc<Results>, places: Range<usize>) {
        let first = self.outputs;
        self.outputs += places.len() as u64;
        self.parts.push((first, id, Arc::clone(results), places));
    }

    /// Whose output has this number.
    fn message_of(&self, number: u64) -> Option<(PartitionId, u64)> {
        let nth = self.parts.partition_point(|(first, ..)| *first <= number).checked_sub(1)?;
        let (first, id, results, places) = self.parts.get(nth)?;
        let place = places.start + usize::try_from(number - first).ok()?;
        Some((*id, results.message_of(place).filter(|_| place < places.end)?))
    }

    /// Whose outputs were refused; `None` if nobody is known to be.
    pub(super) fn refusal(&self, refused: &Refused) -> Option<Refusal> {
        let messages = |numbers: &[u64]| -> BTreeSet<(PartitionId, u64)> {
            numbers.iter().filter_map(|number| self.message_of(*number)).collect()
        };
        let (named, among) = (messages(&refused.named), messages(&refused.among));
        if !named.is_empty() {
            return Some(Refusal::Of(named.into_iter().collect()));
        }
        let among = among.into_iter().map(|(id, offset)| (id, Span::one(offset)));
        Some(Refusal::Among(among.collect())).filter(|_| !refused.among.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::super::budget::Budget;
    use super::*;
    use crate::kafka::Output;

    const P: PartitionId = PartitionId(0);
    const Q: PartitionId = PartitionId(1);

    /// One message with so many outputs.
    fn results(offset: u64, outputs: usize) -> Arc<Results> {
        let output = Output {
            topic: "out".into(),
            partition: 0,
            key: None,
            value: None,
            headers: Vec::new(),
            timestamp: None,
        };
        let share = Budget::new(100_000).share();
        Arc::new(Results::of(offset, vec![output; outputs], &share))
    }

    #[test]
    fn outputs_are_of_the_messages_that_they_were_sent_for() {
        let mut sent = Sent::default();
        sent.note(P, &results(5, 2), 0..2);
        sent.note(P, &results(6, 0), 0..0);
        sent.note(Q, &results(5, 3), 0..3);
        let messages: Vec<_> = (0..6).map(|number| sent.message_of(number)).collect();
        let expected = [Some((P, 5)), Some((P, 5)), Some((Q, 5)), Some((Q, 5)), Some((Q, 5)), None];
        assert_eq!(messages, expected);
    }

    #[test]
    fn who_is_named_is_to_blame_and_nobody_else() {
        let mut sent = Sent::default();
        sent.note(P, &results(5, 2), 0..2);
        sent.note(Q, &results(7, 2), 0..2);
        let refused = |named: &[u64], among: &[u64]| {
            sent.refusal(&Refused { named: named.to_vec(), among: among.to_vec() })
        };
        assert_eq!(refused(&[], &[]), None);
        assert_eq!(refused(&[2, 3], &[0]), Some(Refusal::Of(vec![(Q, 7)])));
        let among = vec![(P, Span::one(5)), (Q, Span::one(7))];
        assert_eq!(refused(&[], &[1, 2]), Some(Refusal::Among(among)));
    }
}
