//! How large a record is to a broker.
//!
//! A broker compares the bytes of each record batch with the topic's `max.message.bytes` as they
//! arrive, compressed if they are. A batch of several records is kept below every limit by the
//! producer's `batch.size`, so what remains is a record that is too large alone.

use super::Output;

/// The fields of a batch before its records (version 2 of the format).
const BATCH_BYTES: usize = 61;

/// A producer without a limit of its own takes records of as many bytes (`message.max.bytes`), and
/// fills batches up to as many (`batch.size`): librdkafka's defaults for both.
pub const DEFAULT_BATCH_BYTES: u32 = 1_000_000;

/// How large the batches of a producer may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// A batch of several records, before it is compressed (`batch.size`). Compression makes none
    /// larger: librdkafka sends what does not shrink as it is.
    pub batch_bytes: u32,
    /// A record, before it is compressed (`message.max.bytes`).
    pub record_bytes: u32,
}

impl Default for Sizes {
    fn default() -> Self {
        Self { batch_bytes: DEFAULT_BATCH_BYTES, record_bytes: DEFAULT_BATCH_BYTES }
    }
}

/// The bytes of a batch with this record alone, not compressed. A provenance header of `mark` bytes
/// takes the place of one that the output has.
pub fn batch_bytes(output: &Output, mark: Option<usize>) -> usize {
    let own = output
        .headers
        .iter()
        .filter(|header| mark.is_none() || &*header.name != crate::provenance::HEADER)
        .map(|header| (header.name.len(), header.value.as_ref().map(bytes::Bytes::len)));
    let mark = mark.map(|len| (crate::provenance::HEADER.len(), Some(len)));
    let (mut count, mut headers) = (0, 0);
    for (name, value) in own.chain(mark) {
        count += 1;
        headers += data_bytes(Some(name)) + data_bytes(value);
    }
    // Attributes, and the distances to the batch's own timestamp and offset, are a byte each.
    let record = 3
        + data_bytes(output.key.as_ref().map(bytes::Bytes::len))
        + data_bytes(output.value.as_ref().map(bytes::Bytes::len))
        + number_bytes(count)
        + headers;
    BATCH_BYTES + number_bytes(record) + record
}

/// Data with its length before it; absent data has the length -1.
fn data_bytes(len: Option<usize>) -> usize {
    len.map_or(1, |len| number_bytes(len) + len)
}

/// A number that is not negative as a zigzag varint: seven bits a byte, one of them for the sign.
fn number_bytes(number: usize) -> usize {
    let bits = usize::BITS + 1 - number.leading_zeros();
    bits.div_ceil(7) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::Header;

    fn output(key: Option<usize>, value: Option<usize>) -> Output {
        let data = |len: usize| vec![b'x'; len].into();
        Output {
            topic: "out".into(),
            partition: 0,
            key: key.map(data),
            value: value.map(data),
            headers: Vec::new(),
            timestamp: None,
        }
    }

    #[test]
    fn lengths_take_a_byte_for_each_seven_bits() {
        let table =
            [(0, 1), (63, 1), (64, 2), (8_191, 2), (8_192, 3), (1_048_575, 3), (1_048_576, 4)];
        for (number, bytes) in table {
            assert_eq!(number_bytes(number), bytes, "{number}");
        }
    }

    /// As `kafka-dump-log` shows them.
    #[test]
    fn a_batch_has_the_bytes_that_a_broker_counts() {
        assert_eq!(batch_bytes(&output(None, None), None), 61 + 1 + 6);
        assert_eq!(batch_bytes(&output(Some(1), Some(10)), None), 61 + 1 + 17);
        assert_eq!(batch_bytes(&output(None, Some(100)), None), 61 + 2 + 107);
        let header = Header { name: "h".into(), value: None };
        let with = Output { headers: vec![header], ..output(None, None) };
        assert_eq!(batch_bytes(&with, None), 61 + 1 + 6 + 3);
    }

    #[test]
    fn the_mark_takes_the_place_of_an_earlier_one() {
        let header = Header { name: crate::provenance::HEADER.into(), value: Some("old".into()) };
        let with = Output { headers: vec![header], ..output(None, None) };
        assert_eq!(batch_bytes(&with, Some(30)), batch_bytes(&output(None, None), Some(30)));
        assert_eq!(batch_bytes(&with, Some(3)), batch_bytes(&with, None));
    }
}
