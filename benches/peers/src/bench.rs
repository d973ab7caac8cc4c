//! What a run of the benchmark works with.

use std::error::Error;
use std::fs;
use std::path::PathBuf;

use countersign_testkit::broker::{LocalKafka, LocalKafkaOptions};

use crate::args::Args;
use crate::peer::Peer;
use crate::tools::Tools;

const LOG_TAIL_LINES: usize = 20;

/// The broker, the peers and a place for files.
#[derive(Debug)]
pub(crate) struct Bench {
    pub(crate) kafka: LocalKafka,
    pub(crate) tools: Tools,
    pub(crate) peers: Vec<Peer>,
    pub(crate) rounds: u32,
    pub(crate) compression: String,
    /// For stores and logs; on the disk that the build is on, which is rarely memory.
    pub(crate) dir: PathBuf,
    pub(crate) failures: Vec<String>,
    names: u32,
    _removed: tempfile::TempDir,
}

impl Bench {
    pub(crate) fn start(args: &Args, tools: Tools) -> Result<Self, Box<dyn Error>> {
        let parent = std::env::current_exe()?;
        let parent = parent.parent().ok_or("the benchmark is in no directory")?;
        let removed = tempfile::Builder::new().prefix("bench-peers-").tempdir_in(parent)?;
        let options = LocalKafkaOptions {
            heap_mb: 1024,
            dir: Some(removed.path().join("kafka")),
            ..LocalKafkaOptions::default()
        };
        let options = options
            // Topics of former runs would fill the disk.
            .property("log.segment.delete.delay.ms", "1000")
            // Kafka's defaults, where the testkit has a second: a broker at full load that misses
            // its heartbeats must not be taken for gone.
            .property("broker.heartbeat.interval.ms", "2000")
            .property("broker.session.timeout.ms", "9000");
        Ok(Self {
            kafka: LocalKafka::start_with(&options)?,
            tools,
            peers: args.peers(),
            rounds: args.rounds(),
            compression: args.compression.clone(),
            dir: removed.path().to_owned(),
            failures: Vec::new(),
            names: 0,
            _removed: removed,
        })
    }

    /// A name that was not used before.
    pub(crate) fn name(&mut self, what: &str) -> String {
        self.names += 1;
        format!("{what}-{}", self.names)
    }

    /// The broker's process.
    pub(crate) fn broker(&self) -> Result<u32, Box<dyn Error>> {
        self.kafka.pid().ok_or_else(|| "the broker does not run".into())
    }

    /// Notes what went wrong, and goes on.
    pub(crate) fn failed(&mut self, what: String) {
        eprintln!("FAILED  {what}");
        self.failures.push(what);
    }

    /// Where the running peer writes its log.
    pub(crate) fn log(&self) -> PathBuf {
        self.dir.join("peer.log")
    }

    pub(crate) fn log_tail(&self) -> String {
        let text = fs::read(self.log()).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        let lines: Vec<&str> = text.lines().collect();
        lines.get(lines.len().saturating_sub(LOG_TAIL_LINES)..).unwrap_or_default().join("\n")
    }
}
