//! `make bench-peers`: Countersign beside other exactly-once loops on one real Kafka.

#![expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "figures to be read, far below the precision of a float"
)]

mod args;
mod bench;
mod case;
mod chart;
mod child;
mod copy;
mod data;
mod exchange;
mod latency;
mod machine;
mod peer;
mod restart;
mod results;
mod scaling;
mod table;
mod throughput;
mod tools;
mod verify;

use std::error::Error;
use std::fs;
use std::process::ExitCode;

use clap::Parser as _;

use crate::args::{Args, Part};
use crate::bench::Bench;
use crate::exchange::Pace;
use crate::machine::Machine;
use crate::results::Results;
use crate::tools::Tools;

/// Every run that was measured.
const FILE: &str = "bench-peers.json";

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error}");
            let mut cause = error.source();
            while let Some(error) = cause {
                eprintln!("  because: {error}");
                cause = error.source();
            }
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<ExitCode, Box<dyn Error>> {
    let mut bench = Bench::start(args, Tools::build(&args.peers())?)?;
    let mut results = Results::new(Machine::look(), args.compression.clone());
    if args.is_a_part() {
        results.read(&args.out().join(FILE))?;
    }
    eprintln!("warming the broker up");
    throughput::warm_up(&mut bench)?;
    if args.runs(Part::Throughput) {
        measure_throughput(args, &mut bench, &mut results)?;
    }
    if args.runs(Part::Latency) {
        measure_latency(args, &mut bench, &mut results)?;
    }
    if args.runs(Part::Scaling) {
        measure_scaling(args, &mut bench, &mut results)?;
    }
    if args.runs(Part::Restart) {
        eprintln!("starts after kill -9");
        results.restart = Some(restart::run(&mut bench, args)?);
        save(args, &mut bench, &mut results)?;
    }
    bench.kafka.stop()?;
    println!("{}", table::document(&results));
    let code = if results.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    Ok(code)
}

fn measure_throughput(
    args: &Args,
    bench: &mut Bench,
    results: &mut Results,
) -> Result<(), Box<dyn Error>> {
    let cases = args.cases();
    for (number, case) in (1..).zip(&cases) {
        eprintln!("{number} of {}: {case}", cases.len());
        results.put_case(throughput::run(bench, *case)?);
        save(args, bench, results)?;
    }
    Ok(())
}

fn measure_latency(
    args: &Args,
    bench: &mut Bench,
    results: &mut Results,
) -> Result<(), Box<dyn Error>> {
    for rate in args.rates() {
        eprintln!("latency at {rate} messages/s");
        let pace =
            Pace { rate, warm_up_s: args.warm_up_seconds(), measured_s: args.latency_seconds() };
        let (peers, intervals) = (args.latency_peers(), args.intervals());
        let result = latency::run(bench, &peers, pace, &intervals, args.latency_rounds());
        results.put_latency(result);
        save(args, bench, results)?;
    }
    Ok(())
}

fn measure_scaling(
    args: &Args,
    bench: &mut Bench,
    results: &mut Results,
) -> Result<(), Box<dyn Error>> {
    for series in args.series() {
        eprintln!("scaling: {series}");
        results.put_scaling(scaling::run(bench, series, args)?);
        save(args, bench, results)?;
    }
    Ok(())
}

/// Writes what there is so far: the whole matrix takes hours.
fn save(args: &Args, bench: &mut Bench, results: &mut Results) -> Result<(), Box<dyn Error>> {
    results.failures.append(&mut bench.failures);
    let out = args.out();
    fs::create_dir_all(&out)?;
    fs::write(out.join(FILE), serde_json::to_string_pretty(results)?)?;
    fs::write(out.join("bench-peers.md"), table::document(results))?;
    chart::draw(results, &out)
}
