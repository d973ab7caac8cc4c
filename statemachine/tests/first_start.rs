//! Goal: what the first commits of a group say of where partitions ended is read back as it was
//! meant, fits the metadata however many partitions there are, and is told no longer than needed.
//! Method: values against their definition, and a story of one worker.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod story;

use std::sync::Arc;

use countersign_statemachine::worker::{Commit, Found, Input, Label, Siblings, SlotEvent};
use countersign_statemachine::{
    Author, Beginning, CommitMetadata, FirstStart, FirstStarts, MetadataError, Recorded, Settings,
    StartAt,
};
use story::{P, Story, settings};

const TOPIC: [u8; 16] = [7; 16];

/// Of 4,096 characters, the brokers' default.
const METADATA_BYTES: usize = 3_069;

fn commit_with(first_start: Option<FirstStart>) -> Commit {
    let author = Author { instance: "a-0".to_owned(), incarnation: 1, number: 1 };
    let metadata = CommitMetadata {
        author,
        prev: None,
        topic_id: TOPIC,
        completed: Vec::new(),
        attempts: Vec::new(),
        released: false,
        takeovers: 0,
        advanced: false,
        careful: None,
        trial: None,
        first_start,
    };
    Commit { offset: 100, label: Label::Ours(metadata.encode(100)) }
}

fn first_start(partitions: u32, ends: &[(u32, u64)]) -> FirstStart {
    FirstStart { partitions, ends: ends.to_vec() }
}

/// What the commits of partitions that are taken up together say, `taken` of them by each of
/// several members.
fn commits_of(ends: &Arc<[u64]>, taken: &[u32]) -> Vec<(u32, FirstStart)> {
    let of = |(nth, &number): (usize, &u32)| {
        let beginning = Beginning { ends: Arc::clone(ends), number, nth, of: taken.len() };
        (number, FirstStart::of(&beginning, METADATA_BYTES))
    };
    taken.iter().enumerate().map(of).collect()
}

/// The end of every partition is found again, however many there are, if one member of so many
/// lives to make its first commits.
#[test]
fn the_ends_of_very_many_partitions_fit_the_first_commits() {
    for (partitions, members) in [(2_u32, 2_u32), (12, 3), (300, 1), (1_000, 10), (5_000, 100)] {
        let ends: Arc<[u64]> = (0..u64::from(partitions)).map(|n| n * 1_234_567_890).collect();
        let taken: Vec<u32> = (0..partitions).filter(|n| n % members == 0).collect();
        let mut told = Vec::new();
        for (number, first_start) in commits_of(&ends, &taken) {
            let commit = commit_with(Some(first_start));
            let Label::Ours(bytes) = &commit.label else { panic!("it is ours") };
            assert!(bytes.len() < METADATA_BYTES / 2 + 100, "{partitions}: {}", bytes.len());
            told.push((number, commit));
        }
        let starts = FirstStarts::read(told.iter().map(|(n, commit)| (*n, commit)), TOPIC);
        let others = (0..partitions).filter(|n| n % members != 0);
        for number in others {
            let end = Recorded::End(ends[number as usize]);
            assert_eq!(starts.recorded(number), end, "{number} of {partitions}");
        }
        assert_eq!(starts.recorded(partitions), Recorded::Nothing, "it was added later");
    }
}

/// Nothing is guessed of what did not fit.
#[test]
fn what_had_no_room_is_lost_and_not_read_from_the_beginning() {
    let ends: Arc<[u64]> = vec![1 << 50; 5_000].into();
    let told: Vec<_> =
        commits_of(&ends, &[0]).into_iter().map(|(n, it)| (n, commit_with(Some(it)))).collect();
    let starts = FirstStarts::read(told.iter().map(|(n, commit)| (*n, commit)), TOPIC);
    let recorded: Vec<_> = (1..5_000).map(|number| starts.recorded(number)).collect();
    let known = recorded.iter().filter(|it| **it == Recorded::End(1 << 50)).count();
    let lost = recorded.iter().filter(|it| **it == Recorded::Lost).count();
    assert!(known > 100 && known + lost == 4_999, "{known} {lost}");
}

#[test]
fn of_several_first_starts_the_earlier_ends_hold() {
    let commits = [
        (0, commit_with(Some(first_start(3, &[(1, 50), (2, 60)])))),
        (1, commit_with(Some(first_start(3, &[(0, 40), (2, 55)])))),
        (3, commit_with(None)),
    ];
    let read = |topic_id| FirstStarts::read(commits.iter().map(|(n, it)| (*n, it)), topic_id);
    let recorded = |number| read(TOPIC).recorded(number);
    assert_eq!(recorded(2), Recorded::End(55));
    assert_eq!(recorded(4), Recorded::Nothing);
    // They are of a deleted topic of the same name.
    assert_eq!(read([8; 16]).recorded(2), Recorded::Nothing);
}

#[test]
fn what_a_commit_that_cannot_be_read_may_say_is_not_guessed() {
    let newer = Commit { offset: 9, label: Label::Unreadable(MetadataError::UnknownForm(2)) };
    let known = commit_with(Some(first_start(3, &[(2, 60)])));
    let starts = FirstStarts::read([(0, &newer), (1, &known)], TOPIC);
    let source = MetadataError::UnknownForm(2);
    let unreadable = Recorded::Unreadable { number: 0, offset: 9, source };
    assert_eq!(starts.recorded(1), unreadable);
    assert_eq!(starts.recorded(2), Recorded::End(60));
    let foreign = Commit { offset: 9, label: Label::Foreign(String::new()) };
    assert_eq!(FirstStarts::read([(0, &foreign)], TOPIC).recorded(1), Recorded::Nothing);
}

fn told(story: &Story) -> Option<FirstStart> {
    let sent = &story.sent[0];
    CommitMetadata::decode(sent.offset, &sent.metadata).unwrap().first_start
}

/// A worker that begins to read a topic of three partitions at their ends.
fn beginning() -> Story {
    let mut story = Story::new(Settings { start: StartAt::Latest, ..settings(1) });
    story.slot(0, SlotEvent::Opened);
    story.tell(Input::Assigned(vec![P]));
    let beginning = Beginning { ends: [10, 20, 30].into(), number: 0, nth: 0, of: 1 };
    let found = Found {
        commit: None,
        siblings: Siblings::None(Some(beginning)),
        known: false,
        log_start: 0,
        log_end: 10,
        topic_id: TOPIC,
        runs: Vec::new(),
    };
    let effects = story.tell(Input::Recovered(vec![(P, 1, found)]));
    assert!(effects.contains(&"assign 0@10".to_owned()), "{effects:?}");
    let mut effects = story.after(200, Input::Tick);
    effects.extend(story.flushed(0));
    assert!(effects.contains(&"commit 0 #1 0@10".to_owned()), "{effects:?}");
    story.committed(0);
    story
}

fn commit_again(story: &mut Story, first: u64) {
    story.received(first, first + 1);
    for write in 1..20 {
        story.tell(Input::Stored { write });
    }
    story.finished(first, first + 1);
    story.after(200, Input::Tick);
    story.flushed(0);
    story.committed(0);
}

#[test]
fn it_is_told_until_every_partition_has_a_commit() {
    let mut story = beginning();
    assert_eq!(told(&story), Some(first_start(3, &[(1, 20), (2, 30)])));
    commit_again(&mut story, 10);
    assert_eq!(told(&story), Some(first_start(3, &[(1, 20), (2, 30)])), "by each commit");

    let asked = |effects: Vec<String>| effects.contains(&"ask uncommitted 1".to_owned());
    assert!(asked(story.after(60_000, Input::Tick)));
    story.tell(Input::Uncommitted(vec![(P, vec![2])]));
    commit_again(&mut story, 11);
    assert_eq!(told(&story), Some(first_start(3, &[(2, 30)])));

    // A partition that was added later needs no record.
    assert!(asked(story.after(60_000, Input::Tick)));
    story.sent.clear();
    story.tell(Input::Uncommitted(vec![(P, vec![3])]));
    story.after(200, Input::Tick);
    story.flushed(0);
    assert_eq!(told(&story), None, "a commit says so at once, in the version of before");
    story.committed(0);
    for _ in 0..10 {
        assert!(!asked(story.after(60_000, Input::Tick)), "it is not asked any more");
    }
}

/// One that no answer comes to is asked again.
#[test]
fn it_is_asked_for_again_and_again() {
    let mut story = beginning();
    for minute in 1..=5 {
        let effects = story.after(60_000, Input::Tick);
        assert!(effects.contains(&"ask uncommitted 1".to_owned()), "{minute}: {effects:?}");
    }
}
