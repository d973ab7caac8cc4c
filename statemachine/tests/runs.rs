//! Goal: `Runs` answers as a plain map of offsets would, whatever happens to it in which order.
//! Method: random events on random spans, allowed and not, applied to both and compared each time.

use std::collections::BTreeMap;

use countersign_statemachine::{
    ApplyError, Change, Event, History, Outcome, Reason, Run, Runs, Span, State,
};
use proptest::prelude::*;

mod every;
mod model;

use every::{events, states};
use model::Checked;

const DONE: Event = Event::Committed(Outcome::Processed);

#[derive(Debug, Clone, Copy)]
struct Operation {
    span: Span,
    event: Event,
    /// Cut the span to the run at its start: random spans are mostly refused.
    cut: bool,
    restart: bool,
}

fn operation() -> impl Strategy<Value = Operation> {
    let common =
        prop_oneof![Just(Event::Start), Just(DONE), Just(Event::Again), Just(Event::Rewound)];
    let event = prop_oneof![common, proptest::sample::select(events())];
    (0_u64..48, 1_u64..16, event, prop::bool::weighted(0.7), prop::bool::weighted(0.05)).prop_map(
        |(first, len, event, cut, restart)| {
            let span = Span { first, end: first + len };
            Operation { span, event, cut, restart }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn runs_answer_as_a_map_of_offsets(ops in prop::collection::vec(operation(), 1..60)) {
        let mut checked = Checked::default();
        for op in ops {
            let here = checked.runs.at(op.span.first).and_then(|r| r.span.intersect(op.span));
            let span = if op.cut { here.unwrap_or(op.span) } else { op.span };
            checked.apply(span, op.event);
            if op.restart {
                checked.restart();
            }
        }
    }

    /// Whatever a damaged store holds, the invariants hold after it is read, and writing the
    /// changes repairs it.
    #[test]
    fn restoring_damaged_runs_keeps_the_invariants(
        damaged in prop::collection::vec(any_run(), 0..12),
    ) {
        let mut stored: BTreeMap<u64, Run> =
            damaged.into_iter().map(|run| (run.span.first, run)).collect();
        let mut runs = Runs::restore(stored.values().copied());
        for Change { first, run } in runs.take_changes() {
            match run {
                Some(run) => stored.insert(first, run),
                None => stored.remove(&first),
            };
        }
        let all: Vec<Run> = runs.iter().collect();
        prop_assert_eq!(&all, &stored.into_values().collect::<Vec<_>>());
        for run in &all {
            prop_assert!(run.span.first < run.span.end && run.count <= run.span.len());
        }
        for pair in all.windows(2) {
            prop_assert!(pair[0].span.end <= pair[1].span.first);
            let touching = pair[0].span.end == pair[1].span.first;
            prop_assert!(!touching || pair[0].history != pair[1].history);
        }
        let mut again = Runs::restore(all.iter().copied());
        prop_assert!(again.iter().eq(all));
        prop_assert_eq!(again.take_changes(), vec![]);
    }
}

/// Runs as damage leaves them: overlapping, empty, backwards, counting anything.
fn any_run() -> impl Strategy<Value = Run> {
    let state = proptest::sample::select(states());
    (0_u64..30, 0_u64..30, 0_u64..40, state, 0_u32..2).prop_map(
        |(first, end, count, state, deliveries)| {
            let history = History { state, attempt: 0, deliveries, life: 0 };
            Run { span: Span { first, end }, count, history }
        },
    )
}

fn span(first: u64, end: u64) -> Span {
    Span::new(first, end).expect("tests name no empty spans")
}

/// Starts, and commits with the gaps between them closed, what was received of `0..20`.
fn with_gaps(received: &[Span]) -> Runs {
    let mut runs = Runs::default();
    for received in received {
        runs.apply(*received, Event::Start).expect("it is allowed");
    }
    runs.apply(span(0, 20), DONE).expect("it is allowed");
    runs
}

#[test]
fn a_clean_transaction_is_one_run_that_counts_messages_and_not_gaps() {
    let runs = with_gaps(&[span(0, 7), span(8, 15), span(16, 19)]);
    let all: Vec<Run> = runs.iter().collect();
    assert_eq!(all, [Run { span: span(0, 20), count: 17, history: History::CLEAN }]);
}

/// The count of a run with gaps used to shrink by rounding each time a part of it was found done,
/// which every restart does.
#[test]
fn finding_a_part_done_again_keeps_the_count() {
    let mut runs = with_gaps(&[span(0, 7), span(8, 15)]);
    let before: Vec<Run> = runs.iter().collect();
    for part in [span(0, 3), span(5, 6), span(19, 20), span(2, 18)] {
        runs.apply(part, Event::FoundDone(Outcome::Elsewhere)).unwrap();
        assert!(runs.iter().eq(before.iter().copied()), "after {part}");
    }
}

/// After a rewind, offsets without a message are pending like their neighbours. They are never
/// read, and used to make the commit that passes over them a refused transition.
#[test]
fn a_rewound_run_with_gaps_can_be_committed_again() {
    let mut runs = with_gaps(&[span(0, 7), span(8, 15)]);
    runs.apply(span(5, 20), Event::Rewound).unwrap();
    assert_eq!(runs.iter().map(|run| run.count).sum::<u64>(), 14);
    runs.apply(span(5, 7), Event::Start).unwrap();
    runs.apply(span(8, 15), Event::Start).unwrap();
    runs.apply(span(5, 20), DONE).unwrap();
    let second_life = History { life: 1, ..History::CLEAN };
    let rewound = runs.at(5).unwrap();
    assert_eq!(rewound, Run { span: span(5, 20), count: 9, history: second_life });
}

/// What another instance did used to be told as ours, if ours came before it.
#[test]
fn what_was_found_done_and_never_seen_here_is_not_told_as_ours() {
    let mut runs = Runs::default();
    runs.apply(span(0, 5), Event::Start).unwrap();
    runs.apply(span(0, 5), DONE).unwrap();
    runs.apply(span(0, 1_000), Event::FoundDone(Outcome::Elsewhere)).unwrap();
    assert_eq!(runs.at(4).unwrap().history, History::CLEAN);
    let unseen = runs.at(500).unwrap();
    assert_eq!(unseen.history.state, State::Confirmed(Outcome::Elsewhere));
    assert_eq!((unseen.span, unseen.count), (span(5, 1_000), 0));
}

#[test]
fn a_history_that_never_began_cannot_go_on() {
    let mut runs = Runs::default();
    runs.apply(span(0, 5), Event::Start).unwrap();
    let event = Event::RolledBack(Reason::Error);
    let refused = runs.apply(span(3, 8), event);
    assert_eq!(refused, Err(ApplyError::Absent { offset: 5, event }));
    let text = "offset 5 has no history that RolledBack(Error) could continue";
    assert_eq!(refused.unwrap_err().to_string(), text);
    let refused = runs.apply(span(0, 5), Event::Start).unwrap_err();
    let text = "at 0..=4: a message that is processing cannot take the event Start";
    assert_eq!(refused.to_string(), text);
}
