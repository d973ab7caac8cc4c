//! A worker in a world where anything may happen, in any order.

#![expect(clippy::unwrap_used, reason = "a test that panics has failed")]

mod world;

use countersign_statemachine::{Order, Settings};
use proptest::prelude::*;
use world::{Choice, World, settings};

fn live(slots: u32, order: Order, choices: &[u64]) {
    live_with(World::new(Settings { order, ..settings(slots) }), choices, World::step);
}

fn live_with(mut world: World, choices: &[u64], step: impl Fn(&mut World, Choice)) {
    for partition in 0..world::PARTITIONS {
        world.kafka.log(partition).messages = vec![true, true, false, true, true];
    }
    let lived = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        for &choice in choices {
            step(&mut world, Choice(choice));
        }
        world.heal();
    }));
    if let Err(panic) = lived {
        eprintln!("{world:?}");
        std::panic::resume_unwind(panic);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn one_slot_does_everything_once(choices in prop::collection::vec(any::<u64>(), 0..400)) {
        live(1, Order::Partition, &choices);
    }

    #[test]
    fn two_slots_do_everything_once(choices in prop::collection::vec(any::<u64>(), 0..400)) {
        live(2, Order::Partition, &choices);
    }

    #[test]
    fn in_the_order_of_keys_everything_is_done_once(
        choices in prop::collection::vec(any::<u64>(), 0..400),
        slots in 1..=2_u32,
    ) {
        live(slots, Order::Key, &choices);
    }

    #[test]
    fn in_no_order_everything_is_done_once(
        choices in prop::collection::vec(any::<u64>(), 0..400),
        slots in 1..=2_u32,
    ) {
        live(slots, Order::None, &choices);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Also about messages that are announced, and those that end the process.
    #[test]
    fn operators_decide_about_messages_at_any_moment(
        choices in prop::collection::vec(any::<u64>(), 0..400),
        order in prop_oneof![Just(Order::Partition), Just(Order::Key), Just(Order::None)],
        slots in 1..=2_u32,
        is_announced in any::<bool>(),
        has_pills in any::<bool>(),
    ) {
        let mut world = World::new(Settings { order, ..settings(slots) });
        world.kafka.has_pills = has_pills;
        world.haunt(is_announced);
        live_with(world, &choices, World::step_with_orders);
    }

    /// However slow handlers are: nobody has died.
    #[test]
    fn who_comes_and_goes_in_good_order_is_not_counted(
        choices in prop::collection::vec(any::<u64>(), 0..200),
        order in prop_oneof![Just(Order::Partition), Just(Order::Key), Just(Order::None)],
        slots in 1..=2_u32,
    ) {
        let world = World::new(Settings { order, ..settings(slots) });
        live_with(world, &choices, World::step_in_order);
    }
}

proptest! {
    // Each has many processes.
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(64)
    })]

    /// While nothing else goes wrong, nobody else is ever announced when a process ends.
    #[test]
    fn neighbours_of_messages_that_end_the_process_are_not_blamed(
        lens in prop::collection::vec(0..60_usize, 3),
        order in prop_oneof![Just(Order::Partition), Just(Order::Key), Just(Order::None)],
        slots in 1..=2_u32,
    ) {
        let mut world = World::new(Settings { order, ..settings(slots) });
        world.kafka.has_pills = true;
        for (partition, len) in (0..).zip(&lens) {
            world.kafka.log(partition).messages = vec![true; *len];
        }
        world.heal();
        let blamed = world.suspected();
        prop_assert!(blamed.iter().all(|(_, _, is_pill)| *is_pill), "{blamed:?}");
        let pills = lens.iter().any(|len| *len > 21);
        prop_assert!(!pills || blamed.len() >= 3, "{lens:?}: {blamed:?}");
    }

    /// And they alone are given up for it, beside those whose processes were ended by something
    /// else as often.
    #[test]
    fn messages_that_end_the_process_become_dead_letters(
        choices in prop::collection::vec(any::<u64>(), 0..300),
        order in prop_oneof![Just(Order::Partition), Just(Order::Key), Just(Order::None)],
        slots in 1..=2_u32,
    ) {
        let mut world = World::new(Settings { order, ..settings(slots) });
        world.kafka.has_pills = true;
        live_with(world, &choices, World::step);
    }
}

/// Offsets of an aborted transaction, say, between the position and what ends the process.
#[test]
fn a_message_that_ends_the_process_is_found_behind_a_gap() {
    let mut world = World::new(settings(2));
    world.kafka.has_pills = true;
    world.kafka.log(0).messages = [vec![false; 26], vec![true; 3]].concat();
    world.heal();
    let blamed = world.suspected();
    assert!(blamed.len() >= 3 && blamed.iter().all(|(_, _, is_pill)| *is_pill), "{blamed:?}");
}
