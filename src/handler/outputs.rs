//! What a handler gives back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use thiserror::Error;

use crate::kafka::{Header, Output, Topic, batch_bytes};
use crate::limits::Limit;
use crate::provenance::Mark;

use super::partitioner::{Partitioning, partition_of_key};

/// The outputs of one message: all of them become visible, or none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outputs(Few);

/// Most messages have one output, which then needs no list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
enum Few {
    #[default]
    None,
    One(To),
    Many(Vec<To>),
}

impl Outputs {
    /// No output: the message is done by being consumed.
    pub fn none() -> Self {
        Self::default()
    }

    /// One output.
    pub fn one(record: To) -> Self {
        Self(Few::One(record))
    }

    /// Adds an output.
    #[must_use]
    pub fn and(mut self, record: To) -> Self {
        self.push(record);
        self
    }

    /// Adds an output in place.
    pub fn push(&mut self, record: To) {
        self.0 = match std::mem::take(&mut self.0) {
            Few::None => Few::One(record),
            Few::One(first) => Few::Many(vec![first, record]),
            Few::Many(mut records) => {
                records.push(record);
                Few::Many(records)
            }
        };
    }

    /// How many outputs there are.
    pub fn len(&self) -> usize {
        match &self.0 {
            Few::None => 0,
            Few::One(_) => 1,
            Few::Many(records) => records.len(),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl From<To> for Outputs {
    fn from(record: To) -> Self {
        Self::one(record)
    }
}

impl FromIterator<To> for Outputs {
    fn from_iter<I: IntoIterator<Item = To>>(records: I) -> Self {
        let mut records: Vec<To> = records.into_iter().collect();
        Self(match records.len() {
            0 => Few::None,
            1 => records.pop().map_or(Few::None, Few::One),
            _ => Few::Many(records),
        })
    }
}

/// One output record, addressed to a topic.
#[derive(Debug, Clone)]
pub struct To {
    topic: Arc<str>,
    partitioning: Partitioning,
    key: Option<Bytes>,
    value: Option<Bytes>,
    /// Few outputs have any, and what a handler gives back is moved a lot.
    headers: Option<Box<Headers>>,
    timestamp: Option<i64>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Headers(Vec<Header>);

impl PartialEq for To {
    fn eq(&self, other: &Self) -> bool {
        self.topic == other.topic
            && self.key == other.key
            && self.value == other.value
            && self.headers == other.headers
            && self.timestamp == other.timestamp
    }
}

impl Eq for To {}

impl To {
    /// A record for `topic`, without key or value so far.
    pub fn topic(topic: impl Into<Arc<str>>) -> Self {
        Self {
            topic: topic.into(),
            partitioning: Partitioning::ByKey,
            key: None,
            value: None,
            headers: None,
            timestamp: None,
        }
    }

    /// Sets the key.
    #[must_use]
    pub fn key(self, key: impl Into<Bytes>) -> Self {
        Self { key: Some(key.into()), ..self }
    }

    /// Sets the key, or none.
    #[must_use]
    pub fn key_opt(self, key: Option<Bytes>) -> Self {
        Self { key, ..self }
    }

    /// Sets the value.
    #[must_use]
    pub fn value(self, value: impl Into<Bytes>) -> Self {
        Self { value: Some(value.into()), ..self }
    }

    /// Sets the value, or a tombstone.
    #[must_use]
    pub fn value_opt(self, value: Option<Bytes>) -> Self {
        Self { value, ..self }
    }

    /// Sets the value to JSON.
    ///
    /// # Errors
    /// The value cannot be serialized.
    pub fn json<T: serde::Serialize>(self, value: &T) -> Result<Self, serde_json::Error> {
        Ok(self.value(serde_json::to_vec(value)?))
    }

    /// Sets the value to postcard.
    ///
    /// # Errors
    /// The value cannot be serialized.
    pub fn postcard<T: serde::Serialize>(self, value: &T) -> Result<Self, postcard::Error> {
        Ok(self.value(postcard::to_stdvec(value)?))
    }

    /// Adds a header.
    #[must_use]
    pub fn header(self, name: impl Into<Arc<str>>, value: impl Into<Bytes>) -> Self {
        self.headers([Header { name: name.into(), value: Some(value.into()) }])
    }

    /// Adds headers as they are.
    #[must_use]
    pub fn headers(mut self, headers: impl IntoIterator<Item = Header>) -> Self {
        self.headers.get_or_insert_default().0.extend(headers);
        self
    }

    /// Sets the timestamp, in milliseconds since the epoch; otherwise it is the time of sending.
    #[must_use]
    pub fn timestamp(self, timestamp: i64) -> Self {
        Self { timestamp: Some(timestamp), ..self }
    }

    /// Chooses how the partition is found.
    #[must_use]
    pub fn partitioning(self, partitioning: Partitioning) -> Self {
        Self { partitioning, ..self }
    }

    /// Sends it to this partition.
    #[must_use]
    pub fn partition(self, partition: u32) -> Self {
        self.partitioning(Partitioning::To(partition))
    }
}

/// Why an output cannot be sent.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum OutputError {
    #[error("output topic {topic:?} is not declared; add it to the processor's outputs")]
    Undeclared { topic: Arc<str> },
    #[error(
        "output topic {topic:?} has {partitions} partitions, so there is no partition {partition}"
    )]
    NoPartition { topic: Arc<str>, partition: u32, partitions: u32 },
    #[error(
        "an output for topic {topic:?} has {bytes} bytes as a record batch, and the topic takes at \
         most {limit} (max.message.bytes, or the producer's message.max.bytes)"
    )]
    TooLarge { topic: Arc<str>, bytes: usize, limit: usize },
}

/// The input partition that outputs come from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Source {
    pub(crate) partition: u32,
    /// How many partitions its topic has.
    pub(crate) partitions: u32,
    /// How long the shared part of the provenance header is, if outputs have one.
    pub(crate) mark: Option<usize>,
}

/// The output topics with their partitions.
#[derive(Debug, Default)]
pub(crate) struct Topics {
    topics: BTreeMap<Arc<str>, Target>,
}

#[derive(Debug)]
struct Target {
    name: Arc<str>,
    partitions: u32,
    turn: AtomicU32,
    limit: Limit,
}

impl Topics {
    pub(crate) fn new(topics: &[Topic], limit: impl Fn(&str) -> Limit) -> Self {
        let target = |topic: &Topic| {
            let name = Arc::clone(&topic.name);
            let target = Target {
                name: Arc::clone(&name),
                partitions: topic.partitions,
                turn: AtomicU32::new(0),
                limit: limit(&name),
            };
            (name, target)
        };
        Self { topics: topics.iter().map(target).collect() }
    }

    /// Addresses and measures the outputs of the message at `offset` and appends them to `sink`;
    /// all of them, or none.
    pub(crate) fn address(
        &self,
        outputs: Outputs,
        source: Source,
        offset: u64,
        sink: &mut Vec<Output>,
    ) -> Result<(), OutputError> {
        let (before, of) = (sink.len(), outputs.len());
        let mark = |n| source.mark.map(|shared| shared + Mark::own_bytes(offset, n, of));
        let addressed = match outputs.0 {
            Few::None => Ok(()),
            Few::One(record) => self.output(record, source, mark(1), sink),
            Few::Many(records) => {
                let mut records = (1..).zip(records);
                records.try_for_each(|(n, record)| self.output(record, source, mark(n), sink))
            }
        };
        if addressed.is_err() {
            sink.truncate(before);
        }
        addressed
    }

    /// Adds an output to `sink`, also one that is too large.
    fn output(
        &self,
        record: To,
        source: Source,
        mark: Option<usize>,
        sink: &mut Vec<Output>,
    ) -> Result<(), OutputError> {
        let Some(target) = self.topics.get(&record.topic) else {
            return Err(OutputError::Undeclared { topic: record.topic });
        };
        let partitions = target.partitions;
        let in_turn = || target.turn.fetch_add(1, Ordering::Relaxed) % partitions;
        let partition = match (&record.partitioning, &record.key) {
            (Partitioning::AsInput, _) if source.partitions == partitions => source.partition,
            (Partitioning::ByKey | Partitioning::AsInput, Some(key)) => {
                partition_of_key(key, partitions)
            }
            (Partitioning::ByKey | Partitioning::AsInput, None) | (Partitioning::RoundRobin, _) => {
                in_turn()
            }
            (Partitioning::To(partition), _) => *partition,
            (Partitioning::With(choose), key) => choose(key.as_deref(), partitions),
        };
        if partition >= partitions {
            return Err(OutputError::NoPartition { topic: record.topic, partition, partitions });
        }
        sink.push(Output {
            topic: Arc::clone(&target.name),
            partition,
            key: record.key,
            value: record.value,
            headers: record.headers.map_or_else(Vec::new, |headers| headers.0),
            timestamp: record.timestamp,
        });
        let Some(limit) = target.limit.bytes() else { return Ok(()) };
        let bytes = sink.last().map_or(0, |output| batch_bytes(output, mark));
        if bytes > limit {
            let topic = Arc::clone(&target.name);
            return Err(OutputError::TooLarge { topic, bytes, limit });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::librdkafka::ClusterConfig;
    use crate::limits::Limits;

    fn partition(record: To, source: Source) -> Result<u32, OutputError> {
        let topic = Topic { name: "out".into(), id: [1; 16], partitions: 4 };
        let mut sink = Vec::new();
        Topics::new(&[topic], |_| Limit::default()).address(record.into(), source, 0, &mut sink)?;
        Ok(sink[0].partition)
    }

    #[test]
    fn an_output_keeps_the_inputs_partition_only_where_there_are_as_many() {
        let record = To::topic("out").key("k").partitioning(Partitioning::AsInput);
        let of_key = partition_of_key(b"k", 4);
        let as_many = Source { partition: (of_key + 1) % 4, partitions: 4, mark: None };
        assert_eq!(partition(record.clone(), as_many), Ok(as_many.partition));
        let fewer = Source { partition: (of_key + 1) % 3, partitions: 3, mark: None };
        assert_eq!(partition(record, fewer), Ok(of_key));
    }

    /// One that is as large as the topic takes, with its header, and one that is a byte larger:
    /// then neither it nor what precedes it is sent.
    #[test]
    fn an_output_may_be_as_large_as_its_topic_takes() {
        let topic = Topic { name: "out".into(), id: [1; 16], partitions: 4 };
        let cluster = ClusterConfig::new("", "", ["in"]);
        let limits = Limits::new(["out".into()], &cluster);
        let topics = Topics::new(&[topic], |topic| limits.of(topic));
        let source = Source { partition: 0, partitions: 4, mark: Some(40) };
        let outputs = |len: usize| -> Outputs {
            [1, len]
                .map(|len| To::topic("out").partition(0).value(vec![b'x'; len]))
                .into_iter()
                .collect()
        };
        let mut sink = Vec::new();
        topics.address(outputs(5_000), source, 7, &mut sink).expect("there is no limit yet");
        let mark = 40 + Mark::own_bytes(7, 2, 2);
        let bytes = batch_bytes(&sink[1], Some(mark));
        sink.clear();
        limits.set(&[("out".into(), u32::try_from(bytes).ok())]);
        assert_eq!(topics.address(outputs(5_000), source, 7, &mut sink), Ok(()));
        let refused = topics.address(outputs(5_001), source, 7, &mut sink);
        let (topic, limit) = ("out".into(), bytes);
        assert_eq!(refused, Err(OutputError::TooLarge { topic, bytes: bytes + 1, limit }));
        assert_eq!(sink.len(), 2, "all of them, or none");
    }

    #[test]
    fn outputs_that_cannot_be_addressed_are_refused_by_name() {
        let source = Source { partition: 0, partitions: 4, mark: None };
        let topic: Arc<str> = "out".into();
        let error = OutputError::NoPartition { topic, partition: 4, partitions: 4 };
        assert_eq!(partition(To::topic("out").partition(4), source), Err(error));
        let error = OutputError::Undeclared { topic: "other".into() };
        assert_eq!(partition(To::topic("other"), source), Err(error));
    }
}
