//! A loop that carries out jobs one after another, and is replaced when one of them hangs.
//!
//! The jobs wait in one queue. Whoever takes the place of a loop that was given up goes on with the
//! next job. The one that hangs is lost, and whoever waits for an answer hears so.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::{mpsc, oneshot, watch};

use crate::error::RunError;

use super::host::Loop;
use super::pulse::{GivenUp, Pulse};
use super::watchdog::{MARGIN, Overdue, Trouble, Watchdog};

/// What carries out jobs.
pub(crate) trait Hand<J>: Send + 'static {
    /// Carries one out, with each of its calls under watch.
    ///
    /// # Errors
    /// Another loop has its place.
    fn work(&mut self, job: J, pulse: &Pulse) -> impl Future<Output = Result<(), GivenUp>> + Send;
}

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unanswered {
    /// A call hung, and its client was replaced: it may be asked again.
    Hung,
    /// The loop has ended.
    Ended,
}

/// The way to the loop; clones share it.
#[derive(Debug)]
pub(crate) struct Relay<J> {
    jobs: mpsc::UnboundedSender<J>,
    owner: Arc<Owner>,
}

impl<J> Clone for Relay<J> {
    fn clone(&self) -> Self {
        Self { jobs: self.jobs.clone(), owner: Arc::clone(&self.owner) }
    }
}

type Body = Box<dyn FnOnce(Pulse) -> BoxFuture<'static, ()> + Send>;

struct Owner {
    name: &'static str,
    watchdog: Watchdog,
    begin: Box<dyn Fn() -> Result<Body, RunError> + Send + Sync>,
    running: Mutex<Option<(Loop, Pulse)>>,
    /// How many loops were given up; `None` once there is none any more.
    given_up: watch::Sender<Option<u64>>,
}

impl fmt::Debug for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Owner").field("name", &self.name).finish_non_exhaustive()
    }
}

type Jobs<J> = Arc<tokio::sync::Mutex<mpsc::UnboundedReceiver<J>>>;

impl<J: Send + 'static> Relay<J> {
    /// Starts the loop; `make` gives it, and each of its successors, a hand of its own.
    ///
    /// # Errors
    /// What `make` gives, or the operating system gives no thread.
    pub(crate) fn start<H: Hand<J>>(
        watchdog: &Watchdog,
        name: &'static str,
        make: impl Fn() -> Result<H, RunError> + Send + Sync + 'static,
    ) -> Result<Self, RunError> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let jobs: Jobs<J> = Arc::new(tokio::sync::Mutex::new(receiver));
        let begin = move || {
            let (hand, jobs) = (make()?, Arc::clone(&jobs));
            Ok(Box::new(move |pulse| work(hand, jobs, pulse).boxed()) as Body)
        };
        let owner = Arc::new(Owner {
            name,
            watchdog: watchdog.clone(),
            begin: Box::new(begin),
            running: Mutex::new(None),
            given_up: watch::Sender::new(Some(0)),
        });
        owner.start()?;
        Ok(Self { jobs: sender, owner })
    }

    /// Has a job done that nobody waits for.
    pub(crate) fn hand(&self, job: J) {
        // The owner holds the other end, too.
        let _ = self.jobs.send(job);
    }

    /// Has a job done and waits for its answer.
    ///
    /// # Errors
    /// There is none.
    pub(crate) async fn ask<T>(
        &self,
        job: impl FnOnce(oneshot::Sender<T>) -> J,
    ) -> Result<T, Unanswered> {
        let mut given_up = self.owner.given_up.subscribe();
        if given_up.borrow_and_update().is_none() {
            return Err(Unanswered::Ended);
        }
        let (reply, answer) = oneshot::channel();
        self.hand(job(reply));
        tokio::select! {
            biased;
            Ok(answer) = answer => Ok(answer),
            _ = given_up.changed() => {
                let is_over = given_up.borrow().is_none();
                Err(if is_over { Unanswered::Ended } else { Unanswered::Hung })
            }
        }
    }

    /// Waits until the loop has ended, if this is the last way to it.
    pub(crate) async fn end(self) {
        let Self { jobs, owner } = self;
        drop(jobs);
        let running = Arc::into_inner(owner).and_then(|owner| owner.running().take());
        if let Some((running, _)) = running {
            running.ended().await;
        }
    }
}

impl Owner {
    fn running(&self) -> MutexGuard<'_, Option<(Loop, Pulse)>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn start(self: &Arc<Self>) -> Result<(), RunError> {
        let owner = Arc::downgrade(self);
        let tell = move |trouble| {
            if let Some(owner) = owner.upgrade() {
                owner.hear(trouble);
            }
        };
        let started = self.watchdog.spawn(self.name, MARGIN, tell, (self.begin)()?)?;
        *self.running() = Some(started);
        Ok(())
    }

    fn hear(self: &Arc<Self>, trouble: Trouble) {
        let heard = match trouble {
            Trouble::Overdue(overdue) => self.replace(&overdue),
            Trouble::Panicked(error) => Err(error),
        };
        if let Err(error) = heard {
            self.watchdog.fail(error);
            self.given_up.send_replace(None);
        }
    }

    fn replace(self: &Arc<Self>, overdue: &Overdue) -> Result<(), RunError> {
        let hanging = self.running().as_ref().map(|(_, pulse)| pulse.clone());
        let Some(pulse) = hanging else { return Ok(()) };
        if !self.watchdog.give_up(&pulse, overdue)? {
            return Ok(());
        }
        if let Some((hanging, _)) = self.running().take() {
            hanging.detach();
        }
        self.start()?;
        self.given_up.send_modify(|lives| *lives = lives.map(|lives| lives + 1));
        Ok(())
    }
}

async fn work<J>(mut hand: impl Hand<J>, jobs: Jobs<J>, pulse: Pulse) {
    loop {
        let job = jobs.lock().await.recv().await;
        let Some(job) = job else { return };
        if hand.work(job, &pulse).await.is_err() {
            return;
        }
    }
}
