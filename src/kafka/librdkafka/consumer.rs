//! The group member of one worker.
//!
//! # Why rebalances can wait for their answer
//!
//! librdkafka hands a rebalance over as an event and waits for the application's call. It does not
//! matter whether that call is made while the event is handled: `rd_kafka_rebalance_op` (eager) and
//! `rd_kafka_rebalance_op_incr` (cooperative and KIP-848) set the join state `WAIT_ASSIGN_CALL` or
//! `WAIT_UNASSIGN_CALL`, pause the assignment (`rd_kafka_assignment_pause`), enqueue the event and
//! forget it. Only `rd_kafka_cgrp_handle_assign_op`, which every call of the `assign` family ends
//! in, leaves that state. Read in librdkafka 2.12.1, `rdkafka_cgrp.c`:
//!
//! - Classic: `rd_kafka_cgrp_join_state_serve` joins from `INIT` only and goes on with heartbeats
//!   in the waiting states. A rebalance of the group is ignored meanwhile
//!   (`rd_kafka_cgrp_handle_heartbeat_error`: "no further action if already rebalancing"), and so
//!   is a lost session (`rd_kafka_cgrp_revoke_all_rejoin_maybe`), which then shows as an empty
//!   member id: [`Group::generation`](crate::kafka::Group::generation) is `None`.
//! - KIP-848: `rd_kafka_cgrp_consumer_serve` acknowledges an assignment from `STEADY` only; until
//!   then the broker keeps revoked partitions with this member and its epoch where it is.
//! - A rejoin follows from `rd_kafka_cgrp_unassign_done` or `rd_kafka_cgrp_incr_unassign_done`,
//!   both reached only after the call.
//!
//! Three calls do not heed the waiting states, so that this module does:
//! - `rd_kafka_cgrp_unsubscribe` revokes or rejoins at once: it is made only when nothing waits for
//!   an answer ([`Leaving::WhenAnswered`]).
//! - `rd_kafka_cgrp_metadata_update_check` (classic, the subscribed topics' partitions changed) may
//!   rejoin, or enqueue a second rebalance: the second one is kept until the first is answered, and
//!   the group metadata is pinned to what it was when a `Revoke` came ([`Gate`]).
//! - `rd_kafka_consumer_close_queue` waits for the answer for ever: dropping the consumer answers.
//!
//! The end of a partition is an error in the place of a record, with the offset:
//! `rd_kafka_fetch_reply_handle_partition_error` puts the fetch position into it.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use countersign_statemachine::Disposition;
use rdkafka::client::NativeClient;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::RDKafkaErrorCode as Code;

use super::change::{Change, caller, dead, subscribe};
use super::classify::classify_binding;
use super::config::{Assignor, ClusterConfig, GroupProtocol};
use super::context::Context;
use super::events;
use super::fetch::{Batches, fail, take};
use super::group::{Client, Gate, LibrdGroup, Shared, identity, member};
use super::lists::{each, list, plain, same};
use super::raw::{self, Doors, Event, EventKind, Queues, Rebalance};
use super::rights::Names;
use super::seek::Unsought;
use super::settings;
use crate::kafka::{Consumer, KafkaError, PollLimit, Polled, TopicPartition, Waker};

/// How long the beginning of a seek is waited for: a turn of librdkafka's main thread.
const SEEK_WAIT: Duration = Duration::from_secs(1);

/// A consumer of librdkafka.
///
/// Dropping it leaves the group (a static member stays in it until its session ends) and waits for
/// the coordinator's answer: up to 5 s while no broker answers. Do it on a thread that may wait.
pub struct LibrdConsumer {
    // They belong to the client and are dropped before it.
    doors: Doors,
    shared: Arc<Shared>,
    client: Arc<Client>,
    topics: Vec<String>,
    names: Names,
    incremental: bool,
    batches: Batches,
    pending: Option<Change>,
    next: VecDeque<Change>,
    leaving: Leaving,
    /// Where fetching is to go on that could not be told yet.
    unsought: Unsought,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leaving {
    No,
    WhenAnswered,
    Yes,
}

impl fmt::Debug for LibrdConsumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LibrdConsumer")
            .field("pending", &self.pending)
            .field("leaving", &self.leaving)
            .finish_non_exhaustive()
    }
}

impl LibrdConsumer {
    pub(super) fn new(config: &ClusterConfig, worker: u32) -> Result<Self, KafkaError> {
        let call = "subscribe";
        let settings = settings::consumer(config, worker);
        let base = BaseConsumer::from_config_and_context(&settings, Context)
            .map_err(|error| classify_binding(call, &error))?;
        let queues = Queues::new(base.client().native_client())
            .ok_or_else(|| caller(call, "the consumer has no queue"))?;
        subscribe(&base, &config.topics)?;
        let client = Arc::new(Client { queues, base });
        let shared = Arc::new(Shared {
            client: RwLock::new(Some(Arc::clone(&client))),
            gate: RwLock::new(Gate::Open),
        });
        Ok(Self {
            doors: Doors::default(),
            shared,
            client,
            topics: config.topics.clone(),
            names: Names::of_reader(config),
            incremental: config.group_protocol == GroupProtocol::Consumer
                || config.assignor == Assignor::CooperativeSticky,
            batches: Batches::default(),
            pending: None,
            next: VecDeque::new(),
            leaving: Leaving::No,
            unsought: Unsought::default(),
        })
    }

    fn native(&self) -> &NativeClient {
        self.client.base.client().native_client()
    }

    /// Handles an event; whether the poll should end with it.
    fn handle(&mut self, event: &mut Event, polled: &mut Vec<Polled>) -> Result<bool, KafkaError> {
        match event.kind() {
            EventKind::Fetch => {
                while let Some(message) = event.next_message() {
                    take(&mut self.batches, &self.names, &message, polled)?;
                }
                Ok(false)
            }
            EventKind::Error => {
                let failure = event.failure();
                let place = || event.partition();
                fail(&mut self.batches, &self.names, failure, place, polled).map(|()| false)
            }
            EventKind::Rebalance => {
                let is_lost = raw::assignment_lost(self.native());
                self.next.push_back(match event.rebalance() {
                    Some(Rebalance::Assign(list)) => Change::Assign(list),
                    Some(Rebalance::Revoke(list)) if is_lost => Change::Lost(list),
                    Some(Rebalance::Revoke(list)) => Change::Revoke(list),
                    None => return Ok(false),
                });
                self.batches.finish(polled);
                self.raise(polled)
            }
            EventKind::Log
            | EventKind::Stats
            | EventKind::TokenRefresh
            | EventKind::Delivery
            | EventKind::Answer
            | EventKind::Other => {
                let refused = |error| Polled::Refused { partition: None, error };
                let told = |error: KafkaError| match error.disposition {
                    Disposition::Permanent => refused(error),
                    Disposition::Retriable
                    | Disposition::Abortable
                    | Disposition::Fatal
                    | Disposition::Fenced => Polled::Fault(error),
                };
                polled.extend(events::common("poll", event).map(told));
                Ok(false)
            }
        }
    }

    /// Takes the records that wait, up to the limit.
    fn fetch(&mut self, limit: PollLimit, polled: &mut Vec<Polled>) -> Result<(), KafkaError> {
        let Self { client, batches, doors, names, .. } = self;
        if batches.is_full(limit) {
            return Ok(());
        }
        let mut result = Ok(());
        doors.serve(client.base.client().native_client(), |message| {
            result = take(batches, names, message, polled);
            result.is_ok() && !batches.is_full(limit)
        });
        result
    }

    /// Tells the caller of the next rebalance, if none waits for its answer. Whether it was told.
    ///
    /// One without partitions says nothing and is answered here.
    fn raise(&mut self, polled: &mut Vec<Polled>) -> Result<bool, KafkaError> {
        while self.pending.is_none() {
            let Some(change) = self.next.pop_front() else { break };
            let unwanted = self.leaving == Leaving::Yes && matches!(change, Change::Assign(_));
            if change.partitions().is_empty() || unwanted {
                change.release(self.native(), self.incremental)?;
                continue;
            }
            let (gate, told) = match &change {
                Change::Assign(list) => (Gate::Open, Polled::Assign(list.clone())),
                Change::Revoke(list) => {
                    let only = member(&self.client).as_ref().map(identity);
                    (Gate::Only(only), Polled::Revoke(list.clone()))
                }
                Change::Lost(list) => (Gate::Shut, Polled::Lost(list.clone())),
            };
            self.shared.set_gate(gate);
            self.pending = Some(change);
            polled.push(told);
            return Ok(true);
        }
        self.leave_if_answered()?;
        Ok(false)
    }

    fn answered(&mut self) -> Result<(), KafkaError> {
        self.pending = None;
        self.shared.set_gate(Gate::Open);
        self.leave_if_answered()
    }

    fn leave_if_answered(&mut self) -> Result<(), KafkaError> {
        let answered = self.pending.is_none() && self.next.is_empty();
        if answered && self.leaving == Leaving::WhenAnswered {
            self.leaving = Leaving::Yes;
            raw::unsubscribe(self.native()).map_err(dead("unsubscribe"))?;
        }
        Ok(())
    }

    fn seek_all(&mut self) -> Result<(), KafkaError> {
        let sought = self.unsought.tell(self.client.base.client().native_client())?;
        self.resume(&sought)
    }
}

impl Consumer for LibrdConsumer {
    type Group = LibrdGroup;

    /// As the trait says. A limit below one record counts as one, since a record cannot be put
    /// back.
    async fn poll(
        &mut self,
        wait: Duration,
        limit: PollLimit,
        polled: &mut Vec<Polled>,
    ) -> Result<(), KafkaError> {
        if self.raise(polled)? {
            return Ok(());
        }
        self.seek_all()?;
        let before = polled.len();
        let mut left = wait;
        let mut deadline = None;
        let mut waited = false;
        let client = Arc::clone(&self.client);
        let result = loop {
            if let Err(error) = self.fetch(limit, polled) {
                break Err(error);
            }
            let nothing = self.batches.records() == 0 && polled.len() == before;
            let waits = nothing && !waited;
            let Some(mut event) = client.queues.poll(if waits { left } else { Duration::ZERO })
            else {
                // Records may be what it was woken for.
                if !waits {
                    break Ok(());
                }
                waited = true;
                continue;
            };
            match self.handle(&mut event, polled) {
                Ok(false) => {}
                Ok(true) => break Ok(()),
                Err(error) => break Err(error),
            }
            if waits && !wait.is_zero() {
                // A log line is nothing to return for. The clock is read only then.
                let now = Instant::now();
                left = deadline.get_or_insert(now + wait).saturating_duration_since(now);
            }
        };
        self.batches.finish(polled);
        result
    }

    /// As the trait says. What is not to be fetched yet is paused before it is assigned, at an
    /// offset that `start` replaces: librdkafka starts its fetcher, which does nothing while it is
    /// paused (`rd_kafka_toppar_fetch_decide`), and needs no leader for that.
    fn assign(&mut self, starts: &[(TopicPartition, Option<u64>)]) -> Result<(), KafkaError> {
        let call = if self.incremental { "incremental_assign" } else { "assign" };
        match &self.pending {
            Some(Change::Assign(offered))
                if same(offered, starts.iter().map(|(partition, _)| partition)) => {}
            _ => return Err(caller(call, "these partitions were not offered")),
        }
        for (partition, _) in starts {
            let Self { client, doors, .. } = self;
            let native = client.base.client().native_client();
            doors.open(native, &client.queues, partition).map_err(dead(call))?;
        }
        let without = starts.iter().filter(|(_, offset)| offset.is_none());
        let without: Vec<_> = without.map(|(partition, _)| partition.clone()).collect();
        self.pause(&without)?;
        let starts = starts.iter().map(|(tp, offset)| (tp, Some(offset.unwrap_or(0)), ""));
        let starts = list(call, starts)?;
        let assign = if self.incremental { raw::incremental_assign } else { raw::assign };
        assign(self.native(), &starts).map_err(dead(call))?;
        self.answered()
    }

    /// As the trait says. What is fetched in vain, because it was to be stopped just before, is
    /// tried again by the next polls.
    fn start(&mut self, starts: &[(TopicPartition, u64)]) -> Result<(), KafkaError> {
        self.unsought.add(starts);
        self.seek_all()
    }

    fn unassign(&mut self, partitions: &[TopicPartition]) -> Result<(), KafkaError> {
        let call = if self.incremental { "incremental_unassign" } else { "assign" };
        let Some(change) = self.pending.take_if(|change| {
            !matches!(change, Change::Assign(_)) && same(change.partitions(), partitions.iter())
        }) else {
            return Err(caller(call, "these partitions were not taken back"));
        };
        self.doors.close(partitions);
        self.unsought.forget(partitions);
        change.release(self.native(), self.incremental)?;
        self.batches.forget(partitions);
        self.answered()
    }

    /// As the trait says. While librdkafka waits for the answer to a rebalance
    /// (`RD_KAFKA_CGRP_REBALANCING`), it keeps a subscription for later, and applying it is
    /// a rejoin, whether it changes anything or not (`rd_kafka_trigger_waiting_subscribe_maybe`).
    fn rejoin(&mut self) -> Result<(), KafkaError> {
        match &self.pending {
            Some(Change::Assign(_)) if self.leaving == Leaving::No => {
                subscribe(&self.client.base, &self.topics)
            }
            _ => Err(caller("subscribe", "no assignment waits for its answer")),
        }
    }

    fn pause(&mut self, partitions: &[TopicPartition]) -> Result<(), KafkaError> {
        let call = "pause_partitions";
        each(self.native(), call, &plain(call, partitions)?, raw::pause)
    }

    fn resume(&mut self, partitions: &[TopicPartition]) -> Result<(), KafkaError> {
        let call = "resume_partitions";
        each(self.native(), call, &plain(call, partitions)?, raw::resume)
    }

    /// As the trait says. `rd_kafka_toppar_op_seek` makes a version barrier at once: what was
    /// fetched before is dropped. The application's position is forgotten, so that no pause goes
    /// back to it.
    fn seek(&mut self, partition: &TopicPartition, offset: u64) -> Result<(), KafkaError> {
        let call = "seek_partitions";
        let list = list(call, [(partition, Some(offset), "")])?;
        each(self.native(), call, &list, |client, list| match raw::seek(client, list, SEEK_WAIT) {
            // It is under way, and comes before whatever is fetched next.
            Err(failure) if failure.code == Code::OperationTimedOut => Ok(()),
            result => result,
        })
    }

    fn unsubscribe(&mut self) -> Result<(), KafkaError> {
        if self.leaving == Leaving::No {
            self.leaving = Leaving::WhenAnswered;
        }
        self.leave_if_answered()
    }

    fn group(&self) -> LibrdGroup {
        LibrdGroup(Arc::clone(&self.shared))
    }

    fn waker(&self) -> Waker {
        let shared = Arc::clone(&self.shared);
        Arc::new(move || shared.wake())
    }
}

impl Drop for LibrdConsumer {
    fn drop(&mut self) {
        for change in self.pending.take().into_iter().chain(std::mem::take(&mut self.next)) {
            if let Err(error) = change.release(self.native(), self.incremental) {
                tracing::debug!(%error, "unanswered rebalance at the end of a consumer");
            }
        }
        self.shared.set_gate(Gate::Shut);
        *self.shared.client.write().unwrap_or_else(PoisonError::into_inner) = None;
    }
}
