//! How a message that ends its process is found, told event by event.

#![expect(clippy::unwrap_used, reason = "a test that panics has failed")]

mod story;

use std::collections::VecDeque;

use countersign_statemachine::worker::{
    Call, Effect, Failure, FailureKind, Input, Intervention, SlotEvent, StopReason,
};
use countersign_statemachine::{
    Author, CommitMetadata, Disposition, GiveUp, Order, Reason, Settings, Span, Trial, Verb,
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
    let released = CommitMetadata { released: true, ..former() };
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

/// Where the trial of message 0 is when an operator decides about that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Admitting,
    Asked,
    Announcing,
    /// The transaction that should announce it is aborted before it sends its offsets.
    Aborting,
    /// The producer is made anew.
    Renewing,
    Committing,
    InDoubt,
    Running,
    Failed,
}

const TRIAL: [At; 9] = [
    At::Admitting,
    At::Asked,
    At::Announcing,
    At::Aborting,
    At::Renewing,
    At::Committing,
    At::InDoubt,
    At::Running,
    At::Failed,
];

/// A worker in the middle of a trial, and what it waits for.
fn trying(settings: Settings, at: At, deaths: u32) -> (Story, Vec<String>) {
    let mut story = careful(settings, (deaths > 0).then(|| died(0, deaths)));
    if at == At::Admitting {
        return (story, vec!["write 1".to_owned()]);
    }
    let asked = story.tell(Input::Stored { write: 1 });
    assert_eq!(asked, ["ask solo"]);
    if at == At::Renewing {
        story.tell(Input::Outdated);
    }
    let flush = if at == At::Asked { asked } else { story.tell(Input::Solo) };
    let waits = match at {
        At::Admitting | At::Asked | At::Announcing => flush,
        At::Aborting => story.fault(0, Call::Flush, Disposition::Abortable),
        At::Renewing => vec!["open 0".to_owned(), "open 1".to_owned()],
        At::Committing => story.flushed(0),
        At::InDoubt => {
            story.flushed(0);
            story.fault(0, Call::Commit, Disposition::Retriable)
        }
        At::Running | At::Failed => {
            let effects = commits(&mut story).1;
            assert_eq!(effects.last().unwrap(), "handle 0 attempt 0 solo");
            Vec::new()
        }
    };
    if at != At::Failed {
        return (story, waits);
    }
    let failure = Failure::new(Reason::Error, FailureKind::Retryable, "no");
    let failed = Input::Failed { partition: P, epoch: 1, lane: 0, offset: 0, failure };
    let waits = story.tell(failed);
    (story, waits)
}

/// Whatever is asked for is done, and handlers succeed, until all ten messages are done.
fn done(story: &mut Story, waits: Vec<String>) -> Vec<String> {
    let (mut seen, mut next) = (Vec::new(), VecDeque::from(waits));
    for _ in 0..1_000 {
        let Some(effect) = next.pop_front() else {
            if story.worker.positions().all(|(_, position)| position == 10) {
                return seen;
            }
            next.extend(story.after(20, Input::Tick));
            continue;
        };
        let words: Vec<&str> = effect.split([' ', ',', '#']).collect();
        let number = |nth: usize| words[nth].parse::<u64>().unwrap();
        let slot = || u32::try_from(number(1)).unwrap();
        next.extend(match words[0] {
            "write" => story.tell(Input::Stored { write: number(1) }),
            "open" => story.slot(slot(), SlotEvent::Opened),
            "flush" => story.flushed(slot()),
            "commit" => story.committed(slot()),
            "abort" => story.aborted(slot()),
            "read" => story.commits(words.last().unwrap().parse().unwrap(), true),
            "ask" => story.tell(Input::Solo),
            "handle" => {
                let lane = number(1);
                let spans = vec![Span::one(lane)];
                story.tell(Input::Finished { partition: P, epoch: 1, lane, spans })
            }
            "cancel" => story.tell(Input::Yielded { partition: P, epoch: 1, lane: number(1) }),
            _ => Vec::new(),
        });
        seen.push(effect);
    }
    panic!("there is no end to it: {seen:?}");
}

/// Its answer comes once, the trial ends, and the others are tried and handled.
#[test]
fn an_operator_may_decide_about_a_message_at_any_moment_of_its_trial() {
    for (at, verb, deaths, slots) in every_trial() {
        let what = format!("{verb} {at:?} after {deaths} deaths, {slots} slots");
        let one_message_each = Settings { slots, handle_records: 1, ..letters() };
        let (mut story, mut waits) = trying(one_message_each, at, deaths);
        let (by, reason) = ("ann".to_owned(), "it is in the way".to_owned());
        let order = Intervention { id: 7, offset: 0, verb, by, reason };
        waits.extend(story.tell(Input::Intervene(P, order)));
        let seen = done(&mut story, waits);
        let answers: Vec<_> = seen.iter().filter(|it| it.starts_with("answer")).collect();
        assert_eq!(answers, ["answer 7 done"], "{what}: {seen:?}");
        let handled = seen.iter().any(|effect| effect.starts_with("handle 0 "));
        assert_eq!(handled, verb == Verb::Retry, "{what}: {seen:?}");
        let tried = |it: &&String| it.ends_with("solo") && it.starts_with("handle");
        let tried = seen.iter().filter(tried).count();
        assert_eq!(tried, 2 + usize::from(handled), "{what}: {seen:?}");
    }
}

fn every_trial() -> Vec<(At, Verb, u32, u32)> {
    let mut every = Vec::new();
    for at in TRIAL {
        for verb in Verb::ALL {
            every.extend([(0, 1), (0, 2), (2, 1), (2, 2)].map(|(d, slots)| (at, verb, d, slots)));
        }
    }
    every
}
