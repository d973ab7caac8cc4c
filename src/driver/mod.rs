//! The one loop of a worker: news in, decisions by the pure [`Worker`], effects out.
//!
//! ```text
//!  poll loop ---records---> driver ---effects---> slot loops (produce, commit)
//!  handlers ----results---->  |  ----entries----> clerk (store)
//!  slot loops, clerk, scout ->|  ----questions--> scout (offsets, topics)
//! ```
//!
//! The driver maps news to inputs and effects to orders, and decides nothing.

mod brake;
mod budget;
mod clerk;
mod desk;
mod effects;
mod host;
mod inbox;
mod jobs;
mod letters;
mod memory;
mod meter;
mod order;
mod parts;
mod poll;
mod pulse;
mod rate;
mod reaper;
mod relay;
mod results;
mod run;
mod scout;
mod sent;
mod shelf;
mod siblings;
mod slot;
mod slots;
mod solo;
mod takeup;
mod vitals;
mod watchdog;

pub use host::Host;
pub(crate) use host::{Place, unless_it_panics, words_of};
pub(crate) use inbox::{Inbox, News};

use host::{Loop, PATIENCE};

pub(crate) use clerk::Clerk;
pub(crate) use desk::{Declined, Desk, Wish};
pub(crate) use jobs::settle_unowned;
pub(crate) use letters::LetterBox;
pub use parts::Probe;
pub(crate) use parts::{Parts, Stop};
pub(crate) use pulse::{GivenUp, Pulse};
pub use pulse::{LoopState, LoopStatus};
pub(crate) use rate::Rate;
pub(crate) use reaper::Reaper;
pub(crate) use relay::{Hand, Relay};
pub(crate) use run::{Progress, RunInput, run_alone};
pub(crate) use scout::{Scout, existing, persistently};
pub(crate) use solo::Gate;
pub(crate) use watchdog::{Failing, Failures, Loops, Watchdog};

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use countersign_statemachine::worker::{Effect, Input, Obstacle, StopReason, Worker};
use countersign_statemachine::{self as statemachine, Author, PartitionId};
use futures::StreamExt;
use futures::future::{BoxFuture, join_all};
use futures::stream::FuturesUnordered;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until, timeout};

use crate::destinations::Destinations;
use crate::error::RunError;
use crate::handler::Work;
use crate::kafka::{Consumer, Kafka, KafkaError, Sizes, TopicPartition, Waker};
use crate::status::StatusCell;
use crate::wall_clock::now_ms;

use budget::Budget;
use jobs::Finding;
use memory::Memory;
use poll::{Command, PollLoop};
use shelf::Shelf;
use slots::{SlotParts, Slots};
use solo::Seat;
use vitals::Vitals;

/// What is known of an input partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identified {
    pub(crate) partition: TopicPartition,
    pub(crate) id: PartitionId,
    pub(crate) topic_id: [u8; 16],
    pub(crate) siblings: u32,
}

pub(crate) struct Driver {
    worker: Worker,
    /// Which worker of the process this is.
    number: u32,
    started: Instant,
    inbox: Inbox,
    news: mpsc::UnboundedReceiver<News>,
    commands: mpsc::UnboundedSender<Command>,
    waker: Waker,
    slots: Slots,
    inputs: Arc<[Arc<str>]>,
    /// Where a group starts that has no commit.
    start: statemachine::StartAt,
    shelves: BTreeMap<PartitionId, Shelf>,
    known: BTreeMap<PartitionId, Identified>,
    budget: Budget,
    memory: Memory,
    deadline: Option<Duration>,
    rate: Rate,
    destinations: Destinations,
    /// What the producers are made with.
    sizes: watch::Receiver<Sizes>,
    provenance: bool,
    gate: Gate,
    seat: Seat,
    work: Arc<dyn Work>,
    author: Author,
    /// Whether the worker is told the messages' keys.
    by_key: bool,
    transactional_ids: Vec<String>,
    /// The group instance id.
    member: String,
    clerk: Clerk,
    scout: Scout,
    jobs: FuturesUnordered<BoxFuture<'static, Finding>>,
    /// Who waits for the answer to an order.
    wishes: BTreeMap<u64, oneshot::Sender<Result<(), Obstacle>>>,
    wished: u64,
    status: StatusCell,
    vitals: Vitals,
    stop: watch::Receiver<Stop>,
    probe: Option<Probe>,
    /// What the last failed call of a producer was refused with.
    refused: Option<KafkaError>,
    poll: Loop,
}

/// How many news are taken in before effects are carried out again.
const TURN: usize = 256;

/// How often it is looked for memory for results at least, while there is none.
const GLANCE: Duration = Duration::from_millis(500);

impl Driver {
    /// Creates the clients of a worker and starts their loops.
    ///
    /// # Errors
    /// Settings that librdkafka refuses, or the operating system gives no thread.
    pub(crate) fn start<K: Kafka>(parts: Parts<K>) -> Result<Self, RunError> {
        let (inbox, news) = Inbox::new();
        parts.desk.open(parts.worker, inbox.clone());
        let budget = Budget::new(parts.budget_bytes);
        let consumer = parts.kafka.consumer(parts.worker)?;
        let (group, waker) = (consumer.group(), consumer.waker());
        let (commands, receiver) = mpsc::unbounded_channel();
        let name = format!("countersign-poll-{}", parts.worker);
        let tell = poll::teller(inbox.clone());
        let (poll, _) = parts.watchdog.spawn(&name, poll::MARGIN, tell, |pulse| {
            PollLoop::new(consumer, inbox.clone(), budget.clone(), pulse).run(receiver)
        })?;
        let slots = Slots::start(SlotParts::new(&parts, group, inbox.clone()))?;
        Ok(Self {
            author: Author {
                instance: parts.settings.instance.clone(),
                incarnation: parts.settings.incarnation,
                number: 0,
            },
            member: parts.settings.instance.clone(),
            start: parts.settings.start,
            by_key: parts.settings.order == statemachine::Order::Key,
            transactional_ids: parts.transactional_ids,
            worker: Worker::new(parts.settings, Duration::ZERO),
            number: parts.worker,
            started: Instant::now(),
            inbox,
            news,
            commands,
            waker,
            slots,
            inputs: parts.inputs,
            shelves: BTreeMap::new(),
            known: BTreeMap::new(),
            budget,
            memory: Memory::new(parts.budget_bytes),
            deadline: parts.deadline,
            rate: parts.rate,
            sizes: parts.destinations.limits.sizes(),
            destinations: parts.destinations,
            provenance: parts.provenance,
            gate: parts.gate,
            seat: Seat::default(),
            work: parts.work,
            clerk: parts.clerk,
            scout: parts.scout,
            jobs: FuturesUnordered::new(),
            wishes: BTreeMap::new(),
            wished: 0,
            status: parts.status,
            vitals: Vitals::new(Instant::now()),
            stop: parts.stop,
            probe: parts.probe,
            refused: None,
            poll,
        })
    }

    /// Runs until the worker stops.
    ///
    /// # Errors
    /// Why it stopped, unless it was asked to.
    pub(crate) async fn run(mut self) -> Result<(), RunError> {
        let result = self.work().await;
        self.end_vitals();
        // Who aborts does not want to wait for calls that are under way.
        if !matches!(result, Err(RunError::Aborted)) {
            self.close().await;
        }
        result
    }

    async fn work(&mut self) -> Result<(), RunError> {
        loop {
            while let Some(effect) = self.worker.poll_effect() {
                if self.probe.as_ref().is_some_and(|lives| !lives(self.number, &effect)) {
                    return Err(RunError::Aborted);
                }
                if let Effect::Stop(result) = effect {
                    return self.end(result).await;
                }
                self.perform(effect);
            }
            if self.memory.is_short() && self.tell_those_short() {
                continue;
            }
            self.publish();
            self.wait().await?;
        }
    }

    async fn wait(&mut self) -> Result<(), RunError> {
        let due = self.worker.poll_timeout().map(|due| self.started + due);
        // Results of a handler that was cancelled are dropped without a word.
        let glance = self.memory.is_short().then(|| Instant::now() + GLANCE);
        let timers = due.into_iter().chain(glance);
        let timer = timers.fold(self.vitals.due(), Instant::min);
        tokio::select! {
            biased;
            changed = self.stop.changed() => {
                let stop = if changed.is_ok() { *self.stop.borrow() } else { Stop::Abort };
                match stop {
                    Stop::No => {}
                    Stop::Drain => self.handle(Input::Drain),
                    Stop::Abort => return Err(RunError::Aborted),
                }
            }
            Some(news) = self.news.recv() => {
                self.take(news)?;
                for _ in 1..TURN {
                    let Ok(news) = self.news.try_recv() else { break };
                    self.take(news)?;
                }
            }
            Ok(()) = self.sizes.changed() => self.handle(Input::Outdated),
            Some(finding) = self.jobs.next(), if !self.jobs.is_empty() => self.learn(finding)?,
            () = self.seat.granted() => self.handle(Input::Solo),
            () = sleep_until(timer) => self.handle(Input::Tick),
        }
        Ok(())
    }

    fn handle(&mut self, input: Input) {
        self.worker.handle(input, self.started.elapsed());
    }

    fn take(&mut self, news: News) -> Result<(), RunError> {
        match news {
            News::Records { of, batch } => self.receive(of, batch),
            News::AtEnd { of, offset } => self.reach_end(of, offset),
            News::Crowded { of } => self.crowd(of),
            News::Assigned(partitions) => self.identify(partitions),
            News::Revoked(partitions) => {
                let ids = self.taken(&partitions);
                self.handle(Input::Revoked(ids));
            }
            News::Lost(partitions) => {
                let ids = self.taken(&partitions);
                self.handle(Input::Lost(ids));
            }
            News::Finished { partition, epoch, lane, results } => {
                self.keep((partition, epoch, lane), &results);
            }
            News::Failed { partition, epoch, lane, offset, failure } => {
                if let Some(shelf) = self.shelves.get_mut(&partition) {
                    shelf.note_failure(offset, now_ms());
                }
                self.handle(Input::Failed { partition, epoch, lane, offset, failure });
            }
            News::Yielded { partition, epoch, lane } => {
                self.tell_memory(partition);
                self.handle(Input::Yielded { partition, epoch, lane });
            }
            News::Wished(wish, answer) => self.take_wish(wish, answer),
            News::Slot { slot, life, news } => self.hear_slot(slot, life, news)?,
            News::Broken(error) => return Err(error),
            News::Stored { write, result } => match result {
                Ok(()) => self.handle(Input::Stored { write }),
                Err(error) => return Err(RunError::Store(error)),
            },
            // Once it is leaving, partitions are also assigned that are not read any more.
            News::OutOfRange(_) if *self.stop.borrow() != Stop::No => {}
            News::OutOfRange(partition) => {
                // What is assigned only to be let go need not be readable.
                if self.shelves.values().any(|shelf| shelf.partition == partition) {
                    return Err(RunError::OutOfRange { partition });
                }
            }
            News::Fault(error) => self.fault(&error),
            News::Refused { partition, error } => self.denied(partition, &error),
            News::ConsumerFailed(error) => return Err(RunError::of_consumer(error, &self.member)),
        }
        Ok(())
    }

    /// The numbers of partitions that the group takes.
    fn taken(&mut self, partitions: &[TopicPartition]) -> Vec<PartitionId> {
        self.vitals.rebalance();
        self.ids(partitions)
    }

    fn ids(&self, partitions: &[TopicPartition]) -> Vec<PartitionId> {
        let owned = |partition: &TopicPartition| {
            // Of topics that had the name in turn, the last one is meant.
            let mut known = self.known.values().rev();
            known.find(|known| known.partition == *partition).map(|known| known.id)
        };
        partitions.iter().filter_map(owned).collect()
    }

    /// The loop may be waiting in a poll; a closed channel has been reported by the loop's end.
    fn command(&self, command: Command) {
        let _ = self.commands.send(command);
        (self.waker)();
    }

    async fn end(&mut self, result: Result<(), StopReason>) -> Result<(), RunError> {
        self.publish();
        // The last write is under way; its lines are what the next start wants to read.
        let _ = timeout(PATIENCE, self.clerk.slots()).await;
        let refused = self.refused.take();
        let of_worker =
            |reason| RunError::of_worker(reason, refused, &self.known, &self.transactional_ids);
        result.map_err(of_worker)
    }

    /// Closes the channels, which ends the loops; the consumer leaves the group as it is dropped.
    async fn close(self) {
        let Self { poll, slots, waker, commands, .. } = self;
        let loops: Vec<Loop> = slots.into_loops().chain([poll]).collect();
        drop(commands);
        waker();
        join_all(loops.into_iter().map(Loop::ended)).await;
    }
}
