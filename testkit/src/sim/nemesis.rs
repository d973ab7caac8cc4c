//! Who crashes, freezes and misleads the processes.

use std::collections::VecDeque;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::time::{Instant, sleep};

use crate::model::{Call, Fault, FaultRate, Faults, ModelKafka};

use super::Failure;
use super::feed::Feed;
use super::instance::{Doom, Instance, Last};
use super::journal::Journal;
use super::operator::Operator;
use super::sickness::Sickness;
use super::world::{World, rng};

/// How often the nemesis looks after what it has begun.
const STEP: Duration = Duration::from_millis(50);

pub(super) struct Nemesis {
    world: World,
    kafka: ModelKafka,
    journal: Journal,
    rng: StdRng,
    sickness: Sickness,
    /// What ends later.
    later: VecDeque<(Instant, Relief)>,
}

enum Relief {
    Thaw(usize),
    Release,
    Calm,
}

impl Nemesis {
    pub(super) fn new(world: &World, kafka: &ModelKafka, journal: &Journal) -> Self {
        Self {
            world: world.clone(),
            kafka: kafka.clone(),
            journal: journal.clone(),
            rng: rng(world.seed, "nemesis"),
            sickness: Sickness::new(world, kafka, journal),
            later: VecDeque::new(),
        }
    }

    /// The safety phase: until the input is written, and some time more.
    ///
    /// # Errors
    /// A process ended in a way that nothing explains.
    pub(super) async fn rage(
        &mut self,
        instances: &mut [Instance],
        feed: &Feed,
        mut operator: Operator,
    ) -> Result<(), Failure> {
        let Some(pause_longest) = self.world.pause_longest else {
            for instance in instances {
                instance.watch(Duration::ZERO)?;
            }
            while !feed.is_done() {
                sleep(STEP).await;
            }
            return Ok(());
        };
        self.storm();
        let mut end = Instant::now() + self.up_to(20_000);
        let mut next = Instant::now();
        while !feed.is_done() || Instant::now() < end {
            if Instant::now() > end {
                end = Instant::now() + self.up_to(5_000);
            }
            self.relieve(instances);
            operator.decide(instances);
            self.sickness.turn();
            if next <= Instant::now() {
                self.strike(instances);
                next = Instant::now() + pause_longest.mul_f64(self.rng.random_range(0.0..1.0));
            }
            for instance in instances.iter_mut() {
                if !instance.is_alive() {
                    instance.doom = self.doom();
                }
                // A static member that is back at once takes its place without a rebalance.
                let away_longest = if self.rng.random_bool(0.5) { 100 } else { 4_000 };
                instance.watch(Duration::from_millis(away_longest))?;
            }
            sleep(STEP).await;
        }
        Ok(())
    }

    /// Nothing goes wrong any more.
    pub(super) fn heal(&mut self, instances: &mut [Instance]) {
        for (_, relief) in std::mem::take(&mut self.later) {
            self.give(&relief, instances);
        }
        self.sickness.heal();
        self.kafka.set_faults(Faults::none());
        self.kafka.broker_up();
        for instance in instances {
            instance.spare();
            instance.hurry();
        }
    }

    fn up_to(&mut self, longest_ms: u64) -> Duration {
        Duration::from_millis(self.rng.random_range(0..=longest_ms))
    }

    fn doom(&mut self) -> Doom {
        let effect = match self.rng.random_range(0..10) {
            0..5 => Some(Last::Nth(self.rng.random_range(1..=300))),
            5 => Some(Last::Unassign),
            _ => None,
        };
        Doom {
            effect,
            store_call: self.rng.random_bool(0.2).then(|| self.rng.random_range(1..=60)),
        }
    }

    fn storm(&mut self) {
        let longest = [20, 300, 3_000][self.rng.random_range(0..3)];
        let rate = FaultRate {
            per_mille: self.rng.random_range(0..=self.world.storm_per_mille),
            longest: Duration::from_millis(longest),
        };
        self.journal.say("nemesis", format_args!("storm {rate:?}"));
        let seed = self.rng.random();
        self.kafka.set_faults(Faults::seeded(StdRng::seed_from_u64(seed), rate));
        let until = Instant::now() + self.up_to(10_000);
        self.later.push_back((until, Relief::Calm));
    }

    fn relieve(&mut self, instances: &mut [Instance]) {
        let now = Instant::now();
        let (due, later) = self.later.drain(..).partition(|(at, _)| *at <= now);
        self.later = later;
        let due: VecDeque<(Instant, Relief)> = due;
        for (_, relief) in due {
            self.give(&relief, instances);
        }
    }

    fn give(&self, relief: &Relief, instances: &mut [Instance]) {
        match relief {
            Relief::Thaw(place) => instances[*place].thaw(),
            Relief::Release => {
                let released = self.kafka.release();
                self.journal.say("nemesis", format_args!("released {released}"));
            }
            Relief::Calm => self.kafka.set_faults(Faults::none()),
        }
    }

    fn strike(&mut self, instances: &mut [Instance]) {
        let place = self.rng.random_range(0..instances.len());
        match self.rng.random_range(0..24) {
            0 => {
                if instances[place].is_alive() {
                    self.journal.count("crash: at any moment");
                }
                instances[place].crash("the nemesis");
            }
            1..=2 => self.freeze(place, instances),
            3 => {
                self.journal.count("group: asked to leave");
                instances[place].ask_to_leave();
            }
            4 => self.broker_down(),
            5 => instances[place].copy_store(),
            6 => {
                let (n, is_flush) = (self.rng.random_range(1..20), self.rng.random());
                instances[place].fill_disk(n, is_flush);
            }
            7..=8 => self.storm(),
            9..=11 => self.hold(),
            12..=13 => self.hang(),
            14 => self.slow_registration(),
            15 => self.panic(),
            _ => self.script(),
        }
    }

    fn freeze(&mut self, place: usize, instances: &mut [Instance]) {
        let timeouts = self.world.session_timeout_ms + self.world.transaction_timeout_ms;
        let until = Instant::now() + self.up_to(u64::from(timeouts) * 3 / 2);
        self.journal.count("freeze");
        instances[place].freeze();
        self.later.push_back((until, Relief::Thaw(place)));
    }

    fn broker_down(&mut self) {
        let longest = [200, 3_000, 15_000][self.rng.random_range(0..3)];
        let duration = self.up_to(longest);
        self.journal.count("broker: down");
        self.journal.say("nemesis", format_args!("broker down for {duration:?}"));
        self.kafka.broker_down_for(duration);
    }

    fn transactional_call(&mut self) -> Call {
        let calls = [Call::AddOffsetsToTxn, Call::TxnOffsetCommit, Call::EndTxn, Call::EndTxn];
        calls[self.rng.random_range(0..calls.len())]
    }

    /// A frame stays on its way while its repetition arrives (`delayed-endtxn.md`).
    fn hold(&mut self) {
        let call = self.transactional_call();
        let after = self.rng.random_range(0..4);
        self.journal.say("nemesis", format_args!("hold {call:?} after {after}"));
        self.kafka.fault_after(call, after, Fault::Held);
        let until = Instant::now() + self.up_to(3_000);
        self.later.push_back((until, Relief::Release));
    }

    /// A call does not return, or long after its time-out.
    fn hang(&mut self) {
        let call = match self.rng.random_range(0..8) {
            0 => Call::InitProducerId,
            1 => Call::Flush,
            2 => Call::OffsetFetch,
            3 => Call::Metadata,
            _ => self.transactional_call(),
        };
        let late = Duration::from_secs(5) + self.up_to(40_000);
        let fault = match self.rng.random_range(0..4) {
            0 => Fault::HangAfter,
            // A registration that leaves late would take the id from its successor.
            1 if call != Call::InitProducerId => Fault::Hang(late),
            _ => Fault::Hang(Duration::MAX),
        };
        let after = self.rng.random_range(0..4);
        self.journal.say("nemesis", format_args!("{fault:?} for {call:?} after {after}"));
        self.kafka.fault_after(call, after, fault);
    }

    /// A producer is registered only after several tries of 5 s.
    fn slow_registration(&mut self) {
        let tries = self.rng.random_range(2..5);
        self.journal.count("registration: slow");
        self.journal.say("nemesis", format_args!("{tries} registrations get no answer"));
        for _ in 0..tries {
            self.kafka.fault(Call::InitProducerId, Fault::RequestLost);
        }
    }

    /// A loop of a process panics.
    fn panic(&mut self) {
        let call = [Call::EndTxn, Call::Flush, Call::Fetch, Call::OffsetFetch];
        let call = call[self.rng.random_range(0..call.len())];
        self.journal.say("nemesis", format_args!("a panic in {call:?}"));
        self.kafka.fault_after(call, self.rng.random_range(0..4), Fault::Panic);
    }

    /// Strikes one call on purpose.
    fn script(&mut self) {
        let call = match self.rng.random_range(0..8) {
            0 => Call::InitProducerId,
            1 => Call::Produce,
            2 => Call::OffsetFetch,
            3 => Call::Assign,
            _ => self.transactional_call(),
        };
        let longest = [30, 300, 3_000][self.rng.random_range(0..3)];
        let late = self.up_to(longest);
        let is_transactional =
            matches!(call, Call::AddOffsetsToTxn | Call::TxnOffsetCommit | Call::EndTxn);
        let fault = match self.rng.random_range(0..7) {
            _ if call == Call::Assign => Fault::Repeat,
            0 => Fault::CrashBefore,
            1 => Fault::CrashAfter,
            2 => Fault::RequestLost,
            3 => Fault::ReplyLost,
            4..=5 if is_transactional => Fault::Retried { late },
            _ => Fault::Delay(late),
        };
        let after = self.rng.random_range(0..4);
        self.journal.say("nemesis", format_args!("{fault:?} for {call:?} after {after}"));
        self.kafka.fault_after(call, after, fault);
    }
}
