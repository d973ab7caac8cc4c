//! What a store is told of clean traffic.

use countersign::store::Identity;
use countersign_statemachine::{
    Author, End, Entry, Event, Moved, Note, Outcome, Part, PartitionId, Span, TransactionRecord,
};

/// Whose store it is.
pub(crate) fn identity() -> Identity {
    Identity {
        cluster_id: "MkU3OEVBNTcwNTJENDM2Qk".to_owned(),
        group: "payments".to_owned(),
        instance: "payments-a".to_owned(),
    }
}

/// The messages of a span in each partition are signed in.
pub(crate) fn signed_in(span: Span, ids: &[PartitionId]) -> impl Iterator<Item = Entry> + '_ {
    ids.iter().map(move |&id| moved(id, span, Event::Start, Note::None))
}

/// They are committed, in one transaction of this number.
pub(crate) fn committed(
    incarnation: u64,
    number: u64,
    span: Span,
    ids: &[PartitionId],
) -> impl Iterator<Item = Entry> + '_ {
    let event = Event::Committed(Outcome::Processed);
    let moves = ids.iter().map(move |&id| moved(id, span, event, Note::Transaction(number)));
    moves.chain([Entry::Transaction(ended(incarnation, number, span, ids))])
}

fn moved(partition: PartitionId, span: Span, event: Event, note: Note) -> Entry {
    Entry::Moved(Moved { partition, span, event, note })
}

fn ended(incarnation: u64, number: u64, span: Span, ids: &[PartitionId]) -> TransactionRecord {
    let author = Author { instance: "payments-a-0".to_owned(), incarnation, number };
    let part = |&partition| Part {
        partition,
        span: Some(span),
        messages: span.len(),
        outputs: span.len(),
        offset: span.end,
    };
    let slot = u32::from(number % 2 == 1);
    let parts = ids.iter().map(part).collect();
    TransactionRecord { author, slot, end: End::Committed, open_us: 81_234, parts }
}
