//! Goal: a process that is killed with 500 messages done beyond one that is stuck leaves all of
//! that to the next owner, whose store is empty: none of the 500 runs again or appears twice, and
//! the stuck one arrives with its attempts. Method: this program starts itself as the processor,
//! kills it with SIGKILL, and starts it again as another instance with another store. Every call of
//! a handler is a line in a file.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::env;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use countersign::commit_metadata::disarm;
use countersign::kafka::librdkafka::ClusterConfig;
use countersign::statemachine::{Backoff, CommitMetadata};
use countersign::{Config, HandlerError, Message, Order, Outputs, Processor, To, handler};
use countersign_testkit::broker::{LocalKafka, LocalKafkaOptions};
use countersign_testkit::proxy::{api_key, contains};
use countersign_testkit::reader::{Isolation, LoadRecord, committed_offsets, load, read_all};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(60);

/// The messages beyond the stuck one, which is the first.
const OTHERS: u64 = 500;

/// What the processor is told: brokers, name, directory, whether its stuck message is healed.
const TOLD: [&str; 4] = ["KEYS_BROKERS", "KEYS_NAME", "KEYS_DIR", "KEYS_HEALED"];

#[track_caller]
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// The processor: an instance named by its directory.
#[test]
#[ignore = "the other tests start it, to kill it"]
fn a_process_to_be_killed() {
    let [brokers, name, dir, healed] = TOLD.map(|what| env::var(what).unwrap());
    let (dir, is_healed) = (PathBuf::from(dir), healed == "true");
    let cluster = ClusterConfig::new(brokers, name.as_str(), [format!("{name}-in")]);
    let mut config = Config::new(cluster, dir.join("store"));
    config.outputs = vec![format!("{name}-out")];
    config.order = Order::Key;
    // So that few transactions hold the whole.
    config.commit_interval = Duration::from_millis(500);
    config.retry.default.backoff =
        Backoff { max: Duration::from_millis(200), ..Backoff::default() };
    config.cluster.extra.insert("socket.timeout.ms".to_owned(), "1000".to_owned());
    let work = move |message: Message| {
        let result = handle(&message, &name, &dir, is_healed);
        std::future::ready(result)
    };
    let processor = Processor::builder().config(config).handler(handler::each(work)).build();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(processor.unwrap().run()).unwrap();
}

fn handle(
    message: &Message,
    name: &str,
    dir: &Path,
    is_healed: bool,
) -> Result<Outputs, HandlerError> {
    let mut calls = OpenOptions::new().create(true).append(true).open(dir.join("calls")).unwrap();
    // In one piece: handlers run beside each other.
    let line = format!("{} {}\n", message.offset(), message.attempt());
    calls.write_all(line.as_bytes()).unwrap();
    let record = message.record();
    if record.key() == Some(b"stuck") && !is_healed {
        return Err(HandlerError::retryable("it is stuck"));
    }
    Ok(To::topic(format!("{name}-out")).value(record.value().unwrap().to_vec()).into())
}

/// A process; killed in the end.
struct Process {
    child: Child,
    dir: TempDir,
}

impl Process {
    fn start(brokers: &str, name: &str, is_healed: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(["--exact", "--ignored", "a_process_to_be_killed"]);
        let told = [brokers, name, dir.path().to_str().unwrap(), &is_healed.to_string()];
        command.envs(TOLD.into_iter().zip(told)).stdout(Stdio::null());
        Self { child: command.spawn().unwrap(), dir }
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// The attempts of each message's calls.
    fn calls(&self) -> BTreeMap<u64, Vec<u32>> {
        let mut calls: BTreeMap<u64, Vec<u32>> = BTreeMap::new();
        for line in fs::read_to_string(self.dir.path().join("calls")).unwrap_or_default().lines() {
            let (offset, attempt) = line.split_once(' ').unwrap();
            calls.entry(offset.parse().unwrap()).or_default().push(attempt.parse().unwrap());
        }
        calls
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Topics<'a> {
    kafka: &'a LocalKafka,
    name: &'static str,
}

impl Topics<'_> {
    fn new<'a>(kafka: &'a LocalKafka, name: &'static str) -> Topics<'a> {
        kafka.create_topic(&format!("{name}-in"), 1).unwrap();
        kafka.create_topic(&format!("{name}-out"), 3).unwrap();
        Topics { kafka, name }
    }

    fn load(&self) {
        let record = |index: u64| LoadRecord {
            partition: Some(0),
            key: Some(if index == 0 { b"stuck".to_vec() } else { format!("{index}").into_bytes() }),
            value: Some(format!("{index}").into_bytes()),
        };
        let topic = format!("{}-in", self.name);
        load(self.kafka.bootstrap(), &topic, OTHERS + 1, PATIENCE, record, |_| {}).unwrap();
    }

    fn committed(&self) -> Option<(u64, CommitMetadata)> {
        let topic = format!("{}-in", self.name);
        let offsets = committed_offsets(self.kafka.bootstrap(), self.name, &topic, PATIENCE);
        let (offset, text) = offsets.unwrap().remove(&0)?;
        Some((offset, CommitMetadata::decode(offset, &disarm(&text).unwrap()).unwrap()))
    }

    /// How many messages are done beyond the stuck one, and how often that one has failed.
    fn beyond(&self) -> (u64, u32) {
        let Some((0, metadata)) = self.committed() else { return (0, 0) };
        let done = metadata.completed.iter().map(|span| span.len()).sum();
        (done, metadata.attempts.first().map_or(0, |(_, attempt)| *attempt))
    }

    /// The next owner does what is left, and nothing else.
    fn take_over(&self) {
        let (position, known) = self.committed().unwrap();
        assert_eq!(position, 0, "the stuck message holds the position");
        let is_done = |at: &u64| known.completed.iter().any(|span| span.contains(*at));
        let next = Process::start(self.kafka.bootstrap(), self.name, true);
        until("all is done", || self.committed().is_some_and(|(at, _)| at == OTHERS + 1));
        let calls = next.calls();
        let again: Vec<_> = calls.keys().filter(|at| is_done(at)).collect();
        assert!(again.is_empty(), "done and handled again: {again:?}");
        let attempts = known.attempts.first().map_or(0, |(_, attempt)| *attempt);
        assert_eq!(calls[&0], [attempts + 1], "the stuck one arrives with its attempts");
        let topic = format!("{}-out", self.name);
        let read = read_all(self.kafka.bootstrap(), &topic, Isolation::Committed, PATIENCE);
        let value = |value: Vec<u8>| String::from_utf8(value).unwrap().parse::<u64>().unwrap();
        let mut values: Vec<_> =
            read.unwrap().into_iter().map(|record| value(record.value.unwrap())).collect();
        values.sort_unstable();
        assert!(values.into_iter().eq(0..=OTHERS), "every message has one output");
    }
}

#[test]
fn a_killed_process_leaves_what_is_done_beyond_a_stuck_message() {
    let kafka = LocalKafka::start_with(&LocalKafkaOptions::default()).unwrap();
    let topics = Topics::new(&kafka, "stuck");
    let mut first = Process::start(kafka.bootstrap(), topics.name, false);
    topics.load();
    until("500 are done, and the failures told", || {
        let (done, attempts) = topics.beyond();
        done == OTHERS && attempts >= 3
    });
    first.kill();
    assert_eq!(first.calls().keys().copied().max(), Some(OTHERS));
    topics.take_over();
}

/// The reply to the end of the transaction is lost, and the process dies before it can ask.
#[test]
fn a_process_killed_in_doubt_leaves_what_is_done_beyond_a_stuck_message() {
    let options = LocalKafkaOptions::default();
    let (kafka, proxy) = LocalKafka::start_proxied(&options).unwrap();
    let topics = Topics::new(&kafka, "doubt");
    let mut first = Process::start(proxy.bootstrap(), topics.name, false);
    until("the start is committed", || topics.committed().is_some());
    let lost: Vec<_> = (0..200)
        .map(|_| proxy.drop_response_matching(api_key::END_TXN, contains("doubt-")))
        .collect();
    topics.load();
    until("much is done, and nobody is told", || topics.beyond().0 > 0);
    first.kill();
    drop(lost);
    topics.take_over();
}
