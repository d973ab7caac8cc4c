//! Shipping: each order is sent to a slow HTTP service, and its answer becomes an output.
//!
//! ```sh
//! cargo run --example shipping
//! ```
//!
//! starts a Kafka and such a service of its own, ships a hundred orders, and tells what became of
//! them. What Kafka sees happens exactly once. The service may be asked more than once about one
//! order, after a failure or a crash, and tells by the idempotency key that it was.

mod service;

use std::error::Error;
use std::time::Duration;

use countersign::statemachine::Backoff;
use countersign::{HandlerError, Message, Order, Outputs, Processor, To, handler};
use countersign_testkit::broker::LocalKafka;
use countersign_testkit::reader::{Isolation, LoadRecord, for_each, load};
use reqwest::{Client, StatusCode};
use serde::{Deserialize, Serialize};

#[derive(Debug, Deserialize, Serialize)]
struct Parcel {
    order: u64,
    address: String,
}

#[derive(Debug, Serialize)]
struct Shipment {
    order: u64,
    label: String,
}

/// Asks the service to ship a parcel.
async fn ship(
    http: Client,
    service: String,
    message: Message<Parcel>,
) -> Result<Outputs, HandlerError> {
    let parcel = message.value();
    let response = http
        .post(format!("{service}/parcels"))
        // The same at every try of this message, and for no other message.
        .header("Idempotency-Key", message.idempotency_key())
        .json(parcel)
        .send()
        // No connection, or a broken one: any error that comes with `?` is retryable.
        .await?;
    let status = response.status();
    let answer = response.text().await?;
    match status {
        status if status.is_success() => {
            let shipment = Shipment { order: parcel.order, label: answer };
            Ok(To::topic("shipments").key(parcel.order.to_string()).json(&shipment)?.into())
        }
        // It asks for patience.
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => {
            Err(HandlerError::retryable(format!("{status}: {answer}")))
        }
        // The parcel is wrong, and will be as wrong tomorrow: a dead letter at once.
        status if status.is_client_error() => {
            Err(HandlerError::permanent(format!("{status}: {answer}")))
        }
        _ => Err(HandlerError::retryable(format!("{status}: {answer}"))),
    }
}

fn processor(brokers: &str, store: &str, service: String) -> Result<Processor, Box<dyn Error>> {
    let http = Client::new();
    let processor = Processor::builder()
        .brokers(brokers)
        .group("shipping")
        .inputs(["parcels"])
        .outputs(["shipments"])
        .store(store)
        // A parcel waits for those of its key only, and so does a failure.
        .order(Order::Key)
        // A call that takes longer is cancelled, and tried again.
        .deadline(Duration::from_millis(500))
        .retry(Backoff { base: Duration::from_millis(50), ..Backoff::default() })
        .attempts(5)
        .dead_letters("unshipped")
        .handler(handler::json(move |parcel| ship(http.clone(), service.clone(), parcel)))
        .build()?;
    Ok(processor)
}

/// How many parcels there are.
const PARCELS: u64 = 100;

const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let kafka = LocalKafka::start()?;
    for topic in ["parcels", "shipments", "unshipped"] {
        kafka.create_topic(topic, 4)?;
    }
    let record = |order: u64| {
        let parcel = format!(r#"{{"order":{order},"address":"{order} Main Street"}}"#);
        let key = Some(order.to_string().into_bytes());
        LoadRecord { partition: None, key, value: Some(parcel.into_bytes()) }
    };
    load(kafka.bootstrap(), "parcels", PARCELS, PATIENCE, record, |_| {})?;

    let service = service::start().await?;
    let store = tempfile::tempdir()?;
    let store = store.path().join("store");
    let processor = processor(kafka.bootstrap(), &store.to_string_lossy(), service.url())?;
    let caught_up = tokio::spawn(processor.shut_down_when_caught_up());
    processor.run_until_signal().await?;
    caught_up.abort();

    for topic in ["shipments", "unshipped"] {
        let count = for_each(kafka.bootstrap(), topic, Isolation::Committed, PATIENCE, |_| {})?;
        println!("{topic}: {count}");
    }
    println!("the service was called {} times and shipped {}", service.calls(), service.shipped());
    Ok(())
}
