//! Where the loops run that own a client or the store.
//!
//! Calls to librdkafka and to sled block, so that each loop has a thread of its own. In a
//! simulation all of them are tasks of one thread, and time is virtual. The loops are the same.

use std::future::Future;
use std::thread;

use tokio::task::AbortHandle;

/// Where loops run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Host {
    /// A thread for each.
    Threads,
    /// Tasks of the current single-threaded runtime.
    Tasks,
}

impl Host {
    /// Starts a loop. It ends when its channel closes.
    #[must_use = "a loop that is a task ends when this is dropped"]
    pub(crate) fn spawn<F>(self, name: &str, task: F) -> Loop
    where
        F: Future<Output = ()> + Send + 'static,
    {
        match self {
            Self::Tasks => Loop(Some(tokio::spawn(task).abort_handle())),
            Self::Threads => {
                // The loops wait with the runtime's timers.
                let runtime = tokio::runtime::Handle::current();
                let spawned = thread::Builder::new().name(name.to_owned()).spawn(move || {
                    let _context = runtime.enter();
                    futures::executor::block_on(task);
                });
                // Without its loops a driver hears nothing and would wait for ever.
                spawned.expect("the operating system gives a process a few threads");
                Loop(None)
            }
        }
    }
}

/// A loop. A thread ends by itself when its channel closes; a task is aborted, as a crash would.
#[derive(Debug)]
pub(crate) struct Loop(Option<AbortHandle>);

impl Drop for Loop {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}
