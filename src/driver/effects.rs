//! What the worker asks for, as orders to the loops.

use std::sync::Arc;

use countersign_statemachine::worker::{
    Call, Denied, Effect, Ground, Input, Position, Refusal, SlotEvent, Start,
};
use countersign_statemachine::{Author, PartitionId, Span};

use crate::commit_metadata::armor;
use crate::handler::Source;
use crate::kafka::{CommitOffset, ErrorKind, KafkaError, TopicPartition};
use crate::provenance::Mark;
use crate::status::Connection;
use crate::telemetry;

use super::Driver;
use super::brake::Brake;
use super::host::unless_it_panics;
use super::inbox::{News, Reading};
use super::meter::Meter;
use super::order::{Order, Sending};
use super::poll::{Command, Grant};
use super::results::Draft;
use super::run::{Progress, RunInput};
use super::shelf::{Running, Shelf};
use super::solo::{Seat, Turn};

impl Driver {
    pub(super) fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Recover(begun) => self.recover(&begun),
            Effect::Assign(starts) => {
                self.vitals.answered();
                self.assign(&starts);
            }
            Effect::Fetch(starts) => self.fetch(&starts),
            Effect::Unassign(ids) => {
                self.vitals.answered();
                let partitions = ids.iter().filter_map(|id| self.name(*id)).collect();
                self.command(Command::Unassign(partitions));
            }
            Effect::Leave => self.command(Command::Leave),
            Effect::AskAgain(denied) => self.ask_again(denied),
            Effect::AskUncommitted(ids) => self.ask_uncommitted(&ids),
            Effect::Write { write, entries } => {
                self.clerk.append(self.number, write, entries, &self.inbox);
            }
            Effect::Handle { partition, epoch, lane, spans, attempt, solo, at_any_cost } => {
                let solo = self.seat.turn().filter(|_| solo);
                let turn = solo.unwrap_or_else(|| Turn::shared(&self.gate));
                self.start_run((partition, epoch, lane), spans, (attempt, turn, at_any_cost));
            }
            Effect::AskSolo => self.seat.ask(&self.gate),
            Effect::EndSolo => self.seat = Seat::Empty,
            Effect::DeadLetter(given_up) => self.dead_letter(given_up),
            Effect::Skip { partition, epoch, offset } => self.skip(partition, epoch, offset),
            Effect::Cancel { partition, lane, offset } => {
                if let Some(shelf) = self.shelves.get(&partition) {
                    shelf.cancel(lane, offset);
                }
            }
            Effect::Answer { id, answer } => self.grant(id, answer),
            Effect::Interrupt { partition } => {
                if let Some(shelf) = self.shelves.get(&partition) {
                    shelf.interrupt();
                }
            }
            Effect::Halt { partition } => {
                if let Some(shelf) = self.shelves.get(&partition) {
                    shelf.halt();
                }
            }
            Effect::Forget { partition } => self.forget(partition),
            Effect::ReadAgain { partition, epoch, offset } => {
                self.read_again(partition, epoch, offset);
            }
            Effect::Release { partition, offset, beyond } => {
                self.release(partition, offset, &beyond);
            }
            Effect::Open { slot, why: _ } => self.slots.order(slot, Order::Open),
            Effect::Send { slot, number, partition, span } => {
                self.send(slot, number, partition, span);
            }
            Effect::Flush { slot } => self.slots.order(slot, Order::Flush),
            Effect::Commit { slot, number: _, offsets } => self.commit(slot, offsets),
            Effect::Abort { slot } => self.slots.order(slot, Order::Abort),
            Effect::ReadCommits { number, partitions } => self.read_commits(number, &partitions),
            Effect::Notice(notice) => telemetry::notice(&notice, &self.author, &self.known),
            Effect::Stop(_) => {}
        }
    }

    pub(super) fn name(&self, id: PartitionId) -> Option<TopicPartition> {
        self.known.get(&id).map(|known| known.partition.clone())
    }

    fn assign(&mut self, starts: &[(PartitionId, Option<u64>)]) {
        let (mut grants, mut later) = (Vec::new(), Vec::new());
        for &(partition, offset) in starts {
            match offset {
                Some(offset) => grants.extend(self.grant_of(Start { partition, offset })),
                None => later.extend(self.name(partition)),
            }
        }
        self.command(Command::Assign { grants, later });
    }

    fn fetch(&mut self, starts: &[Start]) {
        let grants = starts.iter().filter_map(|start| self.grant_of(*start)).collect();
        self.command(Command::Fetch(grants));
    }

    fn grant_of(&self, start: Start) -> Option<Grant> {
        let shelf = self.shelves.get(&start.partition)?;
        let (epoch, again) = (shelf.epoch, shelf.again);
        Some(Grant {
            partition: shelf.partition.clone(),
            reading: Reading { partition: start.partition, epoch, again },
            offset: start.offset,
            share: shelf.share.clone(),
        })
    }

    /// Begins an ownership; what is left of an earlier one is forgotten.
    pub(super) fn open_shelf(&mut self, id: PartitionId, epoch: u64) {
        if let Some(partition) = self.name(id) {
            self.forget(id);
            self.shelves.insert(id, Shelf::new(partition, epoch, self.budget.share()));
        }
    }

    fn start_run(
        &mut self,
        (id, epoch, lane): (PartitionId, u64, u64),
        spans: Vec<Span>,
        (attempt, turn, at_any_cost): (u32, Turn, bool),
    ) {
        let (Some(shelf), Some(known)) = (self.shelves.get_mut(&id), self.known.get(&id)) else {
            return;
        };
        let (Some(first), Some(last)) = (spans.first(), spans.last()) else { return };
        let batches = shelf.batches(Span { first: first.first, end: last.end });
        let meter = Meter::new(&shelf.share, &batches, self.memory.costs.results(), at_any_cost);
        let input = RunInput { batches, spans, attempt };
        let brake = Arc::new(Brake::default());
        let progress = Progress {
            partition: id,
            source: Source {
                partition: known.partition.partition,
                partitions: known.siblings,
                mark: self.provenance.then(|| Mark::bytes_max(&self.author, &known.partition)),
            },
            epoch,
            lane,
            topics: Arc::clone(&self.destinations.topics),
            inbox: self.inbox.clone(),
            brake: Arc::clone(&brake),
            deadline: self.deadline,
            rate: self.rate.clone(),
            turn,
            draft: Draft::default(),
            meter,
        };
        let work = Arc::clone(&self.work);
        let inbox = self.inbox.clone();
        let run = async move { work.run(input, progress).await };
        let watched = async move {
            // What handlers panic with is their messages' failure, and does not come here.
            if let Err(error) = unless_it_panics("handler", run).await {
                inbox.send(News::Broken(error));
            }
        };
        let task = tokio::spawn(watched).abort_handle();
        shelf.start(lane, Running { brake, task });
    }

    fn send(&mut self, slot: u32, number: u64, id: PartitionId, span: Span) {
        let Some(shelf) = self.shelves.get(&id) else { return };
        let parts = shelf.results(span);
        let results = parts.iter().map(|(part, results)| results.bytes_of(*part)).sum();
        let cost = (shelf.cost(span), results);
        let sending = Sending {
            id,
            partition: shelf.partition.clone(),
            author: Author { number, ..self.author.clone() },
            parts,
        };
        self.slots.order(slot, Order::Send(sending));
        self.weigh(number, span.len(), cost);
    }

    fn weigh(&mut self, number: u64, count: u64, (messages, results): (usize, usize)) {
        let bytes = (messages + results) as u64;
        let (messages, results) = self.memory.fill(number, messages, results);
        if self.budget.is_large(messages, results) {
            self.handle(Input::Large { number });
        }
        self.handle(Input::Weighed { number, messages: count, bytes });
    }

    fn commit(&mut self, slot: u32, offsets: Vec<Position>) {
        let offset = |position: Position| {
            let partition = self.name(position.partition)?;
            let metadata = armor(&position.metadata);
            Some(CommitOffset { partition, offset: position.offset, metadata })
        };
        let offsets = offsets.into_iter().filter_map(offset).collect();
        self.slots.order(slot, Order::Commit(offsets));
    }

    pub(super) fn take_slot(&mut self, slot: u32, event: SlotEvent) {
        match &event {
            SlotEvent::Opened | SlotEvent::Committed { .. } => {
                self.status.connection(Connection::Connected);
            }
            SlotEvent::Flushed { .. }
            | SlotEvent::Aborted { .. }
            | SlotEvent::Failed { .. }
            | SlotEvent::GivenUp { .. } => {}
        }
        self.handle(Input::Slot(slot, event));
    }

    pub(super) fn slot_failed(
        &mut self,
        slot: u32,
        call: Call,
        error: KafkaError,
        refusal: Option<Refusal>,
    ) {
        tracing::debug!(slot, ?call, %error, "a producer call failed");
        let (disposition, message) = (error.disposition, error.to_string());
        if error.kind == ErrorKind::TooLarge {
            self.destinations.limits.doubt();
        }
        let unknown = || Refusal::Among(Vec::new());
        let refusal = error.is_refusal().then(|| refusal.unwrap_or_else(unknown));
        self.refused = Some(error);
        let event = SlotEvent::Failed { call, disposition, refusal, message };
        self.handle(Input::Slot(slot, event));
    }

    pub(super) fn fault(&mut self, error: &KafkaError) {
        if error.is_connection() {
            let degraded = self.status.connection(Connection::Degraded(error.message.clone()));
            if degraded {
                self.probe_connection();
            }
        } else if error.kind == ErrorKind::Coordinator {
            tracing::debug!(%error, "the coordinator is being created or is moving");
        } else {
            tracing::warn!(%error, "the consumer met a fault");
        }
    }

    /// Kafka does not let the group's member do its work.
    pub(super) fn denied(&mut self, partition: Option<TopicPartition>, error: &KafkaError) {
        tracing::warn!(%error, "Kafka refuses");
        let denied = match partition {
            None => Denied::Membership,
            Some(partition) => match self.ids(&[partition]).first() {
                Some(id) => Denied::Reading(*id),
                None => return,
            },
        };
        let is_right = error.kind == ErrorKind::NotAuthorized;
        let ground = if is_right { Ground::Right } else { Ground::Setting };
        self.handle(Input::Denied { denied, ground, message: error.to_string() });
    }

    fn ask_again(&mut self, denied: Denied) {
        match denied {
            Denied::Membership => self.ask_for_membership(),
            Denied::Reading(id) => {
                if let Some(partition) = self.name(id) {
                    self.command(Command::Reread(partition));
                }
            }
        }
    }

    pub(super) fn publish(&mut self) {
        self.status.counts(self.worker.counts(), self.worker.is_idle());
        self.look_at_vitals();
    }
}
