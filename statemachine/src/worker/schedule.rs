//! What a partition does next: which messages are admitted and handled. `sending` has which are
//! sent.
//!
//! Only what its commit can tell is begun. The metadata of a commit is bounded, and it lists what
//! is done beyond the position and what has failed. [`Partition::fits`] is asked before a message
//! is admitted, with the worst that can come of it, and again before what is finished is sent, with
//! what comes of it. From the lowest unfinished message on there is always room: it adds to neither
//! list.

use crate::metadata::{ATTEMPT_MAX, CommitMetadata};
use crate::settings::{Order, Settings};
use crate::span::Span;
use crate::state::Outcome;

use super::lanes::Quota;
use super::partition::{Partition, Room, Tenure};
use super::window::Phase;

/// How many runs of a partition are admitted at once: while one is handled the next is flushed.
const ADMITTED_RUNS: u64 = 2;

/// How many messages are admitted behind others of their lane at least: one flush for so many.
const BEHIND_MIN: u64 = 64;

impl Quota {
    /// So many messages, of whatever partitions, are worth a store write.
    pub(super) fn of_a_write(settings: &Settings) -> u64 {
        Self::of(settings).all.div_ceil(2)
    }

    fn of(settings: &Settings) -> Self {
        match settings.order {
            Order::Partition => {
                let all = settings.handle_records.saturating_mul(ADMITTED_RUNS);
                Self { all, behind: all }
            }
            // As many lanes can run as may, whatever waits behind them.
            Order::Key | Order::None => {
                let behind = settings.concurrency.max(BEHIND_MIN);
                Self { all: behind.saturating_add(settings.concurrency), behind }
            }
        }
    }
}

/// How much may be begun.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Allowance {
    /// How many runs may be under way.
    pub(crate) runs: u64,
    /// How many messages each may have.
    pub(crate) messages: u64,
    /// Whether it is only to find out whether any message succeeds.
    pub(crate) is_probe: bool,
}

/// A run of a lane.
#[derive(Debug)]
pub(crate) struct Begun {
    pub(crate) lane: u64,
    pub(crate) spans: Vec<Span>,
    pub(crate) attempt: u32,
    pub(crate) at_any_cost: bool,
}

impl Partition {
    /// The end of all that a commit may have to tell of: what a former owner completed, and what
    /// failed there, may lie beyond what was read.
    fn horizon(&self) -> u64 {
        let ahead = self.ahead.back().map_or(0, |span| span.end);
        let failed = self.attempts.last_key_value().map_or(0, |(&at, _)| at + 1);
        self.received.max(ahead).max(failed)
    }

    /// Messages that are admitted and not finished, but for those that a retry holds: a crash
    /// interrupts no more of them.
    fn under_way(&self) -> u64 {
        let admitted: u64 =
            [Phase::Admitting { write: 0 }, Phase::Ready, Phase::Running, Phase::Waiting]
                .map(|phase| self.window.count(phase))
                .iter()
                .sum();
        admitted.saturating_sub(self.lanes.held())
    }

    /// Whether the metadata holds what is done, what is `sendable`, so many runs of messages more,
    /// and every failure that can come until then.
    pub(super) fn fits(&self, sendable: u64, more: u64, settings: &Settings) -> bool {
        let done = self.window.groups(Phase::Done) + self.window.groups(Phase::Sent { number: 0 });
        let done = done + self.ahead.len() as u64;
        let failed = self.attempts.len() as u64 + self.lanes.may_fail() + more.min(1);
        let distance = self.horizon().saturating_sub(self.position);
        let most = CommitMetadata::most_bytes(done + sendable + more, failed, distance);
        most <= self.metadata_bytes(settings)
    }

    /// Whether something waits that is not begun, or not sent, since a commit could not tell of it.
    pub(super) fn lacks_room(&self, settings: &Settings) -> bool {
        let sendable = self.window.groups(Phase::Finished) + self.lanes.stretches();
        self.room == Room::Spent
            || self.window.count(Phase::Received) > 0 && !self.fits(sendable, 3, settings)
    }

    /// How many messages may be admitted: few after a takeover, and more with each commit.
    fn may_admit(&self) -> u64 {
        let Some(most) = self.caution.most else { return u64::MAX };
        let sent = self.window.count(Phase::Sent { number: 0 });
        let waits = if sent > 0 || self.has_finished() {
            sent + self.window.count(Phase::Finished)
        } else {
            0
        };
        most.saturating_sub(self.under_way() + waits)
    }

    /// Up to where messages are admitted: those that have to be tried come before all others.
    fn admits_until(&self) -> u64 {
        self.caution.until.filter(|_| self.is_trying()).unwrap_or(u64::MAX)
    }

    /// Admits what was received, in the order of the lanes' first messages, as far as there is
    /// room.
    pub(crate) fn admit(&mut self, write: u64, settings: &Settings) -> Vec<Span> {
        let mut admitted: Vec<Span> = Vec::new();
        if self.tenure != Tenure::Owned || self.window.count(Phase::Received) == 0 {
            return admitted;
        }
        let quota = Quota::of(settings);
        let (mut left, end) = (self.may_admit(), self.admits_until());
        while left > 0 {
            let under_way = self.under_way();
            let Some((lane, at)) = self.lanes.next(under_way, quota) else { break };
            if at >= end {
                break;
            }
            // One that fails, one that is done beyond it, and one that its lane could not do
            // before.
            let sendable = self.window.groups(Phase::Finished) + self.lanes.stretches();
            let has_room = self.fits(sendable, 3, settings) && under_way < self.memory;
            if !has_room && self.window.first(Phase::is_open) != Some(at) {
                break;
            }
            let behind = quota.behind.min(self.memory).saturating_sub(under_way);
            let most = if has_room { behind.max(1) } else { 1 };
            let Some(part) = self.lanes.admit(lane, most.min(left).min(end - at)) else { break };
            left -= part.len();
            self.window.set(part, Phase::Admitting { write });
            self.lanes.refresh(lane, &self.window);
            part.append_to(&mut admitted);
        }
        admitted
    }

    /// How many messages wait for a store write that admits them.
    pub(crate) fn admissible(&self, settings: &Settings) -> u64 {
        if self.tenure != Tenure::Owned {
            return 0;
        }
        let room = Quota::of(settings).all.min(self.memory).saturating_sub(self.under_way());
        self.window.count(Phase::Received).min(room)
    }

    /// Store writes up to `write` are flushed: what they admitted may be handled.
    pub(super) fn stored(&mut self, write: u64) {
        let ready = self.window.change(|phase| match phase {
            Phase::Admitting { write: wanted } => (wanted <= write).then_some(Phase::Ready),
            Phase::Received
            | Phase::Ready
            | Phase::Running
            | Phase::Waiting
            | Phase::Finished
            | Phase::Sent { .. }
            | Phase::Done => None,
        });
        for span in ready {
            self.refresh(span);
        }
    }

    fn refresh(&mut self, span: Span) {
        let lanes: Vec<u64> = self.lanes.of(span).map(|(lane, _)| lane).collect();
        for lane in lanes {
            self.lanes.refresh(lane, &self.window);
        }
    }

    pub(crate) fn can_run(&self) -> bool {
        self.tenure == Tenure::Owned
            && !self.held
            && self.lanes.has_ready()
            && self.may_run() > 0
            && !self.is_trying()
    }

    /// Begins the run of a lane. One message to find out whether any succeeds is another one than
    /// the last time: the first ones may be those that never will.
    pub(crate) fn begin_run(&mut self, allowance: Allowance) -> Option<Begun> {
        if !self.can_run() {
            return None;
        }
        // A message that has failed before is the first of its run, which tells its attempt.
        let failed = |span: Span| {
            self.attempts.range(span.first..span.end).next().map(|(&offset, _)| offset)
        };
        let at_any_cost = self.is_short();
        let after = self.tried.filter(|_| allowance.is_probe && !at_any_cost);
        let most = allowance.messages.min(self.may_run());
        let (lane, spans) = self.lanes.start(&self.window, after, most, failed)?;
        self.tried = spans.first().map(|span| span.first);
        self.note_run();
        for span in &spans {
            self.window.set(*span, Phase::Running);
        }
        self.lanes.refresh(lane, &self.window);
        let attempt = spans.first().map_or(0, |span| self.attempt(span.first));
        Some(Begun { lane, spans, attempt, at_any_cost })
    }

    pub(crate) fn finished(&mut self, lane: u64, spans: &[Span]) {
        for span in spans {
            self.window.set(*span, Phase::Finished);
            self.lanes.finish(lane, *span);
        }
        self.lanes.refresh(lane, &self.window);
        self.look_after_trial();
    }

    /// What ran in a lane and did not finish may be started once more.
    pub(crate) fn stop_run(&mut self, lane: u64) {
        for span in self.lanes.stop(lane) {
            let mut from = span.first;
            while let Some(piece) = self.window.at(from).filter(|_| from < span.end) {
                if piece.phase == Phase::Running
                    && let Some(ran) = piece.span.intersect(span)
                {
                    self.window.set(ran, Phase::Ready);
                }
                from = piece.span.end;
            }
        }
        self.lanes.refresh(lane, &self.window);
        self.look_after_trial();
    }

    /// A message is to be handled once more, and what follows it in its lane waits for that.
    pub(crate) fn wait(&mut self, offset: u64) {
        self.window.set(Span::one(offset), Phase::Waiting);
        let lane = self.lanes.of(Span::one(offset)).next();
        if let Some((lane, _)) = lane {
            self.lanes.put_back(lane, offset);
            self.lanes.refresh(lane, &self.window);
        }
    }

    /// A message is finished otherwise than by its handler, which may be at a later one of its
    /// lane.
    pub(crate) fn conclude(&mut self, offset: u64, outcome: Outcome) {
        self.outcomes.insert(offset, outcome);
        let lane = self.lanes.of(Span::one(offset)).next();
        if let Some((lane, span)) = lane {
            self.window.set(span, Phase::Finished);
            self.lanes.take_out(lane, span);
            self.lanes.pass_over(lane, span);
            self.lanes.refresh(lane, &self.window);
        }
    }

    /// The retry of a message is due.
    pub(crate) fn admit_again(&mut self, offset: u64, write: u64) {
        self.window.set(Span::one(offset), Phase::Admitting { write });
        self.refresh(Span::one(offset));
    }

    /// The attempts that a commit tells: of every message that is not done, as far as there is
    /// room. There is, unless outputs were refused of messages that had finished; what is left out
    /// is told by a later commit.
    pub(super) fn attempts_to_tell(
        &self,
        offset: u64,
        completed: &[Span],
        settings: &Settings,
    ) -> Vec<(u64, u32)> {
        let distance = self.horizon().saturating_sub(offset);
        let fits = |attempts: u64| {
            // One failed message always has room: the first that is not done.
            let more = attempts.saturating_sub(1);
            let most = CommitMetadata::most_bytes(completed.len() as u64, more, distance);
            most <= self.metadata_bytes(settings)
        };
        let is_done = |at: u64| {
            let nth = completed.partition_point(|span| span.end <= at);
            completed.get(nth).is_some_and(|span| span.contains(at))
        };
        let open = self.attempts.range(offset..).filter(|(at, _)| !is_done(**at));
        let mut told = Vec::new();
        for (&at, &attempt) in open {
            if !fits(told.len() as u64 + 1) {
                break;
            }
            told.push((at, attempt.min(ATTEMPT_MAX)));
        }
        told
    }
}
