//! Folding entries into runs, and writing down what they say.

use std::collections::BTreeSet;

use countersign_statemachine::{
    Author, End, Entry, Event, Moved, Note, PartitionId, Runs, Span, TransactionRecord,
};

use super::{Journal, Partition};
use crate::store::record::{
    AuthorId, AuthorRecord, Happening, HistoryRecord, Ordinal, RunRecord, Sequence, Stored,
    StoredNote, StoredTransaction,
};
use crate::store::{Batch, StoreError};

/// A record that is added to for longer would be written anew too often.
const HAPPENINGS_MAX: usize = 16;

/// How many history records per partition may be added to; beyond it new ones are begun.
const RECENT_MAX: usize = 4_096;

/// An error text is cut there: it explains, and must not fill the store.
const FAILURE_MAX: usize = 512;

impl Journal {
    /// Records what happened at `at_ms` (milliseconds since 1970 UTC) in one batch, durable after
    /// the next [`flush`](Self::flush).
    ///
    /// # Errors
    /// [`Inconsistent`](StoreError::Inconsistent) or
    /// [`UnknownPartition`](StoreError::UnknownPartition): the entries before it are recorded, it
    /// and those after it are not. Otherwise the store is full or failed, and the journal takes no
    /// more writes.
    pub fn append(&mut self, entries: &[Entry], at_ms: u64) -> Result<(), StoreError> {
        self.session()?;
        let mut batch = Batch::default();
        let mut touched = BTreeSet::new();
        let mut outcome = Ok(());
        for (index, entry) in entries.iter().enumerate() {
            outcome = match entry {
                Entry::Moved(moved) => {
                    touched.insert(moved.partition);
                    self.fold(index, moved, at_ms, &mut batch)
                }
                Entry::Transaction(record) => {
                    self.put_transaction(record, at_ms, &mut batch);
                    Ok(())
                }
            };
            if outcome.is_err() {
                break;
            }
        }
        for id in touched {
            self.put_runs(id, &mut batch);
        }
        self.write(&batch)?;
        outcome
    }

    fn fold(
        &mut self,
        index: usize,
        moved: &Moved,
        at_ms: u64,
        batch: &mut Batch,
    ) -> Result<(), StoreError> {
        let id = moved.partition;
        let unknown = StoreError::UnknownPartition { id: id.0 };
        let partition = self.partitions.get_mut(&id).ok_or(unknown)?;
        let count = count_in(&partition.runs, moved.span, moved.event);
        partition.runs.apply(moved.span, moved.event).map_err(|source| {
            StoreError::Inconsistent { index, partition: partition.name.to_string(), source }
        })?;
        let note = self.store_note(&moved.note, batch);
        let sequence = self.next_sequence()?;
        let Moved { span, event, .. } = *moved;
        let happening = Happening { sequence, at_ms, event, span, count, note };
        self.put_history(id, happening, batch)
    }

    fn next_sequence(&mut self) -> Result<Sequence, StoreError> {
        let session = self.session()?;
        let sequence = session.next;
        session.next = Sequence(sequence.0 + 1);
        Ok(sequence)
    }

    fn store_note(&mut self, note: &Note, batch: &mut Batch) -> StoredNote {
        match note {
            Note::None => StoredNote::None,
            Note::Transaction(number) => StoredNote::Transaction(*number),
            Note::Failure(text) => StoredNote::Failure(cut(text).to_owned()),
            Note::Author(author) => {
                StoredNote::Author(self.intern_author(author, batch), author.number)
            }
            Note::Operator { by, reason } => {
                StoredNote::Operator(cut(by).to_owned(), cut(reason).to_owned())
            }
        }
    }

    fn intern_author(&mut self, author: &Author, batch: &mut Batch) -> AuthorId {
        let name = (author.instance.clone(), author.incarnation);
        if let Some(&id) = self.author_numbers.get(&name) {
            return id;
        }
        let id = AuthorId(self.authors.last_key_value().map_or(0, |(last, _)| last.0 + 1));
        let Author { instance, incarnation, number: _ } = author.clone();
        let record = AuthorRecord { id, instance, incarnation };
        batch.put(record.key(), record.value());
        self.author_numbers.insert(name, id);
        self.authors.insert(id, record);
        id
    }

    /// Adds to the record of the same first offset if there is one of this session, so that the
    /// beginning and the end of a clean transaction share one.
    fn put_history(
        &mut self,
        id: PartitionId,
        happening: Happening,
        batch: &mut Batch,
    ) -> Result<(), StoreError> {
        let first = happening.span.first;
        let ends = ends_a_story(happening.event);
        let span = happening.span;
        let sequence = self.partitions.get(&id).and_then(|it| it.recent.get(&first).copied());
        let before = match sequence {
            Some(sequence) => self.read_history(id, first, sequence, batch)?,
            None => None,
        };
        let record = match before {
            Some(mut record) if record.later.len() + 1 < HAPPENINGS_MAX => {
                record.later.push(happening);
                record
            }
            Some(_) | None => HistoryRecord { partition: id, first: happening, later: Vec::new() },
        };
        batch.put(record.key(), record.value());
        self.session()?.sweep.note(&record, record.later.is_empty());
        if let Some(partition) = self.partitions.get_mut(&id) {
            partition.note_recent(span, record.first.sequence, ends);
        }
        Ok(())
    }

    fn read_history(
        &self,
        id: PartitionId,
        first: u64,
        sequence: Sequence,
        batch: &Batch,
    ) -> Result<Option<HistoryRecord>, StoreError> {
        let key = HistoryRecord::key_at(id, first, sequence);
        let value = match batch.pending(&key) {
            Some(pending) => pending.map(<[u8]>::to_vec),
            None => self.store.get(&key)?,
        };
        Ok(value.map(|value| HistoryRecord::read(&key, &value)).transpose()?)
    }

    pub(in crate::store) fn put_runs(&mut self, id: PartitionId, batch: &mut Batch) {
        let Some(partition) = self.partitions.get_mut(&id) else { return };
        for change in partition.runs.take_changes() {
            match change.run {
                Some(run) => {
                    let record = RunRecord { partition: id, run };
                    batch.put(record.key(), record.value());
                }
                None => batch.delete(RunRecord::key_at(id, change.first)),
            }
        }
    }

    fn put_transaction(&mut self, record: &TransactionRecord, at_ms: u64, batch: &mut Batch) {
        let author = self.intern_author(&record.author, batch);
        let number = record.author.number;
        let ordinal = self.in_doubt.remove(&(author, number)).unwrap_or_else(|| {
            let next = Ordinal(self.ordinals.end);
            self.ordinals.end += 1;
            next
        });
        match record.end {
            End::InDoubt => {
                self.in_doubt.insert((author, number), ordinal);
            }
            End::Committed | End::FoundCommitted | End::Aborted => {}
        }
        let TransactionRecord { author: _, slot, end, open_us, parts } = record.clone();
        let stored =
            StoredTransaction { ordinal, at_ms, author, number, slot, end, open_us, parts };
        batch.put(stored.key(), stored.value());
    }
}

impl Partition {
    fn note_recent(&mut self, span: Span, sequence: Sequence, ends: bool) {
        if ends {
            let ended: Vec<u64> =
                self.recent.range(span.first..span.end).map(|(&first, _)| first).collect();
            for first in ended {
                self.recent.remove(&first);
            }
            return;
        }
        if self.recent.len() >= RECENT_MAX {
            self.recent.pop_first();
        }
        self.recent.insert(span.first, sequence);
    }
}

/// How many messages an event concerns: every offset of a span that begins a history holds one.
fn count_in(runs: &Runs, span: Span, event: Event) -> u64 {
    match event {
        Event::Start | Event::Intervened(_) => span.len(),
        Event::Committed(_)
        | Event::ReplyLost
        | Event::RolledBack(_)
        | Event::Again
        | Event::FoundDone(_)
        | Event::Rewound => {
            let parts = runs.overlapping(span);
            let inside = parts
                .iter()
                .filter_map(|run| run.span.intersect(span).map(|part| part.len().min(run.count)));
            inside.sum()
        }
    }
}

/// After it, as a rule, nothing more happens to a span.
const fn ends_a_story(event: Event) -> bool {
    match event {
        Event::Committed(_) | Event::FoundDone(_) => true,
        Event::Start
        | Event::ReplyLost
        | Event::RolledBack(_)
        | Event::Again
        | Event::Rewound
        | Event::Intervened(_) => false,
    }
}

fn cut(text: &str) -> &str {
    let mut end = text.len().min(FAILURE_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}
