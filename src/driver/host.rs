//! Where the loops run that own a client or the store.
//!
//! Calls to librdkafka and to sled block, so that each loop has a thread of its own. In a
//! simulation all of them are tasks of one thread, and time is virtual. The loops are the same.

use std::future::Future;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tokio::time::timeout;

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
    #[must_use = "a loop that is a task ends when this is dropped"]
    pub(crate) fn spawn<F>(self, name: &str, task: F) -> Loop
    where
        F: Future<Output = ()> + Send + 'static,
    {
        match self {
            Self::Tasks => Loop { task: Some(tokio::spawn(task).abort_handle()), ended: None },
            Self::Threads => {
                // The loops wait with the runtime's timers.
                let runtime = tokio::runtime::Handle::current();
                let (running, ended) = oneshot::channel::<()>();
                let spawned = thread::Builder::new().name(name.to_owned()).spawn(move || {
                    let _running = running;
                    let _context = runtime.enter();
                    futures::executor::block_on(task);
                });
                // Without its loops a driver hears nothing and would wait for ever.
                spawned.expect("the operating system gives a process a few threads");
                Loop { task: None, ended: Some(ended) }
            }
        }
    }
}

/// How long the end of a loop is waited for: a call to Kafka may be under way, or a client closing.
const PATIENCE: Duration = Duration::from_secs(6);

/// A loop. A thread ends by itself when its channel closes; a task is aborted, as a crash would.
#[derive(Debug)]
pub(crate) struct Loop {
    task: Option<AbortHandle>,
    ended: Option<oneshot::Receiver<()>>,
}

impl Loop {
    /// Waits until what the loop owns is closed. Its channel must be closed before.
    pub(crate) async fn ended(mut self) {
        if let Some(ended) = self.ended.take()
            && timeout(PATIENCE, ended).await.is_err()
        {
            tracing::debug!("a loop does not end in time");
        }
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}
