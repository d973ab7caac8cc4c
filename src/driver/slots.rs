//! The producer slots of a worker: their loops, and the replacement of one that hangs.

use std::sync::Arc;

use countersign_statemachine::worker::{Call, Input, SlotEvent};
use tokio::sync::mpsc;

use crate::error::RunError;
use crate::kafka::{ErrorKind, Kafka};
use crate::status::Connection;

use super::host::Loop;
use super::inbox::{Inbox, News, SlotNews};
use super::order::{Order, SlotConfig, call_of};
use super::pulse::Pulse;
use super::slot::SlotLoop;
use super::watchdog::{MARGIN, Overdue, Trouble, Watchdog};
use super::{Driver, Parts, Reaper};

/// Starts the loop of a slot for one of its lives.
type Start = Box<dyn Fn(u32, u64) -> Result<Slot, RunError> + Send + Sync>;

struct Slot {
    life: u64,
    orders: mpsc::UnboundedSender<Order>,
    owner: Loop,
    pulse: Pulse,
}

pub(super) struct Slots {
    all: Vec<Slot>,
    start: Start,
    watchdog: Watchdog,
}

/// With what the loops of the slots are made.
pub(super) struct SlotParts<K: Kafka> {
    pub(super) kafka: Arc<K>,
    pub(super) group: K::Group,
    /// Which worker of the process this is.
    pub(super) worker: u32,
    /// One for each slot.
    pub(super) configs: Vec<SlotConfig>,
    pub(super) inbox: Inbox,
    pub(super) reaper: Reaper,
    pub(super) watchdog: Watchdog,
}

impl Slots {
    /// Starts the loop of each slot.
    ///
    /// # Errors
    /// The operating system gives no thread.
    pub(super) fn start<K: Kafka>(parts: SlotParts<K>) -> Result<Self, RunError> {
        let (slots, watchdog) = (0..parts.configs.len(), parts.watchdog.clone());
        let start: Start = Box::new(move |slot, life| parts.start(slot, life));
        let all = slots.map(|slot| start(u32::try_from(slot).unwrap_or(u32::MAX), 0));
        let all = all.collect::<Result<_, _>>()?;
        Ok(Self { all, start, watchdog })
    }

    /// A slot's loop lives as long as the driver, or is replaced.
    pub(super) fn order(&self, slot: u32, order: Order) {
        if let Some(slot) = self.all.get(slot as usize) {
            let _ = slot.orders.send(order);
        }
    }

    /// Whether it is this loop that has the slot.
    fn is_current(&self, slot: u32, life: u64) -> bool {
        self.all.get(slot as usize).is_some_and(|slot| slot.life == life)
    }

    /// Gives the slot to another loop, unless the call has returned meanwhile. Gives the call.
    ///
    /// # Errors
    /// Too many calls hang, or the operating system gives no thread.
    fn replace(&mut self, slot: u32, overdue: &Overdue) -> Result<Option<Call>, RunError> {
        let Some(hanging) = self.all.get_mut(slot as usize) else { return Ok(None) };
        if !self.watchdog.give_up(&hanging.pulse, overdue)? {
            return Ok(None);
        }
        let next = (self.start)(slot, hanging.life + 1)?;
        // With its channel it loses what was ordered behind the call.
        std::mem::replace(hanging, next).owner.detach();
        Ok(call_of(overdue.call))
    }

    /// Closes the channels, which ends the loops.
    pub(super) fn into_loops(self) -> impl Iterator<Item = Loop> {
        self.all.into_iter().map(|slot| slot.owner)
    }
}

impl<K: Kafka> SlotParts<K> {
    pub(super) fn new(parts: &Parts<K>, group: K::Group, inbox: Inbox) -> Self {
        let config = |(slot, transactional_id): (u32, &String)| SlotConfig {
            slot,
            life: 0,
            transactional_id: transactional_id.clone(),
            transaction_timeout: parts.settings.transaction_timeout,
            retry_backoff: parts.retry_backoff,
            provenance: parts.provenance,
            sizes: parts.destinations.limits.sizes(),
        };
        Self {
            kafka: Arc::clone(&parts.kafka),
            group,
            worker: parts.worker,
            configs: (0..).zip(&parts.transactional_ids).map(config).collect(),
            inbox,
            reaper: parts.reaper.clone(),
            watchdog: parts.watchdog.clone(),
        }
    }

    fn start(&self, slot: u32, life: u64) -> Result<Slot, RunError> {
        let config = SlotConfig { life, ..self.configs[slot as usize].clone() };
        let name = format!("countersign-slot-{}-{slot}", self.worker);
        let (orders, receiver) = mpsc::unbounded_channel();
        let told = self.inbox.clone();
        let tell = move |trouble| {
            told.send(News::Slot { slot, life, news: SlotNews::Trouble(trouble) });
        };
        let body = |pulse| {
            let client = (Arc::clone(&self.kafka), self.group.clone());
            let inbox = self.inbox.clone();
            SlotLoop::new(client, config, inbox, pulse, self.reaper.clone()).run(receiver)
        };
        let (owner, pulse) = self.watchdog.spawn(&name, MARGIN, tell, body)?;
        Ok(Slot { life, orders, owner, pulse })
    }
}

impl Driver {
    /// Takes in what is heard of a slot; nothing of a loop that was given up.
    pub(super) fn hear_slot(
        &mut self,
        slot: u32,
        life: u64,
        news: SlotNews,
    ) -> Result<(), RunError> {
        if !self.slots.is_current(slot, life) {
            return Ok(());
        }
        match news {
            SlotNews::Done(event) => self.take_slot(slot, event),
            // The group says that there is another member of this name, whichever client hears it.
            SlotNews::Failed { error, .. } if error.kind == ErrorKind::FencedInstance => {
                return Err(RunError::of_consumer(error, &self.member));
            }
            SlotNews::Failed { call, error, refusal } => {
                self.slot_failed(slot, call, error, refusal);
            }
            SlotNews::Trouble(Trouble::Panicked(error)) => return Err(error),
            SlotNews::Trouble(Trouble::Overdue(overdue)) => self.replace_slot(slot, &overdue)?,
        }
        Ok(())
    }

    fn replace_slot(&mut self, slot: u32, overdue: &Overdue) -> Result<(), RunError> {
        let Some(call) = self.slots.replace(slot, overdue)? else { return Ok(()) };
        let message = overdue.to_string();
        self.status.connection(Connection::Degraded(message.clone()));
        self.handle(Input::Slot(slot, SlotEvent::GivenUp { call, message }));
        Ok(())
    }
}
