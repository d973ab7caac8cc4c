//! How messages and results come into memory and leave it.

use std::sync::Arc;

use countersign_statemachine::worker::Input;
use countersign_statemachine::{PartitionId, Span};

use crate::kafka::Batch;

use super::Driver;
use super::budget::{Budget, Costs};
use super::inbox::Reading;
use super::poll::Command;
use super::results::Results;
use super::shelf::Shelf;

/// What a partition waits for memory with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Short {
    /// It is not read: it has its share, and the rest is used up.
    Reading,
    /// Nothing is handled but its first message: results take all there is for them.
    Handling,
}

/// What the driver knows of what is in memory.
#[derive(Debug)]
pub(super) struct Memory {
    pub(super) costs: Costs,
    /// How many partitions have none for more results.
    short: usize,
    /// The transaction that is being filled, and what its messages and results take.
    filling: (u64, usize, usize),
}

impl Memory {
    pub(super) fn new(limit_bytes: usize) -> Self {
        Self { costs: Costs::new(limit_bytes), short: 0, filling: (0, 0, 0) }
    }

    /// Whether handlers wait for memory.
    pub(super) fn is_short(&self) -> bool {
        self.short > 0
    }

    /// A transaction takes these in; gives what it has then.
    pub(super) fn fill(&mut self, number: u64, messages: usize, results: usize) -> (usize, usize) {
        let (filled, ..) = self.filling;
        if filled != number {
            self.filling = (number, 0, 0);
        }
        self.filling.1 += messages;
        self.filling.2 += results;
        (self.filling.1, self.filling.2)
    }
}

impl Shelf {
    fn is_read_by(&self, of: Reading) -> bool {
        (self.epoch, self.again) == (of.epoch, of.again)
    }
}

impl Driver {
    pub(super) fn receive(&mut self, of: Reading, batch: Batch) {
        self.status.heard();
        let Reading { partition, epoch, .. } = of;
        match self.shelves.get_mut(&partition) {
            Some(shelf) if shelf.is_read_by(of) => {
                self.memory.costs.saw_messages(&batch);
                let keys = if self.by_key { shelf.keys(&batch) } else { Vec::new() };
                let spans = shelf.receive(batch);
                self.tell_memory(partition);
                self.handle(Input::Received { partition, epoch, spans, keys });
            }
            // It comes once more.
            Some(shelf) if shelf.epoch == epoch => {
                let share = shelf.share.clone();
                self.free(|_| share.give_back(&batch));
            }
            Some(_) | None => self.free(|budget| budget.give_back(&batch)),
        }
    }

    pub(super) fn reach_end(&mut self, of: Reading, offset: u64) {
        self.status.heard();
        let Reading { partition, epoch, .. } = of;
        if self.shelves.get(&partition).is_none_or(|shelf| shelf.is_read_by(of)) {
            self.handle(Input::AtEnd { partition, epoch, offset });
        }
    }

    /// Others need what a partition has beyond its share.
    pub(super) fn crowd(&mut self, of: Reading) {
        let Reading { partition, epoch, .. } = of;
        let shelf = self.shelves.get(&partition).filter(|shelf| shelf.is_read_by(of));
        if let Some(from) = shelf.and_then(Shelf::shared_from) {
            let short: Vec<_> = self.short_of_memory().collect();
            tracing::debug!(?partition, from, ?short, "others need memory");
            self.handle(Input::Crowded { partition, epoch, from });
        }
    }

    pub(super) fn read_again(&mut self, id: PartitionId, epoch: u64, offset: u64) {
        let Some(shelf) = self.shelves.get_mut(&id).filter(|shelf| shelf.epoch == epoch) else {
            return;
        };
        shelf.read_again(offset);
        let (partition, again) = (shelf.partition.clone(), shelf.again);
        tracing::debug!(%partition, offset, "to be read again");
        self.command(Command::ReadAgain { partition, epoch, again, offset });
    }

    pub(super) fn keep(
        &mut self,
        (partition, epoch, lane): (PartitionId, u64, u64),
        results: &Arc<Results>,
    ) {
        let Some(shelf) = self.shelves.get_mut(&partition).filter(|shelf| shelf.epoch == epoch)
        else {
            return;
        };
        shelf.keep(results);
        self.memory.costs.saw_results(results.messages(), results.bytes());
        self.budget.set_for_messages(self.memory.costs.for_messages());
        self.tell_memory(partition);
        let spans = results.spans().collect();
        self.handle(Input::Finished { partition, epoch, lane, spans });
    }

    pub(super) fn release(&mut self, id: PartitionId, offset: u64, beyond: &[Span]) {
        let Some(shelf) = self.shelves.get_mut(&id) else { return };
        let was_spent = self.budget.is_spent();
        let may_be_read = shelf.release(offset, beyond);
        if may_be_read || was_spent && !self.budget.is_spent() {
            self.command(Command::Room);
        }
    }

    pub(super) fn forget(&mut self, id: PartitionId) {
        let Some(mut shelf) = self.shelves.remove(&id) else { return };
        self.memory.short -= usize::from(shelf.memory == 0);
        self.free(|_| {
            shelf.release(u64::MAX, &[]);
        });
    }

    /// Reading may wait for what is given back.
    fn free(&self, give_back: impl FnOnce(&Budget)) {
        let was_spent = self.budget.is_spent();
        give_back(&self.budget);
        if was_spent && !self.budget.is_spent() {
            self.command(Command::Room);
        }
    }

    /// Tells the worker how many messages of a partition may be under way, if that has changed.
    pub(super) fn tell_memory(&mut self, partition: PartitionId) {
        let Some(shelf) = self.shelves.get_mut(&partition) else { return };
        let has_room = shelf.share.has_room(self.memory.costs.results(), shelf.memory == 0);
        let messages = if has_room { self.memory.costs.at_once(shelf.memory) } else { 0 };
        if messages != shelf.memory {
            self.memory.short -= usize::from(shelf.memory == 0);
            self.memory.short += usize::from(messages == 0);
            shelf.memory = messages;
            let epoch = shelf.epoch;
            self.handle(Input::Memory { partition, epoch, messages });
        }
    }

    /// Results were dropped, perhaps; whether there is memory for more again.
    pub(super) fn tell_those_short(&mut self) -> bool {
        let before = self.memory.short;
        let short = self.shelves.iter().filter(|(_, shelf)| shelf.memory == 0);
        for id in short.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.tell_memory(id);
        }
        self.memory.short < before
    }

    /// The partitions that wait for memory, and what with.
    pub(super) fn short_of_memory(&self) -> impl Iterator<Item = (PartitionId, Short)> + '_ {
        self.shelves.iter().flat_map(|(id, shelf)| {
            let reading = shelf.share.is_paused().then_some((*id, Short::Reading));
            let handling = (shelf.memory == 0).then_some((*id, Short::Handling));
            reading.into_iter().chain(handling)
        })
    }
}
