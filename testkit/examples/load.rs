//! Fills a topic for a test by hand: keys `k0` to `k999`, values that start with `key:number`.
//!
//! ```sh
//! cargo run --release -p countersign-testkit --example load -- \
//!     --brokers HOST:PORT --topic in --records 2000000
//! ```

use std::error::Error;
use std::time::Duration;

use clap::Parser;
use countersign_testkit::reader::{LoadRecord, load};

#[derive(Debug, Parser)]
struct Args {
    /// Where to find Kafka
    #[arg(long)]
    brokers: String,
    /// The topic to fill
    #[arg(long)]
    topic: String,
    /// How many records
    #[arg(long)]
    records: u64,
    /// Bytes of each value
    #[arg(long, default_value_t = 200)]
    bytes: usize,
}

/// How many keys there are.
const KEYS: u64 = 1_000;

fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let record = |index: u64| {
        let key = format!("k{}", index % KEYS);
        let mut value = format!("{key}:{}:", index / KEYS).into_bytes();
        value.resize(args.bytes.max(value.len()), b'.');
        LoadRecord { partition: None, key: Some(key.into()), value: Some(value) }
    };
    let patience = Duration::from_secs(600);
    load(&args.brokers, &args.topic, args.records, patience, record, |_| {})?;
    Ok(())
}
