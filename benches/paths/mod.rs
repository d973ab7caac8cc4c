//! The hot paths, each to be run as often as wanted: what the benches and the guard measure.

#[path = "../traffic/mod.rs"]
mod traffic;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use countersign::handler;
use countersign::kafka::{Batch, BatchBuilder, Topic, TopicPartition};
use countersign::simulation;
use countersign::store::{Journal, JournalOptions, MemoryImage, MemoryStore};
use countersign::{Outputs, Partitioning, To};
use countersign_statemachine::worker::{Effect, Found, Input, Siblings, SlotEvent, Worker};
use countersign_statemachine::{PartitionId, Settings, Span};

/// A path, and what one run of it stands for.
pub(crate) type Path = (&'static str, fn(u64));

/// All of them.
pub(crate) const PATHS: &[Path] = &[
    ("batch: fill and read 1,000 records", batch),
    ("handler: copy 1,000 messages", copy),
    ("worker: a transaction of 4 partitions", worker),
    ("store: a transaction of 4 partitions", store),
];

const PARTITIONS: u32 = 4;

fn filled() -> Batch {
    let value = [b'v'; 200];
    let mut builder = BatchBuilder::new(TopicPartition::new("in", 0));
    builder.reserve(1_000, 1_000 * 204);
    for offset in 0..1_000 {
        builder.push(offset, Some(1_800_000_000_000), Some(b"k123"), Some(&value), []);
    }
    builder.build()
}

fn batch(times: u64) {
    for _ in 0..times {
        let batch = filled();
        let bytes = (0..batch.len()).filter_map(|index| batch.record(index));
        let bytes: usize = bytes.filter_map(|record| Some(record.value()?.len())).sum();
        assert_eq!(bytes, 200_000);
    }
}

fn copy(times: u64) {
    let topic = Topic { name: "out".into(), id: [1; 16], partitions: 1 };
    let batch = filled();
    for _ in 0..times {
        let name: Arc<str> = "out".into();
        let handler = handler::each(move |message| {
            let record = message.record();
            let copy = To::topic(Arc::clone(&name))
                .key_opt(record.key_bytes())
                .value_opt(record.value_bytes())
                .headers(record.headers())
                .partitioning(Partitioning::AsInput);
            std::future::ready(Ok(Outputs::one(copy)))
        });
        let handled = simulation::handle(handler, batch.clone(), std::slice::from_ref(&topic));
        assert_eq!(futures::executor::block_on(handled), 1_000);
    }
}

fn settings() -> Settings {
    Settings { transaction_records: 4_000, ..Settings::new("payments-a-0", 1) }
}

/// A worker whose effects are answered at once. Between what it is told there is time for a write
/// to the store.
struct Shell {
    worker: Worker,
    now: Duration,
}

impl Shell {
    fn tell(&mut self, input: Input) {
        self.now += Duration::from_millis(5);
        self.worker.handle(input, self.now);
        while let Some(effect) = self.worker.poll_effect() {
            if let Some(answer) = answer(effect) {
                self.worker.handle(answer, self.now);
            }
        }
    }
}

fn answer(effect: Effect) -> Option<Input> {
    match effect {
        Effect::Open { slot, .. } => Some(Input::Slot(slot, SlotEvent::Opened)),
        Effect::Recover(begun) => {
            let found = Found {
                commit: None,
                siblings: Siblings::None(None),
                known: false,
                log_start: 0,
                log_end: 0,
                topic_id: [7; 16],
                runs: Vec::new(),
            };
            let found = |(id, epoch)| (id, epoch, found.clone());
            Some(Input::Recovered(begun.into_iter().map(found).collect()))
        }
        Effect::Write { write, .. } => Some(Input::Stored { write }),
        Effect::Handle { partition, epoch, lane, spans, .. } => {
            Some(Input::Finished { partition, epoch, lane, spans })
        }
        Effect::AskSolo => Some(Input::Solo),
        Effect::Flush { slot } => {
            Some(Input::Slot(slot, SlotEvent::Flushed { outputs: Vec::new() }))
        }
        Effect::Commit { slot, .. } => {
            Some(Input::Slot(slot, SlotEvent::Committed { suspicious: false }))
        }
        Effect::Assign(_)
        | Effect::Fetch(_)
        | Effect::Unassign(_)
        | Effect::Leave
        | Effect::AskAgain(_)
        | Effect::AskUncommitted(_)
        | Effect::EndSolo
        | Effect::DeadLetter(_)
        | Effect::Skip { .. }
        | Effect::Cancel { .. }
        | Effect::Answer { .. }
        | Effect::Interrupt { .. }
        | Effect::Halt { .. }
        | Effect::Forget { .. }
        | Effect::ReadAgain { .. }
        | Effect::Release { .. }
        | Effect::Send { .. }
        | Effect::Abort { .. }
        | Effect::ReadCommits { .. }
        | Effect::Notice(_)
        | Effect::Stop(_) => None,
    }
}

fn worker(times: u64) {
    let now = Duration::ZERO;
    let mut shell = Shell { worker: Worker::new(settings(), now), now };
    let ids: Vec<PartitionId> = (0..PARTITIONS).map(PartitionId).collect();
    shell.tell(Input::Tick);
    shell.tell(Input::Assigned(ids.clone()));
    for turn in 0..times {
        let span = Span { first: turn * 1_000, end: (turn + 1) * 1_000 };
        for (partition, epoch) in ids.iter().copied().zip(1..) {
            shell.tell(Input::Received { partition, epoch, spans: vec![span], keys: Vec::new() });
        }
    }
    let done = shell.worker.counts().confirmed;
    assert!(done + 4_000 >= times * 1_000 * u64::from(PARTITIONS), "{done} of {times} turns");
}

fn store(times: u64) {
    let memory = MemoryStore::new(Arc::new(Mutex::new(MemoryImage::default())));
    let mut journal =
        Journal::open(Box::new(memory), &traffic::identity(), JournalOptions::new(1, 0))
            .expect("it is a new store");
    let intern = |partition| journal.intern("orders", partition, [7; 16]);
    let ids: Vec<PartitionId> =
        (0..PARTITIONS).map(intern).collect::<Result<_, _>>().expect("there is room");
    let mut riding = Vec::new();
    for number in 0..times {
        let span = Span { first: number * 1_000, end: (number + 1) * 1_000 };
        riding.extend(traffic::signed_in(span, &ids));
        journal.append(&riding, number).expect("the entries follow each other");
        journal.flush().expect("memory does not fail");
        riding.clear();
        riding.extend(traffic::committed(1, number, span, &ids));
    }
}
