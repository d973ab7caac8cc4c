//! What can be wrong with a store.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use countersign_statemachine::ApplyError;
use thiserror::Error;

use super::record::Malformed;

/// Why the store cannot be opened, read or written.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StoreError {
    /// There is nothing at the path.
    #[error(
        "there is no store at {path}; it is made by the first `countersign run` with this path"
    )]
    Missing {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// Another process has it open.
    #[error(
        "the store at {path} is open in another process; stop that process, or give each its own \
         store"
    )]
    Locked {
        /// Where it is.
        path: PathBuf,
    },
    /// The directory cannot be written.
    #[error("the store at {path} cannot be written; check the rights of the directory: {source}")]
    NotWritable {
        /// Where it is.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The disk is full. A store that has been full must be opened anew once there is room.
    #[error("the disk is full; make room and start again (nothing is lost: Kafka has the truth)")]
    Full,
    /// The path holds something that this program did not make; it is left alone.
    #[error("{path} holds something that is not a store: {found}; name an empty directory")]
    NotAStore {
        /// Where it is.
        path: PathBuf,
        /// What was seen.
        found: String,
    },
    /// The files are damaged.
    #[error("the store is damaged: {what}; move it away, it is rebuilt from Kafka")]
    Corrupt {
        /// What was seen.
        what: String,
    },
    /// The storage engine panicked, which damaged files can make it do.
    #[error("the storage engine panicked: {what}; move the store away, it is rebuilt from Kafka")]
    Panicked {
        /// The panic's message and place.
        what: String,
    },
    /// Opening hangs, which damaged files can make it do. One that is slow and goes on is waited
    /// for, however long it takes.
    #[error(
        "opening the store at {path} hangs: nothing was read for {} s; move the store away, it is \
         rebuilt from Kafka",
        silence.as_secs()
    )]
    OpenHangs {
        /// Where it is.
        path: PathBuf,
        /// How long nothing was seen of it.
        silence: Duration,
    },
    /// A record does not decode.
    #[error("the store is damaged: {source}; move it away, it is rebuilt from Kafka")]
    Malformed {
        /// What is wrong with it.
        #[from]
        source: Malformed,
    },
    /// It was written by a newer version.
    #[error(
        "the store has format {stored} and this version reads format {known}; upgrade this \
         instance, or name another store"
    )]
    NewerFormat {
        /// The store's.
        stored: u32,
        /// This version's.
        known: u32,
    },
    /// It was written by a version too old to be read.
    #[error(
        "the store has format {stored} and this version reads format {known}; move the store away, \
         it is rebuilt from Kafka"
    )]
    OlderFormat {
        /// The store's.
        stored: u32,
        /// This version's.
        known: u32,
    },
    /// It keeps messages of another cluster.
    #[error(
        "the store belongs to cluster {stored}, and the brokers are of cluster {configured}; name \
         another store, or the brokers of {stored}"
    )]
    OtherCluster {
        /// The store's.
        stored: String,
        /// The brokers'.
        configured: String,
    },
    /// It keeps messages of another group.
    #[error(
        "the store belongs to group {stored}, and group {configured} is configured; name another \
         store, or group {stored}"
    )]
    OtherGroup {
        /// The store's.
        stored: String,
        /// The configured one.
        configured: String,
    },
    /// It keeps messages of another instance.
    #[error(
        "the store belongs to instance {stored}, and instance {configured} is configured; name \
         another store, or instance {stored}"
    )]
    OtherInstance {
        /// The store's.
        stored: String,
        /// The configured one.
        configured: String,
    },
    /// An entry does not fit what is recorded: a defect of the caller, or a damaged record. The
    /// entries before it are recorded, it and those after it are not.
    #[error("entry {index} does not fit what is recorded of {partition}: {source}")]
    Inconsistent {
        /// The entry's place among those appended together.
        index: usize,
        /// Topic and partition.
        partition: String,
        /// What does not fit.
        source: ApplyError,
    },
    /// An entry names a partition that was never interned.
    #[error("partition number {id} was not given by this store")]
    UnknownPartition {
        /// The number.
        id: u32,
    },
    /// It was opened for inspection, or a former write failed; it must be opened anew.
    #[error("the store takes no more writes: {why}")]
    Closed {
        /// Which of both.
        why: String,
    },
    /// A damaged store could not be moved away.
    #[error("the damaged store at {path} could not be moved to {to}: {source}")]
    QuarantineFailed {
        /// Where it is.
        path: PathBuf,
        /// Where it should go.
        to: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The system refused something else.
    #[error("the store failed while {doing}: {source}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// What the system says.
        source: io::Error,
    },
}

impl StoreError {
    /// The loop that owns the store has ended.
    pub(crate) fn closed() -> Self {
        Self::Closed { why: "the processor is ending".to_owned() }
    }

    /// Whether the files themselves are bad, so that moving them away and beginning anew helps.
    pub const fn is_damage(&self) -> bool {
        match self {
            Self::Corrupt { .. }
            | Self::Panicked { .. }
            | Self::OpenHangs { .. }
            | Self::Malformed { .. } => true,
            Self::Missing { .. }
            | Self::Locked { .. }
            | Self::NotWritable { .. }
            | Self::Full
            | Self::NotAStore { .. }
            | Self::NewerFormat { .. }
            | Self::OlderFormat { .. }
            | Self::OtherCluster { .. }
            | Self::OtherGroup { .. }
            | Self::OtherInstance { .. }
            | Self::Inconsistent { .. }
            | Self::UnknownPartition { .. }
            | Self::Closed { .. }
            | Self::QuarantineFailed { .. }
            | Self::Io { .. } => false,
        }
    }

    /// Sorts an error of the system that concerns no particular path.
    pub(super) fn of_io(doing: &'static str, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full,
            // What damaged files make the storage engine report.
            io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData => {
                Self::Corrupt { what: format!("{source} while {doing}") }
            }
            _ => Self::Io { doing, source },
        }
    }
}
