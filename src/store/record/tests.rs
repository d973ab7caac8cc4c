//! Exact sizes and bytes, round trips, and decoding of anything without a panic.

use countersign_statemachine::{
    End, Event, History, Outcome, Part, PartitionId, Reason, Run, Span, State, Verb,
};
use proptest::prelude::*;

use super::*;

fn outcome() -> impl Strategy<Value = Outcome> {
    prop::sample::select(Outcome::ALL.to_vec())
}

fn reason() -> impl Strategy<Value = Reason> {
    prop::sample::select(Reason::ALL.to_vec())
}

fn state() -> impl Strategy<Value = State> {
    prop_oneof![
        Just(State::Pending),
        Just(State::Processing),
        Just(State::InDoubt),
        outcome().prop_map(State::Confirmed),
        reason().prop_map(State::RolledBack),
    ]
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        Just(Event::Start),
        outcome().prop_map(Event::Committed),
        Just(Event::ReplyLost),
        reason().prop_map(Event::RolledBack),
        Just(Event::Again),
        outcome().prop_map(Event::FoundDone),
        Just(Event::Rewound),
        prop::sample::select(Verb::ALL.to_vec()).prop_map(Event::Intervened),
    ]
}

fn note() -> impl Strategy<Value = StoredNote> {
    prop_oneof![
        Just(StoredNote::None),
        any::<u64>().prop_map(StoredNote::Transaction),
        any::<String>().prop_map(StoredNote::Failure),
        any::<(u32, u64)>().prop_map(|(id, number)| StoredNote::Author(AuthorId(id), number)),
        any::<(String, String)>().prop_map(|(by, why)| StoredNote::Operator(by, why)),
    ]
}

fn span() -> impl Strategy<Value = (Span, u64)> {
    (any::<u64>(), 1_u64.., any::<u64>()).prop_filter_map("fits", |(first, len, count)| {
        let span = Span::new(first, first.checked_add(len)?)?;
        Some((span, count % (len.saturating_add(1))))
    })
}

prop_compose! {
    fn run()(
        partition: u32, (span, count) in span(), state in state(),
        attempt: u32, deliveries: u32, life: u32,
    ) -> Record {
        let history = History { state, attempt, deliveries, life };
        let run = Run { span, count, history };
        Record::Run(RunRecord { partition: PartitionId(partition), run })
    }
}

prop_compose! {
    fn history()(
        partition: u32,
        first in 0..u64::MAX / 2,
        sequence in 0..u64::MAX / 2,
        happenings in prop::collection::vec(
            (1..1_000_u64, any::<u64>(), event(), 1..u64::MAX / 2, any::<u64>(), note()), 1..5),
    ) -> Record {
        let mut sequence = sequence;
        let mut happenings = happenings.into_iter().map(|(step, at_ms, event, len, count, note)| {
            sequence += step;
            let span = Span { first, end: first + len };
            let count = count % (len + 1);
            Happening { sequence: Sequence(sequence), at_ms, event, span, count, note }
        });
        let first = happenings.next().expect("one at least");
        let later = happenings.collect();
        Record::History(HistoryRecord { partition: PartitionId(partition), first, later })
    }
}

prop_compose! {
    fn part()(
        partition: u32, offset: u64, messages: u64, outputs: u64,
        span in prop::option::of(span()),
    ) -> Part {
        let partition = PartitionId(partition);
        Part { partition, span: span.map(|(span, _)| span), messages, outputs, offset }
    }
}

prop_compose! {
    fn transaction()(
        ordinal: u64, at_ms: u64, author: u32, number: u64, slot: u32, open_us: u64,
        end in prop::sample::select(vec![
            End::Committed, End::FoundCommitted, End::Aborted, End::InDoubt]),
        parts in prop::collection::vec(part(), 0..5),
    ) -> Record {
        let (ordinal, author) = (Ordinal(ordinal), AuthorId(author));
        Record::Transaction(StoredTransaction {
            ordinal, at_ms, author, number, slot, end, open_us, parts,
        })
    }
}

fn named() -> impl Strategy<Value = Record> {
    prop_oneof![
        any::<(u32, String, String, String)>().prop_map(|(format, cluster_id, group, instance)| {
            let identity = Identity { cluster_id, group, instance };
            Record::Identity(IdentityRecord { format, identity })
        }),
        any::<(u32, u64, u64)>().prop_map(|(number, incarnation, opened_at_ms)| {
            Record::Session(SessionRecord { number, incarnation, opened_at_ms })
        }),
        any::<(u32, String, u32, [u8; 16])>().prop_map(|(id, topic, partition, topic_id)| {
            Record::Topic(TopicRecord { id: PartitionId(id), topic, partition, topic_id })
        }),
        any::<(u32, String, u64)>().prop_map(|(id, instance, incarnation)| {
            Record::Author(AuthorRecord { id: AuthorId(id), instance, incarnation })
        }),
        any::<String>().prop_map(|transactional_id| Record::Slot(SlotRecord { transactional_id })),
    ]
}

fn record() -> impl Strategy<Value = Record> {
    prop_oneof![named(), run(), history(), transaction()]
}

fn bytes_of(record: &Record) -> (Vec<u8>, Vec<u8>) {
    match record {
        Record::Identity(it) => (it.key(), it.value()),
        Record::Session(it) => (it.key(), it.value()),
        Record::Topic(it) => (it.key(), it.value()),
        Record::Author(it) => (it.key(), it.value()),
        Record::Run(it) => (it.key(), it.value()),
        Record::History(it) => (it.key(), it.value()),
        Record::Transaction(it) => (it.key(), it.value()),
        Record::Slot(it) => (it.key(), it.value()),
    }
}

proptest! {
    #[test]
    fn every_record_survives(record in record()) {
        let (key, value) = bytes_of(&record);
        prop_assert_eq!(Record::read(&key, &value), Ok(record));
    }

    #[test]
    fn no_bytes_panic(kind in 0_u8..10, key: Vec<u8>, value: Vec<u8>) {
        let key = [[kind].as_slice(), &key].concat();
        let versioned = [[1].as_slice(), &value].concat();
        for value in [&value, &versioned] {
            if let Ok(record) = Record::read(&key, value) {
                prop_assert_eq!(bytes_of(&record).0, key.clone());
            }
        }
    }

    #[test]
    fn no_damage_panics(record in record(), at: prop::sample::Index, flip in 1_u8..) {
        let (key, mut value) = bytes_of(&record);
        let at = at.index(value.len());
        prop_assert!(Record::read(&key, &value[..at]).is_err());
        value[at] ^= flip;
        // Another valid value may come of it; the store's own checksums are against that.
        drop(Record::read(&key, &value));
    }

    #[test]
    fn keys_sort_by_partition_and_offset(a: (u32, u64), b: (u32, u64)) {
        let key = |(partition, first)| RunRecord::key_at(PartitionId(partition), first);
        prop_assert_eq!(key(a).cmp(&key(b)), a.cmp(&b));
    }
}

/// Persisted bytes: a change here is a change of the format.
#[test]
fn the_bytes_are_those_of_the_format_document() {
    let history = History { state: State::Confirmed(Outcome::Processed), ..History::CLEAN };
    let span = Span { first: 300, end: 556 };
    let run = RunRecord { partition: PartitionId(2), run: Run { span, count: 255, history } };
    assert_eq!(run.key(), [5, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 1, 0x2c]);
    assert_eq!(run.value(), [1, 0x41, 0x80, 2, 1, 0, 1, 0]);

    let first = Happening {
        sequence: Sequence(Sequence::first_of(1).0 + 4),
        at_ms: 1_000,
        event: Event::Start,
        span: Span { first: 300, end: 555 },
        count: 255,
        note: StoredNote::None,
    };
    let committed = Happening {
        sequence: Sequence(first.sequence.0 + 8),
        at_ms: 999,
        event: Event::Committed(Outcome::Processed),
        span,
        count: 255,
        note: StoredNote::Transaction(17),
    };
    let later = vec![committed];
    let history = HistoryRecord { partition: PartitionId(2), first, later };
    assert_eq!(history.key(), [6, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 1, 0x2c, 0, 0, 1, 0, 0, 0, 0, 4]);
    assert_eq!(
        history.value(),
        [1, 0xe8, 7, 2, 0, 0, 0x10, 0xff, 1, 0, 0, 8, 1, 0x21, 0x80, 2, 1, 1, 17]
    );

    let part = Part {
        partition: PartitionId(2),
        span: Some(span),
        messages: 255,
        outputs: 3,
        offset: 556,
    };
    let transaction = StoredTransaction {
        ordinal: Ordinal(9),
        at_ms: 1_001,
        author: AuthorId(1),
        number: 17,
        slot: 0,
        end: End::Committed,
        open_us: 81,
        parts: vec![part],
    };
    assert_eq!(transaction.key(), [7, 0, 0, 0, 0, 0, 0, 0, 9]);
    assert_eq!(
        transaction.value(),
        [1, 0xe9, 7, 1, 17, 0, 1, 81, 1, 2, 0xac, 4, 1, 0, 0x80, 2, 0xff, 1, 3]
    );
}

#[test]
fn the_named_records_have_the_bytes_of_the_format_document() {
    let identity = Identity { cluster_id: "c".into(), group: "g".into(), instance: "i".into() };
    let record = IdentityRecord { format: 1, identity };
    assert_eq!((record.key(), record.value()), (vec![1], vec![1, 1, 1, b'c', 1, b'g', 1, b'i']));
    let record = SessionRecord { number: 3, incarnation: 5, opened_at_ms: 1_000 };
    assert_eq!((record.key(), record.value()), (vec![2, 0, 0, 0, 3], vec![1, 5, 0xe8, 7]));
    let id = PartitionId(2);
    let record = TopicRecord { id, topic: "t".into(), partition: 3, topic_id: [7; 16] };
    assert_eq!(record.key(), [3, 0, 0, 0, 2]);
    assert_eq!(record.value(), [vec![1, 1, b't', 3], vec![7; 16]].concat());
    let record = AuthorRecord { id: AuthorId(4), instance: "i-0".into(), incarnation: 5 };
    assert_eq!(record.key(), [4, 0, 0, 0, 4]);
    assert_eq!(record.value(), [1, 3, b'i', b'-', b'0', 5]);
    let record = SlotRecord { transactional_id: "g-i-0-1".into() };
    assert_eq!((record.key(), record.value()), (b"\x08g-i-0-1".to_vec(), vec![1]));
}

#[test]
fn an_unknown_version_is_named() {
    let error = Record::read(b"\x08slot", &[2]).expect_err("no version 2 yet");
    assert_eq!(error, Malformed::Version { record: "slot", version: 2 });
}
