//! Payments: an order becomes an invoice and a ledger entry, or a rejection; or a dead letter, if
//! nothing can be made of it.
//!
//! ```sh
//! cargo run -p countersign-testkit --bin countersign-local-kafka -- --port 9092 --ignore-stdin \
//!     --topic orders:4 --topic invoices:4 --topic ledger:4 --topic rejections:4 \
//!     --topic dead-letters:4 &
//! cargo run --example payments -- --brokers localhost:9092 --instance a --store payments-a
//! ```
//!
//! Reads `orders` (JSON such as `{"id":1,"account":"alice","cents":4200}`), with the account as
//! key. `examples/demo/` fills the topic, and kills this in the middle.

use std::error::Error;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use countersign::statemachine::Backoff;
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

/// From here on an order is checked for fraud.
const CHECKED_CENTS: u64 = 97_000;

/// A service that takes a moment, and now and then is too busy for an order at first.
async fn check_for_fraud(order: &Order, attempt: u32) -> Result<(), HandlerError> {
    tokio::time::sleep(Duration::from_millis(1)).await;
    if order.id.is_multiple_of(50) && attempt < 3 {
        // It waits for a while and is tried again, and so do the later orders of its account.
        return Err(HandlerError::retryable("the fraud check is busy"));
    }
    Ok(())
}

/// One order: both an invoice and a ledger entry, or a rejection. Never a part of it.
async fn pay(message: Message<Order>) -> Result<Outputs, HandlerError> {
    let Order { id, account, cents } = message.value();
    let key = account.clone().into_bytes();
    if *cents == 0 {
        // Trying again cannot help: it becomes a dead letter, as what is no order at all does.
        return Err(HandlerError::permanent("there is nothing to pay"));
    }
    if *cents > CHECKED_CENTS {
        check_for_fraud(message.value(), message.attempt()).await?;
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
        // Orders of one account wait for each other, and for nobody else.
        .order(countersign::Order::Key)
        .deadline(Duration::from_secs(5))
        .retry(Backoff { base: Duration::from_millis(20), ..Backoff::default() })
        .attempts(5)
        .dead_letters("dead-letters")
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
