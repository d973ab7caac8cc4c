//! An order becomes an invoice, exactly once. The README shows this file.

use std::error::Error;

use countersign::{HandlerError, Message, Outputs, Processor, To, handler};

#[derive(serde::Deserialize, serde::Serialize)]
struct Order {
    id: u64,
    cents: u64,
}

async fn invoice(order: Message<Order>) -> Result<Outputs, HandlerError> {
    Ok(To::topic("invoices").key(order.value().id.to_string()).json(order.value())?.into())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let processor = Processor::builder()
        .brokers("localhost:9092")
        .group("invoicing")
        .inputs(["orders"])
        .outputs(["invoices"])
        .store("invoicing-store")
        .handler(handler::json(invoice))
        .build()?;
    Ok(processor.run_until_signal().await?)
}
