//! Goal: whatever finishes and whatever fails, a commit has room for all that it must tell, and
//! there is always progress.
//! Method: a worker with hardly any room and a Kafka that never fails; handlers end in any order.

#![expect(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use countersign_statemachine::worker::{
    Commit, Effect, Failure, FailureKind, Found, Input, Label, Position, Siblings, SlotEvent,
    Worker,
};
use countersign_statemachine::{
    Backoff, CommitMetadata, Order, PartitionId, Reason, Settings, Span,
};
use proptest::prelude::*;

const P: PartitionId = PartitionId(0);

fn settings(order: Order, metadata_bytes: usize) -> Settings {
    let quick = Backoff {
        base: Duration::from_millis(1),
        max: Duration::from_millis(5),
        ..Backoff::default()
    };
    Settings {
        slots: 1,
        commit_interval: Duration::from_millis(10),
        commit_pause: Duration::from_millis(2),
        transaction_records: 50,
        handle_records: 8,
        order,
        concurrency: 12,
        metadata_bytes,
        leave_budget: Duration::from_secs(1),
        write_pause: Duration::ZERO,
        lazy_write: Duration::from_millis(10),
        retry: quick.into(),
        abort_backoff: quick,
        seed: 0,
        ..Settings::new("w0", 1)
    }
}

/// A partition, its worker, and everything around it that answers at once.
struct Rig {
    worker: Worker,
    settings: Settings,
    now: Duration,
    /// The key of each message; control records have none.
    log: Vec<Option<u64>>,
    read: usize,
    running: BTreeMap<u64, Vec<u64>>,
    failures: BTreeMap<u64, u32>,
    sent: BTreeSet<u64>,
    position: u64,
    /// The most that a commit listed.
    longest: usize,
}

impl Rig {
    fn new(settings: Settings, log: Vec<Option<u64>>) -> Self {
        let now = Duration::from_secs(1);
        let mut rig = Self {
            worker: Worker::new(settings.clone(), now),
            settings,
            now,
            log,
            read: 0,
            running: BTreeMap::new(),
            failures: BTreeMap::new(),
            sent: BTreeSet::new(),
            position: 0,
            longest: 0,
        };
        rig.perform();
        rig.tell(Input::Assigned(vec![P]));
        rig
    }

    fn tell(&mut self, input: Input) {
        self.worker.handle(input, self.now);
        self.perform();
    }

    fn perform(&mut self) {
        let mut answers = Vec::new();
        while let Some(effect) = self.worker.poll_effect() {
            answers.extend(self.answer(effect));
        }
        for answer in answers {
            self.tell(answer);
        }
    }

    fn answer(&mut self, effect: Effect) -> Option<Input> {
        match effect {
            Effect::Open { slot, .. } => Some(Input::Slot(slot, SlotEvent::Opened)),
            Effect::Recover(begun) => {
                let label = Label::Foreign(String::new());
                let found = Found {
                    commit: Some(Commit { offset: 0, label }),
                    siblings: Siblings::None(None),
                    known: false,
                    log_start: 0,
                    log_end: self.log.len() as u64,
                    topic_id: [7; 16],
                    runs: Vec::new(),
                };
                let found = |(id, epoch)| (id, epoch, found.clone());
                Some(Input::Recovered(begun.into_iter().map(found).collect()))
            }
            Effect::Write { write, .. } => Some(Input::Stored { write }),
            Effect::Handle { lane, spans, .. } => {
                let offsets = spans.iter().flat_map(|span| span.first..span.end).collect();
                assert_eq!(self.running.insert(lane, offsets), None);
                None
            }
            Effect::Send { span, .. } => {
                self.sent.extend(span.first..span.end);
                None
            }
            Effect::Flush { slot } => {
                Some(Input::Slot(slot, SlotEvent::Flushed { outputs: Vec::new() }))
            }
            Effect::Commit { slot, offsets, .. } => {
                for position in &offsets {
                    self.check(position);
                }
                Some(Input::Slot(slot, SlotEvent::Committed { suspicious: false }))
            }
            Effect::Abort { slot } => {
                Some(Input::Slot(slot, SlotEvent::Aborted { suspicious: false }))
            }
            Effect::ReadAgain { offset, .. } => {
                let begun = self.running.values().flatten().max();
                assert!(begun.is_none_or(|at| *at < offset), "{begun:?} is under way");
                assert!(offset >= self.position && offset < self.read as u64);
                self.read = usize::try_from(offset).unwrap();
                None
            }
            Effect::Assign(_) | Effect::Fetch(_) | Effect::Release { .. } | Effect::Notice(_) => {
                None
            }
            other => panic!("{other:?} is not expected"),
        }
    }

    /// It fits, and it says all there is to say.
    fn check(&mut self, position: &Position) {
        let metadata = CommitMetadata::decode(position.offset, &position.metadata).unwrap();
        let (completed, attempts) = (metadata.completed, metadata.attempts);
        let last = completed.last().map_or(position.offset, |span| span.end);
        let last = attempts.last().map_or(last, |(at, _)| last.max(at + 1));
        // One failed message is always provided for.
        let lists = (completed.len() as u64, attempts.len().saturating_sub(1) as u64);
        let most = CommitMetadata::most_bytes(lists.0, lists.1, last - position.offset);
        assert!(most <= self.settings.metadata_bytes as u64, "{lists:?} do not fit");
        self.longest = self.longest.max(completed.len());
        let is_done =
            |at: u64| at < position.offset || completed.iter().any(|span: &Span| span.contains(at));
        for at in (0..self.log.len()).filter(|&at| self.log[at].is_some()) {
            let at = at as u64;
            assert_eq!(is_done(at), self.sent.contains(&at), "{at}");
            let told = attempts.iter().find(|(told, _)| *told == at).map_or(0, |(_, n)| *n);
            let known = self.failures.get(&at).copied().unwrap_or(0);
            assert!(is_done(at) || told == known, "{at} has failed {known} times, not {told}");
        }
        self.position = position.offset;
    }

    fn receive(&mut self, messages: usize) {
        let end = self.log.len().min(self.read + messages);
        let (mut spans, mut keys): (Vec<Span>, _) = (Vec::new(), Vec::new());
        for at in self.read..end {
            let Some(key) = self.log[at] else { continue };
            let at = at as u64;
            Span::one(at).append_to(&mut spans);
            if self.settings.order == Order::Key {
                keys.push(key);
            }
        }
        self.read = end;
        if !spans.is_empty() {
            self.tell(Input::Received { partition: P, epoch: 1, spans, keys });
        }
        if end == self.log.len() {
            self.tell(Input::AtEnd { partition: P, epoch: 1, offset: end as u64 });
        }
    }

    fn pass(&mut self, ms: u64) {
        self.now += Duration::from_millis(ms);
        self.tell(Input::Tick);
    }

    /// A handler fails, or finishes the first message of its run.
    fn end_handler(&mut self, nth: usize, fails: bool) {
        let Some(&lane) = self.running.keys().nth(nth % self.running.len().max(1)) else { return };
        let offsets = self.running.get_mut(&lane).unwrap();
        let at = offsets.remove(0);
        if offsets.is_empty() || fails {
            self.running.remove(&lane);
        }
        if fails {
            *self.failures.entry(at).or_default() += 1;
            let failure = Failure::new(Reason::Error, FailureKind::Retryable, "no");
            self.tell(Input::Failed { partition: P, epoch: 1, lane, offset: at, failure });
        } else {
            let spans = vec![Span::one(at)];
            self.tell(Input::Finished { partition: P, epoch: 1, lane, spans });
        }
    }

    fn step(&mut self, choice: u32) {
        let rest = (choice / 16) as usize;
        match choice % 16 {
            0 => self.receive(1 + rest % 40),
            1 => self.pass(1 + rest as u64 % 15),
            // The first lane fails more often than others, and so the position stays.
            2..=4 => self.end_handler(0, !rest.is_multiple_of(40)),
            5 => self.end_handler(rest, true),
            6 if rest.is_multiple_of(3) => {
                let from = self.position + rest as u64 % 30;
                self.tell(Input::Crowded { partition: P, epoch: 1, from });
            }
            6 => {
                let messages = [0, 1, 3, u64::MAX][rest % 4];
                self.tell(Input::Memory { partition: P, epoch: 1, messages });
            }
            _ => self.end_handler(1 + rest % 30, false),
        }
    }

    /// Everything is done in the end.
    fn finish(&mut self) {
        let end = self.log.len() as u64;
        for _ in 0..40 * self.log.len() + 100 {
            if self.position == end {
                return;
            }
            self.receive(20);
            if self.running.is_empty() {
                self.pass(5);
            }
            self.end_handler(0, false);
        }
        panic!("it rests at {} of {end}", self.position);
    }
}

/// How many spans a commit listed at most.
fn live(order: Order, room: usize, log: Vec<Option<u64>>, choices: &[u32]) -> usize {
    let frame = usize::try_from(CommitMetadata::most_bytes(0, 0, 0)).unwrap();
    let mut rig = Rig::new(settings(order, frame + room), log);
    for &choice in choices {
        rig.step(choice);
    }
    rig.finish();
    rig.longest
}

fn log() -> impl Strategy<Value = Vec<Option<u64>>> {
    let message = prop_oneof![1 => Just(None), 7 => (0..30_u64).prop_map(Some)];
    prop::collection::vec(message, 1..300)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_commit_has_room_for_everything(
        log in log(),
        room in 0..60_usize,
        order in prop_oneof![Just(Order::Key), Just(Order::None), Just(Order::Partition)],
        choices in prop::collection::vec(any::<u32>(), 0..1_500),
    ) {
        live(order, room, log, &choices);
    }
}

/// The room is used: behind one message that fails, what is done is listed until it is full.
#[test]
fn a_stuck_message_is_passed_by_until_the_room_is_used_up() {
    let log: Vec<_> = (0..1_000).map(|at| Some(if at % 2 == 0 { 0 } else { at })).collect();
    let fail_first = 2 + 16;
    let choices: Vec<u32> = [16 * 39, fail_first, 16, 15 + 16 * 7, 1].repeat(200);
    let longest = live(Order::Key, 200, log, &choices);
    assert!((40..=100).contains(&longest), "{longest} spans of two bytes each in 200 bytes");
}
