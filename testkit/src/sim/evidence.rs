//! What the invariants judge by: the logs, the commits and the stores, as an outsider sees them.

use std::collections::BTreeMap;

use countersign::dead_letter::{DeadLetter, LetterDisposition};
use countersign::kafka::TopicPartition;
use countersign::provenance::{self, Provenance};
use countersign::statemachine::{Run, Verb};
use countersign::store::{Journal, MemoryStore};

use crate::model::{CommitRecord, Isolation, ModelKafka, ModelRecord};

use super::feed::Feed;
use super::instance::Instance;
use super::operator::{Fate, Ordered};
use super::work::{Expected, expected};
use super::world::World;

/// A message that a reader sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Input {
    /// Its offset.
    pub offset: u64,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its value.
    pub value: Vec<u8>,
}

/// A committed output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Where it is.
    pub at: TopicPartition,
    /// Its offset there.
    pub offset: u64,
    /// Its key.
    pub key: Option<String>,
    /// Its value.
    pub value: String,
    /// The cluster's number of its transaction.
    pub transaction: Option<u64>,
    /// Why it is a dead letter, if it is one.
    pub disposition: Option<LetterDisposition>,
    /// Where it says that it comes from; `None` if that cannot be read.
    pub provenance: Option<Provenance>,
}

/// What the store of an instance says of a partition.
#[derive(Debug, Clone)]
pub struct StoredRuns {
    /// Whose store.
    pub instance: String,
    /// Which partition.
    pub partition: TopicPartition,
    /// Its runs.
    pub runs: Vec<Run>,
}

/// Everything that is left of a run.
#[derive(Debug, Clone)]
pub struct Evidence {
    /// The world.
    pub world: World,
    /// Every visible input message.
    pub inputs: BTreeMap<TopicPartition, Vec<Input>>,
    /// Every visible output, per partition in offset order.
    pub outputs: Vec<Seen>,
    /// Every commit of the group's offsets, in the order in which they were sent.
    pub commits: BTreeMap<TopicPartition, Vec<CommitRecord>>,
    /// The end of each input partition's log.
    pub ends: BTreeMap<TopicPartition, u64>,
    /// What the stores say.
    pub stores: Vec<StoredRuns>,
    /// Transactional ids with an open transaction.
    pub open: Vec<String>,
    /// Stores that cannot be read, and why.
    pub unreadable: Vec<String>,
    /// What people have ordered.
    pub orders: Vec<Ordered>,
}

impl Evidence {
    pub(super) fn collect(
        world: &World,
        kafka: &ModelKafka,
        feed: &Feed,
        instances: &[Instance],
    ) -> Self {
        let partitions = world.partitions();
        let history = |partition: &TopicPartition| {
            let mut history = kafka.commit_history(World::GROUP, partition);
            history.sort_by_key(|record| record.position);
            (partition.clone(), history)
        };
        let end = |partition: &TopicPartition| {
            let end = kafka.high_watermark(&partition.topic, partition.partition);
            (partition.clone(), end)
        };
        let open = kafka.open_transactions().into_iter().map(|t| t.transactional_id.to_string());
        let mut evidence = Self {
            world: world.clone(),
            inputs: feed.written(),
            outputs: outputs(world, kafka),
            commits: partitions.iter().map(history).collect(),
            ends: partitions.iter().map(end).collect(),
            stores: Vec::new(),
            open: open.collect(),
            unreadable: Vec::new(),
            orders: Vec::new(),
        };
        for instance in instances {
            evidence.read_store(instance);
        }
        evidence
    }

    /// What a message has to have become: its outputs, or its dead letter if there is one, or
    /// nothing if somebody has ordered that.
    pub fn wanted(&self, partition: &TopicPartition, input: &Input) -> Vec<Expected> {
        match self.letter(partition, input.offset) {
            Some(letter) => vec![Expected::letter(&letter.at, input)],
            None if self.is_passed_over(partition, input.offset) => Vec::new(),
            None => expected(&input.value, &self.world),
        }
    }

    /// The dead letter of a message.
    pub fn letter(&self, partition: &TopicPartition, offset: u64) -> Option<&Seen> {
        let (topic, _) = self.world.letters.as_ref()?;
        self.of(partition, offset).find(|seen| *topic == *seen.at.topic)
    }

    fn of(&self, partition: &TopicPartition, offset: u64) -> impl Iterator<Item = &Seen> {
        self.outputs.iter().filter(move |seen| {
            seen.provenance.as_ref().is_some_and(|provenance| {
                provenance.partition == *partition && provenance.offset == offset
            })
        })
    }

    /// Whether a message has become nothing because somebody has ordered that. Where nobody knows
    /// whether the order was carried out, what is there says so.
    pub fn is_passed_over(&self, partition: &TopicPartition, offset: u64) -> bool {
        match self.fate(partition, offset, Verb::Skip) {
            Some(Fate::Done) => true,
            Some(Fate::Unknown) => self.of(partition, offset).next().is_none(),
            Some(Fate::Refused) | None => false,
        }
    }

    /// What became of the orders to do something with a message: done if one of them was, and
    /// refused only if all of them were.
    pub fn fate(&self, partition: &TopicPartition, offset: u64, verb: Verb) -> Option<Fate> {
        let is_meant = |order: &&Ordered| {
            order.offset == offset && order.verb == verb && order.partition == *partition
        };
        let fates: Vec<Fate> =
            self.orders.iter().filter(is_meant).map(|order| order.fate).collect();
        let ranked = [Fate::Done, Fate::Unknown, Fate::Refused];
        ranked.into_iter().find(|fate| fates.contains(fate))
    }

    fn read_store(&mut self, instance: &Instance) {
        let store = MemoryStore::new(instance.store());
        match Journal::inspect(Box::new(store)) {
            Err(error) => self.unreadable.push(format!("{}: {error}", instance.name)),
            Ok(journal) => {
                let stored = journal.partitions().map(|(id, name)| StoredRuns {
                    instance: instance.name.clone(),
                    partition: TopicPartition::new(name.topic.as_str(), name.partition),
                    runs: journal.runs(id).collect(),
                });
                self.stores.extend(stored);
            }
        }
    }
}

fn outputs(world: &World, kafka: &ModelKafka) -> Vec<Seen> {
    let mut outputs = Vec::new();
    for (topic, partitions) in world.outputs.iter().chain(&world.letters) {
        for partition in 0..*partitions {
            let at = TopicPartition::new(topic.as_str(), partition);
            let records = kafka.records(topic, partition, Isolation::ReadCommitted);
            outputs.extend(records.into_iter().map(|record| seen(at.clone(), record)));
        }
    }
    outputs
}

fn seen(at: TopicPartition, record: ModelRecord) -> Seen {
    let header = record.headers.iter().find(|header| &*header.name == provenance::HEADER);
    let header = header.and_then(|header| header.value.as_deref());
    let headers = record.headers.iter();
    let headers = headers.map(|it| (&*it.name, it.value.as_deref().unwrap_or_default()));
    let disposition = DeadLetter::read(headers).map(|letter| letter.disposition);
    let text = |bytes: bytes::Bytes| String::from_utf8_lossy(&bytes).into_owned();
    Seen {
        at,
        offset: record.offset,
        disposition,
        provenance: header.and_then(|value| Provenance::read(value).ok()),
        key: record.key.map(text),
        value: record.value.map(text).unwrap_or_default(),
        transaction: record.writer.map(|writer| writer.transaction),
    }
}
