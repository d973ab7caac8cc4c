//! Goal: a partition that is given back in good order says so in its last commit, also when a
//! handler outlasts the time for it, and its next owner counts no death. A process that ends in the
//! middle of giving it back has said nothing, and is counted.
//! Method: a worker with one partition, told event by event; what its commits say is what the next
//! worker takes the partition up with.

#![expect(clippy::unwrap_used, reason = "a test that panics has failed")]

mod story;

use countersign_statemachine::worker::{Call, Input, SlotEvent};
use countersign_statemachine::{Author, CommitMetadata, Disposition, Order, Settings};
use story::{NOTHING, P, Story, assert_lets_go, settings, span};

/// How long handlers may take, and then the last commit.
const LEAVE_MS: u64 = 1_000;
const CLOSE_MS: u64 = 200;

/// What each process is told.
fn process(number: u64) -> Settings {
    let (instance, incarnation) = (format!("w{number}"), number << 40);
    let (process, order) = (incarnation, Order::None);
    Settings { instance, incarnation, process, order, ..settings(1) }
}

/// What an owner that ended without a word wrote.
fn silent() -> CommitMetadata {
    let author = Author { instance: "w9".to_owned(), incarnation: 9 << 50, number: 1 };
    CommitMetadata {
        prev: Some(author.clone()),
        author,
        topic_id: [7; 16],
        completed: Vec::new(),
        attempts: Vec::new(),
        released: false,
        takeovers: 0,
        advanced: false,
        careful: None,
        trial: None,
        first_start: None,
    }
}

fn metadata(story: &Story) -> CommitMetadata {
    let sent = &story.sent[0];
    CommitMetadata::decode(sent.offset, &sent.metadata).unwrap()
}

fn yielded(story: &mut Story, lane: u64) -> Vec<String> {
    story.tell(Input::Yielded { partition: P, epoch: 1, lane })
}

/// The open transaction is committed; what it says.
fn commits(story: &mut Story) -> (String, Vec<String>) {
    let mut effects = story.flushed(0);
    let commit = effects.iter().find(|effect| effect.starts_with("commit")).unwrap().clone();
    effects.extend(story.committed(0));
    (commit.split_once('#').unwrap().1.to_owned(), effects)
}

/// A new owner is at message 0.
fn at_the_first(number: u64, last: &CommitMetadata) -> Story {
    let mut story = Story::taking_up(process(number), last, 10);
    commits(&mut story);
    story.received(0, 1);
    let effects = story.tell(Input::Stored { write: 1 });
    assert_eq!(effects, ["handle 0 attempt 0"], "and not as a trial");
    story
}

/// An owner is at message 0, and has had no reason to be careful.
fn at_work() -> Story {
    at_the_first(1, &CommitMetadata { released: true, ..silent() })
}

/// It gives the partition back while its handler is at message 0, and does not end in time.
fn give_back(story: &mut Story) -> CommitMetadata {
    assert_eq!(story.tell(Input::Revoked(vec![P])), ["interrupt"]);
    assert_eq!(story.after(LEAVE_MS, Input::Tick), ["halt"]);
    assert_eq!(yielded(story, 0), ["flush 0"]);
    assert_lets_go(&commits(story).1);
    metadata(story)
}

#[test]
fn a_handler_that_outlasts_the_budget_is_cancelled_and_the_partition_released() {
    let mut story = at_work();
    assert_eq!(story.tell(Input::Revoked(vec![P])), ["interrupt"]);
    assert_eq!(story.after(LEAVE_MS - 1, Input::Tick), NOTHING);
    assert_eq!(story.after(1, Input::Tick), ["halt"]);
    assert_eq!(yielded(&mut story, 0), ["flush 0"]);
    let (commit, effects) = commits(&mut story);
    assert_eq!(commit, "2 0@0 released");
    assert_lets_go(&effects);
    assert_eq!(story.finished(0, 1), NOTHING, "it comes too late");
}

#[test]
fn what_was_finished_beside_it_is_part_of_the_last_commit() {
    let mut story = at_work();
    story.received(1, 2);
    let effects = story.tell(Input::Stored { write: 2 });
    assert!(effects.contains(&"handle 1 attempt 0".to_owned()), "{effects:?}");
    story.tell(Input::Revoked(vec![P]));
    let (lane, spans) = (1, vec![span(1, 2)]);
    story.tell(Input::Finished { partition: P, epoch: 1, lane, spans });
    assert!(story.after(LEAVE_MS, Input::Tick).contains(&"halt".to_owned()));
    yielded(&mut story, 0);
    let (commit, effects) = commits(&mut story);
    assert_eq!((commit.as_str(), metadata(&story).completed), ("2 0@0 released", vec![span(1, 2)]));
    assert_lets_go(&effects);
}

/// One that blocks its thread cannot be cancelled, and does not keep the last commit back.
#[test]
fn a_handler_that_is_not_cancelled_is_not_waited_for() {
    let mut story = at_work();
    story.tell(Input::Revoked(vec![P]));
    assert_eq!(story.after(LEAVE_MS, Input::Tick), ["halt"]);
    assert_eq!(story.after(CLOSE_MS / 2 - 1, Input::Tick), NOTHING);
    assert_eq!(story.after(1, Input::Tick), ["flush 0"]);
    let (commit, effects) = commits(&mut story);
    assert_eq!(commit, "2 0@0 released");
    assert_lets_go(&effects);
}

#[test]
fn without_an_answer_to_the_last_commit_the_partition_is_given_up() {
    let mut story = at_work();
    story.tell(Input::Revoked(vec![P]));
    story.after(LEAVE_MS, Input::Tick);
    assert_eq!(yielded(&mut story, 0), ["flush 0"]);
    assert_eq!(story.after(CLOSE_MS - 1, Input::Tick), NOTHING);
    assert_lets_go(&story.after(1, Input::Tick));
}

/// Or the death of a process that is killed while it gives the partition back would not be counted.
#[test]
fn nothing_is_called_released_while_a_handler_may_end_the_process() {
    let mut story = at_work();
    story.received(1, 2);
    let effects = story.tell(Input::Stored { write: 2 });
    assert!(effects.contains(&"handle 1 attempt 0".to_owned()), "{effects:?}");
    story.tell(Input::Revoked(vec![P]));
    let (lane, spans) = (1, vec![span(1, 2)]);
    story.tell(Input::Finished { partition: P, epoch: 1, lane, spans });
    story.after(LEAVE_MS / 2, Input::Tick);
    assert_eq!(commits(&mut story).0, "2 0@0");
    assert!(!metadata(&story).released);
    let mut next = Story::taking_up(process(2), &metadata(&story), 10);
    assert_eq!(commits(&mut next).0, "1 0@0 takeovers 1");
}

/// As long as a handler runs there is nothing to say that was not said.
#[test]
fn while_a_handler_is_waited_for_nothing_is_committed() {
    let mut story = at_work();
    story.tell(Input::Revoked(vec![P]));
    for _ in 0..9 {
        assert_eq!(story.after(100, Input::Tick), NOTHING);
    }
}

#[test]
fn a_message_that_is_left_to_one_owner_after_another_counts_no_death() {
    let mut last = CommitMetadata { released: true, ..silent() };
    for number in 1..=8 {
        let mut story = at_the_first(number, &last);
        last = give_back(&mut story);
        assert_eq!((last.released, last.takeovers), (true, 0), "owner {number}");
    }
}

/// A member that ends takes the same way.
#[test]
fn a_drain_releases_what_its_handlers_do_not_finish() {
    let mut story = at_work();
    assert_eq!(story.tell(Input::Drain), ["interrupt"]);
    assert_eq!(story.after(LEAVE_MS, Input::Tick), ["halt"]);
    assert_eq!(yielded(&mut story, 0), ["flush 0"]);
    let (commit, effects) = commits(&mut story);
    assert_eq!(commit, "2 0@0 released");
    assert_eq!(effects.last().unwrap(), "leave");
}

#[test]
fn an_aborted_last_commit_is_made_once_more() {
    let mut story = at_work();
    story.tell(Input::Revoked(vec![P]));
    assert_eq!(story.finished(0, 1), ["send 0 #2 0", "flush 0"]);
    story.flushed(0);
    story.fault(0, Call::SendOffsets, Disposition::Abortable);
    assert_eq!(story.aborted(0), NOTHING, "it waits a moment");
    let effects = story.after(20, Input::Tick);
    assert!(effects.contains(&"send 0 #3 0".to_owned()), "{effects:?}");
    let (commit, effects) = commits(&mut story);
    assert_eq!(commit, "3 0@1 released");
    assert_lets_go(&effects);
}

/// The group waits: however often it is aborted, it is given up after the time for one commit.
#[test]
fn a_last_commit_that_is_aborted_again_and_again_is_given_up() {
    let mut story = at_work();
    story.tell(Input::Revoked(vec![P]));
    let mut effects = story.finished(0, 1);
    for _ in 0..20 {
        if effects.iter().any(|effect| effect.starts_with("unassign")) {
            break;
        }
        if effects.iter().any(|effect| effect.starts_with("flush")) {
            story.fault(0, Call::Flush, Disposition::Abortable);
            effects = story.aborted(0);
        } else {
            effects = story.after(20, Input::Tick);
        }
    }
    assert_lets_go(&effects);
    assert!(story.now.as_millis() <= u128::from(1_000 + CLOSE_MS + 20), "{:?}", story.now);
}

/// The message may end its process after a while: a rebalance in between must not hide that.
#[test]
fn an_owner_that_leaves_a_message_to_the_next_does_not_end_the_row_of_deaths() {
    let mut second = at_the_first(1, &silent());
    assert_eq!(metadata(&second).takeovers, 1);
    let left = give_back(&mut second);
    assert_eq!((left.released, left.takeovers), (true, 1));
    // Nor does one that had it only for a moment.
    let mut third = Story::taking_up(process(3), &left, 10);
    third.tell(Input::Revoked(vec![P]));
    assert_lets_go(&commits(&mut third).1);
    let left = metadata(&third);
    assert_eq!((left.released, left.takeovers), (true, 1));
    // The fourth takes it up, and ends without a word.
    let fourth = at_the_first(4, &left);
    assert_eq!(metadata(&fourth).takeovers, 1);
    let mut fifth = Story::taking_up(process(5), &metadata(&fourth), 10);
    assert_eq!(commits(&mut fifth).0, "1 0@0 takeovers 2 careful 10");
}

/// Nothing that it began has ended it.
#[test]
fn an_owner_whose_handlers_have_all_ended_ends_the_row_of_deaths() {
    let mut second = at_the_first(1, &silent());
    second.failed(0);
    second.tell(Input::Revoked(vec![P]));
    commits(&mut second);
    let left = metadata(&second);
    assert_eq!((left.released, left.takeovers), (true, 0));
}

/// A handler that ends just in time has its result committed.
#[test]
fn a_last_commit_has_its_own_time() {
    let mut story = at_work();
    story.tell(Input::Revoked(vec![P]));
    story.after(LEAVE_MS - 1, Input::Tick);
    assert_eq!(story.finished(0, 1), ["send 0 #2 0", "flush 0"]);
    assert_eq!(story.after(1, Input::Tick), NOTHING, "its transaction is not given up");
    story.slot(0, SlotEvent::Flushed { outputs: Vec::new() });
    assert_lets_go(&story.committed(0));
    assert_eq!((story.sent[0].offset, metadata(&story).released), (1, true));
}
