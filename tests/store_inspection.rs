//! What the store tells a person.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::{Arc, Mutex};

use countersign::inspection::{Known, parse_target, state, text, why};
use countersign::store::{Identity, Journal, JournalOptions, MemoryImage, MemoryStore};
use countersign_statemachine::{
    Author, End, Entry, Event, Moved, Note, Outcome, Part, PartitionId, Reason, Span,
    TransactionRecord,
};

const DAY_MS: u64 = 1_795_000_000_000;

fn open(image: &Arc<Mutex<MemoryImage>>, incarnation: u64, at_ms: u64) -> Journal {
    let store = Box::new(MemoryStore::new(Arc::clone(image)));
    let identity = Identity {
        cluster_id: "MkU3OEVBNTcwNTJENDM2Qk".into(),
        group: "payments".into(),
        instance: "payments-a".into(),
    };
    Journal::open(store, &identity, JournalOptions::new(incarnation, at_ms)).unwrap()
}

fn moved(partition: PartitionId, span: Span, event: Event, note: Note) -> Entry {
    Entry::Moved(Moved { partition, span, event, note })
}

fn author(incarnation: u64, number: u64) -> Author {
    Author { instance: "payments-a-0".into(), incarnation, number }
}

/// Killed in the middle of 12,300..=12,399; the next start does it again.
fn killed() -> (Journal, PartitionId) {
    let image = MemoryImage::shared();
    let mut journal = open(&image, 0xa1, DAY_MS);
    let id = journal.intern("orders", 3, [1; 16]).unwrap();
    let other = journal.intern("orders", 1, [1; 16]).unwrap();
    let span = Span { first: 12_300, end: 12_400 };
    journal.append(&[moved(id, span, Event::Start, Note::None)], DAY_MS + 1_000).unwrap();
    journal.flush().unwrap();
    drop(journal);
    image.lock().unwrap().crash();

    let mut journal = open(&image, 0xb2, DAY_MS + 3_000);
    let crashed = Event::RolledBack(Reason::Crashed);
    let entries = [
        moved(id, span, crashed, Note::None),
        moved(id, span, Event::Again, Note::None),
        moved(id, span, Event::Start, Note::None),
    ];
    journal.append(&entries, DAY_MS + 3_100).unwrap();
    let parts = vec![
        Part { partition: id, span: Some(span), messages: 100, outputs: 300, offset: 12_401 },
        Part { partition: other, span: None, messages: 0, outputs: 0, offset: 77 },
    ];
    let transaction = TransactionRecord {
        author: author(0xb2, 17),
        slot: 0,
        end: End::Committed,
        open_us: 81_234,
        parts,
    };
    let wider = Span { first: 12_300, end: 12_401 };
    let done = Event::Committed(Outcome::Processed);
    let entries = [moved(id, wider, done, Note::Transaction(17)), Entry::Transaction(transaction)];
    journal.append(&entries, DAY_MS + 3_200).unwrap();
    let failed = Event::RolledBack(Reason::Error);
    let later = Span { first: 12_500, end: 12_502 };
    let note = Note::Failure("card declined".into());
    let entries =
        [moved(id, later, Event::Start, Note::None), moved(id, Span::one(12_501), failed, note)];
    journal.append(&entries, DAY_MS + 3_300).unwrap();
    (journal, id)
}

fn told(journal: &Journal, offset: u64) -> String {
    let report = why(journal, "orders", 3, offset).unwrap();
    let mut out = String::new();
    text::write_why(&mut out, &report).unwrap();
    out
}

#[test]
fn the_story_of_a_message_that_a_kill_interrupted() {
    let (journal, _) = killed();
    let expected = "\
orders/3@12345 is confirmed: its outputs are visible, exactly once. It was handed to the handler 2 \
times, never because it failed itself.

What happened, in order (times are UTC):
  2026-11-18T11:06:41.000Z  it was signed in, to be handled (delivery 1) (together with its \
neighbours: 100 messages, offsets 12300..=12399)
      in the process with incarnation 00000000000000a1
  -- here the process ended and was started again --
  2026-11-18T11:06:43.100Z  the process had been killed while it was being handled; Kafka's \
committed offset showed that nothing of it had become visible (together with its neighbours: 100 \
messages, offsets 12300..=12399)
  2026-11-18T11:06:43.100Z  it was made ready to be handled again (together with its neighbours: \
100 messages, offsets 12300..=12399)
  2026-11-18T11:06:43.100Z  it was signed in, to be handled (delivery 2) (together with its \
neighbours: 100 messages, offsets 12300..=12399)
      in the process with incarnation 00000000000000b2
  2026-11-18T11:06:43.200Z  the transaction with its outputs and its offset was committed \
(together with its neighbours: 100 messages, offsets 12300..=12400)
      transaction 17 of payments-a-0: committed, open for 81.2 ms
        it held 100 messages of orders/3 with 300 outputs, and committed offset 12401
        it held 0 messages of orders/1 with 0 outputs, and committed offset 77
";
    assert_eq!(told(&journal, 12_345), expected);
}

#[test]
fn an_error_is_quoted_and_each_kind_of_absence_is_told_apart() {
    let (journal, _) = killed();
    let failed = told(&journal, 12_501);
    assert!(failed.contains("rolled_back (error)") && failed.contains("error: card declined"));
    assert!(!told(&journal, 12_500).contains("declined"));
    let known = |offset| why(&journal, "orders", 3, offset).unwrap().known;
    assert_eq!(known(5), Known::BeforeTheStore { first: 12_300 });
    assert_eq!(known(12_450), Known::Gap);
    assert_eq!(known(12_502), Known::NotReceived { last: Some(12_501) });
    let nothing = why(&journal, "orders", 1, 0).unwrap().known;
    assert_eq!(nothing, Known::NotReceived { last: None });
    let error = why(&journal, "bills", 0, 1).unwrap_err().to_string();
    assert!(error.contains("bills/0") && error.contains("orders/3"), "{error}");
}

#[test]
fn a_takeover_within_one_process_is_not_called_a_kill() {
    let (mut journal, id) = killed();
    let crashed = Event::RolledBack(Reason::Crashed);
    let entry = moved(id, Span::one(12_500), crashed, Note::None);
    journal.append(&[entry], DAY_MS + 4_000).unwrap();
    let story = told(&journal, 12_500);
    assert!(story.contains("taken over anew") && !story.contains("killed"), "{story}");
}

#[test]
fn another_author_is_named() {
    let (mut journal, id) = killed();
    let event = Event::FoundDone(Outcome::Elsewhere);
    let theirs = Author { instance: "payments-b-1".into(), ..author(0xc3, 4) };
    let span = Span { first: 12_500, end: 12_502 };
    journal.append(&[moved(id, span, event, Note::Author(theirs))], DAY_MS + 4_000).unwrap();
    let story = told(&journal, 12_501);
    assert!(story.contains("another instance had done it"), "{story}");
    assert!(story.contains("transaction 4 of payments-b-1"), "{story}");
}

#[test]
fn the_state_counts_and_lists() {
    let (journal, _) = killed();
    let report = state(&journal).unwrap();
    assert_eq!((report.totals.confirmed, report.totals.rolled_back), (100, 1));
    assert_eq!((report.totals.processing, report.totals.total), (1, 102));
    assert_eq!(report.totals.rolled_back_by_reason["error"], 1);
    let json = serde_json::to_value(&report).unwrap();
    let ranges = &json["partitions"][1]["ranges"]["confirmed"];
    assert_eq!(*ranges, serde_json::json!({"first": [{"first": 12300, "last": 12400}], "more": 0}));
    assert_eq!(json["last_transactions"][0]["number"], 17);
    let mut out = String::new();
    text::write_state(&mut out, &report).unwrap();
    assert!(out.contains("orders/3: 102 messages, 1 processing, 100 confirmed (processed 100)"));
    assert!(out.contains("confirmed    12300..=12400"), "{out}");
}

#[test]
fn many_ranges_are_counted_and_not_listed() {
    let image = MemoryImage::shared();
    let mut journal = open(&image, 1, DAY_MS);
    let id = journal.intern("orders", 0, [1; 16]).unwrap();
    let starts = (0..30).map(|n| moved(id, Span::one(2 * n), Event::Start, Note::None));
    journal.append(&starts.collect::<Vec<_>>(), DAY_MS).unwrap();
    let report = state(&journal).unwrap();
    let ranges = &report.partitions[0].ranges["processing"];
    assert_eq!((ranges.first.len(), ranges.more), (20, 10));
}

#[test]
fn targets_are_parsed() {
    assert_eq!(parse_target("orders/3@12345"), Some(("orders", 3, 12_345)));
    assert_eq!(parse_target("a.b-c_d/0@0"), Some(("a.b-c_d", 0, 0)));
    for bad in ["orders/3", "orders@3", "/3@1", "orders/x@1", "orders/3@-1", ""] {
        assert_eq!(parse_target(bad), None, "{bad}");
    }
}

#[test]
fn the_story_of_a_poison_pill_says_why_it_was_given_up() {
    let image = MemoryImage::shared();
    let mut journal = open(&image, 0xa1, DAY_MS);
    let id = journal.intern("orders", 3, [1; 16]).unwrap();
    let (span, ended) = (Span::one(7), "the process ended in each of the 3 times");
    let entries = [
        moved(id, span, Event::Start, Note::None),
        moved(id, span, Event::RolledBack(Reason::Crashed), Note::Failure(ended.into())),
        moved(id, span, Event::Again, Note::None),
        moved(id, span, Event::Start, Note::None),
        moved(id, span, Event::Committed(Outcome::DeadLettered), Note::Transaction(4)),
    ];
    journal.append(&entries, DAY_MS + 1_000).unwrap();
    let told = told(&journal, 7);
    let pill = "it was taken for a poison pill, and not handled\n      error: the process ended in";
    assert!(told.contains(pill), "{told}");
    assert!(!told.contains("taken over") && !told.contains("killed"), "{told}");
}
