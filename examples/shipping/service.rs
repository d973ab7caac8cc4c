//! The HTTP service: slow, sometimes too busy, and once in a while it does the work and does not
//! answer. It ships a parcel once, however often it is asked with one idempotency key.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use axum::{Json, Router};

use super::Parcel;

#[derive(Debug, Default)]
struct Book {
    calls: usize,
    /// By idempotency key: how often it was asked for.
    asked: HashMap<String, usize>,
    /// By idempotency key: the label.
    shipped: HashMap<String, String>,
}

/// The running service.
#[derive(Debug)]
pub(crate) struct Service {
    address: SocketAddr,
    book: Arc<Mutex<Book>>,
}

fn open(book: &Mutex<Book>) -> MutexGuard<'_, Book> {
    book.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts the service on a port that is free.
pub(crate) async fn start() -> io::Result<Service> {
    let book = Arc::<Mutex<Book>>::default();
    let routes = Router::new().route("/parcels", post(ship)).with_state(Arc::clone(&book));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move { axum::serve(listener, routes).await });
    Ok(Service { address, book })
}

impl Service {
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn calls(&self) -> usize {
        open(&self.book).calls
    }

    pub(crate) fn shipped(&self) -> usize {
        open(&self.book).shipped.len()
    }
}

async fn ship(
    State(book): State<Arc<Mutex<Book>>>,
    headers: HeaderMap,
    Json(parcel): Json<Parcel>,
) -> Result<String, (StatusCode, &'static str)> {
    let key = headers.get("Idempotency-Key").and_then(|key| key.to_str().ok());
    let key = key.ok_or((StatusCode::BAD_REQUEST, "no idempotency key"))?.to_owned();
    let asked = {
        let mut book = open(&book);
        book.calls += 1;
        let asked = book.asked.entry(key.clone()).or_default();
        *asked += 1;
        *asked
    };
    tokio::time::sleep(Duration::from_millis(20)).await;
    match parcel.order % 10 {
        3 if asked <= 2 => return Err((StatusCode::SERVICE_UNAVAILABLE, "busy, come again")),
        7 => return Err((StatusCode::UNPROCESSABLE_ENTITY, "there is no such address")),
        _ => {}
    }
    let label = {
        let mut book = open(&book);
        let next = format!("label {}", book.shipped.len() + 1);
        book.shipped.entry(key).or_insert(next).clone()
    };
    if parcel.order % 10 == 5 && asked == 1 {
        // It is shipped, and the answer comes too late.
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    Ok(label)
}
