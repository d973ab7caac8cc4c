//! The one function that decides what may happen to a message.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::state::{History, Outcome, Reason, State, Verb};

/// What happens to a message, or to a run of messages with one history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Event {
    /// It is signed in, before its handler runs.
    Start,
    /// The transaction with its outputs and its offset is committed.
    Committed(Outcome),
    /// The reply to the commit was lost.
    ReplyLost,
    /// What was done for it is undone.
    RolledBack(Reason),
    /// It is to be done once more.
    Again,
    /// Kafka's commit says that it is done, whatever this store thinks.
    FoundDone(Outcome),
    /// An operator moved the committed offset back below it.
    Rewound,
    /// An operator ordered what is to become of it. What follows from it are events of their own,
    /// but for the attempts, which a retry counts anew.
    Intervened(Verb),
}

/// What the store must do with a transition before its consequences may be acted on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[must_use = "a transition that must be flushed first is unsafe to act on before"]
pub enum Durability {
    /// It must be flushed before the handler runs.
    Flushed,
    /// It may ride with the next flush: Kafka holds the truth of it.
    Lazy,
}

/// An event that the state does not allow: a defect of the caller, never of the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a message that is {state} cannot take the event {event:?}")]
pub struct InvalidTransition {
    /// The state.
    pub state: State,
    /// The event it does not allow.
    pub event: Event,
}

/// Gives the history after an event.
///
/// Total: every pair of state and event is either listed as allowed or refused.
///
/// # Errors
/// [`InvalidTransition`] if the state does not allow the event.
pub fn transition(
    history: History,
    event: Event,
) -> Result<(History, Durability), InvalidTransition> {
    use Durability::{Flushed, Lazy};

    let invalid = InvalidTransition { state: history.state, event };
    let to = |state| History { state, ..history };
    match (history.state, event) {
        (State::Pending, Event::Start) => {
            let deliveries = history.deliveries.saturating_add(1);
            Ok((History { deliveries, ..to(State::Processing) }, Flushed))
        }
        (State::Processing | State::InDoubt, Event::Committed(outcome))
        | (
            State::Pending | State::Processing | State::InDoubt | State::RolledBack(_),
            Event::FoundDone(outcome),
        ) => Ok((to(State::Confirmed(outcome)), Lazy)),
        (State::Processing, Event::ReplyLost) => Ok((to(State::InDoubt), Lazy)),
        (State::Processing, Event::RolledBack(reason)) => {
            let attempt = history.attempt.saturating_add(u32::from(reason.is_own()));
            Ok((History { attempt, ..to(State::RolledBack(reason)) }, Lazy))
        }
        (State::InDoubt, Event::RolledBack(reason)) if !reason.is_own() => {
            Ok((to(State::RolledBack(reason)), Lazy))
        }
        (State::RolledBack(_), Event::Again) => Ok((to(State::Pending), Lazy)),
        (State::Confirmed(_), Event::Rewound) => {
            let life = history.life.saturating_add(1);
            Ok((History { life, ..History::NEW }, Lazy))
        }
        (State::Pending | State::Processing | State::RolledBack(_), Event::Intervened(verb)) => {
            let attempt = if verb == Verb::Retry { 0 } else { history.attempt };
            Ok((History { attempt, ..history }, Lazy))
        }
        (State::Pending, Event::Committed(_) | Event::ReplyLost | Event::Again)
        | (State::Pending | State::InDoubt, Event::RolledBack(_))
        | (State::Pending | State::Processing | State::InDoubt, Event::Rewound)
        | (State::Processing, Event::Start | Event::Again)
        | (State::InDoubt, Event::Start | Event::ReplyLost | Event::Again | Event::Intervened(_))
        | (
            State::Confirmed(_),
            Event::Start
            | Event::Committed(_)
            | Event::ReplyLost
            | Event::RolledBack(_)
            | Event::Again
            | Event::FoundDone(_)
            | Event::Intervened(_),
        )
        | (
            State::RolledBack(_),
            Event::Start
            | Event::Committed(_)
            | Event::ReplyLost
            | Event::RolledBack(_)
            | Event::Rewound,
        ) => Err(invalid),
    }
}
