//! What was measured, as it is written to the JSON file.

use std::error::Error;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::case::Case;
use crate::machine::Machine;
use crate::peer::Peer;
use crate::scaling::Series;

/// Everything that was measured on one machine, each part when it was measured last.
#[derive(Debug, Deserialize, Serialize)]
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

impl Results {
    /// Nothing yet.
    pub(crate) fn new(machine: Machine, compression: String) -> Self {
        Self {
            machine,
            compression,
            throughput: Vec::new(),
            latency: Vec::new(),
            scaling: Vec::new(),
            restart: None,
            failures: Vec::new(),
        }
    }

    /// Takes over what stands in the file, if there is one and its figures may stand beside new
    /// ones.
    pub(crate) fn read(&mut self, file: &Path) -> Result<(), Box<dyn Error>> {
        let text = match fs::read(file) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(format!("{}: {error}", file.display()).into()),
        };
        let former: Self = serde_json::from_slice(&text)
            .map_err(|error| format!("{}: {error}: remove it", file.display()))?;
        if former.machine.is_like(&self.machine) && former.compression == self.compression {
            let machine = self.machine.clone();
            *self = Self { machine, failures: Vec::new(), ..former };
        } else {
            eprintln!("{} is of another machine, and is not kept", file.display());
        }
        Ok(())
    }

    /// Puts a case in the place of a former one.
    pub(crate) fn put_case(&mut self, new: CaseResult) {
        put(&mut self.throughput, new, |one, new| one.case.is_beside(&new.case));
    }

    /// Puts a rate in the place of a former one.
    pub(crate) fn put_latency(&mut self, new: LatencyResult) {
        put(&mut self.latency, new, |one, new| one.messages_per_s == new.messages_per_s);
    }

    /// Puts a series in the place of a former one.
    pub(crate) fn put_scaling(&mut self, new: ScalingResult) {
        put(&mut self.scaling, new, |one, new| one.series == new.series);
    }
}

fn put<T>(all: &mut Vec<T>, new: T, is_same: impl Fn(&T, &T) -> bool) {
    match all.iter_mut().find(|one| is_same(one, &new)) {
        Some(place) => *place = new,
        None => all.push(new),
    }
}

/// One throughput case.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct CaseResult {
    pub(crate) case: Case,
    pub(crate) peers: Vec<PeerRuns>,
}

/// The rounds of one peer in one case.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct PeerRuns {
    pub(crate) peer: Peer,
    pub(crate) runs: Vec<Run>,
}

/// One round. The window is from the first output record to the last, by the broker's clock.
#[derive(Debug, Clone, Deserialize, Serialize)]
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
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct LatencyResult {
    pub(crate) messages_per_s: u64,
    pub(crate) rows: Vec<LatencyRow>,
}

/// A peer at one of its settings.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct LatencyRow {
    /// `None`: the reader reads what the producer writes, with nobody in between.
    pub(crate) peer: Option<Peer>,
    pub(crate) setting: String,
    pub(crate) runs: Vec<LatencyRun>,
}

/// From the send of a message to its arrival at a `read_committed` reader, in milliseconds.
#[derive(Debug, Clone, Deserialize, Serialize)]
pub(crate) struct LatencyRun {
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) p999_ms: f64,
    pub(crate) max_ms: f64,
    /// CPU seconds of the client in a second.
    pub(crate) client_cpus: f64,
}

/// Countersign alone, with more and more of one thing.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct ScalingResult {
    pub(crate) series: Series,
    pub(crate) points: Vec<ScalingPoint>,
}

/// One size of it.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct ScalingPoint {
    pub(crate) size: u32,
    pub(crate) runs: Vec<Run>,
}

/// Starts after a kill -9, with a store that knows much.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct RestartResult {
    /// How many messages are tracked.
    pub(crate) tracked: u64,
    /// How many of them have a history of their own.
    pub(crate) histories: u64,
    pub(crate) starts: Vec<Start>,
}

/// One start.
#[derive(Debug, Deserialize, Serialize)]
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

    fn results(rates: &[(u64, &str)]) -> Results {
        let mut results = Results::new(Machine::look(), "lz4".to_owned());
        for &(messages_per_s, setting) in rates {
            let setting = setting.to_owned();
            let rows = vec![LatencyRow { peer: None, setting, runs: Vec::new() }];
            results.put_latency(LatencyResult { messages_per_s, rows });
        }
        results
    }

    fn settings(results: &Results) -> Vec<(u64, &str)> {
        results
            .latency
            .iter()
            .map(|one| (one.messages_per_s, one.rows[0].setting.as_str()))
            .collect()
    }

    #[test]
    fn what_is_measured_again_is_put_in_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("it.json");
        let former = results(&[(1_000, "old"), (10_000, "old")]);
        fs::write(&file, serde_json::to_string(&former).unwrap()).unwrap();
        let mut new = results(&[]);
        new.read(&file).unwrap();
        let rows = vec![LatencyRow { peer: None, setting: "new".to_owned(), runs: Vec::new() }];
        new.put_latency(LatencyResult { messages_per_s: 1_000, rows });
        assert_eq!(settings(&new), [(1_000, "new"), (10_000, "old")]);
    }

    #[test]
    fn what_was_measured_elsewhere_is_not_kept() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("it.json");
        let mut former = results(&[(1_000, "old")]);
        former.machine.cores += 1;
        fs::write(&file, serde_json::to_string(&former).unwrap()).unwrap();
        let mut new = results(&[]);
        new.read(&file).unwrap();
        assert_eq!(settings(&new), []);
        new.read(&dir.path().join("missing.json")).unwrap();
        fs::write(&file, "{}").unwrap();
        assert!(new.read(&file).unwrap_err().to_string().contains("remove it"));
    }

    #[test]
    fn a_spread_has_the_middle_and_the_ends() {
        let odd = Spread::of(&[3.0, 1.0, 9.0], |run| *run);
        assert_eq!(odd, Some(Spread { min: 1.0, median: 3.0, max: 9.0 }));
        let even = Spread::of(&[1.0, 2.0], |run| *run);
        assert_eq!(even, Some(Spread { min: 1.0, median: 1.5, max: 2.0 }));
        assert_eq!(Spread::of(&[], |run: &f64| *run), None);
    }
}
