//! How a partition is taken up.

use crate::first_start::{Beginning, Recorded};
use crate::worker::Position;
use crate::{Backoff, History, MetadataError};
use std::time::Duration;

use super::*;

const P: PartitionId = PartitionId(3);
const TOPIC: [u8; 16] = [7; 16];

fn settings() -> Settings {
    Settings {
        slots: 1,
        transaction_records: 10,
        concurrency: 1,
        handle_records: 10,
        leave_budget: Duration::from_secs(1),
        lazy_write: Duration::from_millis(10),
        start: StartAt::Latest,
        abort_backoff: Backoff::default(),
        seed: 0,
        ..Settings::new("w0", 2)
    }
}

fn ours(instance: &str, offset: u64, completed: Vec<Span>) -> Commit {
    let metadata = CommitMetadata {
        author: Author { instance: instance.to_owned(), incarnation: 1, number: 9 },
        prev: None,
        topic_id: TOPIC,
        completed,
        attempts: vec![(offset, 2)],
        released: false,
        takeovers: 0,
        advanced: false,
        careful: None,
        trial: None,
        first_start: None,
    };
    Commit { offset, label: Label::Ours(metadata.encode(offset)) }
}

fn found(commit: Option<Commit>, runs: Vec<Run>) -> Found {
    let known = !runs.is_empty();
    Found {
        commit,
        siblings: Siblings::None(None),
        known,
        log_start: 2,
        log_end: 90,
        topic_id: TOPIC,
        runs,
    }
}

fn run(first: u64, end: u64, state: State) -> Run {
    let history = History { state, attempt: 0, deliveries: 1, life: 0 };
    Run { span: Span { first, end }, count: end - first, history }
}

fn moves(recovery: &Recovery) -> Vec<(u64, u64, Event)> {
    recovery.moves.iter().map(|m| (m.span.first, m.span.end, m.event)).collect()
}

#[test]
fn a_new_group_starts_where_the_policy_says() {
    for (start, position) in [(StartAt::Latest, 90), (StartAt::Earliest, 2)] {
        let settings = Settings { start, ..settings() };
        let recovery = recover(P, &found(None, Vec::new()), &settings).unwrap();
        assert_eq!((recovery.position, recovery.fresh), (position, true));
    }
}

#[test]
fn a_new_partition_is_read_from_its_start_whatever_the_policy() {
    let found = Found { siblings: Siblings::Some(Recorded::Nothing), ..found(None, Vec::new()) };
    assert_eq!(recover(P, &found, &settings()).unwrap().position, 2);
}

#[test]
fn a_partition_that_comes_later_begins_where_it_ended_at_the_first_start() {
    let of = |recorded, start| {
        let found = Found { siblings: Siblings::Some(recorded), ..found(None, Vec::new()) };
        let recovery = recover(P, &found, &Settings { start, ..settings() })?;
        assert_eq!((recovery.fresh, &recovery.first_start), (true, &None));
        Ok(recovery.position)
    };
    // The group began so, whatever this member would do.
    for start in [StartAt::Latest, StartAt::Earliest] {
        assert_eq!(of(Recorded::End(40), start), Ok(40));
        assert_eq!(of(Recorded::Nothing, start), Ok(2));
        assert_eq!(of(Recorded::Lost, start), Err(PositionError::NoStart));
        let (number, offset, source) = (3, 7, MetadataError::DamagedText);
        let unreadable = Recorded::Unreadable { number, offset, source };
        let error = PositionError::Sibling { number, offset, source };
        assert_eq!(of(unreadable, start), Err(error));
        let error = PositionError::BeyondEnd { offset: 91, end: 90 };
        assert_eq!(of(Recorded::End(91), start), Err(error));
        let error = PositionError::BelowStart { offset: 1, lost: 1 };
        assert_eq!(of(Recorded::End(1), start), Err(error));
    }
}

/// The topic as partition 1 of four sees it, all of which are taken up here.
fn beginning() -> Beginning {
    Beginning { ends: [70, 90, 300, 5].into(), number: 1, nth: 1, of: 4 }
}

#[test]
fn the_first_commits_of_a_group_that_begins_at_the_end_tell_all_ends() {
    let siblings = Siblings::None(Some(beginning()));
    let found = Found { siblings, ..found(None, Vec::new()) };
    let recovery = recover(P, &found, &settings()).unwrap();
    let ends = vec![(0, 70), (2, 300), (3, 5)];
    assert_eq!(recovery.first_start, Some(FirstStart { partitions: 4, ends }));
    let settings = Settings { start: StartAt::Earliest, ..settings() };
    assert_eq!(recover(P, &found, &settings).unwrap().first_start, None);
}

#[test]
fn a_new_owner_goes_on_telling_the_first_start() {
    let first_start = FirstStart { partitions: 4, ends: vec![(2, 300)] };
    let commit = ours("w1", 9, Vec::new());
    let Label::Ours(bytes) = &commit.label else { panic!("it is ours") };
    let metadata = CommitMetadata {
        first_start: Some(first_start.clone()),
        ..CommitMetadata::decode(9, bytes).unwrap()
    };
    let commit = Commit { offset: 9, label: Label::Ours(metadata.encode(9)) };
    let recovery = recover(P, &found(Some(commit), Vec::new()), &settings()).unwrap();
    assert_eq!(recovery.first_start, Some(first_start));
}

#[test]
fn a_known_group_without_commits_stops() {
    let found = Found { known: true, ..found(None, Vec::new()) };
    assert_eq!(recover(P, &found, &settings()), Err(PositionError::Expired));
    let settings = Settings { expired: Expired::Restart, ..settings() };
    assert_eq!(recover(P, &found, &settings).unwrap().position, 90);
}

#[test]
fn what_cannot_be_worked_with_is_an_error() {
    let cases = [
        (ours("w0", 91, Vec::new()), PositionError::BeyondEnd { offset: 91, end: 90 }),
        (ours("w0", 0, Vec::new()), PositionError::BelowStart { offset: 0, lost: 2 }),
        (
            Commit { offset: 5, label: Label::Ours(vec![99, 0]) },
            PositionError::Metadata { offset: 5, source: MetadataError::UnknownVersion(99) },
        ),
        (
            Commit { offset: 5, label: Label::Unreadable(MetadataError::DamagedText) },
            PositionError::Metadata { offset: 5, source: MetadataError::DamagedText },
        ),
    ];
    for (commit, error) in cases {
        assert_eq!(recover(P, &found(Some(commit), Vec::new()), &settings()), Err(error));
    }
    let found = Found { topic_id: [8; 16], ..found(Some(ours("w0", 5, Vec::new())), Vec::new()) };
    assert_eq!(recover(P, &found, &settings()), Err(PositionError::OtherTopic { offset: 5 }));
}

#[test]
fn the_record_is_brought_in_line_with_the_commit() {
    let runs = vec![
        run(0, 10, State::Confirmed(Outcome::Processed)),
        run(10, 20, State::InDoubt),
        run(20, 30, State::Processing),
        run(30, 32, State::RolledBack(Reason::Error)),
        run(40, 50, State::Confirmed(Outcome::Processed)),
    ];
    let commit = ours("w0", 15, vec![Span { first: 22, end: 25 }]);
    let recovery = recover(P, &found(Some(commit), runs), &settings()).unwrap();
    let crashed = Event::RolledBack(Reason::Crashed);
    let done = Event::FoundDone(Outcome::Processed);
    let expected = vec![
        (10, 15, done),
        (15, 20, crashed),
        (15, 20, Event::Again),
        (20, 22, crashed),
        (20, 22, Event::Again),
        (22, 25, done),
        (25, 30, crashed),
        (25, 30, Event::Again),
        (30, 32, Event::Again),
        (40, 50, Event::Rewound),
    ];
    assert_eq!(moves(&recovery), expected);
    assert_eq!(recovery.position, 15);
    assert_eq!(recovery.attempts, BTreeMap::from([(15, 2)]));
    let span = Span { first: 40, end: 50 };
    let told = Notice::Recovered { partition: P, offset: 15, found_done: 8, again: 12 };
    let taken_over = Notice::TakenOver { partition: P, offset: 15, takeovers: 1 };
    assert_eq!(recovery.notices, [taken_over, Notice::Rewound { partition: P, span }, told]);
}

#[test]
fn who_did_it_is_said() {
    let runs = vec![run(10, 12, State::Processing)];
    let foreign = Commit { offset: 12, label: Label::Foreign(String::new()) };
    for (commit, outcome) in [
        (ours("w0", 12, Vec::new()), Outcome::Processed),
        (ours("w1", 12, Vec::new()), Outcome::Elsewhere),
        (foreign, Outcome::Unknown),
    ] {
        let recovery = recover(P, &found(Some(commit), runs.clone()), &settings()).unwrap();
        assert_eq!(moves(&recovery), [(10, 12, Event::FoundDone(outcome))]);
    }
}

#[test]
fn a_transaction_is_committed_exactly_if_its_commits_are_there() {
    let there = ours("w0", 5, vec![Span { first: 7, end: 9 }]);
    let Label::Ours(metadata) = there.label.clone() else { panic!("it is ours") };
    let sent = Position { partition: P, offset: 5, metadata };
    let not = [
        ours("w0", 5, Vec::new()),
        ours("w0", 6, vec![Span { first: 8, end: 10 }]),
        Commit { offset: 6, ..there.clone() },
        Commit { offset: 5, label: Label::Foreign("x".to_owned()) },
    ];
    let of = |pairs: &[(&Position, Option<&Commit>)]| verdict(pairs.iter().copied());
    assert_eq!(of(&[(&sent, Some(&there))]), Ok(Some(Verdict::Committed)));
    assert_eq!(of(&[(&sent, None)]), Ok(Some(Verdict::NotCommitted)));
    for other in &not {
        assert_eq!(of(&[(&sent, Some(other))]), Ok(Some(Verdict::NotCommitted)));
        assert_eq!(of(&[(&sent, Some(&there)), (&sent, Some(other))]), Ok(Some(Verdict::Torn)));
    }
    assert_eq!(of(&[]), Ok(None));
}

/// It may be what was sent: to send it again would do its messages twice.
#[test]
fn a_commit_that_cannot_be_read_decides_nothing() {
    let sent = Position { partition: P, offset: 5, metadata: vec![1, 2] };
    let labels = [
        (Label::Unreadable(MetadataError::DamagedText), MetadataError::DamagedText),
        (Label::Unreadable(MetadataError::UnknownForm(2)), MetadataError::UnknownForm(2)),
        (Label::Ours(vec![9, 2]), MetadataError::UnknownVersion(9)),
        (Label::Ours(vec![1]), MetadataError::Malformed { at: 1 }),
    ];
    for (label, source) in labels {
        let commit = Commit { offset: 5, label };
        let error = (P, PositionError::Metadata { offset: 5, source });
        assert_eq!(verdict([(&sent, Some(&commit))].into_iter()), Err(error));
        let settled = settle_unowned(P, &commit, &[run(2, 5, State::InDoubt)], &[]);
        assert_eq!(settled, Err(error.1));
    }
}
