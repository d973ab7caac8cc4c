//! Who takes partitions' leaders away. It draws from a generator of its own.

use std::time::Duration;

use countersign::kafka::TopicPartition;
use rand::Rng;
use rand::rngs::StdRng;
use tokio::time::Instant;

use crate::model::ModelKafka;

use super::journal::Journal;
use super::world::{World, rng};

pub(super) struct Sickness {
    kafka: ModelKafka,
    journal: Journal,
    rng: StdRng,
    /// What may fall sick; nothing in half of the worlds.
    partitions: Vec<TopicPartition>,
    /// Until when partitions have no leader.
    sick: Vec<(Instant, TopicPartition)>,
    next: Instant,
}

impl Sickness {
    pub(super) fn new(world: &World, kafka: &ModelKafka, journal: &Journal) -> Self {
        let mut rng = rng(world.seed, "sickness");
        let partitions = if rng.random() { world.partitions() } else { Vec::new() };
        let (kafka, journal) = (kafka.clone(), journal.clone());
        Self { kafka, journal, rng, partitions, sick: Vec::new(), next: Instant::now() }
    }

    fn up_to(&mut self, longest_ms: u64) -> Duration {
        Duration::from_millis(self.rng.random_range(0..=longest_ms))
    }

    /// Elects the leaders whose time has come, and now and then takes one away.
    pub(super) fn turn(&mut self) {
        let now = Instant::now();
        self.elect(|until| until <= now);
        if self.partitions.is_empty() || now < self.next {
            return;
        }
        self.next = now + self.up_to(8_000);
        let partition = self.partitions[self.rng.random_range(0..self.partitions.len())].clone();
        if self.sick.iter().any(|(_, sick)| *sick == partition) {
            return;
        }
        let longest = [500, 5_000, 20_000][self.rng.random_range(0..3)];
        let until = now + self.up_to(longest);
        self.journal.count("partition: without a leader");
        self.journal.say("nemesis", format_args!("{partition} has no leader"));
        self.kafka.lose_leader(&partition.topic, partition.partition);
        self.sick.push((until, partition));
    }

    /// Every partition has a leader again.
    pub(super) fn heal(&mut self) {
        self.elect(|_| true);
    }

    fn elect(&mut self, is_due: impl Fn(Instant) -> bool) {
        for (until, partition) in std::mem::take(&mut self.sick) {
            if is_due(until) {
                self.journal.say("nemesis", format_args!("{partition} has a leader"));
                self.kafka.elect_leader(&partition.topic, partition.partition);
            } else {
                self.sick.push((until, partition));
            }
        }
    }
}
