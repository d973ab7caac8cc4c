//! Any history with any events: counters rise as they must, and only a rewind leaves `confirmed`.

#![no_main]

use arbitrary::Arbitrary;
use countersign_fuzz::{AnyEvent, AnyState};
use countersign_statemachine::{Durability, Event, History, Verb, transition};
use libfuzzer_sys::fuzz_target;

#[derive(Debug, Arbitrary)]
struct Input {
    state: AnyState,
    attempt: u32,
    deliveries: u32,
    life: u32,
    events: Vec<AnyEvent>,
}

fuzz_target!(|input: Input| {
    let Input { state: AnyState(state), attempt, deliveries, life, events } = input;
    let mut history = History { state, attempt, deliveries, life };
    for AnyEvent(event) in events {
        let old = history;
        let (new, durability) = match transition(old, event) {
            Ok(next) => next,
            Err(refused) => {
                assert_eq!((refused.state, refused.event), (old.state, event));
                continue;
            }
        };
        assert_eq!(durability == Durability::Flushed, event == Event::Start);
        if event == Event::Rewound {
            assert!(old.state.is_confirmed());
            assert_eq!(new, History { life: old.life.saturating_add(1), ..History::NEW });
        } else {
            let own = matches!(event, Event::RolledBack(reason) if reason.is_own());
            let started = event == Event::Start;
            assert!(!old.state.is_confirmed(), "{event:?} left {}", old.state);
            let anew = event == Event::Intervened(Verb::Retry);
            let attempt = if anew { 0 } else { old.attempt.saturating_add(u32::from(own)) };
            assert_eq!(new.attempt, attempt);
            assert_eq!(new.deliveries, old.deliveries.saturating_add(u32::from(started)));
            assert_eq!(new.life, old.life);
        }
        history = new;
    }
});
