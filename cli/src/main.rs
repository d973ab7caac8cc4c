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

use countersign::control::Verb;

use commands::{dead_letters, intervene, run, state, why};
use failure::Failure;

/// Exactly-once read-process-write on Apache Kafka, with a durable record of every message.
///
/// `run` processes; `state` and `why` show what the store of a processor that has ended knows;
/// `skip`, `retry` and `dead-letter` unblock a message.
#[derive(Parser)]
#[command(name = "countersign", version, max_term_width = 100, after_help = failure::HELP)]
#[command(disable_help_subcommand = true)]
enum Cli {
    Run(Box<run::Args>),
    State(state::Args),
    Why(why::Args),
    DeadLetters(dead_letters::Args),
    /// Pass over one message: it is done without outputs
    #[command(after_help = intervene::SKIP_HELP)]
    Skip(Box<intervene::Args>),
    /// Try one message now, and count its attempts anew
    #[command(after_help = intervene::RETRY_HELP)]
    Retry(Box<intervene::Args>),
    /// Make a dead letter of one message
    #[command(name = "dead-letter", after_help = intervene::DEAD_LETTER_HELP)]
    DeadLetter(Box<intervene::Args>),
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
        Cli::Skip(args) => intervene::run(Verb::Skip, &args),
        Cli::Retry(args) => intervene::run(Verb::Retry, &args),
        Cli::DeadLetter(args) => intervene::run(Verb::DeadLetter, &args),
    }
}
