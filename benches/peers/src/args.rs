//! The command line.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};

use crate::case::{Bound, Case, Data, default_records};
use crate::data::MIN_BYTES;
use crate::peer::Peer;
use crate::scaling::Series;

/// Runs Countersign beside other exactly-once loops on a real Kafka, and compares them
///
/// Without options the whole matrix is run, which takes hours, and the results go to docs/.
#[derive(Debug, Parser)]
#[command(name = "make bench-peers ARGS=..", no_binary_name = false)]
pub(crate) struct Args {
    /// One round of a few small cases, in about two minutes; other options still narrow it
    #[arg(long)]
    pub(crate) quick: bool,
    /// How often each peer runs each throughput case [default: 5]
    #[arg(long)]
    rounds: Option<u32>,
    /// Who takes part [default: the first six]
    #[arg(long, value_delimiter = ',')]
    peers: Vec<Peer>,
    /// Which part is run [default: all]
    #[arg(long)]
    only: Option<Part>,
    /// Bytes of a value [default: 200,1024]
    #[arg(long, value_delimiter = ',')]
    sizes: Vec<usize>,
    /// Partitions of input and output [default: 1,4,12]
    #[arg(long, value_delimiter = ',')]
    partitions: Vec<u32>,
    /// What ends a transaction [default: both]
    #[arg(long, value_delimiter = ',')]
    bounds: Vec<Bound>,
    /// What values are made of [default: both]
    #[arg(long, value_delimiter = ',')]
    data: Vec<Data>,
    /// Records of a throughput case [default: a few seconds for the fastest peer]
    #[arg(long)]
    records: Option<u64>,
    /// Compression of input and outputs
    #[arg(long, default_value = "lz4", value_parser = ["none", "lz4"])]
    pub(crate) compression: String,
    /// Messages a second of the latency cases [default: 1000,10000]
    #[arg(long, value_delimiter = ',')]
    rates: Vec<u64>,
    /// Commit intervals of the latency cases, in milliseconds [default: 10,100]
    #[arg(long, value_delimiter = ',')]
    intervals: Vec<u64>,
    /// How often each peer runs each latency case [default: 3]
    #[arg(long)]
    latency_rounds: Option<u32>,
    /// How long a latency case is measured, after a warm-up of 5 seconds [default: 15]
    #[arg(long)]
    latency_seconds: Option<u64>,
    /// What there is more and more of in the scaling [default: all]
    #[arg(long, value_delimiter = ',')]
    series: Vec<Series>,
    /// Where table, JSON and charts go [default: docs, with --quick target/bench-peers/quick]
    #[arg(long)]
    out: Option<PathBuf>,
}

/// A part of what is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    Throughput,
    Latency,
    /// Countersign alone, against workers, processes, partitions and handlers in flight
    Scaling,
    /// Countersign alone: how long a start takes after a kill -9, with 10 million messages tracked
    Restart,
}

impl Args {
    fn or<T: Clone>(&self, given: &[T], quick: &[T], full: &[T]) -> Vec<T> {
        let default = if self.quick { quick } else { full };
        if given.is_empty() { default.to_vec() } else { given.to_vec() }
    }

    pub(crate) fn rounds(&self) -> u32 {
        self.rounds.unwrap_or(if self.quick { 1 } else { 5 })
    }

    pub(crate) fn latency_rounds(&self) -> u32 {
        self.latency_rounds.unwrap_or(if self.quick { 1 } else { 3 })
    }

    pub(crate) fn latency_seconds(&self) -> u64 {
        self.latency_seconds.unwrap_or(if self.quick { 3 } else { 15 })
    }

    pub(crate) fn warm_up_seconds(&self) -> u64 {
        if self.quick { 2 } else { 5 }
    }

    /// Those of the latency cases. What the library adds is in the throughput cases.
    pub(crate) fn latency_peers(&self) -> Vec<Peer> {
        let quick: Vec<Peer> =
            Peer::DEFAULT.into_iter().filter(|peer| *peer != Peer::Library).collect();
        self.or(&self.peers, &quick, &Peer::DEFAULT)
    }

    pub(crate) fn peers(&self) -> Vec<Peer> {
        self.or(&self.peers, &Peer::DEFAULT, &Peer::DEFAULT)
    }

    /// Whether what was measured before stays beside it.
    pub(crate) fn is_a_part(&self) -> bool {
        self.only.is_some()
    }

    pub(crate) fn runs(&self, part: Part) -> bool {
        self.only.is_none_or(|only| only == part)
    }

    pub(crate) fn series(&self) -> Vec<Series> {
        self.or(&self.series, Series::value_variants(), Series::value_variants())
    }

    /// How many of the points of a series of the scaling are measured.
    pub(crate) fn points(&self) -> usize {
        if self.quick { 2 } else { usize::MAX }
    }

    pub(crate) fn rates(&self) -> Vec<u64> {
        self.or(&self.rates, &[1_000], &[1_000, 10_000])
    }

    pub(crate) fn intervals(&self) -> Vec<u64> {
        self.or(&self.intervals, &[10], &[10, 100])
    }

    pub(crate) fn out(&self) -> PathBuf {
        let default = if self.quick { "target/bench-peers/quick" } else { "docs" };
        self.out.clone().unwrap_or_else(|| default.into())
    }

    /// The throughput cases, those of one chart together.
    pub(crate) fn cases(&self) -> Vec<Case> {
        let mut cases = Vec::new();
        for bytes in self.or(&self.sizes, &[200], &[200, 1024]) {
            for data in self.or(&self.data, &[Data::Random], &[Data::Json, Data::Random]) {
                for bound in self.or(&self.bounds, Bound::value_variants(), Bound::value_variants())
                {
                    for partitions in self.or(&self.partitions, &[4], &[1, 4, 12]) {
                        let bytes = bytes.max(MIN_BYTES);
                        let records = self.records(bytes, bound);
                        cases.push(Case { bytes, data, bound, partitions, records });
                    }
                }
            }
        }
        cases
    }

    pub(crate) fn records(&self, bytes: usize, bound: Bound) -> u64 {
        let full = default_records(bytes, bound);
        self.records.unwrap_or(if self.quick { full / 4 } else { full }).max(1)
    }
}
