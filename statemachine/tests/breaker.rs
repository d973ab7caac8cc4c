//! Goal: the breaker opens by what its definition says, and closes only by a success.
//! Method: tables, and any sequence of results against a plain list of them.

use std::time::Duration;

use countersign_statemachine::{Backoff, Breaker, BreakerAction, BreakerSettings, Leave, Switch};
use proptest::prelude::*;

const NOW: Duration = Duration::from_secs(100);

fn settings() -> BreakerSettings {
    let second = Duration::from_secs(1);
    let probe = Backoff { base: second, factor: 2.0, max: Duration::from_secs(4), jitter: 0.0 };
    BreakerSettings { row: 5, share: 0.5, window: 20, probe, action: BreakerAction::Probe }
}

fn opened() -> Breaker {
    let mut breaker = Breaker::new(settings(), 1);
    let switches: Vec<_> = (0..5).map(|_| breaker.failed(NOW)).collect();
    assert_eq!(switches, [None, None, None, None, Some(Switch::Opened)]);
    breaker
}

#[test]
fn failures_in_a_row_open_it() {
    assert!(opened().is_open());
}

#[test]
fn a_success_in_between_keeps_it_closed() {
    let mut breaker = Breaker::new(settings(), 1);
    for _ in 0..3 {
        for _ in 0..4 {
            assert_eq!(breaker.failed(NOW), None);
        }
        // Enough of them that the share stays low.
        assert_eq!(breaker.succeeded(20), None);
    }
    assert_eq!(breaker.leave(NOW), Leave::Any);
}

#[test]
fn the_share_opens_it_once_there_are_enough_results() {
    let mut breaker = Breaker::new(settings(), 1);
    let mut opened_after = None;
    for n in 0..30 {
        breaker.succeeded(u64::from(n % 2 == 0));
        if n % 2 == 1 && breaker.failed(NOW) == Some(Switch::Opened) {
            opened_after = Some(n + 1);
            break;
        }
    }
    assert_eq!(opened_after, Some(20));
}

#[test]
fn it_lets_one_message_through_after_longer_and_longer_waits() {
    let mut breaker = opened();
    let mut now = NOW;
    for wait in [1, 2, 4, 4] {
        let until = now + Duration::from_secs(wait);
        assert_eq!(breaker.leave(now), Leave::None { until });
        assert_eq!(breaker.leave(until), Leave::One);
        now = until;
        assert_eq!(breaker.failed(now), None, "it is open already");
    }
}

#[test]
fn a_success_closes_it_and_what_was_before_is_forgotten() {
    let mut breaker = opened();
    assert_eq!(breaker.succeeded(0), None, "nothing ended");
    assert_eq!(breaker.succeeded(1), Some(Switch::Closed));
    assert_eq!(breaker.leave(NOW), Leave::Any);
    for _ in 0..4 {
        assert_eq!(breaker.failed(NOW), None);
    }
    assert_eq!(breaker.failed(NOW), Some(Switch::Opened));
}

/// A failure, or so many successes.
fn result() -> impl Strategy<Value = Option<u64>> {
    prop_oneof![Just(None), (1_u64..40).prop_map(Some)]
}

proptest! {
    #[test]
    fn it_opens_exactly_when_its_definition_says(
        results in prop::collection::vec(result(), 0..200),
    ) {
        let BreakerSettings { row, window, .. } = settings();
        let mut breaker = Breaker::new(settings(), 7);
        let mut all: Vec<bool> = Vec::new();
        for result in results {
            let was_open = breaker.is_open();
            let switch = if let Some(messages) = result {
                all.extend((0..messages).map(|_| false));
                breaker.succeeded(messages)
            } else {
                all.push(true);
                breaker.failed(NOW)
            };
            let in_a_row = all.iter().rev().take_while(|failed| **failed).count();
            let last = all.iter().rev().take(window as usize);
            let failures = last.clone().filter(|failed| **failed).count();
            let too_much = in_a_row >= row as usize
                || last.count() == window as usize && failures * 2 >= window as usize;
            let expected = match (was_open, result) {
                (true, Some(_)) => Some(Switch::Closed),
                (false, None) if too_much => Some(Switch::Opened),
                (true, None) | (false, Some(_) | None) => None,
            };
            prop_assert_eq!(switch, expected);
            if switch == Some(Switch::Closed) {
                all.clear();
            }
        }
    }
}
