//! Goal: a group that starts at the end reads nothing that was there before, whichever member is
//! first, and everything that came later, whoever takes it up.
//! Method: the real driver on the model Kafka in virtual time.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod driven;
mod wait;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use countersign::commit_metadata::disarm;
use countersign::handler::each;
use countersign::kafka::TopicPartition;
use countersign::simulation::{self, Host, RunError};
use countersign::statemachine::StartAt;
use countersign::store::{MemoryImage, MemoryStore};
use countersign::{Message, Outputs, Processor, To};
use countersign_testkit::model::{Call, Fault, Isolation, ModelClient, ModelKafka, ModelProcess};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use wait::until;

/// Of a static member: longer than anything here takes.
const SESSION_MS: u64 = 7_200_000;

struct Member {
    run: JoinHandle<Result<(), RunError>>,
    process: ModelProcess,
}

impl Member {
    /// Ends as by `kill -9`.
    async fn crash(self) {
        self.run.abort();
        self.process.crash();
        let _ = self.run.await;
    }
}

/// A static member with an empty store: it is given at once what one of its name had.
fn start(kafka: &ModelKafka, name: &str, start: StartAt) -> Member {
    let mut config = driven::config("in");
    name.clone_into(&mut config.instance);
    config.start = start;
    let handle = |message: Message| {
        let value = message.record().value().unwrap_or_default().to_vec();
        std::future::ready(Ok(Outputs::one(To::topic("out").value(value))))
    };
    let built = Processor::builder().config(config).handler(each(handle)).build();
    let instance = Some(name.to_owned());
    let new = ModelClient::new("in", &["in"]);
    let process = kafka.client(ModelClient { instance, session_timeout_ms: SESSION_MS, ..new });
    let store = Box::new(MemoryStore::new(MemoryImage::shared()));
    let on = Arc::new(process.clone());
    let incarnation = next_incarnation();
    let run = simulation::run(built.unwrap(), on, Host::Tasks, store, incarnation, None);
    Member { run: tokio::spawn(run), process }
}

/// Each start of a process has another one.
fn next_incarnation() -> u64 {
    static STARTS: AtomicU64 = AtomicU64::new(1);
    STARTS.fetch_add(1, Ordering::Relaxed) << 40
}

/// A group of two static members that has no commit, and 1,000 old messages in each of four
/// partitions: both are given their partitions at the same time.
async fn two_members_at_once() -> ModelKafka {
    let kafka = ModelKafka::default();
    kafka.create_topic("in", 4);
    kafka.create_topic("out", 1);
    let members = ["a", "b"].map(|name| start(&kafka, name, StartAt::Latest));
    until("all have a commit", || commits(&kafka, 4) == 4).await;
    sleep(Duration::from_secs(30)).await;
    for member in members {
        member.crash().await;
    }
    until("no transaction is open", || kafka.open_transactions().is_empty()).await;
    for partition in 0..4 {
        kafka.expire_offset("in", &TopicPartition::new("in", partition));
        write(&kafka, partition, "old", 1_000);
    }
    kafka
}

fn write(kafka: &ModelKafka, partition: u32, what: &str, n: u64) {
    for _ in 0..n {
        kafka.append("in", partition, None, format!("{what} of {partition}").as_bytes());
    }
}

/// How often each value was written out.
fn seen(kafka: &ModelKafka) -> BTreeMap<String, usize> {
    let mut seen = BTreeMap::new();
    for record in kafka.records("out", 0, Isolation::ReadCommitted) {
        let value = String::from_utf8(record.value.unwrap().to_vec()).unwrap();
        *seen.entry(value).or_default() += 1;
    }
    seen
}

fn all(kafka: &ModelKafka) -> usize {
    seen(kafka).values().sum()
}

/// Ten new messages of each partition, and nothing else.
fn new_of(partitions: impl IntoIterator<Item = u32>) -> BTreeMap<String, usize> {
    partitions.into_iter().map(|partition| (format!("new of {partition}"), 10)).collect()
}

fn commits(kafka: &ModelKafka, partitions: u32) -> usize {
    let committed = |p: &u32| kafka.committed("in", &TopicPartition::new("in", *p)).is_some();
    (0..partitions).filter(committed).count()
}

#[tokio::test(start_paused = true)]
async fn nothing_old_is_read_whichever_member_is_first() {
    for slow_ms in [0, 400, 3_000] {
        let kafka = two_members_at_once().await;
        let slow = Fault::Delay(Duration::from_millis(slow_ms));
        kafka.fault_after(Call::InitProducerId, 2, slow);
        let _members = ["a", "b"].map(|name| start(&kafka, name, StartAt::Latest));
        until("all have a commit", || commits(&kafka, 4) == 4).await;
        for partition in 0..4 {
            write(&kafka, partition, "new", 10);
        }
        until("40 outputs", || all(&kafka) >= 40).await;
        sleep(Duration::from_secs(5)).await;
        assert_eq!(seen(&kafka), new_of(0..4), "{slow_ms} ms slower");
    }
}

/// One of the two dies before its first commit, and the other one goes on for `rest`: what comes to
/// the partitions of the first one is not lost.
async fn taken_up_later(rest: Duration, heir: StartAt, added: u32) {
    let kafka = two_members_at_once().await;
    kafka.fault_after(Call::InitProducerId, 2, Fault::CrashBefore);
    let members = ["a", "b"].map(|name| start(&kafka, name, StartAt::Latest));
    until("one has its commits", || commits(&kafka, 4) == 2).await;
    for partition in 0..4 {
        write(&kafka, partition, "new", 10);
    }
    until("20 outputs", || all(&kafka) == 20).await;
    sleep(rest).await;
    for member in members {
        member.crash().await;
    }
    let partitions = 4 + added;
    if added > 0 {
        kafka.add_partitions("in", added);
    }
    for partition in 4..partitions {
        write(&kafka, partition, "new", 10);
    }
    let _heirs = ["a", "b"].map(|name| start(&kafka, name, heir));
    let wanted = new_of(0..partitions);
    until("the rest", || all(&kafka) >= wanted.values().sum()).await;
    sleep(Duration::from_secs(5)).await;
    assert_eq!(seen(&kafka), wanted, "after {rest:?}, {heir:?}, {added} added");
}

#[tokio::test(start_paused = true)]
async fn a_partition_that_is_taken_up_later_begins_where_it_ended_then() {
    for rest in [Duration::ZERO, Duration::from_secs(600)] {
        for heir in [StartAt::Latest, StartAt::Earliest] {
            taken_up_later(rest, heir, 0).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_partition_that_was_added_later_is_read_from_its_beginning() {
    taken_up_later(Duration::from_secs(600), StartAt::Latest, 2).await;
}

/// What the first commit says of the others is dropped once they all have one.
#[tokio::test(start_paused = true)]
async fn partitions_added_to_a_group_that_began_long_ago_are_read_from_their_beginning() {
    let kafka = two_members_at_once().await;
    let _members = ["a", "b"].map(|name| start(&kafka, name, StartAt::Latest));
    until("all have a commit", || commits(&kafka, 4) == 4).await;
    sleep(Duration::from_secs(600)).await;
    for partition in 0..4 {
        // The version of the metadata, which older instances read.
        let committed = kafka.committed("in", &TopicPartition::new("in", partition)).unwrap();
        assert_eq!(disarm(&committed.metadata).unwrap()[0], 1, "of {partition}");
    }
    kafka.add_partitions("in", 1);
    write(&kafka, 4, "new", 10);
    until("10 outputs", || all(&kafka) == 10).await;
    assert_eq!(seen(&kafka), new_of([4]));
}
