//! Runs the peers over the same input, one after another, round after round.

use std::error::Error;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use countersign_testkit::reader::{LoadRecord, load};

use crate::bench::Bench;
use crate::case::{Bound, COMMIT_INTERVAL_MS, Case, Data};
use crate::child::{Ended, Running};
use crate::data;
use crate::peer::{Job, Peer};
use crate::results::{CaseResult, PeerRuns, Run};
use crate::verify::{self, Output};

const PATIENCE: Duration = Duration::from_secs(300);
const LINGER_MS: u32 = 20;

/// Has the broker do once what it is measured with: the first transactions make its internal
/// topics, and its code is compiled while it runs.
pub(crate) fn warm_up(bench: &mut Bench) -> Result<(), Box<dyn Error>> {
    for (bound, records) in [(Bound::Interval, 1_000_000), (Bound::Records, 50_000)] {
        let case = Case { bytes: 200, data: Data::Random, bound, partitions: 4, records };
        let input = load_input(bench, &case)?;
        for peer in [Peer::Raw, Peer::AtLeastOnce] {
            once(bench, &case, &input, peer)
                .map_err(|error| format!("warming up: {case}: {peer}: {error}"))?;
        }
        bench.kafka.delete_topic(&input)?;
    }
    Ok(())
}

/// Runs one case, the peers interleaved.
pub(crate) fn run(bench: &mut Bench, case: Case) -> Result<CaseResult, Box<dyn Error>> {
    let input = load_input(bench, &case)?;
    let mut peers: Vec<PeerRuns> =
        bench.peers.iter().map(|&peer| PeerRuns { peer, runs: Vec::new() }).collect();
    for round in 0..bench.rounds {
        // Nobody is always the first after a pause, or always runs after the same neighbour.
        let first = usize::try_from(round)? % peers.len().max(1);
        for at in (first..peers.len()).chain(0..first) {
            let Some(PeerRuns { peer, runs }) = peers.get_mut(at) else { continue };
            match once(bench, &case, &input, *peer) {
                Ok(run) => {
                    eprintln!("  {peer}: {:.0} messages/s", run.messages_per_s);
                    runs.push(run);
                }
                Err(error) => bench.failed(format!("{case}: {peer}: {error}")),
            }
        }
    }
    bench.kafka.delete_topic(&input)?;
    Ok(CaseResult { case, peers })
}

/// Makes the topic that all peers read.
fn load_input(bench: &mut Bench, case: &Case) -> Result<String, Box<dyn Error>> {
    let topic = bench.name("input");
    let compressed = [("compression.type", bench.compression.as_str())];
    bench.kafka.create_topic_with(&topic, case.partitions, &compressed)?;
    let record = |index: u64| {
        let mut value = Vec::with_capacity(case.bytes + 16);
        data::fill(&mut value, case.data, index, case.bytes);
        let partition = u32::try_from(index % u64::from(case.partitions)).ok();
        LoadRecord { partition, key: None, value: Some(value) }
    };
    load(bench.kafka.bootstrap(), &topic, case.records, PATIENCE, record, |_| {})?;
    Ok(topic)
}

/// One run of one peer.
fn once(bench: &mut Bench, case: &Case, input: &str, peer: Peer) -> Result<Run, Box<dyn Error>> {
    let output = bench.name("output");
    // The broker's clock tells when an output was written: it is the same for all.
    let settings = [("message.timestamp.type", "LogAppendTime")];
    bench.kafka.create_topic_with(&output, case.partitions, &settings)?;
    let job = Job {
        brokers: bench.kafka.bootstrap().to_owned(),
        group: bench.name("group"),
        input: input.to_owned(),
        output: output.clone(),
        records: case.records,
        commit_interval_ms: COMMIT_INTERVAL_MS,
        transaction_records: case.transaction_records(),
        linger_ms: LINGER_MS,
        compression: bench.compression.clone(),
        early: false,
        endless: false,
        state_dir: bench.dir.join("state"),
    };
    remove(&job.state_dir)?;
    let command = job.command(peer, &bench.tools);
    let ended = Running::start(command, &bench.log(), bench.broker()?)?.wait(PATIENCE)?;
    if !ended.status.success() {
        return Err(format!("{}\n{}", ended.status, bench.log_tail()).into());
    }
    let found = verify::read(bench.kafka.bootstrap(), &output, case)?;
    bench.kafka.delete_topic(&output)?;
    if !found.is_exact() {
        return Err(format!("NOT EXACT: {found}").into());
    }
    let store_bytes = disk_bytes(&job.state_dir)?;
    measured(case, &ended, &found, store_bytes).ok_or_else(|| "no output".into())
}

fn measured(case: &Case, ended: &Ended, output: &Output, store_bytes: u64) -> Option<Run> {
    let (first_ms, last_ms) = output.window_ms()?;
    let (client_before, broker_before) = ended.cpu_s_at(first_ms);
    let (client_after, broker_after) = ended.cpu_s_at(last_ms);
    let records = case.records as f64;
    let millions = records / 1e6;
    Some(Run {
        messages_per_s: records / (last_ms - first_ms) * 1e3,
        client_cpu_s: (client_after - client_before) / millions,
        broker_cpu_s: (broker_after - broker_before) / millions,
        peak_mb: ended.peak_bytes() as f64 / 1e6,
        store_bytes: store_bytes as f64 / records,
        start_s: (first_ms - ended.started_ms()) / 1e3,
        start_cpu_s: client_before,
        whole_cpu_s: ended.client_cpu_s(),
        records_per_marker: output.records_per_marker(),
    })
}

/// What the files of a directory take on the disk; nothing if there is none.
fn disk_bytes(dir: &Path) -> io::Result<u64> {
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
