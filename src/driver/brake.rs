//! How a run of a handler is stopped before its end.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Notify;

/// Shared by a run and whoever may stop it.
#[derive(Debug)]
pub(crate) struct Brake {
    /// No message from this offset on is begun.
    stop_from: AtomicU64,
    /// A call that holds a message from this offset on is cancelled.
    cancel_from: AtomicU64,
    cancelled: Notify,
}

impl Default for Brake {
    fn default() -> Self {
        let never = || AtomicU64::new(u64::MAX);
        Self { stop_from: never(), cancel_from: never(), cancelled: Notify::new() }
    }
}

impl Brake {
    /// The run stops after the message that it is at.
    pub(super) fn interrupt(&self) {
        self.stop_from.store(0, Ordering::Relaxed);
    }

    /// The run stops before this message; if it is at it, that is cancelled.
    pub(super) fn cancel_from(&self, offset: u64) {
        self.stop_from.fetch_min(offset, Ordering::Relaxed);
        self.cancel_from.fetch_min(offset, Ordering::SeqCst);
        self.cancelled.notify_waiters();
    }

    /// Whether a call whose last message is at `last` may not begin.
    pub(super) fn stops(&self, last: u64) -> bool {
        last >= self.stop_from.load(Ordering::Relaxed)
    }

    /// Waits until a call whose last message is at `last` is to be cancelled.
    pub(super) async fn cancels(&self, last: u64) {
        loop {
            // Before the look, so that nothing is missed between it and the wait.
            let cancelled = self.cancelled.notified();
            if last >= self.cancel_from.load(Ordering::SeqCst) {
                return;
            }
            cancelled.await;
        }
    }
}
