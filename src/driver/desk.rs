//! Where orders of operators come in, for all workers of a process.

use std::sync::{Arc, Mutex, PoisonError};

use countersign_statemachine::worker::{Input, Intervention, Obstacle};
use countersign_statemachine::{PartitionId, State, Verb};
use tokio::sync::oneshot;

use crate::kafka::TopicPartition;

use super::Driver;
use super::clerk::Clerk;
use super::inbox::{Inbox, News};
use super::results::Results;

/// An operator's order about one message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wish {
    pub(crate) partition: TopicPartition,
    pub(crate) offset: u64,
    pub(crate) verb: Verb,
    pub(crate) by: String,
    pub(crate) reason: String,
}

/// Why an order is not carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Declined {
    pub(crate) obstacle: Obstacle,
    /// What became of a message that is done, as far as the store knows.
    pub(crate) state: Option<State>,
}

/// The way to the workers; clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Desk(Arc<Mutex<Vec<Option<Inbox>>>>);

impl Desk {
    /// A worker takes orders from now on, in the place of its former self.
    pub(crate) fn open(&self, worker: u32, inbox: Inbox) {
        let mut workers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let place = worker as usize;
        if workers.len() <= place {
            workers.resize(place + 1, None);
        }
        if let Some(slot) = workers.get_mut(place) {
            *slot = Some(inbox);
        }
    }

    /// Has the worker that owns the partition carry an order out, and waits until it is done.
    ///
    /// # Errors
    /// Why it is not.
    pub(crate) async fn ask(&self, wish: &Wish) -> Result<(), Obstacle> {
        let workers = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for inbox in workers.into_iter().flatten() {
            let (sender, answer) = oneshot::channel();
            inbox.send(News::Wished(wish.clone(), sender));
            match answer.await.unwrap_or(Err(Obstacle::Stopped)) {
                Err(Obstacle::NotOwned) => {}
                of_owner => return of_owner,
            }
        }
        Err(Obstacle::NotOwned)
    }

    /// Like [`ask`](Self::ask), and tells what became of a message that is done.
    ///
    /// # Errors
    /// Why it is not carried out.
    pub(crate) async fn order(&self, wish: &Wish, clerk: &Clerk) -> Result<(), Declined> {
        let Err(obstacle) = self.ask(wish).await else { return Ok(()) };
        let state = if obstacle == Obstacle::Done {
            // A store that does not answer any more has been reported by whoever writes to it.
            clerk.state(wish.partition.clone(), wish.offset).await.unwrap_or_default()
        } else {
            None
        };
        Err(Declined { obstacle, state })
    }
}

impl Driver {
    pub(super) fn take_wish(&mut self, wish: Wish, answer: oneshot::Sender<Result<(), Obstacle>>) {
        let Some(id) = self.ids(std::slice::from_ref(&wish.partition)).pop() else {
            // Who asked may have gone.
            let _ = answer.send(Err(Obstacle::NotOwned));
            return;
        };
        self.wished += 1;
        self.wishes.insert(self.wished, answer);
        let Wish { partition: _, offset, verb, by, reason } = wish;
        let order = Intervention { id: self.wished, offset, verb, by, reason };
        self.handle(Input::Intervene(id, order));
    }

    pub(super) fn grant(&mut self, id: u64, answer: Result<(), Obstacle>) {
        if let Some(waiting) = self.wishes.remove(&id) {
            // Who asked may have gone.
            let _ = waiting.send(answer);
        }
    }

    /// The message has no outputs, whatever it had before.
    pub(super) fn skip(&mut self, id: PartitionId, epoch: u64, offset: u64) {
        if let Some(shelf) = self.shelves.get_mut(&id).filter(|shelf| shelf.epoch == epoch) {
            shelf.keep(&Arc::new(Results::of(offset, Vec::new(), &shelf.share)));
        }
    }
}
