//! Where a message comes from in the first place, however often it was moved since.
//!
//! A dead letter carries it, and keeps what it finds: when a letter is read again, and becomes a
//! letter again, its origin is still the message that somebody wrote. One line of text:
//! `1 vPeOCWypqUOSepEvx0cbog orders 3 12345` is version, topic id as Kafka writes it, topic,
//! partition and offset. The id tells the topic from later ones of the same name.

use data_encoding::BASE64URL_NOPAD;

use crate::kafka::{Header, TopicPartition};

/// The header's name.
pub const HEADER: &str = "countersign.origin";

const VERSION: &str = "1";

/// A message as it was written first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The topic's id.
    pub topic_id: [u8; 16],
    /// The partition, with the topic's name at that time.
    pub partition: TopicPartition,
    /// The offset.
    pub offset: u64,
}

impl Origin {
    /// The topic's id as Kafka writes it.
    pub fn topic_id_text(&self) -> String {
        BASE64URL_NOPAD.encode(&self.topic_id)
    }

    pub(crate) fn header(&self) -> Header {
        let Self { partition: TopicPartition { topic, partition }, offset, .. } = self;
        let id = self.topic_id_text();
        let value = format!("{VERSION} {id} {topic} {partition} {offset}");
        Header { name: HEADER.into(), value: Some(value.into()) }
    }

    /// Reads a header's value; `None` if it is not ours.
    pub fn read(text: &str) -> Option<Self> {
        let fields: Vec<&str> = text.split(' ').collect();
        let &[VERSION, id, topic, partition, offset] = fields.as_slice() else { return None };
        let topic_id = BASE64URL_NOPAD.decode(id.as_bytes()).ok()?.try_into().ok()?;
        let partition = TopicPartition::new(topic, partition.parse().ok()?);
        Some(Self { topic_id, partition, offset: offset.parse().ok()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let origin = Origin {
            topic_id: [7; 16],
            partition: TopicPartition::new("orders", 3),
            offset: 12_345,
        };
        let header = origin.header();
        let value = header.value.expect("there is one");
        assert_eq!(value, "1 BwcHBwcHBwcHBwcHBwcHBw orders 3 12345");
        let text = std::str::from_utf8(&value).expect("it is text");
        assert_eq!(Origin::read(text), Some(origin));
    }

    #[test]
    fn anything_else_is_not_ours() {
        for text in ["", "1", "2 BwcHBwcHBwcHBwcHBwcHBw orders 3 1", "1 short orders 3 1"] {
            assert_eq!(Origin::read(text), None, "{text}");
        }
    }
}
