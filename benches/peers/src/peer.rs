//! The peers and how each is started.

use std::fmt;
use std::path::PathBuf;
use std::process::Command;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::tools::Tools;

/// Who takes part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Peer {
    /// The command `countersign run`.
    Countersign,
    /// Countersign, embedded in a program.
    Library,
    /// A loop over rdkafka with transactions.
    Raw,
    /// franz-go's `GroupTransactSession`.
    FranzGo,
    /// Kafka Streams with `exactly_once_v2`.
    Streams,
    /// A loop over rdkafka without transactions.
    AtLeastOnce,
    /// Countersign with its provenance header, which no other peer adds.
    Provenance,
    /// Countersign without pipelined transactions.
    Unpipelined,
    /// Countersign, embedded, with a store in memory that keeps no history: without tracking.
    Untracked,
}

impl Peer {
    /// Who takes part unless told otherwise.
    pub(crate) const DEFAULT: [Self; 6] = [
        Self::Countersign,
        Self::Library,
        Self::Raw,
        Self::FranzGo,
        Self::Streams,
        Self::AtLeastOnce,
    ];

    /// Whether it can end a transaction before the commit interval is over.
    pub(crate) fn ends_early(self) -> bool {
        match self {
            Self::Countersign
            | Self::Library
            | Self::Provenance
            | Self::Unpipelined
            | Self::Untracked
            | Self::Raw
            | Self::FranzGo => true,
            Self::Streams | Self::AtLeastOnce => false,
        }
    }

    /// The fields that are colours in the charts.
    pub(crate) fn rgb(self) -> (u8, u8, u8) {
        match self {
            Self::Countersign => (0x1f, 0x4e, 0x9c),
            Self::Library => (0x5b, 0x8f, 0xd9),
            Self::Raw => (0xc8, 0x5a, 0x17),
            Self::FranzGo => (0x2a, 0x9d, 0x8f),
            Self::Streams => (0x8d, 0x5a, 0x97),
            Self::AtLeastOnce => (0x8a, 0x8a, 0x8a),
            Self::Provenance | Self::Unpipelined | Self::Untracked => (0x9b, 0xb8, 0xe4),
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Countersign => "countersign, binary",
            Self::Library => "countersign, library",
            Self::Raw => "raw rdkafka loop",
            Self::FranzGo => "franz-go",
            Self::Streams => "Kafka Streams",
            Self::AtLeastOnce => "at-least-once rdkafka",
            Self::Provenance => "countersign, provenance",
            Self::Unpipelined => "countersign, unpipelined",
            Self::Untracked => "countersign, untracked",
        })
    }
}

/// What a peer is to do; every peer takes the same.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    pub(crate) brokers: String,
    /// The group, and what transactional ids are made of.
    pub(crate) group: String,
    pub(crate) input: String,
    pub(crate) output: String,
    pub(crate) records: u64,
    pub(crate) commit_interval_ms: u64,
    /// 0: bounded by the interval only.
    pub(crate) transaction_records: u64,
    /// Of the others: Countersign's producers do not need to be told.
    pub(crate) linger_ms: u32,
    pub(crate) compression: String,
    /// Whether a transaction ends as soon as nothing waits.
    pub(crate) early: bool,
    /// Whether the input is still being written, so that nobody may end for being done with it.
    pub(crate) endless: bool,
    pub(crate) state_dir: PathBuf,
}

/// librdkafka's `retry.backoff.ms` where it is the time between two transactions.
const RAW_RETRY_BACKOFF_MS: &str = "10";

impl Job {
    /// The peer's command line.
    pub(crate) fn command(&self, peer: Peer, tools: &Tools) -> Command {
        match peer {
            Peer::Countersign => self.binary(tools, &["--no-provenance"]),
            Peer::Provenance => self.binary(tools, &[]),
            Peer::Unpipelined => self.binary(tools, &["--no-provenance", "--no-pipelining"]),
            Peer::Library => self.library(tools, &[]),
            Peer::Untracked => self.library(tools, &["--untracked"]),
            Peer::Raw => {
                let mut command = self.options(tools.rust_peer("raw"));
                command.args(["--retry-backoff-ms", RAW_RETRY_BACKOFF_MS]);
                self.early(command)
            }
            Peer::AtLeastOnce => self.options(tools.rust_peer("at-least-once")),
            Peer::FranzGo => self.early(self.options(Command::new(&tools.franz_go))),
            Peer::Streams => self.options(tools.streams()),
        }
    }

    fn binary(&self, tools: &Tools, flags: &[&str]) -> Command {
        let mut command = Command::new(&tools.countersign);
        command.args(["run", "--brokers", &self.brokers, "--group", &self.group]);
        command.args(["--input", &self.input, "--output", &self.output]);
        command.arg("--store").arg(&self.state_dir);
        command.args(["--compression", &self.compression]);
        command.arg(format!("--commit-interval={}ms", self.countersign_interval_ms()));
        if self.transaction_records > 0 {
            command.arg(format!("--max-transaction-records={}", self.transaction_records));
        }
        if !self.endless {
            command.arg("--until-caught-up");
        }
        command.args(flags);
        command
    }

    /// Countersign, embedded.
    pub(crate) fn library(&self, tools: &Tools, flags: &[&str]) -> Command {
        let interval = self.countersign_interval_ms();
        let mut command = self.task(tools.rust_peer("library"), interval);
        command.arg("--no-provenance").args(flags);
        if !self.endless {
            command.arg("--until-caught-up");
        }
        command
    }

    /// Countersign has one knob: the shortest interval ends transactions as early as possible.
    fn countersign_interval_ms(&self) -> u64 {
        if self.early { 1 } else { self.commit_interval_ms }
    }

    /// Countersign chooses its linger itself, the others take ours.
    fn options(&self, command: Command) -> Command {
        let mut command = self.task(command, self.commit_interval_ms);
        command.args(["--linger-ms", &self.linger_ms.to_string()]);
        command
    }

    fn task(&self, mut command: Command, commit_interval_ms: u64) -> Command {
        command.args(["--brokers", &self.brokers, "--group", &self.group]);
        command.args(["--input", &self.input, "--output", &self.output]);
        command.args(["--records", &self.records.to_string()]);
        command.args(["--commit-interval-ms", &commit_interval_ms.to_string()]);
        command.args(["--transaction-records", &self.transaction_records.to_string()]);
        command.args(["--compression", &self.compression]);
        command.arg("--state-dir").arg(&self.state_dir);
        command
    }

    fn early(&self, mut command: Command) -> Command {
        if self.early {
            command.arg("--early");
        }
        command
    }
}
