//! The header that every output carries: where it comes from.
//!
//! One line of text, so that any Kafka tool shows it:
//! `1 payments-a-0 9f3c2a1b00d4e5f6 17 orders 3 12345 1/2` is version, instance with worker,
//! incarnation (hexadecimal), transaction number, source topic, partition, offset, and "first of
//! two outputs". None of the fields can hold a space. See `docs/format.md`.

use std::fmt::Write as _;

use countersign_statemachine::Author;
use thiserror::Error;

use crate::kafka::TopicPartition;

/// The header's name.
pub const HEADER: &str = "countersign";

const VERSION: &str = "1";

/// Where an output comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provenance {
    /// Which transaction of which process made it.
    pub author: Author,
    /// The partition of the input message.
    pub partition: TopicPartition,
    /// The offset of the input message.
    pub offset: u64,
    /// Which of the message's outputs this is, from 1.
    pub n: u32,
    /// How many outputs the message has.
    pub of: u32,
}

/// Why a header cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ProvenanceError {
    /// It was written by a newer Countersign.
    #[error("version {0:?} of the provenance header is not known")]
    UnknownVersion(String),
    /// It is not a provenance header.
    #[error("the provenance header is malformed: {0}")]
    Malformed(&'static str),
}

impl Provenance {
    /// Writes the header's value, replacing what `buffer` held.
    pub fn write(&self, buffer: &mut String) {
        let Self { author, partition, offset, n, of } = self;
        Mark::new(author, partition).write(*offset, *n, *of, buffer);
    }

    /// Reads a header's value.
    ///
    /// # Errors
    /// See [`ProvenanceError`].
    pub fn read(value: &[u8]) -> Result<Self, ProvenanceError> {
        let malformed = ProvenanceError::Malformed;
        let text = std::str::from_utf8(value).map_err(|_| malformed("it is not text"))?;
        let mut fields = text.split(' ');
        let mut next = |what| fields.next().filter(|f| !f.is_empty()).ok_or(malformed(what));
        let version = next("it is empty")?;
        if version != VERSION {
            return Err(ProvenanceError::UnknownVersion(version.to_owned()));
        }
        let instance = next("no instance")?.to_owned();
        let incarnation = next("no incarnation")?;
        let number = next("no transaction number")?;
        let topic = next("no topic")?;
        let partition = next("no partition")?;
        let offset = next("no offset")?;
        let (n, of) = next("no ordinal")?.split_once('/').ok_or(malformed("no n of m"))?;
        if fields.next().is_some() {
            return Err(malformed("more fields than version 1 has"));
        }
        let incarnation =
            u64::from_str_radix(incarnation, 16).map_err(|_| malformed("incarnation"))?;
        let number = number.parse().map_err(|_| malformed("transaction number"))?;
        let partition = partition.parse().map_err(|_| malformed("partition"))?;
        let offset = offset.parse().map_err(|_| malformed("offset"))?;
        let n = n.parse().map_err(|_| malformed("n of m"))?;
        let of = of.parse().map_err(|_| malformed("n of m"))?;
        let author = Author { instance, incarnation, number };
        Ok(Self { author, partition: TopicPartition::new(topic, partition), offset, n, of })
    }
}

/// The part of the header that all outputs of a partition in a transaction share.
#[derive(Debug)]
pub(crate) struct Mark(String);

impl Mark {
    pub(crate) fn new(author: &Author, partition: &TopicPartition) -> Self {
        let Author { instance, incarnation, number } = author;
        let TopicPartition { topic, partition } = partition;
        Self(format!("{VERSION} {instance} {incarnation:016x} {number} {topic} {partition} "))
    }

    /// How long the line is at most, without what [`own_bytes`](Self::own_bytes) counts. The
    /// number of the transaction is not known before it is sent: it is taken to have ten digits,
    /// which last a process for a year of 300 transactions per second.
    pub(crate) fn bytes_max(author: &Author, partition: &TopicPartition) -> usize {
        let fixed = VERSION.len() + author.instance.len() + 16 + 10 + partition.topic.len();
        // Five spaces, and the one before the offset.
        fixed + digits(partition.partition.into()) + 6
    }

    /// How long the part is that each output has of its own.
    pub(crate) fn own_bytes(offset: u64, n: usize, of: usize) -> usize {
        digits(offset) + 2 + digits(n as u64) + digits(of as u64)
    }

    pub(crate) fn write(&self, offset: u64, n: u32, of: u32, buffer: &mut String) {
        buffer.clear();
        buffer.push_str(&self.0);
        write!(buffer, "{offset} {n}/{of}").expect("writing to a string cannot fail");
    }
}

fn digits(number: u64) -> usize {
    number.checked_ilog10().unwrap_or(0) as usize + 1
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            instance in "[a-zA-Z0-9._-]{1,40}",
            topic in "[a-zA-Z0-9._-]{1,40}",
            incarnation: u64, number: u64, partition: u32, offset: u64, n: u32, of: u32,
        ) {
            let author = Author { instance, incarnation, number };
            let partition = TopicPartition::new(topic, partition);
            let provenance = Provenance { author, partition, offset, n, of };
            let mut buffer = String::from("rubbish");
            provenance.write(&mut buffer);
            prop_assert_eq!(Provenance::read(buffer.as_bytes()), Ok(provenance));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            let _ = Provenance::read(&bytes);
        }
    }

    #[test]
    fn the_length_is_known_before_it_is_written() {
        let partition = TopicPartition::new("orders", 12);
        for (number, spare) in [(9_999_999_999, 0), (1_000_000_000, 0), (0, 9)] {
            let author = Author { instance: "a-0".to_owned(), incarnation: 7, number };
            let mut line = String::new();
            for (offset, n, of) in [(0, 1, 1), (9, 9, 10), (12_345, 10, 10), (u64::MAX, 1, 1)] {
                let (n_of, of_of) = (n as usize, of as usize);
                Mark::new(&author, &partition).write(offset, n, of, &mut line);
                let told =
                    Mark::bytes_max(&author, &partition) + Mark::own_bytes(offset, n_of, of_of);
                assert_eq!(told, line.len() + spare, "{line}");
            }
        }
    }

    #[test]
    fn an_unknown_version_is_named() {
        let read = Provenance::read(b"2 something else");
        assert_eq!(read, Err(ProvenanceError::UnknownVersion("2".to_owned())));
    }
}
