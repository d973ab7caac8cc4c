//! A worker in a world where anything may happen, in any order.

#![expect(clippy::unwrap_used, reason = "a test that panics has failed")]

mod world;

use countersign_statemachine::{Order, Settings};
use proptest::prelude::*;
use world::{Choice, World, settings};

fn live(slots: u32, order: Order, choices: &[u64]) {
    let mut world = World::new(Settings { order, ..settings(slots) });
    for partition in 0..world::PARTITIONS {
        world.kafka.log(partition).messages = vec![true, true, false, true, true];
    }
    let lived = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        for &choice in choices {
            world.step(Choice(choice));
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
