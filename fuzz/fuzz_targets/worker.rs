//! Any life of a worker: whatever happens around it, each message is done once.

#![no_main]

#[path = "../../statemachine/tests/world/mod.rs"]
mod world;

use countersign_statemachine::{Order, Settings};
use libfuzzer_sys::fuzz_target;
use world::{Choice, World, settings};

/// Longer lives find nothing that shorter ones do not.
const STEPS_MAX: usize = 400;

fuzz_target!(|input: (bool, u8, Vec<u64>)| {
    let (pipelined, kind, choices) = input;
    let (order, has_pills) = (kind % 3, kind / 3 % 2 == 1);
    let order = [Order::Partition, Order::Key, Order::None][usize::from(order)];
    let settings = settings(if pipelined { 2 } else { 1 });
    let mut world = World::new(Settings { order, ..settings });
    world.kafka.has_pills = has_pills;
    for partition in 0..world::PARTITIONS {
        world.kafka.log(partition).messages = vec![true, true, false, true, true];
    }
    for choice in choices.into_iter().take(STEPS_MAX) {
        world.step(Choice(choice));
    }
    world.heal();
});
