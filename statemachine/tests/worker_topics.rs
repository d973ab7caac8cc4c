//! Partitions that cannot be taken up yet, told event by event: they hold no other one back.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod story;

use countersign_statemachine::PartitionId;
use countersign_statemachine::worker::{Commit, Input, Label, SlotEvent};
use story::{NOTHING, P, Story, settings};

const SICK: PartitionId = PartitionId(1);

fn at(offset: u64) -> Commit {
    Commit { offset, label: Label::Foreign(String::new()) }
}

/// Two partitions are given at once; Kafka does not tell where the second one stands.
fn one_is_sick() -> Story {
    let mut story = Story::new(settings(1));
    story.slot(0, SlotEvent::Opened);
    assert_eq!(story.tell(Input::Assigned(vec![P, SICK])), ["recover 0 1"]);
    assert_eq!(story.tell(Input::Unready(vec![(SICK, 2)])), NOTHING, "the other is asked for");
    assert_eq!(story.found((P, 1), Some(at(0)), 0), ["assign 0@0 1"]);
    story
}

#[test]
fn a_partition_that_is_not_ready_holds_no_other_one_back() {
    let mut story = one_is_sick();
    assert_eq!(story.received(0, 1), ["write 1, 0 Start"]);
    assert_eq!(story.tell(Input::Stored { write: 1 }), ["handle 0 attempt 0"]);
    assert_eq!(story.tell(Input::Unready(vec![(SICK, 2)])), NOTHING);
    assert_eq!(story.found((SICK, 2), Some(at(5)), 5), ["fetch 1@5"]);
    assert_eq!(story.received_of((SICK, 2), 5, 6), ["write 2, 5 Start"]);
}

#[test]
fn an_assignment_of_which_nothing_is_ready_is_answered() {
    let mut story = Story::owning(1);
    assert_eq!(story.tell(Input::Assigned(vec![SICK])), ["recover 1"]);
    assert_eq!(story.tell(Input::Unready(vec![(SICK, 2)])), ["assign 1"], "the others wait for it");
    assert_eq!(story.received(0, 1), ["write 1, 0 Start"]);
}

#[test]
fn a_partition_that_is_not_ready_is_given_back_at_once() {
    let mut story = one_is_sick();
    assert_eq!(story.tell(Input::Revoked(vec![SICK])), ["forget", "unassign 1"]);
    assert_eq!(story.found((SICK, 2), Some(at(5)), 5), NOTHING, "it comes too late");
}

#[test]
fn a_partition_that_is_not_ready_does_not_hold_a_drain_up() {
    let mut story = one_is_sick();
    assert_eq!(story.tell(Input::Drain), ["leave"], "nothing is under way");
    let last = story.tell(Input::Revoked(vec![P, SICK]));
    assert_eq!(last.last().map(String::as_str), Some("stop ok=true"), "{last:?}");
}
