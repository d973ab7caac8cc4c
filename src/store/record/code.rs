//! One byte for each state and event. Persisted: never change a code, never reuse one.
//!
//! The high half says which state or event it is, the low half its outcome or reason.

use countersign_statemachine::{End, Event, Outcome, Reason, State, Verb};

const fn outcome(outcome: Outcome) -> u8 {
    match outcome {
        Outcome::Processed => 1,
        Outcome::DeadLettered => 2,
        Outcome::Parked => 3,
        Outcome::Duplicate => 4,
        Outcome::Skipped => 5,
        Outcome::Elsewhere => 6,
        Outcome::Unknown => 7,
    }
}

fn to_outcome(code: u8) -> Option<Outcome> {
    Outcome::ALL.into_iter().find(|&candidate| outcome(candidate) == code)
}

const fn reason(reason: Reason) -> u8 {
    match reason {
        Reason::Error => 1,
        Reason::Panic => 2,
        Reason::Deadline => 3,
        Reason::Aborted => 4,
        Reason::Crashed => 5,
        Reason::Revoked => 6,
    }
}

fn to_reason(code: u8) -> Option<Reason> {
    Reason::ALL.into_iter().find(|&candidate| reason(candidate) == code)
}

const fn verb(verb: Verb) -> u8 {
    match verb {
        Verb::Skip => 1,
        Verb::Retry => 2,
        Verb::DeadLetter => 3,
    }
}

fn to_verb(code: u8) -> Option<Verb> {
    Verb::ALL.into_iter().find(|&candidate| verb(candidate) == code)
}

pub(super) const fn state(state: State) -> u8 {
    match state {
        State::Pending => 0x10,
        State::Processing => 0x20,
        State::InDoubt => 0x30,
        State::Confirmed(how) => 0x40 | outcome(how),
        State::RolledBack(why) => 0x50 | reason(why),
    }
}

pub(super) fn to_state(code: u8) -> Option<State> {
    match code {
        0x10 => Some(State::Pending),
        0x20 => Some(State::Processing),
        0x30 => Some(State::InDoubt),
        0x40..=0x4f => to_outcome(code & 0x0f).map(State::Confirmed),
        0x50..=0x5f => to_reason(code & 0x0f).map(State::RolledBack),
        _ => None,
    }
}

pub(super) const fn event(event: Event) -> u8 {
    match event {
        Event::Start => 0x10,
        Event::Committed(how) => 0x20 | outcome(how),
        Event::ReplyLost => 0x30,
        Event::RolledBack(why) => 0x40 | reason(why),
        Event::Again => 0x50,
        Event::FoundDone(how) => 0x60 | outcome(how),
        Event::Rewound => 0x70,
        Event::Intervened(how) => 0x80 | verb(how),
    }
}

pub(super) fn to_event(code: u8) -> Option<Event> {
    match code {
        0x10 => Some(Event::Start),
        0x20..=0x2f => to_outcome(code & 0x0f).map(Event::Committed),
        0x30 => Some(Event::ReplyLost),
        0x40..=0x4f => to_reason(code & 0x0f).map(Event::RolledBack),
        0x50 => Some(Event::Again),
        0x60..=0x6f => to_outcome(code & 0x0f).map(Event::FoundDone),
        0x70 => Some(Event::Rewound),
        0x80..=0x8f => to_verb(code & 0x0f).map(Event::Intervened),
        _ => None,
    }
}

pub(super) const fn end(end: End) -> u8 {
    match end {
        End::Committed => 1,
        End::FoundCommitted => 2,
        End::Aborted => 3,
        End::InDoubt => 4,
    }
}

pub(super) fn to_end(code: u8) -> Option<End> {
    [End::Committed, End::FoundCommitted, End::Aborted, End::InDoubt]
        .into_iter()
        .find(|&candidate| end(candidate) == code)
}
