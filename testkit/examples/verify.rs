//! Compares a copied topic with its input, for a test by hand: the same records, each once, and
//! every key in its order. Ends with 1 where they differ.
//!
//! ```sh
//! cargo run --release -p countersign-testkit --example verify -- \
//!     --brokers HOST:PORT --input in --output out
//! ```

use std::collections::HashMap;
use std::error::Error;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use countersign_testkit::reader::{Isolation, for_each};
use rdkafka::Message;

#[derive(Debug, Parser)]
struct Args {
    /// Where to find Kafka
    #[arg(long)]
    brokers: String,
    /// The topic that was read
    #[arg(long)]
    input: String,
    /// The topic that was written
    #[arg(long)]
    output: String,
}

/// A topic's values, by key, in order; values are kept as hashes.
type Content = HashMap<Vec<u8>, Vec<u64>>;

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let args = Args::parse();
    let input = read(&args.brokers, &args.input)?;
    let output = read(&args.brokers, &args.output)?;
    let count = |content: &Content| content.values().map(Vec::len).sum::<usize>();
    let (mut lost, mut doubled, mut disordered) = (0, 0, 0);
    for (key, values) in &input {
        let copied = output.get(key).map(Vec::as_slice).unwrap_or_default();
        let (mut wanted, mut found) = (values.clone(), copied.to_vec());
        wanted.sort_unstable();
        found.sort_unstable();
        lost += wanted.iter().filter(|value| found.binary_search(value).is_err()).count();
        doubled += found.windows(2).filter(|pair| pair[0] == pair[1]).count();
        disordered += usize::from(wanted == found && values != copied);
    }
    println!("input {} output {}", count(&input), count(&output));
    println!("lost {lost} doubled {doubled} keys out of order {disordered}");
    let exact = input == output;
    println!("{}", if exact { "exact" } else { "NOT EXACT" });
    Ok(if exact { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn read(brokers: &str, topic: &str) -> Result<Content, Box<dyn Error>> {
    let mut content = Content::new();
    for_each(brokers, topic, Isolation::Committed, Duration::from_secs(600), |message| {
        let mut hasher = DefaultHasher::new();
        message.payload().hash(&mut hasher);
        let key = message.key().unwrap_or_default().to_vec();
        content.entry(key).or_default().push(hasher.finish());
    })?;
    Ok(content)
}
