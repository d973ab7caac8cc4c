//! Which message waits for which: the lanes of one partition.
//!
//! The messages of a lane are handled one after another, in offset order; messages of different
//! lanes wait for nobody. The three orders are three ways to tell the lane of a message: there is
//! one lane (`partition`), one per key (`key`), or one per message (`none`). Whoever is put into
//! the same lane by accident waits longer, and nothing else.
//!
//! A lane knows the messages that are read and not finished, as spans of neighbours. How far each
//! is, is the window's to know; [`Lanes::refresh`] takes it from there.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::iter;

use crate::settings::Order;
use crate::span::Span;

use super::keys::Keys;
use super::window::{Phase, Window};

/// The lane of everything in `order = partition`.
const ONLY: u64 = 0;

/// How many messages may be signed in and not finished, lanes that wait for a retry aside.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Quota {
    /// With so many, nothing is signed in any more.
    pub(crate) all: u64,
    /// With so many, only what no other message of its lane precedes: a few slow lanes with many
    /// messages each do not keep others out.
    pub(crate) behind: u64,
}

#[derive(Debug, Default)]
struct Lane {
    /// Read and not admitted.
    received: VecDeque<Span>,
    /// Admitted and not finished.
    admitted: VecDeque<Span>,
    /// How many messages there are in `admitted`.
    messages: u64,
    /// How many of them the handler has; none: it does not run.
    running: u64,
    /// What [`Lanes`] has counted of it.
    shown: Shown,
}

/// What the lanes together are asked of one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Shown {
    /// Its next message to be admitted.
    next: Option<u64>,
    /// Whether other messages of the lane precede that one.
    is_behind: bool,
    /// Its next message to be handled, if that is ready and nothing of the lane runs.
    ready: Option<u64>,
    runs: bool,
    /// Messages that are admitted behind one that waits for its retry, and that one.
    held: u64,
    /// Whether a message is admitted: one may fail at a time.
    has_admitted: bool,
    /// Runs of neighbours that may be done beyond the one that may fail.
    stretches: u64,
}

#[derive(Debug)]
pub(crate) struct Lanes {
    order: Order,
    pub(super) keys: Keys,
    all: BTreeMap<u64, Lane>,
    heads: BTreeSet<(u64, u64)>,
    behind: BTreeSet<(u64, u64)>,
    ready: BTreeSet<(u64, u64)>,
    running: u64,
    held: u64,
    admitted: u64,
    stretches: u64,
}

impl Lanes {
    pub(crate) fn new(order: Order) -> Self {
        Self {
            order,
            keys: Keys::default(),
            all: BTreeMap::new(),
            heads: BTreeSet::new(),
            behind: BTreeSet::new(),
            ready: BTreeSet::new(),
            running: 0,
            held: 0,
            admitted: 0,
            stretches: 0,
        }
    }

    /// How many lanes are being handled.
    pub(crate) fn running(&self) -> u64 {
        self.running
    }

    /// How many messages wait for a retry, or behind one that does.
    pub(crate) fn held(&self) -> u64 {
        self.held
    }

    /// How many messages may have failed at once: the first of each lane.
    pub(crate) fn may_fail(&self) -> u64 {
        self.admitted
    }

    /// How many runs what is admitted may add to what is done, the first of each lane aside.
    pub(crate) fn stretches(&self) -> u64 {
        match self.order {
            // What comes one after another is one run.
            Order::Partition => self.stretches.min(1),
            Order::Key | Order::None => self.stretches,
        }
    }

    pub(crate) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// The first message that can be handled now.
    pub(crate) fn first_ready(&self) -> Option<u64> {
        self.ready.first().map(|(at, _)| *at)
    }

    /// Whether a message can be handled now.
    pub(crate) fn is_ready(&self, offset: u64) -> bool {
        let lane = self.of(Span::one(offset)).next();
        lane.is_some_and(|(lane, _)| self.ready.contains(&(offset, lane)))
    }

    /// The first message that may be admitted next.
    pub(crate) fn first_next(&self) -> Option<u64> {
        let firsts = [self.heads.first(), self.behind.first()];
        firsts.into_iter().flatten().map(|(at, _)| *at).min()
    }

    /// Notes the lanes of messages that were read: in `order = key` one hash for each.
    pub(crate) fn note(&mut self, spans: &[Span], keys: &[u64], from: u64) {
        match self.order {
            Order::Partition | Order::None => {}
            Order::Key => self.keys.note(spans, keys, from),
        }
    }

    /// Forgets messages that are done.
    pub(crate) fn forget_done(&mut self, offset: u64, window: &Window) {
        self.keys.forget_below(offset);
        self.keys.forget_done(window);
    }

    /// Messages that were read and not admitted are to be read again, from `offset` on.
    pub(crate) fn unread(&mut self, offset: u64, window: &Window) {
        let has_some = |lane: &Lane| lane.received.back().is_some_and(|last| last.end > offset);
        let hit = self.all.iter().filter(|(_, lane)| has_some(lane));
        for id in hit.map(|(id, _)| *id).collect::<Vec<_>>() {
            if let Some(lane) = self.all.get_mut(&id) {
                let kept = lane
                    .received
                    .iter()
                    .filter_map(|span| Span::new(span.first, span.end.min(offset)));
                lane.received = kept.collect();
            }
            self.refresh(id, window);
        }
        self.keys.forget_from(offset);
    }

    /// The lanes of a span, in offset order; neighbours in one lane stay together.
    pub(crate) fn of(&self, span: Span) -> impl Iterator<Item = (u64, Span)> + '_ {
        let mut rest = Some(span);
        iter::from_fn(move || {
            let (lane, part) = self.first_of(rest?)?;
            rest = Span::new(part.end, rest?.end);
            Some((lane, part))
        })
    }

    fn first_of(&self, span: Span) -> Option<(u64, Span)> {
        match self.order {
            Order::Partition => Some((ONLY, span)),
            Order::None => Some((span.first, Span::one(span.first))),
            Order::Key => self.keys.first_of(span),
        }
    }

    /// Takes in messages that were read.
    pub(crate) fn receive(&mut self, span: Span, window: &Window) {
        let parts: Vec<(u64, Span)> = self.of(span).collect();
        for (id, part) in parts {
            join(&mut self.all.entry(id).or_default().received, part);
            self.refresh(id, window);
        }
    }

    /// The lane whose message is to be admitted next, and that message.
    pub(crate) fn next(&self, under_way: u64, quota: Quota) -> Option<(u64, u64)> {
        let head = self.heads.first().filter(|_| under_way < quota.all);
        let behind = self.behind.first().filter(|_| under_way < quota.behind);
        let (at, lane) = *head.into_iter().chain(behind).min()?;
        Some((lane, at))
    }

    /// Moves up to `limit` neighbours of a lane from received to admitted.
    pub(crate) fn admit(&mut self, id: u64, limit: u64) -> Option<Span> {
        let lane = self.all.get_mut(&id)?;
        let front = lane.received.front_mut()?;
        let end = front.end.min(front.first.saturating_add(limit));
        let part = Span::new(front.first, end)?;
        match Span::new(end, front.end) {
            Some(rest) => *front = rest,
            None => drop(lane.received.pop_front()),
        }
        lane.messages += part.len();
        join(&mut lane.admitted, part);
        Some(part)
    }

    /// The first ready messages of the first lane that can run, of those `after` a message if there
    /// is one: up to `limit`, and none but the first that `breaks`.
    pub(crate) fn start(
        &mut self,
        window: &Window,
        after: Option<u64>,
        limit: u64,
        breaks: impl Fn(Span) -> Option<u64>,
    ) -> Option<(u64, Vec<Span>)> {
        let later = after.and_then(|after| self.ready.range((after + 1, 0)..).next());
        let &(_, id) = later.or_else(|| self.ready.first())?;
        let lane = self.all.get_mut(&id)?;
        let mut left = limit;
        let mut spans = Vec::new();
        for &span in &lane.admitted {
            let piece = window.at(span.first).filter(|piece| piece.phase == Phase::Ready);
            let Some(piece) = piece else { break };
            let end = span.end.min(piece.span.end).min(span.first.saturating_add(left));
            let after = if spans.is_empty() { span.first + 1 } else { span.first };
            let stop = Span::new(after, end).and_then(&breaks).unwrap_or(end);
            let Some(part) = Span::new(span.first, stop) else { break };
            left -= part.len();
            spans.push(part);
            if part.end < span.end {
                break;
            }
        }
        lane.running = limit - left;
        Some((id, spans))
    }

    /// The handler ended well for messages of its lane.
    pub(crate) fn finish(&mut self, id: u64, span: Span) {
        let done = self.take_out(id, span);
        if let Some(lane) = self.all.get_mut(&id) {
            lane.running = lane.running.saturating_sub(done);
        }
    }

    /// Messages of a lane need no handler any more; gives how many there were.
    pub(crate) fn take_out(&mut self, id: u64, span: Span) -> u64 {
        let Some(lane) = self.all.get_mut(&id) else { return 0 };
        let done = cut(&mut lane.admitted, span);
        lane.messages -= done;
        done
    }

    /// A message of a lane needs no handler, and is not admitted.
    pub(crate) fn pass_over(&mut self, id: u64, span: Span) {
        if let Some(lane) = self.all.get_mut(&id) {
            cut(&mut lane.received, span);
        }
    }

    /// A message is to be handled once more, before what follows it.
    pub(crate) fn put_back(&mut self, id: u64, offset: u64) {
        let lane = self.all.entry(id).or_default();
        if lane.admitted.iter().any(|span| span.contains(offset)) {
            return;
        }
        let nth = lane.admitted.partition_point(|span| span.first < offset);
        lane.admitted.insert(nth, Span::one(offset));
        lane.messages += 1;
    }

    /// The handler of a lane ended; gives what it had and did not finish.
    pub(crate) fn stop(&mut self, id: u64) -> Vec<Span> {
        let Some(lane) = self.all.get_mut(&id) else { return Vec::new() };
        lane.running = 0;
        lane.admitted.iter().copied().collect()
    }

    /// The first message of a lane whose handler has yet to end well.
    pub(crate) fn first_open(&self, id: u64) -> Option<u64> {
        let lane = self.all.get(&id)?;
        lane.admitted.front().or(lane.received.front()).map(|span| span.first)
    }

    /// Takes over how far the messages of a lane are.
    pub(crate) fn refresh(&mut self, id: u64, window: &Window) {
        let Some(lane) = self.all.get_mut(&id) else { return };
        let shown = lane.show(window);
        let before = std::mem::replace(&mut lane.shown, shown);
        let is_empty = lane.received.is_empty() && lane.admitted.is_empty();
        if before != shown {
            self.count(id, before, false);
            self.count(id, shown, true);
        }
        if is_empty {
            self.all.remove(&id);
        }
    }

    fn count(&mut self, id: u64, shown: Shown, counts: bool) {
        let put = |set: &mut BTreeSet<(u64, u64)>, at: Option<u64>| {
            if let Some(at) = at {
                let _ = if counts { set.insert((at, id)) } else { set.remove(&(at, id)) };
            }
        };
        put(if shown.is_behind { &mut self.behind } else { &mut self.heads }, shown.next);
        put(&mut self.ready, shown.ready);
        let add =
            |count: &mut u64, by: u64| *count = if counts { *count + by } else { *count - by };
        add(&mut self.running, u64::from(shown.runs));
        add(&mut self.held, shown.held);
        add(&mut self.admitted, u64::from(shown.has_admitted));
        add(&mut self.stretches, shown.stretches);
    }
}

impl Lane {
    fn show(&self, window: &Window) -> Shown {
        let front = self.admitted.front();
        let phase = front.and_then(|span| window.at(span.first)).map(|piece| piece.phase);
        let waits = phase == Some(Phase::Waiting);
        let runs = self.running > 0;
        let first = |span: &Span| span.first;
        Shown {
            next: self.received.front().map(first).filter(|_| !waits),
            is_behind: front.is_some(),
            ready: front.map(first).filter(|_| phase == Some(Phase::Ready) && !runs),
            runs,
            held: if waits { self.messages } else { 0 },
            has_admitted: front.is_some(),
            stretches: if self.messages > 1 { self.admitted.len() as u64 } else { 0 },
        }
    }
}

/// Takes a span out of others; gives how many messages that were.
fn cut(spans: &mut VecDeque<Span>, span: Span) -> u64 {
    let mut taken = 0;
    let mut from = span.first;
    while from < span.end
        && let Some(nth) = spans.iter().position(|other| other.contains(from))
        && let Some(old) = spans.remove(nth)
    {
        let end = old.end.min(span.end);
        let rest = [Span::new(old.first, from), Span::new(end, old.end)];
        for part in rest.into_iter().rev().flatten() {
            spans.insert(nth, part);
        }
        taken += end - from;
        from = end;
    }
    taken
}

fn join(spans: &mut VecDeque<Span>, span: Span) {
    match spans.back_mut() {
        Some(last) if last.end == span.first => last.end = span.end,
        _ => spans.push_back(span),
    }
}
