//! Why there is no local Kafka.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use rdkafka::error::KafkaError;
use thiserror::Error;

/// A local Kafka could not be started or asked.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LocalKafkaError {
    /// A program that is needed is not installed.
    #[error("`{program}` is not in PATH; install it (Debian: `apt-get install {package}`)")]
    MissingProgram {
        /// The program's name.
        program: &'static str,
        /// The Debian package that has it.
        package: &'static str,
    },
    /// Maven could not fetch the broker's jars.
    #[error(
        "fetching Kafka into {} with Maven failed ({status}); Maven said:\n{output}",
        cache.display()
    )]
    Fetch {
        /// Where they were to be put.
        cache: PathBuf,
        /// How Maven ended.
        status: ExitStatus,
        /// What Maven printed.
        output: String,
    },
    /// The data directory could not be formatted.
    #[error(
        "formatting {} failed ({status}); does `java` have version 17 or later? It said:\n{output}",
        data.display()
    )]
    Format {
        /// The data directory.
        data: PathBuf,
        /// How the storage tool ended.
        status: ExitStatus,
        /// What it printed.
        output: String,
    },
    /// The broker's process ended by itself.
    #[error("the broker ended by itself ({status}); the end of its log:\n{log_tail}")]
    Exited {
        /// How it ended.
        status: ExitStatus,
        /// The last lines of its log.
        log_tail: String,
    },
    /// The broker runs but did not answer in time.
    #[error("the broker did not answer in {waited:?}; the end of its log:\n{log_tail}")]
    NotReady {
        /// How long it was waited for.
        waited: Duration,
        /// The last lines of its log.
        log_tail: String,
    },
    /// Replicas are missing behind their leaders.
    #[error("not every replica was in sync within {waited:?}")]
    NotInSync {
        /// How long it was waited for.
        waited: Duration,
    },
    /// The broker was killed or stopped before; [`restart`](super::LocalKafka::restart) it first.
    #[error("the broker is not running; call `restart` first")]
    NotRunning,
    /// The machine did not let us read, write or start something.
    #[error("{action} failed")]
    Io {
        /// What was tried.
        action: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The broker refused a request.
    #[error("{call} failed")]
    Kafka {
        /// What was asked.
        call: String,
        /// Why it failed.
        #[source]
        source: KafkaError,
    },
    /// A topic did not become what was asked for.
    #[error("topic {topic} was not {expected} within {waited:?}")]
    Topic {
        /// Its name.
        topic: String,
        /// What was waited for.
        expected: &'static str,
        /// How long it was waited for.
        waited: Duration,
    },
}

impl LocalKafkaError {
    /// Whether another process took a port between our look and the broker's start.
    pub(super) fn is_port_taken(&self) -> bool {
        matches!(self, Self::Exited { log_tail, .. } if log_tail.contains("already in use"))
    }

    /// Wraps an I/O error with what was tried.
    pub(super) fn io(action: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let action = action.into();
        move |source| Self::Io { action, source }
    }

    /// Wraps an I/O error with what was tried on which file.
    pub(super) fn file(verb: &str, path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        Self::io(format!("{verb} {}", path.display()))
    }

    /// Tells an absent program from other failures to start it.
    pub(super) fn spawn(
        program: &'static str,
        package: &'static str,
    ) -> impl FnOnce(io::Error) -> Self {
        move |source| {
            if source.kind() == io::ErrorKind::NotFound {
                Self::MissingProgram { program, package }
            } else {
                Self::Io { action: format!("starting `{program}`"), source }
            }
        }
    }
}
