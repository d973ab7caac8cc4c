//! Goal: transactions that come to nothing, because Kafka is slow or away or because it refuses an
//! output, hold nobody up for longer than they must.
//! Method: the real driver on the model Kafka in virtual time, where the way to the broker has a
//! width and topics refuse records.

mod driven;

use std::future::ready;
use std::time::Duration;

use countersign::handler::each;
use countersign::kafka::TopicPartition;
use countersign::{Message, Order, Outputs, Processor, To};
use countersign_testkit::model::{Isolation, ModelConfig, ModelKafka};
use tokio::time::{Instant, sleep};

const WORKERS: u32 = 4;

/// Waits until it is so; gives how long that took.
async fn until(what: &str, patience: Duration, mut is_so: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < patience, "{what} not within {patience:?}");
        sleep(Duration::from_millis(10)).await;
    }
    start.elapsed()
}

fn done(kafka: &ModelKafka, partitions: u32) -> u64 {
    let committed = (0..partitions)
        .filter_map(|partition| kafka.committed("in", &TopicPartition::new("in", partition)));
    committed.map(|committed| committed.offset).sum()
}

fn visible(kafka: &ModelKafka, partitions: u32) -> usize {
    let records = (0..partitions)
        .map(|partition| kafka.records("out", partition, Isolation::ReadCommitted).len());
    records.sum()
}

/// Four workers, each of which has as much in memory as can be sent in 8 s: half of that is in a
/// transaction. Before, all that had finished was sent again after each abort, which was never done
/// within the transactions' time-out of 10 s.
async fn outage(order: Order, length: Duration, at: Duration) {
    let bytes_per_second = Some(1_000_000);
    let kafka = ModelKafka::new(ModelConfig { bytes_per_second, ..ModelConfig::default() });
    kafka.create_topic("in", WORKERS);
    kafka.create_topic("out", WORKERS);
    let value = vec![b'x'; 10_000];
    let messages = 800_u64;
    for partition in 0..WORKERS {
        for _ in 0..messages {
            kafka.append("in", partition, None, &value);
        }
    }
    let mut config = driven::config("in");
    config.workers = WORKERS;
    config.order = order;
    config.memory_bytes = 8_500_000;
    let handler = each(|message: Message| {
        let value = message.record().value_bytes();
        let output = To::topic("out").partition(message.partition().partition).value_opt(value);
        ready(Ok(Outputs::none().and(output)))
    });
    let built = Processor::builder().config(config).handler(handler).build();
    let run = driven::start(&kafka, "in", built.expect("the settings fit each other"));

    let is_owned =
        |partition| kafka.committed("in", &TopicPartition::new("in", partition)).is_some();
    let are_owned = || {
        kafka.group_state("in").is_some_and(|(_, members)| members == WORKERS as usize)
            && (0..WORKERS).all(is_owned)
    };
    until("all members", Duration::from_secs(60), are_owned).await;
    sleep(at).await;
    kafka.broker_down();
    sleep(length).await;
    kafka.broker_up();
    let before = done(&kafka, WORKERS);
    let most = Duration::from_secs(10);
    until("a commit", most, || done(&kafka, WORKERS) > before).await;
    let all = u64::from(WORKERS) * messages;
    // 32 s for the records alone.
    until("all", Duration::from_secs(80), || done(&kafka, WORKERS) >= all).await;
    run.abort();
    assert_eq!(visible(&kafka, WORKERS) as u64, all);
}

#[tokio::test(start_paused = true)]
async fn after_a_long_outage_with_full_windows_the_first_commit_comes_within_10_s() {
    for order in [Order::Partition, Order::None] {
        outage(order, Duration::from_secs(90), Duration::from_millis(500)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn after_a_short_outage_with_full_windows_the_first_commit_comes_within_10_s() {
    for seconds in [1, 4, 9, 15] {
        let length = Duration::from_secs(seconds);
        outage(Order::Partition, length, Duration::from_millis(500)).await;
    }
}

/// Messages of one partition, of which every hundredth has an output without a key.
async fn refusing(order: Order, messages: u64) -> Duration {
    let kafka = ModelKafka::default();
    kafka.create_topic("in", 2);
    kafka.create_topic("out", 1);
    kafka.compact("out");
    for nth in 0..messages {
        kafka.append("in", 0, Some(format!("{}", nth % 50).as_bytes()), b"value");
        kafka.append("in", 1, Some(b"key"), b"value");
    }
    let mut config = driven::config("in");
    config.order = order;
    config.retry.default.backoff.base = Duration::from_secs(5);
    let handler = each(|message: Message| {
        let output = To::topic("out").partition(0).value("value");
        let is_wrong = message.partition().partition == 0 && message.offset() % 100 == 99;
        let output = if is_wrong { output } else { output.key("key") };
        ready(Ok(Outputs::none().and(output)))
    });
    let built = Processor::builder().config(config).handler(handler).build();
    let run = driven::start(&kafka, "in", built.expect("the settings fit each other"));
    let good = usize::try_from(messages - messages / 100 + messages).expect("few");
    let most = Duration::from_secs(120);
    let took = until("all but the refused", most, || visible(&kafka, 1) >= good).await;
    run.abort();
    assert_eq!(visible(&kafka, 1), good);
    took
}

/// Each retry of those that were refused took all others with it, and for that time there was one
/// message in a transaction.
#[tokio::test(start_paused = true)]
async fn refused_outputs_hold_up_neither_other_messages_nor_other_partitions() {
    let took = refusing(Order::None, 2_000).await;
    assert!(took < Duration::from_secs(10), "{took:?}");
}

/// In the order of the partition those behind it wait; those of other partitions do not.
#[tokio::test(start_paused = true)]
async fn a_refused_output_holds_up_what_must_not_overtake_it_alone() {
    let kafka = ModelKafka::default();
    kafka.create_topic("in", 2);
    kafka.create_topic("out", 2);
    kafka.compact("out");
    for nth in 0..1_000 {
        kafka.append("in", 0, Some(b"key"), b"value");
        kafka.append("in", 1, (nth != 300).then_some(b"key"), b"value");
    }
    let handler = each(|message: Message| {
        let output = To::topic("out").partition(message.partition().partition).value("value");
        let output = if message.key().is_some() { output.key("key") } else { output };
        ready(Ok(Outputs::none().and(output)))
    });
    let config = driven::config("in");
    let built = Processor::builder().config(config).handler(handler).build();
    let run = driven::start(&kafka, "in", built.expect("the settings fit each other"));
    let are_done = || {
        let of = |partition| kafka.records("out", partition, Isolation::ReadCommitted).len();
        (of(0), of(1)) == (1_000, 300)
    };
    let took = until("all that may be done", Duration::from_secs(60), are_done).await;
    assert!(took < Duration::from_secs(5), "{took:?}");
    run.abort();
}

/// The topic takes less than it did when the producers were made: whole batches are refused, and
/// nobody is named.
#[tokio::test(start_paused = true)]
async fn of_a_batch_that_is_refused_as_a_whole_only_what_is_too_large_is_left() {
    let kafka = ModelKafka::default();
    kafka.create_topic("in", 1);
    kafka.create_topic("out", 1);
    kafka.create_topic("letters", 1);
    let handler = each(|message: Message| {
        let len = if message.offset() == 400 { 6_000 } else { 100 };
        ready(Ok(Outputs::none().and(To::topic("out").partition(0).value(vec![b'x'; len]))))
    });
    let mut config = driven::config("in");
    config.order = Order::None;
    config.dead_letters = Some("letters".to_owned());
    let built = Processor::builder().config(config).handler(handler).build();
    let run = driven::start(&kafka, "in", built.expect("the settings fit each other"));
    kafka.append("in", 0, None, b"first");
    until("the first", Duration::from_secs(60), || visible(&kafka, 1) == 1).await;
    kafka.set_max_message_bytes("out", 5_000);
    for _ in 1..1_000 {
        kafka.append("in", 0, None, b"value");
    }
    let took = until("all but one", Duration::from_secs(60), || visible(&kafka, 1) == 999).await;
    assert!(took < Duration::from_secs(10), "{took:?}");
    run.abort();
}
