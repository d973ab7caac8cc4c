//! What a new owner makes of what a former one completed, and of messages that fail in between.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod story;

use std::time::Duration;

use countersign_statemachine::worker::{
    Call, Effect, Failure, FailureKind, Input, Refusal, SlotEvent,
};
use countersign_statemachine::{
    Author, Backoff, CommitMetadata, Disposition, GiveUp, Order, Reason, Settings, Span,
};
use story::{P, Story, settings, span};

/// A partition taken up from a commit at 0 that lists what is done.
fn taking_over(settings: Settings, completed: Vec<Span>) -> Story {
    let author = Author { instance: settings.instance.clone(), incarnation: 9 << 40, number: 1 };
    let metadata = CommitMetadata {
        prev: Some(author.clone()),
        author,
        topic_id: [7; 16],
        completed,
        attempts: Vec::new(),
        released: false,
        takeovers: 0,
        advanced: false,
        careful: None,
        trial: None,
        first_start: None,
    };
    Story::taking_up(settings, &metadata, 200_000)
}

/// What is listed lies far beyond what was read: the bound must reach as far.
#[test]
fn commits_have_room_for_what_a_former_owner_completed_far_ahead() {
    let hour = Duration::from_secs(3_600);
    let retry = Backoff { base: hour, max: hour, ..Backoff::default() };
    let order = Order::None;
    let settings =
        Settings { order, handle_records: 1, concurrency: 128, retry: retry.into(), ..settings(1) };
    let most = settings.metadata_bytes;
    let completed = (0..890).map(|n| Span::one(1_000 + n * 130)).collect();
    let mut story = taking_over(settings, completed);
    let mut effects = story.received(0, 1_000);
    let mut failed = 0;
    for _ in 0..40 {
        let mut next = Vec::new();
        for offset in effects.iter().filter_map(|effect| handled(effect)) {
            failed += 1;
            let failure = Failure::new(Reason::Error, FailureKind::Retryable, "no");
            let lane = offset;
            next.extend(story.tell(Input::Failed {
                partition: P,
                epoch: 1,
                lane,
                offset,
                failure,
            }));
        }
        for write in 0..100 {
            next.extend(story.tell(Input::Stored { write }));
        }
        next.extend(story.after(150, Input::Tick));
        next.extend(story.flushed(0));
        assert!(story.sent.iter().all(|position| position.metadata.len() <= most));
        next.extend(story.committed(0));
        effects = next;
    }
    assert!(failed > 0, "some were handled");
}

/// The first message of a `Handle`.
fn handled(effect: &str) -> Option<u64> {
    let words = effect.strip_prefix("handle ")?;
    words.split(['.', ' ']).next()?.parse().ok()
}

/// Or the shell would keep the records for as long as an earlier message is stuck.
#[test]
fn what_a_former_owner_completed_is_released_as_it_is_read() {
    let settings = Settings { order: Order::None, ..settings(1) };
    let mut story = taking_over(settings, vec![span(1, 3), span(5, 6)]);
    let input =
        Input::Received { partition: P, epoch: 1, spans: vec![span(0, 6)], keys: Vec::new() };
    story.worker.handle(input, story.now);
    let mut released = Vec::new();
    while let Some(effect) = story.worker.poll_effect() {
        if let Effect::Release { beyond, .. } = effect {
            released.extend(beyond);
        }
    }
    assert_eq!(released, [span(1, 3), span(5, 6)]);
}

/// Two messages of the lane are finished and their outputs refused while the handler is at a third.
#[test]
fn a_lane_whose_handler_is_busy_is_not_begun_again() {
    let give_up = GiveUp::DeadLetter;
    let mut settings = Settings { give_up, transaction_records: 2, ..settings(1) };
    settings.retry.default.attempts = Some(2);
    let mut story = Story::owning_with(settings);
    story.received(0, 3);
    story.tell(Input::Stored { write: 1 });
    story.failed(0);
    story.flushed(0);
    story.committed(0);
    story.after(20, Input::Tick);
    let effects = story.tell(Input::Stored { write: 2 });
    assert_eq!(effects.last().map(String::as_str), Some("handle 0..=2 attempt 1"));
    story.finished(0, 2);
    let mut begun = Vec::new();
    for offset in [0, 1] {
        begun.extend(story.after(200, Input::Tick));
        let (call, disposition) = (Call::Send, Disposition::Abortable);
        let (refusal, message) = (Some(Refusal::Of(vec![(P, offset)])), "too large".to_owned());
        begun.extend(story.slot(0, SlotEvent::Failed { call, disposition, refusal, message }));
        begun.extend(story.aborted(0));
        // The dead letter of the first goes before the second is sent again.
        begun.extend(story.flushed(0));
        begun.extend(story.committed(0));
    }
    for write in 3..8 {
        begun.extend(story.after(200, Input::Tick));
        begun.extend(story.tell(Input::Stored { write }));
    }
    let handled: Vec<_> = begun.iter().filter(|effect| effect.starts_with("handle")).collect();
    assert!(handled.is_empty(), "its handler is at 2: {handled:?}");
    let effects = story.finished(2, 3);
    assert!(effects.iter().any(|effect| effect.starts_with("handle 1 ")), "{effects:?}");
}
