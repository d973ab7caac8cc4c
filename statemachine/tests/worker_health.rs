//! Goal: whoever asks a worker what it waits for is told the right thing, at each step.
//! Method: one partition, told event by event; what is asked changes nothing.

#![expect(clippy::unwrap_used, reason = "a test that panics has failed")]

mod story;

use std::time::Duration;

use countersign_statemachine::worker::{Commit, Health, Input, Label, SlotEvent, Step, Waiting};
use countersign_statemachine::{Order, Settings};

use story::{P, Story, settings, span};

fn health(story: &mut Story) -> Health {
    let health = story.worker.health();
    assert!(story.effects().is_empty(), "to ask changes nothing");
    health
}

/// What the position of the only partition waits for.
fn step(story: &mut Story) -> Option<Step> {
    let partitions = health(story).partitions;
    assert!(partitions.len() <= 1);
    partitions.first().map(|waiting| waiting.step)
}

#[test]
fn each_step_of_a_message_is_told() {
    let mut story = Story::new(settings(1));
    story.slot(0, SlotEvent::Opened);
    assert_eq!(health(&mut story), Health::default());
    story.tell(Input::Assigned(vec![P]));
    assert_eq!(step(&mut story), Some(Step::TakeUp));
    story.recovered(Some(Commit { offset: 0, label: Label::Foreign(String::new()) }));
    story.after(0, Input::Tick);
    assert_eq!(step(&mut story), None);
    story.received(0, 2);
    assert_eq!(step(&mut story), Some(Step::Record(0)));
    assert_eq!(health(&mut story).write, Some(story.now));
    story.after(5, Input::Stored { write: 1 });
    assert_eq!(health(&mut story).write, None);
    assert_eq!(step(&mut story), Some(Step::Handle(0)));
    story.finished(0, 1);
    assert_eq!(step(&mut story), Some(Step::Commit(0)));
    let began = health(&mut story).transaction;
    assert_eq!(began, Some(story.now));
    story.finished(1, 2);
    story.after(3_000, Input::Tick);
    story.flushed(0);
    assert_eq!(health(&mut story).transaction, began, "it is as old as its beginning");
    story.committed(0);
    assert_eq!((step(&mut story), health(&mut story).transaction), (None, None));
}

#[test]
fn a_message_that_failed_waits_for_its_retry() {
    let mut story = Story::handling(1, 3);
    story.failed(0);
    let waiting = Waiting { partition: P, position: 0, step: Step::Retry(0), lacks_room: false };
    assert_eq!(health(&mut story).partitions, [waiting]);
}

#[test]
fn what_is_sent_by_itself_since_an_output_was_refused_is_told() {
    let mut story = Story::handling(1, 2);
    story.finished(0, 2);
    story.refused(0);
    story.aborted(0);
    assert_eq!(step(&mut story), Some(Step::Refused(0)));
}

/// The first message of a key fails for ever, and what is done beyond it fills the metadata.
#[test]
fn a_partition_without_room_in_its_metadata_says_so() {
    let settings = Settings { order: Order::None, metadata_bytes: 120, ..settings(1) };
    let mut story = Story::owning_with(Settings { transaction_records: 1_000, ..settings });
    story.received(0, 60);
    story.tell(Input::Stored { write: 1 });
    story.failed(0);
    for (write, offset) in (2..).zip((2..60).step_by(2)) {
        let (partition, epoch, lane) = (P, 1, offset);
        let spans = vec![span(offset, offset + 1)];
        story.tell(Input::Finished { partition, epoch, lane, spans });
        story.tell(Input::Stored { write });
    }
    story.now += Duration::from_millis(1);
    let partitions = health(&mut story).partitions;
    assert!(partitions.first().is_some_and(|it| it.lacks_room), "{partitions:?}");
    assert_eq!(partitions.first().map(|it| it.step), Some(Step::Retry(0)));
}
