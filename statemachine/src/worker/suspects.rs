//! Whose output was refused.
//!
//! Kafka refuses a batch of records as a whole. If the answer names the records that are to blame,
//! or the batch had only one, their messages fail by themselves. Else all messages of the batch are
//! suspects. They are sent in transactions of their own: half of them at a time, half of that half
//! if it is refused as well, and so on, until one message is left, which is to blame. What is
//! committed is no suspect any more. The others take turns with them: their transactions hold
//! whatever does not follow a suspect in its lane.
//!
//! A message that was found stays in a group of its own kind, so that its next outputs, or its dead
//! letter, do not take others with them if they are refused again.

use std::collections::{BTreeMap, VecDeque};

use crate::entry::PartitionId;
use crate::span::Span;

use super::Worker;
use super::input::Refusal;
use super::sending::Pick;
use super::window::Phase;

/// Messages of several partitions, in order.
pub(super) type Group = BTreeMap<PartitionId, Vec<Span>>;

/// What a transaction is filled with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Load {
    /// Whatever is no suspect.
    Others,
    /// These suspects alone.
    Suspects {
        /// Which.
        group: Group,
        /// Whether they are those that were found.
        are_found: bool,
    },
}

#[derive(Debug, Default)]
pub(super) struct Suspects {
    /// Each is tried by itself.
    groups: VecDeque<Group>,
    /// Messages whose last output was refused.
    found: Group,
    /// Whether the last transaction was one of suspects.
    had_turn: bool,
    /// Whether that was one of those that were found.
    had_found: bool,
}

impl Suspects {
    pub(super) fn is_empty(&self) -> bool {
        self.groups.is_empty() && self.found.is_empty()
    }

    /// All of a partition, in order.
    pub(super) fn of(&self, id: PartitionId) -> Vec<Span> {
        let groups = self.groups.iter().chain([&self.found]);
        let mut all: Vec<Span> = groups.filter_map(|it| it.get(&id)).flatten().copied().collect();
        all.sort_unstable();
        let mut joined = Vec::new();
        for span in all {
            span.append_to(&mut joined);
        }
        joined
    }

    /// Notes what is sent now, so that others have their turn next.
    fn note_turn(&mut self, load: &Load) {
        match load {
            Load::Others => self.had_turn = false,
            Load::Suspects { are_found, .. } => {
                self.had_turn = true;
                self.had_found = *are_found;
            }
        }
    }

    /// The groups in the order in which they are tried, and whether it is that of the found.
    fn in_turn(&self) -> impl Iterator<Item = (&Group, bool)> {
        let found = [(&self.found, true)];
        let [first, last] = if self.had_found { [None, Some(found)] } else { [Some(found), None] };
        let groups = self.groups.iter().map(|group| (group, false));
        first.into_iter().flatten().chain(groups).chain(last.into_iter().flatten())
    }

    /// An output of one of these was refused.
    fn split(&mut self, refused: &Group, load: &Load) {
        for (id, spans) in refused {
            self.clear(*id, spans);
        }
        let halves = halves(refused).into_iter().filter(|half| !half.is_empty());
        match load {
            Load::Others => self.groups.extend(halves),
            // It goes on where it is known best.
            Load::Suspects { .. } => halves.rev().for_each(|half| self.groups.push_front(half)),
        }
    }

    /// An output of this message was refused.
    fn find(&mut self, id: PartitionId, offset: u64) {
        self.clear(id, &[Span::one(offset)]);
        let spans = self.found.entry(id).or_default();
        let nth = spans.partition_point(|span| span.first < offset);
        spans.insert(nth, Span::one(offset));
    }

    /// These are done.
    pub(super) fn clear(&mut self, id: PartitionId, done: &[Span]) {
        for group in self.groups.iter_mut().chain([&mut self.found]) {
            if let Some(spans) = group.get_mut(&id) {
                *spans = without(spans, done);
                if spans.is_empty() {
                    group.remove(&id);
                }
            }
        }
        self.groups.retain(|group| !group.is_empty());
    }

    /// A partition is not owned any more.
    pub(super) fn forget(&mut self, id: PartitionId) {
        self.clear(id, &[Span { first: 0, end: u64::MAX }]);
    }
}

fn messages(group: &Group) -> u64 {
    group.values().flatten().map(|span| span.len()).sum()
}

/// The first half of the messages of a group, and the rest.
fn halves(group: &Group) -> [Group; 2] {
    let mut left = messages(group) / 2;
    let mut halves = [Group::new(), Group::new()];
    let [first, second] = &mut halves;
    for (&id, spans) in group {
        for span in spans {
            let end = span.first + left.min(span.len());
            left -= end - span.first;
            let parts = [(&mut *first, span.first, end), (&mut *second, end, span.end)];
            for (half, first, end) in parts {
                if let Some(part) = Span::new(first, end) {
                    half.entry(id).or_default().push(part);
                }
            }
        }
    }
    halves
}

/// The parts of spans that lie in none of the others; both are in order.
fn without(spans: &[Span], others: &[Span]) -> Vec<Span> {
    let mut left = Vec::new();
    for span in spans {
        let mut from = span.first;
        let after = others.partition_point(|other| other.end <= span.first);
        for other in others.iter().skip(after).take_while(|other| other.first < span.end) {
            left.extend(Span::new(from, other.first));
            from = from.max(other.end);
        }
        left.extend(Span::new(from, span.end));
    }
    left
}

impl Worker {
    /// What a transaction is filled with that begins now.
    pub(super) fn take_load(&mut self) -> Load {
        if self.suspects.is_empty() {
            return Load::Others;
        }
        // Without messages it is begun for a position alone.
        let load = self.next_load().unwrap_or(Load::Others);
        self.suspects.note_turn(&load);
        load
    }

    /// What the next transaction holds; `None` if there is nothing to be sent.
    pub(super) fn next_load(&self) -> Option<Load> {
        let is_free = |id: PartitionId| !self.is_flushing(id);
        if self.suspects.is_empty() {
            let mut partitions = self.partitions.values();
            return partitions.any(|p| p.has_finished() && is_free(p.id)).then_some(Load::Others);
        }
        let can_send = |id: PartitionId| {
            let others = self.suspects.of(id);
            let partition = self.partitions.get(&id);
            partition.is_some_and(|p| p.can_send(Pick::Without(&others))) && is_free(id)
        };
        let others = || self.partitions.keys().any(|id| can_send(*id)).then_some(Load::Others);
        if self.suspects.had_turn {
            others().or_else(|| self.next_suspects())
        } else {
            self.next_suspects().or_else(others)
        }
    }

    /// The group of suspects that is tried next.
    fn next_suspects(&self) -> Option<Load> {
        let can_send = |(id, spans): (&PartitionId, &Vec<Span>)| {
            let partition = self.partitions.get(id);
            partition.is_some_and(|p| p.can_send(Pick::Only(spans))) && !self.is_flushing(*id)
        };
        let (group, are_found) =
            self.suspects.in_turn().find(|(group, _)| group.iter().any(can_send))?;
        Some(Load::Suspects { group: group.clone(), are_found })
    }

    /// Finds who is to blame for the refusal of outputs of a transaction, or who may be.
    pub(super) fn find_blame(&mut self, number: u64, refusal: &Refusal, message: &str) {
        let named = match refusal {
            Refusal::Of(named) => self.sent_among(number, named.iter().map(of_one)),
            Refusal::Among(spans) => {
                let among = self.sent_among(number, spans.iter().copied());
                let among = if among.is_empty() { self.sent_in(number) } else { among };
                if messages(&among) > 1 {
                    let refused = self.transactions.iter().find(|t| t.number == number);
                    if let Some(refused) = refused {
                        self.suspects.split(&among, &refused.load);
                    }
                    return;
                }
                among
            }
        };
        let each = |(id, spans): (PartitionId, Vec<Span>)| {
            let offsets = spans.into_iter().flat_map(|span| span.first..span.end);
            offsets.map(move |offset| (id, offset))
        };
        for (id, offset) in named.into_iter().flat_map(each) {
            self.suspects.find(id, offset);
            if let Some(transaction) = self.transaction(number) {
                transaction.blamed.push((id, offset, message.to_owned()));
            }
        }
    }

    /// What a transaction holds.
    fn sent_in(&self, number: u64) -> Group {
        let spans = |partition: &super::Partition| {
            let spans = partition.window.spans(|phase| phase == Phase::Sent { number });
            (!spans.is_empty()).then_some((partition.id, spans))
        };
        self.partitions.values().filter_map(spans).collect()
    }

    /// Those of the messages that a transaction holds.
    fn sent_among(&self, number: u64, among: impl Iterator<Item = (PartitionId, Span)>) -> Group {
        let mut wanted = Group::new();
        for (id, span) in among {
            wanted.entry(id).or_default().push(span);
        }
        let mut sent = self.sent_in(number);
        sent.retain(|id, spans| {
            let Some(wanted) = wanted.get_mut(id) else { return false };
            wanted.sort_unstable();
            let unwanted = without(spans, wanted);
            *spans = without(spans, &unwanted);
            !spans.is_empty()
        });
        sent
    }
}

fn of_one(named: &(PartitionId, u64)) -> (PartitionId, Span) {
    (named.0, Span::one(named.1))
}
