//! Where the loops run that own a client or the store.
//!
//! Calls to librdkafka and to sled block, so that each loop has a thread of its own. In a
//! simulation all of them are tasks of one thread, and time is virtual. The loops are the same.

use std::any::Any;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use futures::FutureExt;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tokio::time::timeout;

use crate::error::RunError;

/// Where loops run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Host {
    /// A thread for each.
    Threads,
    /// Tasks of the current single-threaded runtime.
    Tasks,
}

/// Where a processor runs, and where it listens.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) host: Host,
    /// The store beside which it listens for orders of operators.
    pub(crate) control: Option<PathBuf>,
}

impl Host {
    /// Starts a loop. It ends when its channel closes.
    ///
    /// # Errors
    /// The operating system gives no thread.
    #[must_use = "a loop that is a task ends when this is dropped"]
    pub(super) fn spawn<F>(self, name: &str, task: F) -> Result<Loop, RunError>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        match self {
            Self::Tasks => Ok(Loop { task: Some(tokio::spawn(task).abort_handle()), ended: None }),
            Self::Threads => {
                // The loops wait with the runtime's timers.
                let runtime = tokio::runtime::Handle::current();
                let (running, ended) = oneshot::channel::<()>();
                thread::Builder::new()
                    .name(name.to_owned())
                    .spawn(move || {
                        let _running = running;
                        let _context = runtime.enter();
                        futures::executor::block_on(task);
                    })
                    .map_err(|source| RunError::Thread { name: name.to_owned(), source })?;
                Ok(Loop { task: None, ended: Some(ended) })
            }
        }
    }
}

/// How long the end of a loop is waited for: a call to Kafka may be under way, or a client closing.
pub(super) const PATIENCE: Duration = Duration::from_secs(6);

/// A loop. A thread ends by itself when its channel closes; a task is aborted, as a crash would.
#[derive(Debug)]
pub(crate) struct Loop {
    task: Option<AbortHandle>,
    ended: Option<oneshot::Receiver<()>>,
}

impl Loop {
    /// Waits until what the loop owns is closed. Its channel must be closed before. A loop that is
    /// in a call which does not return is left to itself.
    pub(crate) async fn ended(mut self) {
        if let Some(ended) = self.ended.take()
            && timeout(PATIENCE, ended).await.is_err()
        {
            tracing::debug!("a loop does not end in time");
        }
    }

    /// Leaves the loop to itself: it was given up, and ends when its call returns.
    pub(super) fn detach(mut self) {
        self.task = None;
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

/// The end of a task that may panic, as an error of the run.
///
/// # Errors
/// It panicked.
pub(crate) async fn unless_it_panics<T>(
    name: &str,
    task: impl Future<Output = T>,
) -> Result<T, RunError> {
    let end = AssertUnwindSafe(task).catch_unwind().await;
    end.map_err(|panic| panicked(name, panic.as_ref()))
}

/// What was said by whoever panicked, where it is text.
pub(crate) fn words_of(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("a value that is not text")
}

pub(super) fn panicked(name: &str, panic: &(dyn Any + Send)) -> RunError {
    RunError::Panicked { name: name.to_owned(), message: words_of(panic).to_owned() }
}
