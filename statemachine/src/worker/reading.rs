//! What was read of a partition, and what is read again.
//!
//! When others need the memory, messages that were read and nothing more are given back: they are
//! read again later, from the first of them on, under the same ownership. The shell counts bytes;
//! here it is decided what can be given back.

use crate::entry::PartitionId;
use crate::settings::Settings;
use crate::span::Span;

use super::Worker;
use super::effect::Effect;
use super::partition::{Partition, Tenure};
use super::window::Phase;

/// Whether reading the message once more would do it once more.
fn is_begun(phase: Phase) -> bool {
    match phase {
        Phase::Admitting { .. }
        | Phase::Ready
        | Phase::Running
        | Phase::Waiting
        | Phase::Finished
        | Phase::Sent { .. } => true,
        // What is done is passed over when it is read once more.
        Phase::Received | Phase::Done => false,
    }
}

impl Partition {
    /// Takes in messages that were read; those that are known are passed over. Gives those of them
    /// that are done.
    pub(crate) fn receive(&mut self, spans: &[Span], keys: &[u64]) -> Vec<Span> {
        let mut known = Vec::new();
        self.lanes.note(spans, keys, self.received);
        for span in spans {
            let Some(unseen) = Span::new(span.first.max(self.received), span.end) else { continue };
            if let Some(gap) = Span::new(self.received.max(self.furthest), unseen.first) {
                self.caution.pass_gap(gap);
            }
            let done = self.window.spans(|phase| phase == Phase::Done);
            known.extend(done.iter().filter_map(|span| span.intersect(unseen)));
            for fresh in without(unseen, &done) {
                self.window.set(fresh, Phase::Received);
                self.lanes.receive(fresh, &self.window);
            }
            self.received = span.end;
            self.furthest = self.furthest.max(span.end);
        }
        self.forget_ahead();
        known
    }

    /// Forgets what was read and not begun, from `from` on or later; gives where reading goes on.
    ///
    /// Nothing that is begun may lie behind that: a commit may say that everything below the lowest
    /// unfinished message is done. Messages that are done may, as after a takeover, if the metadata
    /// can list them although reading does not join them any more.
    pub(crate) fn unread(&mut self, from: u64, settings: &Settings) -> Option<u64> {
        let is_received = |phase| phase == Phase::Received;
        let begun = self.window.last_below(u64::MAX, is_begun).unwrap_or(0);
        let mut offset = self.window.first_from(from.max(begun), is_received)?;
        let done = self.done_from(offset);
        if !self.fits_ahead(done.len() as u64, settings) {
            let last = self.window.last_below(self.received, |phase| !is_received(phase));
            offset = self.window.first_from(from.max(last.unwrap_or(0)), is_received)?;
        }
        self.window.forget_from(offset, is_received);
        self.lanes.unread(offset, &self.window);
        self.received = offset;
        self.ahead = self.done_from(offset).into();
        Some(offset)
    }

    fn done_from(&self, offset: u64) -> Vec<Span> {
        let done = self.window.spans(|phase| phase == Phase::Done);
        done.into_iter().filter(|span| span.first >= offset).collect()
    }

    /// Whether the metadata would hold what is done, and what of it reading has not reached, if
    /// that were so many runs; with every failure and every result that is under way.
    fn fits_ahead(&self, ahead: u64, settings: &Settings) -> bool {
        let sendable = self.window.groups(Phase::Finished) + self.lanes.stretches();
        let more = ahead.saturating_sub(self.ahead.len() as u64);
        self.fits(sendable, more, settings)
    }
}

impl Worker {
    pub(super) fn on_crowded(&mut self, id: PartitionId, epoch: u64, from: u64) {
        let Self { partitions, settings, effects, .. } = self;
        let Some(partition) = partitions.get_mut(&id) else { return };
        if partition.epoch == epoch
            && partition.tenure == Tenure::Owned
            && let Some(offset) = partition.unread(from, settings)
        {
            effects.push_back(Effect::ReadAgain { partition: id, epoch, offset });
        }
    }
}

/// The parts of a span that lie in none of the others, which are in order.
fn without(span: Span, others: &[Span]) -> Vec<Span> {
    let mut parts = Vec::new();
    let mut from = span.first;
    for other in others {
        if let Some(hit) = other.intersect(span) {
            parts.extend(Span::new(from, hit.first));
            from = hit.end;
        }
    }
    parts.extend(Span::new(from, span.end));
    parts
}
