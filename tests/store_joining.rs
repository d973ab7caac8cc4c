//! Goal: what is done and older than the history is told by few runs, and nothing else changes.
//! Method: the journal beside a plain map of offset to history with the rule applied, through
//! crashes; and stores in which many messages failed once.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use countersign::store::record::{HistoryRecord, Record};
use countersign::store::{
    Damage, Identity, Journal, JournalOptions, MemoryImage, MemoryStore, open_sled,
};
use countersign_statemachine::{
    Entry, Event, History, Moved, Note, Outcome, PartitionId, Reason, Run, Span, State, transition,
};
use proptest::prelude::*;

const DONE: Event = Event::Committed(Outcome::Processed);

/// How long history is kept in these tests.
const KEPT_MS: u64 = 10;

fn options(opened_at_ms: u64) -> JournalOptions {
    let history = Duration::from_millis(KEPT_MS);
    JournalOptions { history, ..JournalOptions::new(1, opened_at_ms) }
}

fn identity() -> Identity {
    Identity { cluster_id: "c1".into(), group: "g1".into(), instance: "i1".into() }
}

fn open(image: &Arc<Mutex<MemoryImage>>) -> Journal {
    let store = Box::new(MemoryStore::new(Arc::clone(image)));
    Journal::open(store, &identity(), options(0)).unwrap()
}

fn moved(partition: PartitionId, span: Span, event: Event) -> Entry {
    Entry::Moved(Moved { partition, span, event, note: Note::None })
}

/// What became of each offset, and when something happened to it last.
type Model = BTreeMap<u64, (History, u64)>;

/// What an event makes of the map; `None` if some offset does not allow it.
fn step(model: &Model, span: Span, event: Event, at_ms: u64) -> Option<Model> {
    let mut next = model.clone();
    for offset in span.first..span.end {
        let known = model.get(&offset).map(|(history, _)| *history);
        let history = match event {
            Event::Start => known.unwrap_or(History::NEW),
            _ => known?,
        };
        // A commit closes over what is already done.
        let closes = matches!(event, Event::Committed(_) | Event::FoundDone(_));
        let history = match transition(history, event) {
            Ok((after, _)) => after,
            Err(_) if closes && history.state.is_confirmed() => continue,
            Err(_) => return None,
        };
        next.insert(offset, (history, at_ms));
    }
    Some(next)
}

/// What is told of an offset once its history is not kept any more.
fn forgotten(history: History) -> History {
    match history.state {
        State::Confirmed(outcome) => History::of_outcome(outcome),
        State::Pending | State::Processing | State::InDoubt | State::RolledBack(_) => history,
    }
}

/// A partition's neighbours of one history are one run.
fn runs_of(cells: impl Iterator<Item = (u64, History)>) -> Vec<(Span, History)> {
    let mut runs: Vec<(Span, History)> = Vec::new();
    for (offset, history) in cells {
        match runs.last_mut() {
            Some((span, of)) if span.end == offset && *of == history => span.end += 1,
            _ => runs.push((Span::one(offset), history)),
        }
    }
    runs
}

fn shown(journal: &Journal, id: PartitionId) -> Vec<(Span, History)> {
    journal.runs(id).map(|run| (run.span, run.history)).collect()
}

/// Lets the journal forget all that it may at a moment.
fn prune_all(journal: &mut Journal, now_ms: u64) {
    let mut idle = 0;
    // A call looks at a part: only after several without a find all of it was looked at.
    while idle < 20 {
        idle = if journal.prune(now_ms).unwrap() == 0 { idle + 1 } else { 0 };
    }
}

#[derive(Debug, Clone)]
enum Op {
    Move(usize, Span, Event),
    Wait(u64),
    Prune,
    Flush,
    Crash(usize),
}

fn op() -> impl Strategy<Value = Op> {
    let event = prop_oneof![
        4 => Just(Event::Start),
        4 => Just(DONE),
        1 => Just(Event::Committed(Outcome::DeadLettered)),
        2 => Just(Event::RolledBack(Reason::Error)),
        2 => Just(Event::Again),
        1 => Just(Event::FoundDone(Outcome::Elsewhere)),
        1 => Just(Event::Rewound),
    ];
    let span = (0..40_u64, 1..8_u64).prop_map(|(first, len)| Span { first, end: first + len });
    prop_oneof![
        20 => (0..2_usize, span, event).prop_map(|(p, span, event)| Op::Move(p, span, event)),
        2 => (1..KEPT_MS).prop_map(Op::Wait),
        6 => Just(Op::Prune),
        2 => Just(Op::Flush),
        1 => (0..4_usize).prop_map(Op::Crash),
    ]
}

/// Each offset has its outcome for good, all of its details as long as something of it is younger
/// than the history, and only its outcome some time later.
fn check(journal: &Journal, id: PartitionId, model: &Model, now_ms: u64) {
    for (&offset, &(history, at_ms)) in model {
        let told = journal.run_at(id, offset).map(|run| run.history);
        let is_young = at_ms + KEPT_MS >= now_ms;
        let fits = told == Some(history) || (!is_young && told == Some(forgotten(history)));
        assert!(fits, "at {offset}: {told:?} is not {history:?}, last at {at_ms} of {now_ms}");
    }
    let known: u64 = journal.runs(id).map(|run| run.span.len()).sum();
    assert_eq!(known, model.len() as u64, "an offset is known that nothing happened to");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn a_joined_store_answers_as_a_map_of_offsets(ops in prop::collection::vec(op(), 1..120)) {
        let image = MemoryImage::shared();
        let mut journal = open(&image);
        let ids = [0, 1].map(|n| journal.intern("orders", n, [1; 16]).unwrap());
        journal.flush().unwrap();
        // The models after the last flush and after each batch since.
        let mut models = vec![[Model::new(), Model::new()]];
        let mut now_ms = 1_000;
        for op in ops {
            let mut model = models.last().unwrap().clone();
            match op {
                Op::Move(partition, span, event) => {
                    if let Some(next) = step(&model[partition], span, event, now_ms) {
                        model[partition] = next;
                        journal.append(&[moved(ids[partition], span, event)], now_ms).unwrap();
                        models.push(model);
                    }
                }
                Op::Wait(ms) => now_ms += ms,
                Op::Prune => {
                    let before = image.lock().unwrap().unflushed();
                    journal.prune(now_ms).unwrap();
                    if image.lock().unwrap().unflushed() > before {
                        models.push(model);
                    }
                }
                Op::Flush => {
                    journal.flush().unwrap();
                    models = vec![model];
                }
                Op::Crash(kept) => {
                    drop(journal);
                    image.lock().unwrap().crash_keeping(kept);
                    models.truncate(kept + 1);
                    journal = open(&image);
                    journal.flush().unwrap();
                    models = vec![models.pop().unwrap()];
                }
            }
            for (id, model) in ids.iter().zip(models.last().unwrap()) {
                check(&journal, *id, model, now_ms);
            }
        }
        // Long after, only outcomes are left, in as few runs as they allow.
        prune_all(&mut journal, now_ms + KEPT_MS + 1);
        journal.flush().unwrap();
        for (id, model) in ids.iter().zip(models.last().unwrap()) {
            let is_done = |offset: u64| model[&offset].0.state.is_confirmed();
            let cells = model.iter().map(|(&offset, &(history, _))| {
                let kept = journal.history_at(*id, offset).unwrap();
                // It is also the history of a neighbour that is not done.
                let needed = |record: &HistoryRecord| {
                    (record.span().first..record.span().end).any(|offset| !is_done(offset))
                };
                assert!(kept.iter().all(needed), "old history of {offset} is kept");
                (offset, if kept.is_empty() { forgotten(history) } else { history })
            });
            prop_assert_eq!(shown(&journal, *id), runs_of(cells));
        }
        let before = ids.map(|id| shown(&journal, id));
        drop(journal);
        image.lock().unwrap().crash();
        let journal = open(&image);
        prop_assert_eq!(ids.map(|id| shown(&journal, id)), before);
    }
}

/// Messages of a transaction of which each hundredth failed once.
fn one_percent_fails(id: PartitionId, whole: Span, outcome: Outcome) -> Vec<Entry> {
    let mut entries = vec![moved(id, whole, Event::Start)];
    let done = Event::Committed(outcome);
    for offset in (whole.first..whole.end).step_by(100) {
        let one = Span::one(offset);
        let events = [Event::RolledBack(Reason::Error), Event::Again, Event::Start, done];
        entries.extend(events.map(|event| moved(id, one, event)));
    }
    entries.push(moved(id, whole, DONE));
    entries
}

/// Appends transactions as a clerk does, a call of `prune` behind each, and gives the most runs.
fn work(journal: &mut Journal, transactions: u64, outcome: Outcome) -> (PartitionId, usize) {
    const MESSAGES: u64 = 10_000;
    let id = journal.intern("orders", 0, [1; 16]).unwrap();
    let mut most = 0;
    for n in 0..transactions {
        let whole = Span { first: n * MESSAGES, end: (n + 1) * MESSAGES };
        journal.append(&one_percent_fails(id, whole, outcome), n).unwrap();
        journal.prune(n).unwrap();
        most = most.max(journal.runs(id).count());
    }
    journal.flush().unwrap();
    (id, most)
}

/// Each of them used to leave two runs for good.
#[test]
fn messages_that_failed_once_and_are_done_for_long_are_one_run() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let opened = || {
        let store = open_sled(&path, Damage::Refuse).unwrap().store;
        Journal::open(Box::new(store), &identity(), options(0)).unwrap()
    };
    let mut journal = opened();
    let (id, most) = work(&mut journal, 200, Outcome::Processed);
    // Kept are 10 transactions, a pass of the sweep takes a third of that, and each has 200 runs.
    assert!(most <= 20 * 200, "{most} runs at once");
    prune_all(&mut journal, 1_000);
    let all =
        Run { span: Span { first: 0, end: 2_000_000 }, count: 2_000_000, history: History::CLEAN };
    assert_eq!(journal.runs(id).collect::<Vec<_>>(), [all]);
    journal.flush().unwrap();
    drop(journal);
    assert_eq!(opened().runs(id).collect::<Vec<_>>(), [all]);
}

#[test]
fn what_ended_in_another_way_stays_told_apart() {
    let mut journal = open(&MemoryImage::shared());
    let (id, _) = work(&mut journal, 3, Outcome::DeadLettered);
    prune_all(&mut journal, 1_000);
    let letters = journal.runs(id).filter(|run| {
        let history = History::of_outcome(Outcome::DeadLettered);
        run.history == history && run.span.len() == 1 && run.span.first.is_multiple_of(100)
    });
    assert_eq!(letters.count(), 300);
    assert_eq!(journal.runs(id).count(), 600);
    // Whoever takes the partition up does not read them.
    let end = Span { first: 30_000, end: 30_001 };
    journal.append(&[moved(id, end, Event::Start)], 1_000).unwrap();
    let to_settle: Vec<Span> = journal.runs_to_settle(id, 29_950).map(|run| run.span).collect();
    assert_eq!(to_settle, [Span { first: 29_901, end: 30_000 }, end]);
    let below: Vec<Span> = journal.runs_to_settle(id, 40_000).map(|run| run.span).collect();
    assert_eq!(below, [end]);
}

/// As an earlier version leaves a store in which messages failed long ago: runs, and no history.
fn backlog(image: &Arc<Mutex<MemoryImage>>) -> (Journal, PartitionId) {
    let mut journal = open(image);
    let id = journal.intern("orders", 0, [1; 16]).unwrap();
    for n in 0..50 {
        let whole = Span { first: n * 10_000, end: (n + 1) * 10_000 };
        journal.append(&one_percent_fails(id, whole, Outcome::Processed), 0).unwrap();
    }
    let is_history =
        |key: &[u8], value: &[u8]| matches!(Record::read(key, value), Ok(Record::History(_)));
    let mut image = image.lock().unwrap();
    let histories = image.iter().filter(|(key, value)| is_history(key, value));
    let histories: Vec<Vec<u8>> = histories.map(|(key, _)| key.to_vec()).collect();
    for key in histories {
        image.damage(&key, None);
    }
    (journal, id)
}

#[test]
fn a_long_backlog_is_joined_in_slices() {
    let image = MemoryImage::shared();
    let (mut journal, id) = backlog(&image);
    let mut runs = journal.runs(id).count();
    assert!(runs > 9_000, "{runs}");
    for _ in 0..100 {
        let removed = journal.prune(1_000).unwrap();
        let joined = runs - journal.runs(id).count();
        assert!(joined <= 256, "{joined} runs joined in one call");
        assert_eq!(removed, joined);
        runs -= joined;
    }
    assert_eq!(runs, 1);
}

/// What happens to offsets that the sweep has before it, but whose history is behind it, is kept.
#[test]
fn news_between_two_slices_keep_their_details() {
    let image = MemoryImage::shared();
    let (mut journal, id) = backlog(&image);
    let last = Span { first: 500_000, end: 500_001 };
    journal.append(&[moved(id, last, Event::Start)], 1_000).unwrap();
    assert!((200..=256).contains(&journal.prune(1_000).unwrap()), "it stops within the backlog");
    let rewound = Span { first: 400_010, end: 400_020 };
    let again = [Event::Rewound, Event::Start, DONE].map(|event| moved(id, rewound, event));
    journal.append(&again, 1_001).unwrap();
    let told = |journal: &Journal| journal.run_at(id, 400_015).unwrap();
    for _ in 0..200 {
        journal.prune(1_002).unwrap();
        assert_eq!((told(&journal).span, told(&journal).history.life), (rewound, 1));
    }
    assert_eq!(journal.runs(id).count(), 4);
    prune_all(&mut journal, 2_000);
    assert_eq!(told(&journal).history, History::CLEAN);
    assert_eq!(journal.runs(id).count(), 2);
}
