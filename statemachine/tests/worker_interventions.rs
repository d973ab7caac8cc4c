//! Goal: what an operator orders about a message is done once, and answered when it is done.
//! Method: a worker with one partition, told event by event, with an order at each place where a
//! message can be.

#![expect(clippy::unwrap_used, reason = "a test that panics has failed")]

mod story;

use std::time::Duration;

use countersign_statemachine::worker::{
    Call, Commit, Effect, Failure, FailureKind, Input, Intervention, Label, Refusal, SlotEvent,
};
use countersign_statemachine::{
    Author, Backoff, BreakerAction, BreakerSettings, CommitMetadata, Disposition, Entry, GiveUp,
    Note, Order, Reason, RetryPolicy, Settings, Verb,
};
use story::{NOTHING, P, Story, settings, span};

const ID: u64 = 7;

fn letters() -> Settings {
    Settings { give_up: GiveUp::DeadLetter, ..settings(1) }
}

/// Each message is a lane, and one of them runs at a time.
fn one_at_a_time() -> Settings {
    Settings { order: Order::None, concurrency: 1, handle_records: 1, ..letters() }
}

/// Messages `0..n` are signed in, and as many are handled as may be.
fn begun(n: u64, settings: Settings) -> (Story, Vec<String>) {
    let mut story = Story::owning_with(settings);
    story.received(0, n);
    let effects = story.tell(Input::Stored { write: 1 });
    (story, effects)
}

fn order(story: &mut Story, verb: Verb, offset: u64) -> Vec<String> {
    order_as(story, ID, verb, offset)
}

fn order_as(story: &mut Story, id: u64, verb: Verb, offset: u64) -> Vec<String> {
    let (by, reason) = ("ann@desk".to_owned(), "it is in the way".to_owned());
    story.tell(Input::Intervene(P, Intervention { id, offset, verb, by, reason }))
}

fn yielded(story: &mut Story, lane: u64) -> Vec<String> {
    story.tell(Input::Yielded { partition: P, epoch: 1, lane })
}

fn finished(story: &mut Story, lane: u64) -> Vec<String> {
    let spans = vec![span(lane, lane + 1)];
    story.tell(Input::Finished { partition: P, epoch: 1, lane, spans })
}

fn failed(story: &mut Story, lane: u64, kind: FailureKind) -> Vec<String> {
    let failure = Failure::new(Reason::Error, kind, "no");
    story.tell(Input::Failed { partition: P, epoch: 1, lane, offset: lane, failure })
}

/// Kafka and the store do what they are asked for, in order, until they are asked for `until`;
/// that is not done.
fn drive(story: &mut Story, effects: Vec<String>, until: &str) -> Vec<String> {
    let (mut seen, mut next, mut is_there) = (Vec::new(), effects, false);
    for _ in 0..20 {
        while !next.is_empty() {
            let effect = next.remove(0);
            let is_wanted = effect.starts_with(until);
            is_there |= is_wanted;
            let answer = match effect.split([' ', ',']).next().unwrap() {
                "write" => Some(Input::Stored { write: 1_000 }),
                "flush" => Some(Input::Slot(0, SlotEvent::Flushed { outputs: Vec::new() })),
                "commit" => Some(Input::Slot(0, SlotEvent::Committed { suspicious: false })),
                _ => None,
            };
            seen.push(effect);
            let answer = answer.filter(|_| !is_wanted);
            next.extend(answer.into_iter().flat_map(|answer| story.tell(answer)));
        }
        if is_there {
            return seen;
        }
        next = story.after(200, Input::Tick);
    }
    assert_eq!(until, NEVER, "it does not come: {seen:?}");
    seen
}

const NEVER: &str = "never";

fn settle(story: &mut Story, effects: Vec<String>) -> Vec<String> {
    drive(story, effects, NEVER)
}

fn metadata(story: &Story) -> CommitMetadata {
    let sent = &story.sent[0];
    CommitMetadata::decode(sent.offset, &sent.metadata).unwrap()
}

fn has(effects: &[String], wanted: &str) -> bool {
    effects.iter().any(|effect| effect == wanted)
}

fn answers(effects: &[String]) -> Vec<&str> {
    effects.iter().filter(|it| it.starts_with("answer")).map(String::as_str).collect()
}

/// The only message has failed, and that is committed; it waits for its retry.
fn waiting(settings: Settings) -> Story {
    let backoff = Backoff { base: Duration::from_secs(60), jitter: 0.0, ..Backoff::default() };
    let (mut story, _) = begun(
        1,
        Settings { retry: RetryPolicy { backoff, ..settings.retry.default }.into(), ..settings },
    );
    let effects = story.failed(0);
    settle(&mut story, effects);
    assert_eq!(metadata(&story).attempts, [(0, 1)]);
    story
}

#[test]
fn a_message_that_waits_is_passed_over_at_once_and_answered_when_it_is_committed() {
    let mut story = waiting(settings(1));
    let effects = order(&mut story, Verb::Skip, 0);
    let effects = drive(&mut story, effects, "commit");
    assert!(has(&effects, "skip 0") && has(&effects, "send 0 #2 0"), "{effects:?}");
    assert_eq!(answers(&effects), NOTHING, "not before it is committed");
    assert_eq!((story.sent[0].offset, metadata(&story).attempts), (1, vec![]));
    let effects = story.committed(0);
    assert_eq!(answers(&effects), NOTHING, "not before it is recorded");
    let written = effects.join("; ");
    assert!(written.contains("0 Committed(Skipped)"), "{written}");
    assert_eq!(answers(&settle(&mut story, effects)), ["answer 7 done"]);
    let counts = story.worker.counts();
    assert_eq!((counts.skipped, counts.interventions, counts.failures), (1, 1, 1));
}

#[test]
fn the_store_is_told_who_ordered_it_and_why() {
    let mut story = waiting(settings(1));
    let (by, reason) = ("ann@desk".to_owned(), "it is in the way".to_owned());
    let note = Note::Operator { by: by.clone(), reason: reason.clone() };
    let order = Intervention { id: ID, offset: 0, verb: Verb::Skip, by, reason };
    story.worker.handle(Input::Intervene(P, order), story.now);
    let mut noted = Vec::new();
    story.worker.handle(Input::Stored { write: 1_000 }, story.now);
    while let Some(effect) = story.worker.poll_effect() {
        if let Effect::Write { entries, .. } = effect {
            noted.extend(entries);
        }
    }
    let notes = |entry: &Entry| match entry {
        Entry::Moved(moved) => moved.note == note,
        Entry::Transaction(_) => false,
    };
    assert_eq!(noted.iter().filter(|entry| notes(entry)).count(), 1, "{noted:?}");
}

#[test]
fn a_retry_is_due_at_once_and_its_attempts_are_counted_anew() {
    let policy = RetryPolicy { attempts: Some(2), ..RetryPolicy::default() };
    let mut story = waiting(Settings { retry: policy.into(), ..letters() });
    let effects = order(&mut story, Verb::Retry, 0);
    assert!(!effects.iter().any(|it| it.starts_with("handle")), "its start is not flushed");
    let effects = story.tell(Input::Stored { write: 1_000 });
    assert!(has(&effects, "handle 0 attempt 0"), "{effects:?}");
    assert_eq!(answers(&effects), ["answer 7 done"]);
    let effects = story.failed(0);
    assert!(!has(&effects, "dead letter 0 attempts 2 AttemptsUsedUp"), "{effects:?}");
    // The next owner counts anew as well.
    settle(&mut story, effects);
    assert_eq!(metadata(&story).attempts, [(0, 1)]);
}

#[test]
fn a_dead_letter_has_the_operators_words() {
    let mut story = waiting(letters());
    let effects = order(&mut story, Verb::DeadLetter, 0);
    assert!(has(&effects, "dead letter 0 attempts 1 Operator"), "{effects:?}");
    let effects = settle(&mut story, effects);
    assert_eq!(answers(&effects), ["answer 7 done"]);
    assert!(effects.join("; ").contains("Committed(DeadLettered)"), "{effects:?}");
    assert_eq!(story.worker.counts().dead_letters, 1);
}

#[test]
fn without_a_topic_for_them_no_dead_letter_can_be_ordered() {
    let mut story = waiting(settings(1));
    assert_eq!(order(&mut story, Verb::DeadLetter, 0), ["answer 7 NoLetters"]);
}

/// The message waits as before, and the processor lives.
#[test]
fn a_dead_letter_that_kafka_refuses_is_told_and_the_message_waits_again() {
    let mut story = waiting(letters());
    let effects = order(&mut story, Verb::DeadLetter, 0);
    drive(&mut story, effects, "flush");
    let (call, disposition) = (Call::Flush, Disposition::Abortable);
    let (refusal, message) = (Some(Refusal::Of(vec![(P, 0)])), "too large".to_owned());
    story.slot(0, SlotEvent::Failed { call, disposition, refusal, message });
    let effects = story.aborted(0);
    assert_eq!(answers(&effects), ["answer 7 LetterRefused(\"too large\")"]);
    assert!(!effects.iter().any(|it| it.starts_with("stop")), "{effects:?}");
    let effects = story.after(60_000, Input::Tick);
    let effects = settle(&mut story, effects);
    assert!(effects.iter().any(|it| it.starts_with("handle 0")), "{effects:?}");
    assert_eq!(story.worker.counts().dead_letters, 0);
}

/// Its handler may have begun and ended before the order is recorded.
#[test]
fn what_is_ordered_to_be_tried_is_judged_once_it_is_tried() {
    let (mut story, _) = begun(2, one_at_a_time());
    let mut effects = order(&mut story, Verb::Retry, 1);
    effects.extend(finished(&mut story, 0));
    assert!(has(&effects, "handle 1 attempt 0"), "{effects:?}");
    effects.extend(failed(&mut story, 1, FailureKind::Retryable));
    assert_eq!(story.worker.counts().failures, 1);
    let effects = drive(&mut story, effects, "answer");
    assert_eq!(answers(&effects), ["answer 7 done"]);
    assert_eq!(metadata(&story).attempts, [(1, 1)]);
}

#[test]
fn a_hung_handler_is_cancelled_before_its_message_is_passed_over() {
    let (mut story, effects) = begun(3, one_at_a_time());
    assert_eq!(effects, ["handle 0 attempt 0"]);
    assert_eq!(order(&mut story, Verb::Skip, 0), ["cancel 0"]);
    let effects = yielded(&mut story, 0);
    assert!(has(&effects, "skip 0") && has(&effects, "handle 1 attempt 0"), "{effects:?}");
    let effects = [effects, finished(&mut story, 1)].concat();
    assert_eq!(answers(&settle(&mut story, effects)), ["answer 7 done"]);
}

#[test]
fn a_hung_handler_is_cancelled_and_begun_again_by_a_retry() {
    let (mut story, _) = begun(1, one_at_a_time());
    assert_eq!(order(&mut story, Verb::Retry, 0), ["cancel 0"]);
    let effects = yielded(&mut story, 0);
    let written = effects.join("; ");
    let moves = "0 RolledBack(Aborted), 0 Again, 0 Start";
    assert!(written.contains(moves), "{written}");
    let effects = story.tell(Input::Stored { write: 1_000 });
    assert!(has(&effects, "handle 0 attempt 0"), "{effects:?}");
    assert_eq!(answers(&effects), ["answer 7 done"]);
}

#[test]
fn a_handler_that_ends_before_it_is_cancelled_has_done_its_work() {
    let (mut story, _) = begun(1, one_at_a_time());
    order(&mut story, Verb::Skip, 0);
    let effects = finished(&mut story, 0);
    assert_eq!(answers(&effects), ["answer 7 BeingCommitted"]);
    assert!(has(&effects, "send 0 #1 0"), "its outputs: {effects:?}");
}

/// Whatever the failure is: a fatal one would end the processor.
#[test]
fn a_handler_that_fails_before_it_is_cancelled_is_not_judged() {
    let (mut story, _) = begun(1, one_at_a_time());
    order(&mut story, Verb::Skip, 0);
    let effects = failed(&mut story, 0, FailureKind::Fatal);
    assert!(has(&effects, "skip 0"), "{effects:?}");
    assert_eq!(story.worker.counts().failures, 0);
    assert_eq!(answers(&settle(&mut story, effects)), ["answer 7 done"]);
}

#[test]
fn what_is_not_begun_is_concluded_without_its_handler() {
    for verb in [Verb::Skip, Verb::DeadLetter] {
        let (mut story, _) = begun(2, one_at_a_time());
        let effects = order(&mut story, verb, 1);
        assert!(!effects.iter().any(|it| it.starts_with("cancel")), "{effects:?}");
        let effects = [effects, finished(&mut story, 0)].concat();
        let effects = settle(&mut story, effects);
        assert!(!effects.iter().any(|it| it.starts_with("handle")), "{effects:?}");
        assert_eq!(answers(&effects), ["answer 7 done"], "{verb}");
        assert_eq!(story.sent[0].offset, 2);
    }
}

#[test]
fn what_is_not_admitted_is_concluded_where_it_waits() {
    // One lane: the failed message keeps the others from being admitted.
    let mut story = waiting(settings(1));
    story.received(1, 3);
    let effects = order(&mut story, Verb::Skip, 2);
    assert!(has(&effects, "skip 2"), "{effects:?}");
    let effects = settle(&mut story, effects);
    assert!(!effects.iter().any(|it| it.starts_with("send")), "its lane is not there yet");
    let effects = order_as(&mut story, 8, Verb::Skip, 0);
    let effects = settle(&mut story, effects);
    assert!(has(&effects, "handle 1 attempt 0"), "{effects:?}");
    assert_eq!(answers(&effects), ["answer 8 done"]);
    let effects = story.finished(1, 2);
    assert_eq!(answers(&settle(&mut story, effects)), ["answer 7 done"]);
    assert_eq!(story.sent[0].offset, 3);
}

#[test]
fn a_message_beyond_the_position_is_listed_as_completed() {
    let (mut story, _) = begun(3, one_at_a_time());
    let effects = order(&mut story, Verb::Skip, 2);
    assert_eq!(answers(&settle(&mut story, effects)), ["answer 7 done"]);
    assert_eq!(story.sent[0].offset, 0);
    assert_eq!(metadata(&story).completed, [span(2, 3)]);
    let effects = order_as(&mut story, 8, Verb::Skip, 2);
    assert_eq!(answers(&effects), ["answer 8 Done"]);
}

#[test]
fn what_is_on_its_way_or_done_is_refused() {
    let mut story = Story::handling(1, 4);
    story.finished(0, 1);
    assert_eq!(order(&mut story, Verb::Skip, 0), ["answer 7 BeingCommitted"]);
    story.finished(1, 2);
    story.flushed(0);
    assert_eq!(order(&mut story, Verb::Retry, 1), ["answer 7 BeingCommitted"]);
    story.committed(0);
    assert_eq!(answers(&order(&mut story, Verb::Skip, 1)), ["answer 7 Done"]);
}

#[test]
fn what_is_not_there_is_refused() {
    let (mut story, _) = begun(2, settings(1));
    let (spans, keys) = (vec![span(3, 4)], Vec::new());
    story.tell(Input::Received { partition: P, epoch: 1, spans, keys });
    assert_eq!(order(&mut story, Verb::Skip, 2), ["answer 7 NoMessage"]);
    assert_eq!(order(&mut story, Verb::Skip, 9), ["answer 7 NotRead { next: 4 }"]);
}

#[test]
fn a_second_order_for_a_message_is_refused() {
    let (mut story, _) = begun(1, one_at_a_time());
    order(&mut story, Verb::Skip, 0);
    assert_eq!(order_as(&mut story, 8, Verb::Retry, 0), ["answer 8 UnderWay"]);
}

#[test]
fn partitions_that_are_not_owned_are_refused() {
    let mut story = Story::new(settings(1));
    assert_eq!(order(&mut story, Verb::Skip, 0), ["answer 7 NotOwned"]);
    story.slot(0, SlotEvent::Opened);
    story.tell(Input::Assigned(vec![P]));
    assert_eq!(order(&mut story, Verb::Skip, 0), ["answer 7 TakingUp"]);
    story.recovered(Some(Commit { offset: 0, label: Label::Foreign(String::new()) }));
    let effects = story.received(0, 2);
    settle(&mut story, effects);
    story.tell(Input::Revoked(vec![P]));
    assert_eq!(order(&mut story, Verb::Skip, 0), ["answer 7 LettingGo"]);
}

#[test]
fn an_abort_sends_it_again() {
    let mut story = waiting(settings(1));
    let effects = order(&mut story, Verb::Skip, 0);
    drive(&mut story, effects, "flush");
    story.fault(0, Call::Flush, Disposition::Retriable);
    let effects = story.aborted(0);
    let effects = settle(&mut story, effects);
    assert!(has(&effects, "send 0 #3 0"), "{effects:?}");
    assert_eq!(answers(&effects), ["answer 7 done"]);
}

#[test]
fn a_doubt_is_settled_before_it_is_answered() {
    for arrived in [true, false] {
        let mut story = waiting(settings(1));
        let effects = order(&mut story, Verb::Skip, 0);
        drive(&mut story, effects, "commit");
        story.fault(0, Call::Commit, Disposition::Retriable);
        story.slot(0, SlotEvent::Opened);
        let effects = story.commits(2, arrived);
        let effects = settle(&mut story, effects);
        assert_eq!(has(&effects, "send 0 #3 0"), !arrived, "{effects:?}");
        assert_eq!(answers(&effects), ["answer 7 done"]);
    }
}

#[test]
fn a_partition_that_is_revoked_commits_it_first_and_one_that_is_lost_does_not() {
    let mut story = waiting(settings(1));
    let effects = order(&mut story, Verb::Skip, 0);
    let effects = [effects, story.tell(Input::Revoked(vec![P]))].concat();
    assert_eq!(answers(&settle(&mut story, effects)), ["answer 7 done"]);

    let mut story = waiting(settings(1));
    let effects = order(&mut story, Verb::Skip, 0);
    drive(&mut story, effects, "flush");
    let effects = story.tell(Input::Lost(vec![P]));
    let effects = [effects, story.aborted(0)].concat();
    assert_eq!(answers(&settle(&mut story, effects)), ["answer 7 Moved"]);
}

#[test]
fn a_worker_that_stops_answers_for_what_it_leaves() {
    let (mut story, _) = begun(2, one_at_a_time());
    order(&mut story, Verb::Skip, 1);
    let effects = failed(&mut story, 0, FailureKind::Fatal);
    assert_eq!(answers(&effects), ["answer 7 Stopped"]);
    assert_eq!(effects.last().unwrap(), "stop ok=false", "nothing follows the end");
}

fn open_breaker() -> Story {
    let base = Duration::from_secs(60);
    let probe = Backoff { base, factor: 2.0, max: base, jitter: 0.0 };
    let action = BreakerAction::Probe;
    let breaker = BreakerSettings { row: 3, share: 1.0, window: 100, probe, action };
    let limits = Settings { breaker: Some(breaker), concurrency: 4, ..one_at_a_time() };
    let (mut story, _) = begun(4, limits);
    let mut effects = Vec::new();
    for offset in 0..4 {
        effects.extend(failed(&mut story, offset, FailureKind::Retryable));
    }
    let effects = settle(&mut story, effects);
    assert!(!effects.iter().any(|it| it.starts_with("handle")), "it is open: {effects:?}");
    story
}

#[test]
fn an_open_breaker_does_not_hold_it_up() {
    let mut story = open_breaker();
    let mut effects = order(&mut story, Verb::Skip, 0);
    effects.extend(order_as(&mut story, 8, Verb::DeadLetter, 1));
    let effects = settle(&mut story, effects);
    assert_eq!(answers(&effects), ["answer 7 done", "answer 8 done"]);
}

#[test]
fn what_is_retried_is_the_next_that_an_open_breaker_tries() {
    let mut story = open_breaker();
    let effects = order(&mut story, Verb::Retry, 2);
    let effects = settle(&mut story, effects);
    let handled: Vec<_> = effects.iter().filter(|it| it.starts_with("handle")).collect();
    assert_eq!(handled, ["handle 2 attempt 0"]);
}

/// What a former owner knew of the message.
#[test]
fn a_retry_forgets_the_attempts_of_former_owners() {
    let author = Author { instance: "w9".to_owned(), incarnation: 9, number: 9 };
    let commit = CommitMetadata {
        author,
        prev: None,
        topic_id: [7; 16],
        completed: Vec::new(),
        attempts: vec![(0, 3)],
        released: true,
        takeovers: 0,
        advanced: false,
        careful: None,
        trial: None,
        first_start: None,
    };
    let mut story = Story::new(one_at_a_time());
    story.slot(0, SlotEvent::Opened);
    story.tell(Input::Assigned(vec![P]));
    story.recovered(Some(Commit { offset: 0, label: Label::Ours(commit.encode(0)) }));
    let effects = story.received(0, 1);
    let effects = [effects, order(&mut story, Verb::Retry, 0)].concat();
    let effects = settle(&mut story, effects);
    assert!(has(&effects, "handle 0 attempt 0"), "{effects:?}");
    assert_eq!(answers(&effects), ["answer 7 done"]);
}
