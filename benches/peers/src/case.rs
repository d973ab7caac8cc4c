//! What is measured: the cases of the matrix.

use std::fmt;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// How long a transaction of a throughput case is filled.
pub(crate) const COMMIT_INTERVAL_MS: u64 = 100;
/// How many records a transaction that is bounded by records holds.
pub(crate) const TRANSACTION_RECORDS: u64 = 1_000;

/// What the values are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Data {
    /// JSON that compresses to about a quarter.
    Json,
    /// Bytes that do not compress.
    Random,
}

/// What ends a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Bound {
    /// 100 ms.
    Interval,
    /// 1,000 records.
    Records,
}

/// One case of the throughput matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
pub(crate) struct Case {
    pub(crate) bytes: usize,
    pub(crate) data: Data,
    pub(crate) bound: Bound,
    pub(crate) partitions: u32,
    pub(crate) records: u64,
}

/// A few seconds for the fastest peer: less would measure its start, more only takes longer.
pub(crate) fn default_records(bytes: usize, bound: Bound) -> u64 {
    match bound {
        Bound::Interval if bytes <= 256 => 3_000_000,
        Bound::Interval => 1_000_000,
        Bound::Records => 400_000,
    }
}

impl Case {
    /// The bound as peers take it: 0 is none.
    pub(crate) fn transaction_records(&self) -> u64 {
        match self.bound {
            Bound::Interval => 0,
            Bound::Records => TRANSACTION_RECORDS,
        }
    }

    /// Whether it is the same but for the number of records.
    pub(crate) fn is_beside(&self, other: &Self) -> bool {
        self.shares_chart(other) && self.partitions == other.partitions
    }

    /// Whether the two belong to one chart, which compares numbers of partitions.
    pub(crate) fn shares_chart(&self, other: &Self) -> bool {
        (self.bytes, self.data, self.bound) == (other.bytes, other.data, other.bound)
    }

    /// Part of a file's name.
    pub(crate) fn slug(&self) -> String {
        let bound = match self.bound {
            Bound::Interval => format!("{COMMIT_INTERVAL_MS}ms"),
            Bound::Records => format!("{TRANSACTION_RECORDS}-records"),
        };
        format!("{}b-{}-{bound}", self.bytes, self.data)
    }

    /// All but the number of partitions.
    pub(crate) fn title(&self) -> String {
        format!("{} B, {}, transactions of {}", self.bytes, self.data, self.bound)
    }
}

impl fmt::Display for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Json => "json",
            Self::Random => "random",
        })
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Interval => write!(f, "{COMMIT_INTERVAL_MS} ms"),
            Self::Records => write!(f, "{TRANSACTION_RECORDS} records"),
        }
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let partitions = if self.partitions == 1 { "partition" } else { "partitions" };
        write!(f, "{}, {} {partitions}, {} records", self.title(), self.partitions, self.records)
    }
}
