//! Why a soak did not come to its end.

use std::io;
use std::process::ExitStatus;

use thiserror::Error;

use crate::broker::LocalKafkaError;
use crate::reader::ReaderError;

use super::PATIENCE;
use super::log::LogError;

/// The soak could not be run, or did not end.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SoakError {
    /// There is no broker.
    #[error(transparent)]
    Kafka(#[from] LocalKafkaError),
    /// Messages could not be loaded, or the group not be asked.
    #[error(transparent)]
    Reader(#[from] ReaderError),
    /// What became of them could not be read.
    #[error(transparent)]
    Log(#[from] LogError),
    /// A worker could not be started, killed or measured.
    #[error("a worker could not be started, killed, measured or robbed of its store")]
    Process(#[from] io::Error),
    /// A worker ended by itself.
    #[error("worker {instance} ended with {status}; see its log")]
    Ended {
        /// Its name.
        instance: &'static str,
        /// How.
        status: ExitStatus,
    },
    /// A worker did not end when it was asked to.
    #[error("worker {instance} did not end within {PATIENCE:?} of SIGTERM; see its log")]
    NotEnded {
        /// Its name.
        instance: &'static str,
    },
    /// The work does not go on.
    #[error("{committed} of {total} messages were committed, and no more within {PATIENCE:?}")]
    Behind {
        /// How many were.
        committed: u64,
        /// How many should have been.
        total: u64,
    },
}
