//! What the model does beyond the conformance tests: faults, crashes, frozen processes, hooks.

mod wait;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use countersign::kafka::{
    Admin, CommitOffset, Committed, Consumer, ErrorKind, Group, Kafka, Output, Producer, Sizes,
    TopicPartition,
};
use countersign_statemachine::Disposition;
use countersign_testkit::conformance::Reader;
use countersign_testkit::model::{
    Call, Fault, FaultRate, Faults, Isolation, ModelClient, ModelConsumer, ModelKafka,
    ModelProcess, ModelProducer,
};
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::time::Instant;

use wait::until;

const TIMEOUT: Duration = Duration::from_secs(5);

fn cluster() -> ModelKafka {
    let kafka = ModelKafka::default();
    kafka.create_topic("in", 2);
    kafka.create_topic("out", 2);
    kafka
}

fn process(kafka: &ModelKafka) -> ModelProcess {
    kafka.client(ModelClient::new("group", &["in"]))
}

async fn ready(process: &ModelProcess, id: &str) -> ModelProducer {
    let mut producer = process.producer(id, Sizes::default()).expect("the process runs");
    producer.init(TIMEOUT).await.expect("the coordinator answers");
    producer
}

async fn joined(process: &ModelProcess, partitions: usize) -> Reader<ModelConsumer> {
    let mut reader = Reader::new(process.consumer(0).expect("the process runs"));
    reader.until("an assignment", |reader| reader.owned.len() == partitions).await;
    reader
}

fn output(partition: u32, value: &str) -> Output {
    Output {
        topic: Arc::from("out"),
        partition,
        key: None,
        value: Some(Bytes::copy_from_slice(value.as_bytes())),
        headers: Vec::new(),
        timestamp: None,
    }
}

fn offset(partition: u32, offset: u64) -> CommitOffset {
    let partition = TopicPartition::new("in", partition);
    CommitOffset { partition, offset, metadata: "mine".to_owned() }
}

async fn send(producer: &mut ModelProducer, value: &str) {
    producer.send_one(output(0, value), None).expect("accepted");
    producer.flush(0, TIMEOUT).await.expect("delivered");
}

fn visible(kafka: &ModelKafka) -> Vec<String> {
    let records = (0..2).flat_map(|p| kafka.records("out", p, Isolation::ReadCommitted));
    records
        .map(|record| String::from_utf8_lossy(&record.value.unwrap_or_default()).into_owned())
        .collect()
}

#[tokio::test(start_paused = true)]
async fn transaction_timeout_looks_like_fencing() {
    let kafka = cluster();
    let mut producer = ready(&process(&kafka), "id").await;
    producer.begin().expect("ready");
    send(&mut producer, "late").await;
    tokio::time::sleep(Duration::from_secs(11)).await;
    assert!(kafka.open_transactions().is_empty());
    for _ in 0..2 {
        let error = producer.commit(TIMEOUT).await.expect_err("given up");
        assert_eq!((error.kind, error.disposition), (ErrorKind::Fenced, Disposition::Fenced));
    }
    assert!(visible(&kafka).is_empty());
}

#[tokio::test(start_paused = true)]
async fn lost_request_and_lost_reply_look_the_same_and_are_resumed() {
    for (fault, is_visible_before) in [(Fault::RequestLost, false), (Fault::ReplyLost, true)] {
        let kafka = cluster();
        let mut producer = ready(&process(&kafka), "id").await;
        producer.begin().expect("ready");
        send(&mut producer, "a").await;
        kafka.fault(Call::EndTxn, fault);
        let error = producer.commit(TIMEOUT).await.expect_err("no answer");
        assert_eq!((error.kind, error.disposition), (ErrorKind::Timeout, Disposition::Retriable));
        assert_eq!(!visible(&kafka).is_empty(), is_visible_before);
        let error = producer.abort(TIMEOUT).await.expect_err("only commit may follow");
        assert_eq!(error.disposition, Disposition::Retriable);
        producer.commit(TIMEOUT).await.expect("resumed");
        until("the record is visible", || visible(&kafka) == ["a"]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn coordinator_away_is_retried_in_silence() {
    let kafka = cluster();
    let mut producer = ready(&process(&kafka), "id").await;
    producer.begin().expect("ready");
    send(&mut producer, "a").await;
    kafka.fault(Call::EndTxn, Fault::CoordinatorNotAvailable);
    let started = Instant::now();
    producer.commit(TIMEOUT).await.expect("retried");
    assert!(started.elapsed() >= Duration::from_millis(80));
}

#[tokio::test(start_paused = true)]
async fn broker_down_stops_everything_until_it_is_back() {
    let kafka = cluster();
    let process = process(&kafka);
    let mut reader = joined(&process, 2).await;
    let mut producer = ready(&process, "id").await;
    producer.begin().expect("ready");
    send(&mut producer, "a").await;
    kafka.broker_down_for(Duration::from_secs(3));
    let error = producer.commit(Duration::from_secs(1)).await.expect_err("nobody answers");
    assert_eq!(error.kind, ErrorKind::Timeout);
    reader.until("the outage", |r| r.faults.contains(&ErrorKind::AllBrokersDown)).await;
    producer.commit(TIMEOUT).await.expect("back");
    assert_eq!(reader.owned.len(), 2);
    reader.never(Duration::from_secs(1), "a loss", |reader| reader.lost.is_some()).await;
}

#[tokio::test(start_paused = true)]
async fn frozen_member_loses_its_partitions() {
    let kafka = cluster();
    let (frozen, other) = (process(&kafka), process(&kafka));
    let mut first = joined(&frozen, 2).await;
    let mut producer = ready(&frozen, "id").await;
    frozen.freeze();
    let second = joined(&other, 2).await;
    frozen.thaw();
    producer.begin().expect("ready");
    let group = first.consumer.group();
    let error = producer.send_offsets(&[offset(0, 5)], &group, TIMEOUT).await.expect_err("stale");
    assert_eq!(error.kind, ErrorKind::StaleGeneration);
    first.poll().await;
    assert_eq!(first.lost.as_ref().map(Vec::len), Some(2));
    assert_eq!(group.generation(), None);
    drop(second);
}

#[tokio::test(start_paused = true)]
async fn short_freeze_goes_unnoticed() {
    let kafka = cluster();
    let process = process(&kafka);
    let mut reader = joined(&process, 2).await;
    process.freeze();
    tokio::time::sleep(Duration::from_secs(5)).await;
    process.thaw();
    reader.never(Duration::from_secs(20), "a loss", |reader| reader.lost.is_some()).await;
}

#[tokio::test(start_paused = true)]
async fn calls_of_a_frozen_process_wait() {
    let kafka = cluster();
    let process = process(&kafka);
    let mut producer = ready(&process, "id").await;
    process.freeze();
    let thaw = async {
        tokio::time::sleep(Duration::from_secs(8)).await;
        process.thaw();
    };
    producer.begin().expect("local");
    producer.send_one(output(0, "a"), None).expect("local");
    let started = Instant::now();
    let (result, ()) = tokio::join!(producer.commit(TIMEOUT), thaw);
    assert!(started.elapsed() >= Duration::from_secs(8), "{result:?}");
}

#[tokio::test(start_paused = true)]
async fn crash_takes_the_session_time_and_orderly_leave_does_not() {
    let kafka = cluster();
    let crashed = process(&kafka);
    let first = joined(&crashed, 2).await;
    crashed.crash();
    drop(first);
    let started = Instant::now();
    let _second = joined(&process(&kafka), 2).await;
    assert!(started.elapsed() >= Duration::from_secs(10), "{:?}", started.elapsed());
    assert!(crashed.consumer(0).is_err());
}

#[tokio::test(start_paused = true)]
async fn crash_points_leave_what_was_executed() {
    for (fault, records) in [(Fault::CrashBefore, 0), (Fault::CrashAfter, 1)] {
        let kafka = cluster();
        let process = process(&kafka);
        let mut producer = ready(&process, "id").await;
        producer.begin().expect("ready");
        send(&mut producer, "a").await;
        kafka.fault(Call::EndTxn, fault);
        tokio::select! {
            biased;
            () = process.crashed() => {}
            result = producer.commit(TIMEOUT) => panic!("a dead process got {result:?}"),
        }
        drop(producer);
        let _next = ready(&self::process(&kafka), "id").await;
        assert_eq!(visible(&kafka).len(), records);
    }
}

#[tokio::test(start_paused = true)]
async fn a_crash_while_records_are_sent_leaves_an_open_transaction() {
    for (fault, records) in [(Fault::CrashBefore, 0), (Fault::CrashAfter, 1)] {
        let kafka = cluster();
        let process = process(&kafka);
        let mut producer = ready(&process, "id").await;
        producer.begin().expect("ready");
        producer.send_one(output(0, "a"), None).expect("accepted");
        kafka.fault(Call::Produce, fault);
        tokio::select! {
            biased;
            () = process.crashed() => {}
            result = producer.flush(0, TIMEOUT) => panic!("a dead process got {result:?}"),
        }
        assert_eq!(kafka.records("out", 0, Isolation::ReadUncommitted).len(), records);
        assert_eq!(kafka.open_transactions().len(), records);
        assert!(visible(&kafka).is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_delivery_must_be_aborted() {
    for (fault, records) in [(Fault::RequestLost, 0), (Fault::ReplyLost, 1)] {
        let kafka = cluster();
        let mut producer = ready(&process(&kafka), "id").await;
        producer.begin().expect("ready");
        producer.send_one(output(0, "a"), None).expect("accepted");
        kafka.fault(Call::Produce, fault);
        let error = producer.flush(0, TIMEOUT).await.expect_err("no delivery report");
        assert_eq!(error.kind, ErrorKind::Timeout);
        assert_eq!(kafka.records("out", 0, Isolation::ReadUncommitted).len(), records);
        let error = producer.commit(TIMEOUT).await.expect_err("a part of it failed");
        assert_eq!(error.disposition, Disposition::Abortable);
        producer.abort(TIMEOUT).await.expect("abort");
        producer.begin().expect("ready again");
    }
}

#[tokio::test(start_paused = true)]
async fn static_member_returns_to_its_partitions_without_a_rebalance() {
    let kafka = cluster();
    let config =
        ModelClient { instance: Some("one".to_owned()), ..ModelClient::new("group", &["in"]) };
    let other = process(&kafka);
    let crashed = kafka.client(config.clone());
    let first = joined(&crashed, 2).await;
    crashed.crash();
    drop(first);
    let before = kafka.group_state("group");
    let started = Instant::now();
    let _again = joined(&kafka.client(config), 2).await;
    assert!(started.elapsed() < Duration::from_secs(1));
    assert_eq!(kafka.group_state("group"), before);
    drop(other);
}

#[tokio::test(start_paused = true)]
async fn static_member_that_missed_its_polls_keeps_its_place() {
    let kafka = cluster();
    let config = ModelClient {
        instance: Some("one".to_owned()),
        max_poll_interval_ms: 10_000,
        ..ModelClient::new("group", &["in"])
    };
    let mut reader = joined(&kafka.client(config), 2).await;
    let before = kafka.group_state("group");
    tokio::time::sleep(Duration::from_secs(12)).await;
    reader.until("the loss", |reader| reader.lost.is_some()).await;
    reader.give_back();
    reader.until("it is back", |reader| reader.owned.len() == 2).await;
    assert_eq!(kafka.group_state("group"), before);
}

#[tokio::test(start_paused = true)]
async fn stale_cooperative_generation_is_refreshed_by_itself_and_ownership_is_not_checked() {
    let kafka = cluster();
    let (one, two) = (process(&kafka), process(&kafka));
    let mut first = joined(&one, 2).await;
    let mut second = Reader::new(two.consumer(0).expect("the process runs"));
    second.poll().await;
    first.until("a revocation", |first| first.revoked.is_some()).await;
    first.give_back();
    second.until("one partition", |second| second.owned.len() == 1).await;
    let foreign = second.owned.first().expect("one").partition;
    let mut producer = ready(&one, "id").await;
    producer.begin().expect("ready");
    let offsets = [offset(foreign, 9)];
    producer.send_offsets(&offsets, &first.consumer.group(), TIMEOUT).await.expect("not checked");
    producer.commit(TIMEOUT).await.expect("commit");
    let partition = TopicPartition::new("in", foreign);
    until("the offset is committed", || {
        kafka.committed("group", &partition).is_some_and(|committed| committed.offset == 9)
    })
    .await;
    let history = kafka.commit_history("group", &partition);
    let transaction = history[0].transaction.expect("committed in a transaction");
    assert_eq!(kafka.is_committed(transaction), Some(true));
}

/// Metadata goes with the request: a rebalance while it is under way makes it stale.
#[tokio::test(start_paused = true)]
async fn offsets_of_the_generation_before_are_refused() {
    let kafka = cluster();
    let (one, two) = (process(&kafka), process(&kafka));
    let first = joined(&one, 2).await;
    let mut producer = ready(&one, "id").await;
    producer.begin().expect("ready");
    kafka.fault(Call::TxnOffsetCommit, Fault::Delay(Duration::from_secs(2)));
    let group = first.consumer.group();
    let offsets = [offset(0, 5)];
    let mut second = Reader::new(two.consumer(0).expect("the process runs"));
    let (result, ()) =
        tokio::join!(producer.send_offsets(&offsets, &group, TIMEOUT), second.poll());
    let error = result.expect_err("stale");
    assert_eq!(
        (error.kind, error.disposition),
        (ErrorKind::StaleGeneration, Disposition::Abortable)
    );
    assert_eq!(group.generation(), Some(2));
    producer.abort(TIMEOUT).await.expect("the producer stays usable");
    producer.begin().expect("ready");
    producer.send_offsets(&offsets, &group, TIMEOUT).await.expect("fresh metadata");
}

#[tokio::test(start_paused = true)]
async fn three_members_end_up_balanced() {
    for assignor in [
        countersign_testkit::model::Assignor::Range,
        countersign_testkit::model::Assignor::RoundRobin,
        countersign_testkit::model::Assignor::CooperativeSticky,
    ] {
        let kafka = ModelKafka::default();
        kafka.create_topic("in", 7);
        let config = ModelClient { assignor, ..ModelClient::new("group", &["in"]) };
        let mut readers: Vec<_> = (0..3)
            .map(|_| Reader::new(kafka.client(config.clone()).consumer(0).expect("runs")))
            .collect();
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            for reader in &mut readers {
                reader.poll().await;
                reader.give_back();
            }
            let mut owned: Vec<_> = readers.iter().map(|reader| reader.owned.len()).collect();
            owned.sort_unstable();
            if owned == [2, 2, 3] {
                break;
            }
            assert!(Instant::now() < deadline, "{assignor:?}: {owned:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn offsets_only_right_after_a_commit_wait_a_backoff() {
    let kafka = cluster();
    let process = process(&kafka);
    let reader = joined(&process, 2).await;
    let mut producer = ready(&process, "id").await;
    let group = reader.consumer.group();
    for (position, is_slow) in [(1, false), (2, true)] {
        producer.begin().expect("ready");
        let started = Instant::now();
        producer.send_offsets(&[offset(0, position)], &group, TIMEOUT).await.expect("current");
        assert_eq!(started.elapsed() >= Duration::from_millis(80), is_slow);
        producer.commit(TIMEOUT).await.expect("commit");
    }
}

#[tokio::test(start_paused = true)]
async fn hooks_change_offsets_and_logs() {
    let kafka = cluster();
    let process = process(&kafka);
    let mut admin = process.admin().expect("the process runs");
    let partition = TopicPartition::new("in", 0);
    let foreign = Committed { offset: 3, metadata: "tool".to_owned() };
    kafka.set_committed("group", &partition, foreign.clone());
    let partitions = [partition.clone()];
    let committed = admin.committed(&partitions, TIMEOUT).await.expect("stable");
    assert_eq!(committed, [Ok(Some(foreign))]);
    kafka.expire_offset("group", &partition);
    assert_eq!(admin.committed(&partitions, TIMEOUT).await.expect("stable"), [Ok(None)]);
    assert_eq!(kafka.commit_history("group", &partition).len(), 2);

    for value in 0..4_u8 {
        kafka.append("in", 0, None, &[value]);
    }
    kafka.truncate("in", 0, 2);
    let ranges = admin.log_ranges(std::slice::from_ref(&partition), TIMEOUT).await;
    let range = *ranges.expect("it answers")[0].as_ref().expect("exists");
    assert_eq!((range.start, range.end), (2, 4));
    let names = [Arc::from("in")];
    let before = admin.topics(&names, TIMEOUT).await.expect("exists");
    let mut reader = joined(&process, 2).await;
    reader.until("out of range", |reader| reader.out_of_range.contains(&partition)).await;
    kafka.delete_topic("in");
    let error = admin.topics(&names, TIMEOUT).await.expect_err("deleted");
    assert_eq!(error.kind, ErrorKind::UnknownTopic);
    kafka.create_topic("in", 2);
    let after = admin.topics(&names, TIMEOUT).await.expect("exists again");
    assert_ne!(before[0].id, after[0].id);
}

#[tokio::test(start_paused = true)]
async fn a_fault_repeats_the_last_offset_after_an_assignment() {
    let kafka = cluster();
    kafka.append("in", 0, None, b"a");
    let process = process(&kafka);
    let mut reader = joined(&process, 2).await;
    reader.until("the record", |reader| reader.of("in", 0) == ["a"]).await;
    kafka.fault(Call::Assign, Fault::Repeat);
    kafka.add_partitions("in", 1);
    reader.until("the record again", |reader| reader.of("in", 0) == ["a", "a"]).await;
    assert_eq!(reader.owned.len(), 3);
}

/// One run under seeded faults; what it leaves is its trace.
async fn faulty_run(seed: u64) -> (Vec<String>, Duration, usize) {
    let kafka = cluster();
    let started = Instant::now();
    let process = process(&kafka);
    let reader = joined(&process, 2).await;
    let rate = FaultRate { per_mille: 200, longest: Duration::from_secs(2) };
    kafka.set_faults(Faults::seeded(StdRng::seed_from_u64(seed), rate));
    let mut failed = 0;
    for n in 0..20 {
        let mut producer = process.producer("id", Sizes::default()).expect("the process runs");
        while producer.init(TIMEOUT).await.is_err() {}
        producer.begin().expect("ready");
        producer.send_one(output(n % 2, &n.to_string()), None).expect("accepted");
        let offsets = [offset(0, u64::from(n))];
        let group = reader.consumer.group();
        let is_sent = producer.flush(0, TIMEOUT).await.is_ok()
            && producer.send_offsets(&offsets, &group, TIMEOUT).await.is_ok();
        if !is_sent || producer.commit(TIMEOUT).await.is_err() {
            failed += 1;
        }
    }
    (visible(&kafka), started.elapsed(), failed)
}

#[tokio::test(start_paused = true)]
async fn equal_seeds_give_equal_runs() {
    let mut runs = Vec::new();
    for seed in 0..20 {
        let run = faulty_run(seed).await;
        assert_eq!(run, faulty_run(seed).await, "seed {seed}");
        runs.push(run);
    }
    assert!(runs.iter().any(|run| run.2 > 0), "no fault struck");
    assert!(runs.iter().any(|run| run != &runs[0]), "the seed changes nothing");
}
