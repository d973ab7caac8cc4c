//! The local Kafka starts, keeps its data over a kill, and goes away with its owner.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use countersign_testkit::broker::{LocalKafka, LocalKafkaOptions};
use countersign_testkit::reader::{
    Isolation, LoadRecord, ReaderError, committed_offsets, for_each, load, read_all,
};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

const TIMEOUT: Duration = Duration::from_secs(30);

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + TIMEOUT;
    while !done() {
        assert!(Instant::now() < deadline, "not within {TIMEOUT:?}: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

fn process_runs(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

fn resident_mb(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

fn numbered(index: u64) -> LoadRecord {
    let value = index.to_be_bytes().to_vec();
    LoadRecord { partition: None, key: Some(value.clone()), value: Some(value) }
}

#[test]
fn loaded_records_are_read_back() {
    let kafka = LocalKafka::shared().unwrap();
    kafka.create_topic("loaded", 3).unwrap();
    let last_progress = AtomicU64::new(0);
    load(kafka.bootstrap(), "loaded", 10_000, TIMEOUT, numbered, |acknowledged| {
        last_progress.store(acknowledged, Ordering::Relaxed);
    })
    .unwrap();
    assert_eq!(last_progress.load(Ordering::Relaxed), 10_000);

    let records = read_all(kafka.bootstrap(), "loaded", Isolation::Committed, TIMEOUT).unwrap();
    let mut values: Vec<_> = records.iter().map(|record| record.value.clone().unwrap()).collect();
    values.sort();
    let expected: Vec<_> = (0..10_000_u64).map(|index| index.to_be_bytes().to_vec()).collect();
    assert_eq!(values, expected);
    let mut sum = 0;
    let count =
        for_each(kafka.bootstrap(), "loaded", Isolation::Uncommitted, TIMEOUT, |_| sum += 1);
    assert_eq!((count.unwrap(), sum), (10_000, 10_000));
}

#[test]
fn explicit_partitions_are_kept() {
    let kafka = LocalKafka::shared().unwrap();
    kafka.create_topic("explicit", 2).unwrap();
    let record = |index| LoadRecord { partition: Some(1), ..numbered(index) };
    load(kafka.bootstrap(), "explicit", 5, TIMEOUT, record, |_| {}).unwrap();
    let records = read_all(kafka.bootstrap(), "explicit", Isolation::Committed, TIMEOUT).unwrap();
    let places: Vec<_> = records.iter().map(|record| (record.partition, record.offset)).collect();
    assert_eq!(places, [(1, 0), (1, 1), (1, 2), (1, 3), (1, 4)]);
}

#[test]
fn isolation_tells_aborted_records_apart() {
    let kafka = LocalKafka::shared().unwrap();
    kafka.create_topic("isolated", 1).unwrap();
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", kafka.bootstrap())
        .set("transactional.id", "isolated")
        .create()
        .unwrap();
    producer.init_transactions(TIMEOUT).unwrap();
    for (value, commits) in [("kept", true), ("aborted", false)] {
        producer.begin_transaction().unwrap();
        producer.send(BaseRecord::<(), str>::to("isolated").payload(value)).unwrap();
        producer.flush(TIMEOUT).unwrap();
        if commits {
            producer.commit_transaction(TIMEOUT).unwrap();
        } else {
            producer.abort_transaction(TIMEOUT).unwrap();
        }
    }
    let values = |isolation| -> Vec<_> {
        let records = read_all(kafka.bootstrap(), "isolated", isolation, TIMEOUT).unwrap();
        records.into_iter().map(|record| record.value.unwrap()).collect()
    };
    // The log ends with an aborted record and a control record, which only end by `PARTITION_EOF`.
    assert_eq!(values(Isolation::Committed), [b"kept".to_vec()]);
    assert_eq!(values(Isolation::Uncommitted), [b"kept".to_vec(), b"aborted".to_vec()]);

    // An open transaction ends what a `read_committed` reader can see.
    producer.begin_transaction().unwrap();
    producer.send(BaseRecord::<(), str>::to("isolated").payload("open")).unwrap();
    producer.flush(TIMEOUT).unwrap();
    assert_eq!(values(Isolation::Committed), [b"kept".to_vec()]);
    assert_eq!(values(Isolation::Uncommitted).len(), 3);
}

#[test]
fn committed_offsets_come_with_metadata() {
    let kafka = LocalKafka::shared().unwrap();
    kafka.create_topic("offsets", 2).unwrap();
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", kafka.bootstrap())
        .set("group.id", "offsets-group")
        .create()
        .unwrap();
    let mut offsets = TopicPartitionList::new();
    offsets.add_partition_offset("offsets", 1, Offset::Offset(7)).unwrap();
    offsets.find_partition("offsets", 1).unwrap().set_metadata("runs");
    // The first commit to a fresh broker was refused once; what refuses it is printed.
    wait_until("the group's offset is committed", || {
        let committed = consumer.commit(&offsets, CommitMode::Sync);
        committed.inspect_err(|error| eprintln!("commit refused: {error:?}")).is_ok()
    });
    let found = committed_offsets(kafka.bootstrap(), "offsets-group", "offsets", TIMEOUT).unwrap();
    assert_eq!(found.into_iter().collect::<Vec<_>>(), [(1, (7, "runs".to_owned()))]);
}

#[test]
fn deleted_topic_is_unknown() {
    let kafka = LocalKafka::shared().unwrap();
    kafka.create_topic("short-lived", 1).unwrap();
    assert!(kafka.create_topic("short-lived", 1).is_err());
    kafka.delete_topic("short-lived").unwrap();
    let read = read_all(kafka.bootstrap(), "short-lived", Isolation::Committed, TIMEOUT);
    assert!(matches!(read, Err(ReaderError::UnknownTopic { .. })), "{read:?}");
}

#[test]
fn data_survives_a_kill() {
    let started = Instant::now();
    let kafka = LocalKafka::start().unwrap();
    println!("first start: {:?}", started.elapsed());
    kafka.create_topic("durable", 2).unwrap();
    load(kafka.bootstrap(), "durable", 1_000, TIMEOUT, numbered, |_| {}).unwrap();
    println!("memory: {} MB", resident_mb(kafka.pid().unwrap()));

    let before = (kafka.pid().unwrap(), kafka.bootstrap().to_owned());
    kafka.kill().unwrap();
    assert_eq!(kafka.pid(), None);
    assert!(!process_runs(before.0));
    let started = Instant::now();
    kafka.restart().unwrap();
    println!("start after a kill: {:?}", started.elapsed());
    assert_ne!(kafka.pid().unwrap(), before.0);
    assert_eq!(kafka.bootstrap(), before.1);
    let records = read_all(kafka.bootstrap(), "durable", Isolation::Committed, TIMEOUT).unwrap();
    assert_eq!(records.len(), 1_000);

    kafka.pause().unwrap();
    let paused =
        read_all(kafka.bootstrap(), "durable", Isolation::Committed, Duration::from_secs(1));
    assert!(paused.is_err());
    kafka.resume().unwrap();
    wait_until("the broker goes on", || {
        read_all(kafka.bootstrap(), "durable", Isolation::Committed, TIMEOUT)
            .is_ok_and(|records| records.len() == 1_000)
    });
    kafka.stop().unwrap();
    assert_eq!(kafka.pid(), None);
}

#[test]
fn drop_leaves_nothing() {
    let kafka = LocalKafka::start().unwrap();
    let (pid, dir) = (kafka.pid().unwrap(), kafka.dir().to_owned());
    assert!(process_runs(pid) && dir.exists());
    drop(kafka);
    assert!(!process_runs(pid), "the broker outlived its owner");
    assert!(!dir.exists(), "its data were left");
}

#[test]
fn refused_setting_is_shown() {
    let options = LocalKafkaOptions::default().property("num.io.threads", "many");
    let error = LocalKafka::start_with(&options).unwrap_err().to_string();
    assert!(error.contains("num.io.threads"), "{error}");
}

/// Runs the binary until it has printed where its broker is.
fn start_binary(dir: &Path) -> (Child, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_countersign-local-kafka"))
        .args(["--topic", "first:2", "--topic", "second:1"])
        .env("TMPDIR", dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let bootstrap = line.trim_end().strip_prefix("bootstrap=").expect("one line").to_owned();
    (child, bootstrap)
}

fn accepts(bootstrap: &str) -> bool {
    std::net::TcpStream::connect(bootstrap).is_ok()
}

fn is_empty(dir: &Path) -> bool {
    std::fs::read_dir(dir).unwrap().next().is_none()
}

#[test]
fn binary_stops_with_its_input() {
    let dir = tempfile::tempdir().unwrap();
    let (mut child, bootstrap) = start_binary(dir.path());
    assert_eq!(read_all(&bootstrap, "first", Isolation::Committed, TIMEOUT).unwrap(), []);
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
    assert!(!accepts(&bootstrap));
    assert!(is_empty(dir.path()));
}

/// No destructor runs in a process that is killed: this is what the watchdog is for.
#[test]
fn broker_ends_when_its_owner_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let (mut child, bootstrap) = start_binary(dir.path());
    assert!(accepts(&bootstrap));
    child.kill().unwrap();
    child.wait().unwrap();
    wait_until("the watchdog kills the broker", || !accepts(&bootstrap));
    wait_until("the watchdog removes the data", || is_empty(dir.path()));
}

fn error_without_programs(cache: Option<&Path>) -> String {
    let empty = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_countersign-local-kafka"));
    command.env("PATH", empty.path());
    if let Some(cache) = cache {
        command.env("COUNTERSIGN_KAFKA_CACHE", cache);
    }
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(!output.status.success());
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn missing_programs_are_named() {
    let cache = tempfile::tempdir().unwrap();
    let error = error_without_programs(Some(cache.path()));
    assert!(error.contains("`mvn`") && error.contains("apt-get install maven"), "{error}");
    // What Maven brings is there once any broker has been started.
    LocalKafka::shared().unwrap();
    let error = error_without_programs(None);
    assert!(error.contains("`java`") && error.contains("openjdk-17-jre-headless"), "{error}");
}
