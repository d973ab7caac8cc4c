//! A topic to copy, processes that copy it, and the check that the copy is exact.

use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{Child, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use countersign::provenance::{HEADER, Provenance};
use countersign_testkit::broker::{LocalCluster, LocalKafka};
use countersign_testkit::process::processor_time;
use countersign_testkit::reader::{
    Isolation, LoadRecord, OwnedRecord, committed_offsets, for_each, load, read_all,
};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::common::countersign;

/// How long any condition may take to come true.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) const PARTITIONS: u32 = 4;

const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Waits for a condition.
#[track_caller]
pub(crate) fn until<T>(what: &str, patience: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "not within {patience:?}: {what}");
        thread::sleep(POLL_INTERVAL);
    }
}

/// The record at an index: its own number, and one of 997 keys.
pub(crate) fn record(index: u64) -> LoadRecord {
    LoadRecord {
        partition: None,
        key: Some(format!("key-{}", index % 997).into_bytes()),
        value: Some(format!("{index:0100}").into_bytes()),
    }
}

/// An input topic, its output topic, a group that copies, and its stores.
pub(crate) struct Copying {
    pub(crate) kafka: &'static LocalKafka,
    pub(crate) bootstrap: &'static str,
    pub(crate) name: &'static str,
    pub(crate) dir: TempDir,
    loaded: AtomicU64,
}

impl Copying {
    pub(crate) fn new(name: &'static str) -> Self {
        Self::on(LocalKafka::shared().unwrap(), name)
    }

    pub(crate) fn on(kafka: &'static LocalKafka, name: &'static str) -> Self {
        let copying = Self::at(kafka, kafka.bootstrap(), name);
        kafka.create_topic(&copying.input(), PARTITIONS).unwrap();
        kafka.create_topic(&copying.output(), PARTITIONS).unwrap();
        copying
    }

    /// On several brokers, with topics that the test makes itself.
    pub(crate) fn over(cluster: &'static LocalCluster, name: &'static str) -> Self {
        Self::at(&cluster.brokers()[0], cluster.bootstrap(), name)
    }

    fn at(kafka: &'static LocalKafka, bootstrap: &'static str, name: &'static str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { kafka, bootstrap, name, dir, loaded: AtomicU64::new(0) }
    }

    pub(crate) fn input(&self) -> String {
        format!("{}-in", self.name)
    }

    pub(crate) fn output(&self) -> String {
        format!("{}-out", self.name)
    }

    pub(crate) fn store(&self, instance: &str) -> PathBuf {
        self.dir.path().join(instance)
    }

    /// Adds messages to the input topic.
    pub(crate) fn load(&self, total: u64) {
        let from = self.loaded.fetch_add(total, Ordering::Relaxed);
        let record = |index| record(from + index);
        load(self.bootstrap, &self.input(), total, PATIENCE, record, |_| {}).unwrap();
    }

    /// How many were loaded.
    pub(crate) fn loaded(&self) -> u64 {
        self.loaded.load(Ordering::Relaxed)
    }

    /// Starts a process; its store has the name of the instance.
    pub(crate) fn start(&self, instance: &str, args: &[&str]) -> Process {
        self.start_in(instance, instance, args)
    }

    /// Starts a process with another store.
    pub(crate) fn start_in(&self, store: &str, instance: &str, args: &[&str]) -> Process {
        self.spawn([&self.input(), &self.output()], store, instance, args)
    }

    /// Starts a process that copies between other topics.
    pub(crate) fn start_between(&self, input: &str, output: &str) -> Process {
        self.spawn([input, output], "between", "between", &[])
    }

    fn spawn(&self, topics: [&str; 2], store: &str, instance: &str, args: &[&str]) -> Process {
        let log = self.dir.path().join(format!("{store}.log"));
        let file = File::options().create(true).append(true).open(&log).unwrap();
        let from = file.metadata().unwrap().len();
        let mut command = countersign();
        command.args(["run", "--brokers", self.bootstrap, "--group", self.name]);
        command.args(["--input", topics[0], "--output", topics[1]]);
        command.args(["--instance", instance, "--store"]).arg(self.store(store)).args(args);
        let child = command.stdout(Stdio::null()).stderr(file).spawn().unwrap();
        Process { child, log, from, ended: None }
    }

    /// How far the group has committed, over all partitions. A broker that has just come back may
    /// leave a question without an answer.
    pub(crate) fn committed(&self) -> u64 {
        let (bootstrap, once) = (self.bootstrap, PATIENCE / 10);
        let ask = || committed_offsets(bootstrap, self.name, &self.input(), once).ok();
        let offsets = until("Kafka tells the committed offsets", PATIENCE, ask);
        offsets.values().map(|(offset, _)| offset).sum()
    }

    pub(crate) fn wait_committed(&self, goal: u64, patience: Duration) {
        let what = format!("{goal} messages of {} are committed", self.name);
        until(&what, patience, || (self.committed() >= goal).then_some(()));
    }

    /// How many outputs there are.
    pub(crate) fn outputs(&self, isolation: Isolation) -> u64 {
        for_each(self.bootstrap, &self.output(), isolation, PATIENCE, |_| {}).unwrap()
    }

    /// How many outputs are not committed: those of aborted and of open transactions.
    pub(crate) fn uncommitted(&self) -> u64 {
        // The committed ones first: their number only grows.
        let committed = self.outputs(Isolation::Committed);
        self.outputs(Isolation::Uncommitted).saturating_sub(committed)
    }

    /// Waits until a transaction is open that has outputs; `before` is what was uncommitted before
    /// it could begin.
    pub(crate) fn wait_open(&self, before: u64) {
        let open = || (self.uncommitted() > before).then_some(());
        until("a transaction with outputs is open", PATIENCE, open);
    }

    pub(crate) fn read(&self, topic: &str) -> Vec<OwnedRecord> {
        read_all(self.bootstrap, topic, Isolation::Committed, PATIENCE).unwrap()
    }

    /// The output is the input: every record once, in the order of its partition, made from the
    /// message that it says, by transactions that are whole.
    pub(crate) fn assert_exact(&self, total: u64) {
        let (input, output) = (self.read(&self.input()), self.read(&self.output()));
        assert_eq!(input.len() as u64, total, "{}: input", self.name);
        assert_same_values(self.name, &input, &output);
        for (input, output) in input.iter().zip(&output) {
            let from = provenance(output);
            assert_eq!(from.partition.partition, input.partition);
            assert_eq!((from.offset, from.n, from.of), (input.offset, 1, 1));
            assert_eq!(output.partition, input.partition);
            assert_eq!((&output.key, &output.value), (&input.key, &input.value));
            assert_eq!(output.timestamp, input.timestamp);
        }
        let mut finished = std::collections::BTreeSet::new();
        let mut last = None;
        for output in &output {
            let author = provenance(output).author;
            let of = (output.partition, author.incarnation, author.number);
            if last.is_some_and(|last| last != of) {
                assert!(finished.insert(last), "{}: a transaction came in pieces", self.name);
            }
            last = Some(of);
        }
    }
}

fn provenance(record: &OwnedRecord) -> Provenance {
    let header = record.headers.iter().find(|(name, _)| name == HEADER).unwrap();
    Provenance::read(header.1.as_deref().unwrap()).unwrap()
}

/// Tells what is lost and what is doubled before the records are compared one by one.
fn assert_same_values(name: &str, input: &[OwnedRecord], output: &[OwnedRecord]) {
    let sorted = |records: &[OwnedRecord]| {
        let mut values: Vec<_> = records.iter().map(|record| record.value.clone()).collect();
        values.sort();
        values
    };
    let (input, output) = (sorted(input), sorted(output));
    let mut distinct = output.clone();
    distinct.dedup();
    let lost = input.iter().filter(|value| distinct.binary_search(value).is_err()).count();
    let doubled = output.len() - distinct.len();
    assert_eq!((lost, doubled), (0, 0), "{name}: lost and doubled");
    assert_eq!(input.len(), output.len(), "{name}: outputs");
}

/// A running `countersign run`; it does not outlive this.
pub(crate) struct Process {
    child: Child,
    log: PathBuf,
    from: u64,
    ended: Option<ExitStatus>,
}

impl Process {
    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    pub(crate) fn signal(&self, signal: Signal) {
        assert!(self.ended.is_none(), "{}", self.stderr());
        kill_process(self.pid(), signal).unwrap();
    }

    /// Kills it with SIGKILL; it must have been alive.
    pub(crate) fn kill(mut self) {
        assert!(self.is_running(), "it ended before it was killed: {}", self.stderr());
        self.child.kill().unwrap();
        let status = self.child.wait().unwrap();
        assert_eq!(status.signal(), Some(9), "{}", self.stderr());
        self.ended = Some(status);
    }

    pub(crate) fn is_running(&mut self) -> bool {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().unwrap();
        }
        self.ended.is_none()
    }

    /// Waits for its end, and gives its exit code.
    #[track_caller]
    pub(crate) fn end(&mut self, patience: Duration) -> Option<i32> {
        let deadline = Instant::now() + patience;
        while self.is_running() {
            assert!(Instant::now() < deadline, "it does not end: {}", self.stderr());
            thread::sleep(POLL_INTERVAL);
        }
        self.ended.unwrap().code()
    }

    /// Waits for its end, which must be a good one.
    #[track_caller]
    pub(crate) fn done(mut self) -> String {
        let code = self.end(PATIENCE);
        assert_eq!(code, Some(0), "{}", self.stderr());
        self.stderr()
    }

    /// Asks it to end, and waits until it has.
    #[track_caller]
    pub(crate) fn terminate(self) -> String {
        self.signal(Signal::TERM);
        self.done()
    }

    /// What it has written to standard error.
    pub(crate) fn stderr(&self) -> String {
        let bytes = fs::read(&self.log).unwrap();
        let from = usize::try_from(self.from).unwrap();
        String::from_utf8_lossy(&bytes[from..]).into_owned()
    }

    /// Waits until it has written a line with all these words.
    pub(crate) fn wait_for_line(&self, words: &[&str]) {
        let has = |line: &str| words.iter().all(|word| line.contains(word));
        let look = || self.stderr().lines().any(has).then_some(());
        until(&format!("{words:?} in the log {}", self.stderr()), PATIENCE, look);
    }

    /// The processor time it has used.
    pub(crate) fn cpu_time(&self) -> Duration {
        processor_time(self.child.id()).unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.ended.is_none() {
            // It may have ended by itself.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if thread::panicking() {
            eprintln!("{}:\n{}", self.log.display(), self.stderr());
        }
    }
}
