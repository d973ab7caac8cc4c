//! The solo: the right to run a handler while no other handler of the process runs.
//!
//! A message that may end the process is tried under it, so that no neighbour is blamed. All
//! workers of a processor share one [`Gate`]. Whoever waits for the solo has the next turn: runs
//! that are under way let it pass between two messages, and then take turns with it.

use std::future::pending;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};
use tokio::time::timeout;

/// Waits are cut to this, so that an interruption is noticed soon.
const GLANCE: Duration = Duration::from_millis(50);

/// What the handlers of a process pass; clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Gate {
    lock: Arc<RwLock<()>>,
    /// How many wait for the solo, or have it.
    asking: Arc<AtomicUsize>,
}

/// As long as it lives no other handler runs.
#[derive(Debug)]
pub(super) struct Solo {
    _guard: OwnedRwLockWriteGuard<()>,
    _asking: Asking,
}

#[derive(Debug)]
struct Asking(Arc<AtomicUsize>);

impl Drop for Asking {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Gate {
    /// Asks for the solo; whoever drops the future does not ask any more.
    fn ask(&self) -> BoxFuture<'static, Solo> {
        self.asking.fetch_add(1, Ordering::Relaxed);
        let asking = Asking(Arc::clone(&self.asking));
        let lock = Arc::clone(&self.lock);
        async move { Solo { _guard: lock.write_owned().await, _asking: asking } }.boxed()
    }

    /// Whether somebody waits for the solo, or has it.
    fn is_asked(&self) -> bool {
        self.asking.load(Ordering::Relaxed) > 0
    }
}

/// A run's right to call the handler.
#[derive(Debug)]
pub(super) enum Turn {
    /// Beside others, as long as nobody asks for the solo.
    Shared { gate: Gate, pass: Option<OwnedRwLockReadGuard<()>> },
    /// Beside nobody; it is over when the run is, too.
    Solo { _solo: Arc<Solo> },
}

impl Turn {
    pub(super) fn shared(gate: &Gate) -> Self {
        Self::Shared { gate: gate.clone(), pass: None }
    }

    /// Lets others pass, if they ask, and tells whether the handler may be called at once.
    pub(super) fn is_given(&mut self) -> bool {
        match self {
            Self::Solo { .. } => true,
            Self::Shared { gate, pass } => {
                if gate.is_asked() {
                    *pass = None;
                } else if pass.is_none() {
                    *pass = Arc::clone(&gate.lock).try_read_owned().ok();
                }
                pass.is_some()
            }
        }
    }

    /// The handler is not called for a while.
    pub(super) fn pause(&mut self) {
        match self {
            Self::Solo { .. } => {}
            Self::Shared { pass, .. } => *pass = None,
        }
    }

    /// Waits until the handler may be called, unless `given_up` comes true; whether it may.
    pub(super) async fn wait(&mut self, given_up: impl Fn() -> bool) -> bool {
        let Self::Shared { gate, pass } = self else { return true };
        let mut next = pin!(Arc::clone(&gate.lock).read_owned());
        while !given_up() {
            if let Ok(guard) = timeout(GLANCE, &mut next).await {
                *pass = Some(guard);
                return true;
            }
        }
        false
    }
}

/// Whether a driver has the solo.
#[derive(Default)]
pub(super) enum Seat {
    /// It does not want it.
    #[default]
    Empty,
    /// It waits for it.
    Asked(BoxFuture<'static, Solo>),
    /// It has it.
    Ours(Arc<Solo>),
}

impl Seat {
    pub(super) fn ask(&mut self, gate: &Gate) {
        *self = Self::Asked(gate.ask());
    }

    /// Waits for the solo that was asked for.
    pub(super) async fn granted(&mut self) {
        let solo = match self {
            Self::Asked(solo) => solo.await,
            Self::Empty | Self::Ours(_) => return pending().await,
        };
        *self = Self::Ours(Arc::new(solo));
    }

    /// The turn of a run under it.
    pub(super) fn turn(&self) -> Option<Turn> {
        match self {
            Self::Ours(solo) => Some(Turn::Solo { _solo: Arc::clone(solo) }),
            Self::Empty | Self::Asked(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As a run with messages without end does: between two of them it looks.
    async fn passes(turn: &mut Turn) -> bool {
        turn.is_given() || timeout(GLANCE / 2, turn.wait(|| false)).await.is_ok()
    }

    async fn is_granted(seat: &mut Seat) -> bool {
        timeout(GLANCE, seat.granted()).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn a_solo_begins_when_all_runs_are_between_messages_and_they_wait_for_its_end() {
        let gate = Gate::default();
        let (mut one, mut other) = (Turn::shared(&gate), Turn::shared(&gate));
        assert!(passes(&mut one).await && passes(&mut other).await);
        let mut seat = Seat::default();
        seat.ask(&gate);
        assert!(!is_granted(&mut seat).await, "two handlers run");
        assert!(!passes(&mut one).await);
        assert!(!is_granted(&mut seat).await, "one handler runs");
        drop(other);
        assert!(is_granted(&mut seat).await);
        assert!(!passes(&mut one).await);
        seat = Seat::Empty;
        assert!(passes(&mut one).await);
        drop(seat);
    }

    #[tokio::test(start_paused = true)]
    async fn between_two_solos_whoever_waits_has_a_turn() {
        let gate = Gate::default();
        let mut first = Seat::default();
        first.ask(&gate);
        assert!(is_granted(&mut first).await);
        let mut turn = Turn::shared(&gate);
        assert!(!turn.is_given());
        let mut second = Seat::default();
        let mut waits = Box::pin(turn.wait(|| false));
        assert!(futures::poll!(&mut waits).is_pending());
        second.ask(&gate);
        first = Seat::Empty;
        assert!(!is_granted(&mut second).await, "who came first runs first");
        assert!(waits.as_mut().await);
        drop(waits);
        drop(turn);
        assert!(is_granted(&mut second).await);
        drop((first, second));
    }

    #[tokio::test(start_paused = true)]
    async fn a_run_under_the_solo_keeps_it_until_its_end() {
        let gate = Gate::default();
        let mut seat = Seat::default();
        seat.ask(&gate);
        assert!(is_granted(&mut seat).await);
        let mut solo = seat.turn().expect("it has it");
        assert!(solo.is_given());
        drop(seat);
        let mut other = Turn::shared(&gate);
        assert!(!passes(&mut other).await);
        drop(solo);
        assert!(passes(&mut other).await);
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_can_be_called_away() {
        let gate = Gate::default();
        let mut seat = Seat::default();
        seat.ask(&gate);
        assert!(is_granted(&mut seat).await);
        assert!(!Turn::shared(&gate).wait(|| true).await);
        // And who no longer asks is in nobody's way.
        let mut second = Seat::default();
        second.ask(&gate);
        drop((seat, second));
        assert!(Turn::shared(&gate).is_given());
    }
}
