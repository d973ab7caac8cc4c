//! Goal: a message that ends every process that handles it is found among 500 neighbours in flight
//! and becomes a dead letter, without a person; none of its neighbours is blamed or doubled.
//! Method: this program starts itself as three instances of a group, and starts each again when it
//! dies, with an empty store. The handler of one message calls `abort`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::env;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use countersign::dead_letter::{DeadLetter, LetterDisposition};
use countersign::kafka::librdkafka::ClusterConfig;
use countersign::{Config, HandlerError, Message, Order, Outputs, Processor, To, handler};
use countersign_testkit::broker::{LocalKafka, LocalKafkaOptions};
use countersign_testkit::reader::{
    Isolation, LoadRecord, OwnedRecord, committed_offsets, load, read_all,
};
use tempfile::TempDir;

/// How long all of it may take: each of several processes has to be replaced.
const PATIENCE: Duration = Duration::from_secs(180);

const PARTITIONS: u32 = 3;

/// The messages of each partition; one of all of them is the pill.
const MESSAGES: u64 = 501;

/// Where the pill is, among all messages: in the middle of the first partition.
const PILL: u64 = 250;

/// What a processor is told: brokers, name, instance, directory, order.
const TOLD: [&str; 5] =
    ["PILLS_BROKERS", "PILLS_NAME", "PILLS_INSTANCE", "PILLS_DIR", "PILLS_ORDER"];

/// The processor: an instance of the group.
#[test]
#[ignore = "the other tests start it, and it dies"]
fn a_process_that_dies() {
    let [brokers, name, instance, dir, order] = TOLD.map(|what| env::var(what).unwrap());
    let cluster = ClusterConfig::new(brokers, name.as_str(), [format!("{name}-in")]);
    let mut config = Config::new(cluster, PathBuf::from(dir));
    config.instance = instance;
    config.outputs = vec![format!("{name}-out")];
    config.dead_letters = Some(format!("{name}-dead"));
    config.concurrency = 600;
    let (order, wait) = match order.as_str() {
        // One after another, so that their waits add up.
        "partition" => (Order::Partition, Duration::from_millis(1)),
        _ => (Order::Key, Duration::from_millis(50)),
    };
    config.order = order;
    let work = move |message: Message| handle(message, format!("{name}-out"), wait);
    let processor = Processor::builder().config(config).handler(handler::each(work)).build();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(processor.unwrap().run_until_signal()).unwrap();
}

async fn handle(message: Message, output: String, wait: Duration) -> Result<Outputs, HandlerError> {
    // So that its neighbours are in flight.
    tokio::time::sleep(wait).await;
    let record = message.record();
    if record.key() == Some(b"pill") {
        std::process::abort();
    }
    Ok(To::topic(output).value(record.value().unwrap().to_vec()).into())
}

/// One of the instances, in its present life.
struct Instance<'a> {
    group: &'a Group,
    name: String,
    child: Child,
    store: TempDir,
}

impl<'a> Instance<'a> {
    fn start(group: &'a Group, name: String) -> Self {
        let store = tempfile::tempdir().unwrap();
        let child = group.spawn(&name, &store);
        Self { group, name, child, store }
    }

    /// Starts it again if it has died, with nothing that it had; whether it had.
    fn look_after(&mut self) -> bool {
        let Some(status) = self.child.try_wait().unwrap() else { return false };
        assert!(status.signal().is_some(), "{} ended by itself: {status}", self.name);
        self.store = tempfile::tempdir().unwrap();
        self.child = self.group.spawn(&self.name, &self.store);
        true
    }
}

impl Drop for Instance<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Group {
    kafka: LocalKafka,
    order: &'static str,
}

impl Group {
    fn new(order: &'static str) -> Self {
        let kafka = LocalKafka::start_with(&LocalKafkaOptions::default()).unwrap();
        kafka.create_topic(&format!("{order}-in"), PARTITIONS).unwrap();
        kafka.create_topic(&format!("{order}-out"), PARTITIONS).unwrap();
        kafka.create_topic(&format!("{order}-dead"), 1).unwrap();
        Self { kafka, order }
    }

    fn spawn(&self, instance: &str, store: &TempDir) -> Child {
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(["--exact", "--ignored", "--nocapture", "a_process_that_dies"]);
        let dir = store.path().to_str().unwrap();
        let told = [self.kafka.bootstrap(), self.order, instance, dir, self.order];
        command.envs(TOLD.into_iter().zip(told)).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().unwrap()
    }

    fn load(&self) {
        let record = |index: u64| LoadRecord {
            partition: Some(u32::try_from(index / MESSAGES).unwrap()),
            key: Some(if index == PILL {
                b"pill".to_vec()
            } else {
                index.to_string().into_bytes()
            }),
            value: Some(index.to_string().into_bytes()),
        };
        let (topic, total) = (format!("{}-in", self.order), MESSAGES * u64::from(PARTITIONS));
        load(self.kafka.bootstrap(), &topic, total, PATIENCE, record, |_| {}).unwrap();
    }

    fn is_done(&self) -> bool {
        let topic = format!("{}-in", self.order);
        let offsets = committed_offsets(self.kafka.bootstrap(), self.order, &topic, PATIENCE);
        let offsets: BTreeMap<u32, (u64, String)> = offsets.unwrap();
        offsets.len() == PARTITIONS as usize && offsets.values().all(|(at, _)| *at == MESSAGES)
    }

    fn read(&self, topic: &str) -> Vec<OwnedRecord> {
        let topic = format!("{}-{topic}", self.order);
        read_all(self.kafka.bootstrap(), &topic, Isolation::Committed, PATIENCE).unwrap()
    }

    /// The group does all there is; gives how often one of it died.
    fn run(&self) -> u32 {
        let mut instances: Vec<Instance<'_>> =
            (0..3).map(|n| Instance::start(self, format!("i{n}"))).collect();
        let (mut deaths, deadline) = (0, Instant::now() + PATIENCE);
        while !self.is_done() {
            assert!(Instant::now() < deadline, "not within {PATIENCE:?}; {deaths} processes died");
            for instance in &mut instances {
                deaths += u32::from(instance.look_after());
            }
            thread::sleep(Duration::from_millis(50));
        }
        deaths
    }

    fn check(&self) {
        let letters = self.read("dead");
        let [letter] = letters.as_slice() else { panic!("{} letters", letters.len()) };
        assert_eq!(letter.key.as_deref(), Some(&b"pill"[..]));
        let headers = letter.headers.iter();
        let headers = headers.map(|(name, value)| (name.as_str(), value.as_deref().unwrap()));
        let told = DeadLetter::read(headers).unwrap();
        assert_eq!(told.disposition, LetterDisposition::PoisonPill);
        assert_eq!((told.offset, told.attempts), (PILL, 0), "no attempt is used up");
        let value = |record: OwnedRecord| String::from_utf8(record.value.unwrap()).unwrap();
        let outputs = self.read("out").into_iter().map(|record| value(record).parse::<u64>());
        let mut outputs: Vec<u64> = outputs.map(Result::unwrap).collect();
        outputs.sort_unstable();
        let healthy = (0..MESSAGES * u64::from(PARTITIONS)).filter(|index| *index != PILL);
        assert!(outputs.into_iter().eq(healthy), "every neighbour has one output");
    }
}

fn find_the_pill(order: &'static str) {
    let group = Group::new(order);
    group.load();
    let started = Instant::now();
    let deaths = group.run();
    println!("order {order}: {deaths} processes died in {:?}", started.elapsed());
    assert!(deaths >= 5, "two takeovers and three announced deliveries");
    group.check();
}

#[test]
fn in_the_order_of_keys_a_poison_pill_is_found_among_500_neighbours() {
    find_the_pill("key");
}

#[test]
fn in_the_order_of_the_partition_a_poison_pill_is_found_among_500_neighbours() {
    find_the_pill("partition");
}
