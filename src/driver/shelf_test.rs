//! What is done beyond the position gives its memory back, and nothing that is needed goes with it.

use proptest::prelude::*;

use crate::driver::budget::Budget;
use crate::kafka::BatchBuilder;

use super::*;

const RECORDS: u64 = 60;

/// A shelf with batches of six records, and room for less than all of them.
fn shelf() -> (Shelf, Budget) {
    let partition = TopicPartition::new("in", 0);
    let budget = Budget::new(30 * 250);
    let mut shelf = Shelf::new(partition.clone(), 1, budget.share());
    for first in (0..RECORDS).step_by(6) {
        let mut builder = BatchBuilder::new(partition.clone());
        for offset in first..first + 6 {
            let value = format!("value {offset}");
            let header = [(&b"name"[..], Some(&b"text"[..]))];
            builder.push(offset, Some(7), Some(b"key"), Some(value.as_bytes()), header);
        }
        let batch = builder.build();
        shelf.share.take(&batch);
        let spans = shelf.receive(batch);
        assert_eq!(spans, [Span { first, end: first + 6 }]);
    }
    (shelf, budget)
}

fn found(shelf: &Shelf, offset: u64) -> Option<crate::kafka::Record> {
    let batches = shelf.batches(Span::one(offset));
    batches.iter().find_map(|(batch, fresh)| {
        let index = batch.index_of(offset).max(*fresh);
        batch.record(index).filter(|record| record.offset() == offset)
    })
}

proptest! {
    #[test]
    fn only_what_is_done_is_dropped(
        done in prop::collection::vec(prop::collection::btree_set(0..RECORDS, 0..30), 0..5),
    ) {
        let (mut shelf, budget) = shelf();
        let mut all = std::collections::BTreeSet::new();
        for some in done {
            let fresh: Vec<u64> = some.into_iter().filter(|at| all.insert(*at)).collect();
            let position = (0..RECORDS).find(|at| !all.contains(at)).unwrap_or(RECORDS);
            let beyond = fresh.iter().filter(|at| **at > position).map(|at| Span::one(*at));
            shelf.release(position, &beyond.collect::<Vec<_>>());
        }
        for offset in (0..RECORDS).filter(|at| !all.contains(at)) {
            let record = found(&shelf, offset).expect("it is not done");
            let value = format!("value {offset}");
            prop_assert_eq!(record.value(), Some(value.as_bytes()));
            prop_assert_eq!((record.key(), record.timestamp()), (Some(&b"key"[..]), Some(7)));
            prop_assert_eq!(record.headers().count(), 1);
        }
        let kept: usize = shelf.batches.iter().map(|(batch, _)| batch.len()).sum();
        let open = (0..RECORDS).filter(|at| !all.contains(at)).count();
        prop_assert!(kept <= 2 * open + 6, "{} records are kept for {}", kept, open);
        shelf.release(u64::MAX, &[]);
        prop_assert!(!budget.is_spent() && shelf.share.is_small(), "all of it is given back");
    }
}

#[test]
fn memory_that_is_spent_beyond_a_stuck_message_is_room_again() {
    let (mut shelf, budget) = shelf();
    assert!(budget.is_spent());
    assert!(shelf.release(0, &[Span { first: 1, end: RECORDS }]));
    assert!(!budget.is_spent());
    assert!(found(&shelf, 0).is_some());
}

#[test]
fn keys_are_told_apart_and_none_is_one_of_them() {
    assert_eq!(lane_of(Some(b"a")), lane_of(Some(b"a")));
    assert_ne!(lane_of(Some(b"a")), lane_of(Some(b"b")));
    assert_ne!(lane_of(Some(b"a")), lane_of(None));
}
