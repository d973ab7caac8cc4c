//! The peers that are written in Rust: loops over rdkafka, and Countersign as a library.

mod at_least_once;
mod client;
mod library;
mod raw;

use std::error::Error;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
struct Args {
    #[command(subcommand)]
    peer: Peer,
}

#[derive(Debug, Subcommand)]
enum Peer {
    /// One transaction after another with rdkafka
    Raw(raw::Args),
    /// No transactions: offsets are committed once the outputs are acknowledged
    AtLeastOnce(client::Options),
    /// Countersign, embedded
    Library(library::Args),
}

fn main() -> Result<(), Box<dyn Error>> {
    match Args::parse().peer {
        Peer::Raw(args) => raw::run(&args),
        Peer::AtLeastOnce(options) => at_least_once::run(&options),
        Peer::Library(args) => library::run(&args),
    }
}
