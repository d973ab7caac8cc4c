//! Goal: what Kafka refuses for good ends the worker: at once where it was never let do it, and
//! after a minute where it was; a refusal that is over ends nothing.
//! Method: stories of one worker, with time as an argument.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod story;

use countersign_statemachine::worker::{
    Call, Denied, Effect, Ground, Input, SlotEvent, StopReason,
};
use countersign_statemachine::{Disposition, PartitionId};
use story::{NOTHING, P, Story, settings};

const READING: Denied = Denied::Reading(P);
const STOPPED: [&str; 1] = ["stop ok=false"];

fn denied(what: Denied) -> Input {
    Input::Denied { denied: what, ground: Ground::Right, message: "not allowed".to_owned() }
}

/// Tells so for as long as it is asked; gives after how many seconds the worker stops.
fn refused_on_and_on(story: &mut Story, what: Denied, seconds: u64) -> Option<u64> {
    if story.tell(denied(what)) == STOPPED {
        return Some(0);
    }
    let ask = format!("ask again {what:?}");
    for second in 1..=seconds {
        let mut effects = story.after(1_000, Input::Tick);
        if effects.contains(&ask) {
            effects = story.tell(denied(what));
        }
        if effects.contains(&STOPPED[0].to_owned()) {
            return Some(second);
        }
    }
    None
}

#[test]
fn a_worker_that_was_never_let_do_it_ends_at_once() {
    let mut story = Story::new(settings(1));
    assert_eq!(story.tell(denied(Denied::Membership)), STOPPED);

    let mut story = Story::owning(1);
    assert_eq!(story.tell(denied(READING)), STOPPED);
}

#[test]
fn the_ground_and_the_words_are_told() {
    let mut story = Story::new(settings(1));
    let message = "another assignor".to_owned();
    let input = Input::Denied {
        denied: Denied::Membership,
        ground: Ground::Setting,
        message: message.clone(),
    };
    story.worker.handle(input, story.now);
    let ground = Ground::Setting;
    let stop = Effect::Stop(Err(StopReason::Denied { ground, message }));
    assert_eq!(story.worker.poll_effect(), Some(stop));
}

#[test]
fn what_was_allowed_before_may_be_refused_for_a_minute() {
    let mut story = Story::owning(1);
    assert_eq!(refused_on_and_on(&mut story, Denied::Membership, 100), Some(60));

    let mut story = Story::owning(1);
    story.at_end(0);
    assert_eq!(refused_on_and_on(&mut story, READING, 100), Some(60));
}

#[test]
fn a_refusal_that_is_over_ends_nothing() {
    // It is read again, a message or the end.
    for read in [|story: &mut Story| story.received(0, 1), |story: &mut Story| story.at_end(0)] {
        let mut story = Story::owning(1);
        story.at_end(0);
        assert_eq!(refused_on_and_on(&mut story, READING, 50), None);
        read(&mut story);
        assert_eq!(refused_on_and_on(&mut story, READING, 50), None, "it is counted anew");
    }
    // The group gives partitions again.
    let mut story = Story::owning(1);
    assert_eq!(refused_on_and_on(&mut story, Denied::Membership, 50), None);
    story.tell(Input::Assigned(vec![PartitionId(1)]));
    assert_eq!(refused_on_and_on(&mut story, Denied::Membership, 50), None);
}

#[test]
fn a_refusal_that_is_not_repeated_is_over() {
    let mut story = Story::owning(1);
    assert_eq!(refused_on_and_on(&mut story, Denied::Membership, 50), None);
    // It is asked for three times more, and nothing is refused.
    let mut asked = 0;
    for _ in 0..100 {
        let effects = story.after(1_000, Input::Tick);
        asked += effects.iter().filter(|effect| effect.starts_with("ask again")).count();
    }
    assert!((1..=3).contains(&asked), "{asked}");
    assert_eq!(refused_on_and_on(&mut story, Denied::Membership, 50), None);
}

#[test]
fn a_partition_that_is_let_go_need_not_be_read() {
    let mut story = Story::owning(1);
    story.at_end(0);
    assert_eq!(refused_on_and_on(&mut story, READING, 50), None);
    story.tell(Input::Lost(vec![P]));
    for _ in 0..5 {
        assert_eq!(story.after(20_000, denied(READING)), NOTHING);
    }
}

#[test]
fn who_leaves_needs_no_right() {
    let mut story = Story::owning(1);
    story.at_end(0);
    story.tell(Input::Drain);
    for what in [READING, Denied::Membership] {
        let effects = story.after(100, denied(what));
        assert!(!effects.contains(&STOPPED[0].to_owned()), "{effects:?}");
    }
}

#[test]
fn a_producer_that_was_never_let_write_ends_the_worker_at_once() {
    for (call, n) in [(Call::Send, 1), (Call::Flush, 1), (Call::SendOffsets, 1)] {
        let mut story = Story::handling(1, n);
        story.finished(0, n);
        assert_eq!(story.fault(0, call, Disposition::Permanent), STOPPED, "{call:?}");
    }
}

/// Its transaction comes to nothing, and is tried again with a new producer.
#[test]
fn a_producer_that_was_let_write_is_refused_for_a_minute() {
    let mut story = Story::committing(1, 10);
    story.committed(0);
    story.finished(2, 4);
    let mut seconds = 0;
    let stopped = loop {
        let effects = story.fault(0, Call::Flush, Disposition::Permanent);
        if effects.contains(&STOPPED[0].to_owned()) {
            break true;
        }
        assert!(effects.contains(&"open 0 Failed".to_owned()), "{effects:?}");
        story.slot(0, SlotEvent::Opened);
        let mut begun = false;
        while !begun && seconds < 100 {
            seconds += 1;
            let effects = story.after(1_000, Input::Tick);
            begun = effects.iter().any(|effect| effect.starts_with("flush 0"));
        }
        if seconds >= 100 {
            break false;
        }
    };
    assert!(stopped && (60..=70).contains(&seconds), "{stopped} {seconds}");
}

#[test]
fn a_commit_ends_what_a_producer_was_refused() {
    let mut story = Story::committing(1, 10);
    story.committed(0);
    for first in [2, 4, 6] {
        story.finished(first, first + 2);
        assert_ne!(story.fault(0, Call::Flush, Disposition::Permanent), STOPPED);
        story.slot(0, SlotEvent::Opened);
        story.after(40_000, Input::Tick);
        story.flushed(0);
        story.committed(0);
    }
}
