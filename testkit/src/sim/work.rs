//! What the simulated handlers do, and what has to come of it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use countersign::handler::{HandlerError, Message, Outputs, To};
use countersign::kafka::TopicPartition;
use rand::Rng;
use rand::rngs::StdRng;

use super::evidence::Input;
use super::journal::Journal;
use super::world::{World, rng};

/// How handlers behave; clones share it.
#[derive(Debug, Clone)]
pub struct Temper {
    rng: Arc<Mutex<StdRng>>,
    is_calm: Arc<AtomicBool>,
    world: Arc<World>,
    journal: Journal,
}

enum Mood {
    Good,
    Fail,
    Panic,
}

impl Temper {
    pub(super) fn new(world: &World, journal: &Journal) -> Self {
        Self {
            rng: Arc::new(Mutex::new(rng(world.seed, "handlers"))),
            is_calm: Arc::default(),
            world: Arc::new(world.clone()),
            journal: journal.clone(),
        }
    }

    /// From now on every handler succeeds at once.
    pub(super) fn calm(&self) {
        self.is_calm.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_calm(&self) -> bool {
        self.is_calm.load(Ordering::Relaxed)
    }

    fn mood(&self) -> (Duration, Mood) {
        if self.is_calm() {
            return (Duration::ZERO, Mood::Good);
        }
        let mut rng = self.rng.lock().unwrap_or_else(PoisonError::into_inner);
        let mut wait = Duration::ZERO;
        if rng.random_range(0..1_000) < self.world.sleeps_per_mille {
            wait = self.world.sleep_longest.mul_f64(rng.random_range(0.0..1.0));
        }
        let fate = rng.random_range(0..1_000);
        let fails = self.world.fails_per_mille;
        let mood = if fate < fails {
            Mood::Fail
        } else if fate < fails + self.world.panics_per_mille {
            Mood::Panic
        } else {
            Mood::Good
        };
        (wait, mood)
    }

    /// The handler; `end` ends its process.
    pub(super) async fn handle(
        self,
        message: Message,
        end: impl FnOnce(),
    ) -> Result<Outputs, HandlerError> {
        let (wait, mood) = self.mood();
        if !wait.is_zero() {
            self.journal.count("handler: slept");
            tokio::time::sleep(wait).await;
        }
        if self.world.is_pill(number(message.record().value().unwrap_or_default())) {
            self.journal.count("handler: ended its process");
            end();
            std::future::pending::<()>().await;
        }
        if self.world.is_stuck && !self.is_calm() && message.record().key() == Some(b"k0") {
            self.journal.count("handler: stuck");
            return Err(HandlerError::retryable("this key fails"));
        }
        match mood {
            Mood::Good => {}
            Mood::Fail => {
                self.journal.count("handler: failed");
                return Err(HandlerError::retryable("simulated failure"));
            }
            Mood::Panic => {
                self.journal.count("handler: panicked");
                // Does not run the panic hook, which would fill the screen.
                std::panic::resume_unwind(Box::new("simulated panic"));
            }
        }
        let value = message.record().value().unwrap_or_default();
        if self.world.is_hopeless(number(value)) {
            self.journal.count("handler: rejected");
            return Err(HandlerError::permanent("simulated nonsense"));
        }
        Ok(expected(value, &self.world).into_iter().map(Expected::into_output).collect())
    }
}

/// An output that a message has to have.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Expected {
    /// The topic.
    pub topic: String,
    /// The key.
    pub key: Option<String>,
    /// The value.
    pub value: String,
    partition: Option<u32>,
}

impl Expected {
    /// The dead letter of a message: as it was.
    pub(super) fn letter(at: &TopicPartition, input: &Input) -> Self {
        Self {
            topic: at.topic.to_string(),
            key: input.key.as_deref().map(|key| String::from_utf8_lossy(key).into_owned()),
            value: String::from_utf8_lossy(&input.value).into_owned(),
            partition: Some(at.partition),
        }
    }

    fn into_output(self) -> To {
        let to = To::topic(self.topic).value(self.value);
        let to = match self.key {
            Some(key) => to.key(key),
            None => to,
        };
        match self.partition {
            Some(partition) => to.partition(partition),
            None => to,
        }
    }
}

/// The number in a message's value.
pub(super) fn number(value: &[u8]) -> u64 {
    let text = String::from_utf8_lossy(value);
    text.trim_start_matches(|c: char| !c.is_ascii_digit()).parse().unwrap_or(0)
}

/// The outputs of a message, from its value alone: up to three, by key, in turn or to a partition.
pub fn expected(value: &[u8], world: &World) -> Vec<Expected> {
    let (text, id) = (String::from_utf8_lossy(value), number(value));
    let output = |n: u64| {
        let (topic, partitions) = &world.outputs[usize::from((id + n).is_multiple_of(2))];
        let partition = u32::try_from(id % u64::from(*partitions)).ok();
        Expected {
            topic: topic.clone(),
            key: (!id.is_multiple_of(5)).then(|| format!("k{}", id % 7)),
            value: format!("{text}>{n}{}", "-".repeat(world.output_padding)),
            partition: if id.is_multiple_of(3) { partition } else { None },
        }
    };
    (0..(id / 2) % 4).map(output).collect()
}
