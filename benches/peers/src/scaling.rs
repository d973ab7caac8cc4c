//! Countersign alone, with more and more of one thing.

use std::error::Error;
use std::fmt;
use std::process::Command;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::args::Args;
use crate::bench::Bench;
use crate::case::{Bound, Case, Data};
use crate::copy::{copy, load_input};
use crate::peer::Job;
use crate::results::{Run, ScalingPoint, ScalingResult};
use crate::tools::Tools;
use crate::verify::Output;

/// What there is more and more of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Series {
    /// Members of the group in one process.
    Workers,
    /// Processes of one worker.
    Processes,
    /// Partitions of input and output.
    Partitions,
    /// Handlers in flight.
    Handlers,
}

/// How long a handler waits where handlers in flight are counted.
const HANDLER_MS: u32 = 5;
/// Of a case in which members are counted: each has some.
const PARTITIONS: u32 = 12;
const BYTES: usize = 200;

/// Measures a series, from the smallest size on, round after round.
pub(crate) fn run(
    bench: &mut Bench,
    series: Series,
    args: &Args,
) -> Result<ScalingResult, Box<dyn Error>> {
    let mut points = Vec::new();
    for &size in series.sizes().iter().take(args.points()) {
        let case = series.case(size, args);
        let input = load_input(bench, &case)?;
        let mut runs = Vec::new();
        for _ in 0..bench.rounds {
            match once(bench, series, size, &case, &input) {
                Ok(run) => {
                    eprintln!("  {size}: {:.0} messages/s", run.messages_per_s);
                    runs.push(run);
                }
                Err(error) => bench.failed(format!("scaling: {series}: {size}: {error}")),
            }
        }
        bench.kafka.delete_topic(&input)?;
        points.push(ScalingPoint { size, runs });
    }
    Ok(ScalingResult { series, points })
}

fn once(
    bench: &mut Bench,
    series: Series,
    size: u32,
    case: &Case,
    input: &str,
) -> Result<Run, Box<dyn Error>> {
    let copied = copy(bench, case, input, |job, tools| series.commands(size, job, tools))?;
    let is_right: fn(&Output) -> bool = match series {
        Series::Workers | Series::Processes | Series::Partitions => Output::is_exact,
        Series::Handlers => Output::is_once,
    };
    copied.run(case, is_right)
}

impl Series {
    fn sizes(self) -> &'static [u32] {
        match self {
            Self::Workers | Self::Processes => &[1, 2, 4],
            Self::Partitions => &[1, 12, 120, 1_200],
            Self::Handlers => &[16, 128, 1_024, 8_192],
        }
    }

    fn case(self, size: u32, args: &Args) -> Case {
        let partitions = if self == Self::Partitions { size } else { PARTITIONS };
        let bound = Bound::Interval;
        let records = match self {
            Self::Workers | Self::Processes | Self::Partitions => args.records(BYTES, bound),
            // At this many a second each, a few seconds.
            Self::Handlers => u64::from(size * 1_000 / HANDLER_MS * 4).min(1_000_000),
        };
        Case { bytes: BYTES, data: Data::Random, bound, partitions, records }
    }

    fn commands(self, size: u32, job: &Job, tools: &Tools) -> Vec<Command> {
        let flag = |name: &str, value: u32| format!("--{name}={value}");
        match self {
            Self::Workers => vec![job.library(tools, &[&flag("workers", size)])],
            Self::Processes => (0..size)
                .map(|process| {
                    let state_dir = job.state_dir.join(process.to_string());
                    Job { state_dir, ..job.clone() }.library(tools, &[])
                })
                .collect(),
            Self::Partitions => vec![job.library(tools, &[])],
            Self::Handlers => {
                let flags = [flag("concurrency", size), flag("handler-ms", HANDLER_MS)];
                vec![job.library(tools, &flags.each_ref().map(String::as_str))]
            }
        }
    }
}

impl fmt::Display for Series {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Workers => write!(f, "workers of one process, {PARTITIONS} partitions"),
            Self::Processes => write!(f, "processes, {PARTITIONS} partitions"),
            Self::Partitions => f.write_str("partitions"),
            Self::Handlers => write!(f, "handlers of {HANDLER_MS} ms in flight, in any order"),
        }
    }
}
