//! Kafka as far as a worker can tell, with the promise checked at every commit.

use std::collections::{BTreeMap, BTreeSet};

use countersign_statemachine::worker::{Commit, Label, Position, Time};
use countersign_statemachine::{Author, CommitMetadata, Disposition, Order, Span};

pub(crate) const TOPIC_ID: [u8; 16] = [7; 16];

/// One input partition.
#[derive(Debug, Default)]
pub(crate) struct Log {
    /// Whether there is a message at an offset, or a control record.
    pub(crate) messages: Vec<bool>,
    pub(crate) commit: Option<Commit>,
    /// Messages whose outputs are visible, in the present life of the group.
    pub(crate) done: BTreeSet<u64>,
    /// What this instance has made of them.
    pub(crate) made: BTreeMap<u64, Made>,
    /// The last message of each lane with a visible output of this instance, since the offset was
    /// last set.
    last_offset: BTreeMap<u64, u64>,
    /// Where the last visible output of each lane stands among all outputs.
    last_index: BTreeMap<u64, u64>,
}

/// What becomes visible of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Made {
    /// The outputs of its handler.
    Outputs,
    /// Its dead letter.
    Letter,
    /// Its dead letter, which an operator has ordered.
    OrderedLetter,
    /// Nothing: an operator has ordered to pass over it.
    Nothing,
}

/// An open transaction.
#[derive(Debug, Default)]
pub(crate) struct Open {
    pub(crate) records: Vec<Record>,
    pub(crate) offsets: Vec<Position>,
    pub(crate) began: Time,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Record {
    pub(crate) partition: u32,
    pub(crate) offset: u64,
    index: u64,
    made: Made,
}

/// The producer of a slot as the broker and librdkafka see it.
#[derive(Debug, Default)]
pub(crate) struct Producer {
    pub(crate) open: Option<Open>,
    /// Every call but `Open` fails like this.
    pub(crate) broken: Option<Disposition>,
}

#[derive(Debug)]
pub(crate) struct Kafka {
    pub(crate) order: Order,
    /// Whether some messages end the process that handles them.
    pub(crate) has_pills: bool,
    pub(crate) logs: Vec<Log>,
    pub(crate) producers: Vec<Producer>,
    outputs: u64,
}

/// The key of a message: some are frequent, and neighbours may share one.
pub(crate) fn key_of(offset: u64) -> u64 {
    [0, 1, 1, 2, 0, 3, 1, 4, 2, 0, 0][usize::try_from(offset % 11).unwrap()]
}

impl Log {
    pub(crate) fn end(&self) -> u64 {
        self.messages.len() as u64
    }

    pub(crate) fn is_message(&self, offset: u64) -> bool {
        self.messages.get(usize::try_from(offset).unwrap()).copied().unwrap_or(false)
    }

    /// The messages from an offset on, as dense spans.
    pub(crate) fn spans(&self, from: u64, to: u64) -> Vec<Span> {
        let mut spans: Vec<Span> = Vec::new();
        for offset in (from..to).filter(|&offset| self.is_message(offset)) {
            Span::one(offset).append_to(&mut spans);
        }
        spans
    }

    pub(crate) fn metadata(&self) -> Option<(u64, Option<CommitMetadata>)> {
        let commit = self.commit.as_ref()?;
        let metadata = match &commit.label {
            Label::Foreign(_) => None,
            Label::Ours(bytes) => Some(CommitMetadata::decode(commit.offset, bytes).unwrap()),
            Label::Unreadable(error) => panic!("a commit cannot be read: {error}"),
        };
        Some((commit.offset, metadata))
    }

    /// The messages that the commit says are done.
    pub(crate) fn committed(&self) -> BTreeSet<u64> {
        let Some((offset, metadata)) = self.metadata() else { return BTreeSet::new() };
        let completed = metadata.map(|metadata| metadata.completed).unwrap_or_default();
        let is_done = |at: &u64| *at < offset || completed.iter().any(|span| span.contains(*at));
        (0..self.end()).filter(is_done).filter(|&at| self.is_message(at)).collect()
    }

    /// The attempts that the commit tells.
    pub(crate) fn attempts(&self) -> BTreeMap<u64, u32> {
        let metadata = self.metadata().and_then(|(_, metadata)| metadata);
        metadata.into_iter().flat_map(|metadata| metadata.attempts).collect()
    }

    pub(crate) fn position(&self) -> u64 {
        self.commit.as_ref().map_or(0, |commit| commit.offset)
    }

    /// A tool sets the offset while nobody is in the group.
    pub(crate) fn reset(&mut self, offset: u64) {
        self.commit = Some(Commit { offset, label: Label::Foreign(String::new()) });
        self.last_offset.clear();
        self.made.clear();
        self.done = (0..offset).filter(|&at| self.is_message(at)).collect();
    }
}

impl Kafka {
    pub(crate) fn new(partitions: usize, slots: usize, order: Order) -> Self {
        Self {
            order,
            has_pills: false,
            logs: (0..partitions).map(|_| Log::default()).collect(),
            producers: (0..slots).map(|_| Producer::default()).collect(),
            outputs: 0,
        }
    }

    /// Messages of one lane keep their order.
    pub(crate) fn lane(&self, offset: u64) -> u64 {
        match self.order {
            Order::Partition => 0,
            Order::Key => key_of(offset),
            Order::None => offset,
        }
    }

    pub(crate) fn log(&mut self, partition: u32) -> &mut Log {
        &mut self.logs[partition as usize]
    }

    pub(crate) fn producer(&mut self, slot: u32) -> &mut Producer {
        &mut self.producers[slot as usize]
    }

    pub(crate) fn append(&mut self, slot: u32, partition: u32, made: &[(u64, Made)], now: Time) {
        let from = self.outputs;
        self.outputs += made.len() as u64;
        let producer = self.producer(slot);
        let open = producer.open.get_or_insert(Open { began: now, ..Open::default() });
        for (index, &(offset, made)) in (from..).zip(made) {
            open.records.push(Record { partition, offset, index, made });
        }
    }

    /// Whether a transaction that is not ended holds offsets of a partition back.
    pub(crate) fn has_pending_offsets(&self, partition: u32) -> bool {
        let open = self.producers.iter().filter_map(|producer| producer.open.as_ref());
        open.flat_map(|open| &open.offsets).any(|position| position.partition.0 == partition)
    }

    /// The end of a transaction that is committed: here the promise is checked.
    pub(crate) fn commit(&mut self, open: Open) {
        for Record { partition, offset, index, made } in open.records {
            let lane = self.lane(offset);
            let log = self.log(partition);
            assert!(log.is_message(offset), "there is no message {partition}@{offset}");
            assert!(log.done.insert(offset), "{partition}@{offset} is done twice");
            log.made.insert(offset, made);
            let last = log.last_offset.insert(lane, offset);
            assert!(last < Some(offset), "{partition}@{offset} comes after {last:?}");
            let last = log.last_index.insert(lane, index);
            assert!(last < Some(index), "the output of {partition}@{offset} is early");
        }
        for Position { partition, offset, metadata } in open.offsets {
            let log = self.log(partition.0);
            let before = log.position();
            assert!(before <= offset, "{partition:?} goes back from {before} to {offset}");
            assert!(offset <= log.end(), "{partition:?} goes beyond its end to {offset}");
            log.commit = Some(Commit { offset, label: Label::Ours(metadata) });
        }
        self.check();
    }

    /// What is visible is what the commits say, no more and no less.
    pub(crate) fn check(&self) {
        for (partition, log) in self.logs.iter().enumerate() {
            assert_eq!(log.done, log.committed(), "outputs and commit of partition {partition}");
        }
    }

    /// Another member of the group does some messages, and in an order of its own one or two later.
    pub(crate) fn others_do(&mut self, partition: u32, messages: u64, later: Option<Span>) {
        let index = self.outputs;
        self.outputs += messages + 1;
        let log = self.log(partition);
        let from = log.position();
        let offset = log.end().min(from + messages);
        let metadata = log.metadata().and_then(|(_, metadata)| metadata);
        let (prev, mut completed) = match metadata {
            Some(metadata) => (Some(metadata.author), metadata.completed),
            None => (None, Vec::new()),
        };
        completed.retain_mut(|span| {
            span.first = span.first.max(offset);
            span.first < span.end
        });
        if completed.is_empty() {
            let at = |span: Span| Span { first: offset + span.first, end: offset + span.end };
            let fits = |span: &Span| (span.first..span.end).all(|at| log.is_message(at));
            completed.extend(later.map(at).filter(fits));
        }
        let in_completed = completed.iter().flat_map(|span| span.first..span.end);
        let now_done: Vec<u64> =
            (from..offset).chain(in_completed).filter(|&at| log.is_message(at)).collect();
        log.done.extend(now_done);
        let metadata = CommitMetadata {
            author: Author { instance: "another".to_owned(), incarnation: 1, number: index },
            prev,
            topic_id: TOPIC_ID,
            completed,
            attempts: Vec::new(),
            released: later.is_none(),
            takeovers: 0,
            advanced: false,
            careful: None,
            trial: None,
            first_start: None,
        };
        let label = Label::Ours(metadata.encode(offset));
        log.commit = Some(Commit { offset, label });
        self.check();
    }
}
