//! A processor in this process that copies a topic through the misbehaving proxy, and the check
//! that the copy is exact.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use countersign::kafka::librdkafka::{ClusterConfig, Compression};
use countersign::{
    Config, Handle, Outputs, Partitioning, Processor, RunError, Status, To, handler,
};
use countersign_testkit::broker::{LocalKafka, LocalKafkaOptions};
use countersign_testkit::proxy::KafkaProxy;
use countersign_testkit::reader::{
    Isolation, LoadRecord, OwnedRecord, committed_offsets, load, read_all,
};
use tempfile::TempDir;

/// How long any condition may take to come true.
pub const PATIENCE: Duration = Duration::from_secs(60);

const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// The largest batch that the output topic takes.
const BATCH_BYTES_MAX: &str = "20000";

/// Waits for a condition.
#[track_caller]
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        thread::sleep(POLL_INTERVAL);
    }
}

/// The broker of all tests of this program, and the proxy before it.
fn shared() -> &'static (LocalKafka, KafkaProxy) {
    static SHARED: OnceLock<(LocalKafka, KafkaProxy)> = OnceLock::new();
    SHARED.get_or_init(|| LocalKafka::start_proxied(&LocalKafkaOptions::default()).unwrap())
}

pub fn proxy() -> &'static KafkaProxy {
    &shared().1
}

/// Bytes that cannot be compressed: those of a linear congruential generator (Knuth, MMIX).
fn noise(len: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let mut next = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    };
    (0..len).map(|_| next()).collect()
}

/// An input topic with one partition, its output topic, and a group that copies.
pub struct Copying {
    name: &'static str,
    dir: TempDir,
    loaded: AtomicU64,
    /// Whether the next output is larger than the output topic takes.
    too_large: Arc<AtomicBool>,
    change: fn(&mut Config),
}

impl Copying {
    /// The clients notice a lost request after a second, and there is one producer: what comes late
    /// meets the very next transaction.
    pub fn new(name: &'static str, change: fn(&mut Config)) -> Self {
        let kafka = &shared().0;
        kafka.create_topic(&format!("{name}-in"), 1).unwrap();
        let limit = [("max.message.bytes", BATCH_BYTES_MAX)];
        kafka.create_topic_with(&format!("{name}-out"), 1, &limit).unwrap();
        let dir = tempfile::tempdir().unwrap();
        Self { name, dir, loaded: AtomicU64::new(0), too_large: Arc::default(), change }
    }

    /// The transactional id of the first slot.
    pub fn id(&self) -> String {
        format!("{}-i-0-0", self.name)
    }

    fn config(&self) -> Config {
        let input = format!("{}-in", self.name);
        let mut cluster = ClusterConfig::new(proxy().bootstrap(), self.name, [input]);
        cluster.extra.insert("socket.timeout.ms".to_owned(), "1000".to_owned());
        let mut config = Config::new(cluster, self.dir.path().join("store"));
        "i".clone_into(&mut config.instance);
        config.outputs = vec![format!("{}-out", self.name)];
        config.pipelined = false;
        // Only the broker knows how large an output is once it is compressed.
        config.cluster.compression = Compression::Lz4;
        (self.change)(&mut config);
        config
    }

    pub fn start(&self) -> Running {
        let topic: Arc<str> = Arc::from(format!("{}-out", self.name));
        let too_large = Arc::clone(&self.too_large);
        let copy = handler::each(move |message| {
            let record = message.record();
            let mut copy = To::topic(Arc::clone(&topic))
                .key_opt(record.key_bytes())
                .value_opt(record.value_bytes())
                .partitioning(Partitioning::AsInput);
            if too_large.swap(false, Ordering::Relaxed) {
                copy = copy.value(noise(100_000));
            }
            std::future::ready(Ok(Outputs::one(copy)))
        });
        let processor = Processor::builder().config(self.config()).handler(copy).build().unwrap();
        let handle = processor.handle();
        let run = || {
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
            runtime.unwrap().block_on(processor.run())
        };
        Running { handle, thread: Some(thread::spawn(run)) }
    }

    /// Adds messages to the input topic.
    pub fn load(&self, total: u64) {
        let from = self.loaded.fetch_add(total, Ordering::Relaxed);
        let record = |index| LoadRecord {
            partition: Some(0),
            key: Some(b"key".to_vec()),
            value: Some(format!("{}", from + index).into_bytes()),
        };
        let topic = format!("{}-in", self.name);
        load(shared().0.bootstrap(), &topic, total, PATIENCE, record, |_| {}).unwrap();
    }

    /// Lets the output of the next message be refused by the broker, once.
    pub fn refuse_next(&self) {
        self.too_large.store(true, Ordering::Relaxed);
    }

    /// The group's offset.
    pub fn committed(&self) -> u64 {
        let (bootstrap, topic) = (shared().0.bootstrap(), format!("{}-in", self.name));
        let offsets = committed_offsets(bootstrap, self.name, &topic, PATIENCE).unwrap();
        offsets.get(&0).map_or(0, |(offset, _)| *offset)
    }

    /// Waits until all that was loaded is committed.
    #[track_caller]
    pub fn wait_done(&self) {
        let loaded = self.loaded.load(Ordering::Relaxed);
        until("all is committed", || self.committed() >= loaded);
    }

    fn read(&self, side: &str, isolation: Isolation) -> Vec<OwnedRecord> {
        let topic = format!("{}-{side}", self.name);
        read_all(shared().0.bootstrap(), &topic, isolation, PATIENCE).unwrap()
    }

    /// How many outputs are in the log, those of aborted and open transactions included.
    pub fn written(&self) -> usize {
        self.read("out", Isolation::Uncommitted).len()
    }

    /// The value of the message that is loaded next.
    pub fn next(&self) -> String {
        self.loaded.load(Ordering::Relaxed).to_string()
    }

    /// Whether a value is in the log of the output, committed or not.
    pub fn has_written(&self, value: &str) -> bool {
        let records = self.read("out", Isolation::Uncommitted);
        records.iter().any(|record| record.value.as_deref() == Some(value.as_bytes()))
    }

    /// The output is the input, in order, and the group's offset says so.
    #[track_caller]
    pub fn assert_exact(&self) {
        let values = |side: &str| -> Vec<String> {
            let records = self.read(side, Isolation::Committed);
            let text = |record: OwnedRecord| String::from_utf8(record.value.unwrap()).unwrap();
            records.into_iter().map(text).collect()
        };
        let input = values("in");
        assert_eq!(input.len() as u64, self.loaded.load(Ordering::Relaxed));
        assert_eq!(values("out"), input, "{}: the output is not the input", self.name);
        assert_eq!(self.committed(), input.len() as u64);
    }
}

/// A running processor.
pub struct Running {
    handle: Handle,
    thread: Option<JoinHandle<Result<(), RunError>>>,
}

impl Running {
    pub fn status(&self) -> Status {
        self.handle.status().get()
    }

    /// Ends it in good order.
    #[track_caller]
    pub fn shut_down(mut self) {
        self.handle.shut_down();
        self.thread.take().unwrap().join().unwrap().unwrap();
    }

    /// Ends it in the middle of what it does.
    #[track_caller]
    pub fn abort(mut self) {
        self.handle.abort();
        let ended = self.thread.take().unwrap().join().unwrap();
        assert!(matches!(ended, Err(RunError::Aborted)), "{ended:?}");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.handle.abort();
    }
}
