//! Payments: an order becomes an invoice and a ledger entry, or a rejection.
//!
//! ```sh
//! cargo run --release --example payments -- \
//!     --brokers localhost:9092 --instance a --store payments-a
//! ```
//!
//! Reads `orders` (JSON), writes `invoices`, `ledger` and `rejections`; see `examples/demo/`
//! for a run that kills it in the middle.

use std::error::Error;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use countersign::{HandlerError, Message, Outputs, Processor, To, handler};
use serde::{Deserialize, Serialize};

#[derive(Debug, Parser)]
struct Args {
    /// Where to find Kafka
    #[arg(long)]
    brokers: String,
    /// The name of this instance
    #[arg(long)]
    instance: String,
    /// The directory of the store
    #[arg(long)]
    store: PathBuf,
    /// How many orders are paid per second at most
    #[arg(long)]
    rate: Option<NonZeroU32>,
    /// End once every order that is there now is done
    #[arg(long)]
    until_caught_up: bool,
}

#[derive(Debug, Deserialize)]
struct Order {
    id: u64,
    account: String,
    cents: u64,
}

#[derive(Debug, Serialize)]
struct Invoice<'a> {
    order: u64,
    account: &'a str,
    cents: u64,
}

#[derive(Debug, Serialize)]
struct LedgerEntry<'a> {
    order: u64,
    debit: &'a str,
    credit: &'static str,
    cents: u64,
}

#[derive(Debug, Serialize)]
struct Rejection<'a> {
    order: u64,
    reason: &'a str,
}

/// The most that an order may cost.
const LIMIT_CENTS: u64 = 90_000;

/// From here on an order is checked for fraud, by a service that takes a moment.
const CHECKED_CENTS: u64 = 97_000;

/// One order: both an invoice and a ledger entry, or a rejection. Never a part of it.
async fn pay(message: Message<Order>) -> Result<Outputs, HandlerError> {
    let Order { id, account, cents } = message.value();
    let key = account.clone().into_bytes();
    if *cents > CHECKED_CENTS {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    if *cents > LIMIT_CENTS {
        let rejection = Rejection { order: *id, reason: "above the limit of the account" };
        return Ok(To::topic("rejections").key(key).json(&rejection)?.into());
    }
    let invoice = Invoice { order: *id, account, cents: *cents };
    let entry = LedgerEntry { order: *id, debit: account, credit: "revenue", cents: *cents };
    Ok(Outputs::one(To::topic("invoices").key(key.clone()).json(&invoice)?)
        .and(To::topic("ledger").key(key).json(&entry)?))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let builder = Processor::builder()
        .brokers(args.brokers)
        .group("payments")
        .inputs(["orders"])
        .outputs(["invoices", "ledger", "rejections"])
        .store(args.store)
        .instance(args.instance)
        .handler(handler::json(pay));
    let builder = match args.rate {
        Some(rate) => builder.rate(rate),
        None => builder,
    };
    let processor = builder.build()?;
    if args.until_caught_up {
        let caught_up = tokio::spawn(processor.shut_down_when_caught_up());
        processor.run_until_signal().await?;
        caught_up.abort();
    } else {
        processor.run_until_signal().await?;
    }
    Ok(())
}
