//! Writes the input: plain records, committed and aborted transactions with their control records.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use countersign::kafka::TopicPartition;
use rand::Rng;
use rand::rngs::StdRng;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::model::ModelKafka;

use super::evidence::Input;
use super::world::{World, rng};

type Inputs = BTreeMap<TopicPartition, Vec<Input>>;

/// The input's author.
#[derive(Debug)]
pub(super) struct Feed {
    task: JoinHandle<()>,
    written: Arc<Mutex<Inputs>>,
}

impl Feed {
    pub(super) fn start(world: &World, kafka: &ModelKafka) -> Self {
        let written = Arc::new(Mutex::new(Inputs::new()));
        let feeder = Feeder {
            kafka: kafka.clone(),
            partitions: world.partitions(),
            rng: rng(world.seed, "feed"),
            written: Arc::clone(&written),
            id: 0,
            keys: world.keys,
        };
        let (messages, feeding) = (world.messages, world.feeding);
        Self { task: tokio::spawn(feeder.run(messages, feeding)), written }
    }

    pub(super) fn is_done(&self) -> bool {
        self.task.is_finished()
    }

    /// Every message that a reader sees.
    pub(super) fn written(&self) -> Inputs {
        self.written.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

struct Feeder {
    kafka: ModelKafka,
    partitions: Vec<TopicPartition>,
    rng: StdRng,
    written: Arc<Mutex<Inputs>>,
    id: u32,
    keys: u32,
}

impl Feeder {
    async fn run(mut self, messages: u32, feeding: Duration) {
        let pause = feeding / messages.max(1) * 5;
        while self.id < messages {
            self.write();
            if !pause.is_zero() && self.rng.random_bool(0.2) {
                sleep(pause.mul_f64(self.rng.random_range(0.0..2.0))).await;
            }
        }
    }

    fn value(&mut self) -> Vec<u8> {
        self.id += 1;
        format!("m{}", self.id).into_bytes()
    }

    fn write(&mut self) {
        let partition = self.partitions[self.rng.random_range(0..self.partitions.len())].clone();
        let (topic, number) = (&*partition.topic, partition.partition);
        let several = self.rng.random_range(1..=4);
        match self.rng.random_range(0..20) {
            0 => {
                let values: Vec<_> = (0..several).map(|n| format!("aborted {n}")).collect();
                let values: Vec<_> = values.iter().map(String::as_bytes).collect();
                self.kafka.append_aborted(topic, number, &values);
            }
            1..=2 => {
                let values: Vec<_> = (0..several).map(|_| self.value()).collect();
                let slices: Vec<_> = values.iter().map(Vec::as_slice).collect();
                let first = self.kafka.append_committed(topic, number, &slices);
                for (offset, value) in (first..).zip(values) {
                    self.note(&partition, Input { offset, key: None, value });
                }
            }
            _ => {
                let value = self.value();
                let key = Some(format!("k{}", self.id % self.keys).into_bytes());
                let offset = self.kafka.append(topic, number, key.as_deref(), &value);
                self.note(&partition, Input { offset, key, value });
            }
        }
    }

    fn note(&self, partition: &TopicPartition, input: Input) {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        written.entry(partition.clone()).or_default().push(input);
    }
}
