//! How a message that ends its process is found, told event by event.

#![expect(clippy::unwrap_used, reason = "a test that panics has failed")]

mod story;

use countersign_statemachine::worker::{Call, Effect, Failure, FailureKind, Input, StopReason};
use countersign_statemachine::{
    Author, CommitMetadata, Disposition, GiveUp, Order, Reason, Settings, Span, Trial,
};
use story::{NOTHING, P, Story, settings, span};

/// What a former process wrote at offset 0.
fn former() -> CommitMetadata {
    let author = Author { instance: "w9".to_owned(), incarnation: 9 << 40, number: 1 };
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

fn letters() -> Settings {
    let order = Order::None;
    Settings { order, give_up: GiveUp::DeadLetter, takeover_records: 3, ..settings(1) }
}

/// It has been found that messages below 3 may be to blame, and so far none is.
fn careful(settings: Settings, trial: impl Into<Option<Trial>>) -> Story {
    let trial = trial.into();
    let metadata = CommitMetadata { takeovers: 1, trial, careful: Some(3), ..former() };
    let mut story = Story::taking_up(settings, &metadata, 10);
    story.flushed(0);
    story.committed(0);
    story.received(0, 10);
    story
}

fn died(offset: u64, deliveries: u32) -> Trial {
    Trial { offset, deliveries, announced: true }
}

fn handled(effects: &[String]) -> Vec<&String> {
    effects.iter().filter(|effect| effect.starts_with("handle")).collect()
}

/// The transaction that is open is committed; what it says.
fn commits(story: &mut Story) -> (String, Vec<String>) {
    let mut effects = story.flushed(0);
    let commit = effects.iter().find(|effect| effect.starts_with("commit")).unwrap().clone();
    effects.extend(story.committed(0));
    (commit.split_once(' ').unwrap().1.split_once('#').unwrap().1.to_owned(), effects)
}

#[test]
fn an_unclean_takeover_is_counted_before_the_first_handler() {
    let mut story = Story::taking_up(letters(), &former(), 10);
    let effects = story.received(0, 10);
    assert!(effects.contains(&"write 1, 0..=2 Start".to_owned()), "few at first: {effects:?}");
    assert_eq!(
        handled(&story.tell(Input::Stored { write: 1 })),
        NOTHING.iter().collect::<Vec<_>>()
    );
    let (commit, effects) = commits(&mut story);
    assert_eq!(commit, "1 0@0 takeovers 1");
    assert_eq!(handled(&effects).len(), 3);
}

#[test]
fn after_a_takeover_more_are_under_way_with_each_commit() {
    let mut story = Story::taking_up(letters(), &former(), 10);
    story.received(0, 10);
    story.tell(Input::Stored { write: 1 });
    commits(&mut story);
    for offset in 0..3 {
        let (lane, spans) = (offset, vec![Span::one(offset)]);
        story.tell(Input::Finished { partition: P, epoch: 1, lane, spans });
    }
    story.after(200, Input::Tick);
    let (commit, mut effects) = commits(&mut story);
    assert_eq!(commit, "2 0@2", "the position has moved");
    effects.extend(story.after(200, Input::Tick));
    effects.extend(story.tell(Input::Stored { write: 2 }));
    let admitted = effects.iter().any(|effect| effect.contains("3..=7 Start"));
    assert!(admitted, "six, of which one is to be committed: {effects:?}");
}

#[test]
fn who_was_let_go_in_good_order_counts_for_nothing() {
    let released = CommitMetadata { released: true, takeovers: 1, ..former() };
    let mut story = Story::taking_up(letters(), &released, 10);
    story.received(0, 10);
    let effects = story.tell(Input::Stored { write: 1 });
    assert_eq!(handled(&effects), NOTHING.iter().collect::<Vec<_>>());
    let (commit, effects) = commits(&mut story);
    assert_eq!(commit, "1 0@0", "whoever finds it from now on knows that somebody has tried");
    assert_eq!(handled(&effects).len(), 4, "as many as may");
}

#[test]
fn one_message_after_another_is_announced_and_handled_solo() {
    let mut story = careful(letters(), None);
    assert_eq!(story.tell(Input::Stored { write: 1 }), ["ask solo"]);
    assert_eq!(story.tell(Input::Solo), ["flush 0"]);
    let (commit, effects) = commits(&mut story);
    assert_eq!(commit, "2 0@0 takeovers 2 careful 3 trying 0 1");
    assert_eq!(effects.last().unwrap(), "handle 0 attempt 0 solo");
    let effects = story.finished(0, 1);
    assert_eq!(effects, ["send 0 #3 0", "flush 0"], "nothing is waited for");
    let (commit, effects) = commits(&mut story);
    assert_eq!(commit, "3 0@1 careful 3");
    let tail: Vec<&str> = effects.iter().rev().take(2).map(String::as_str).collect();
    assert!(tail.contains(&"end solo") || effects.contains(&"end solo".to_owned()), "{effects:?}");
    assert!(effects.contains(&"ask solo".to_owned()), "for the next one: {effects:?}");
    assert_eq!(handled(&effects), NOTHING.iter().collect::<Vec<_>>());
}

/// Tries the next message, to the end of its handler.
fn tries(story: &mut Story, offset: u64) -> String {
    story.tell(Input::Solo);
    let (announced, effects) = commits(story);
    assert_eq!(handled(&effects), [&format!("handle {offset} attempt 0 solo")]);
    let (lane, spans) = (offset, vec![Span::one(offset)]);
    story.tell(Input::Finished { partition: P, epoch: 1, lane, spans });
    announced
}

#[test]
fn once_all_of_them_are_done_everything_is_handled_again() {
    let mut story = careful(letters(), None);
    story.tell(Input::Stored { write: 1 });
    let mut effects = Vec::new();
    for offset in 0..3 {
        tries(&mut story, offset);
        effects = commits(&mut story).1;
    }
    assert!(!effects.contains(&"ask solo".to_owned()), "{effects:?}");
    for write in 2..6 {
        effects.extend(story.tell(Input::Stored { write }));
        effects.extend(story.after(200, Input::Tick));
    }
    assert_eq!(handled(&effects).len(), 3, "few at first: {effects:?}");
}

#[test]
fn an_announcement_that_nobody_took_back_is_one_delivery_more() {
    let mut story = careful(letters(), died(1, 1));
    assert_eq!(story.tell(Input::Stored { write: 1 }), ["ask solo"]);
    assert_eq!(tries(&mut story, 1), "2 0@0 takeovers 2 careful 3 trying 1 2");
    assert_eq!(commits(&mut story).0, "3 0@0 takeovers 2 careful 3", "it is done");
}

#[test]
fn after_so_many_deliveries_it_is_a_poison_pill() {
    let mut story = careful(letters(), died(1, 3));
    let effects = story.tell(Input::Stored { write: 1 });
    assert!(effects.contains(&"dead letter 1 attempts 0 PoisonPill".to_owned()), "{effects:?}");
    assert_eq!(handled(&effects), NOTHING.iter().collect::<Vec<_>>());
    story.after(200, Input::Tick);
    assert_eq!(commits(&mut story).0, "2 0@0 takeovers 2 careful 3");
    let metadata = CommitMetadata::decode(0, &story.sent[0].metadata).unwrap();
    assert_eq!(metadata.completed, [span(1, 2)], "passed in the transaction of its letter");
}

/// One of them may end the process, too: then all would be as before.
#[test]
fn others_wait_until_the_letter_of_the_last_one_is_committed() {
    let (trial, careful) = (Some(died(0, 3)), Some(1));
    let metadata = CommitMetadata { takeovers: 2, trial, careful, ..former() };
    let mut story = Story::taking_up(letters(), &metadata, 10);
    commits(&mut story);
    story.received(0, 10);
    let mut effects = story.tell(Input::Stored { write: 1 });
    assert!(effects.contains(&"dead letter 0 attempts 0 PoisonPill".to_owned()), "{effects:?}");
    effects.extend(story.after(200, Input::Tick));
    effects.extend(story.tell(Input::Stored { write: 9 }));
    assert_eq!(handled(&effects), NOTHING.iter().collect::<Vec<_>>());
    let (commit, mut effects) = commits(&mut story);
    assert_eq!(commit, "2 0@1");
    effects.extend(story.tell(Input::Stored { write: 19 }));
    assert!(!handled(&effects).is_empty(), "{effects:?}");
}

#[test]
fn without_dead_letters_a_poison_pill_stops_the_worker() {
    let settings = Settings { give_up: GiveUp::Stop, ..letters() };
    let mut story = careful(settings, died(1, 3));
    story.worker.handle(Input::Stored { write: 1 }, story.now);
    let mut stop = None;
    while let Some(effect) = story.worker.poll_effect() {
        if let Effect::Stop(Err(reason)) = effect {
            stop = Some(reason);
        }
    }
    assert_eq!(stop, Some(StopReason::PoisonPill { partition: P, offset: 1, deliveries: 3 }));
}

#[test]
fn a_failure_takes_the_announcement_back_and_the_others_are_tried_meanwhile() {
    let mut story = careful(letters(), died(0, 2));
    story.tell(Input::Stored { write: 1 });
    story.tell(Input::Solo);
    assert_eq!(commits(&mut story).0, "2 0@0 takeovers 2 careful 3 trying 0 3");
    let (reason, kind) = (Reason::Error, FailureKind::Retryable);
    let failure = Failure::new(reason, kind, "no");
    story.tell(Input::Failed { partition: P, epoch: 1, lane: 0, offset: 0, failure });
    let (commit, effects) = commits(&mut story);
    assert_eq!(commit, "3 0@0 takeovers 2 careful 3 tried 0 2");
    assert!(effects.contains(&"end solo".to_owned()), "{effects:?}");
    assert_eq!(tries(&mut story, 1), "4 0@0 takeovers 2 careful 3 trying 1 1");
}

#[test]
fn an_aborted_announcement_is_made_again_and_not_counted() {
    let mut story = careful(letters(), None);
    story.tell(Input::Stored { write: 1 });
    story.tell(Input::Solo);
    story.flushed(0);
    story.fault(0, Call::SendOffsets, Disposition::Abortable);
    let effects = story.aborted(0);
    assert!(effects.contains(&"end solo".to_owned()), "{effects:?}");
    assert_eq!(effects.last().unwrap(), "ask solo");
    story.after(500, Input::Tick);
    story.tell(Input::Solo);
    let commit = commits(&mut story).0;
    assert!(commit.ends_with("trying 0 1"), "{commit}");
}

/// A rebalance must not count, even if the handler takes longer than it may.
#[test]
fn an_announcement_is_taken_back_when_the_partition_is_to_be_let_go() {
    let mut story = careful(letters(), None);
    story.tell(Input::Stored { write: 1 });
    story.tell(Input::Solo);
    commits(&mut story);
    story.tell(Input::Revoked(vec![P]));
    let (commit, effects) = commits(&mut story);
    assert_eq!(commit, "3 0@0 takeovers 2 careful 3");
    assert!(!effects.contains(&"end solo".to_owned()), "its handler still runs: {effects:?}");
    let effects = story.after(2_000, Input::Tick);
    assert!(effects.contains(&"end solo".to_owned()), "{effects:?}");
}

#[test]
fn what_it_finishes_while_it_is_let_go_is_committed() {
    let mut story = careful(letters(), None);
    story.tell(Input::Stored { write: 1 });
    story.tell(Input::Solo);
    commits(&mut story);
    story.tell(Input::Revoked(vec![P]));
    commits(&mut story);
    story.finished(0, 1);
    let (commit, effects) = commits(&mut story);
    assert_eq!(commit, "4 0@1 released careful 3");
    assert!(effects.contains(&"unassign 1".to_owned()), "{effects:?}");
}

/// A handler without end must not keep all others from being handled.
#[test]
fn a_solo_is_not_waited_for_without_end() {
    let mut story = careful(letters(), None);
    assert_eq!(story.tell(Input::Stored { write: 1 }), ["ask solo"]);
    assert_eq!(story.after(1_000, Input::Tick), ["end solo"]);
    assert_eq!(story.after(900, Input::Tick), NOTHING);
    assert_eq!(story.after(200, Input::Tick), ["ask solo"]);
    assert_eq!(story.after(1_900, Input::Tick), NOTHING, "twice as long");
    assert_eq!(story.after(200, Input::Tick), ["end solo"]);
}

/// Messages that wait for a retry may wait for hours.
#[test]
fn others_are_handled_while_the_last_of_them_waits_for_its_retry() {
    let mut story = careful(letters(), None);
    story.tell(Input::Stored { write: 1 });
    story.tell(Input::Solo);
    commits(&mut story);
    let (reason, kind) = (Reason::Error, FailureKind::Retryable);
    let failure = Failure::new(reason, kind, "no");
    story.tell(Input::Failed { partition: P, epoch: 1, lane: 0, offset: 0, failure });
    commits(&mut story);
    for offset in 1..3 {
        tries(&mut story, offset);
        commits(&mut story);
    }
    let mut effects = story.tell(Input::Stored { write: 2 });
    effects.extend(story.tell(Input::Stored { write: 3 }));
    assert!(!handled(&effects).is_empty(), "{effects:?}");
}
