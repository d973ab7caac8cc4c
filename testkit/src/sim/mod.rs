//! Simulation: the real driver on the model Kafka, a store in memory and virtual time, from a seed.
//!
//! A seed gives a world (topics, messages, processes, settings) and a nemesis that crashes, freezes
//! and misleads it. The safety phase has all of that; then everything is healed, and within bounded
//! virtual time every message must be done. What Kafka and the stores hold then is judged by the
//! `invariants`, one per file. The same seed gives the same run, effect by effect.

mod evidence;
mod feed;
mod instance;
mod invariants;
mod journal;
mod nemesis;
mod operator;
mod probe;
mod sickness;
mod store;
mod work;
mod world;

pub use evidence::{Evidence, Input, Seen, StoredRuns};
pub use invariants::{Check, INVARIANTS};
pub use journal::Totals;
pub use operator::{Fate, Ordered};
pub use work::{Temper, expected};
pub use world::World;

use std::fmt;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::model::{ModelConfig, ModelKafka};

use feed::Feed;
use instance::{Instance, Setting};
use journal::Journal;
use nemesis::Nemesis;
use operator::{Operator, Orders};

/// What many seeds together must meet, as beginnings of the kinds that are counted.
pub const KINDS: [&str; 64] = [
    "broker: down",
    "crash: at any moment",
    "crash: before an effect",
    "crash: while giving back",
    "crash: within a store call",
    "end: a loop panicked",
    "end: crashed",
    "end: left in good order",
    "end: store full",
    "fault: coordinator not available, EndTxn",
    "fault: coordinator not available, InitProducerId",
    "fault: coordinator not available, TxnOffsetCommit",
    "fault: crash after, EndTxn",
    "fault: crash before, EndTxn",
    "fault: delay, EndTxn",
    "fault: delay, WriteTxnMarkers",
    "fault: hang after, EndTxn",
    "fault: hang for long, TxnOffsetCommit",
    "fault: hang, EndTxn",
    "fault: hang, Flush",
    "fault: hang, InitProducerId",
    "fault: hang, OffsetFetch",
    "fault: hang, TxnOffsetCommit",
    "fault: held, EndTxn",
    "fault: held, TxnOffsetCommit",
    "fault: panic, EndTxn",
    "fault: panic, Fetch",
    "fault: repeat, Assign",
    "fault: reply lost, EndTxn",
    "fault: reply lost, InitProducerId",
    "fault: reply lost, Produce",
    "fault: request lost, EndTxn",
    "fault: request lost, Fetch",
    "fault: request lost, OffsetFetch",
    "fault: retried, EndTxn",
    "fault: retried, TxnOffsetCommit",
    "freeze",
    "handler: ended its process",
    "handler: failed",
    "handler: panicked",
    "handler: rejected",
    "memory: none for results",
    "memory: read again",
    "message: given up",
    "message: poison pill",
    "handler: stuck",
    "order: dead-letter, done",
    "order: dead-letter, refused",
    "order: for an announced message",
    "order: retry, done",
    "order: skip, done",
    "order: skip, not known",
    "order: skip, refused",
    "in doubt: was committed",
    "in doubt: was not committed",
    "partition: taken up later",
    "partition: without a leader",
    "recovery: store was behind",
    "registration: slow",
    "renewal: failed",
    "renewal: in doubt",
    "renewal: suspicious",
    "store: deleted",
    "store: older copy",
];

/// What came of a run.
#[derive(Debug)]
pub struct Report {
    /// Where it came from.
    pub seed: u64,
    /// What went wrong, if anything did.
    pub failure: Option<Failure>,
    /// What happened, counted by kind.
    pub totals: Totals,
    /// Stands for everything that happened, in order; compared between runs of one seed.
    pub hash: u64,
    /// Everything that happened, if it was asked for.
    pub timeline: Vec<String>,
    /// How long the liveness phase took.
    pub healing: Duration,
    /// What was judged, if it came to that.
    pub evidence: Option<Evidence>,
}

/// A broken promise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Which one.
    pub invariant: &'static str,
    /// What was seen.
    pub what: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.invariant, self.what)
    }
}

/// Runs a world to its end.
///
/// # Panics
/// The system gives no timer.
pub fn run(world: &World, keep_timeline: bool) -> Report {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true).build().expect("a timer is at hand");
    runtime.block_on(async { Simulation::new(world, keep_timeline).run().await })
}

struct Simulation {
    world: World,
    kafka: ModelKafka,
    journal: Journal,
    setting: Setting,
    instances: Vec<Instance>,
    orders: Orders,
    healing: Duration,
    evidence: Option<Evidence>,
}

impl Simulation {
    fn new(world: &World, keep_timeline: bool) -> Self {
        let kafka = ModelKafka::new(ModelConfig {
            // One byte more, and no transaction would commit any more.
            offset_metadata_max_bytes: world.metadata_bytes,
            queue_max_messages: world.queue_messages,
            ..ModelConfig::default()
        });
        for (topic, partitions) in world.inputs.iter().chain(&world.outputs).chain(&world.letters) {
            kafka.create_topic(topic, *partitions);
        }
        let journal = Journal::new(keep_timeline);
        let setting = Setting::new(world, &kafka, &journal);
        let instances =
            (0..world.instances).map(|n| Instance::new(n, world.seed, setting.clone())).collect();
        let (world, orders) = (world.clone(), Orders::default());
        let (healing, evidence) = (Duration::ZERO, None);
        Self { world, kafka, journal, setting, instances, orders, healing, evidence }
    }

    async fn run(mut self) -> Report {
        let result = self.phases().await;
        for instance in &mut self.instances {
            instance.crash("the end");
        }
        self.journal.struck(&self.kafka.struck());
        let (totals, hash, timeline) = self.journal.close();
        let Self { world, healing, evidence, .. } = self;
        let failure = result.err();
        Report { seed: world.seed, failure, totals, hash, timeline, healing, evidence }
    }

    async fn phases(&mut self) -> Result<(), Failure> {
        let feed = Feed::start(&self.world, &self.kafka);
        let mut nemesis = Nemesis::new(&self.world, &self.kafka, &self.journal);
        let operator = Operator::new(&self.world, &self.kafka, &self.journal, &self.orders);
        nemesis.rage(&mut self.instances, &feed, operator).await?;
        self.journal.say("world", format_args!("healed"));
        self.setting.temper.calm();
        nemesis.heal(&mut self.instances);
        let healed = Instant::now();
        self.settle(healed).await?;
        self.healing = healed.elapsed();
        self.leave().await?;
        let after = self.evidence(&feed);
        self.audit().await?;
        let audited = self.evidence(&feed);
        if after.outputs != audited.outputs {
            let what = "a restart on settled partitions changed the outputs".to_owned();
            return Err(Failure { invariant: "no_duplicate", what });
        }
        judge(self.evidence.insert(audited))
    }

    /// The liveness phase: everything must be done in time.
    async fn settle(&mut self, healed: Instant) -> Result<(), Failure> {
        let bound = self.world.healing_bound();
        loop {
            for instance in &mut self.instances {
                instance.watch(Duration::ZERO)?;
            }
            let behind = self.behind();
            if behind.is_empty() {
                return Ok(());
            }
            if healed.elapsed() > bound {
                let what = format!("after {bound:?} without faults still behind: {behind:?}");
                return Err(Failure { invariant: "bounded", what });
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    fn behind(&self) -> Vec<String> {
        let partitions = self.world.partitions();
        let behind = partitions.into_iter().filter_map(|partition| {
            let end = self.kafka.high_watermark(&partition.topic, partition.partition);
            let at = self.kafka.committed(World::GROUP, &partition).map(|c| c.offset);
            (at != Some(end)).then(|| format!("{partition} at {at:?} of {end}"))
        });
        // One that a dead process left open hides the outputs behind it until it times out.
        let open = self.kafka.open_transactions().len();
        behind.chain((open > 0).then(|| format!("{open} transactions are open"))).collect()
    }

    /// Everyone leaves in good order.
    async fn leave(&mut self) -> Result<(), Failure> {
        for instance in &mut self.instances {
            instance.leave(&self.world).await?;
        }
        Ok(())
    }

    /// Every instance takes up everything once more, alone, so that its store is brought in line.
    async fn audit(&mut self) -> Result<(), Failure> {
        for instance in &mut self.instances {
            instance.audit(&self.world).await?;
        }
        Ok(())
    }

    fn evidence(&self, feed: &Feed) -> Evidence {
        let evidence = Evidence::collect(&self.world, &self.kafka, feed, &self.instances);
        Evidence { orders: self.orders.given(), ..evidence }
    }
}

/// The first invariant that does not hold.
///
/// # Errors
/// Which one, and what was seen.
pub fn judge(evidence: &Evidence) -> Result<(), Failure> {
    for (invariant, check) in INVARIANTS {
        check(evidence).map_err(|what| Failure { invariant, what })?;
    }
    Ok(())
}
