//! The children that wait for a message.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::{Semaphore, SemaphorePermit};

use super::Command;
use super::child::{Child, dismiss};
use super::protocol::Answer;

pub(super) struct Pool {
    command: Command,
    seats: Semaphore,
    idle: Mutex<Vec<Child>>,
    /// How many messages were handed out.
    messages: AtomicU64,
}

impl Pool {
    /// Starts a pool with one child; others are started when they are needed.
    pub(super) fn start(command: Command, processes: u32) -> io::Result<Self> {
        let first = Child::start(&command)?;
        let processes = usize::try_from(processes.max(1)).unwrap_or(usize::MAX);
        Ok(Self {
            command,
            seats: Semaphore::new(processes.min(Semaphore::MAX_PERMITS)),
            idle: Mutex::new(vec![first]),
            messages: AtomicU64::new(0),
        })
    }

    /// Waits for a child that is free, and gives the number of the message.
    ///
    /// # Errors
    /// A child cannot be started.
    pub(super) async fn seat(&self) -> Result<(Seat<'_>, u64), String> {
        let permit = self.seats.acquire().await.map_err(|error| error.to_string())?;
        let waiting = std::iter::from_fn(|| self.idle().pop()).find_map(|mut child| {
            // What one did while it had nothing to do has failed no message.
            child.is_waiting().then_some(child)
        });
        let is_fresh = waiting.is_none();
        let child = match waiting {
            Some(child) => child,
            None => self.start_again()?,
        };
        let id = self.messages.fetch_add(1, Ordering::Relaxed) + 1;
        Ok((Seat { pool: self, child, is_fresh, _permit: permit }, id))
    }

    fn start_again(&self) -> Result<Child, String> {
        Child::start(&self.command).map_err(|error| {
            let program = self.command.program.to_string_lossy();
            format!("{program:?} cannot be started again: {error}")
        })
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Child>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        dismiss(std::mem::take(&mut *self.idle()));
    }
}

/// A child that has a message. Dropped without [`keep`](Seat::keep), the child is killed.
pub(super) struct Seat<'a> {
    pool: &'a Pool,
    child: Child,
    /// Whether it was started for this message.
    is_fresh: bool,
    _permit: SemaphorePermit<'a>,
}

impl Seat<'_> {
    pub(super) fn is_fresh(&self) -> bool {
        self.is_fresh
    }

    /// Kills the child and starts one for this message.
    ///
    /// # Errors
    /// It cannot be started.
    pub(super) fn renew(&mut self) -> Result<(), String> {
        self.child = self.pool.start_again()?;
        self.is_fresh = true;
        Ok(())
    }

    /// Hands the child a line, and waits for its answer to this message.
    ///
    /// # Errors
    /// Why there is none. The child must not be kept.
    pub(super) async fn ask(&mut self, line: &str, id: u64) -> Result<Answer, String> {
        let answer = self.child.ask(line).await?;
        Answer::parse(&answer, id)
    }

    /// The child has answered as it should, and waits for the next message.
    pub(super) fn keep(self) {
        let Self { pool, child, .. } = self;
        pool.idle().push(child);
    }
}
