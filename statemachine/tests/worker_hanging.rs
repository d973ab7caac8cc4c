//! Goal: a producer that is given up because a call of it did not return leaves nothing open, and
//! what was ordered behind the call is made up for.
//! Method: stories of a worker, event by event.

#![expect(clippy::unwrap_used, reason = "a test that panics has failed")]

mod story;

use countersign_statemachine::PartitionId;
use countersign_statemachine::worker::{Call, Input, SlotEvent};
use story::{NOTHING, P, Story, assert_lets_go};

fn given_up(story: &mut Story, slot: u32, call: Call) -> Vec<String> {
    story.slot(slot, SlotEvent::GivenUp { call, message: "it hangs".to_owned() })
}

#[test]
fn what_was_never_ended_is_aborted_by_the_next_producer_and_sent_again() {
    for call in [Call::Send, Call::Flush] {
        let mut story = Story::handling(1, 2);
        assert_eq!(story.finished(0, 2), ["send 0 #1 0..=1", "flush 0"]);
        assert_eq!(given_up(&mut story, 0, call), ["open 0 Failed"], "{call:?}");
        assert_eq!(story.slot(0, SlotEvent::Opened), NOTHING, "it pauses after an abort");
        assert_eq!(story.after(10, Input::Tick), ["send 0 #2 0..=1", "flush 0"]);
    }
}

#[test]
fn offsets_that_hang_were_not_committed() {
    let mut story = Story::committing(1, 2);
    assert_eq!(given_up(&mut story, 0, Call::SendOffsets), ["open 0 Failed"]);
    assert_eq!(story.slot(0, SlotEvent::Opened), NOTHING, "nothing is in doubt");
    assert_eq!(story.worker.counts().in_doubt, 0);
    assert_eq!(story.after(20, Input::Tick), ["send 0 #2 0..=1", "flush 0"]);
}

#[test]
fn what_follows_it_comes_to_nothing_too() {
    let mut story = Story::handling(2, 4);
    story.finished(0, 4);
    story.flushed(0);
    let aborted = given_up(&mut story, 0, Call::SendOffsets);
    assert_eq!(aborted, ["abort 1", "open 0 Failed"]);
    story.aborted(1);
    story.slot(0, SlotEvent::Opened);
    assert_eq!(story.after(20, Input::Tick), ["send 0 #3 0..=1", "flush 0"]);
}

#[test]
fn a_commit_that_hangs_is_in_doubt() {
    for arrived in [true, false] {
        let mut story = Story::committing(1, 2);
        assert_eq!(given_up(&mut story, 0, Call::Commit), ["open 0 InDoubt"]);
        assert_eq!(story.slot(0, SlotEvent::Opened), ["read commits of #1"]);
        let told = story.commits(1, arrived);
        assert_eq!(told, if arrived { vec!["release 2"] } else { Vec::new() });
    }
}

/// The abort waits in the loop that hangs and is never carried out.
#[test]
fn an_abort_behind_a_call_that_hangs_is_made_by_the_next_producer() {
    for call in [Call::Send, Call::Flush, Call::Abort] {
        let mut story = Story::handling(1, 2);
        story.finished(0, 2);
        story.owning_another(PartitionId(1), 2);
        let lost = story.tell(Input::Lost(vec![P]));
        assert_eq!(lost.first().map(String::as_str), Some("abort 0"), "{call:?}");
        assert_eq!(given_up(&mut story, 0, call), ["open 0 Failed"], "{call:?}");
        story.slot(0, SlotEvent::Opened);
        assert!(story.worker.is_idle(), "{call:?}");
    }
}

#[test]
fn a_registration_that_hangs_is_tried_again_after_a_wait() {
    let mut story = Story::handling(1, 2);
    story.finished(0, 2);
    given_up(&mut story, 0, Call::Flush);
    assert_eq!(given_up(&mut story, 0, Call::Open), NOTHING);
    let again = story.after(1_000, Input::Tick);
    assert!(again.contains(&"open 0 Failed".to_owned()), "{again:?}");
    story.slot(0, SlotEvent::Opened);
    let sent = story.after(1_000, Input::Tick);
    assert_eq!(sent[..2], ["send 0 #2 0..=1", "flush 0"]);
}

#[test]
fn a_partition_is_let_go_while_the_next_producer_is_made() {
    let mut story = Story::committing(1, 2);
    given_up(&mut story, 0, Call::Commit);
    assert_lets_go(&story.tell(Input::Lost(vec![P])));
}
