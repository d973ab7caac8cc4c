//! What a loop of blocking calls is at, for those who watch it from outside.
//!
//! A call of librdkafka may ignore its time-out and never return
//! (`rd_kafka_send_offsets_to_transaction` while the group's coordinator is away). So a loop says
//! before each call until when it must be over, and asks after it whether it may go on. Whoever
//! gives the loop up and the loop itself decide that under one lock: either the call returned
//! before, or nothing that the loop does comes after it.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// The loop was given up: another one has its place, and it must end without another call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct GivenUp;

/// A call that is under way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Calling {
    pub(super) call: &'static str,
    /// How long it may take, by its own time-out.
    pub(super) within: Duration,
    pub(super) since: Instant,
    /// Which of the loop's calls it is.
    pub(super) number: u64,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Idle,
    Calling(Calling),
    /// It did not come back from this call.
    GivenUp(Calling),
    Ended,
}

#[derive(Debug)]
struct Beat {
    state: State,
    calls: u64,
}

/// Shared by a loop and those who watch it.
#[derive(Debug, Clone)]
pub(crate) struct Pulse(Arc<Mutex<Beat>>);

impl Pulse {
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(Beat { state: State::Idle, calls: 0 })))
    }

    fn beat(&self) -> MutexGuard<'_, Beat> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A call begins that returns within this time. Ends the one before, if one is under way.
    ///
    /// # Errors
    /// The loop was given up.
    pub(crate) fn enter(&self, call: &'static str, within: Duration) -> Result<(), GivenUp> {
        let mut beat = self.beat();
        match beat.state {
            State::GivenUp(_) | State::Ended => Err(GivenUp),
            State::Idle | State::Calling(_) => {
                beat.calls += 1;
                let (since, number) = (Instant::now(), beat.calls);
                beat.state = State::Calling(Calling { call, within, since, number });
                Ok(())
            }
        }
    }

    /// The call is over.
    ///
    /// # Errors
    /// The loop was given up.
    pub(crate) fn leave(&self) -> Result<(), GivenUp> {
        let mut beat = self.beat();
        match beat.state {
            State::GivenUp(_) | State::Ended => Err(GivenUp),
            State::Idle | State::Calling(_) => {
                beat.state = State::Idle;
                Ok(())
            }
        }
    }

    /// Makes a call under watch.
    ///
    /// # Errors
    /// The loop was given up before or meanwhile; what the call gave says nothing any more.
    pub(crate) async fn during<T>(
        &self,
        call: &'static str,
        within: Duration,
        future: impl Future<Output = T>,
    ) -> Result<T, GivenUp> {
        self.enter(call, within)?;
        let result = future.await;
        self.leave().map(|()| result)
    }

    /// The call that is under way.
    pub(super) fn calling(&self) -> Option<Calling> {
        match self.beat().state {
            State::Calling(calling) => Some(calling),
            State::Idle | State::GivenUp(_) | State::Ended => None,
        }
    }

    /// Gives the loop up if it is still at this call; whether it was.
    pub(super) fn give_up(&self, number: u64) -> bool {
        let mut beat = self.beat();
        match beat.state {
            State::Calling(calling) if calling.number == number => {
                beat.state = State::GivenUp(calling);
                true
            }
            State::Idle | State::Calling(_) | State::GivenUp(_) | State::Ended => false,
        }
    }

    /// The loop has ended.
    pub(super) fn end(&self) {
        self.beat().state = State::Ended;
    }

    pub(super) fn is_given_up(&self) -> bool {
        matches!(self.beat().state, State::GivenUp(_))
    }

    pub(super) fn has_ended(&self) -> bool {
        matches!(self.beat().state, State::Ended)
    }

    /// As others see it.
    pub(super) fn state(&self) -> LoopState {
        match self.beat().state {
            State::Idle => LoopState::Idle,
            State::Calling(Calling { call, since, .. }) => {
                LoopState::Calling { call, since: since.elapsed() }
            }
            State::GivenUp(Calling { call, since, .. }) => {
                LoopState::GivenUp { call, since: since.elapsed() }
            }
            State::Ended => LoopState::Ended,
        }
    }
}

/// What a loop is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum LoopState {
    /// It waits for work.
    Idle,
    /// It is within a call.
    Calling {
        /// Which, in the words of Kafka or of the store.
        call: &'static str,
        /// How long it has taken so far.
        since: Duration,
    },
    /// It did not come back from a call, and another loop has its place. Its thread ends when the
    /// call returns.
    GivenUp {
        /// Which call.
        call: &'static str,
        /// How long it has taken so far.
        since: Duration,
    },
    /// It has ended.
    Ended,
}

impl fmt::Display for LoopState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Idle => f.write_str("idle"),
            Self::Calling { call, since } => write!(f, "in {call} for {since:.1?}"),
            Self::GivenUp { call, since } => write!(f, "given up in {call} after {since:.1?}"),
            Self::Ended => f.write_str("ended"),
        }
    }
}

/// A loop of a processor: a thread of its own that makes blocking calls.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LoopStatus {
    /// Its name, which is also the thread's: `countersign-slot-0-1` is the second producer of the
    /// first worker.
    pub name: String,
    /// What it is at.
    pub state: LoopState,
}
