//! Goal: what is only read is left to others when they need the memory, and read again from exactly
//! there; without memory for results what nothing can be done before still goes on.
//! Method: a worker with one partition, told event by event.

#![expect(clippy::unwrap_used, reason = "a test that panics has failed")]

mod story;

use std::time::Duration;

use countersign_statemachine::worker::{Failure, FailureKind, Input};
use countersign_statemachine::{Backoff, Order, Reason, Settings};
use story::{NOTHING, P, Story, settings, span};

fn crowded(story: &mut Story, from: u64) -> Vec<String> {
    story.tell(Input::Crowded { partition: P, epoch: 1, from })
}

fn memory(story: &mut Story, messages: u64) -> Vec<String> {
    story.tell(Input::Memory { partition: P, epoch: 1, messages })
}

fn finished(story: &mut Story, lane: u64) -> Vec<String> {
    let spans = vec![span(lane, lane + 1)];
    story.tell(Input::Finished { partition: P, epoch: 1, lane, spans })
}

/// Twenty messages are admitted at once.
#[test]
fn what_is_only_read_is_read_again_once() {
    let mut story = Story::owning(1);
    assert_eq!(story.received(0, 50), ["write 1, 0..=19 Start"]);
    assert_eq!(crowded(&mut story, 0), ["read again 20"]);
    assert_eq!(crowded(&mut story, 0), NOTHING, "nothing is left");
    assert_eq!(story.tell(Input::Stored { write: 1 }), ["handle 0..=9 attempt 0"]);
    assert_eq!(story.finished(0, 10), ["handle 10..=19 attempt 0", "send 0 #1 0..=1", "flush 0"]);
    assert_eq!(story.received(20, 50), ["write 2, 20..=29 Start"]);
    assert_eq!(crowded(&mut story, 40), ["read again 40"], "the others have room for the rest");
    assert_eq!(crowded(&mut story, 0), ["read again 30"]);
}

#[test]
fn a_stale_ownership_gives_nothing_back() {
    let mut story = Story::owning(1);
    story.received(0, 50);
    assert_eq!(story.tell(Input::Crowded { partition: P, epoch: 7, from: 0 }), NOTHING);
    assert_eq!(crowded(&mut story, 0), ["read again 20"]);
}

/// The position stays below what is to be read again, also when all that was begun is done.
#[test]
fn a_commit_never_passes_what_is_read_again() {
    let mut story = Story::owning_with(Settings { transaction_records: 100, ..settings(1) });
    story.received(0, 15);
    story.received(15, 50);
    assert_eq!(crowded(&mut story, 0), ["read again 15"]);
    story.tell(Input::Stored { write: 1 });
    story.finished(0, 10);
    assert_eq!(story.finished(10, 15), ["send 0 #1 10..=14", "flush 0"]);
    assert_eq!(story.flushed(0), ["commit 0 #1 0@15"]);
    assert_eq!(story.committed(0), ["release 15"]);
    assert_eq!(
        story.received(15, 16)[0],
        "write 2, transaction 1 Committed, \
        0..=14 Committed(Processed), 15 Start"
    );
}

/// Messages of a key that waits are given back although others behind them are done.
#[test]
fn what_is_done_behind_it_is_passed_over_when_it_is_read_again() {
    let never = Duration::from_secs(3_600);
    let backoff = Backoff { base: never, max: never, jitter: 0.0, ..Backoff::default() };
    let set = Settings { order: Order::Key, retry: backoff.into(), ..settings(1) };
    let mut story = Story::owning_with(Settings { transaction_records: 100, ..set });
    let received = |story: &mut Story, first: u64, keys: Vec<u64>| {
        let spans = vec![span(first, first + keys.len() as u64)];
        story.tell(Input::Received { partition: P, epoch: 1, spans, keys })
    };
    let finished = |story: &mut Story, lane: u64, first: u64| {
        let spans = vec![span(first, first + 1)];
        story.tell(Input::Finished { partition: P, epoch: 1, lane, spans })
    };
    assert_eq!(received(&mut story, 0, vec![7]), ["write 1, 0 Start"]);
    assert_eq!(story.tell(Input::Stored { write: 1 }), ["handle 0 attempt 0"]);
    let failure = Failure::new(Reason::Error, FailureKind::Retryable, "no");
    let failed = Input::Failed { partition: P, epoch: 1, lane: 7, offset: 0, failure };
    assert_eq!(story.tell(failed), ["flush 0"], "its attempt is told");
    assert_eq!(story.flushed(0), ["commit 0 #1 0@0"]);
    assert_eq!(story.committed(0), ["release 0"]);
    let written = received(&mut story, 1, vec![8, 7, 7, 8]);
    let both = "0 RolledBack(Error), transaction 1 Committed, 1 Start, 4 Start";
    assert_eq!(written, [format!("write 2, {both}")]);
    assert_eq!(story.tell(Input::Stored { write: 2 }), ["handle 1 4 attempt 0"]);
    assert_eq!(finished(&mut story, 8, 1), ["send 0 #2 1"]);
    assert_eq!(crowded(&mut story, 0), NOTHING, "one of them is under way behind it");
    assert_eq!(finished(&mut story, 8, 4), ["send 0 #2 4"]);
    assert_eq!(story.after(200, Input::Tick), ["flush 0"]);
    assert_eq!(story.flushed(0), ["commit 0 #2 0@0"]);
    assert_eq!(story.committed(0), ["release 0"]);

    assert_eq!(crowded(&mut story, 0), ["read again 2"]);
    let written = received(&mut story, 2, vec![7, 7, 8, 8]);
    assert_eq!(written[0], "release 0", "the fourth need not be kept");
    assert!(written[1].ends_with("5 Start"), "{written:?}");
}

/// Results take all memory: nothing is begun, but for the first message that is not done.
#[test]
fn without_memory_only_the_first_message_is_handled() {
    let set = Settings { order: Order::None, transaction_records: 100, ..settings(1) };
    let mut story = Story::owning_with(set);
    story.received(0, 10);
    assert_eq!(memory(&mut story, 0), NOTHING);
    assert_eq!(story.tell(Input::Stored { write: 1 }), ["handle 0 attempt 0 at any cost"]);
    assert_eq!(finished(&mut story, 0), ["send 0 #1 0"], "the second waits for its commit");
    assert_eq!(story.after(200, Input::Tick), ["flush 0"]);
    assert_eq!(story.flushed(0), ["commit 0 #1 0@1"]);
    assert_eq!(story.committed(0), ["release 1", "handle 1 attempt 0 at any cost"]);
    let all = ["handle 2 attempt 0", "handle 3 attempt 0", "handle 4 attempt 0"];
    assert_eq!(memory(&mut story, u64::MAX), all, "four run at once");
}

/// As many as there is memory for, in one run or in several.
#[test]
fn so_many_messages_are_under_way_as_there_is_memory_for() {
    let mut story = Story::owning(1);
    memory(&mut story, 3);
    assert_eq!(story.received(0, 50), ["write 1, 0..=2 Start"]);
    assert_eq!(story.tell(Input::Stored { write: 1 }), ["handle 0..=2 attempt 0"]);
    let set = Settings { order: Order::None, ..settings(1) };
    let mut story = Story::owning_with(set);
    memory(&mut story, 2);
    assert_eq!(story.received(0, 50), ["write 1, 0..=1 Start"]);
    let both = ["handle 0 attempt 0", "handle 1 attempt 0"];
    assert_eq!(story.tell(Input::Stored { write: 1 }), both);
}

/// A run that finds no memory left stops, and what it has not begun waits.
#[test]
fn a_run_that_stops_for_want_of_memory_goes_on_with_it() {
    let mut story = Story::handling(1, 4);
    assert_eq!(story.finished(0, 1), ["send 0 #1 0"]);
    assert_eq!(memory(&mut story, 0), NOTHING);
    assert_eq!(story.tell(Input::Yielded { partition: P, epoch: 1, lane: 0 }), NOTHING);
    assert_eq!(memory(&mut story, u64::MAX), ["handle 1..=3 attempt 0"]);
}
