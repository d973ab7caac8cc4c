//! Runs simulations, seed by seed.

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use countersign_testkit::sim::{self, Report, Totals, World};

/// Runs the processor in a simulated world for many seeds and checks that every message is done
/// exactly once. A failure prints the command that repeats it.
#[derive(Debug, Parser)]
#[command(name = "countersign-sim", version)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
struct Args {
    /// How many seeds to run.
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Runs this seed alone.
    #[arg(long, conflicts_with_all = ["seeds", "from"])]
    seed: Option<u64>,
    /// Prints everything that happens.
    #[arg(long)]
    verbose: bool,
    /// Runs every seed twice and compares what happens.
    #[arg(long)]
    doublecheck: bool,
    /// Goes on after a failure.
    #[arg(long)]
    keep_going: bool,
    /// Runs the world without a nemesis.
    #[arg(long)]
    calm: bool,
}

/// So many seeds must have met every kind of fault.
const ENOUGH_SEEDS: u64 = 500;

#[derive(Debug, Default)]
struct Sum {
    totals: Totals,
    failures: u64,
    longest: Duration,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        // Whoever read the output has gone.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("countersign-sim: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> io::Result<bool> {
    let started = Instant::now();
    let seeds = args.seed.map_or(args.from..args.from + args.seeds, |seed| seed..seed + 1);
    let count = seeds.end - seeds.start;
    let mut out = io::stdout().lock();
    let mut sum = Sum::default();
    for seed in seeds {
        let world = if args.calm { World::calm(seed) } else { World::draw(seed) };
        if args.verbose {
            writeln!(out, "{world:#?}")?;
        }
        let report = sim::run(&world, args.verbose);
        for line in &report.timeline {
            writeln!(out, "{line}")?;
        }
        let again = args.doublecheck.then(|| sim::run(&world, false).hash);
        let is_good = judge(&mut out, &report, again)?;
        sum.add(report, is_good);
        if !is_good && !args.keep_going {
            break;
        }
    }
    for (kind, count) in &sum.totals {
        writeln!(out, "{count:>9}  {kind}")?;
    }
    let missed = if count >= ENOUGH_SEEDS && !args.calm { missed(&sum.totals) } else { Vec::new() };
    for kind in &missed {
        writeln!(out, "never met: {kind}")?;
    }
    let (failures, longest, took) = (sum.failures, sum.longest, started.elapsed());
    writeln!(out, "{count} seeds, {failures} failed, {took:.1?}; longest healing {longest:.1?}")?;
    Ok(failures == 0 && missed.is_empty())
}

fn judge(out: &mut impl io::Write, report: &Report, again: Option<u64>) -> io::Result<bool> {
    let seed = report.seed;
    let command = format!(
        "cargo run -p countersign-testkit --bin countersign-sim -- --seed {seed} --verbose"
    );
    if let Some(failure) = &report.failure {
        writeln!(out, "seed {seed}: {failure}\n  to repeat it: {command}")?;
        return Ok(false);
    }
    if again.is_some_and(|hash| hash != report.hash) {
        writeln!(out, "seed {seed}: a second run went differently\n  to repeat it: {command}")?;
        return Ok(false);
    }
    Ok(true)
}

impl Sum {
    fn add(&mut self, report: Report, is_good: bool) {
        for (kind, count) in report.totals {
            *self.totals.entry(kind).or_default() += count;
        }
        self.failures += u64::from(!is_good);
        self.longest = self.longest.max(report.healing);
    }
}

/// What the nemesis promises and did not bring.
fn missed(totals: &Totals) -> Vec<&'static str> {
    let met = |kind: &str| totals.keys().any(|met| met.starts_with(kind));
    sim::KINDS.iter().copied().filter(|kind| !met(kind)).collect()
}
