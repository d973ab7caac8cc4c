//! The number of a partition. Another topic id under the same name is another number.

use countersign_statemachine::PartitionId;
use serde::{Deserialize, Serialize};

use super::{Fields, Malformed, Stored, decode, encode, key};

/// What a partition's number stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicRecord {
    /// The number.
    pub id: PartitionId,
    /// The topic's name.
    pub topic: String,
    /// The partition within the topic.
    pub partition: u32,
    /// The topic's id: the same name may come to mean another topic.
    pub topic_id: [u8; 16],
}

#[derive(Serialize, Deserialize)]
struct Wire {
    topic: String,
    partition: u32,
    topic_id: [u8; 16],
}

impl Stored for TopicRecord {
    const KIND: u8 = 0x03;
    const NAME: &'static str = "topic";

    fn key(&self) -> Vec<u8> {
        key(Self::KIND, &[&self.id.0.to_be_bytes()])
    }

    fn value(&self) -> Vec<u8> {
        let Self { id: _, topic, partition, topic_id } = self.clone();
        encode(&Wire { topic, partition, topic_id })
    }

    fn read(key: &[u8], value: &[u8]) -> Result<Self, Malformed> {
        let mut fields = Fields::of::<Self>(key)?;
        let id = PartitionId(fields.u32()?);
        fields.end()?;
        let Wire { topic, partition, topic_id } = decode(Self::NAME, value)?;
        Ok(Self { id, topic, partition, topic_id })
    }
}
