//! The faults that can be armed, and the handles by which a test follows them.

use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use thiserror::Error;

use super::frame::Frame;

/// What the client sees of a request that is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HoldForm {
    /// The connection stays open; the client waits until its own timeout.
    KeepOpen,
    /// The connection is closed at once.
    Close,
}

/// A fault did not come about.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ProxyError {
    /// No request matched in time.
    #[error("no request with api key {api_key} came within {timeout:?}")]
    NoRequest {
        /// The api key that was waited for.
        api_key: i16,
        /// How long it was waited for.
        timeout: Duration,
    },
    /// The held request could not be handed to the broker.
    #[error("the held request with api key {api_key} got no response from the broker")]
    Release {
        /// Its api key.
        api_key: i16,
        /// Why.
        #[source]
        source: io::Error,
    },
}

pub(super) type Predicate = Box<dyn Fn(&[u8]) -> bool + Send>;

/// What to do with the next request that matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Hold(HoldForm),
    DropResponse,
}

/// An armed fault. It ends when it has struck or its handle is dropped.
pub(super) struct Rule {
    pub(super) api_key: i16,
    pub(super) matches: Predicate,
    pub(super) action: Action,
    slot: Weak<Slot>,
}

impl Rule {
    /// Arms a fault and returns the test's end of it.
    pub(super) fn new(api_key: i16, matches: Predicate, action: Action) -> (Self, Arc<Slot>) {
        let slot = Arc::new(Slot { api_key, struck: Mutex::new(None), changed: Condvar::new() });
        (Self { api_key, matches, action, slot: Arc::downgrade(&slot) }, slot)
    }

    pub(super) fn is_armed(&self) -> bool {
        self.slot.strong_count() > 0
    }

    pub(super) fn is_for(&self, frame: &Frame) -> bool {
        frame.api_key() == Some(self.api_key) && (self.matches)(frame.bytes())
    }

    /// Tells the test which request the fault struck.
    pub(super) fn strike(self, frame: Frame) {
        if let Some(slot) = self.slot.upgrade() {
            *slot.struck() = Some(frame);
            slot.changed.notify_all();
        }
    }
}

/// Where the connection's thread leaves the request for the test.
#[derive(Debug)]
pub(super) struct Slot {
    api_key: i16,
    struck: Mutex<Option<Frame>>,
    changed: Condvar,
}

impl Slot {
    fn struck(&self) -> MutexGuard<'_, Option<Frame>> {
        self.struck.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait(&self, timeout: Duration) -> Result<Frame, ProxyError> {
        let deadline = Instant::now() + timeout;
        let mut struck = self.struck();
        loop {
            if let Some(frame) = struck.as_ref() {
                return Ok(frame.clone());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(ProxyError::NoRequest { api_key: self.api_key, timeout });
            }
            struck =
                self.changed.wait_timeout(struck, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// A request that the broker has not seen, or will not see once it comes. Dropping it disarms the
/// fault or throws the request away.
#[derive(Debug)]
#[must_use = "dropping it disarms the fault"]
pub struct HeldFrame {
    pub(super) slot: Arc<Slot>,
    pub(super) broker: SocketAddr,
}

impl HeldFrame {
    /// Waits until a request is held, and shows it.
    ///
    /// # Errors
    /// None came in time.
    pub fn wait_held(&self, timeout: Duration) -> Result<Frame, ProxyError> {
        self.slot.wait(timeout)
    }

    /// Hands the held request to the broker over a new connection, and returns the response, which
    /// the client does not get.
    ///
    /// # Errors
    /// No request is held, or the broker does not respond within `timeout`.
    pub fn release(self, timeout: Duration) -> Result<Frame, ProxyError> {
        let frame = self.slot.wait(Duration::ZERO)?;
        exchange(self.broker, &frame, timeout)
            .map_err(|source| ProxyError::Release { api_key: self.slot.api_key, source })
    }
}

fn exchange(broker: SocketAddr, request: &Frame, timeout: Duration) -> io::Result<Frame> {
    let mut stream = TcpStream::connect_timeout(&broker, timeout)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    stream.write_all(&request.to_wire())?;
    Frame::read(&mut stream)?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

/// A response that the client will not get. Dropping it disarms the fault.
#[derive(Debug)]
#[must_use = "dropping it disarms the fault"]
pub struct DroppedResponse {
    pub(super) slot: Arc<Slot>,
}

impl DroppedResponse {
    /// Waits until the broker has executed the request and its response was thrown away, and shows
    /// the response.
    ///
    /// # Errors
    /// None came in time.
    pub fn wait_dropped(&self, timeout: Duration) -> Result<Frame, ProxyError> {
        self.slot.wait(timeout)
    }
}
