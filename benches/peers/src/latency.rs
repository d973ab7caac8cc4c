//! How long a message takes from a paced producer through a peer to a `read_committed` reader.

use std::error::Error;
use std::time::Duration;

use crate::bench::Bench;
use crate::child::Running;
use crate::copy::remove;
use crate::exchange::{PARTITIONS, Pace, exchange};
use crate::peer::{Job, Peer};
use crate::results::{LatencyResult, LatencyRow, LatencyRun};

/// Without any a request is made for every message, and at 10,000 messages/s the broker does
/// nothing else.
const LINGER_MS: u32 = 1;
/// How long a peer may take to end.
const PATIENCE: Duration = Duration::from_secs(30);

/// When a transaction ends.
#[derive(Debug, Clone, Copy)]
enum End {
    AfterMs(u64),
    Early,
}

/// Runs all peers at all of their settings, interleaved.
pub(crate) fn run(
    bench: &mut Bench,
    peers: &[Peer],
    pace: Pace,
    intervals: &[u64],
    rounds: u32,
) -> LatencyResult {
    let mut rows = vec![(None, LatencyRow::new(None, "nobody in between"))];
    for &peer in peers {
        for &interval in intervals {
            let row = LatencyRow::new(Some(peer), &format!("{interval} ms"));
            rows.push((Some((peer, End::AfterMs(interval))), row));
        }
        if peer.ends_early() {
            rows.push((Some((peer, End::Early)), LatencyRow::new(Some(peer), "early")));
        }
    }
    for round in 0..rounds {
        let first = round as usize % rows.len();
        for at in (first..rows.len()).chain(0..first) {
            let Some((who, row)) = rows.get_mut(at) else { continue };
            match once(bench, pace, *who) {
                Ok(run) => {
                    eprintln!("  {}: p50 {:.1} p99 {:.1} ms", row.name(), run.p50_ms, run.p99_ms);
                    row.runs.push(run);
                }
                Err(error) => {
                    let rate = pace.rate;
                    bench.failed(format!("latency at {rate}/s: {}: {error}", row.name()));
                }
            }
        }
    }
    let rows = rows.into_iter().map(|(_, row)| row).collect();
    LatencyResult { messages_per_s: pace.rate, rows }
}

impl LatencyRow {
    fn new(peer: Option<Peer>, setting: &str) -> Self {
        Self { peer, setting: setting.to_owned(), runs: Vec::new() }
    }

    /// Peer and setting.
    pub(crate) fn name(&self) -> String {
        match self.peer {
            Some(peer) => format!("{peer}, {}", self.setting),
            None => self.setting.clone(),
        }
    }
}

fn once(
    bench: &mut Bench,
    pace: Pace,
    who: Option<(Peer, End)>,
) -> Result<LatencyRun, Box<dyn Error>> {
    let input = bench.name("input");
    bench.kafka.create_topic(&input, PARTITIONS)?;
    let Some((peer, end)) = who else {
        let measured = exchange(bench.kafka.bootstrap(), &input, &input, pace, &|| false)?;
        bench.kafka.delete_topic(&input)?;
        return Ok(percentiles(measured.times_us, 0.0));
    };
    let output = bench.name("output");
    bench.kafka.create_topic(&output, PARTITIONS)?;
    let job = job(bench, pace, end, &input, &output);
    remove(&job.state_dir)?;
    let command = job.command(peer, &bench.tools);
    let running = Running::start(command, &bench.log(), bench.broker()?)?;
    let measured =
        exchange(bench.kafka.bootstrap(), &input, &output, pace, &|| running.has_ended())
            .map_err(|error| format!("{error}\n{}", bench.log_tail()))?;
    // One that has ended by itself by now has nothing against it.
    running.terminate()?;
    let ended = running.wait(PATIENCE)?;
    bench.kafka.delete_topic(&input)?;
    bench.kafka.delete_topic(&output)?;
    Ok(percentiles(measured.times_us, ended.cpus(measured.from_ms, measured.to_ms)))
}

fn job(bench: &mut Bench, pace: Pace, end: End, input: &str, output: &str) -> Job {
    let (commit_interval_ms, early) = match end {
        End::AfterMs(interval) => (interval, false),
        End::Early => (10, true),
    };
    Job {
        brokers: bench.kafka.bootstrap().to_owned(),
        group: bench.name("group"),
        input: input.to_owned(),
        output: output.to_owned(),
        records: pace.messages(),
        commit_interval_ms,
        transaction_records: 0,
        linger_ms: LINGER_MS,
        compression: bench.compression.clone(),
        early,
        endless: true,
        state_dir: bench.dir.join("state"),
    }
}

fn percentiles(mut times_us: Vec<u32>, client_cpus: f64) -> LatencyRun {
    times_us.sort_unstable();
    let at = |part: f64| {
        let rank = (times_us.len() as f64 * part).ceil() as usize;
        let time = times_us.get(rank.saturating_sub(1)).copied().unwrap_or_default();
        f64::from(time) / 1e3
    };
    LatencyRun {
        p50_ms: at(0.5),
        p99_ms: at(0.99),
        p999_ms: at(0.999),
        max_ms: at(1.0),
        client_cpus,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_ranks() {
        let run = percentiles((1..=1_000).rev().map(|ms| ms * 1_000).collect(), 0.5);
        assert_eq!((run.p50_ms, run.p99_ms), (500.0, 990.0));
        assert_eq!((run.p999_ms, run.max_ms), (999.0, 1_000.0));
    }
}
