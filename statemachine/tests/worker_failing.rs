//! What becomes of messages that fail, told event by event.

#![expect(clippy::unwrap_used, reason = "a test that panics has failed")]

mod story;

use std::time::Duration;

use countersign_statemachine::worker::{
    Call, Commit, Effect, Failure, FailureKind, Input, Label, Refusal, SlotEvent, StopReason,
};
use countersign_statemachine::{
    Backoff, Breaker, BreakerAction, BreakerSettings, CommitMetadata, Disposition, GiveUp, Leave,
    Reason, RetryPolicy, Settings,
};
use story::{P, Story, settings, span};

fn probe() -> Backoff {
    let base = Duration::from_secs(1);
    Backoff { base, factor: 2.0, max: Duration::from_secs(4), jitter: 0.0 }
}

fn breaker(action: BreakerAction) -> BreakerSettings {
    BreakerSettings { row: 3, share: 1.0, window: 100, probe: probe(), action }
}

/// Messages `0..n` are being handled; what fails twice becomes a dead letter.
fn handling(n: u64, settings: Settings) -> Story {
    let mut story = Story::new(settings);
    story.slot(0, SlotEvent::Opened);
    story.tell(Input::Assigned(vec![P]));
    story.recovered(Some(Commit { offset: 0, label: Label::Foreign(String::new()) }));
    story.after(0, Input::Tick);
    story.received(0, n);
    let handle = story.tell(Input::Stored { write: 1 });
    assert_eq!(handle, [format!("handle {} attempt 0", span(0, n))]);
    story
}

fn letters() -> Settings {
    let mut settings = Settings { give_up: GiveUp::DeadLetter, ..settings(1) };
    settings.retry.default.attempts = Some(2);
    settings
}

fn fails(story: &mut Story, offset: u64, kind: FailureKind) -> Vec<String> {
    let failure = Failure::new(Reason::Error, kind, "no");
    story.tell(Input::Failed { partition: P, epoch: 1, lane: 0, offset, failure })
}

#[test]
fn a_permanent_failure_becomes_a_dead_letter_and_its_neighbours_go_on() {
    let mut story = handling(3, letters());
    story.finished(0, 1);
    let effects = fails(&mut story, 1, FailureKind::Permanent);
    let letter = effects.iter().position(|it| it == "dead letter 1 attempts 1 Rejected");
    let sent = effects.iter().position(|it| it.starts_with("send"));
    assert!(letter.unwrap() < sent.unwrap_or(usize::MAX), "{effects:?}");
    assert!(effects.contains(&format!("handle {} attempt 0", span(2, 3))), "{effects:?}");
    story.finished(2, 3);
    story.after(200, Input::Tick);
    story.flushed(0);
    let metadata = CommitMetadata::decode(2, &story.sent[0].metadata).unwrap();
    assert_eq!(metadata.attempts, [], "what is done has no attempts any more");
}

#[test]
fn attempts_are_used_up_before_a_retryable_failure_becomes_a_dead_letter() {
    let mut story = handling(1, letters());
    let effects = fails(&mut story, 0, FailureKind::Retryable);
    assert!(!effects.iter().any(|it| it.starts_with("dead letter")), "{effects:?}");
    story.after(1_000, Input::Tick);
    let handle = story.tell(Input::Stored { write: 2 });
    assert_eq!(handle.last().unwrap(), &format!("handle {} attempt 1", span(0, 1)));
    let effects = fails(&mut story, 0, FailureKind::Retryable);
    assert!(effects.contains(&"dead letter 0 attempts 2 AttemptsUsedUp".to_owned()), "{effects:?}");
}

fn fails_as(story: &mut Story, offset: u64, class: &str) -> Vec<String> {
    let error = Failure::new(Reason::Error, FailureKind::Retryable, "no");
    let failure = Failure { class: Some(class.into()), ..error };
    story.tell(Input::Failed { partition: P, epoch: 1, lane: 0, offset, failure })
}

/// Tried after a wait of 10 ms, 20 ms, ...; a message of the class twice as often.
fn classed(budget: Option<Duration>) -> Settings {
    let mut settings = letters();
    let own = RetryPolicy { attempts: Some(4), budget, ..settings.retry.default };
    settings.retry.classes.insert("http-503".to_owned(), own);
    settings
}

#[test]
fn a_class_has_attempts_of_its_own() {
    let mut story = handling(1, classed(None));
    for write in 2..5 {
        let effects = fails_as(&mut story, 0, "http-503");
        assert!(!effects.iter().any(|it| it.starts_with("dead letter")), "{effects:?}");
        story.after(1_000, Input::Tick);
        story.tell(Input::Stored { write });
    }
    let effects = fails_as(&mut story, 0, "http-503");
    assert!(effects.contains(&"dead letter 0 attempts 4 AttemptsUsedUp".to_owned()), "{effects:?}");
}

#[test]
fn the_last_failure_says_which_policy_holds() {
    let mut story = handling(1, classed(None));
    for write in 2..4 {
        fails_as(&mut story, 0, "http-503");
        story.after(1_000, Input::Tick);
        story.tell(Input::Stored { write });
    }
    let effects = fails_as(&mut story, 0, "http-500");
    assert!(effects.contains(&"dead letter 0 attempts 3 AttemptsUsedUp".to_owned()), "{effects:?}");
}

#[test]
fn a_message_whose_budget_is_used_up_is_tried_once_more_and_given_up() {
    let mut story = handling(1, classed(Some(Duration::from_millis(15))));
    fails_as(&mut story, 0, "http-503");
    story.after(10, Input::Tick);
    story.tell(Input::Stored { write: 2 });
    let effects = fails_as(&mut story, 0, "http-503");
    assert!(!effects.iter().any(|it| it.starts_with("dead letter")), "5 ms left: {effects:?}");
    story.after(5, Input::Tick);
    let handle = story.tell(Input::Stored { write: 3 });
    assert_eq!(handle.last().unwrap(), &format!("handle {} attempt 2", span(0, 1)));
    let effects = fails_as(&mut story, 0, "http-503");
    assert!(effects.contains(&"dead letter 0 attempts 3 BudgetUsedUp".to_owned()), "{effects:?}");
}

#[test]
fn panics_and_missed_deadlines_are_classes() {
    for (reason, class) in [(Reason::Panic, "panic"), (Reason::Deadline, "deadline")] {
        let mut settings = letters();
        let own = RetryPolicy { attempts: Some(1), ..settings.retry.default };
        settings.retry.classes.insert(class.to_owned(), own);
        let mut story = handling(1, settings);
        let failure = Failure::new(reason, FailureKind::Retryable, "no");
        let failed = Input::Failed { partition: P, epoch: 1, lane: 0, offset: 0, failure };
        let effects = story.tell(failed);
        let letter = "dead letter 0 attempts 1 AttemptsUsedUp".to_owned();
        assert!(effects.contains(&letter), "{class}: {effects:?}");
    }
}

/// Nothing may pass its message, and nothing of it was sent.
#[test]
fn a_dead_letter_that_is_too_large_stops_the_worker() {
    let mut story = handling(2, letters());
    fails(&mut story, 1, FailureKind::Permanent);
    let message = "too large".to_owned();
    let input = Input::LetterTooLarge { partition: P, epoch: 1, offset: 1, message };
    assert_eq!(story.tell(input).last().unwrap(), "stop ok=false");
}

#[test]
fn the_store_is_told_that_it_was_dead_lettered() {
    let mut story = handling(2, letters());
    fails(&mut story, 0, FailureKind::Permanent);
    story.tell(Input::Finished { partition: P, epoch: 1, lane: 0, spans: vec![span(1, 2)] });
    story.after(200, Input::Tick);
    story.flushed(0);
    let mut effects = story.committed(0);
    for write in 2..6 {
        effects.extend(story.tell(Input::Stored { write }));
        effects.extend(story.after(200, Input::Tick));
    }
    let written = effects.join("; ");
    let expected = [
        format!("{} Committed(DeadLettered)", span(0, 1)),
        format!("{} Committed(Processed)", span(1, 2)),
    ];
    for words in expected {
        assert!(written.contains(&words), "{words} is not in {written}");
    }
}

/// Or it would be written, refused, and written again for ever.
#[test]
fn a_dead_letter_that_is_refused_stops_the_worker() {
    let mut story = handling(1, letters());
    fails(&mut story, 0, FailureKind::Permanent);
    story.after(200, Input::Tick);
    let (call, disposition) = (Call::Flush, Disposition::Abortable);
    let (refusal, message) = (Some(Refusal::Of(vec![(P, 0)])), "too large".to_owned());
    story.slot(0, SlotEvent::Failed { call, disposition, refusal, message });
    let mut stop = None;
    for _ in 0..4 {
        story.worker.handle(Input::Slot(0, SlotEvent::Aborted { suspicious: false }), story.now);
        while let Some(effect) = story.worker.poll_effect() {
            if let Effect::Stop(Err(reason)) = effect {
                stop = Some(reason);
            }
        }
        if stop.is_some() {
            break;
        }
        // Alone, it is to blame.
        story.after(10_000, Input::Tick);
        story.after(200, Input::Tick);
        let (refusal, message) = (Some(Refusal::Of(vec![(P, 0)])), "too large".to_owned());
        story.slot(0, SlotEvent::Failed { call, disposition, refusal, message });
    }
    assert!(matches!(stop, Some(StopReason::Message { offset: 0, .. })), "{stop:?}");
}

#[test]
fn a_fatal_failure_stops_whatever_the_policy() {
    let mut story = handling(1, letters());
    assert_eq!(fails(&mut story, 0, FailureKind::Fatal).last().unwrap(), "stop ok=false");
}

#[test]
fn an_open_breaker_tries_one_message_at_a_time_and_uses_no_attempts_up() {
    let breaker = Some(breaker(BreakerAction::Probe));
    let mut story = handling(4, Settings { breaker, ..letters() });
    // Two permanent failures and one that may be tried again.
    fails(&mut story, 0, FailureKind::Permanent);
    fails(&mut story, 1, FailureKind::Permanent);
    let effects = fails(&mut story, 2, FailureKind::Retryable);
    assert!(!effects.iter().any(|it| it.starts_with("handle")), "it is open: {effects:?}");
    story.after(900, Input::Tick);
    let effects = story.tell(Input::Stored { write: 2 });
    assert!(!effects.iter().any(|it| it.starts_with("handle")), "too early: {effects:?}");
    let mut effects = story.after(200, Input::Tick);
    effects.extend(story.tell(Input::Stored { write: 3 }));
    let probe = format!("handle {} attempt 1", span(2, 3));
    assert!(effects.contains(&probe), "one message: {effects:?}");
    let effects = fails(&mut story, 2, FailureKind::Retryable);
    assert!(!effects.iter().any(|it| it.starts_with("dead letter")), "not its fault: {effects:?}");
}

#[test]
fn a_success_closes_the_breaker() {
    let breaker = Some(breaker(BreakerAction::Probe));
    let mut story = handling(6, Settings { breaker, ..letters() });
    for offset in 0..3 {
        fails(&mut story, offset, FailureKind::Permanent);
    }
    let effects = story.after(1_100, Input::Tick);
    assert!(effects.contains(&format!("handle {} attempt 0", span(3, 4))), "{effects:?}");
    let effects = story.finished(3, 4);
    assert!(effects.contains(&format!("handle {} attempt 0", span(4, 6))), "{effects:?}");
}

#[test]
fn the_breaker_can_stop_the_worker_instead() {
    let breaker = Some(breaker(BreakerAction::Stop));
    let mut story = handling(6, Settings { breaker, ..letters() });
    fails(&mut story, 0, FailureKind::Permanent);
    fails(&mut story, 1, FailureKind::Permanent);
    assert_eq!(fails(&mut story, 2, FailureKind::Permanent).last().unwrap(), "stop ok=false");
}

/// Messages that never succeed, and nothing else at first: the breaker must find what is behind
/// them.
#[test]
fn an_open_breaker_gets_past_messages_that_never_succeed() {
    let breaker = Some(breaker(BreakerAction::Probe));
    let mut story = handling(10, Settings { breaker, ..letters() });
    let hopeless = 4;
    let mut given_up = 0;
    let mut healthy = false;
    let mut running: Vec<u64> = (0..10).collect();
    for turn in 0..400 {
        let mut effects = if let Some(&offset) = running.first() {
            running.clear();
            if offset < hopeless {
                fails(&mut story, offset, FailureKind::Retryable)
            } else {
                healthy = true;
                story.finished(offset, offset + 1)
            }
        } else {
            story.after(1_000, Input::Tick)
        };
        effects.extend(story.tell(Input::Stored { write: turn + 2 }));
        for effect in effects {
            given_up += u64::from(effect.starts_with("dead letter"));
            if let Some(words) = effect.strip_prefix("handle ") {
                let first = words.split(['.', ' ']).next().unwrap();
                running = vec![first.parse().unwrap()];
            }
        }
        if healthy {
            break;
        }
    }
    assert!(healthy, "the healthy ones are never reached");
    assert_eq!(given_up, hopeless);
}

#[test]
fn failures_of_what_was_begun_before_do_not_lengthen_the_wait() {
    let mut breaker = Breaker::new(breaker(BreakerAction::Probe), 1);
    let now = Duration::from_secs(9);
    for _ in 0..50 {
        breaker.failed(now);
    }
    assert_eq!(breaker.leave(now), Leave::None { until: now + Duration::from_secs(1) });
}
