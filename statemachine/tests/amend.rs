//! Goal: what is committed in the place of an owner says what an owner would have said.
//! Method: commits with everything in them, and an order about a message at each place of them.

#![expect(clippy::unwrap_used, reason = "a test that panics has failed")]

use countersign_statemachine::worker::{Commit, Label};
use countersign_statemachine::{
    AmendError, Amended, Author, CommitMetadata, MetadataError, Span, Trial, Unowned, Verb, amend,
};
use proptest::prelude::*;

const LIMIT: usize = 3_069;
const TOPIC: [u8; 16] = [7; 16];

fn author(instance: &str) -> Author {
    Author { instance: instance.to_owned(), incarnation: 9, number: 1 }
}

fn span(first: u64, end: u64) -> Span {
    Span { first, end }
}

/// Of a processor that died: 10 is the position, 12, 13 and 20 are done, 10 and 15 have failed.
fn metadata() -> CommitMetadata {
    CommitMetadata {
        author: author("w0"),
        prev: Some(author("w9")),
        topic_id: TOPIC,
        completed: vec![span(12, 14), span(20, 21)],
        attempts: vec![(10, 3), (15, 1)],
        released: false,
        takeovers: 2,
        advanced: true,
        careful: Some(18),
        trial: Some(Trial { offset: 15, deliveries: 1, announced: true }),
        first_start: None,
    }
}

fn unowned(offset: u64, metadata: &CommitMetadata) -> Unowned {
    let commit = Some(Commit { offset, label: Label::Ours(metadata.encode(offset)) });
    Unowned { commit, topic_id: TOPIC, log_start: 0, log_end: 100 }
}

fn order(verb: Verb, at: u64) -> Result<Amended, AmendError> {
    amend(&unowned(10, &metadata()), verb, at, author("operator"), LIMIT)
}

fn amended(verb: Verb, at: u64) -> (u64, CommitMetadata) {
    let Amended { offset, metadata, .. } = order(verb, at).unwrap();
    (offset, CommitMetadata::decode(offset, &metadata).unwrap())
}

#[test]
fn the_message_at_the_position_moves_it() {
    for verb in [Verb::Skip, Verb::DeadLetter] {
        let (offset, told) = amended(verb, 10);
        assert_eq!(offset, 11);
        assert_eq!(told.completed, metadata().completed);
        assert_eq!(told.attempts, [(15, 1)]);
        assert_eq!((told.author, told.prev), (author("operator"), Some(author("w0"))));
        assert_eq!((told.takeovers, told.trial), (0, metadata().trial), "they are for one offset");
        assert!(!told.released, "its owner died all the same");
    }
    assert_eq!(order(Verb::DeadLetter, 10).unwrap().attempts, 3);
}

#[test]
fn the_position_moves_past_what_is_completed() {
    let commit = unowned(11, &CommitMetadata { attempts: vec![(11, 1)], ..metadata() });
    let moved = amend(&commit, Verb::Skip, 11, author("operator"), LIMIT).unwrap();
    let told = CommitMetadata::decode(moved.offset, &moved.metadata).unwrap();
    assert_eq!((moved.offset, told.completed, told.attempts), (14, vec![span(20, 21)], vec![]));
}

#[test]
fn a_message_beyond_it_is_completed() {
    let (offset, told) = amended(Verb::Skip, 15);
    assert_eq!(offset, 10);
    assert_eq!(told.completed, [span(12, 14), span(15, 16), span(20, 21)]);
    assert_eq!((told.attempts, told.trial, told.takeovers), (vec![(10, 3)], None, 2));
    let (_, told) = amended(Verb::Skip, 14);
    assert_eq!(told.completed, [span(12, 15), span(20, 21)], "neighbours are one");
    let (_, told) = amended(Verb::Skip, 11);
    assert_eq!(told.completed, [span(11, 14), span(20, 21)], "neighbours are one");
}

#[test]
fn a_retry_forgets_the_failures_and_nothing_else() {
    let (offset, told) = amended(Verb::Retry, 10);
    assert_eq!(offset, 10);
    assert_eq!(told.attempts, [(15, 1)]);
    assert_eq!((told.completed, told.takeovers), (metadata().completed, 2));
    assert_eq!(amended(Verb::Retry, 15).1.trial, None);
    assert_eq!(order(Verb::Retry, 11), Err(AmendError::NothingToForget));
}

#[test]
fn what_is_done_or_not_there_is_refused() {
    for at in [0, 9, 12, 13, 20] {
        assert_eq!(order(Verb::Skip, at), Err(AmendError::Done { offset: 10 }), "{at}");
    }
    assert_eq!(order(Verb::Skip, 100), Err(AmendError::BeyondEnd { end: 100 }));
    let late = Unowned { log_start: 30, ..unowned(10, &metadata()) };
    let refused = amend(&late, Verb::Skip, 10, author("operator"), LIMIT);
    assert_eq!(refused, Err(AmendError::BelowStart { start: 30 }));
}

#[test]
fn what_cannot_be_read_is_left_alone() {
    let of = |commit: Option<Commit>| {
        let unowned = Unowned { commit, ..unowned(10, &metadata()) };
        amend(&unowned, Verb::Skip, 10, author("operator"), LIMIT).unwrap_err()
    };
    assert_eq!(of(None), AmendError::NoCommit);
    let foreign = Label::Foreign(String::new());
    let commit = Commit { offset: 10, label: foreign };
    assert_eq!(of(Some(commit)), AmendError::Foreign { offset: 10 });
    let newer = Commit { offset: 10, label: Label::Ours(vec![99]) };
    let source = MetadataError::UnknownVersion(99);
    assert_eq!(of(Some(newer)), AmendError::Metadata { offset: 10, source });
    let source = MetadataError::DamagedText;
    let damaged = Commit { offset: 10, label: Label::Unreadable(source) };
    assert_eq!(of(Some(damaged)), AmendError::Metadata { offset: 10, source });
    let other = CommitMetadata { topic_id: [8; 16], ..metadata() };
    let other = Commit { offset: 10, label: Label::Ours(other.encode(10)) };
    assert_eq!(of(Some(other)), AmendError::OtherTopic { offset: 10 });
}

#[test]
fn what_does_not_fit_is_refused() {
    let full = CommitMetadata {
        completed: (0..50).map(|n| span(12 + 2 * n, 13 + 2 * n)).collect(),
        ..metadata()
    };
    let commit = Unowned { log_end: 1_000, ..unowned(10, &full) };
    let limit = full.encode(10).len() + 30;
    assert!(amend(&commit, Verb::Skip, 500, author("operator"), limit + 30).is_ok());
    let refused = amend(&commit, Verb::Skip, 500, author("operator"), limit - 30);
    assert!(matches!(refused, Err(AmendError::NoRoom { .. })), "{refused:?}");
}

proptest! {
    /// What is done afterwards is what was done before, and the message.
    #[test]
    fn nothing_but_the_message_becomes_done(
        done in prop::collection::btree_set(11_u64..40, 0..20),
        at in 10_u64..40,
    ) {
        let mut completed: Vec<Span> = Vec::new();
        for &offset in &done {
            Span::one(offset).append_to(&mut completed);
        }
        let all = |offset: u64, completed: &[Span]| -> Vec<u64> {
            let is_done = |at: &u64| *at < offset || completed.iter().any(|it| it.contains(*at));
            (0..50).filter(is_done).collect()
        };
        let before = CommitMetadata { completed: completed.clone(), ..metadata() };
        let result = amend(&unowned(10, &before), Verb::Skip, at, author("operator"), LIMIT);
        if done.contains(&at) {
            prop_assert_eq!(result, Err(AmendError::Done { offset: 10 }));
            return Ok(());
        }
        let Amended { offset, metadata, .. } = result.unwrap();
        let told = CommitMetadata::decode(offset, &metadata).unwrap();
        let mut expected = all(10, &completed);
        expected.push(at);
        expected.sort_unstable();
        prop_assert_eq!(all(offset, &told.completed), expected);
        prop_assert!(!told.completed.iter().any(|span| span.first <= offset));
    }
}
