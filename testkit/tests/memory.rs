//! Goal: partitions that are stuck leave the others their share of the memory, also those that come
//! later; what is read again is done once and in order; and however large outputs are, what is in
//! memory stays within the budget.
//! Method: the real driver on the model Kafka in virtual time.

mod driven;
mod wait;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use countersign::handler::each;
use countersign::kafka::TopicPartition;
use countersign::simulation::{self, Host, Probe};
use countersign::statemachine::worker::Effect;
use countersign::store::{MemoryImage, MemoryStore};
use countersign::{HandlerError, Message, Order, Outputs, Processor, To};
use countersign_testkit::model::{Isolation, ModelClient, ModelKafka};
use tokio::time::sleep;

use wait::until;

fn done(kafka: &ModelKafka, partition: u32) -> u64 {
    let partition = TopicPartition::new("in", partition);
    kafka.committed("in", &partition).map_or(0, |committed| committed.offset)
}

fn echo(message: &Message) -> Outputs {
    let partition = message.partition().partition;
    let value = message.record().value().unwrap_or_default().to_vec();
    Outputs::one(To::topic("out").partition(partition).value(value))
}

fn feed(kafka: &ModelKafka, partition: u32, messages: u64) {
    for n in 0..messages {
        kafka.append("in", partition, None, format!("{n}").as_bytes());
    }
}

/// What came out, by input partition, in the order of the output.
fn visible(kafka: &ModelKafka, partition: u32) -> Vec<u64> {
    let records = kafka.records("out", partition, Isolation::ReadCommitted).into_iter();
    let number = |value: &[u8]| std::str::from_utf8(value).ok()?.parse().ok();
    records.filter_map(|record| number(&record.value?)).collect()
}

fn processor(
    instance: &str,
    memory_bytes: usize,
    order: Order,
    handle: impl Fn(&Message) -> Result<Outputs, HandlerError> + Send + Sync + 'static,
) -> Processor {
    let mut config = driven::config("in");
    instance.clone_into(&mut config.instance);
    config.memory_bytes = memory_bytes;
    config.order = order;
    let handler = each(move |message: Message| {
        let result = handle(&message);
        async move { result }
    });
    Processor::builder().config(config).handler(handler).build().expect("the settings fit")
}

/// The first message of a partition below `stuck` fails until all is healed.
fn stuck(
    stuck: u32,
    is_healed: &Arc<AtomicBool>,
) -> impl Fn(&Message) -> Result<Outputs, HandlerError> + Send + Sync + use<> {
    let is_healed = Arc::clone(is_healed);
    move |message| {
        let fails = message.partition().partition < stuck && message.offset() == 0;
        if fails && !is_healed.load(Ordering::Relaxed) {
            return Err(HandlerError::retryable("not yet"));
        }
        Ok(echo(message))
    }
}

/// Two hold all the memory, and their first messages fail for ever.
#[tokio::test(start_paused = true)]
async fn partitions_that_are_stuck_do_not_starve_a_third() {
    const MESSAGES: u64 = 30_000;
    let kafka = ModelKafka::default();
    kafka.create_topic("in", 3);
    kafka.create_topic("out", 3);
    (0..3).for_each(|partition| feed(&kafka, partition, MESSAGES));
    let is_healed = Arc::new(AtomicBool::new(false));
    let processor = processor("one", 4 << 20, Order::Partition, stuck(2, &is_healed));
    let run = driven::start(&kafka, "in", processor);
    until("the healthy partition", || done(&kafka, 2) == MESSAGES).await;
    assert_eq!((done(&kafka, 0), done(&kafka, 1)), (0, 0));

    is_healed.store(true, Ordering::Relaxed);
    until("the others", || (0..2).all(|partition| done(&kafka, partition) == MESSAGES)).await;
    run.abort();
    for partition in 0..3 {
        assert!(visible(&kafka, partition).into_iter().eq(0..MESSAGES), "once and in order");
    }
}

/// One holds all the memory, and another partition is taken over from a member that dies.
#[tokio::test(start_paused = true)]
async fn a_partition_that_is_taken_over_later_gets_its_share() {
    let kafka = ModelKafka::default();
    kafka.create_topic("in", 2);
    kafka.create_topic("out", 2);
    feed(&kafka, 0, 30_000);
    let is_healed = Arc::new(AtomicBool::new(false));
    // Who has handled messages of the second partition last.
    let owner = Arc::new(Mutex::new(""));
    let start = |name: &'static str| {
        let (owner, handle) = (Arc::clone(&owner), stuck(1, &is_healed));
        let note = move |message: &Message| {
            if message.partition().partition == 1 {
                *owner.lock().expect("no handler panics") = name;
            }
            handle(message)
        };
        let process = kafka.client(ModelClient::new("in", &["in"]));
        let processor = processor(name, 4 << 20, Order::Partition, note);
        let store = Box::new(MemoryStore::new(MemoryImage::shared()));
        let kafka = Arc::new(process.clone());
        let run = simulation::run(processor, kafka, Host::Tasks, store, 1, None);
        (name, tokio::spawn(run), process)
    };
    let runs = ["a", "b"].map(start);
    until("two members", || kafka.group_state("in").is_some_and(|(_, members)| members == 2)).await;
    // Longer than it takes to share the partitions out and to fill the memory.
    sleep(Duration::from_secs(30)).await;
    feed(&kafka, 1, 1);
    until("who has the second", || done(&kafka, 1) == 1).await;
    let name = *owner.lock().expect("no handler panics");
    let (_, run, process) = runs.iter().find(|(of, ..)| *of == name).expect("it is one of them");
    process.crash();
    run.abort();
    (1..100).for_each(|n| {
        kafka.append("in", 1, None, format!("{n}").as_bytes());
    });
    until("it is taken over and done", || done(&kafka, 1) == 100).await;
    assert_eq!(done(&kafka, 0), 0);
    assert_ne!(*owner.lock().expect("no handler panics"), name);
    for (_, run, _) in &runs {
        run.abort();
    }
    assert!(visible(&kafka, 1).into_iter().eq(0..100), "once and in order");
}

/// What was made and is not released, as a worker's effects tell.
#[derive(Debug, Default)]
struct Held {
    made: AtomicU64,
    /// The position of each partition, and what is released beyond it.
    released: Mutex<BTreeMap<u32, (u64, BTreeSet<u64>)>>,
    most: AtomicU64,
}

impl Held {
    fn make(&self) {
        let made = self.made.fetch_add(1, Ordering::Relaxed) + 1;
        let released = self.released.lock().expect("nobody panics");
        let released = released.values().map(|(at, beyond)| at + beyond.len() as u64).sum::<u64>();
        self.most.fetch_max(made - released, Ordering::Relaxed);
    }

    fn note(&self, effect: &Effect) {
        if let Effect::Release { partition, offset, beyond: more } = effect {
            let mut released = self.released.lock().expect("nobody panics");
            let (position, beyond) = released.entry(partition.0).or_default();
            *position = *offset;
            beyond.extend(more.iter().flat_map(|span| span.first..span.end));
            *beyond = beyond.split_off(offset);
        }
    }
}

/// Every message of two partitions has an output of so many bytes; gives how many of them were held
/// at once at most.
async fn most_held(messages: u64, output: usize, memory_bytes: usize, order: Order) -> u64 {
    let kafka = ModelKafka::default();
    kafka.create_topic("in", 2);
    kafka.create_topic("out", 2);
    (0..2).for_each(|partition| feed(&kafka, partition, messages));
    let held = Arc::new(Held::default());
    let (making, noting) = (Arc::clone(&held), Arc::clone(&held));
    let processor = processor("one", memory_bytes, order, move |_: &Message| {
        making.make();
        Ok(Outputs::one(To::topic("out").value(vec![0; output])))
    });
    let process = kafka.client(ModelClient::new("in", &["in"]));
    let store = Box::new(MemoryStore::new(MemoryImage::shared()));
    let probe: Probe = Arc::new(move |_, effect| {
        noting.note(effect);
        true
    });
    let run = simulation::run(processor, Arc::new(process), Host::Tasks, store, 1, Some(probe));
    let run = tokio::spawn(run);
    until("all", || (0..2).all(|partition| done(&kafka, partition) == messages)).await;
    run.abort();
    held.most.load(Ordering::Relaxed)
}

/// Small messages with 20 kB of output each, in each order: results have half of the budget, and
/// one partition its part of that whatever the other holds.
#[tokio::test(start_paused = true)]
async fn large_outputs_stay_within_the_memory() {
    for order in [Order::Partition, Order::Key, Order::None] {
        let most = most_held(2_000, 20_000, 4 << 20, order).await * 20_000;
        // One message of each partition is handled at any cost.
        assert!(most <= (3 << 20) + 2 * 20_000, "{order:?}: {most} bytes of outputs at once");
        assert!(most >= 1 << 20, "{order:?}: only {most} bytes of outputs at once");
    }
}

/// Each output is larger than the memory: one after another, in each partition.
#[tokio::test(start_paused = true)]
async fn outputs_that_are_larger_than_the_memory_are_made_one_after_another() {
    let most = most_held(40, 100_000, 64 << 10, Order::Partition).await;
    assert!(most <= 2, "one of each partition, not {most}");
}

/// Hardly more than a message fits.
#[tokio::test(start_paused = true)]
async fn each_message_comes_out_once_with_hardly_any_memory() {
    const MESSAGES: u64 = 300;
    let kafka = ModelKafka::default();
    kafka.create_topic("in", 3);
    kafka.create_topic("out", 3);
    (0..3).for_each(|partition| feed(&kafka, partition, MESSAGES));
    let is_healed = Arc::new(AtomicBool::new(false));
    let run =
        driven::start(&kafka, "in", processor("one", 4_000, Order::None, stuck(1, &is_healed)));
    until("those that are not stuck", || (1..3).all(|at| done(&kafka, at) == MESSAGES)).await;
    is_healed.store(true, Ordering::Relaxed);
    until("all", || done(&kafka, 0) == MESSAGES).await;
    run.abort();
    for partition in 0..3 {
        let all: BTreeSet<u64> = visible(&kafka, partition).into_iter().collect();
        assert_eq!((all.len(), visible(&kafka, partition).len()), (300, 300), "once");
    }
}
