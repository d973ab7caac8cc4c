//! Has one or several processes copy an input, and looks at what came of it.

use std::error::Error;
use std::fs;
use std::io;
use std::ops::Range;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use countersign_testkit::reader::{LoadRecord, load};

use crate::bench::Bench;
use crate::case::{COMMIT_INTERVAL_MS, Case};
use crate::child::{Ended, Running};
use crate::data;
use crate::peer::Job;
use crate::results::Run;
use crate::tools::Tools;
use crate::verify::{self, Output};

const PATIENCE: Duration = Duration::from_secs(300);
const LINGER_MS: u32 = 20;

/// What came of a copy.
#[derive(Debug)]
pub(crate) struct Copied {
    output: Output,
    processes: Vec<Ended>,
    store_bytes: u64,
}

/// Makes the topic that all peers read.
pub(crate) fn load_input(bench: &mut Bench, case: &Case) -> Result<String, Box<dyn Error>> {
    let topic = bench.name("input");
    let compressed = [("compression.type", bench.compression.as_str())];
    bench.kafka.create_topic_with(&topic, case.partitions, &compressed)?;
    load_range(bench, case, &topic, 0..case.records)?;
    Ok(topic)
}

/// Writes some of the messages of a case.
pub(crate) fn load_range(
    bench: &Bench,
    case: &Case,
    topic: &str,
    range: Range<u64>,
) -> Result<(), Box<dyn Error>> {
    let record = |number: u64| {
        let index = range.start + number;
        let mut value = Vec::with_capacity(case.bytes + 16);
        data::fill(&mut value, case.data, index, case.bytes);
        let partition = u32::try_from(index % u64::from(case.partitions)).ok();
        LoadRecord { partition, key: None, value: Some(value) }
    };
    let total = range.end - range.start;
    load(bench.kafka.bootstrap(), topic, total, PATIENCE, record, |_| {})?;
    Ok(())
}

/// Makes a topic for what is copied.
pub(crate) fn create_output(bench: &mut Bench, case: &Case) -> Result<String, Box<dyn Error>> {
    let output = bench.name("output");
    // The broker's clock tells when an output was written: it is the same for all.
    let settings = [("message.timestamp.type", "LogAppendTime")];
    bench.kafka.create_topic_with(&output, case.partitions, &settings)?;
    Ok(output)
}

/// What a peer is to do in a case.
pub(crate) fn job_of(bench: &mut Bench, case: &Case, input: &str, output: &str) -> Job {
    Job {
        brokers: bench.kafka.bootstrap().to_owned(),
        group: bench.name("group"),
        input: input.to_owned(),
        output: output.to_owned(),
        records: case.records,
        commit_interval_ms: COMMIT_INTERVAL_MS,
        transaction_records: case.transaction_records(),
        linger_ms: LINGER_MS,
        compression: bench.compression.clone(),
        early: false,
        endless: false,
        state_dir: bench.dir.join("state"),
    }
}

/// Runs the commands at once, as members of one group, until the whole input is copied.
pub(crate) fn copy(
    bench: &mut Bench,
    case: &Case,
    input: &str,
    commands: impl FnOnce(&Job, &Tools) -> Vec<Command>,
) -> Result<Copied, Box<dyn Error>> {
    let output = create_output(bench, case)?;
    let job = job_of(bench, case, input, &output);
    remove(&job.state_dir)?;
    let broker = bench.broker()?;
    let processes: Vec<Running> = commands(&job, &bench.tools)
        .into_iter()
        .map(|command| Running::start(command, &bench.log(), broker))
        .collect::<io::Result<_>>()?;
    let processes: Vec<Ended> =
        processes.into_iter().map(|it| it.wait(PATIENCE)).collect::<io::Result<_>>()?;
    if let Some(failed) = processes.iter().find(|it| !it.status.success()) {
        return Err(format!("{}\n{}", failed.status, bench.log_tail()).into());
    }
    let found = verify::read(bench.kafka.bootstrap(), &output, case)?;
    bench.kafka.delete_topic(&output)?;
    let store_bytes = disk_bytes(&job.state_dir)?;
    Ok(Copied { output: found, processes, store_bytes })
}

impl Copied {
    /// The figures of all processes together.
    ///
    /// # Errors
    /// The output is not as it should be, or nothing came out.
    pub(crate) fn run(
        &self,
        case: &Case,
        is_right: fn(&Output) -> bool,
    ) -> Result<Run, Box<dyn Error>> {
        if !is_right(&self.output) {
            return Err(format!("NOT EXACT: {}", self.output).into());
        }
        self.measured(case).ok_or_else(|| "no output".into())
    }

    fn measured(&self, case: &Case) -> Option<Run> {
        let (first_ms, last_ms) = self.output.window_ms()?;
        let first = self.processes.first()?;
        let sum = |figure: &dyn Fn(&Ended) -> f64| self.processes.iter().map(figure).sum::<f64>();
        let client = |at_ms| sum(&|it| it.cpu_s_at(at_ms).0);
        let broker = |at_ms| first.cpu_s_at(at_ms).1;
        let records = case.records as f64;
        let millions = records / 1e6;
        Some(Run {
            messages_per_s: records / (last_ms - first_ms) * 1e3,
            client_cpu_s: (client(last_ms) - client(first_ms)) / millions,
            broker_cpu_s: (broker(last_ms) - broker(first_ms)) / millions,
            peak_mb: sum(&|it| it.peak_bytes() as f64 / 1e6),
            store_bytes: self.store_bytes as f64 / records,
            start_s: (first_ms - first.started_ms()) / 1e3,
            start_cpu_s: client(first_ms),
            whole_cpu_s: sum(&Ended::client_cpu_s),
            records_per_marker: self.output.records_per_marker(),
        })
    }
}

/// What the files of a directory take on the disk; nothing if there is none.
pub(crate) fn disk_bytes(dir: &Path) -> io::Result<u64> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        entries => entries?,
    };
    let mut bytes = 0;
    for entry in entries {
        let entry = entry?;
        let metadata = entry.metadata()?;
        bytes +=
            if metadata.is_dir() { disk_bytes(&entry.path())? } else { metadata.blocks() * 512 };
    }
    Ok(bytes)
}

/// Removes the directory if it is there.
pub(crate) fn remove(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}
