//! What the results of handlers take of the budget, counted as they are made.
//!
//! Their size is known only then. So a run asks before each message, and keeps room for results as
//! large as the last ones were; where there is none it stops, and goes on once others are
//! committed.

use crate::kafka::{Batch, Output};

use super::budget::Share;

/// What each further output of a message costs beyond its bytes.
const OUTPUT_OVERHEAD: usize = 300;

/// Results are counted once they are so many bytes, or a small part of the budget: not each.
const GRAIN_BYTES: usize = 16 << 10;

/// What results take, until they are dropped, wherever that is.
#[derive(Debug, Default)]
pub(crate) struct Charge {
    share: Option<Share>,
    bytes: usize,
}

impl Charge {
    /// For the outputs of one message.
    pub(super) fn of(share: &Share, outputs: &[Output]) -> Self {
        let bytes = bytes_of(outputs, |_| false);
        share.take_results(bytes);
        Self { share: Some(share.clone()), bytes }
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        if let Some(share) = self.share.as_ref().filter(|_| self.bytes > 0) {
            share.give_results_back(self.bytes);
        }
    }
}

/// Counts what the results of a run take, and says when there is no room for more.
#[derive(Debug)]
pub(crate) struct Meter {
    share: Share,
    /// Whether the run goes on whatever its results take.
    at_any_cost: bool,
    /// What the results of a message take, about; less than a grain counts once it is there.
    expected: usize,
    grain: usize,
    /// The batches that the messages are in: outputs that are slices of them take nothing more.
    first: Option<Batch>,
    others: Vec<Batch>,
    /// What is made and not counted.
    uncounted: usize,
    /// What is counted and not taken.
    made: usize,
    /// What is counted for messages that are being handled.
    reserved: usize,
}

impl Meter {
    pub(crate) fn new(
        share: &Share,
        batches: &[(Batch, usize)],
        expected: usize,
        at_any_cost: bool,
    ) -> Self {
        let grain = share.whole().grain(GRAIN_BYTES);
        let mut batches = batches.iter().map(|(batch, _)| batch.clone());
        Self {
            share: share.clone(),
            at_any_cost,
            expected: if expected < grain { 0 } else { expected },
            grain,
            first: batches.next(),
            others: batches.collect(),
            uncounted: 0,
            made: 0,
            reserved: 0,
        }
    }

    /// Whether so many messages may be handled now; then there is room kept for their results.
    pub(super) fn reserve(&mut self, messages: usize) -> bool {
        let has_room = self.share.has_room(self.uncounted.saturating_add(self.expected), false);
        if !has_room && !self.at_any_cost {
            return false;
        }
        let bytes = self.expected.saturating_mul(messages);
        if bytes > 0 {
            self.share.take_results(bytes);
            self.reserved += bytes;
        }
        true
    }

    /// A message has these outputs.
    pub(super) fn count(&mut self, outputs: &[Output]) {
        let (first, others) = (&self.first, &self.others);
        self.uncounted +=
            bytes_of(outputs, |data| first.iter().chain(others).any(|batch| batch.holds(data)));
        if self.reserved > 0 || self.uncounted >= self.grain {
            self.settle(self.expected.min(self.reserved));
        }
    }

    /// Counts what is made, in the place of what was kept for it.
    fn settle(&mut self, kept: usize) {
        let made = std::mem::take(&mut self.uncounted);
        self.made += made;
        self.reserved -= kept;
        if made > kept {
            self.share.take_results(made - kept);
        } else if kept > made {
            self.share.give_results_back(kept - made);
        }
    }

    /// What was made since it was taken last.
    pub(super) fn take(&mut self) -> Charge {
        self.settle(0);
        Charge { share: Some(self.share.clone()), bytes: std::mem::take(&mut self.made) }
    }

    /// Gives back what is kept for messages that did not end well, and what is not taken.
    pub(super) fn give_back(&mut self) {
        let rest = std::mem::take(&mut self.made) + std::mem::take(&mut self.reserved);
        if rest > 0 {
            self.share.give_results_back(rest);
        }
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.give_back();
    }
}

fn bytes_of(outputs: &[Output], is_lent: impl Fn(&[u8]) -> bool) -> usize {
    let mut bytes = outputs.len().saturating_sub(1) * OUTPUT_OVERHEAD;
    for output in outputs {
        for data in [&output.key, &output.value].into_iter().flatten() {
            bytes += if is_lent(data) { 0 } else { data.len() };
        }
        for header in &output.headers {
            bytes += header.name.len() + header.value.as_ref().map_or(0, bytes::Bytes::len);
        }
    }
    bytes
}
