//! Goal: every state with every event does what `golden/transitions.txt` says, and the diagrams of
//! `docs/states.md` say the same.
//! Method: all pairs are tried and written as a table, and the table is compared with the file.
//! `UPDATE_GOLDEN=1 cargo test -p countersign-statemachine --test transitions` writes both files.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use countersign_statemachine::{Durability, Event, History, State, Verb, transition};
use proptest::prelude::*;

mod every;

use every::{events, states};

/// Counters that differ from each other and from all defaults, so that a mix-up shows.
fn before(state: State) -> History {
    History { state, attempt: 3, deliveries: 5, life: 7 }
}

/// A state as the table names it: short, and unique.
fn state_name(state: State) -> String {
    match state {
        State::Pending | State::Processing | State::InDoubt => format!("{state:?}"),
        State::Confirmed(outcome) => format!("Confirmed({outcome:?})"),
        State::RolledBack(reason) => format!("RolledBack({reason:?})"),
    }
}

/// What an event does, in a cell: the next state, `!` if it must be flushed first, what it counts.
fn cell(state: State, event: Event) -> String {
    let old = before(state);
    let Ok((new, durability)) = transition(old, event) else {
        return "-".to_owned();
    };
    let mut cell = state_name(new.state);
    if durability == Durability::Flushed {
        cell.push('!');
    }
    let counters = [
        ("attempt", old.attempt, new.attempt),
        ("deliveries", old.deliveries, new.deliveries),
        ("life", old.life, new.life),
    ];
    for (name, old, new) in counters {
        if new == old + 1 {
            write!(cell, " {name}+1").expect("a string takes everything");
        } else if new != old {
            write!(cell, " {name}={new}").expect("a string takes everything");
        }
    }
    cell
}

fn table() -> String {
    let mut rows = vec![vec!["state".to_owned()]];
    rows[0].extend(events().iter().map(|event| format!("{event:?}")));
    for state in states() {
        let mut row = vec![state_name(state)];
        row.extend(events().iter().map(|event| cell(state, *event)));
        rows.push(row);
    }
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..rows[0].len()).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join(" | ").trim_end().to_owned() + "\n"
    };
    rows.iter().map(line).collect()
}

/// One arrow of the diagram: states without their outcome or reason, and what it counts.
fn arrows(table: &str) -> BTreeSet<(String, String, String)> {
    let rows: Vec<Vec<&str>> =
        table.lines().map(|line| line.split('|').map(str::trim).collect()).collect();
    let (head, rows) = rows.split_first().expect("the table has a head");
    let kind = |name: &str| name.split(['(', '!', ' ']).next().unwrap_or(name).to_owned();
    let mut arrows = BTreeSet::new();
    for row in rows {
        for (event, cell) in head.iter().zip(row).skip(1).filter(|(_, cell)| **cell != "-") {
            let counted: Vec<&str> = cell.split(' ').skip(1).collect();
            let mut label = arrow_label(event, &counted);
            if cell.contains('!') {
                label.push_str(", flushed first");
            }
            arrows.insert((kind(row[0]), kind(cell), label));
        }
    }
    arrows
}

/// An event in words; those of one kind that count the same share an arrow.
fn arrow_label(event: &str, counted: &[&str]) -> String {
    let kind = event.split('(').next().unwrap_or(event);
    let own = counted.contains(&"attempt+1");
    let anew = counted.contains(&"attempt=0");
    let kind = match (kind, own) {
        ("Start", _) => "start",
        ("Committed", _) => "committed",
        ("ReplyLost", _) => "reply lost",
        ("RolledBack", true) => "error, panic or deadline",
        ("RolledBack", false) => "aborted, crashed or revoked",
        ("Again", _) => "again",
        ("FoundDone", _) => "found done",
        ("Rewound", _) => "rewound by an operator",
        ("Intervened", _) if anew => "retry ordered",
        ("Intervened", _) => "skip or dead letter ordered",
        (other, _) => panic!("{other} has no words for the diagram"),
    };
    [&[kind], counted].concat().join(", ")
}

fn document(table: &str) -> String {
    let mut diagram = String::from("stateDiagram-v2\n    [*] --> Pending: received\n");
    for (from, to, label) in arrows(table) {
        writeln!(diagram, "    {from} --> {to}: {label}").expect("a string takes everything");
    }
    let mut allowed = String::from("| state | event | next | counted | flushed first |\n");
    allowed.push_str("|---|---|---|---|---|\n");
    let name = |kind: &str| match kind {
        "Pending" => "`pending`",
        "Processing" => "`processing`",
        "InDoubt" => "`in doubt`",
        "Confirmed" => "`confirmed`",
        "RolledBack" => "`rolled_back`",
        other => panic!("{other} has no name for users"),
    };
    for (from, to, label) in arrows(table) {
        let flushed = label.ends_with(", flushed first");
        let label = label.trim_end_matches(", flushed first");
        let is_count = |part: &&str| part.contains('+') || part.contains('=');
        let (counted, words): (Vec<&str>, Vec<&str>) = label.split(", ").partition(is_count);
        let (from, to) = (name(&from), name(&to));
        let (words, counted) = (words.join(", "), counted.join(", "));
        let flushed = if flushed { "yes" } else { "" };
        writeln!(allowed, "| {from} | {words} | {to} | {counted} | {flushed} |")
            .expect("a string takes everything");
    }
    format!(
        "{DOCUMENT_HEAD}```mermaid\n{diagram}```\n\n{DOCUMENT_TABLE}{}\n",
        allowed.trim_end().replace(" |  |", " | |").replace(" |  |", " | |")
    )
}

const DOCUMENT_HEAD: &str = "\
# The states of a message

This file is written from `statemachine/tests/golden/transitions.txt`, which has every state with
every event; a test fails when they differ. To write both again after a change:

    UPDATE_GOLDEN=1 cargo test -p countersign-statemachine --test transitions

`confirmed` has an outcome and `rolled_back` a reason. `attempt` counts how often a message failed
by itself, `deliveries` how often it was started, `life` how often an operator rewound it.

";

const DOCUMENT_TABLE: &str = "\
Every arrow, and what the store does with it. What must be flushed first is on disk before its
consequences are acted on; all else rides with the next flush, because Kafka holds the truth of it.
Every other pair of state and event is refused.

";

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Compares with a file of the repository, or writes it if `UPDATE_GOLDEN` is set.
fn check_golden(path: &str, actual: &str) {
    let full = repository().join(path);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&full, actual).expect("the golden file can be written");
        return;
    }
    let golden = std::fs::read_to_string(&full).unwrap_or_default();
    assert!(golden == actual, "{path} differs (- file, + code):\n{}", diff(&golden, actual));
}

/// The lines that are in one of the texts only.
fn diff(old: &str, new: &str) -> String {
    let (old_lines, new_lines): (Vec<&str>, Vec<&str>) =
        (old.lines().collect(), new.lines().collect());
    let removed = old_lines.iter().filter(|line| !new_lines.contains(line));
    let added = new_lines.iter().filter(|line| !old_lines.contains(line));
    let removed = removed.map(|line| format!("- {line}\n"));
    removed.chain(added.map(|line| format!("+ {line}\n"))).collect()
}

#[test]
fn every_state_with_every_event_is_as_in_the_golden_table() {
    check_golden("statemachine/tests/golden/transitions.txt", &table());
}

#[test]
fn the_document_says_what_the_golden_table_says() {
    let path = repository().join("statemachine/tests/golden/transitions.txt");
    let updating = std::env::var_os("UPDATE_GOLDEN").is_some();
    let golden = if updating { table() } else { std::fs::read_to_string(path).unwrap() };
    check_golden("docs/states.md", &document(&golden));
}

#[test]
fn a_difference_is_shown_line_by_line() {
    assert_eq!(diff("a\nb\nc\n", "a\nB\nc\n"), "- b\n+ B\n");
}

/// Each pair on its own, whatever the counters were.
#[test]
fn what_each_transition_may_change() {
    for state in states() {
        for event in events() {
            let old = before(state);
            let Ok((new, durability)) = transition(old, event) else { continue };
            let own = matches!(event, Event::RolledBack(reason) if reason.is_own());
            let rewound = event == Event::Rewound;

            assert_eq!(durability == Durability::Flushed, event == Event::Start, "{event:?}");
            assert_eq!(state.is_confirmed() && !new.state.is_confirmed(), rewound);
            assert!(!state.is_confirmed() || rewound, "{event:?} left {state}");
            assert_eq!(new.life - old.life, u32::from(rewound));
            if rewound {
                assert_eq!(new, History { life: 8, ..History::NEW });
                continue;
            }
            if let Event::Intervened(verb) = event {
                let attempt = if verb == Verb::Retry { 0 } else { old.attempt };
                assert_eq!(new, History { attempt, ..old });
                continue;
            }
            assert_eq!(new.attempt - old.attempt, u32::from(own), "{state} {event:?}");
            assert_eq!(new.deliveries - old.deliveries, u32::from(event == Event::Start));
            assert_ne!(new.state, state, "an event that changes nothing is not an event");
        }
    }
}

#[test]
fn an_event_gives_the_outcome_or_reason_it_names() {
    for state in states() {
        for event in events() {
            let Ok((new, _)) = transition(before(state), event) else { continue };
            match event {
                Event::Committed(outcome) | Event::FoundDone(outcome) => {
                    assert_eq!(new.state, State::Confirmed(outcome));
                }
                Event::RolledBack(reason) => assert_eq!(new.state, State::RolledBack(reason)),
                Event::Start => assert_eq!(new.state, State::Processing),
                Event::ReplyLost => assert_eq!(new.state, State::InDoubt),
                Event::Again | Event::Rewound => assert_eq!(new.state, State::Pending),
                Event::Intervened(_) => assert_eq!(new.state, state),
            }
        }
    }
}

/// A doubt is settled by Kafka, and never by blaming the message.
#[test]
fn what_is_in_doubt_is_not_the_messages_own_fault() {
    for event in events() {
        let allowed = transition(before(State::InDoubt), event).is_ok();
        let own = matches!(event, Event::RolledBack(reason) if reason.is_own());
        assert!(!(own && allowed), "{event:?}");
    }
}

/// Whatever Kafka says to be done can be recorded, unless it is already.
#[test]
fn done_in_kafka_is_done_here_from_every_state() {
    for state in states() {
        for event in events().into_iter().filter(|e| matches!(e, Event::FoundDone(_))) {
            assert_eq!(transition(before(state), event).is_ok(), !state.is_confirmed());
        }
    }
}

#[test]
fn every_state_is_reached_and_none_is_a_trap() {
    let reach = |start: State| {
        let mut reached = BTreeSet::from([start]);
        let mut open = vec![start];
        while let Some(state) = open.pop() {
            for event in events() {
                let next = transition(before(state), event).map(|(new, _)| new.state);
                if let Ok(next) = next
                    && reached.insert(next)
                {
                    open.push(next);
                }
            }
        }
        reached
    };
    let all: BTreeSet<State> = states().into_iter().collect();
    assert_eq!(all.len(), states().len(), "a state is listed twice");
    for state in states() {
        assert_eq!(reach(state), all, "from {state}");
    }
}

#[test]
fn counters_stop_at_their_end() {
    let full = |state| History { state, attempt: u32::MAX, deliveries: u32::MAX, life: u32::MAX };
    for state in states() {
        for event in events() {
            if let Ok((new, _)) = transition(full(state), event) {
                assert_eq!(new.life, u32::MAX);
                let kept = (new.attempt, new.deliveries) == (u32::MAX, u32::MAX);
                let begins = matches!(event, Event::Rewound | Event::Intervened(Verb::Retry));
                assert!(kept || begins);
            }
        }
    }
}

#[test]
fn a_refusal_names_the_state_and_the_event() {
    let refused = transition(before(State::Pending), Event::ReplyLost).unwrap_err();
    let text = "a message that is pending cannot take the event ReplyLost";
    assert_eq!(refused.to_string(), text);
}

proptest! {
    /// Over a message's whole history: counters never fall within a life, and `attempt` counts
    /// exactly its own failures since the last rewind or ordered retry.
    #[test]
    fn counters_tell_the_history(
        chosen in prop::collection::vec(any::<prop::sample::Index>(), 0..80),
    ) {
        let mut history = History::NEW;
        let (mut own, mut started, mut rewound) = (0, 0, 0);
        for index in chosen {
            let allowed: Vec<Event> =
                events().into_iter().filter(|event| transition(history, *event).is_ok()).collect();
            let event = *index.get(&allowed);
            let old = history;
            (history, _) = transition(old, event).expect("it was filtered");
            match event {
                Event::Rewound => (own, started, rewound) = (0, 0, rewound + 1),
                Event::Start => started += 1,
                Event::RolledBack(reason) => own += u32::from(reason.is_own()),
                Event::Intervened(Verb::Retry) => own = 0,
                Event::Committed(_)
                | Event::ReplyLost
                | Event::Again
                | Event::FoundDone(_)
                | Event::Intervened(Verb::Skip | Verb::DeadLetter) => {}
            }
            prop_assert_eq!((history.attempt, history.deliveries), (own, started));
            prop_assert_eq!(history.life, rewound);
            prop_assert!(history.life >= old.life);
            prop_assert!(own <= started, "a message fails at most once per delivery");
        }
    }
}
