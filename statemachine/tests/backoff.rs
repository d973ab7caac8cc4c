//! Goal: waits are bounded, grow, repeat for a seed, and differ between seeds.
//! Method: random settings, also absurd ones, and the defaults looked at as a whole.

use std::time::Duration;

use countersign_statemachine::Backoff;
use proptest::prelude::*;

fn duration() -> impl Strategy<Value = Duration> {
    let extreme = prop_oneof![Just(Duration::ZERO), Just(Duration::MAX)];
    prop_oneof![(0_u64..100_000).prop_map(Duration::from_millis), extreme]
}

fn any_backoff() -> impl Strategy<Value = Backoff> {
    (duration(), any::<f64>(), duration(), any::<f64>())
        .prop_map(|(base, factor, max, jitter)| Backoff { base, factor, max, jitter })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn no_settings_wait_beyond_the_maximum(
        backoff in any_backoff(), n in any::<u32>(), seed in any::<u64>(),
    ) {
        let wait = backoff.wait(n, seed);
        prop_assert!(wait <= backoff.max);
        prop_assert!(wait == Duration::ZERO || backoff.base > Duration::ZERO);
        prop_assert_eq!(wait, backoff.wait(n, seed));
    }

    #[test]
    fn without_jitter_waits_grow_from_the_base_to_the_maximum(
        base_ms in 1_u64..1_000, factor in 1.1_f64..10.0, max_ms in 1_000_u64..100_000,
        seed in any::<u64>(),
    ) {
        let (base, max) = (Duration::from_millis(base_ms), Duration::from_millis(max_ms));
        let backoff = Backoff { base, factor, max, jitter: 0.0 };
        prop_assert_eq!(backoff.wait(1, seed), base);
        prop_assert_eq!(backoff.wait(0, seed), base);
        let waits: Vec<Duration> = (1..200).map(|n| backoff.wait(n, seed)).collect();
        prop_assert!(waits.is_sorted());
        prop_assert_eq!(waits[198], max);
        prop_assert_eq!(backoff.wait(u32::MAX, seed), max);
    }

    #[test]
    fn jitter_takes_at_most_its_share(
        n in 1_u32..50, seed in any::<u64>(), jitter in 0.0_f64..1.0,
    ) {
        let full = Backoff { jitter: 0.0, ..Backoff::default() }.wait(n, seed);
        let wait = Backoff { jitter, ..Backoff::default() }.wait(n, seed);
        prop_assert!(wait <= full);
        // A nanosecond for the rounding.
        prop_assert!(wait + Duration::from_nanos(1) >= full.mul_f64(1.0 - jitter));
    }
}

#[test]
fn the_defaults_double_from_100_ms_to_10_s() {
    let backoff = Backoff { jitter: 0.0, ..Backoff::default() };
    let waits: Vec<u128> = (1..=9).map(|n| backoff.wait(n, 0).as_millis()).collect();
    assert_eq!(waits, [100, 200, 400, 800, 1_600, 3_200, 6_400, 10_000, 10_000]);
}

/// Neighbouring seeds, as of messages that failed together, are spread over the whole share.
#[test]
fn neighbouring_seeds_spread_evenly() {
    let backoff = Backoff { jitter: 1.0, ..Backoff::default() };
    let mut buckets = [0_u32; 10];
    for seed in 0..10_000 {
        let wait_us = backoff.wait(1, seed).as_micros();
        buckets[usize::try_from(wait_us / 10_001).unwrap()] += 1;
    }
    assert!(buckets.iter().all(|&count| (850..1_150).contains(&count)), "{buckets:?}");
}

/// A base of nothing used to become the maximum once the factor's power was infinite.
#[test]
fn no_base_means_no_wait_however_often() {
    let backoff = Backoff { base: Duration::ZERO, ..Backoff::default() };
    assert_eq!(backoff.wait(u32::MAX, 1), Duration::ZERO);
}
