//! Goal: however large results are, a process takes no more than its budget and 100 MB, on a real
//! Kafka and with all that librdkafka holds. Method: this program starts itself as the processor,
//! whose handler makes 20 kB of each small message, and looks at the most that it ever had in
//! memory.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use countersign::kafka::librdkafka::ClusterConfig;
use countersign::{Config, Message, Outputs, Processor, To, handler};
use countersign_testkit::broker::LocalKafka;
use countersign_testkit::reader::{LoadRecord, committed_offsets, load};

const PATIENCE: Duration = Duration::from_secs(240);

const PARTITIONS: u32 = 4;

/// All their outputs are 400 MB.
const MESSAGES: u64 = 20_000;

const OUTPUT_BYTES: usize = 20_000;

const MEMORY_BYTES: usize = 64 << 20;

/// What the processor is told: brokers and directory.
const TOLD: [&str; 2] = ["MEMORY_BROKERS", "MEMORY_DIR"];

#[test]
#[ignore = "the other test starts it, to look at its memory"]
fn a_process_with_large_outputs() {
    let [brokers, dir] = TOLD.map(|what| env::var(what).unwrap());
    let cluster = ClusterConfig::new(brokers, "memory", ["memory-in".to_owned()]);
    let mut config = Config::new(cluster, dir);
    config.outputs = vec!["memory-out".to_owned()];
    config.memory_bytes = MEMORY_BYTES;
    let enlarge = |message: Message| {
        let byte = message.record().value().and_then(|value| value.first()).copied();
        let value = vec![byte.unwrap_or(0); OUTPUT_BYTES];
        std::future::ready(Ok(Outputs::one(To::topic("memory-out").value(value))))
    };
    let processor = Processor::builder().config(config).handler(handler::each(enlarge)).build();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(processor.unwrap().run()).unwrap();
}

/// A process; killed in the end.
struct Process(Child);

impl Process {
    /// The most that it ever had in memory, in bytes.
    fn most(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_process_stays_within_its_memory_however_large_outputs_are() {
    let kafka = LocalKafka::start().unwrap();
    kafka.create_topic("memory-in", PARTITIONS).unwrap();
    kafka.create_topic("memory-out", PARTITIONS).unwrap();
    let record = |index: u64| LoadRecord {
        partition: u32::try_from(index % u64::from(PARTITIONS)).ok(),
        key: None,
        value: Some(index.to_string().into_bytes()),
    };
    load(kafka.bootstrap(), "memory-in", MESSAGES, PATIENCE, record, |_| {}).unwrap();

    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", "--ignored", "a_process_with_large_outputs"]);
    command.envs(TOLD.into_iter().zip([kafka.bootstrap(), dir.path().to_str().unwrap()]));
    let process = Process(command.stdout(Stdio::null()).spawn().unwrap());
    let committed = || {
        let offsets = committed_offsets(kafka.bootstrap(), "memory", "memory-in", PATIENCE);
        offsets.unwrap().values().map(|(offset, _)| *offset).sum::<u64>()
    };
    let begun = Instant::now();
    while committed() < MESSAGES {
        assert!(begun.elapsed() < PATIENCE, "{} in time", committed());
        thread::sleep(Duration::from_millis(50));
    }
    let most = process.most();
    println!("{} MB at most, {:?} for all", most / 1_000_000, begun.elapsed());
    assert!(most < MEMORY_BYTES as u64 + 100_000_000, "it took {} MB", most / 1_000_000);
}
