//! The `countersign` command: runs a processor and shows what its store knows.

mod commands;
mod exec;
mod failure;
mod letters;
mod logging;
mod progress;
mod settings;
mod stdout;
mod values;

use std::process::ExitCode;

use clap::Parser;

use commands::{dead_letters, run, state, why};
use failure::Failure;

/// Exactly-once read-process-write on Apache Kafka, with a durable record of every message.
///
/// `run` processes; `state` and `why` show what the store of a processor that has ended knows.
#[derive(Parser)]
#[command(name = "countersign", version, max_term_width = 100, after_help = failure::HELP)]
#[command(disable_help_subcommand = true)]
enum Cli {
    Run(Box<run::Args>),
    State(state::Args),
    Why(why::Args),
    DeadLetters(dead_letters::Args),
}

fn main() -> ExitCode {
    match try_main(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            logging::report(&failure);
            failure.exit.into()
        }
    }
}

fn try_main(cli: Cli) -> Result<(), Failure> {
    match cli {
        Cli::Run(args) => run::run(*args),
        Cli::State(args) => state::run(&args),
        Cli::Why(args) => why::run(&args),
        Cli::DeadLetters(args) => dead_letters::run(&args),
    }
}
