//! A consumer's own state: what it was offered, what it owns, how far it has read.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use countersign::kafka::{BatchBuilder, ErrorKind, KafkaError, PollLimit, Polled, TopicPartition};
use countersign_statemachine::Disposition;
use tokio::time::Instant;

use super::assignor::Assignor;
use super::cluster::State;
use super::log::Log;
pub(super) use super::offer::Offer;

/// How far a partition has been read.
#[derive(Debug, Default)]
pub(super) struct Position {
    pub(super) next: u64,
    last_delivered: Option<u64>,
    reported_end: Option<u64>,
    is_out_of_range: bool,
    pub(super) is_paused: bool,
}

/// Where a consumer is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Not polled yet.
    New,
    Subscribed,
    /// Unsubscribed; the last `Revoke` may still be unanswered.
    Leaving,
    Left,
}

#[derive(Debug)]
#[expect(clippy::struct_field_names, reason = "a member id is Kafka's word")]
pub(super) struct Member {
    pub(super) client: u64,
    pub(super) group: Arc<str>,
    pub(super) instance: Option<Arc<str>>,
    pub(super) topics: Vec<Arc<str>>,
    pub(super) assignor: Assignor,
    pub(super) session_timeout: Duration,
    pub(super) max_poll_interval: Duration,
    pub(super) member_id: Option<Arc<str>>,
    pub(super) generation: Option<i32>,
    pub(super) owned: BTreeMap<TopicPartition, Position>,
    pub(super) rejoin: bool,
    pub(super) stage: Stage,
    /// Until when the caller is known to be polling.
    pub(super) polled_until: Instant,
    pub(super) faults: VecDeque<KafkaError>,
    pub(super) fatal: Option<KafkaError>,
    offers: VecDeque<Offer>,
    /// The first offer was told to the caller and is not answered.
    is_told: bool,
    cursor: usize,
    saw_outage: bool,
}

/// The settings of a [`Member`].
#[derive(Debug, Clone)]
pub(super) struct MemberConfig {
    pub(super) client: u64,
    pub(super) group: Arc<str>,
    pub(super) instance: Option<Arc<str>>,
    pub(super) topics: Vec<Arc<str>>,
    pub(super) assignor: Assignor,
    pub(super) session_timeout: Duration,
    pub(super) max_poll_interval: Duration,
}

impl Member {
    pub(super) fn new(config: MemberConfig, now: Instant) -> Self {
        Self {
            client: config.client,
            group: config.group,
            instance: config.instance,
            topics: config.topics,
            assignor: config.assignor,
            session_timeout: config.session_timeout,
            max_poll_interval: config.max_poll_interval,
            member_id: None,
            generation: None,
            owned: BTreeMap::new(),
            rejoin: false,
            stage: Stage::New,
            polled_until: now,
            faults: VecDeque::new(),
            fatal: None,
            offers: VecDeque::new(),
            is_told: false,
            cursor: 0,
            saw_outage: false,
        }
    }

    /// Whether nothing is awaited from the caller.
    pub(super) fn is_settled(&self) -> bool {
        self.offers.is_empty()
    }

    /// Queues an event; one without partitions says nothing and is left out.
    pub(super) fn offer(&mut self, offer: Offer) {
        if !offer.partitions().is_empty() {
            self.offers.push_back(offer);
        }
    }

    /// Takes back everything that no event deals with yet.
    pub(super) fn revoke_all(&mut self) {
        self.offers.truncate(usize::from(self.is_told));
        let handled = self.offers.front().map(Offer::partitions).unwrap_or_default();
        let owned = self.owned.keys().filter(|partition| !handled.contains(partition));
        let revoked = owned.cloned().collect();
        self.offer(Offer::Revoke(revoked));
    }

    /// The member is no longer in the group. An event that the caller is dealing with stays.
    pub(super) fn lose_membership(&mut self) {
        self.offers.truncate(usize::from(self.is_told));
        self.generation = None;
        self.member_id = None;
        self.rejoin = false;
        let handled = self.offers.front().map(Offer::partitions).unwrap_or_default();
        let is_assign = matches!(self.offers.front(), Some(Offer::Assign(_)));
        let mut lost: Vec<_> =
            self.owned.keys().filter(|partition| !handled.contains(partition)).cloned().collect();
        if is_assign {
            lost.extend(handled.iter().cloned());
        }
        self.offer(Offer::Lost(lost));
    }

    pub(super) fn answer_assign(
        &mut self,
        starts: &[(TopicPartition, Option<u64>)],
        repeats: bool,
    ) -> Result<(), KafkaError> {
        self.check_fatal()?;
        let given: Vec<_> = starts.iter().map(|(partition, _)| partition.clone()).collect();
        self.take_answered(&given, |offer| matches!(offer, Offer::Assign(_)), "assign")?;
        if repeats {
            for position in self.owned.values_mut() {
                position.next = position.last_delivered.unwrap_or(position.next);
            }
        }
        for (partition, start) in starts {
            let (next, is_paused) = (start.unwrap_or(0), start.is_none());
            let position = Position { next, is_paused, ..Position::default() };
            self.owned.insert(partition.clone(), position);
        }
        Ok(())
    }

    pub(super) fn start(&mut self, starts: &[(TopicPartition, u64)]) -> Result<(), KafkaError> {
        for (partition, start) in starts {
            let position = self.assigned(partition, "start")?;
            *position = Position { next: *start, ..Position::default() };
        }
        Ok(())
    }

    pub(super) fn join_once_more(&mut self) -> Result<(), KafkaError> {
        self.check_fatal()?;
        if !(self.is_told && matches!(self.offers.front(), Some(Offer::Assign(_)))) {
            let (kind, message) = (ErrorKind::Other, "no assignment waits for its answer");
            return Err(KafkaError::new("subscribe", kind, Disposition::Fatal, message));
        }
        self.rejoin = true;
        Ok(())
    }

    pub(super) fn answer_unassign(&mut self, given: &[TopicPartition]) -> Result<(), KafkaError> {
        self.check_fatal()?;
        let is_taking = |offer: &Offer| matches!(offer, Offer::Revoke(_) | Offer::Lost(_));
        self.take_answered(given, is_taking, "unassign")?;
        self.owned.retain(|partition, _| !given.contains(partition));
        Ok(())
    }

    fn take_answered(
        &mut self,
        given: &[TopicPartition],
        fits: impl Fn(&Offer) -> bool,
        call: &'static str,
    ) -> Result<(), KafkaError> {
        let names_all = |offer: &Offer| {
            let mut given = given.to_vec();
            given.sort();
            let mut offered = offer.partitions().to_vec();
            offered.sort();
            given == offered
        };
        let is_answer = self.is_told
            && self.offers.front().is_some_and(|offer| fits(offer) && names_all(offer));
        if !is_answer {
            let message = format!("{given:?} does not answer {:?}", self.offers.front());
            return Err(KafkaError::new(call, ErrorKind::Other, Disposition::Fatal, message));
        }
        self.offers.pop_front();
        self.is_told = false;
        Ok(())
    }

    pub(super) fn check_fatal(&self) -> Result<(), KafkaError> {
        self.fatal.clone().map_or(Ok(()), Err)
    }

    /// The next rebalance event, once.
    fn tell(&mut self) -> Option<Polled> {
        if self.is_told {
            return None;
        }
        let polled = self.offers.front().map(Offer::polled)?;
        self.is_told = true;
        Some(polled)
    }
}

impl State {
    /// One look at everything that a poll can bring.
    pub(super) fn poll_member(
        &mut self,
        handle: u64,
        limit: PollLimit,
        polled: &mut Vec<Polled>,
    ) -> Result<(), KafkaError> {
        self.keep_membership(handle);
        let is_down = self.is_down();
        let Some(member) = self.members.get_mut(&handle) else { return Ok(()) };
        member.check_fatal()?;
        polled.extend(member.faults.drain(..).map(Polled::Fault));
        if is_down && !member.saw_outage {
            let kind = ErrorKind::AllBrokersDown;
            let message = "every known broker is away";
            let error = KafkaError::new("poll", kind, Disposition::Retriable, message);
            polled.push(Polled::Fault(error));
        }
        member.saw_outage = is_down;
        polled.extend(member.tell());
        if !is_down && member.is_settled() {
            self.fetch(handle, limit, polled);
        }
        Ok(())
    }

    /// What a heart-beat would find out.
    fn keep_membership(&mut self, handle: u64) {
        if self.is_down() {
            return;
        }
        let Some(member) = self.members.get(&handle) else { return };
        let is_member = member.member_id.as_ref().is_some_and(|id| {
            self.groups.get(&member.group).is_some_and(|group| group.memberships.contains_key(id))
        });
        let is_fenced = member.member_id.is_some() && self.is_fenced_instance(member);
        let Some(member) = self.members.get_mut(&handle) else { return };
        match member.stage {
            Stage::New => {
                member.stage = Stage::Subscribed;
                self.join(handle);
            }
            Stage::Subscribed if is_fenced => {
                let kind = ErrorKind::FencedInstance;
                let message = "a newer consumer has the group instance id";
                let error = KafkaError::new("poll", kind, Disposition::Fatal, message);
                member.fatal = Some(error);
                member.generation = None;
            }
            Stage::Subscribed if !is_member => {
                if member.member_id.is_some() || member.generation.is_some() {
                    member.lose_membership();
                }
                if member.is_settled() {
                    self.join(handle);
                }
            }
            Stage::Leaving if !is_member && member.generation.is_some() => member.lose_membership(),
            Stage::Subscribed | Stage::Leaving | Stage::Left => {}
        }
    }

    fn fetch(&mut self, handle: u64, limit: PollLimit, polled: &mut Vec<Polled>) {
        let Some(member) = self.members.get_mut(&handle) else { return };
        let mut left = limit;
        // Starts elsewhere each time, so that a busy partition does not starve the others.
        member.cursor = member.cursor.wrapping_add(1);
        let skip = member.cursor % member.owned.len().max(1);
        let (first, second): (Vec<_>, Vec<_>) =
            member.owned.iter_mut().enumerate().partition(|(place, _)| *place >= skip);
        for (_, (partition, position)) in first.into_iter().chain(second) {
            let topic = self.topics.get(&partition.topic);
            let log = topic.and_then(|topic| topic.log(partition.partition));
            if let Some(log) = log
                && !self.leaderless.contains(partition)
                && !position.is_paused
            {
                position.read(partition, log, &mut left, polled);
            }
        }
    }
}

impl Position {
    /// As after an assignment.
    pub(super) fn seek(&mut self, offset: u64) {
        *self = Self { next: offset, is_paused: self.is_paused, ..Self::default() };
    }

    fn read(
        &mut self,
        partition: &TopicPartition,
        log: &Log,
        left: &mut PollLimit,
        polled: &mut Vec<Polled>,
    ) {
        if self.is_out_of_range {
            return;
        }
        if self.next < log.start() || self.next > log.end() {
            self.is_out_of_range = true;
            polled.push(Polled::OutOfRange(partition.clone()));
            return;
        }
        let is_drained = self.read_records(partition, log, left, polled);
        if !is_drained {
            return;
        }
        self.next = self.next.max(log.last_stable());
        if self.next == log.last_stable() && self.reported_end != Some(self.next) {
            self.reported_end = Some(self.next);
            polled.push(Polled::End { partition: partition.clone(), offset: self.next });
        }
    }

    /// Whether nothing visible is left.
    fn read_records(
        &mut self,
        partition: &TopicPartition,
        log: &Log,
        left: &mut PollLimit,
        polled: &mut Vec<Polled>,
    ) -> bool {
        let mut batch = BatchBuilder::new(partition.clone());
        let mut is_drained = true;
        for record in log.visible_from(self.next) {
            if left.records == 0 || left.bytes == 0 {
                is_drained = false;
                break;
            }
            left.records -= 1;
            left.bytes = left.bytes.saturating_sub(record.bytes());
            self.next = record.offset + 1;
            self.last_delivered = Some(record.offset);
            let headers = record.headers.iter().map(|h| (h.name.as_bytes(), h.value.as_deref()));
            let (key, value) = (record.key.as_deref(), record.value.as_deref());
            batch.push(record.offset, Some(record.timestamp), key, value, headers);
        }
        if !batch.is_empty() {
            polled.push(Polled::Records(batch.build()));
        }
        is_drained
    }
}
