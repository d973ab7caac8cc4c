//! The loop that owns the store: one thread, one journal, all workers of the process.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use countersign_statemachine::{Entry, PartitionId, Run, State};
use tokio::sync::{mpsc, oneshot};

use crate::kafka::TopicPartition;
use crate::store::{Journal, PartitionName, StoreError};
use crate::wall_clock::now_ms;

use super::host::Loop;
use super::inbox::{Inbox, News};
use super::pulse::{GivenUp, Pulse};
use super::watchdog::{MARGIN, Trouble, Watchdog};
use crate::error::RunError;

/// What the clerk is asked for.
#[derive(Debug)]
enum Request {
    Claim { partition: PartitionId, worker: u32 },
    Append { worker: u32, write: u64, entries: Vec<Entry>, inbox: Inbox },
    Intern { partitions: Vec<(TopicPartition, [u8; 16])>, reply: Reply<Vec<PartitionId>> },
    Runs { partitions: Vec<(PartitionId, u64)>, reply: Reply<Vec<Vec<Run>>> },
    RememberSlot { transactional_id: String, reply: Reply<()> },
    Slots { reply: Reply<Vec<String>> },
    Unfinished { reply: Reply<Vec<Unfinished>> },
    State { partition: TopicPartition, offset: u64, reply: Reply<Option<State>> },
    Note { entries: Vec<Entry>, reply: Reply<()> },
}

impl Request {
    /// What it is called while it is under way.
    fn name(&self) -> &'static str {
        match self {
            Self::Claim { .. } => "store_claim",
            Self::Append { .. } | Self::Note { .. } => "store_append",
            Self::Intern { .. } | Self::RememberSlot { .. } => "store_write",
            Self::Runs { .. }
            | Self::Slots { .. }
            | Self::Unfinished { .. }
            | Self::State { .. } => "store_read",
        }
    }
}

/// How long a call of the store may take. Flushing a busy disk takes seconds.
const CALL: Duration = Duration::from_secs(5);

/// What the store holds of a partition, where that is not finished.
#[derive(Debug)]
pub(crate) struct Unfinished {
    pub(crate) id: PartitionId,
    pub(crate) partition: TopicPartition,
    pub(crate) runs: Vec<Run>,
}

type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

/// The way to the clerk.
#[derive(Debug, Clone)]
pub(crate) struct Clerk(mpsc::UnboundedSender<Request>, Arc<Loop>);

impl Clerk {
    /// Starts the loop. A call of the store that hangs is only told: nobody else may open it.
    ///
    /// # Errors
    /// The operating system gives no thread.
    pub(crate) fn start(journal: Journal, watchdog: &Watchdog) -> Result<Self, RunError> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let failing = watchdog.failing();
        let tell = move |trouble| match trouble {
            Trouble::Overdue(overdue) => tracing::error!("the store hangs: {overdue}"),
            Trouble::Panicked(error) => failing.fail(error),
        };
        let body = |pulse| run(journal, receiver, pulse);
        let (owner, _) = watchdog.spawn("countersign-store", MARGIN, tell, body)?;
        Ok(Self(sender, Arc::new(owner)))
    }

    /// From now on a partition is this worker's: what another one of this process, which does not
    /// know yet that it has lost it, writes of it is dropped.
    pub(super) fn claim(&self, partition: PartitionId, worker: u32) {
        // A clerk that has ended says so to the next write.
        let _ = self.0.send(Request::Claim { partition, worker });
    }

    /// Writes and flushes; the answer goes to the inbox.
    pub(super) fn append(&self, worker: u32, write: u64, entries: Vec<Entry>, inbox: &Inbox) {
        let inbox = inbox.clone();
        if let Err(unsent) = self.0.send(Request::Append { worker, write, entries, inbox })
            && let Request::Append { inbox, .. } = unsent.0
        {
            inbox.send(News::Stored { write, result: Err(StoreError::closed()) });
        }
    }

    /// The numbers of partitions.
    pub(super) async fn intern(
        &self,
        partitions: Vec<(TopicPartition, [u8; 16])>,
    ) -> Result<Vec<PartitionId>, StoreError> {
        self.ask(|reply| Request::Intern { partitions, reply }).await
    }

    /// What has to be settled of partitions with their committed offsets, in the order asked.
    pub(super) async fn runs(
        &self,
        partitions: Vec<(PartitionId, u64)>,
    ) -> Result<Vec<Vec<Run>>, StoreError> {
        self.ask(|reply| Request::Runs { partitions, reply }).await
    }

    /// Notes a transactional id that may have an open transaction from now on.
    pub(crate) async fn remember_slot(&self, transactional_id: String) -> Result<(), StoreError> {
        self.ask(|reply| Request::RememberSlot { transactional_id, reply }).await
    }

    /// The transactional ids that were noted, by earlier processes too.
    pub(crate) async fn slots(&self) -> Result<Vec<String>, StoreError> {
        self.ask(|reply| Request::Slots { reply }).await
    }

    /// Every partition with messages that are not finished.
    pub(crate) async fn unfinished(&self) -> Result<Vec<Unfinished>, StoreError> {
        self.ask(|reply| Request::Unfinished { reply }).await
    }

    /// How a message stands; `None` if nothing is known of it.
    pub(super) async fn state(
        &self,
        partition: TopicPartition,
        offset: u64,
    ) -> Result<Option<State>, StoreError> {
        self.ask(|reply| Request::State { partition, offset, reply }).await
    }

    /// Writes and flushes.
    pub(crate) async fn note(&self, entries: Vec<Entry>) -> Result<(), StoreError> {
        self.ask(|reply| Request::Note { entries, reply }).await
    }

    /// Waits until the loop has ended, if this is the last way to it.
    pub(crate) async fn end(self) {
        let Self(sender, owner) = self;
        drop(sender);
        if let Some(owner) = Arc::into_inner(owner) {
            owner.ended().await;
        }
    }

    async fn ask<T>(&self, request: impl FnOnce(Reply<T>) -> Request) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        if self.0.send(request(reply)).is_err() {
            return Err(StoreError::closed());
        }
        answer.await.unwrap_or_else(|_| Err(StoreError::closed()))
    }
}

/// An answer that nobody waits for any more is dropped.
async fn run(mut journal: Journal, mut requests: mpsc::UnboundedReceiver<Request>, pulse: Pulse) {
    let mut owners = BTreeMap::new();
    while let Some(request) = requests.recv().await {
        // It is watched and never given up.
        let _: Result<(), GivenUp> = pulse.enter(request.name(), CALL);
        match request {
            Request::Claim { partition, worker } => drop(owners.insert(partition, worker)),
            Request::Append { worker, write, mut entries, inbox } => {
                entries.retain(|entry| is_owners(entry, worker, &owners));
                let result = append(&mut journal, &entries);
                inbox.send(News::Stored { write, result });
            }
            Request::Intern { partitions, reply } => {
                let _ = reply.send(intern(&mut journal, &partitions));
            }
            Request::Runs { partitions, reply } => {
                let runs = |&(id, committed)| journal.runs_to_settle(id, committed).collect();
                let _ = reply.send(Ok(partitions.iter().map(runs).collect()));
            }
            Request::RememberSlot { transactional_id, reply } => {
                let remembered = journal.remember_slot(&transactional_id);
                let _ = reply.send(remembered.and_then(|()| journal.flush()));
            }
            Request::Slots { reply } => {
                let _ = reply.send(journal.slots());
            }
            Request::Unfinished { reply } => {
                let _ = reply.send(Ok(unfinished(&journal)));
            }
            Request::State { partition, offset, reply } => {
                let _ = reply.send(Ok(state(&journal, &partition, offset)));
            }
            Request::Note { entries, reply } => {
                let _ = reply.send(append(&mut journal, &entries));
            }
        }
        let _: Result<(), GivenUp> = pulse.leave();
    }
}

/// Whether a line is of the worker that owns its partition.
fn is_owners(entry: &Entry, worker: u32, owners: &BTreeMap<PartitionId, u32>) -> bool {
    match entry {
        Entry::Moved(moved) => owners.get(&moved.partition) == Some(&worker),
        Entry::Transaction(_) => true,
    }
}

/// Of topics that had the name in turn, the last one is meant.
fn state(journal: &Journal, partition: &TopicPartition, offset: u64) -> Option<State> {
    let is_meant = |(_, name): &(PartitionId, &PartitionName)| {
        *name.topic == *partition.topic && name.partition == partition.partition
    };
    let (id, _) = journal.partitions().filter(is_meant).last()?;
    journal.run_at(id, offset).map(|run| run.history.state)
}

fn unfinished(journal: &Journal) -> Vec<Unfinished> {
    let of = |(id, name): (PartitionId, &PartitionName)| {
        let runs: Vec<Run> = journal.unfinished(id).collect();
        let partition = TopicPartition::new(name.topic.as_str(), name.partition);
        (!runs.is_empty()).then_some(Unfinished { id, partition, runs })
    };
    journal.partitions().filter_map(of).collect()
}

fn append(journal: &mut Journal, entries: &[Entry]) -> Result<(), StoreError> {
    let now_ms = now_ms();
    journal.append(entries, now_ms)?;
    journal.flush()?;
    // A little at a time, after the write that others wait for.
    journal.prune(now_ms).map(drop)
}

fn intern(
    journal: &mut Journal,
    partitions: &[(TopicPartition, [u8; 16])],
) -> Result<Vec<PartitionId>, StoreError> {
    partitions
        .iter()
        .map(|(partition, topic_id)| {
            journal.intern(&partition.topic, partition.partition, *topic_id)
        })
        .collect()
}
