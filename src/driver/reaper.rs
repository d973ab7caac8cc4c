//! The loop that closes producers.
//!
//! `rd_kafka_destroy` waits for the client's own threads, for as long as they take. Nobody who has
//! work to do waits for it.

use std::any::Any;
use std::time::Duration;

use crate::error::RunError;

use super::pulse::{GivenUp, Pulse};
use super::relay::{Hand, Relay};
use super::watchdog::Watchdog;

/// How long closing a client may take.
const CLOSING: Duration = Duration::from_secs(5);

/// The way to the loop; clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Reaper(Relay<Box<dyn Any + Send>>);

impl Reaper {
    /// Starts the loop.
    ///
    /// # Errors
    /// The operating system gives no thread.
    pub(crate) fn start(watchdog: &Watchdog) -> Result<Self, RunError> {
        Relay::start(watchdog, "countersign-close", || Ok(Closing)).map(Self)
    }

    /// Closes a client that is not used any more.
    pub(crate) fn close(&self, client: impl Send + 'static) {
        self.0.hand(Box::new(client));
    }

    /// Waits until the loop has ended, if this is the last way to it.
    pub(crate) async fn end(self) {
        self.0.end().await;
    }
}

struct Closing;

impl Hand<Box<dyn Any + Send>> for Closing {
    async fn work(&mut self, client: Box<dyn Any + Send>, pulse: &Pulse) -> Result<(), GivenUp> {
        pulse.enter("rd_kafka_destroy", CLOSING)?;
        drop(client);
        pulse.leave()
    }
}
