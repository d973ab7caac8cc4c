//! Goal: a partition that cannot be taken up, because it has no leader or another owner's
//! transaction holds its offset, holds no other one back; it is told, and begins once it can.
//! Method: the real driver on the model Kafka in virtual time.

mod driven;
mod heard;
mod wait;

use std::future::ready;
use std::time::Duration;

use countersign::handler::each;
use countersign::kafka::{CommitOffset, Consumer, Kafka, Producer, Sizes, TopicPartition};
use countersign::{Message, Outputs, Processor, To};
use countersign_testkit::conformance::Reader;
use countersign_testkit::model::{Isolation, ModelClient, ModelKafka};
use tokio::time::{Instant, sleep};

use wait::until;

const EACH: usize = 100;

fn cluster(partitions: u32) -> ModelKafka {
    let kafka = ModelKafka::default();
    kafka.create_topic("in", partitions);
    kafka.create_topic("out", 1);
    for partition in 0..partitions {
        for n in 0..EACH {
            kafka.append("in", partition, None, format!("{partition} {n}").as_bytes());
        }
    }
    kafka
}

fn copying() -> Processor {
    let handler = each(|message: Message| {
        let value = message.record().value().unwrap_or_default().to_vec();
        ready(Ok(Outputs::one(To::topic("out").value(value))))
    });
    let built = Processor::builder().config(driven::config("in")).handler(handler).build();
    built.expect("the settings fit each other")
}

/// How many messages of a partition came out, each once and in order.
fn copied(kafka: &ModelKafka, partition: u32) -> usize {
    let records = kafka.records("out", 0, Isolation::ReadCommitted);
    let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
    let values = records.into_iter().map(|record| text(&record.value.unwrap_or_default()));
    let of: Vec<_> = values.filter(|value| value.starts_with(&format!("{partition} "))).collect();
    let expected: Vec<_> = (0..of.len()).map(|n| format!("{partition} {n}")).collect();
    assert_eq!(of, expected);
    of.len()
}

#[tokio::test(start_paused = true)]
async fn a_partition_without_a_leader_holds_no_other_one_back() {
    heard::listen();
    let kafka = cluster(3);
    kafka.lose_leader("in", 1);
    let begun = Instant::now();
    let run = driven::start(&kafka, "in", copying());
    until("the healthy ones", || copied(&kafka, 0) == EACH && copied(&kafka, 2) == EACH).await;
    assert!(begun.elapsed() < Duration::from_secs(10), "they waited: {:?}", begun.elapsed());
    assert_eq!(heard::lines_with(&["WARN", "in/1"]), [""; 0], "it may only take a moment");

    until("it is told", || {
        !heard::lines_with(&["WARN", "in/1", "no leader", "not taken up"]).is_empty()
    })
    .await;
    assert!(begun.elapsed() < Duration::from_secs(15), "it took {:?}", begun.elapsed());
    assert_eq!(heard::lines_with(&["WARN", "in/0"]), [""; 0]);
    assert_eq!(copied(&kafka, 1), 0);

    // What comes meanwhile is done, too; and the sick one begins where it should.
    kafka.append("in", 0, None, format!("0 {EACH}").as_bytes());
    until("one message more", || copied(&kafka, 0) == EACH + 1).await;
    kafka.elect_leader("in", 1);
    until("the sick one", || copied(&kafka, 1) == EACH).await;
    run.abort();
}

/// The sick partition comes to a member that owns others already.
#[tokio::test(start_paused = true)]
async fn a_sick_partition_that_is_added_does_not_stop_those_that_are_owned() {
    let kafka = cluster(2);
    let run = driven::start(&kafka, "in", copying());
    until("both", || copied(&kafka, 0) == EACH && copied(&kafka, 1) == EACH).await;
    kafka.lose_leader("in", 2);
    kafka.add_partitions("in", 3);
    // Long enough for the group to give it out.
    sleep(Duration::from_secs(20)).await;
    kafka.append("in", 0, None, format!("0 {EACH}").as_bytes());
    until("one message more", || copied(&kafka, 0) == EACH + 1).await;
    kafka.append("in", 2, None, b"2 0");
    kafka.elect_leader("in", 2);
    until("the new one", || copied(&kafka, 2) == 1).await;
    run.abort();
}

/// A member died whose transaction holds the offset of one partition for a minute.
#[tokio::test(start_paused = true)]
async fn a_transaction_of_another_owner_delays_only_its_partition() {
    let kafka = cluster(2);
    let held = ModelClient { transaction_timeout_ms: 60_000, ..ModelClient::new("in", &["in"]) };
    let dead = kafka.client(held);
    let mut reader = Reader::new(dead.consumer(0).expect("the process runs"));
    reader.until("an assignment", |reader| reader.owned.len() == 2).await;
    let mut producer = dead.producer("dead", Sizes::default()).expect("the process runs");
    producer.init(Duration::from_secs(5)).await.expect("the coordinator answers");
    producer.begin().expect("ready");
    let partition = TopicPartition::new("in", 1);
    let offsets = [CommitOffset { partition, offset: 50, metadata: String::new() }];
    let group = reader.consumer.group();
    producer.send_offsets(&offsets, &group, Duration::from_secs(5)).await.expect("a member");
    let begun = Instant::now();
    dead.crash();

    let run = driven::start(&kafka, "in", copying());
    until("the free one", || copied(&kafka, 0) == EACH).await;
    // The dead member's session of 10 s ends before.
    assert!(begun.elapsed() < Duration::from_secs(20), "it waited: {:?}", begun.elapsed());
    assert_eq!(copied(&kafka, 1), 0, "its offset is not known yet");
    until("the other one", || copied(&kafka, 1) == EACH).await;
    run.abort();
}
