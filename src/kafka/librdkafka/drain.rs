//! The thread of a producer that reads its events while a call waits for them.
//!
//! It lives as long as the producer: a transaction starts no thread.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use countersign_statemachine::Disposition;

use super::raw::Queue;
use super::seen::Seen;
use super::topics::Topics;
use crate::kafka::{ErrorKind, KafkaError};

/// How long one wait for an event is.
const LOOK: Duration = Duration::from_millis(100);

/// What events are read into.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) seen: Seen,
    pub(super) topics: Topics,
}

/// The way to the thread.
pub(super) struct Drainer {
    queue: Arc<Queue>,
    is_done: Arc<AtomicBool>,
    begin: Option<SyncSender<Reading>>,
    end: Receiver<Reading>,
    thread: Option<JoinHandle<()>>,
}

impl fmt::Debug for Drainer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Drainer").finish_non_exhaustive()
    }
}

impl Drainer {
    /// Starts the thread, which waits until it is needed.
    ///
    /// # Errors
    /// [`ErrorKind::NoThread`].
    pub(super) fn start(queue: Arc<Queue>) -> Result<Self, KafkaError> {
        let (begin, begun) = sync_channel::<Reading>(1);
        let (ended, end) = sync_channel(1);
        let is_done = Arc::new(AtomicBool::new(false));
        let (read, stops) = (Arc::clone(&queue), Arc::clone(&is_done));
        let thread = thread::Builder::new()
            .name("countersign-events".to_owned())
            .spawn(move || {
                while let Ok(Reading { mut seen, mut topics }) = begun.recv() {
                    while !stops.load(Ordering::Acquire) {
                        if let Some(event) = read.poll(LOOK) {
                            seen.read(event, &mut topics);
                        }
                    }
                    // Whoever began waits for it.
                    let _ = ended.send(Reading { seen, topics });
                }
            })
            .map_err(|error| {
                let (kind, class) = (ErrorKind::NoThread, Disposition::Permanent);
                KafkaError::new("rd_kafka_new", kind, class, error.to_string())
            })?;
        Ok(Self { queue, is_done, begin: Some(begin), end, thread: Some(thread) })
    }

    /// Reads events while `act` runs; gives back what they were read into, unless the thread has
    /// panicked.
    pub(super) fn during<T>(&self, into: Reading, act: impl FnOnce() -> T) -> (T, Option<Reading>) {
        self.is_done.store(false, Ordering::Release);
        let has_begun = self.begin.as_ref().is_some_and(|begin| begin.send(into).is_ok());
        let result = act();
        self.is_done.store(true, Ordering::Release);
        self.queue.wake();
        (result, if has_begun { self.end.recv().ok() } else { None })
    }
}

impl Drop for Drainer {
    /// The queue must not outlive the client.
    fn drop(&mut self) {
        self.begin = None;
        if let Some(thread) = self.thread.take() {
            // Its panic was told with the call.
            let _ = thread.join();
        }
    }
}
