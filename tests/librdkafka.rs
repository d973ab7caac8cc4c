//! The seam on a real broker.

#![expect(clippy::unwrap_used, reason = "a failed call fails the test")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use countersign::kafka::librdkafka::{
    Assignor, ClusterConfig, GroupProtocol, LibrdAdmin, LibrdConsumer, LibrdGroup, LibrdKafka,
    LibrdProducer,
};
use countersign::kafka::{
    Admin as _, Batch, CommitOffset, Committed, Consumer as _, ErrorKind, Group as _, Header,
    Kafka as _, KafkaError, Output, PollLimit, Polled, Producer as _, Sizes, TopicPartition,
    of_all,
};
use countersign_testkit::broker::LocalKafka;
use futures::executor::block_on;

const LONG: Duration = Duration::from_secs(30);
const LIMIT: PollLimit = PollLimit { records: 10_000, bytes: 8 << 20 };

fn local() -> &'static LocalKafka {
    LocalKafka::shared().unwrap()
}

/// A name that no other test of this process uses.
fn unique(name: &str) -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    format!("{name}-{}", NUMBER.fetch_add(1, Ordering::Relaxed))
}

fn create(topic: &str, partitions: u32) {
    local().create_topic(topic, partitions).unwrap();
}

fn config(group: &str, topic: &str) -> ClusterConfig {
    ClusterConfig::new(local().bootstrap(), group, [topic])
}

fn kafka(config: ClusterConfig) -> LibrdKafka {
    LibrdKafka::new(config).unwrap()
}

fn output(topic: &str, partition: u32, value: String) -> Output {
    Output {
        topic: topic.into(),
        partition,
        key: None,
        value: Some(value.into()),
        headers: Vec::new(),
        timestamp: None,
    }
}

/// Polls until `done` and gives `each` what it brings.
fn drive(
    consumer: &mut LibrdConsumer,
    mut each: impl FnMut(&mut LibrdConsumer, Polled),
    mut done: impl FnMut() -> bool,
) {
    let deadline = Instant::now() + LONG;
    while !done() {
        assert!(Instant::now() < deadline, "not done in time");
        let mut polled = Vec::new();
        block_on(consumer.poll(Duration::from_millis(50), LIMIT, &mut polled)).unwrap();
        for one in polled {
            each(consumer, one);
        }
    }
}

/// The committed offsets once none of them is pending.
fn stable(admin: &mut LibrdAdmin, of: &[TopicPartition]) -> Vec<Option<Committed>> {
    let deadline = Instant::now() + LONG;
    loop {
        match of_all(block_on(admin.committed(of, LONG))) {
            Ok(committed) => return committed,
            Err(error) => assert!(Instant::now() < deadline, "not in time: {error}"),
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn assign_from_start(consumer: &mut LibrdConsumer, partitions: &[TopicPartition]) {
    let starts: Vec<_> = partitions.iter().map(|partition| (partition.clone(), Some(0))).collect();
    consumer.assign(&starts).unwrap();
}

/// Polls until the consumer owns `count` partitions.
fn join(consumer: &mut LibrdConsumer, count: usize) -> BTreeSet<TopicPartition> {
    let owned = std::cell::RefCell::new(BTreeSet::new());
    drive(
        consumer,
        |consumer, one| match one {
            Polled::Assign(list) => {
                assign_from_start(consumer, &list);
                owned.borrow_mut().extend(list);
            }
            Polled::Revoke(list) | Polled::Lost(list) => {
                consumer.unassign(&list).unwrap();
                owned.borrow_mut().retain(|partition| !list.contains(partition));
            }
            _ => {}
        },
        || owned.borrow().len() == count,
    );
    owned.into_inner()
}

fn started(kafka: &LibrdKafka, id: &str) -> LibrdProducer {
    let mut producer = kafka.producer(&unique(id), Sizes::default()).unwrap();
    block_on(producer.init(LONG)).unwrap();
    producer
}

fn commit(producer: &mut LibrdProducer) -> Duration {
    block_on(producer.flush(0, LONG)).unwrap();
    let start = Instant::now();
    block_on(producer.commit(LONG)).unwrap();
    start.elapsed()
}

fn send(producer: &mut LibrdProducer, output: &Output) {
    loop {
        match producer.send_one(output.clone(), None) {
            Ok(()) => return,
            Err(error) if error.kind == ErrorKind::QueueFull => {
                block_on(producer.flush(50_000, LONG)).unwrap();
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// Writes `count` records over four partitions in transactions of 10,000.
fn fill(kafka: &LibrdKafka, topic: &str, count: usize) {
    let mut producer = started(kafka, "fill");
    for first in (0..count).step_by(10_000) {
        producer.begin().unwrap();
        for n in first..count.min(first + 10_000) {
            let partition = u32::try_from(n % 4).unwrap();
            send(&mut producer, &output(topic, partition, format!("{n:0200}")));
        }
        commit(&mut producer);
    }
}

/// Reads a topic from its start to its end: values, and the offset of each partition's end.
fn read_all(topic: &str, partitions: usize) -> (Vec<String>, BTreeMap<TopicPartition, u64>) {
    let kafka = kafka(config(&unique("reader"), topic));
    let mut consumer = kafka.consumer(0).unwrap();
    let values = std::cell::RefCell::new(Vec::new());
    let ends = std::cell::RefCell::new(BTreeMap::new());
    drive(
        &mut consumer,
        |consumer, one| match one {
            Polled::Assign(list) => assign_from_start(consumer, &list),
            Polled::Records(batch) => {
                for index in 0..batch.len() {
                    let record = batch.record(index).unwrap();
                    let value = String::from_utf8(record.value().unwrap().to_vec()).unwrap();
                    values.borrow_mut().push(value);
                }
            }
            Polled::End { partition, offset } => {
                ends.borrow_mut().insert(partition, offset);
            }
            _ => {}
        },
        || ends.borrow().len() == partitions,
    );
    (values.into_inner(), ends.into_inner())
}

#[test]
fn a_transactional_copy_is_exact() {
    let count = 100_000;
    let (from, to) = (unique("from"), unique("to"));
    create(&from, 4);
    create(&to, 4);
    let kafka = kafka(config(&unique("copy"), &from));
    let start = Instant::now();
    fill(&kafka, &from, count);
    println!("filled: {:.0} records/s", rate(count, start));

    let mut consumer = kafka.consumer(0).unwrap();
    join(&mut consumer, 4);
    let group = consumer.group();
    let mut producer = started(&kafka, "copy");
    let (mut copied, mut commits) = (0, Vec::new());
    let start = Instant::now();
    let deadline = start + 4 * LONG;
    while copied < count {
        assert!(Instant::now() < deadline, "copied {copied} in time");
        let mut polled = Vec::new();
        block_on(consumer.poll(Duration::from_millis(100), LIMIT, &mut polled)).unwrap();
        let batches: Vec<_> = polled
            .into_iter()
            .filter_map(|one| if let Polled::Records(batch) = one { Some(batch) } else { None })
            .collect();
        if batches.is_empty() {
            continue;
        }
        copied += copy(&batches, &to, &mut producer, &group);
        commits.push(commit(&mut producer));
    }
    println!("copied: {:.0} records/s, {} commits", rate(count, start), commits.len());
    commits.sort();
    println!("commit p50 {:?}, max {:?}", commits[commits.len() / 2], commits[commits.len() - 1]);

    let (mut values, ends) = read_all(&to, 4);
    values.sort();
    let expected: Vec<_> = (0..count).map(|n| format!("{n:0200}")).collect();
    assert!(values == expected, "{} values", values.len());
    let mut admin = kafka.admin().unwrap();
    for (partition, end) in ends {
        let ranges = block_on(admin.log_ranges(std::slice::from_ref(&partition), LONG));
        let range = of_all(ranges).unwrap()[0];
        assert_eq!(end, range.end, "{partition}");
        // Each transaction left a control record behind the records.
        assert!(end > 25_000, "{partition} ends at {end}");
    }
}

/// Begins a transaction and does all of it but its end. Answers how many records it has.
fn copy(batches: &[Batch], to: &str, producer: &mut LibrdProducer, group: &LibrdGroup) -> usize {
    producer.begin().unwrap();
    let topic: Arc<str> = to.into();
    for batch in batches {
        for index in 0..batch.len() {
            let record = batch.record(index).unwrap();
            let output = Output {
                topic: Arc::clone(&topic),
                partition: batch.partition().partition,
                key: None,
                value: record.value_bytes(),
                headers: Vec::new(),
                timestamp: record.timestamp(),
            };
            send(producer, &output);
        }
    }
    block_on(producer.flush(0, LONG)).unwrap();
    let offsets: Vec<_> = batches
        .iter()
        .map(|batch| CommitOffset {
            partition: batch.partition().clone(),
            offset: batch.offset(batch.len() - 1).unwrap() + 1,
            metadata: String::new(),
        })
        .collect();
    block_on(producer.send_offsets(&offsets, group, LONG)).unwrap();
    batches.iter().map(Batch::len).sum()
}

#[expect(clippy::cast_precision_loss, reason = "a rate for people")]
fn rate(count: usize, start: Instant) -> f64 {
    count as f64 / start.elapsed().as_secs_f64()
}

#[test]
fn commits_of_flushed_transactions_are_fast() {
    let topic = unique("fast");
    create(&topic, 4);
    let kafka = kafka(config(&unique("fast"), &topic));
    let mut producer = started(&kafka, "fast");
    let mut times: Vec<_> = (0..30)
        .map(|n| {
            producer.begin().unwrap();
            send(&mut producer, &output(&topic, 0, n.to_string()));
            let start = Instant::now();
            block_on(producer.flush(0, LONG)).unwrap();
            (commit(&mut producer), start.elapsed())
        })
        .collect();
    times.sort();
    println!("commit p50 {:?}; with flush {:?}", times[15].0, times[15].1);
    assert!(times[15].0 < Duration::from_millis(50), "{:?}", times[15]);
}

fn variants() -> [(Assignor, GroupProtocol); 3] {
    [
        (Assignor::CooperativeSticky, GroupProtocol::Classic),
        (Assignor::Range, GroupProtocol::Classic),
        (Assignor::CooperativeSticky, GroupProtocol::Consumer),
    ]
}

#[test]
fn partitions_of_an_unanswered_revoke_go_to_nobody() {
    for (assignor, group_protocol) in variants() {
        let topic = unique("revoke");
        create(&topic, 4);
        let kafka =
            kafka(ClusterConfig { assignor, group_protocol, ..config(&unique("revoke"), &topic) });
        let mut first = kafka.consumer(0).unwrap();
        join(&mut first, 4);
        let mut generation = None;
        let mut second = kafka.consumer(1).unwrap();
        let mut revoked: Option<(Vec<TopicPartition>, Instant)> = None;
        let mut given = BTreeSet::new();
        let deadline = Instant::now() + 2 * LONG;
        let mut answered = false;
        while given.is_empty() {
            assert!(Instant::now() < deadline, "{assignor:?} {group_protocol:?}");
            let mut polled = Vec::new();
            block_on(first.poll(Duration::from_millis(20), LIMIT, &mut polled)).unwrap();
            for one in polled {
                match one {
                    Polled::Revoke(list) => {
                        generation = first.group().generation();
                        revoked = Some((list, Instant::now()));
                    }
                    Polled::Assign(list) => assign_from_start(&mut first, &list),
                    Polled::Lost(list) => panic!("lost {list:?}"),
                    _ => {}
                }
            }
            let mut polled = Vec::new();
            block_on(second.poll(Duration::from_millis(20), LIMIT, &mut polled)).unwrap();
            for one in polled {
                if let Polled::Assign(list) = one {
                    assert!(
                        answered,
                        "{assignor:?} {group_protocol:?}: {list:?} before the answer"
                    );
                    assign_from_start(&mut second, &list);
                    given.extend(list);
                }
            }
            let waited = revoked.as_ref().is_some_and(|(_, at)| at.elapsed().as_secs() >= 3);
            if waited && !answered {
                assert!(generation.is_some());
                assert_eq!(first.group().generation(), generation);
                first.unassign(&revoked.as_ref().unwrap().0).unwrap();
                answered = true;
            }
        }
        println!("{assignor:?} {group_protocol:?}: {} moved", given.len());
        leave(second, &given);
    }
}

/// Leaves the group as a worker does.
fn leave(mut consumer: LibrdConsumer, owned: &BTreeSet<TopicPartition>) {
    consumer.unsubscribe().unwrap();
    let left = std::cell::RefCell::new(owned.clone());
    drive(
        &mut consumer,
        |consumer, one| match one {
            Polled::Revoke(list) => {
                consumer.unassign(&list).unwrap();
                left.borrow_mut().retain(|partition| !list.contains(partition));
            }
            Polled::Assign(list) => {
                assign_from_start(consumer, &list);
                left.borrow_mut().extend(list);
            }
            _ => {}
        },
        || left.borrow().is_empty(),
    );
    let start = Instant::now();
    drop(consumer);
    assert!(start.elapsed() < Duration::from_secs(5), "dropped in {:?}", start.elapsed());
}

#[test]
fn dropping_with_an_unanswered_rebalance_ends() {
    for (assignor, group_protocol) in variants() {
        for wants_revoke in [false, true] {
            let topic = unique("drop");
            create(&topic, 2);
            let kafka = kafka(ClusterConfig {
                assignor,
                group_protocol,
                ..config(&unique("drop"), &topic)
            });
            let mut consumer = kafka.consumer(0).unwrap();
            if wants_revoke {
                join(&mut consumer, 2);
                consumer.unsubscribe().unwrap();
            }
            let told = std::cell::Cell::new(false);
            drive(
                &mut consumer,
                |_, one| match one {
                    Polled::Assign(_) => told.set(!wants_revoke),
                    Polled::Revoke(_) => told.set(wants_revoke),
                    _ => {}
                },
                || told.get(),
            );
            let start = Instant::now();
            drop(consumer);
            assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
        }
    }
}

#[test]
fn an_unsubscribe_waits_for_the_answer() {
    for (assignor, group_protocol) in variants() {
        let topic = unique("unsubscribe");
        create(&topic, 2);
        let kafka = kafka(ClusterConfig {
            assignor,
            group_protocol,
            ..config(&unique("unsubscribe"), &topic)
        });
        let mut consumer = kafka.consumer(0).unwrap();
        let offered = std::cell::RefCell::new(Vec::new());
        drive(
            &mut consumer,
            |_, one| {
                if let Polled::Assign(list) = one {
                    *offered.borrow_mut() = list;
                }
            },
            || !offered.borrow().is_empty(),
        );
        let offered = offered.into_inner();
        consumer.unsubscribe().unwrap();
        assign_from_start(&mut consumer, &offered);
        assert!(consumer.assign(&[]).is_err(), "nothing is offered any more");
        leave(consumer, &offered.into_iter().collect());
    }
}

#[test]
fn a_waker_ends_a_long_poll() {
    let topic = unique("wake");
    create(&topic, 1);
    let mut consumer = kafka(config(&unique("wake"), &topic)).consumer(0).unwrap();
    join(&mut consumer, 1);
    // The end of the partition is what is still to come.
    drive_to_end(&mut consumer);
    let waker = consumer.waker();
    let polling = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !polling.load(Ordering::Acquire) {
                thread::yield_now();
            }
            // Long enough for the poll to be waiting; one that is not yet would be woken too.
            thread::park_timeout(Duration::from_millis(200));
            waker();
        });
        let start = Instant::now();
        polling.store(true, Ordering::Release);
        let mut polled = Vec::new();
        block_on(consumer.poll(Duration::from_secs(10), LIMIT, &mut polled)).unwrap();
        println!("woken after {:?}", start.elapsed());
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    });
    drop(consumer);
    waker();
}

fn drive_to_end(consumer: &mut LibrdConsumer) {
    let ended = std::cell::Cell::new(false);
    drive(consumer, |_, one| ended.set(matches!(one, Polled::End { .. })), || ended.get());
}

#[test]
fn offsets_and_metadata_come_back_once_decided() {
    let topic = unique("offsets");
    create(&topic, 2);
    let kafka = kafka(config(&unique("offsets"), &topic));
    let mut consumer = kafka.consumer(0).unwrap();
    let group = consumer.group();
    let mut producer = started(&kafka, "offsets");
    let partition = TopicPartition::new(topic.as_str(), 0);
    let other = TopicPartition::new(topic.as_str(), 1);
    let metadata = "m".repeat(4_096);
    let offsets =
        [CommitOffset { partition: partition.clone(), offset: 7, metadata: metadata.clone() }];

    producer.begin().unwrap();
    send(&mut producer, &output(&topic, 0, "first".into()));
    let away = LibrdKafka::new(ClusterConfig::new("127.0.0.1:1", "away", [&topic])).unwrap();
    let stranger = away.consumer(0).unwrap();
    let error = block_on(producer.send_offsets(&offsets, &stranger.group(), LONG)).unwrap_err();
    assert_eq!(error.kind, ErrorKind::NoGeneration, "{error}");
    drop(stranger);
    join(&mut consumer, 2);
    block_on(producer.send_offsets(&offsets, &group, LONG)).unwrap();
    block_on(producer.flush(0, LONG)).unwrap();

    let mut admin = kafka.admin().unwrap();
    let short = Duration::from_secs(2);
    let both = [partition.clone(), other];
    let told = block_on(admin.committed(&both, short)).unwrap();
    let kinds: Vec<_> = told.iter().map(|it| it.as_ref().map_err(|error| error.kind)).collect();
    assert_eq!(kinds, [Err(ErrorKind::Pending), Ok(&None)]);
    let end = |admin: &mut LibrdAdmin| {
        of_all(block_on(admin.log_ranges(&both[..1], LONG))).unwrap().first().map(|range| range.end)
    };
    assert_eq!(end(&mut admin), Some(0), "last stable offset");
    commit(&mut producer);
    let committed = stable(&mut admin, &both);
    assert_eq!(committed[0].as_ref().map(|c| (c.offset, &c.metadata)), Some((7, &metadata)));
    assert_eq!(committed[1], None);
    assert_eq!(end(&mut admin), Some(2));

    drop(consumer);
    assert_eq!(group.generation(), None);
}

#[test]
fn topics_are_described() {
    let topic = unique("topics");
    create(&topic, 3);
    let mut admin = kafka(config("group", &topic)).admin().unwrap();
    assert!(!block_on(admin.cluster_id(LONG)).unwrap().is_empty());
    let told = block_on(admin.topics(&[topic.as_str().into()], LONG)).unwrap();
    assert_eq!((&*told[0].name, told[0].partitions), (topic.as_str(), 3));
    assert_ne!(told[0].id, [0; 16]);
    let error = block_on(admin.topics(&["no-such-topic".into()], LONG)).unwrap_err();
    assert_eq!(error.kind, ErrorKind::UnknownTopic, "{error}");
    assert!(error.message.contains("no-such-topic"), "{error}");
}

#[test]
fn failed_and_aborted_records_do_not_hold_an_abort() {
    let topic = unique("failed");
    create(&topic, 1);
    let kafka = kafka(ClusterConfig { linger_ms: 5_000, ..config(&unique("failed"), &topic) });
    let mut producer = started(&kafka, "failed");
    // A topic's partitions are known only after its first record.
    producer.begin().unwrap();
    send(&mut producer, &output(&topic, 0, "known".into()));
    let start = Instant::now();
    commit(&mut producer);
    assert!(start.elapsed() < Duration::from_secs(3), "flush does not linger");

    producer.begin().unwrap();
    let failed = match producer.send_one(output(&topic, 99, "nowhere".into()), None) {
        Ok(()) => block_on(producer.flush(0, LONG)).unwrap_err(),
        Err(error) => error,
    };
    assert_eq!(failed.kind, ErrorKind::UnknownPartition, "{failed}");
    assert!(failed.message.contains("/99"), "{failed}");
    abort_quickly(&mut producer).unwrap();

    producer.begin().unwrap();
    // While the markers of the last transaction are being written the partition is not part of this
    // one, and there would be nothing to abort.
    send(&mut producer, &output(&topic, 0, "first".into()));
    block_on(producer.flush(0, LONG)).unwrap();
    for n in 0..1_000 {
        send(&mut producer, &output(&topic, 0, n.to_string()));
    }
    abort_quickly(&mut producer).unwrap();
    producer.begin().unwrap();
    send(&mut producer, &output(&topic, 0, "last".into()));
    commit(&mut producer);
    assert_eq!(read_all(&topic, 1).0, ["known", "last"]);
}

fn abort_quickly(producer: &mut LibrdProducer) -> Result<(), KafkaError> {
    let start = Instant::now();
    let result = block_on(producer.abort(LONG));
    println!("aborted in {:?}", start.elapsed());
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    result
}

#[test]
fn records_come_back_whole() {
    let topic = unique("whole");
    create(&topic, 1);
    let kafka = kafka(config(&unique("whole"), &topic));
    let mut producer = started(&kafka, "whole");
    let bytes = Bytes::from_static;
    let header = |value: Option<Bytes>| Header { name: "h".into(), value };
    let sent = [
        (None, None, vec![]),
        (Some(bytes(b"")), Some(bytes(b"")), vec![header(None), header(Some(bytes(b"")))]),
        (Some(bytes(b"k\0")), Some(bytes(b"\xff\0v")), vec![header(Some(bytes(b"1")))]),
    ];
    producer.begin().unwrap();
    for (key, value, headers) in sent.clone() {
        let topic = topic.as_str().into();
        let timestamp = Some(1_234);
        send(&mut producer, &Output { topic, partition: 0, key, value, headers, timestamp });
    }
    commit(&mut producer);
    let mut consumer = kafka.consumer(0).unwrap();
    join(&mut consumer, 1);
    let got = std::cell::RefCell::new(Vec::new());
    drive(
        &mut consumer,
        |_, one| {
            if let Polled::Records(batch) = one {
                for index in 0..batch.len() {
                    let record = batch.record(index).unwrap();
                    assert_eq!(record.timestamp(), Some(1_234));
                    let headers = record.headers().collect::<Vec<_>>();
                    got.borrow_mut().push((record.key_bytes(), record.value_bytes(), headers));
                }
            }
        },
        || got.borrow().len() == sent.len(),
    );
    assert_eq!(got.into_inner(), sent);
}

/// The queue holds a hundred records, so that the call stops within what it hands over at once.
#[test]
fn a_full_queue_tells_where_to_go_on() {
    const RECORDS: usize = 250;
    let topic = unique("full");
    create(&topic, 1);
    let mut config = config(&unique("full"), &topic);
    config.extra.insert("producer.queue.buffering.max.messages".into(), "100".into());
    let mut producer = started(&kafka(config), "full");
    let outputs = (0..RECORDS).map(|n| Output {
        timestamp: (n % 30 == 20).then_some(1_234),
        ..output(&topic, 0, format!("{n:03}"))
    });
    let outputs = Arc::new(outputs.collect::<Vec<_>>());
    producer.begin().unwrap();
    let (mut left, mut stops) = (0..RECORDS, Vec::new());
    while let Err(unsent) = producer.send(&outputs, left.clone(), None) {
        assert_eq!(unsent.error.kind, ErrorKind::QueueFull, "{unsent}");
        stops.push(unsent.index);
        left.start = unsent.index;
        block_on(producer.flush(0, LONG)).unwrap();
    }
    assert_eq!(stops, [100, 200]);
    commit(&mut producer);
    let (values, _) = read_all(&topic, 1);
    assert!(values.into_iter().eq((0..RECORDS).map(|n| format!("{n:03}"))));
}

#[test]
fn a_start_that_is_gone_is_out_of_range() {
    let topic = unique("gone");
    create(&topic, 1);
    let mut consumer = kafka(config(&unique("gone"), &topic)).consumer(0).unwrap();
    let told = std::cell::Cell::new(false);
    drive(
        &mut consumer,
        |consumer, one| match one {
            Polled::Assign(list) => consumer.assign(&[(list[0].clone(), Some(1_000))]).unwrap(),
            Polled::OutOfRange(partition) => {
                assert_eq!(&*partition.topic, topic.as_str());
                told.set(true);
            }
            _ => {}
        },
        || told.get(),
    );
}

#[test]
fn a_second_producer_fences_the_first() {
    let topic = unique("fence");
    create(&topic, 1);
    let kafka = kafka(config(&unique("fence"), &topic));
    let id = unique("fence");
    let mut first = kafka.producer(&id, Sizes::default()).unwrap();
    block_on(first.init(LONG)).unwrap();
    first.begin().unwrap();
    send(&mut first, &output(&topic, 0, "old".into()));
    block_on(first.flush(0, LONG)).unwrap();
    let mut second = kafka.producer(&id, Sizes::default()).unwrap();
    block_on(second.init(LONG)).unwrap();
    let error = block_on(first.commit(LONG)).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Fenced, "{error}");
    assert_eq!(error.disposition, countersign_statemachine::Disposition::Fenced, "{error}");
}

#[test]
fn a_member_that_was_not_polled_is_told_and_may_not_commit() {
    for group_protocol in [GroupProtocol::Classic, GroupProtocol::Consumer] {
        let topic = unique("unpolled");
        create(&topic, 1);
        let kafka = kafka(ClusterConfig {
            group_protocol,
            transaction_timeout_ms: 5_000,
            session_timeout_ms: 6_000,
            max_poll_interval_ms: 6_001,
            ..config(&unique("unpolled"), &topic)
        });
        let mut consumer = kafka.consumer(0).unwrap();
        join(&mut consumer, 1);
        let group = consumer.group();
        let deadline = Instant::now() + LONG;
        while group.generation().is_some() {
            assert!(Instant::now() < deadline, "{group_protocol:?}: still a member");
            thread::park_timeout(Duration::from_millis(10));
        }
        let mut producer = started(&kafka, "unpolled");
        producer.begin().unwrap();
        let partition = TopicPartition::new(topic.as_str(), 0);
        let offsets = [CommitOffset { partition, offset: 1, metadata: String::new() }];
        let error = block_on(producer.send_offsets(&offsets, &group, LONG)).unwrap_err();
        assert_eq!(error.kind, ErrorKind::NoGeneration, "{error}");

        let (exceeded, gone) = (std::cell::Cell::new(false), std::cell::RefCell::new(vec![]));
        drive(
            &mut consumer,
            |_, one| match one {
                Polled::Fault(fault) if fault.kind == ErrorKind::PollExceeded => exceeded.set(true),
                Polled::Lost(list) => *gone.borrow_mut() = list,
                _ => {}
            },
            || exceeded.get() && !gone.borrow().is_empty(),
        );
        assert_eq!(group.generation(), None, "{group_protocol:?}: what is lost is not committed");
        consumer.unassign(&gone.into_inner()).unwrap();
        join(&mut consumer, 1);
        block_on(producer.send_offsets(&offsets, &group, LONG)).unwrap();
        commit(&mut producer);
    }
}

/// The commit of an operator: without any name of a member the broker would take it.
#[test]
fn offsets_from_outside_are_taken_while_the_group_is_empty_and_refused_once_it_has_a_member() {
    let topic = unique("outside");
    create(&topic, 1);
    let kafka = kafka(config(&topic, &topic));
    let mut producer = started(&kafka, "outside");
    let mut send = |offset| {
        let partition = TopicPartition::new(topic.as_str(), 0);
        let metadata = "from outside".to_owned();
        let offsets = [CommitOffset { partition, offset, metadata }];
        producer.begin().unwrap();
        let sent = producer.send_offsets_from_outside(&offsets, &topic, LONG);
        match &sent {
            Ok(()) => block_on(producer.commit(LONG)).unwrap(),
            Err(_) => block_on(producer.abort(LONG)).unwrap(),
        }
        sent
    };
    send(1).unwrap();
    let mut consumer = kafka.consumer(0).unwrap();
    join(&mut consumer, 1);
    assert_eq!(send(2).unwrap_err().kind, ErrorKind::StaleGeneration);
    drop(consumer);
    let mut admin = kafka.admin().unwrap();
    let deadline = Instant::now() + LONG;
    while !block_on(admin.members(LONG)).unwrap().all.is_empty() {
        assert!(Instant::now() < deadline, "the member does not leave");
    }
    let partition = [TopicPartition::new(topic.as_str(), 0)];
    let committed = block_on(admin.committed_now(&partition, LONG)).unwrap().remove(0).unwrap();
    assert_eq!((committed.offset, committed.metadata.as_str()), (1, "from outside"));
    send(3).unwrap();
}
