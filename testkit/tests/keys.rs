//! Goal: in `order = key` a failing key delays itself only, and a new owner with an empty store
//! knows what is done beyond it and how often it has failed.
//! Method: the real driver on the model Kafka in virtual time.

mod driven;
mod wait;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use countersign::commit_metadata::disarm;
use countersign::handler::each;
use countersign::kafka::TopicPartition;
use countersign::simulation::RunError;
use countersign::statemachine::{Backoff, CommitMetadata};
use countersign::{HandlerError, Message, Order, Outputs, Processor, To};
use countersign_testkit::model::{Isolation, ModelKafka};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use wait::until;

const STUCK: &[u8] = b"k0";

/// What handlers were given, and how they behave.
#[derive(Debug, Default)]
struct Log {
    /// The attempt of each call, by offset.
    calls: Mutex<BTreeMap<u64, Vec<u32>>>,
    is_healed: AtomicBool,
}

impl Log {
    fn calls(&self) -> BTreeMap<u64, Vec<u32>> {
        self.calls.lock().expect("no handler panics").clone()
    }

    fn begun(&self, message: &Message) {
        let mut calls = self.calls.lock().expect("no handler panics");
        calls.entry(message.offset()).or_default().push(message.attempt());
    }

    fn heal(&self) {
        self.is_healed.store(true, Ordering::Relaxed);
    }

    /// How many messages of other keys were begun.
    fn others(&self, keys: u64) -> usize {
        self.calls().keys().filter(|&&offset| key_of(offset, keys) != 0).count()
    }
}

fn key_of(offset: u64, keys: u64) -> u64 {
    offset * 7_919 % keys
}

fn feed(kafka: &ModelKafka, topic: &str, messages: u64, keys: u64) {
    for offset in 0..messages {
        let key = format!("k{}", key_of(offset, keys));
        kafka.append(topic, 0, Some(key.as_bytes()), format!("{offset}").as_bytes());
    }
}

async fn handle(message: Message, log: Arc<Log>, wait: Duration) -> Result<Outputs, HandlerError> {
    log.begun(&message);
    sleep(wait).await;
    let record = message.record();
    if record.key() == Some(STUCK) && !log.is_healed.load(Ordering::Relaxed) {
        return Err(HandlerError::retryable("this key fails"));
    }
    let value = record.value().unwrap_or_default().to_vec();
    let partition = u32::from(&*record.partition().topic == "calm");
    Ok(To::topic("out").partition(partition).value(value).into())
}

/// An instance with an empty store; it reads and writes topics of its own name.
fn start(
    kafka: &ModelKafka,
    input: &str,
    instance: &str,
    log: &Arc<Log>,
    wait: Duration,
) -> JoinHandle<Result<(), RunError>> {
    let mut config = driven::config(input);
    instance.clone_into(&mut config.instance);
    config.order = Order::Key;
    config.concurrency = 16;
    config.retry.default.backoff = Backoff {
        base: Duration::from_millis(50),
        max: Duration::from_millis(500),
        ..Backoff::default()
    };
    let log = Arc::clone(log);
    let handler = each(move |message| handle(message, Arc::clone(&log), wait));
    let built = Processor::builder().config(config).handler(handler).build();
    driven::start(kafka, input, built.expect("the settings fit each other"))
}

fn metadata(kafka: &ModelKafka, group: &str) -> Option<(u64, CommitMetadata)> {
    let committed = kafka.committed(group, &TopicPartition::new(group, 0))?;
    let bytes = disarm(&committed.metadata).ok()?;
    let metadata = CommitMetadata::decode(committed.offset, &bytes).ok()?;
    Some((committed.offset, metadata))
}

/// The offsets whose outputs are visible, in the order of the output.
fn visible(kafka: &ModelKafka) -> Vec<u64> {
    let records = kafka.records("out", 0, Isolation::ReadCommitted).into_iter();
    let offset = |value: &[u8]| std::str::from_utf8(value).ok()?.parse().ok();
    records.filter_map(|record| offset(&record.value?)).collect()
}

fn check_outputs(kafka: &ModelKafka, messages: u64, keys: u64) {
    let visible = visible(kafka);
    let mut once = visible.clone();
    once.sort_unstable();
    assert!(once.iter().copied().eq(0..messages), "each message has one output");
    let stuck = visible.iter().filter(|&&offset| key_of(offset, keys) == 0);
    assert!(stuck.is_sorted(), "the order of the failing key is kept");
}

#[tokio::test(start_paused = true)]
async fn a_new_owner_with_an_empty_store_skips_what_is_done_and_knows_the_attempts() {
    const MESSAGES: u64 = 600;
    const KEYS: u64 = 101;
    let kafka = ModelKafka::default();
    kafka.create_topic("in", 1);
    kafka.create_topic("out", 1);
    feed(&kafka, "in", MESSAGES, KEYS);
    let is_stuck = |offset: u64| key_of(offset, KEYS) == 0;
    let others = (0..MESSAGES).filter(|&offset| !is_stuck(offset)).count() as u64;

    let first = Arc::new(Log::default());
    let run = start(&kafka, "in", "first", &first, Duration::ZERO);
    until("everything but the failing key, and its attempts", || {
        let Some((_, metadata)) = metadata(&kafka, "in") else { return false };
        let done: u64 = metadata.completed.iter().map(|span| span.len()).sum();
        done == others && metadata.attempts.first().is_some_and(|(_, attempt)| *attempt >= 3)
    })
    .await;
    run.abort();
    let _ = run.await;
    let (position, known) = metadata(&kafka, "in").expect("it was committed");
    assert_eq!((position, known.attempts.len()), (0, 1), "one message holds the position");
    let attempts = known.attempts[0].1;

    let second = Arc::new(Log::default());
    second.heal();
    let run = start(&kafka, "in", "second", &second, Duration::ZERO);
    until("everything", || metadata(&kafka, "in").is_some_and(|(at, _)| at == MESSAGES)).await;
    run.abort();
    let calls = second.calls();
    assert!(calls.keys().all(|&offset| is_stuck(offset)), "what is done ran again: {calls:?}");
    assert_eq!(calls[&0], [attempts + 1], "its attempts are known");
    assert!(calls.iter().skip(1).all(|(_, attempts)| *attempts == [1]), "{calls:?}");
    check_outputs(&kafka, MESSAGES, KEYS);
}

#[tokio::test(start_paused = true)]
async fn a_key_that_fails_for_ten_seconds_delays_no_other() {
    const MESSAGES: u64 = 20_000;
    const KEYS: u64 = 64;
    let kafka = ModelKafka::default();
    kafka.create_topic("out", 2);
    let sides = ["failing", "calm"].map(|side| {
        kafka.create_topic(side, 1);
        feed(&kafka, side, MESSAGES, KEYS);
        (side, Arc::new(Log::default()))
    });
    let [(_, failing), (_, calm)] = &sides;
    calm.heal();
    let wait = Duration::from_millis(10);
    let runs = sides.each_ref().map(|(side, log)| start(&kafka, side, side, log, wait));
    until("a start", || sides.iter().all(|(_, log)| log.others(KEYS) > 0)).await;
    sleep(Duration::from_secs(10)).await;
    let (with, without) = (failing.others(KEYS), calm.others(KEYS));
    assert!(without > 10_000 && (without as u64) < MESSAGES * 63 / 64, "the input is used up");
    assert!(with * 10 > without * 9, "{with} beside a failing key, {without} without one");
    assert_eq!(failing.calls().keys().filter(|&&at| key_of(at, KEYS) == 0).count(), 1);
    failing.heal();
    for (side, _) in &sides {
        until(side, || metadata(&kafka, side).is_some_and(|(at, _)| at == MESSAGES)).await;
    }
    runs.iter().for_each(JoinHandle::abort);
    check_outputs(&kafka, MESSAGES, KEYS);
    println!("{with} messages in 10 s beside a failing key, {without} without one");
}
