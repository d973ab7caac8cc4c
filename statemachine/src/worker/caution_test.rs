use super::*;
use crate::metadata::Author;
use crate::runs::Run;
use crate::state::History;
use crate::worker::found::{Commit, Label, Siblings};

const FEW: u64 = 128;
/// The start of another process.
const THEIRS: u64 = 9 << 40;
const POSITION: u64 = 1_000;

fn metadata() -> CommitMetadata {
    CommitMetadata {
        author: Author { instance: "other".to_owned(), incarnation: THEIRS, number: 1 },
        prev: None,
        topic_id: [0; 16],
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

fn found(log_end: u64, runs: Vec<Run>) -> Found {
    let label = Label::Foreign(String::new());
    let commit = Some(Commit { offset: POSITION, label });
    let (siblings, known) = (Siblings::None(None), false);
    let (log_start, topic_id) = (0, [0; 16]);
    Found { commit, siblings, known, log_start, log_end, topic_id, runs }
}

fn us(instance: &str, incarnation: u64) -> Settings {
    Settings { takeover_records: FEW, ..Settings::new(instance, incarnation) }
}

fn of(metadata: &CommitMetadata) -> Caution {
    Caution::of(metadata, &found(u64::MAX, Vec::new()), &us("us", 1))
}

#[test]
fn a_takeover_counts_if_the_last_owner_said_nothing_and_may_have_been_at_something() {
    let silent = metadata();
    assert_eq!((of(&silent).takeovers, of(&silent).counted), (1, true));
    let released = CommitMetadata { released: true, ..metadata() };
    assert_eq!((of(&released).takeovers, of(&released).counted), (0, false));
    // It has left a message to us that may end its owner after a while.
    let left = CommitMetadata { released: true, takeovers: 5, ..metadata() };
    assert_eq!((of(&left).takeovers, of(&left).counted), (5, false));
    let idle = Caution::of(&silent, &found(POSITION, Vec::new()), &us("us", 1));
    assert_eq!((idle.takeovers, idle.counted), (0, false));
    let ours = Caution::of(&silent, &found(u64::MAX, Vec::new()), &us("us", THEIRS));
    assert_eq!((ours.takeovers, ours.counted), (0, false));
    // A worker of this process has started anew, this one or another.
    for incarnation in [THEIRS, THEIRS + 1] {
        let settings = Settings { incarnation, ..us("us", THEIRS - 1) };
        let renewed = Caution::of(&silent, &found(u64::MAX, Vec::new()), &settings);
        assert_eq!((renewed.takeovers, renewed.counted), (0, false));
    }
}

#[test]
fn from_two_takeovers_on_the_first_few_that_are_not_done_are_tried() {
    assert_eq!(of(&metadata()).until, None);
    let completed = vec![Span { first: 1_010, end: 1_020 }, Span { first: 5_000, end: 6_000 }];
    let second = CommitMetadata { takeovers: 1, completed, ..metadata() };
    assert_eq!(of(&second).until, Some(POSITION + FEW + 10));
    let short = Caution::of(&second, &found(1_015, Vec::new()), &us("us", 1));
    assert_eq!(short.until, Some(1_015));
}

#[test]
fn the_store_of_the_last_owner_names_what_was_under_way() {
    let run = |first, end, state| {
        let history = History { state, ..History::NEW };
        Run { span: Span { first, end }, count: end - first, history }
    };
    let runs = vec![
        run(900, 1_000, State::Processing),
        run(1_000, 1_003, State::Processing),
        run(1_003, 1_050, State::Pending),
    ];
    let second = CommitMetadata { takeovers: 1, ..metadata() };
    let found = found(u64::MAX, runs);
    assert_eq!(Caution::of(&second, &found, &us("other", 1)).until, Some(1_003));
    assert_eq!(Caution::of(&second, &found, &us("us", 1)).until, Some(POSITION + FEW));
}

/// Or a pill behind a message that is stuck for long would never be found; and a process that ends
/// at its start again and again is no reason to try more.
#[test]
fn more_are_tried_only_if_the_last_owner_got_beyond_those_it_tried() {
    let careful = Some(POSITION + FEW);
    let stuck = CommitMetadata { takeovers: 2, careful, ..metadata() };
    assert_eq!(of(&stuck).until, careful);
    let beyond = CommitMetadata { advanced: true, ..stuck };
    assert_eq!(of(&beyond).until, Some(POSITION + 2 * FEW));
    let trial = Some(Trial { offset: POSITION, deliveries: 1, announced: true });
    let explained = CommitMetadata { trial, ..beyond };
    assert_eq!(of(&explained).until, careful);
}

#[test]
fn an_announcement_counts_if_nobody_lived_to_take_it_back() {
    let trial = |announced| Some(Trial { offset: POSITION + 3, deliveries: 2, announced });
    let died = CommitMetadata { trial: trial(true), ..metadata() };
    assert_eq!(of(&died).suspect, Some((POSITION + 3, 2)));
    let alive = Caution::of(&died, &found(u64::MAX, Vec::new()), &us("us", THEIRS));
    assert_eq!(alive.suspect, Some((POSITION + 3, 1)));
    let released = CommitMetadata { released: true, ..died };
    assert_eq!(of(&released).suspect, Some((POSITION + 3, 1)));
    let over = CommitMetadata { trial: trial(false), ..metadata() };
    assert_eq!(of(&over).suspect, Some((POSITION + 3, 2)));
    assert_eq!(of(&over).until, Some(POSITION + 4), "it is tried again");
}

#[test]
fn a_gap_below_is_not_counted_and_what_came_later_is_not_tried() {
    let careful = CommitMetadata { careful: Some(POSITION + FEW), ..metadata() };
    let passed = |log_end, first, end| {
        let mut caution = Caution::of(&careful, &found(log_end, Vec::new()), &us("us", 1));
        caution.pass_gap(Span { first, end });
        caution.until
    };
    let all = Some(POSITION + FEW);
    assert_eq!(passed(u64::MAX, POSITION + FEW, POSITION + 200), all, "it is not below");
    assert_eq!(passed(u64::MAX, POSITION, POSITION + 50), Some(POSITION + FEW + 50));
    assert_eq!(passed(u64::MAX, POSITION, POSITION + 500), Some(POSITION + FEW + 500));
    assert_eq!(passed(POSITION + FEW + 7, POSITION, POSITION + 500), Some(POSITION + FEW + 7));
    assert_eq!(passed(POSITION + 3, POSITION, POSITION + 500), all);
}
