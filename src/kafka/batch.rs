//! Records of one partition in one shared buffer.
//!
//! A batch is filled once, on the poll thread, and then only read: however many records it has, it
//! owns one buffer and three vectors, and handing a record to a handler copies a pointer.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::TopicPartition;

/// A record's header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Its name; may repeat within a record.
    pub name: Arc<str>,
    /// Its value.
    pub value: Option<Bytes>,
}

/// Records of one partition, in strictly rising offset order.
#[derive(Clone)]
pub struct Batch(Arc<Inner>);

struct Inner {
    partition: TopicPartition,
    buffer: Bytes,
    entries: Vec<Entry>,
    headers: Vec<HeaderEntry>,
}

struct Entry {
    offset: u64,
    timestamp: Option<i64>,
    key: Option<Range<usize>>,
    value: Option<Range<usize>>,
    headers: Range<usize>,
}

struct HeaderEntry {
    name: Range<usize>,
    value: Option<Range<usize>>,
}

impl Batch {
    /// Which partition the records are from.
    pub fn partition(&self) -> &TopicPartition {
        &self.0.partition
    }

    /// How many records there are.
    pub fn len(&self) -> usize {
        self.0.entries.len()
    }

    /// Whether there is no record.
    pub fn is_empty(&self) -> bool {
        self.0.entries.is_empty()
    }

    /// Bytes of keys, values and headers.
    pub fn bytes(&self) -> usize {
        self.0.buffer.len()
    }

    /// The offset of the record at `index`.
    pub fn offset(&self, index: usize) -> Option<u64> {
        self.0.entries.get(index).map(|entry| entry.offset)
    }

    /// One past the last offset; zero if there is no record.
    pub fn end(&self) -> u64 {
        self.0.entries.last().map_or(0, |entry| entry.offset + 1)
    }

    /// Whether a record lies below `offset`.
    pub fn begins_below(&self, offset: u64) -> bool {
        self.offset(0).is_some_and(|first| first < offset)
    }

    /// Whether some data is a slice of this batch.
    pub(crate) fn holds(&self, data: &[u8]) -> bool {
        let buffer = self.0.buffer.as_ptr().addr();
        data.as_ptr().addr().wrapping_sub(buffer) < self.0.buffer.len()
    }

    /// The records at offsets that are wanted, in a buffer of their own.
    #[must_use]
    pub fn only(&self, wanted: impl Fn(u64) -> bool) -> Self {
        let mut builder = BatchBuilder::new(self.partition().clone());
        let slice = |range: &Range<usize>| self.0.buffer.get(range.clone()).unwrap_or_default();
        for entry in self.0.entries.iter().filter(|entry| wanted(entry.offset)) {
            let headers = self.0.headers.get(entry.headers.clone()).unwrap_or_default();
            let headers = headers.iter().map(|h| (slice(&h.name), h.value.as_ref().map(slice)));
            let (key, value) = (entry.key.as_ref().map(slice), entry.value.as_ref().map(slice));
            builder.push(entry.offset, entry.timestamp, key, value, headers);
        }
        builder.build()
    }

    /// The record at `index`.
    pub fn record(&self, index: usize) -> Option<Record> {
        (index < self.len()).then(|| Record { batch: self.clone(), index })
    }

    /// The index of the first record at or after `offset`.
    pub fn index_of(&self, offset: u64) -> usize {
        self.0.entries.partition_point(|entry| entry.offset < offset)
    }
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch")
            .field("partition", &self.0.partition)
            .field("records", &self.len())
            .field("first", &self.offset(0))
            .finish_non_exhaustive()
    }
}

/// One record of a batch, cheap to clone.
#[derive(Clone)]
pub struct Record {
    batch: Batch,
    index: usize,
}

impl Record {
    fn entry(&self) -> &Entry {
        &self.batch.0.entries[self.index]
    }

    fn slice(&self, range: &Range<usize>) -> &[u8] {
        &self.batch.0.buffer[range.clone()]
    }

    /// The partition it was read from.
    pub fn partition(&self) -> &TopicPartition {
        self.batch.partition()
    }

    /// Its offset.
    pub fn offset(&self) -> u64 {
        self.entry().offset
    }

    /// Milliseconds since the epoch, as the producer or the broker set them.
    pub fn timestamp(&self) -> Option<i64> {
        self.entry().timestamp
    }

    /// Its key.
    pub fn key(&self) -> Option<&[u8]> {
        self.entry().key.as_ref().map(|range| self.slice(range))
    }

    /// Its value; `None` is a tombstone.
    pub fn value(&self) -> Option<&[u8]> {
        self.entry().value.as_ref().map(|range| self.slice(range))
    }

    /// Its key, sharing the batch's buffer.
    pub fn key_bytes(&self) -> Option<Bytes> {
        self.entry().key.clone().map(|range| self.batch.0.buffer.slice(range))
    }

    /// Its value, sharing the batch's buffer.
    pub fn value_bytes(&self) -> Option<Bytes> {
        self.entry().value.clone().map(|range| self.batch.0.buffer.slice(range))
    }

    /// Its headers, in order. A name that is not UTF-8 is shown with replacement characters.
    pub fn headers(&self) -> impl Iterator<Item = Header> + '_ {
        self.batch.0.headers[self.entry().headers.clone()].iter().map(|header| Header {
            name: Arc::from(String::from_utf8_lossy(self.slice(&header.name))),
            value: header.value.clone().map(|range| self.batch.0.buffer.slice(range)),
        })
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Record({}@{})", self.partition(), self.offset())
    }
}

/// Fills a [`Batch`].
#[derive(Debug)]
pub struct BatchBuilder {
    partition: TopicPartition,
    buffer: Vec<u8>,
    entries: Vec<Entry>,
    headers: Vec<HeaderEntry>,
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Entry({})", self.offset)
    }
}

impl fmt::Debug for HeaderEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HeaderEntry({:?})", self.name)
    }
}

impl BatchBuilder {
    /// Starts an empty batch.
    pub fn new(partition: TopicPartition) -> Self {
        Self { partition, buffer: Vec::new(), entries: Vec::new(), headers: Vec::new() }
    }

    /// Makes room for what is about to be added.
    pub fn reserve(&mut self, records: usize, bytes: usize) {
        self.entries.reserve(records);
        self.buffer.reserve(bytes);
    }

    /// Which partition the records are from.
    pub fn partition(&self) -> &TopicPartition {
        &self.partition
    }

    /// How many records were added.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether no record was added.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes added.
    pub fn bytes(&self) -> usize {
        self.buffer.len()
    }

    /// Adds a record. One whose offset is not above the last one's is a repetition and is ignored.
    pub fn push<'a>(
        &mut self,
        offset: u64,
        timestamp: Option<i64>,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: impl IntoIterator<Item = (&'a [u8], Option<&'a [u8]>)>,
    ) {
        if self.entries.last().is_some_and(|last| last.offset >= offset) {
            return;
        }
        let key = key.map(|bytes| self.append(bytes));
        let value = value.map(|bytes| self.append(bytes));
        let first_header = self.headers.len();
        for (name, value) in headers {
            let name = self.append(name);
            let value = value.map(|bytes| self.append(bytes));
            self.headers.push(HeaderEntry { name, value });
        }
        let headers = first_header..self.headers.len();
        self.entries.push(Entry { offset, timestamp, key, value, headers });
    }

    fn append(&mut self, bytes: &[u8]) -> Range<usize> {
        let start = self.buffer.len();
        self.buffer.extend_from_slice(bytes);
        start..self.buffer.len()
    }

    /// Ends the batch.
    pub fn build(self) -> Batch {
        Batch(Arc::new(Inner {
            partition: self.partition,
            buffer: Bytes::from(self.buffer),
            entries: self.entries,
            headers: self.headers,
        }))
    }
}
