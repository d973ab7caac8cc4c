//! The cluster's state and its clock: everything that time does, in the order of its due times.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use countersign::kafka::{ErrorKind, KafkaError, Output, TopicPartition, batch_bytes};
use countersign_statemachine::Disposition;
use tokio::time::Instant;

use super::ModelConfig;
use super::faults::Faults;
use super::groups::Group;
use super::log::{Log, Writer};
use super::member::{Member, Stage};
use super::producer_state::ProducerState;
use super::request::{Code, Reply, Request, Sender};
use super::transactions::Transaction;

#[derive(Debug)]
pub(super) struct Topic {
    pub(super) id: [u8; 16],
    pub(super) max_message_bytes: usize,
    /// Whether `cleanup.policy` is `compact`. Nothing is ever removed, but records need a key.
    pub(super) is_compacted: bool,
    pub(super) logs: Vec<Log>,
}

impl Topic {
    pub(super) fn partition_count(&self) -> u32 {
        u32::try_from(self.logs.len()).unwrap_or(u32::MAX)
    }

    /// Whether it takes a record, whatever its size.
    pub(super) fn takes(&self, output: &Output) -> bool {
        output.key.is_some() || !self.is_compacted
    }

    pub(super) fn log(&self, partition: u32) -> Option<&Log> {
        self.logs.get(usize::try_from(partition).ok()?)
    }
}

/// One process with its clients.
#[derive(Debug, Default)]
pub(super) struct Client {
    pub(super) is_crashed: bool,
    pub(super) is_frozen: bool,
}

/// What is due at a time of its own.
#[derive(Debug)]
pub(super) enum Event {
    /// A frame that was late.
    Arrival(Request),
    WriteMarkers {
        transactional_id: Arc<str>,
    },
    /// A producer's linger time is over.
    Deliver {
        producer: u64,
    },
}

#[derive(Debug, Clone)]
enum Due {
    Event(u64),
    TransactionTimeout(Arc<str>),
    SessionEnd { group: Arc<str>, member_id: Arc<str> },
    RebalanceEnd { group: Arc<str> },
    PollExceeded { handle: u64 },
    BrokerUp,
}

/// Since when, and until when if known, the broker is away.
#[derive(Debug, Clone, Copy)]
pub(super) struct Outage {
    pub(super) until: Option<Instant>,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) config: ModelConfig,
    pub(super) now: Instant,
    pub(super) started: Instant,
    pub(super) topics: BTreeMap<Arc<str>, Topic>,
    pub(super) transactions: BTreeMap<Arc<str>, Transaction>,
    /// Whether a transaction, by its number, was committed.
    pub(super) outcomes: BTreeMap<u64, bool>,
    pub(super) groups: BTreeMap<Arc<str>, Group>,
    pub(super) members: BTreeMap<u64, Member>,
    pub(super) producers: BTreeMap<u64, ProducerState>,
    pub(super) clients: BTreeMap<u64, Client>,
    pub(super) held: Vec<Request>,
    pub(super) faults: Faults,
    pub(super) outage: Option<Outage>,
    /// When what is on the way to the broker has arrived, and more can be sent.
    pub(super) way_free: Instant,
    /// Partitions that nobody leads: nothing of them is read, written or told.
    pub(super) leaderless: BTreeSet<TopicPartition>,
    pub(super) version: u64,
    events: BTreeMap<(Instant, u64), Event>,
    last_number: u64,
}

impl State {
    pub(super) fn new(config: ModelConfig, now: Instant) -> Self {
        Self {
            config,
            now,
            started: now,
            topics: BTreeMap::new(),
            transactions: BTreeMap::new(),
            outcomes: BTreeMap::new(),
            groups: BTreeMap::new(),
            members: BTreeMap::new(),
            producers: BTreeMap::new(),
            clients: BTreeMap::new(),
            held: Vec::new(),
            faults: Faults::none(),
            outage: None,
            way_free: now,
            leaderless: BTreeSet::new(),
            version: 0,
            events: BTreeMap::new(),
            last_number: 0,
        }
    }

    pub(super) fn next_number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    /// Something happened that a waiting client may be waiting for.
    pub(super) fn changed(&mut self) {
        self.version += 1;
    }

    pub(super) fn now_ms(&self) -> i64 {
        i64::try_from((self.now - self.started).as_millis()).unwrap_or(i64::MAX)
    }

    pub(super) fn schedule(&mut self, at: Instant, event: Event) {
        let number = self.next_number();
        self.events.insert((at.max(self.now), number), event);
    }

    pub(super) fn is_down(&self) -> bool {
        self.outage.is_some()
    }

    pub(super) fn log_mut(&mut self, partition: &TopicPartition) -> Option<&mut Log> {
        let topic = self.topics.get_mut(&partition.topic)?;
        topic.logs.get_mut(usize::try_from(partition.partition).ok()?)
    }

    /// Lets everything happen that is due by `now`, each at its time.
    pub(super) fn run_until(&mut self, now: Instant) {
        self.settle();
        while let Some((at, due)) = self.next_due().filter(|(at, _)| *at <= now) {
            self.now = self.now.max(at);
            self.fire(due, at);
            self.settle();
        }
        self.now = self.now.max(now);
    }

    /// When something happens next by itself.
    pub(super) fn wake_at(&self) -> Option<Instant> {
        self.next_due().map(|(at, _)| at)
    }

    fn next_due(&self) -> Option<(Instant, Due)> {
        if let Some(outage) = self.outage {
            return outage.until.map(|until| (until, Due::BrokerUp));
        }
        let events = self.events.keys().next().map(|(at, number)| (*at, Due::Event(*number)));
        let transactions = self.transactions.iter().filter_map(|(id, transaction)| {
            Some((transaction.deadline?, Due::TransactionTimeout(id.clone())))
        });
        let rebalances = self.groups.iter().filter_map(|(group, state)| {
            Some((state.rebalance_deadline?, Due::RebalanceEnd { group: group.clone() }))
        });
        let sessions = self.groups.iter().flat_map(|(group, state)| {
            state.memberships.iter().filter_map(|(member_id, membership)| {
                let due = Due::SessionEnd { group: group.clone(), member_id: member_id.clone() };
                Some((membership.session_deadline?, due))
            })
        });
        let polls = self.members.iter().filter(|(_, member)| self.must_poll(member)).map(
            |(handle, member)| {
                let at = member.polled_until + member.max_poll_interval;
                (at, Due::PollExceeded { handle: *handle })
            },
        );
        let all = events.into_iter().chain(transactions).chain(rebalances).chain(sessions);
        all.chain(polls).min_by_key(|(at, _)| *at)
    }

    fn must_poll(&self, member: &Member) -> bool {
        let heart_beats = self.clients.get(&member.client).is_some_and(Client::is_running);
        heart_beats
            && member.stage == Stage::Subscribed
            && member.member_id.is_some()
            && member.fatal.is_none()
    }

    fn fire(&mut self, due: Due, at: Instant) {
        match due {
            Due::Event(number) => {
                if let Some(event) = self.events.remove(&(at, number)) {
                    self.happen(event);
                }
            }
            Due::TransactionTimeout(id) => self.time_out_transaction(&id),
            Due::SessionEnd { group, member_id } => self.remove_membership(&group, &member_id),
            Due::RebalanceEnd { group } => self.end_rebalance_wait(&group),
            Due::PollExceeded { handle } => self.exceed_poll(handle),
            Due::BrokerUp => self.broker_up(),
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            // Nobody waits for the answer to a late frame.
            Event::Arrival(request) => {
                let _ = self.execute(&request);
            }
            Event::WriteMarkers { transactional_id } => self.write_markers(&transactional_id),
            Event::Deliver { producer } => self.deliver(producer),
        }
    }

    /// The client's own thread leaves the group; generation stays, the member id is gone, so that
    /// offsets sent now are refused as of an unknown member. A static member does not leave: it
    /// stops heart-beating (KIP-345).
    fn exceed_poll(&mut self, handle: u64) {
        let is_static = self.members.get(&handle).is_some_and(|m| m.instance.is_some());
        if is_static {
            self.stop_heart_beats(handle);
        } else {
            self.end_membership(handle);
        }
        let Some(member) = self.members.get_mut(&handle) else { return };
        member.member_id = None;
        let kind = ErrorKind::PollExceeded;
        let message = "max.poll.interval.ms was exceeded";
        let error = KafkaError::new("poll", kind, Disposition::Retriable, message);
        member.faults.push_back(error);
        self.changed();
    }

    /// A coordinator that comes back gives every member a fresh session.
    pub(super) fn broker_up(&mut self) {
        self.outage = None;
        let now = self.now;
        for group in self.groups.values_mut() {
            for membership in group.memberships.values_mut() {
                if membership.session_deadline.is_some() {
                    let timeout = self.members.get(&membership.handle).map(|m| m.session_timeout);
                    membership.session_deadline = timeout.map(|timeout| now + timeout);
                }
            }
        }
        for member in self.members.values_mut() {
            member.polled_until = member.polled_until.max(now);
        }
        self.changed();
    }

    pub(super) fn execute(&mut self, request: &Request) -> Result<Reply, Code> {
        match request {
            Request::InitProducerId { transactional_id, timeout } => {
                self.init_producer_id(transactional_id, *timeout)
            }
            Request::AddPartitionsToTxn { sender, partitions } => {
                self.add_partitions(sender, partitions)
            }
            Request::AddOffsetsToTxn { sender, group } => self.add_offsets(sender, group),
            Request::TxnOffsetCommit { sender, metadata, offsets } => {
                self.txn_offset_commit(sender, metadata, offsets)
            }
            Request::EndTxn { sender, commit } => self.end_transaction(sender, *commit),
            Request::Produce { sender, outputs } => self.produce(sender, outputs),
        }
    }

    /// A batch of one partition is taken as a whole or not at all.
    fn produce(&mut self, sender: &Sender, batch: &[Output]) -> Result<Reply, Code> {
        let Some(first) = batch.first() else { return Ok(Reply::Done) };
        let partition = TopicPartition::new(first.topic.clone(), first.partition);
        let topic = self.topics.get(&first.topic);
        let largest = topic.map(|topic| topic.max_message_bytes);
        if largest.is_some_and(|largest| bytes_of(batch) > largest) {
            return Err(Code::MessageTooLarge);
        }
        if self.leaderless.contains(&partition) {
            return Err(Code::TimedOut);
        }
        if topic.is_some_and(|topic| batch.iter().any(|output| !topic.takes(output))) {
            return Err(Code::InvalidRecord);
        }
        let log = self.log_mut(&partition).ok_or(Code::UnknownTopicOrPartition)?;
        if log.epoch(sender.producer_id).is_some_and(|epoch| epoch > sender.epoch) {
            return Err(Code::InvalidProducerEpoch);
        }
        let transaction = self.transaction_to_write(sender, &partition)?;
        let now_ms = self.now_ms();
        let Sender { producer_id, epoch, .. } = *sender;
        let writer = Writer { producer_id, epoch, transaction };
        if let Some(log) = self.log_mut(&partition) {
            for output in batch {
                log.append(output, Some(writer), now_ms);
            }
        }
        self.changed();
        Ok(Reply::Done)
    }

    /// Partition verification: the coordinator is asked only before the first record.
    fn transaction_to_write(
        &mut self,
        sender: &Sender,
        partition: &TopicPartition,
    ) -> Result<u64, Code> {
        let is_open = self.log_mut(partition).is_some_and(|log| log.is_open(sender.producer_id));
        if is_open {
            let transaction = self.transactions.get(&sender.transactional_id);
            return transaction.map(|t| t.number).ok_or(Code::InvalidProducerIdMapping);
        }
        self.verify_partition(sender, partition)
    }
}

/// The bytes of a batch; for one of several records a little less, with what they share counted
/// once.
pub(super) fn bytes_of(batch: &[Output]) -> usize {
    let own = |output: &Output| {
        output.key.as_ref().map_or(0, Bytes::len) + output.value.as_ref().map_or(0, Bytes::len)
    };
    match batch {
        [] => 0,
        [first, rest @ ..] => batch_bytes(first, None) + rest.iter().map(own).sum::<usize>(),
    }
}

impl Client {
    pub(super) fn is_running(&self) -> bool {
        !self.is_crashed && !self.is_frozen
    }
}

/// How long a client waits before it looks again at a transaction that is ending.
pub(super) const CONCURRENT_BACKOFF: Duration = Duration::from_millis(20);
