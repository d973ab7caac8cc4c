//! The journal against a plain map of offset to state, with crashes that lose unflushed writes.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use countersign::store::record::Record;
use countersign::store::{Identity, Journal, JournalOptions, MemoryImage, MemoryStore, StoreError};
use countersign_statemachine::{
    Author, End, Entry, Event, History, Moved, Note, Outcome, Part, PartitionId, Reason, Span,
    TransactionRecord, transition,
};
use proptest::prelude::*;

fn identity() -> Identity {
    Identity { cluster_id: "c1".into(), group: "g1".into(), instance: "i1".into() }
}

fn open(image: &Arc<Mutex<MemoryImage>>, incarnation: u64) -> Result<Journal, StoreError> {
    let store = Box::new(MemoryStore::new(Arc::clone(image)));
    Journal::open(store, &identity(), JournalOptions::new(incarnation, 1_000))
}

fn moved(partition: PartitionId, first: u64, end: u64, event: Event) -> Entry {
    Entry::Moved(Moved { partition, span: Span { first, end }, event, note: Note::None })
}

fn committed(partition: PartitionId, number: u64, span: Span) -> TransactionRecord {
    let author = Author { instance: "i1-0".into(), incarnation: 1, number };
    let parts =
        vec![Part { partition, span: Some(span), messages: 1, outputs: 1, offset: span.end }];
    TransactionRecord { author, slot: 0, end: End::Committed, open_us: 5, parts }
}

const DONE: Event = Event::Committed(Outcome::Processed);

#[derive(Debug, Clone)]
enum Op {
    Move(u64, u64, Event),
    Flush,
    Crash(usize),
    Prune,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => Just(Event::Start),
        3 => Just(DONE),
        1 => Just(Event::Committed(Outcome::DeadLettered)),
        1 => Just(Event::ReplyLost),
        2 => Just(Event::RolledBack(Reason::Error)),
        1 => Just(Event::RolledBack(Reason::Crashed)),
        2 => Just(Event::Again),
        1 => Just(Event::FoundDone(Outcome::Elsewhere)),
        1 => Just(Event::Rewound),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        12 => (0..40_u64, 1..8_u64, event()).prop_map(|(at, len, it)| Op::Move(at, at + len, it)),
        2 => Just(Op::Flush),
        1 => (0..4_usize).prop_map(Op::Crash),
        1 => Just(Op::Prune),
    ]
}

type Model = BTreeMap<u64, History>;

/// What an event makes of the map; `None` if some offset does not allow it.
fn step(model: &Model, first: u64, end: u64, event: Event) -> Option<Model> {
    let mut next = model.clone();
    for offset in first..end {
        let history = match event {
            Event::Start => model.get(&offset).copied().unwrap_or(History::NEW),
            _ => *model.get(&offset)?,
        };
        // A commit closes over what is already confirmed.
        let closes = matches!(event, Event::Committed(_) | Event::FoundDone(_));
        if closes && history.state.is_confirmed() {
            continue;
        }
        next.insert(offset, transition(history, event).ok()?.0);
    }
    Some(next)
}

fn of_journal(journal: &Journal, id: PartitionId) -> Model {
    let offsets = journal
        .runs(id)
        .flat_map(|run| (run.span.first..run.span.end).map(move |at| (at, run.history)));
    offsets.collect()
}

proptest! {
    #[test]
    fn the_journal_equals_a_map_through_crashes(ops in prop::collection::vec(op(), 1..80)) {
        let image = MemoryImage::shared();
        let mut journal = open(&image, 1).unwrap();
        let id = journal.intern("orders", 3, [1; 16]).unwrap();
        journal.flush().unwrap();
        // The model after the last flush and after each batch since.
        let mut models = vec![Model::new()];
        for (n, op) in ops.into_iter().enumerate() {
            let at_ms = 1_000 + n as u64;
            let now = models.last().unwrap().clone();
            match op {
                Op::Move(first, end, event) => {
                    let entry = moved(id, first, end, event);
                    match step(&now, first, end, event) {
                        Some(next) => {
                            journal.append(&[entry], at_ms).unwrap();
                            models.push(next);
                        }
                        // Closing a gap is the caller's word, which a map cannot express.
                        None if matches!(event, Event::Committed(_) | Event::FoundDone(_)) => {}
                        None => {
                            let error = journal.append(&[entry], at_ms).unwrap_err();
                            let fits = matches!(error, StoreError::Inconsistent { .. });
                            prop_assert!(fits);
                        }
                    }
                }
                Op::Flush => {
                    journal.flush().unwrap();
                    models = vec![now];
                }
                Op::Crash(kept) => {
                    drop(journal);
                    let kept = kept.min(models.len() - 1);
                    image.lock().unwrap().crash_keeping(kept);
                    journal = open(&image, n as u64).unwrap();
                    models = vec![models[kept].clone()];
                }
                Op::Prune => {
                    // Nothing is old enough, so that nothing is written.
                    prop_assert_eq!(journal.prune(at_ms).unwrap(), 0);
                }
            }
            prop_assert_eq!(&of_journal(&journal, id), models.last().unwrap());
        }
        drop(journal);
        for (key, value) in image.lock().unwrap().iter() {
            prop_assert!(Record::read(key, value).is_ok());
        }
        let reopened = open(&image, 99).unwrap();
        prop_assert_eq!(&of_journal(&reopened, id), models.last().unwrap());
    }
}

#[test]
fn numbers_slots_and_sessions_survive_and_a_new_topic_id_is_a_new_number() {
    let image = MemoryImage::shared();
    let mut journal = open(&image, 1).unwrap();
    let old = journal.intern("orders", 3, [1; 16]).unwrap();
    assert_eq!(journal.intern("orders", 3, [1; 16]).unwrap(), old);
    journal.remember_slot("g1-i1-0-1").unwrap();
    journal.remember_slot("g1-i1-0-0").unwrap();
    journal.remember_slot("g1-i1-0-1").unwrap();
    journal.flush().unwrap();
    drop(journal);
    image.lock().unwrap().crash();
    let mut journal = open(&image, 2).unwrap();
    assert_eq!(journal.slots().unwrap(), ["g1-i1-0-0", "g1-i1-0-1"]);
    assert_eq!(journal.intern("orders", 3, [1; 16]).unwrap(), old);
    let new = journal.intern("orders", 3, [2; 16]).unwrap();
    assert_ne!(new, old);
    assert_eq!(journal.name_of(new).unwrap().to_string(), "orders/3");
    let sessions = journal.sessions().unwrap();
    assert_eq!(sessions.iter().map(|it| it.incarnation).collect::<Vec<_>>(), [1, 2]);
}

#[test]
fn a_store_of_another_owner_is_refused_by_both_names() {
    let image = MemoryImage::shared();
    drop(open(&image, 1).unwrap());
    let refused = |change: fn(&mut Identity)| {
        let mut other = identity();
        change(&mut other);
        let store = Box::new(MemoryStore::new(Arc::clone(&image)));
        Journal::open(store, &other, JournalOptions::new(1, 0)).unwrap_err()
    };
    let error = refused(|it| it.cluster_id = "c2".into());
    assert!(matches!(error, StoreError::OtherCluster { .. }));
    assert!(error.to_string().contains("c1") && error.to_string().contains("c2"));
    assert!(matches!(refused(|it| it.group = "g2".into()), StoreError::OtherGroup { .. }));
    assert!(matches!(refused(|it| it.instance = "i2".into()), StoreError::OtherInstance { .. }));
}

#[test]
fn another_format_is_refused_by_both_numbers() {
    let formats = [(2, true), (0, false)];
    for (format, newer) in formats {
        let image = MemoryImage::shared();
        drop(open(&image, 1).unwrap());
        let identity = image.lock().unwrap().iter().next().unwrap().1.to_vec();
        let mut changed = identity;
        changed[1] = format;
        image.lock().unwrap().damage(&[1], Some(changed));
        let error = open(&image, 2).unwrap_err();
        match error {
            StoreError::NewerFormat { stored: 2, known: 1 } => assert!(newer),
            StoreError::OlderFormat { stored: 0, known: 1 } => assert!(!newer),
            other => panic!("{other}"),
        }
        assert!(!error_is_damage(&image));
    }
}

fn error_is_damage(image: &Arc<Mutex<MemoryImage>>) -> bool {
    open(image, 3).unwrap_err().is_damage()
}

#[test]
fn a_batch_with_a_bad_entry_keeps_what_came_before_it() {
    let image = MemoryImage::shared();
    let mut journal = open(&image, 1).unwrap();
    let id = journal.intern("orders", 0, [1; 16]).unwrap();
    let entries = [
        moved(id, 0, 5, Event::Start),
        moved(id, 0, 5, Event::Again),
        moved(id, 5, 9, Event::Start),
    ];
    let error = journal.append(&entries, 1).unwrap_err();
    assert!(matches!(error, StoreError::Inconsistent { index: 1, .. }), "{error}");
    journal.flush().unwrap();
    drop(journal);
    image.lock().unwrap().crash();
    let journal = open(&image, 2).unwrap();
    let spans: Vec<Span> = journal.unfinished(id).map(|run| run.span).collect();
    assert_eq!(spans, [Span { first: 0, end: 5 }]);
    let unknown = PartitionId(9);
    let mut journal = journal;
    let error = journal.append(&[moved(unknown, 0, 1, Event::Start)], 1).unwrap_err();
    assert!(matches!(error, StoreError::UnknownPartition { id: 9 }));
}

#[test]
fn a_full_disk_stops_the_journal_until_it_is_opened_anew() {
    for of_flush in [false, true] {
        let image = MemoryImage::shared();
        let mut journal = open(&image, 1).unwrap();
        let id = journal.intern("orders", 0, [1; 16]).unwrap();
        journal.flush().unwrap();
        if of_flush {
            image.lock().unwrap().fail_flush(1);
            journal.append(&[moved(id, 0, 5, Event::Start)], 1).unwrap();
            assert!(matches!(journal.flush(), Err(StoreError::Full)));
        } else {
            image.lock().unwrap().fail_write(1);
            let error = journal.append(&[moved(id, 0, 5, Event::Start)], 1).unwrap_err();
            assert!(matches!(error, StoreError::Full));
        }
        let error = journal.append(&[moved(id, 5, 6, Event::Start)], 1).unwrap_err();
        assert!(matches!(error, StoreError::Closed { .. }), "{error}");
        drop(journal);
        image.lock().unwrap().crash();
        let mut journal = open(&image, 2).unwrap();
        assert_eq!(journal.runs(id).count(), 0);
        journal.append(&[moved(id, 0, 5, Event::Start)], 1).unwrap();
        journal.flush().unwrap();
    }
}

#[test]
fn history_is_pruned_by_age_and_by_count_and_the_runs_stay() {
    for by_age in [true, false] {
        let image = MemoryImage::shared();
        let mut options = JournalOptions::new(1, 0);
        if by_age {
            options.history = std::time::Duration::from_millis(100);
        } else {
            options.history_transactions = 10;
        }
        let store = Box::new(MemoryStore::new(Arc::clone(&image)));
        let mut journal = Journal::open(store, &identity(), options).unwrap();
        let id = journal.intern("orders", 0, [1; 16]).unwrap();
        // The first message is never done: its history must outlive the rest.
        journal.append(&[moved(id, 0, 1, Event::Start)], 0).unwrap();
        for number in 1..=1_000 {
            let span = Span::one(number);
            let start = moved(id, number, number + 1, Event::Start);
            let end = moved(id, number, number + 1, DONE);
            let transaction = Entry::Transaction(committed(id, number, span));
            journal.append(&[start, end, transaction], number * 10).unwrap();
            journal.prune(number * 10).unwrap();
        }
        let (mut histories, mut transactions) = (0, 0);
        for (key, value) in image.lock().unwrap().iter() {
            match Record::read(key, value).unwrap() {
                Record::History(_) => histories += 1,
                Record::Transaction(_) => transactions += 1,
                _ => {}
            }
        }
        assert!((9..=12).contains(&transactions), "{transactions}");
        assert!((10..=80).contains(&histories), "{histories}");
        assert_eq!(journal.history_at(id, 0).unwrap().len(), 1);
        assert_eq!(journal.history_at(id, 1).unwrap().len(), 0);
        let counts: Vec<u64> = journal.runs(id).map(|run| run.count).collect();
        assert_eq!(counts, [1, 1_000]);
    }
}

#[test]
fn a_clean_span_leaves_one_history_record_and_a_late_verdict_replaces_the_doubt() {
    let image = MemoryImage::shared();
    let mut journal = open(&image, 1).unwrap();
    let id = journal.intern("orders", 0, [1; 16]).unwrap();
    journal.append(&[moved(id, 0, 100, Event::Start)], 5).unwrap();
    // The commit covers a control record behind the last message.
    let span = Span { first: 0, end: 101 };
    let doubt = TransactionRecord { end: End::InDoubt, ..committed(id, 7, span) };
    journal.append(&[moved(id, 0, 100, Event::ReplyLost), Entry::Transaction(doubt)], 6).unwrap();
    let end = TransactionRecord { end: End::FoundCommitted, ..committed(id, 7, span) };
    journal.append(&[moved(id, 0, 101, DONE), Entry::Transaction(end)], 4).unwrap();
    let history = journal.history_at(id, 50).unwrap();
    assert_eq!(history.len(), 1);
    let told: Vec<_> = history[0].happenings().map(|it| (it.at_ms, it.event, it.count)).collect();
    assert_eq!(told, [(5, Event::Start, 100), (6, Event::ReplyLost, 100), (4, DONE, 100)]);
    let transactions = journal.transactions(9, |_| true).unwrap();
    assert_eq!(transactions.iter().map(|it| it.end).collect::<Vec<_>>(), [End::FoundCommitted]);
}
