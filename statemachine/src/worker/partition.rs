//! One owned partition: its window, its position and how it is let go.
//!
//! Monotonic while it is owned: `position` and `furthest`, and `received` but for what is to be
//! read again. `epoch` is fixed; what carries another epoch belongs to another ownership and is
//! dropped.

use std::collections::{BTreeMap, VecDeque};

use crate::entry::{Moved, Note, PartitionId};
use crate::metadata::{Author, CommitMetadata};
use crate::settings::{Order, Settings};
use crate::span::Span;
use crate::state::{Outcome, Reason};
use crate::transition::Event;

use super::Time;
use super::caution::{Caution, Step, Told};
use super::effect::Position;
use super::first_starts::ToldFirstStart;
use super::lanes::Lanes;
use super::leaving::{Handlers, Leave};
use super::recovery::Recovery;
use super::window::{Phase, Piece, Window};

/// How the partition is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tenure {
    /// Given, and not yet known well enough to start.
    Recovering(Wait),
    /// Messages are handled.
    Owned,
    /// No new message is handled; what is finished is committed.
    Leaving { stage: Leave, until: Time },
    /// Nothing more is committed: another owner may be at work, or the budget is used up.
    Abandoned,
}

/// Whether the group's assignment waits for what is not known of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wait {
    /// It does.
    Assignment,
    /// It takes longer, and the others begin without it.
    Alone,
}

/// Whether the metadata of the next commit holds what is finished beyond the position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Room {
    /// As far as is known.
    Enough,
    /// It does not: until a commit, only what moves the position is sent.
    Spent,
}

/// The parts of a span by how their messages end.
fn by_outcome(span: Span, outcomes: &BTreeMap<u64, Outcome>) -> Vec<(Span, Outcome)> {
    let mut parts = Vec::new();
    let mut from = span.first;
    for (&offset, &outcome) in outcomes.range(span.first..span.end) {
        parts.extend(Span::new(from, offset).map(|before| (before, Outcome::Processed)));
        parts.push((Span::one(offset), outcome));
        from = offset + 1;
    }
    parts.extend(Span::new(from, span.end).map(|after| (after, Outcome::Processed)));
    parts
}

/// What a transaction sent for a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sent {
    pub(crate) position: Position,
    /// The ownership under which it was sent.
    pub(crate) epoch: u64,
    /// Whether it lets the partition go in good order.
    pub(crate) released: bool,
    step: Step,
    told: Told,
}

/// A commit that is under way, or in doubt.
#[derive(Debug, Clone, Copy)]
struct Committing {
    number: u64,
    offset: u64,
    released: bool,
}

#[derive(Debug)]
pub(crate) struct Partition {
    pub(crate) id: PartitionId,
    pub(crate) epoch: u64,
    pub(crate) tenure: Tenure,
    pub(crate) window: Window,
    /// The committed offset.
    pub(crate) position: u64,
    /// The next offset to be read.
    pub(crate) received: u64,
    /// The highest that it was: what is below is read once more.
    pub(crate) furthest: u64,
    /// How many messages may be under way at once, as far as memory goes.
    pub(crate) memory: u64,
    /// The failed messages that hold their lanes up, and when they are due. A lane may have two:
    /// that whose handler failed, and an earlier one whose output was refused.
    pub(crate) retries: BTreeMap<u64, Time>,
    pub(crate) attempts: BTreeMap<u64, u32>,
    /// When messages that are not done failed first, as far as this owner knows.
    pub(crate) first_failures: BTreeMap<u64, Time>,
    /// How messages end that are finished otherwise than by their handler.
    pub(crate) outcomes: BTreeMap<u64, Outcome>,
    pub(crate) lanes: Lanes,
    /// The first message of the run that was begun last.
    pub(crate) tried: Option<u64>,
    /// What a former owner completed and reading has not reached: each is a run of its own.
    pub(crate) ahead: VecDeque<Span>,
    pub(crate) room: Room,
    topic_id: [u8; 16],
    prev: Option<Author>,
    /// Whether the commit says that the partition was let go in good order.
    released: bool,
    pub(super) handlers: Handlers,
    /// Whether the commit must be written although no message is done: the start position of a new
    /// group, or changed attempts.
    pub(super) unsaved: bool,
    committing: Option<Committing>,
    /// What is known of messages that may end the process.
    pub(crate) caution: Caution,
    /// What its commits say of where other partitions ended.
    pub(super) first_start: Option<ToldFirstStart>,
    /// Whether handlers wait for the first commit.
    pub(crate) held: bool,
}

impl Partition {
    pub(crate) fn new(id: PartitionId, epoch: u64, order: Order) -> Self {
        Self {
            id,
            epoch,
            tenure: Tenure::Recovering(Wait::Assignment),
            window: Window::default(),
            position: 0,
            received: 0,
            furthest: 0,
            memory: u64::MAX,
            retries: BTreeMap::new(),
            attempts: BTreeMap::new(),
            first_failures: BTreeMap::new(),
            outcomes: BTreeMap::new(),
            lanes: Lanes::new(order),
            tried: None,
            ahead: VecDeque::new(),
            room: Room::Enough,
            topic_id: [0; 16],
            prev: None,
            released: false,
            handlers: Handlers::NotBegun,
            unsaved: false,
            committing: None,
            caution: Caution::default(),
            first_start: None,
            held: false,
        }
    }

    /// Takes up what recovery found.
    pub(crate) fn begin(&mut self, recovery: &Recovery, topic_id: [u8; 16]) {
        self.tenure = Tenure::Owned;
        self.position = recovery.position;
        self.received = recovery.position;
        self.furthest = recovery.position;
        self.attempts.clone_from(&recovery.attempts);
        self.prev.clone_from(&recovery.prev);
        self.released = recovery.released;
        self.topic_id = topic_id;
        self.caution = recovery.caution;
        self.first_start = recovery.first_start.clone().map(ToldFirstStart::new);
        self.unsaved = recovery.fresh;
        self.held = recovery.fresh;
        for span in &recovery.completed {
            self.window.set(*span, Phase::Done);
        }
        self.ahead.extend(&recovery.completed);
    }

    /// The reader is at the end of what is stable.
    pub(crate) fn at_end(&mut self, offset: u64) {
        self.received = self.received.max(offset);
        self.furthest = self.furthest.max(offset);
        self.forget_ahead();
    }

    pub(super) fn forget_ahead(&mut self) {
        while self.ahead.front().is_some_and(|span| span.first <= self.received) {
            self.ahead.pop_front();
        }
    }

    pub(crate) fn is_recovering(&self) -> bool {
        matches!(self.tenure, Tenure::Recovering(_))
    }

    pub(crate) fn is_running(&self) -> bool {
        self.window.count(Phase::Running) > 0
    }

    pub(crate) fn attempt(&self, offset: u64) -> u32 {
        self.attempts.get(&offset).copied().unwrap_or(0)
    }

    /// Counts a failure, up to `most`; gives how often the message has failed now.
    pub(crate) fn count_attempt(&mut self, offset: u64, reason: Reason, most: Option<u32>) -> u32 {
        let attempt = self.attempts.entry(offset).or_default();
        let counted = attempt.saturating_add(u32::from(reason.is_own()));
        *attempt = most.map_or(counted, |most| counted.min(most.max(*attempt)));
        self.unsaved = true;
        *attempt
    }

    /// A message's failures are forgotten: what is to come is counted anew.
    pub(crate) fn forget_attempts(&mut self, offset: u64) {
        self.attempts.remove(&offset);
        self.unsaved = true;
    }

    /// Whether a commit would say something new though no message is waiting for one.
    pub(crate) fn wants_commit(&self) -> bool {
        match self.tenure {
            Tenure::Recovering(_) | Tenure::Abandoned => false,
            Tenure::Owned => self.unsaved || self.has_moved_on(),
            Tenure::Leaving { .. } => {
                let released = self.committing.map_or(self.released, |sent| sent.released);
                self.unsaved || !released && self.is_closing() || self.has_moved_on()
            }
        }
    }

    /// Whether reading has passed offsets without a message, and nothing else moves the position.
    fn has_moved_on(&self) -> bool {
        let position = self.committing.map_or(self.position, |sent| sent.offset);
        self.received > position && !self.window.any(|phase| phase != Phase::Done)
    }

    /// The offset to commit once transactions up to `number` are committed.
    pub(crate) fn committable(&self, number: u64) -> u64 {
        self.window.lowest_unfinished(number).unwrap_or(self.received)
    }

    /// What transaction `number` commits for this partition.
    pub(crate) fn send(&mut self, number: u64, settings: &Settings) -> Sent {
        self.unsaved = false;
        let offset = self.committable(number);
        let completed = self.window.completed(offset, number, self.received);
        let attempts = self.attempts_to_tell(offset, &completed, settings);
        let released = self.is_closing() && !self.has_finished();
        let step = self.step(number, offset, released);
        let told = self.caution.told(step, |at| completed.iter().any(|span| span.contains(at)));
        let metadata = CommitMetadata {
            author: Author {
                instance: settings.instance.clone(),
                incarnation: settings.incarnation,
                number,
            },
            prev: self.prev.clone(),
            topic_id: self.topic_id,
            completed,
            attempts,
            released,
            takeovers: told.takeovers,
            advanced: told.advanced,
            careful: told.careful,
            trial: told.trial,
            first_start: self.first_start.as_ref().map(|told| told.first_start.clone()),
        };
        let metadata = metadata.encode(offset);
        let position = Position { partition: self.id, offset, metadata };
        self.committing = Some(Committing { number, offset, released });
        Sent { position, epoch: self.epoch, released, step, told }
    }

    fn step(&self, number: u64, offset: u64, released: bool) -> Step {
        let tried = self.caution.until.unwrap_or(0);
        let advances =
            |piece: Piece| piece.phase == Phase::Sent { number } && piece.span.end > tried;
        let advances = self.window.iter().any(advances);
        let clears = offset > self.position || released && self.has_survived();
        Step { offset, clears, advances }
    }

    /// Transaction `number` committed `sent` for this partition: its messages are done.
    pub(crate) fn committed(&mut self, number: u64, sent: &Sent) -> Vec<Moved> {
        self.room = Room::Enough;
        let (from, offset) = (self.position, sent.position.offset);
        let mut widened = self.window.widened(number, offset);
        // The gap between the old position and the first message belongs to the record.
        let first = self.window.iter().next().map_or(offset, |piece| piece.span.first.min(offset));
        match widened.first_mut() {
            Some((span, _)) if span.first == first => span.first = from,
            _ => widened.extend(Span::new(from, first).map(|span| (span, 0))),
        }
        self.window.change(|phase| (phase == Phase::Sent { number }).then_some(Phase::Done));
        self.position = offset;
        self.window.forget_below(self.position);
        self.lanes.forget_done(self.position, &self.window);
        let (position, window) = (self.position, &self.window);
        let is_done = |at| window.at(at).is_some_and(|piece| piece.phase == Phase::Done);
        self.attempts.retain(|&at, _| at >= position && !is_done(at));
        self.first_failures.retain(|&at, _| at >= position && !is_done(at));
        let parts = widened.iter().flat_map(|(span, _)| by_outcome(*span, &self.outcomes));
        let parts: Vec<_> = parts.collect();
        self.outcomes.retain(|&at, _| at >= position && !is_done(at));
        self.caution.committed(sent.step, &sent.told);
        self.released = sent.released;
        self.committing = None;
        self.held = false;
        let moved = |(span, outcome)| Moved {
            partition: self.id,
            span,
            event: Event::Committed(outcome),
            note: Note::Transaction(number),
        };
        parts.into_iter().map(moved).collect()
    }

    /// From the first to the last message of transaction `number`, and how many there are.
    pub(crate) fn part(&self, number: u64) -> (Option<Span>, u64) {
        let spans = self.window.spans(|phase| phase == Phase::Sent { number });
        let messages = spans.iter().map(|span| span.len()).sum();
        let bounds = spans.first().zip(spans.last());
        (bounds.map(|(first, last)| Span { first: first.first, end: last.end }), messages)
    }

    /// Transaction `number` came to nothing: its results are at hand again.
    pub(crate) fn aborted(&mut self, number: u64, reason: Reason) -> Vec<Moved> {
        let spans = self
            .window
            .change(|phase| (phase == Phase::Sent { number }).then_some(Phase::Finished));
        if self.committing.take_if(|sent| sent.number == number).is_some() {
            self.unsaved = true;
            self.caution.aborted();
        }
        let again = [Event::RolledBack(reason), Event::Again, Event::Start];
        let moved = |span| {
            again.map(|event| Moved {
                partition: self.id,
                span,
                event,
                note: Note::Transaction(number),
            })
        };
        spans.into_iter().flat_map(moved).collect()
    }

    /// The reply to the commit of transaction `number` was lost.
    pub(crate) fn in_doubt(&self, number: u64) -> Vec<Moved> {
        let moved = |span| Moved {
            partition: self.id,
            span,
            event: Event::ReplyLost,
            note: Note::Transaction(number),
        };
        self.window.spans(|phase| phase == Phase::Sent { number }).into_iter().map(moved).collect()
    }

    /// What the store is told when the partition is let go: everything not done is rolled back, but
    /// for what failed (it already is) and what is part of a transaction in doubt; of others, only
    /// the `aborting` ones still hold something then.
    pub(crate) fn let_go(&self, aborting: &[u64]) -> Vec<Moved> {
        let dropped = self.window.spans(|phase| match phase {
            Phase::Admitting { .. } | Phase::Ready | Phase::Running | Phase::Finished => true,
            Phase::Sent { number } => aborting.contains(&number),
            Phase::Received | Phase::Waiting | Phase::Done => false,
        });
        let moved = |span| Moved {
            partition: self.id,
            span,
            event: Event::RolledBack(Reason::Revoked),
            note: Note::None,
        };
        dropped.into_iter().map(moved).collect()
    }
}
