//! Shares of messages and of results, and what is expected of the next ones.

use super::*;
use crate::driver::meter::{Charge, Meter};
use crate::driver::results::Results;
use crate::kafka::{BatchBuilder, TopicPartition};

fn batch(bytes: usize) -> Batch {
    let mut builder = BatchBuilder::new(TopicPartition::new("in", 0));
    builder.push(0, None, None, Some(&vec![0; bytes]), []);
    builder.build()
}

fn output(value: impl Into<bytes::Bytes>) -> crate::kafka::Output {
    crate::kafka::Output {
        topic: "out".into(),
        partition: 0,
        key: None,
        value: Some(value.into()),
        headers: Vec::new(),
        timestamp: None,
    }
}

#[test]
fn results_of_one_partition_leave_the_others_their_shares() {
    let budget = Budget::new(100_000);
    let [stuck, other] = [budget.share(), budget.share()];
    let held = Charge::of(&stuck, &[output(vec![0; 60_000])]);
    assert!(!stuck.has_room(1, false), "half of all is for results");
    assert!(other.has_room(25_000, false), "half of that, whatever others hold");
    assert!(!other.has_room(25_001, false));
    assert!(!other.has_room(20_000, true), "with a margin, less");
    drop(held);
    assert!(stuck.has_room(50_000, false), "what nobody else needs");
}

#[test]
fn results_count_until_the_last_of_them_is_dropped() {
    let budget = Budget::new(100_000);
    let share = budget.share();
    let results = Arc::new(Results::of(5, vec![output(vec![0; 50_000])], &share));
    let again = Arc::clone(&results);
    drop(results);
    assert!(!share.has_room(1, false));
    drop(again);
    assert!(share.has_room(50_000, false));
}

/// A run stops where there is no room for results as large as the last ones.
#[test]
fn a_run_keeps_room_for_what_is_expected() {
    let budget = Budget::new(100_000);
    let share = budget.share();
    let mut runs: Vec<_> = (0..6).map(|_| Meter::new(&share, &[], 10_000, false)).collect();
    let begun = runs.iter_mut().map(|run| run.reserve(1)).collect::<Vec<_>>();
    assert_eq!(begun, [true, true, true, true, true, false]);
    let mut needed = Meter::new(&share, &[], 10_000, true);
    assert!(needed.reserve(1), "at any cost");
    drop((runs, needed));
    assert!(share.has_room(50_000, false), "nothing is kept for runs that have ended");
}

/// Small results are counted in grains, and all of them in the end.
#[test]
fn what_a_run_makes_is_counted_and_slices_of_its_messages_are_not() {
    let budget = Budget::new(100_000);
    let share = budget.share();
    let read = batch(1_000);
    let record = read.record(0).expect("there is one");
    let value = record.value_bytes().expect("it has a value");
    let mut run = Meter::new(&share, &[(read, 0)], 0, false);
    run.count(&[output(value.slice(..500))]);
    run.count(&[output(vec![0; 100]), output(vec![0; 100])]);
    let made = run.take();
    assert_eq!(
        made.bytes(),
        500,
        "two hundred bytes, and one output more than the message's first"
    );
    assert!(!share.has_room(49_501, false));
    drop(made);
    assert!(share.has_room(50_000, false));
}

#[test]
fn the_larger_results_are_the_less_is_read_and_under_way() {
    const LIMIT: usize = 64 << 20;
    let mut costs = Costs::new(LIMIT);
    assert_eq!((costs.for_messages(), costs.at_once(0)), (LIMIT / 2, u64::MAX), "nothing is known");
    (0..50).for_each(|_| costs.saw_messages(&batch(200)));
    costs.saw_results(1_000, 0);
    assert_eq!((costs.for_messages(), costs.at_once(0)), (LIMIT, u64::MAX));
    (0..50).for_each(|_| costs.saw_results(1, 200));
    assert!((LIMIT / 100 * 78..LIMIT / 100 * 82).contains(&costs.for_messages()), "{costs:?}");
    (0..50).for_each(|_| costs.saw_results(10, 200_000));
    assert_eq!((costs.for_messages(), costs.at_once(0)), (LIMIT / 2, 1_024));
    (0..50).for_each(|_| costs.saw_results(1, 100 << 20));
    assert_eq!(costs.at_once(1_024), 1, "one can always be handled");
    costs.saw_results(1_000_000, 1);
    assert_eq!(costs.at_once(1), 1, "and soon more");
    (0..400).for_each(|_| costs.saw_results(1_000, 1_000));
    assert_eq!(costs.at_once(1), u64::MAX);
}
