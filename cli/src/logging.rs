//! The log: text or JSON lines on standard error.

use std::io::{self, IsTerminal as _, Write};
use std::sync::OnceLock;

use clap::ValueEnum;
use indicatif::ProgressBar;
use serde::Deserialize;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::failure::Failure;

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// For programs: JSON lines.
    Json,
}

static FORMAT: OnceLock<LogFormat> = OnceLock::new();

/// What is logged unless `RUST_LOG` says otherwise: the clients and the store only warn.
const FILTER: &str = "info,librdkafka=warn,rdkafka=warn,sled=warn";

/// Starts the log; its lines appear above the progress bar.
pub(crate) fn start(format: LogFormat, bar: &ProgressBar) -> Result<(), Failure> {
    let filter = match std::env::var("RUST_LOG") {
        Ok(filter) if !filter.is_empty() => EnvFilter::try_new(&filter)
            .map_err(|error| Failure::usage(format!("RUST_LOG={filter:?}: {error}")))?,
        Ok(_) | Err(_) => EnvFilter::new(FILTER),
    };
    let colours = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(colours && format == LogFormat::Text)
        .with_writer(AboveBar(bar.clone()));
    let started = match format {
        LogFormat::Text => subscriber.with_target(false).try_init(),
        LogFormat::Json => subscriber.json().flatten_event(true).try_init(),
    };
    started.map_err(Failure::internal)?;
    FORMAT.set(format).map_err(|_| Failure::internal("the log was started twice"))
}

/// Tells why the command failed: in the log where that is JSON, otherwise in one line of its own.
pub(crate) fn report(failure: &Failure) {
    match FORMAT.get() {
        Some(LogFormat::Json) => {
            tracing::error!(exit_code = failure.exit as u8, error = failure.message, "failed");
        }
        Some(LogFormat::Text) | None => {
            // Nothing is left to be told to if standard error is gone.
            let _ = writeln!(io::stderr().lock(), "error: {}", failure.message);
        }
    }
}

/// Writes to standard error while the progress bar is out of the way.
struct AboveBar(ProgressBar);

impl Write for &AboveBar {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.suspend(|| io::stderr().lock().write_all(bytes)).map(|()| bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().lock().flush()
    }
}

impl<'a> MakeWriter<'a> for AboveBar {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> Self::Writer {
        self
    }
}
