//! The topics that a producer writes to, and what of their partitions has no report yet.
//!
//! A batch that is full is sent by itself; of what does not fill one, librdkafka waits for more
//! until it lingers too long or is flushed. So [`Topics::hold_a_batch`] tells whether reports come
//! without a flush.

use std::collections::{BTreeMap, VecDeque};
use std::ffi::CString;
use std::sync::Arc;

use bytes::Bytes;
use rdkafka::client::NativeClient;

use super::classify::{Unflagged, classify, classify_binding};
use super::raw::{Message, Topic};
use crate::kafka::{KafkaError, Output};

/// When a batch is full: more than so many bytes (`batch.size`), or so many records
/// (`batch.num.messages`).
#[derive(Debug, Clone, Copy)]
pub(super) struct Full {
    pub(super) bytes: u64,
    pub(super) records: usize,
}

/// There are few topics, and records come in runs of one.
#[derive(Debug)]
pub(super) struct Topics {
    open: Vec<Open>,
    last: usize,
    full: Full,
}

/// A topic that records were sent to.
#[derive(Debug)]
pub(super) struct Open {
    name: Arc<str>,
    pub(super) handle: Topic,
    unreported: BTreeMap<u32, Unreported>,
}

/// The sizes of a partition's records that have no report, in the order in which they were sent:
/// an idempotent producer has them reported in that order.
#[derive(Debug, Default)]
struct Unreported {
    sizes: VecDeque<u32>,
    bytes: u64,
}

impl Unreported {
    fn add(&mut self, size: u32) {
        self.sizes.push_back(size);
        self.bytes += u64::from(size);
    }

    fn report(&mut self, records: usize) {
        let reported = self.sizes.drain(..records.min(self.sizes.len()));
        self.bytes -= reported.map(u64::from).sum::<u64>();
    }

    fn fills(&self, full: Full) -> bool {
        self.bytes > full.bytes || self.sizes.len() >= full.records
    }
}

impl Open {
    /// Records of one partition were handed over. Key and value are what librdkafka counts.
    pub(super) fn sent(&mut self, outputs: &[Output]) {
        let Some(first) = outputs.first() else { return };
        let unreported = self.unreported.entry(first.partition).or_default();
        let len = |data: &Option<Bytes>| data.as_ref().map_or(0, Bytes::len);
        for output in outputs {
            let size = len(&output.key) + len(&output.value);
            unreported.add(u32::try_from(size).unwrap_or(u32::MAX));
        }
    }
}

impl Topics {
    pub(super) fn new(full: Full) -> Self {
        Self { open: Vec::new(), last: 0, full }
    }

    /// Hands everything over to somebody else for a while.
    pub(super) fn take(&mut self) -> Self {
        let full = self.full;
        std::mem::replace(self, Self::new(full))
    }

    /// A topic, opened with its first record.
    pub(super) fn get(
        &mut self,
        native: &NativeClient,
        name: &Arc<str>,
    ) -> Result<&mut Open, KafkaError> {
        let is = |open: &Open| Arc::ptr_eq(&open.name, name) || open.name == *name;
        if !self.open.get(self.last).is_some_and(is) {
            self.last = match self.open.iter().position(is) {
                Some(index) => index,
                None => self.open(native, name)?,
            };
        }
        Ok(&mut self.open[self.last])
    }

    fn open(&mut self, native: &NativeClient, name: &Arc<str>) -> Result<usize, KafkaError> {
        let call = "topic_new";
        let words = CString::new(&**name).map_err(|error| classify_binding(call, &error.into()))?;
        let handle = Topic::new(native, &words)
            .map_err(|error| classify(call, error, Unflagged::Abortable))?;
        self.open.push(Open { name: Arc::clone(name), handle, unreported: BTreeMap::new() });
        Ok(self.open.len() - 1)
    }

    /// Reports of so many records came, of which this is the first; all are of one partition.
    pub(super) fn reported(&mut self, first: &Message<'_>, records: usize) {
        let mut topics = self.open.iter_mut();
        let Some(open) = topics.find(|open| open.name.as_bytes() == first.topic()) else { return };
        if let Some(unreported) = open.unreported.get_mut(&first.partition()) {
            unreported.report(records);
        }
    }

    /// Whether a batch of any partition is full and not reported.
    pub(super) fn hold_a_batch(&self) -> bool {
        let mut all = self.open.iter().flat_map(|open| open.unreported.values());
        all.any(|unreported| unreported.fills(self.full))
    }

    /// The topics that something was sent to since all was forgotten.
    pub(super) fn sent_to(&self) -> Vec<&str> {
        let sent = self.open.iter().filter(|open| !open.unreported.is_empty());
        sent.map(|open| &*open.name).collect()
    }

    /// Forgets what was sent: nothing of it is on its way any more.
    pub(super) fn forget_sent(&mut self) {
        for open in &mut self.open {
            open.unreported.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: Full = Full { bytes: 100, records: 4 };

    fn filled(sizes: &[u32]) -> Unreported {
        let mut unreported = Unreported::default();
        for &size in sizes {
            unreported.add(size);
        }
        unreported
    }

    #[test]
    fn more_than_its_bytes_or_all_of_its_records_fill_a_batch() {
        assert!(!filled(&[60, 40]).fills(FULL));
        assert!(filled(&[60, 41]).fills(FULL));
        assert!(!filled(&[0, 0, 0]).fills(FULL));
        assert!(filled(&[0, 0, 0, 0]).fills(FULL));
    }

    #[test]
    fn what_is_reported_fills_nothing_any_more() {
        let mut unreported = filled(&[60, 50, 40, 30]);
        unreported.report(1);
        assert!(unreported.fills(FULL));
        unreported.report(1);
        assert!(!unreported.fills(FULL));
        unreported.report(7);
        assert_eq!((unreported.bytes, unreported.sizes.len()), (0, 0));
    }
}
