//! Checks by an independent `read_committed` reader that an output is the whole input, once.

use std::fmt;
use std::time::Duration;

use countersign_testkit::reader::{Isolation, ReaderError, for_each};
use rdkafka::Message as _;

use crate::case::Case;
use crate::data;

const PATIENCE: Duration = Duration::from_secs(300);

/// What the reader found.
#[derive(Debug, Default)]
pub(crate) struct Output {
    found: u64,
    seen: Vec<bool>,
    doubled: u64,
    damaged: u64,
    disordered: u64,
    /// The last number and offset of each partition.
    last: Vec<Option<(u64, i64)>>,
    /// When the broker appended the first record, in milliseconds since the epoch.
    pub(crate) first_ms: Option<i64>,
    /// When it appended the last.
    pub(crate) last_ms: Option<i64>,
}

/// Reads an output topic.
pub(crate) fn read(brokers: &str, topic: &str, case: &Case) -> Result<Output, ReaderError> {
    let records = usize::try_from(case.records).unwrap_or(usize::MAX);
    let mut output = Output { seen: vec![false; records], ..Output::default() };
    let mut expected = Vec::with_capacity(case.bytes);
    for_each(brokers, topic, Isolation::Committed, PATIENCE, |message| {
        output.note_time(message.timestamp().to_millis());
        let value = message.payload().unwrap_or_default();
        let Some(index) = data::index(value, case.data) else {
            output.damaged += 1;
            return;
        };
        data::fill(&mut expected, case.data, index, case.bytes);
        output.damaged += u64::from(value != expected);
        output.note(index, message.partition(), message.offset());
    })?;
    Ok(output)
}

impl Output {
    fn note_time(&mut self, time: Option<i64>) {
        self.found += 1;
        self.first_ms = self.first_ms.into_iter().chain(time).min();
        self.last_ms = self.last_ms.into_iter().chain(time).max();
    }

    fn note(&mut self, index: u64, partition: i32, offset: i64) {
        match usize::try_from(index).ok().and_then(|index| self.seen.get_mut(index)) {
            Some(seen) if !*seen => *seen = true,
            Some(_) => self.doubled += 1,
            None => self.damaged += 1,
        }
        let at = usize::try_from(partition).unwrap_or_default();
        if at >= self.last.len() {
            self.last.resize(at + 1, None);
        }
        if let Some(last) = self.last.get_mut(at) {
            self.disordered += u64::from(last.is_some_and(|(before, _)| before >= index));
            *last = Some((index, offset));
        }
    }

    fn lost(&self) -> usize {
        self.seen.iter().filter(|seen| !**seen).count()
    }

    /// Whether it is the input, each record once, in order of each partition, byte for byte.
    pub(crate) fn is_exact(&self) -> bool {
        self.is_once() && self.disordered == 0
    }

    /// Whether it is the input, each record once, byte for byte, in any order.
    pub(crate) fn is_once(&self) -> bool {
        self.lost() == 0 && self.doubled == 0 && self.damaged == 0
    }

    /// How long the broker was appending, in milliseconds.
    pub(crate) fn window_ms(&self) -> Option<(f64, f64)> {
        let (first, last) = (self.first_ms?, self.last_ms?);
        // Shorter than the clock's resolution is as long as the resolution.
        Some((first as f64, last.max(first + 1) as f64))
    }

    /// How many records of a partition one transaction had, from the offsets that its markers
    /// took; the last marker of a partition comes after the last record.
    pub(crate) fn records_per_marker(&self) -> Option<f64> {
        let ends: i64 = self.last.iter().flatten().map(|(_, offset)| offset + 2).sum();
        let markers = ends - i64::try_from(self.found).ok()?;
        let used = self.last.iter().flatten().count();
        // Without transactions every partition would seem to have one.
        (markers > i64::try_from(used).ok()?).then(|| self.found as f64 / markers as f64)
    }
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} records: {} lost, {} doubled, {} damaged, {} out of order",
            self.found,
            self.lost(),
            self.doubled,
            self.damaged,
            self.disordered
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(notes: &[(u64, i32, i64)]) -> Output {
        let mut output = Output { seen: vec![false; 3], ..Output::default() };
        for &(index, partition, offset) in notes {
            output.note_time(Some(100 + offset));
            output.note(index, partition, offset);
        }
        output
    }

    #[test]
    fn the_whole_input_once_is_exact() {
        let output = output(&[(0, 0, 0), (1, 1, 0), (2, 0, 2)]);
        assert!(output.is_exact(), "{output}");
        assert_eq!(output.window_ms(), Some((100.0, 102.0)));
        // Partition 0: a marker after each record; partition 1: one.
        assert_eq!(output.records_per_marker(), Some(1.0));
    }

    #[test]
    fn what_is_lost_doubled_or_out_of_order_is_not() {
        assert!(!output(&[(0, 0, 0), (1, 0, 1)]).is_exact());
        assert!(!output(&[(0, 0, 0), (1, 0, 1), (2, 0, 2), (2, 1, 0)]).is_exact());
        assert!(!output(&[(0, 0, 0), (2, 0, 1), (1, 0, 2)]).is_exact());
        assert!(!output(&[(0, 0, 0), (1, 0, 1), (2, 0, 2), (3, 0, 3)]).is_exact());
    }
}
