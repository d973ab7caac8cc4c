//! What was measured, as it is written to the JSON file.

use serde::Serialize;

use crate::case::Case;
use crate::machine::Machine;
use crate::peer::Peer;
use crate::scaling::Series;

/// Everything of one `make bench-peers`.
#[derive(Debug, Serialize)]
pub(crate) struct Results {
    pub(crate) machine: Machine,
    pub(crate) compression: String,
    pub(crate) throughput: Vec<CaseResult>,
    pub(crate) latency: Vec<LatencyResult>,
    pub(crate) scaling: Vec<ScalingResult>,
    pub(crate) restart: Option<RestartResult>,
    /// What went wrong; a run that did is in no median.
    pub(crate) failures: Vec<String>,
}

/// One throughput case.
#[derive(Debug, Serialize)]
pub(crate) struct CaseResult {
    pub(crate) case: Case,
    pub(crate) peers: Vec<PeerRuns>,
}

/// The rounds of one peer in one case.
#[derive(Debug, Serialize)]
pub(crate) struct PeerRuns {
    pub(crate) peer: Peer,
    pub(crate) runs: Vec<Run>,
}

/// One round. The window is from the first output record to the last, by the broker's clock.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Run {
    pub(crate) messages_per_s: f64,
    /// CPU seconds of the client in the window, for a million messages.
    pub(crate) client_cpu_s: f64,
    /// CPU seconds of the broker in the window, for a million messages.
    pub(crate) broker_cpu_s: f64,
    pub(crate) peak_mb: f64,
    /// Bytes of the state directory on disk after the end, for a message.
    pub(crate) store_bytes: f64,
    /// From the start of the process to the first output record.
    pub(crate) start_s: f64,
    /// CPU seconds of the client before the window.
    pub(crate) start_cpu_s: f64,
    /// CPU seconds of the client from start to end.
    pub(crate) whole_cpu_s: f64,
    /// How many records of a partition one transaction had.
    pub(crate) records_per_marker: Option<f64>,
}

/// One latency case.
#[derive(Debug, Serialize)]
pub(crate) struct LatencyResult {
    pub(crate) messages_per_s: u64,
    pub(crate) rows: Vec<LatencyRow>,
}

/// A peer at one of its settings.
#[derive(Debug, Serialize)]
pub(crate) struct LatencyRow {
    /// `None`: the reader reads what the producer writes, with nobody in between.
    pub(crate) peer: Option<Peer>,
    pub(crate) setting: String,
    pub(crate) runs: Vec<LatencyRun>,
}

/// From the send of a message to its arrival at a `read_committed` reader, in milliseconds.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct LatencyRun {
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) p999_ms: f64,
    pub(crate) max_ms: f64,
    /// CPU seconds of the client in a second.
    pub(crate) client_cpus: f64,
}

/// Countersign alone, with more and more of one thing.
#[derive(Debug, Serialize)]
pub(crate) struct ScalingResult {
    pub(crate) series: Series,
    pub(crate) points: Vec<ScalingPoint>,
}

/// One size of it.
#[derive(Debug, Serialize)]
pub(crate) struct ScalingPoint {
    pub(crate) size: u32,
    pub(crate) runs: Vec<Run>,
}

/// Starts after a kill -9, with a store that knows much.
#[derive(Debug, Serialize)]
pub(crate) struct RestartResult {
    /// How many messages are tracked.
    pub(crate) tracked: u64,
    /// How many of them have a history of their own.
    pub(crate) histories: u64,
    pub(crate) starts: Vec<Start>,
}

/// One start.
#[derive(Debug, Serialize)]
pub(crate) struct Start {
    /// From the start of the process until a reader sees the first output of it.
    pub(crate) seconds: f64,
    pub(crate) store_bytes: u64,
}

/// Median and range of some runs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Spread {
    pub(crate) min: f64,
    pub(crate) median: f64,
    pub(crate) max: f64,
}

impl Spread {
    /// Of one figure of some runs; none of no runs.
    pub(crate) fn of<R>(runs: &[R], figure: impl Fn(&R) -> f64) -> Option<Self> {
        let mut figures: Vec<f64> = runs.iter().map(figure).collect();
        figures.sort_by(f64::total_cmp);
        let (min, max) = (*figures.first()?, *figures.last()?);
        let half = figures.len() / 2;
        let (lower, upper) = (figures.get((figures.len() - 1) / 2)?, figures.get(half)?);
        Some(Self { min, median: f64::midpoint(*lower, *upper), max })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_has_the_middle_and_the_ends() {
        let odd = Spread::of(&[3.0, 1.0, 9.0], |run| *run);
        assert_eq!(odd, Some(Spread { min: 1.0, median: 3.0, max: 9.0 }));
        let even = Spread::of(&[1.0, 2.0], |run| *run);
        assert_eq!(even, Some(Spread { min: 1.0, median: 1.5, max: 2.0 }));
        assert_eq!(Spread::of(&[], |run: &f64| *run), None);
    }
}
