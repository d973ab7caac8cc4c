//! `countersign why`: the story of one message.

use std::path::PathBuf;

use countersign::inspection::{self, WhyError, text};

use super::{Format, Target, journal};
use crate::failure::{self, Exit, Failure};
use crate::stdout;

/// Tell what happened to one message, and how it stands
///
/// Reads the store of a processor that has ended; nothing is changed.
#[derive(clap::Args)]
#[command(after_help = failure::HELP)]
pub(crate) struct Args {
    /// The message, such as orders/3@12345
    #[arg(value_name = "TOPIC/PARTITION@OFFSET")]
    message: Target,
    /// The directory of the store
    #[arg(long, value_name = "DIR")]
    store: PathBuf,
    /// How the story is written
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let Target { topic, partition, offset } = &args.message;
    let journal = journal(&args.store)?;
    let report = inspection::why(&journal, topic, *partition, *offset).map_err(|error| {
        match error {
            WhyError::Store(error) => error.into(),
            // The command named what does not exist.
            unknown => Failure::new(Exit::Usage, unknown.to_string()),
        }
    })?;
    match args.format {
        Format::Json => stdout::json(&report),
        Format::Table => {
            let mut out = String::new();
            text::write_why(&mut out, &report).map_err(Failure::internal)?;
            stdout::write(&out)
        }
    }
}
