//! A worker in a small world: Kafka, a store, handlers and a group, moved by choices.
//!
//! Everything the worker asks for is queued and done later, in any order that a shell could do it
//! in, with any outcome that Kafka could give it. What the worker promises is checked at each step.

mod kafka;
mod shell;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use countersign_statemachine::worker::{
    Call, Cause, Commit, Effect, Failure, FailureKind, Found, GivenUp, Input, Intervention, Label,
    Notice, Obstacle, Position, Refusal, SlotEvent, Start, StopReason, Time, Worker,
};
use countersign_statemachine::{
    Author, Backoff, BreakerAction, BreakerSettings, CommitMetadata, Disposition, Entry, GiveUp,
    Order, PartitionId, Reason, Retries, RetryPolicy, Runs, Settings, Span, Trial, Verb,
};

pub(crate) use kafka::{Kafka, TOPIC_ID};
use kafka::{Made, Open};

pub(crate) const PARTITIONS: u32 = 3;
const LOG_MAX: u64 = 60;

/// A class of errors that may be tried more often, and not for long.
const HASTY: &str = "hasty";

fn backoff(base: u64, max: u64) -> Backoff {
    Backoff {
        base: Duration::from_millis(base),
        max: Duration::from_millis(max),
        ..Backoff::default()
    }
}

fn retries() -> Retries {
    let backoff = backoff(10, 40);
    let default = RetryPolicy { backoff, attempts: Some(3), budget: None };
    let budget = Some(Duration::from_millis(50));
    let hasty = RetryPolicy { attempts: Some(6), budget, ..default };
    Retries { default, classes: [(HASTY.to_owned(), hasty)].into() }
}

pub(crate) fn settings(slots: u32) -> Settings {
    Settings {
        slots,
        commit_interval: Duration::from_millis(20),
        transaction_records: 4,
        transaction_bytes: 200,
        transaction_timeout: Duration::from_secs(2),
        handle_records: 3,
        takeover_records: 4,
        concurrency: 5,
        // Room for a few spans.
        metadata_bytes: 296,
        leave_budget: Duration::from_millis(500),
        close_budget: Duration::from_millis(200),
        retry: retries(),
        give_up: GiveUp::DeadLetter,
        breaker: Some(BreakerSettings {
            row: 5,
            share: 0.6,
            window: 12,
            probe: backoff(10, 40),
            action: BreakerAction::Probe,
        }),
        abort_backoff: backoff(5, 20),
        seed: 7,
        ..Settings::new("w0", 1)
    }
}

/// A number that many small choices are taken from; zero always takes the first.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Choice(pub(crate) u64);

impl Choice {
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        let taken = self.0 % n;
        self.0 /= n;
        taken
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == n - 1
    }

    fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).unwrap()
    }

    fn partition(&mut self) -> u32 {
        u32::try_from(self.below(u64::from(PARTITIONS))).unwrap()
    }
}

/// What the group waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Wanted {
    Assign(Vec<PartitionId>),
    Unassign(Vec<PartitionId>),
}

/// How far a slot's producer is, by what it was asked and what it replied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ready {
    Opening,
    Idle,
    Filling,
    Flushing,
    Flushed,
    Committing,
    Aborting,
    /// It must be opened before its next transaction.
    Suspicious,
    /// A call failed: abort or open.
    Failed,
    /// Only opening helps.
    Dead,
}

#[derive(Debug)]
struct Running {
    epoch: u64,
    offsets: VecDeque<u64>,
    interrupted: bool,
    solo: bool,
    at_any_cost: bool,
    /// From which message on it is to stop.
    cancelled: Option<u64>,
}

/// Whether the worker may run a handler that nothing runs beside.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Solo {
    #[default]
    No,
    Asked,
    Ours,
}

/// What the store thread does, in order.
#[derive(Debug)]
enum Job {
    Write(u64, Vec<Entry>),
    Recover(PartitionId, u64),
}

/// Everything that dies with the process.
#[derive(Debug, Default)]
struct Process {
    jobs: VecDeque<Job>,
    slots: Vec<VecDeque<Effect>>,
    ready: Vec<Option<Ready>>,
    reads: Vec<(u64, Vec<PartitionId>)>,
    /// By partition and lane.
    running: BTreeMap<(u32, u64), Running>,
    solo: Solo,
    results: BTreeMap<u32, BTreeMap<u64, Made>>,
    /// Orders of an operator that are not answered.
    orders: BTreeMap<u64, (u32, u64, Verb)>,
    /// The message that was tried last.
    tried: Option<(u32, u64)>,
    /// Messages whose attempts an operator has told to forget.
    anew: BTreeSet<(u32, u64)>,
    epochs: BTreeMap<u32, u64>,
    /// What the group's assignments were answered with.
    assigned: BTreeSet<PartitionId>,
    /// Partitions that Kafka does not tell of, and how often still.
    sick: BTreeMap<u32, u64>,
    fetch: BTreeMap<u32, u64>,
    /// How many messages of a partition may be under way, in an ownership.
    memory: BTreeMap<(u32, u64), u64>,
    at_end: BTreeMap<u32, u64>,
    /// What recovery made of them is not written yet.
    recovered: BTreeSet<u32>,
    wanted: VecDeque<Wanted>,
    /// The slots that must be opened once more.
    outdated: BTreeSet<u32>,
    draining: bool,
    /// When it began to leave the group.
    left: Option<Duration>,
    stopped: Option<Result<(), StopReason>>,
}

/// What the group thinks of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Member {
    /// It belongs to nobody, or to another member.
    Free,
    Ours,
    /// It was ours, and the group has given it up without asking.
    Lost,
}

pub(crate) struct World {
    pub(crate) settings: Settings,
    pub(crate) worker: Worker,
    pub(crate) kafka: Kafka,
    pub(crate) now: Time,
    process: Process,
    /// The flushed record, and one of an earlier time.
    store: BTreeMap<u32, Runs>,
    old_store: BTreeMap<u32, Runs>,
    group: Vec<Member>,
    /// Processes that ended while a message was announced: the message, and who had announced it.
    deaths: BTreeSet<((u32, u64), (u64, u64))>,
    /// Outputs that Kafka refuses, and how often still.
    refused: BTreeMap<(u32, u64), u64>,
    fenced_by_another: bool,
    was_fenced: bool,
    healing: bool,
    pub(crate) begun: u64,
    orders: u64,
    /// The orders that may have been carried out: nobody has said that they are not.
    ordered: BTreeMap<(u32, u64, Verb), BTreeSet<u64>>,
    pub(crate) trace: Vec<String>,
}

impl World {
    pub(crate) fn new(settings: Settings) -> Self {
        let now = Duration::from_secs(1);
        let slots = settings.slots as usize;
        let order = settings.order;
        let mut world = Self {
            worker: Worker::new(settings.clone(), now),
            settings,
            kafka: Kafka::new(PARTITIONS as usize, slots, order),
            now,
            process: Process::new(slots),
            store: BTreeMap::new(),
            old_store: BTreeMap::new(),
            group: vec![Member::Free; PARTITIONS as usize],
            deaths: BTreeSet::new(),
            refused: BTreeMap::new(),
            fenced_by_another: false,
            was_fenced: false,
            healing: false,
            begun: 0,
            orders: 0,
            ordered: BTreeMap::new(),
            trace: Vec::new(),
        };
        world.collect();
        world
    }

    /// One step, by choice. Impossible choices do nothing.
    pub(crate) fn step(&mut self, mut choice: Choice) {
        match choice.below(25) {
            0..=3 => self.fetch(&mut choice),
            4..=7 => self.run_handler(&mut choice),
            8..=12 => self.run_slot(&mut choice),
            13..=15 => self.run_store(),
            16 => {
                self.answer_read(&mut choice);
                self.grant_solo();
            }
            17 => self.produce(&mut choice),
            18 => {
                let ms = choice.below(30);
                self.pass(Duration::from_millis(ms));
            }
            19 | 20 => self.rebalance(&mut choice),
            21 => self.pass_to_timeout(),
            22 => self.others(&mut choice),
            23 => self.intervene(&mut choice),
            _ => self.disturb(&mut choice),
        }
        if self.process.stopped.is_some() {
            self.restart(&mut choice);
        }
    }

    /// One step of a time in which messages end processes, and people decide about them.
    pub(crate) fn step_with_orders(&mut self, mut choice: Choice) {
        match choice.below(12) {
            0..=2 => self.intervene(&mut choice),
            3 => self.crash(&mut choice),
            _ => self.step(choice),
        }
    }

    /// One step of a time in which members come and go in good order and handlers are slow.
    pub(crate) fn step_in_order(&mut self, mut choice: Choice) {
        self.healing = true;
        match choice.below(8) {
            0 | 1 => self.fetch(&mut choice),
            2 if choice.one_in(3) => self.run_handler(&mut choice),
            2..=4 => {
                let until = self.now + Duration::from_millis(choice.below(400));
                while let Some(due) = self.worker.poll_timeout().filter(|&due| due <= until) {
                    self.pass(due.saturating_sub(self.now));
                    self.do_all(&mut choice);
                }
                self.pass(until.saturating_sub(self.now));
            }
            5 => self.rebalance_in_order(Member::Free, &mut choice),
            6 => self.rebalance_in_order(Member::Ours, &mut choice),
            _ if self.process.draining => {}
            _ => self.drain(),
        }
        self.do_all(&mut choice);
        for metadata in self.kafka.logs.iter().filter_map(|log| log.metadata()?.1) {
            assert_eq!((metadata.takeovers, metadata.careful), (0, None), "nobody has died");
        }
    }

    fn rebalance_in_order(&mut self, member: Member, choice: &mut Choice) {
        if self.process.left.is_some() || !self.process.wanted.is_empty() {
            return;
        }
        let ids = (0..PARTITIONS).filter(|&p| self.group[p as usize] == member);
        let ids: Vec<_> = ids.filter(|_| choice.below(3) > 0).map(PartitionId).collect();
        match member {
            _ if ids.is_empty() => {}
            Member::Free => self.assign(ids),
            Member::Ours => self.revoke(ids),
            Member::Lost => unreachable!("nothing is lost in good order"),
        }
    }

    /// Two owners have ended without a word, the last one perhaps with a message announced.
    pub(crate) fn haunt(&mut self, is_announced: bool) {
        for partition in 0..PARTITIONS {
            let log = self.kafka.log(partition);
            let author = Author { instance: "former".to_owned(), incarnation: 1, number: 1 };
            let trial = Trial { offset: 1, deliveries: 1, announced: true };
            let metadata = CommitMetadata {
                prev: Some(author.clone()),
                author,
                topic_id: TOPIC_ID,
                completed: Vec::new(),
                attempts: Vec::new(),
                released: false,
                takeovers: 1,
                advanced: false,
                careful: None,
                trial: is_announced.then_some(trial),
                first_start: None,
            };
            let label = Label::Ours(metadata.encode(0));
            log.commit = Some(Commit { offset: 0, label });
        }
    }

    fn disturb(&mut self, choice: &mut Choice) {
        match choice.below(14) {
            13 => self.sicken(choice),
            10..=12 => self.run_short(choice),
            9 => {
                let ended = self.worker.counts();
                let number = ended.committed + ended.aborted + choice.below(3);
                let (messages, bytes) = (choice.below(4), choice.below(300));
                self.tell(Input::Weighed { number, messages, bytes });
                if choice.one_in(2) {
                    self.tell(Input::Large { number });
                }
            }
            8 => {
                self.process.outdate();
                self.tell(Input::Outdated);
            }
            0 | 1 => self.crash(choice),
            2 => self.pass(Duration::from_millis(2100)),
            3 => self.drain(),
            4 => self.fenced_by_another = true,
            5 => self.pass(Duration::from_millis(600)),
            _ => {
                let partition = choice.partition();
                let log = self.kafka.log(partition);
                let offset = log.position() + choice.below(6);
                if log.is_message(offset) && !log.done.contains(&offset) {
                    self.refused.insert((partition, offset), 1 + choice.below(2));
                }
            }
        }
    }

    /// Others need the memory, or it is theirs no more.
    fn run_short(&mut self, choice: &mut Choice) {
        let id = choice.partition();
        let Some(&epoch) = self.process.epochs.get(&id) else { return };
        let partition = PartitionId(id);
        if choice.one_in(2) {
            let messages = [0, 1, 4, u64::MAX][choice.index(4)];
            self.process.memory.insert((id, epoch), messages);
            self.tell(Input::Memory { partition, epoch, messages });
        } else {
            let from = self.kafka.log(id).position() + choice.below(8);
            self.tell(Input::Crowded { partition, epoch, from });
        }
    }

    /// Tells the worker, and takes what it asks for.
    pub(crate) fn tell(&mut self, input: Input) {
        self.trace.push(format!("{:?} <- {input:?}", self.now));
        self.worker.handle(input, self.now);
        self.collect();
        if let Some(due) = self.worker.poll_timeout() {
            assert!(due > self.now, "a timer in the past makes a busy loop");
        }
    }

    fn collect(&mut self) {
        let mut effects = 0;
        while let Some(effect) = self.worker.poll_effect() {
            effects += 1;
            assert!(effects < 200, "one input has no end of effects");
            self.trace.push(format!("    -> {effect:?}"));
            assert_eq!(self.process.stopped, None, "nothing follows Stop, but {effect:?}");
            self.perform(effect);
        }
    }

    pub(crate) fn pass(&mut self, time: Duration) {
        self.now += time;
        self.tell(Input::Tick);
    }

    fn pass_to_timeout(&mut self) {
        if let Some(due) = self.worker.poll_timeout() {
            self.now = due;
            self.tell(Input::Tick);
        }
    }

    fn produce(&mut self, choice: &mut Choice) {
        let partition = choice.partition();
        let log = self.kafka.log(partition);
        for _ in 0..=choice.below(5) {
            if log.end() < LOG_MAX {
                let message = !choice.one_in(4);
                log.messages.push(message);
            }
        }
    }

    fn rebalance(&mut self, choice: &mut Choice) {
        if self.process.left.is_some() || self.process.wanted.len() > 1 {
            return;
        }
        let kind = choice.below(6);
        let member = if kind < 3 { Member::Free } else { Member::Ours };
        let ids: Vec<PartitionId> = (0..PARTITIONS)
            .filter(|&p| self.group[p as usize] == member && !self.kafka.has_pending_offsets(p))
            .filter(|&p| !self.process.is_let_go(p))
            .filter(|_| kind == 0 || choice.below(3) > 0)
            .map(PartitionId)
            .collect();
        if !ids.is_empty() {
            match kind {
                0..=2 => self.assign(ids),
                3 | 4 => self.revoke(ids),
                _ => self.lose(ids),
            }
        }
    }

    /// Some of what is given next cannot be taken up at once.
    fn sicken(&mut self, choice: &mut Choice) {
        let times = choice.below(4);
        self.process.sick.insert(choice.partition(), times);
    }

    pub(crate) fn assign(&mut self, ids: Vec<PartitionId>) {
        for id in &ids {
            self.group[id.0 as usize] = Member::Ours;
        }
        self.process.wanted.push_back(Wanted::Assign(ids.clone()));
        self.tell(Input::Assigned(ids));
    }

    pub(crate) fn revoke(&mut self, ids: Vec<PartitionId>) {
        self.process.wanted.push_back(Wanted::Unassign(ids.clone()));
        self.tell(Input::Revoked(ids));
    }

    fn lose(&mut self, ids: Vec<PartitionId>) {
        for id in &ids {
            self.group[id.0 as usize] = Member::Lost;
        }
        self.process.wanted.push_back(Wanted::Unassign(ids.clone()));
        self.tell(Input::Lost(ids));
    }

    /// Another member of the group does something with what is not ours; or a tool, with the whole
    /// group away, sets an offset.
    fn others(&mut self, choice: &mut Choice) {
        let partition = choice.partition();
        let held = self.kafka.has_pending_offsets(partition);
        if self.group[partition as usize] == Member::Ours || held {
            return;
        }
        self.trace.push(format!("{:?} other members do some of {partition}", self.now));
        let messages = choice.below(4);
        let first = 1 + choice.below(4);
        let end = first + 1 + choice.below(2);
        let later = choice.one_in(2).then_some(Span { first, end });
        self.kafka.others_do(partition, messages, later);
    }

    pub(crate) fn drain(&mut self) {
        self.process.draining = true;
        self.tell(Input::Drain);
    }

    /// The process dies: of what it asked for, some is still done.
    pub(crate) fn crash(&mut self, choice: &mut Choice) {
        self.trace.push(format!("{:?} crash", self.now));
        for slot in 0..self.settings.slots {
            let next = self.process.slots[slot as usize].pop_front();
            if let Some(Effect::Commit { offsets, .. }) = next
                && self.kafka.producer(slot).broken.is_none()
                && choice.one_in(2)
                && offsets.iter().all(|p| self.group[p.partition.0 as usize] == Member::Ours)
            {
                let mut open = self.kafka.producer(slot).open.take().unwrap_or_default();
                open.offsets = offsets;
                self.kafka.commit(open);
            }
        }
        for _ in 0..choice.below(3) {
            if let Some(Job::Write(_, entries)) = self.process.jobs.pop_front() {
                self.apply(&entries);
            }
        }
        self.restart(choice);
    }

    /// A later message of the same key takes the place of one that is not done.
    fn compact(&mut self, choice: &mut Choice) {
        let partition = choice.partition();
        if self.kafka.producers.iter().any(|producer| producer.open.is_some()) {
            return;
        }
        let log = self.kafka.log(partition);
        let offset = log.position() + choice.below(4);
        if offset < log.end() && !log.done.contains(&offset) {
            self.trace.push(format!("{partition}@{offset} is compacted away"));
            log.messages[usize::try_from(offset).unwrap()] = false;
        }
    }

    /// A new process of the same instance.
    fn restart(&mut self, choice: &mut Choice) {
        self.trace.push(format!("{:?} restart", self.now));
        match choice.below(6) {
            0 => self.store.clear(),
            1 => self.store = self.old_store.clone(),
            2 => self.old_store = self.store.clone(),
            _ => {}
        }
        self.group = vec![Member::Free; PARTITIONS as usize];
        if !self.healing && choice.one_in(4) {
            let partition = choice.partition();
            let held = self.kafka.has_pending_offsets(partition);
            let log = self.kafka.log(partition);
            if !held && log.commit.is_some() {
                let offset = choice.below(log.end() + 1);
                self.trace.push(format!("a tool sets {partition} to {offset}"));
                log.reset(offset);
            }
        }
        if !self.healing && choice.one_in(3) {
            self.compact(choice);
        }
        // A log whose commits are gone while the store knows it is a story of its own.
        let known: Vec<u32> = self.store.keys().copied().collect();
        for partition in known {
            if self.kafka.log(partition).commit.is_none() {
                self.store.remove(&partition);
            }
        }
        self.settings.incarnation += 1 << 32;
        self.settings.process = self.settings.incarnation;
        self.process = Process::new(self.settings.slots as usize);
        self.fenced_by_another = false;
        self.was_fenced = false;
        self.worker = Worker::new(self.settings.clone(), self.now);
        self.collect();
    }
}
