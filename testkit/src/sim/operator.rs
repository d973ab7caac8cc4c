//! People who decide about messages, at any moment.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use countersign::commit_metadata::disarm;
use countersign::kafka::TopicPartition;
use countersign::simulation;
use countersign::statemachine::worker::Obstacle;
use countersign::statemachine::{CommitMetadata, Verb};
use rand::Rng;
use rand::rngs::StdRng;
use tokio::time::Instant;

use crate::model::ModelKafka;

use super::instance::Instance;
use super::journal::Journal;
use super::world::{World, rng};

/// What became of an order, as far as who gave it knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It was carried out.
    Done,
    /// It was refused: nothing was done.
    Refused,
    /// Nobody has said.
    Unknown,
}

/// An order about one message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ordered {
    /// Which partition.
    pub partition: TopicPartition,
    /// Which message; there may be none.
    pub offset: u64,
    /// What was to become of it.
    pub verb: Verb,
    /// What became of the order.
    pub fate: Fate,
}

/// All orders of a run; clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct Orders(Arc<Mutex<Vec<Ordered>>>);

impl Orders {
    /// All that were given so far.
    pub(super) fn given(&self) -> Vec<Ordered> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, order: Ordered) -> usize {
        let mut orders = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        orders.push(order);
        orders.len() - 1
    }

    fn settle(&self, number: usize, fate: Fate) {
        let mut orders = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(order) = orders.get_mut(number) {
            order.fate = fate;
        }
    }
}

pub(super) struct Operator {
    world: World,
    kafka: ModelKafka,
    journal: Journal,
    orders: Orders,
    rng: StdRng,
    next: Instant,
}

impl Operator {
    pub(super) fn new(
        world: &World,
        kafka: &ModelKafka,
        journal: &Journal,
        orders: &Orders,
    ) -> Self {
        Self {
            world: world.clone(),
            kafka: kafka.clone(),
            journal: journal.clone(),
            orders: orders.clone(),
            rng: rng(world.seed, "operator"),
            next: Instant::now(),
        }
    }

    /// Gives an order, if it is time for one.
    pub(super) fn decide(&mut self, instances: &[Instance]) {
        let Some(pause_longest) = self.world.orders_pause else { return };
        if self.next > Instant::now() {
            return;
        }
        self.next = Instant::now() + pause_longest.mul_f64(self.rng.random_range(0.0..1.0));
        // Its owner is asked, whoever that is.
        let asked = instances.iter().filter_map(Instance::operator).collect();
        self.order(asked);
    }

    fn order(&mut self, asked: Vec<simulation::Operator>) {
        let (partition, offset, is_tried) = self.message();
        let verb = Verb::ALL[self.rng.random_range(0..Verb::ALL.len())];
        let order = Ordered { partition, offset, verb, fate: Fate::Unknown };
        if is_tried {
            self.journal.count("order: for an announced message");
        }
        let number = self.orders.note(order.clone());
        let (orders, journal) = (self.orders.clone(), self.journal.clone());
        let Ordered { partition, offset, verb, .. } = order;
        journal.say("operator", format_args!("{number}: {verb} {partition}@{offset}"));
        tokio::spawn(async move {
            let mut answer = Err(Obstacle::NotOwned);
            for operator in asked {
                if answer == Err(Obstacle::NotOwned) {
                    answer = operator.order(partition.clone(), offset, verb).await;
                }
            }
            let (fate, told) = match &answer {
                Ok(()) => (Fate::Done, "done"),
                Err(Obstacle::Moved | Obstacle::Stopped) => (Fate::Unknown, "not known"),
                Err(Obstacle::NotOwned) => (Fate::Refused, "not owned"),
                Err(_) => (Fate::Refused, "refused"),
            };
            journal.say("operator", format_args!("{number}: {answer:?}"));
            journal.count(&format!("order: {verb}, {told}"));
            orders.settle(number, fate);
        });
    }

    /// One near the position: that is where messages are under way. If one is announced it is often
    /// that; and some are not there, or were long ago.
    fn message(&mut self) -> (TopicPartition, u64, bool) {
        let partitions = self.world.partitions();
        let announced = partitions.iter().filter_map(|of| Some((of.clone(), self.announced(of)?)));
        let announced: Vec<_> = announced.collect();
        if !announced.is_empty() && self.rng.random_bool(0.5) {
            let (partition, offset) = announced[self.rng.random_range(0..announced.len())].clone();
            return (partition, offset, true);
        }
        let partition = partitions[self.rng.random_range(0..partitions.len())].clone();
        let position = self.kafka.committed(World::GROUP, &partition).map_or(0, |at| at.offset);
        let offset = if self.rng.random_bool(0.8) {
            position + self.rng.random_range(0..8)
        } else {
            self.rng.random_range(0..=position + 100)
        };
        let is_announced = announced.contains(&(partition.clone(), offset));
        (partition, offset, is_announced)
    }

    /// The message that the partition's commit announces.
    fn announced(&self, partition: &TopicPartition) -> Option<u64> {
        let committed = self.kafka.committed(World::GROUP, partition)?;
        let bytes = disarm(&committed.metadata).ok()?;
        let metadata = CommitMetadata::decode(committed.offset, &bytes).ok()?;
        metadata.trial.filter(|trial| trial.announced).map(|trial| trial.offset)
    }
}

impl World {
    /// The longest pause between two orders, if people give any.
    pub(super) fn draw_orders(rng: &mut StdRng) -> Option<Duration> {
        let longest = Duration::from_millis([100, 1_000, 5_000][rng.random_range(0..3)]);
        rng.random_bool(0.5).then_some(longest)
    }
}
