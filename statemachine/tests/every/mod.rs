//! Every state and every event; shared with the fuzz targets.

use countersign_statemachine::{Event, Outcome, Reason, State, Verb};

/// Every outcome.
const OUTCOMES: [Outcome; 7] = Outcome::ALL;

/// Every reason.
const REASONS: [Reason; 6] = Reason::ALL;

/// Every event.
pub(crate) fn events() -> Vec<Event> {
    let mut events = vec![Event::Start];
    events.extend(OUTCOMES.map(Event::Committed));
    events.push(Event::ReplyLost);
    events.extend(REASONS.map(Event::RolledBack));
    events.push(Event::Again);
    events.extend(OUTCOMES.map(Event::FoundDone));
    events.push(Event::Rewound);
    events.extend(Verb::ALL.map(Event::Intervened));
    events
}

/// Every state.
pub(crate) fn states() -> Vec<State> {
    let mut states = vec![State::Pending, State::Processing, State::InDoubt];
    states.extend(OUTCOMES.map(State::Confirmed));
    states.extend(REASONS.map(State::RolledBack));
    states
}

/// Fails to compile when a variant is missing from the lists above: add it there, too.
const fn place(outcome: Outcome, reason: Reason) -> (usize, usize) {
    let outcome = match outcome {
        Outcome::Processed => 0,
        Outcome::DeadLettered => 1,
        Outcome::Parked => 2,
        Outcome::Duplicate => 3,
        Outcome::Skipped => 4,
        Outcome::Elsewhere => 5,
        Outcome::Unknown => 6,
    };
    let reason = match reason {
        Reason::Error => 0,
        Reason::Panic => 1,
        Reason::Deadline => 2,
        Reason::Aborted => 3,
        Reason::Crashed => 4,
        Reason::Revoked => 5,
    };
    (outcome, reason)
}

const _: () = {
    let mut at = 0;
    while at < OUTCOMES.len() {
        assert!(place(OUTCOMES[at], REASONS[0]).0 == at);
        at += 1;
    }
    at = 0;
    while at < REASONS.len() {
        assert!(place(OUTCOMES[0], REASONS[at]).1 == at);
        at += 1;
    }
};
