//! What an independent reader sees: the input, the outputs and the dead letters.

use std::collections::HashMap;
use std::time::Duration;

use rdkafka::Message as _;
use rdkafka::message::BorrowedMessage;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::reader::{Isolation, OwnedRecord, ReaderError, for_each};

use super::plan::OUTPUTS;

/// The topic that is read.
pub const INPUT: &str = "soak-in";

/// The topic of the dead letters.
pub const LETTERS: &str = "soak-dead";

/// The value of an output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Value {
    /// Of which message.
    pub index: u64,
    /// Made by which attempt.
    pub attempt: u32,
}

/// An output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    /// Where it is.
    pub partition: u32,
    /// Where in the partition.
    pub offset: u64,
    /// Its key.
    pub key: String,
    /// Of which message.
    pub index: u64,
    /// Made by which attempt.
    pub attempt: u32,
}

/// A dead letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// Where it is.
    pub partition: u32,
    /// Where in the partition.
    pub offset: u64,
    /// Its key.
    pub key: String,
    /// Its value.
    pub value: Vec<u8>,
    /// Partition and offset of the message.
    pub original: (u32, u64),
    /// Why it was given up.
    pub disposition: String,
    /// How it failed.
    pub class: String,
    /// How often it failed.
    pub attempts: u32,
}

/// All that was read; each topic in the order of its partitions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Log {
    /// The messages, by partition and offset.
    pub inputs: HashMap<(u32, u64), u64>,
    /// The outputs, by topic.
    pub outputs: [Vec<Made>; OUTPUTS.len()],
    /// The dead letters.
    pub letters: Vec<Letter>,
}

/// The topics could not be read, or hold what nobody wrote.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LogError {
    /// Reading failed.
    #[error(transparent)]
    Reader(#[from] ReaderError),
    /// A record is none of ours.
    #[error("{topic}/{partition}@{offset} is none of ours: {what}")]
    Foreign {
        /// Its topic.
        topic: String,
        /// Its partition.
        partition: i32,
        /// Its offset.
        offset: i64,
        /// What is wrong with it.
        what: String,
    },
}

impl Log {
    /// Reads all topics to their ends.
    ///
    /// # Errors
    /// Kafka cannot be read, or a topic holds what was not written by the run.
    pub fn read(bootstrap: &str, timeout: Duration) -> Result<Self, LogError> {
        let mut log = Self::default();
        each(bootstrap, INPUT, timeout, |message| {
            let index = number(message.payload()).ok_or("it has no number")?;
            log.inputs.insert(place(message), index);
            Ok(())
        })?;
        for (topic, outputs) in OUTPUTS.into_iter().zip(&mut log.outputs) {
            each(bootstrap, topic, timeout, |message| {
                let (partition, offset) = place(message);
                let key = String::from_utf8_lossy(message.key().unwrap_or_default()).into_owned();
                let value = message.payload().unwrap_or_default();
                let Value { index, attempt } =
                    serde_json::from_slice(value).map_err(|error| error.to_string())?;
                outputs.push(Made { partition, offset, key, index, attempt });
                Ok(())
            })?;
        }
        each(bootstrap, LETTERS, timeout, |message| {
            log.letters.push(letter(message.into()).ok_or("a header is missing")?);
            Ok(())
        })?;
        Ok(log)
    }

    /// The number of the message at a partition and an offset.
    pub fn index_of(&self, place: (u32, u64)) -> Option<u64> {
        self.inputs.get(&place).copied()
    }
}

fn each(
    bootstrap: &str,
    topic: &str,
    timeout: Duration,
    mut read: impl FnMut(&BorrowedMessage<'_>) -> Result<(), String>,
) -> Result<(), LogError> {
    let mut foreign = None;
    for_each(bootstrap, topic, Isolation::Committed, timeout, |message| {
        if let Err(what) = read(message) {
            let (partition, offset) = (message.partition(), message.offset());
            let topic = topic.to_owned();
            foreign.get_or_insert(LogError::Foreign { topic, partition, offset, what });
        }
    })?;
    foreign.map_or(Ok(()), Err)
}

fn place(message: &BorrowedMessage<'_>) -> (u32, u64) {
    (message.partition().unsigned_abs(), message.offset().unsigned_abs())
}

/// The number that a message begins with, whether the rest can be decoded or not.
fn number(value: Option<&[u8]>) -> Option<u64> {
    let rest = value?.strip_prefix(br#"{"index":"#)?;
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    std::str::from_utf8(rest.get(..digits)?).ok()?.parse().ok()
}

/// A dead letter by the names of KIP-1317, which the reader knows by itself.
fn letter(record: OwnedRecord) -> Option<Letter> {
    let text = |name: &str| {
        let name = format!("_dlq.errors.{name}");
        let (_, value) = record.headers.iter().find(|(found, _)| *found == name)?;
        String::from_utf8(value.clone()?).ok()
    };
    if text("original.topic")? != INPUT {
        return None;
    }
    Some(Letter {
        partition: record.partition,
        offset: record.offset,
        original: (
            text("original.partition")?.parse().ok()?,
            text("original.offset")?.parse().ok()?,
        ),
        disposition: text("disposition")?,
        class: text("class")?,
        attempts: text("attempts")?.parse().ok()?,
        key: String::from_utf8(record.key?).ok()?,
        value: record.value?,
    })
}
