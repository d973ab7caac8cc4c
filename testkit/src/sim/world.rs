//! What a seed makes: topics, settings and how bad the times are.

use std::time::Duration;

use countersign::Order;
use countersign::kafka::TopicPartition;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::model::Assignor;

/// Everything that is fixed before a run starts.
#[derive(Debug, Clone)]
pub struct World {
    /// Where everything comes from.
    pub seed: u64,
    /// Input topics with their partitions.
    pub inputs: Vec<(String, u32)>,
    /// Output topics with their partitions.
    pub outputs: Vec<(String, u32)>,
    /// The topic of dead letters with its partitions, if messages are given up.
    pub letters: Option<(String, u32)>,
    /// How many messages become visible, about.
    pub messages: u32,
    /// Over how long they are written.
    pub feeding: Duration,
    /// How many processes there are in the group.
    pub instances: u32,
    /// How many members each process has.
    pub workers: u32,
    /// Whether each worker has two producers.
    pub pipelined: bool,
    /// Whether members are static.
    pub is_static: bool,
    /// How partitions are given out.
    pub assignor: Assignor,
    /// How long a transaction is filled.
    pub commit_interval: Duration,
    /// How many messages a transaction holds.
    pub transaction_records: u64,
    /// `transaction.timeout.ms`.
    pub transaction_timeout_ms: u32,
    /// `session.timeout.ms`.
    pub session_timeout_ms: u32,
    /// `max.poll.interval.ms`.
    pub max_poll_interval_ms: u32,
    /// Which messages wait for each other.
    pub order: Order,
    /// How many handlers each worker runs at once.
    pub concurrency: u32,
    /// How many keys the input has; some messages have none.
    pub keys: u32,
    /// Messages of the first key fail until everything is healed.
    pub is_stuck: bool,
    /// The brokers' `offset.metadata.max.bytes`.
    pub metadata_bytes: usize,
    /// How long the stores keep details.
    pub history: Duration,
    /// How many records fit into a producer's queue.
    pub queue_messages: usize,
    /// How much memory a worker has for messages and results.
    pub memory_bytes: usize,
    /// How much longer each output is than it need be.
    pub output_padding: usize,
    /// One of so many messages ends the process that handles it; `None`: none does.
    pub pill_of: Option<u32>,
    /// Handlers in a thousand that sleep.
    pub sleeps_per_mille: u32,
    /// How long they sleep at most.
    pub sleep_longest: Duration,
    /// Handlers in a thousand that fail.
    pub fails_per_mille: u32,
    /// Handlers in a thousand that panic.
    pub panics_per_mille: u32,
    /// Calls in a thousand that are struck while it storms.
    pub storm_per_mille: u32,
    /// The nemesis's longest pause between two deeds; `None`: it does nothing.
    pub pause_longest: Option<Duration>,
    /// The longest pause between two orders of people, while there is a nemesis; `None`: there are
    /// none.
    pub orders_pause: Option<Duration>,
}

impl World {
    /// The group of every world.
    pub const GROUP: &'static str = "simulated";

    /// How often a message may fail where it is given up.
    pub const ATTEMPTS: u32 = 3;

    /// How many processes a pill ends, at most and about.
    const DEATHS: u32 = 8;

    /// A world in which nothing goes wrong.
    pub fn calm(seed: u64) -> Self {
        Self {
            seed,
            inputs: vec![("in-0".to_owned(), 2)],
            outputs: vec![("out-0".to_owned(), 2), ("out-1".to_owned(), 3)],
            letters: None,
            messages: 200,
            feeding: Duration::from_secs(2),
            instances: 1,
            workers: 1,
            pipelined: false,
            is_static: false,
            assignor: Assignor::CooperativeSticky,
            commit_interval: Duration::from_millis(50),
            transaction_records: 1_000,
            transaction_timeout_ms: 5_000,
            session_timeout_ms: 6_000,
            max_poll_interval_ms: 20_000,
            order: Order::Partition,
            concurrency: 8,
            keys: 8,
            is_stuck: false,
            metadata_bytes: 4_096,
            history: Duration::from_secs(24 * 60 * 60),
            queue_messages: 100_000,
            memory_bytes: 64 << 20,
            output_padding: 0,
            pill_of: None,
            sleeps_per_mille: 0,
            sleep_longest: Duration::ZERO,
            fails_per_mille: 0,
            panics_per_mille: 0,
            storm_per_mille: 0,
            pause_longest: None,
            orders_pause: None,
        }
    }

    /// The world of a seed.
    pub fn draw(seed: u64) -> Self {
        let world = Self::unordered(seed).ordered(&mut rng(seed, "order"));
        let world = world.lettered(&mut rng(seed, "letters")).queued(&mut rng(seed, "queue"));
        let world = world.forgetful(&mut rng(seed, "history")).short(&mut rng(seed, "memory"));
        Self { orders_pause: Self::draw_orders(&mut rng(seed, "orders")), ..world }
    }

    fn unordered(seed: u64) -> Self {
        let rng = &mut rng(seed, "world");
        let inputs = if rng.random_bool(0.3) { 2 } else { 1 };
        let transaction_timeout_ms = rng.random_range(1_000..=6_000);
        let session_timeout_ms = transaction_timeout_ms + rng.random_range(500..=4_000);
        let longest_interval = u64::from(transaction_timeout_ms / 3).min(500);
        let records = [1, 3, 10, 50, 1_000];
        Self {
            inputs: (0..inputs).map(|n| (format!("in-{n}"), rng.random_range(1..=4))).collect(),
            outputs: (0..2).map(|n| (format!("out-{n}"), rng.random_range(1..=3))).collect(),
            messages: rng.random_range(50..=300),
            feeding: Duration::from_millis(rng.random_range(0..=20_000)),
            instances: rng.random_range(1..=3),
            workers: if rng.random_bool(0.25) { 2 } else { 1 },
            pipelined: rng.random_bool(0.6),
            is_static: rng.random_bool(0.4),
            assignor: match rng.random_range(0..4) {
                0 => Assignor::Range,
                1 => Assignor::RoundRobin,
                _ => Assignor::CooperativeSticky,
            },
            commit_interval: Duration::from_millis(rng.random_range(1..=longest_interval)),
            transaction_records: records[rng.random_range(0..records.len())],
            transaction_timeout_ms,
            session_timeout_ms,
            max_poll_interval_ms: session_timeout_ms + rng.random_range(1_000..=20_000),
            sleeps_per_mille: [0, 20, 200][rng.random_range(0..3)],
            sleep_longest: Duration::from_millis([5, 100, 1_500][rng.random_range(0..3)]),
            fails_per_mille: [0, 10, 50][rng.random_range(0..3)],
            panics_per_mille: [0, 0, 10][rng.random_range(0..3)],
            storm_per_mille: rng.random_range(5..=120),
            pause_longest: Some(Duration::from_millis(rng.random_range(200..=4_000))),
            ..Self::calm(seed)
        }
    }

    /// Half of the worlds have an order other than that of partitions.
    fn ordered(self, rng: &mut StdRng) -> Self {
        let order = match rng.random_range(0..6) {
            0..=2 => Order::Partition,
            3..=4 => Order::Key,
            _ => Order::None,
        };
        Self {
            order,
            concurrency: rng.random_range(1..=16),
            keys: rng.random_range(1..=20),
            is_stuck: order == Order::Key && rng.random_bool(0.5),
            // Room for a hundred runs at most, or for nearly none.
            metadata_bytes: [512, 600, 4_096][rng.random_range(0..3)],
            ..self
        }
    }

    /// In some worlds messages are given up, and some can never be handled.
    fn lettered(self, rng: &mut StdRng) -> Self {
        let partitions = rng.random_range(1..=3);
        let letters = rng.random_bool(0.4).then(|| ("dead".to_owned(), partitions));
        let pill_of = (letters.is_some() && rng.random_bool(0.4)).then_some(61);
        Self { letters, pill_of, ..self }
    }

    /// In half of the worlds a producer's queue is full after a few records.
    fn queued(self, rng: &mut StdRng) -> Self {
        Self { queue_messages: [1, 5, 100_000, 100_000][rng.random_range(0..4)], ..self }
    }

    /// In half of the worlds the stores forget details as soon as a message is done.
    fn forgetful(self, rng: &mut StdRng) -> Self {
        let history = if rng.random_bool(0.5) { Duration::ZERO } else { self.history };
        Self { history, ..self }
    }

    /// In some worlds hardly more than a message fits into the memory, or not even an output.
    fn short(self, rng: &mut StdRng) -> Self {
        let memory_bytes = [1_000, 8_000, 40_000, 64 << 20, 64 << 20][rng.random_range(0..5)];
        let output_padding = [0, 0, 300, 5_000][rng.random_range(0..4)];
        Self { memory_bytes, output_padding, ..self }
    }

    /// Whether the handler never accepts this message.
    pub fn is_hopeless(&self, id: u64) -> bool {
        self.letters.is_some() && id % 13 == 5
    }

    /// Whether a message ends the process that handles it.
    pub fn is_pill(&self, id: u64) -> bool {
        self.pill_of.is_some_and(|of| id % u64::from(of) == 17)
    }

    /// Every input partition.
    pub fn partitions(&self) -> Vec<TopicPartition> {
        let of =
            |(topic, count): &(String, u32)| TopicPartition::all_of(topic.as_str().into(), *count);
        self.inputs.iter().flat_map(of).collect()
    }

    /// How long the group may take without faults until everything is done: a call that hangs is
    /// given up, an open transaction and a dead member time out, a rebalance waits for those who do
    /// not answer, a retry is due, and then the work itself.
    pub fn healing_bound(&self) -> Duration {
        let waits = self.transaction_timeout_ms * 3
            + self.session_timeout_ms
            + self.max_poll_interval_ms
            + 35_000;
        let work = self.sleep_longest * self.messages;
        // With hardly any memory one message is handled after another, each in a transaction.
        let is_short = self.memory_bytes < 1 << 20;
        let each = self.commit_interval + Duration::from_millis(100);
        let work = if is_short { work + each * self.messages } else { work };
        // Each pill ends a few processes before it is found, and a few more when it is tried. What
        // they held is waited for each time.
        let pills = self.pill_of.map_or(0, |of| self.messages / of + 1);
        (Duration::from_millis(u64::from(waits)) + work) * (1 + pills * Self::DEATHS)
    }
}

/// A generator of its own for each purpose, so that one may draw more without changing the others.
pub(super) fn rng(seed: u64, purpose: &str) -> StdRng {
    let mixed = purpose.bytes().fold(seed, |mixed, byte| {
        (mixed ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(17)
    });
    StdRng::seed_from_u64(mixed)
}
