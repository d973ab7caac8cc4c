//! Goal: the binary does on a real Kafka what its help says.
//! Method: one local broker for all tests, topics and groups of each test's own; outputs are read
//! by the test kit's independent reader.

#![expect(clippy::unwrap_used, reason = "a failed call fails the test")]

mod common;

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::process::Command;
use std::time::Duration;

use common::{Ended, Running, countersign, ended, with};
use countersign_testkit::broker::LocalKafka;
use countersign_testkit::reader::{Isolation, LoadRecord, OwnedRecord, load, read_all};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

const LONG: Duration = Duration::from_secs(60);

/// The topics, the group and the store of one test.
struct Setting {
    kafka: &'static LocalKafka,
    name: &'static str,
    dir: TempDir,
}

impl Setting {
    /// Makes the topics `{name}.in` with 4 partitions and `{name}.out` with some.
    fn new(name: &'static str, outputs: u32) -> Self {
        let kafka = LocalKafka::shared().expect("a local Kafka can be started");
        kafka.create_topic(&format!("{name}.in"), 4).unwrap();
        kafka.create_topic(&format!("{name}.out"), outputs).unwrap();
        Self { kafka, name, dir: tempfile::tempdir().unwrap() }
    }

    fn store(&self) -> String {
        self.dir.path().join("store").display().to_string()
    }

    fn load(&self, total: u64) {
        let topic = format!("{}.in", self.name);
        let record = |index: u64| LoadRecord {
            partition: None,
            key: (!index.is_multiple_of(10)).then(|| format!("key-{}", index % 97).into_bytes()),
            value: (!index.is_multiple_of(11)).then(|| format!("value-{index}").into_bytes()),
        };
        load(self.kafka.bootstrap(), &topic, total, LONG, record, |_| {}).unwrap();
    }

    fn read(&self, side: &str) -> Vec<OwnedRecord> {
        let topic = format!("{}.{side}", self.name);
        read_all(self.kafka.bootstrap(), &topic, Isolation::Committed, LONG).unwrap()
    }

    fn run(&self) -> Command {
        self.run_as(self.name, &format!("{}.in", self.name))
    }

    fn run_as(&self, group: &str, input: &str) -> Command {
        let mut run = countersign();
        run.args(["run", "--brokers", self.kafka.bootstrap(), "--connect-timeout", "20s"]);
        run.args(["--group", group, "--input", input, "--store", &self.store()]);
        run.args(["--output", &format!("{}.out", self.name)]);
        run
    }

    fn catch_up(&self) -> Ended {
        ended(self.run().args(["--until-caught-up", "--log-format", "json"])).done()
    }

    fn json(&self, args: &[&str]) -> Value {
        let shown = with(&[args, &["--format", "json", "--store", &self.store()]].concat()).done();
        serde_json::from_str(&shown.stdout).unwrap()
    }
}

/// What a mirror must keep: partition, order, key, value and timestamp.
type Kept = (Option<Vec<u8>>, Option<Vec<u8>>, Option<i64>);

fn by_partition(records: &[OwnedRecord]) -> BTreeMap<u32, Vec<Kept>> {
    let mut partitions: BTreeMap<u32, Vec<Kept>> = BTreeMap::new();
    for it in records {
        let kept = (it.key.clone(), it.value.clone(), it.timestamp);
        partitions.entry(it.partition).or_default().push(kept);
    }
    partitions
}

fn summary(ended: &Ended) -> Value {
    let mut lines = ended.stderr.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.rfind(|line| line["message"] == "ended").expect("a summary ends the run")
}

#[test]
fn a_copy_is_exact_and_a_second_run_does_nothing() {
    let it = Setting::new("mirror-1", 4);
    it.load(20_000);
    let first = it.catch_up();
    assert_eq!(first.stdout, "", "nothing but data goes to standard output");
    assert_eq!(summary(&first)["confirmed"], 20_000);
    let (input, output) = (it.read("in"), it.read("out"));
    assert_eq!(input.len(), 20_000);
    assert!(by_partition(&input) == by_partition(&output), "the copy differs from the input");
    let marked = output.iter().all(|it| it.headers.len() == 1);
    assert!(marked, "each output has the provenance header and no other");

    let state = it.json(&["state"]);
    assert_eq!(state["totals"]["confirmed"], 20_000, "{state:#}");
    assert_eq!(state["totals"]["total"], 20_000, "{state:#}");
    assert_eq!(state["group"], "mirror-1");
    assert_eq!(state["partitions"].as_array().unwrap().len(), 4, "{state:#}");
    let table = with(&["state", "--store", &it.store()]).done().stdout;
    let all = table.lines().find(|line| line.starts_with("all ")).unwrap();
    assert!(all.contains("20000") && all.contains("processed"), "{table}");

    let why = it.json(&["why", "mirror-1.in/0@5"]);
    assert_eq!(why["known"]["present"]["state"], "confirmed", "{why:#}");
    let why = with(&["why", "mirror-1.in/0@5", "--store", &it.store()]).done().stdout;
    assert!(why.starts_with("mirror-1.in/0@5 is confirmed"), "{why}");
    let store = it.store();
    with(&["why", "mirror-1.in/9@5", "--store", &store]).failed(2, &["mirror-1.in/9"]);

    assert_eq!(summary(&it.catch_up())["confirmed"], 0);
    assert_eq!(it.read("out").len(), 20_000);
    let other = ended(it.run_as("other-group", "mirror-1.in").arg("--instance=x"));
    other.failed(4, &["mirror-1", "other-group"]);
}

#[test]
fn a_topic_with_other_partitions_is_filled_by_key() {
    let it = Setting::new("mirror-2", 3);
    it.load(1_000);
    ended(it.run().args(["--until-caught-up", "--no-provenance"])).done();
    let (input, output) = (it.read("in"), it.read("out"));
    let sorted = |records: &[OwnedRecord]| {
        let mut kept: Vec<Kept> = by_partition(records).into_values().flatten().collect();
        kept.sort();
        kept
    };
    assert!(sorted(&input) == sorted(&output), "the copy differs from the input");
    assert!(output.iter().all(|it| it.headers.is_empty()), "no header was there to be copied");
    for record in &output {
        if let Some(key) = &record.key {
            let expected = countersign::handler::partition_of_key(key, 3);
            assert_eq!(record.partition, expected, "{record:?}");
        }
    }
}

#[test]
fn an_empty_topic_is_done_at_once() {
    let it = Setting::new("empty-1", 4);
    it.catch_up();
    assert!(it.read("out").is_empty());
}

#[test]
fn an_unknown_topic_ends_with_2_and_is_named() {
    let it = Setting::new("known-1", 1);
    ended(&mut it.run_as("known-1", "no-such-topic")).failed(2, &["no-such-topic"]);
    let both = "known-1.in,no-such-topic";
    let watched = ended(it.run_as("known-1", both).arg("--until-caught-up"));
    watched.failed(2, &["no-such-topic"]);
}

#[test]
fn a_signal_drains_and_ends_with_0() {
    let it = Setting::new("signal-1", 4);
    it.load(5_000);
    let mut running = Running::start(it.run().args(["--log-format", "json"]));
    let stderr = running.child().stderr.take().unwrap();
    let pid = Pid::from_raw(running.child().id().cast_signed()).unwrap();
    let mut lines = BufReader::new(stderr).lines().map(|line| line.unwrap());
    // It is at work once it has a partition; the end of the log would end the test.
    assert!(lines.by_ref().any(|line| line.contains("partition taken up")), "it never began");
    let locked = with(&["state", "--store", &it.store()]);
    locked.failed(4, &["a running processor holds it"]);
    kill_process(pid, Signal::TERM).unwrap();
    let rest: Vec<String> = lines.collect();
    let ended = running.end();
    assert_eq!(ended.code, Some(0), "{rest:#?}");
    assert!(rest.iter().any(|line| line.contains("shutting down")), "{rest:#?}");
    // What it has done is done, and the next run adds what is missing and nothing else.
    let before = it.read("out").len();
    let confirmed = it.json(&["state"])["totals"]["confirmed"].as_u64().unwrap();
    assert_eq!(before as u64, confirmed);
    it.catch_up();
    assert!(by_partition(&it.read("in")) == by_partition(&it.read("out")));
}
