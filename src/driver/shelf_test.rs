//! What is done beyond the position gives its memory back, and nothing that is needed goes with it.

use proptest::prelude::*;

use crate::driver::budget::Budget;
use crate::kafka::BatchBuilder;

use super::*;

const RECORDS: u64 = 60;

fn batches() -> Vec<Batch> {
    let batch = |first: u64| {
        let mut builder = BatchBuilder::new(TopicPartition::new("in", 0));
        for offset in first..first + 6 {
            let value = format!("value {offset}");
            let header = [(&b"name"[..], Some(&b"text"[..]))];
            builder.push(offset, Some(7), Some(b"key"), Some(value.as_bytes()), header);
        }
        builder.build()
    };
    (0..RECORDS).step_by(6).map(batch).collect()
}

/// A shelf with batches of six records, and room for less than all of them.
fn shelf() -> (Shelf, Budget) {
    let budget = Budget::new(30 * 250);
    let mut shelf = Shelf::new(TopicPartition::new("in", 0), 1, budget.share());
    for (first, batch) in (0..RECORDS).step_by(6).zip(batches()) {
        shelf.share.take(&batch);
        assert_eq!(shelf.receive(batch), [Span { first, end: first + 6 }]);
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

    /// What is read again takes nothing until then, and comes once.
    #[test]
    fn what_is_read_again_is_here_once(
        done in prop::collection::btree_set(0..RECORDS, 0..40),
        from in 0..RECORDS,
    ) {
        let (mut shelf, budget) = shelf();
        let before = done.iter().filter(|at| **at > 0).map(|at| Span::one(*at));
        shelf.release(0, &before.collect::<Vec<_>>());
        shelf.read_again(from);
        for offset in from..RECORDS {
            prop_assert!(found(&shelf, offset).is_none(), "{} is to be read again", offset);
        }
        for batch in batches().into_iter().filter(|batch| batch.end() > from) {
            shelf.share.take(&batch);
            let first = batch.offset(0).unwrap_or(0).max(from);
            prop_assert_eq!(shelf.receive(batch.clone()), [Span { first, end: batch.end() }]);
        }
        let again = done.iter().filter(|at| **at >= from.max(1)).map(|at| Span::one(*at));
        shelf.release(0, &again.collect::<Vec<_>>());
        for offset in (0..RECORDS).filter(|at| *at == 0 || !done.contains(at)) {
            let all = shelf.batches(Span::one(offset));
            let kept = |(batch, fresh): &(Batch, usize)| {
                (*fresh..batch.len()).any(|index| batch.offset(index) == Some(offset))
            };
            prop_assert_eq!(all.iter().filter(|batch| kept(batch)).count(), 1, "{}", offset);
        }
        shelf.release(u64::MAX, &[]);
        prop_assert!(!budget.is_spent() && shelf.share.is_small(), "all of it is given back");
    }
}

/// The share is for whole messages: one at least, and about as many as fit.
#[test]
fn what_is_beyond_the_share_is_for_others() {
    let (mut shelf, budget) = shelf();
    budget.set_for_messages(usize::MAX);
    let from = shelf.shared_from().expect("it has more than its share");
    assert!((8..12).contains(&from), "{from} messages are kept");
    shelf.read_again(from);
    assert_eq!(shelf.shared_from(), None, "it has its share");
    budget.set_for_messages(1);
    assert_eq!(shelf.shared_from(), Some(1));
}

#[test]
fn memory_that_is_spent_beyond_a_stuck_message_is_room_again() {
    let (mut shelf, budget) = shelf();
    assert!(budget.is_spent());
    assert!(shelf.release(0, &[Span { first: 1, end: RECORDS }]), "it may be read again");
    assert!(!budget.is_spent());
    assert!(found(&shelf, 0).is_some());
}

#[test]
fn keys_are_told_apart_and_none_is_one_of_them() {
    assert_eq!(lane_of(Some(b"a")), lane_of(Some(b"a")));
    assert_ne!(lane_of(Some(b"a")), lane_of(Some(b"b")));
    assert_ne!(lane_of(Some(b"a")), lane_of(None));
}
