//! One worker: the partitions it owns and the transactions it makes.
//!
//! A sans-I/O object. [`Worker::handle`] takes what happened, [`Worker::poll_effect`] gives what to
//! do about it (call it until it gives `None` after every `handle`), and [`Worker::poll_timeout`]
//! says when to call `handle(Input::Tick, ..)` if nothing else happens before. Time is an argument;
//! it must not go back.
//!
//! ```text
//!  received -> admitted -> (flushed) -> handled -> finished -> sent in a transaction -> done
//!              `Write`      `Stored`    `Handle`   `Finished`  `Send` `Flush` `Commit`
//! ```
//!
//! The files: `window` knows how far each unfinished message is, `lanes` which waits for which,
//! `schedule` what a partition does next, `sending` what it sends, `partition` what it commits,
//! `transaction` what a failed call leaves to do, `recovery` what a new owner makes of a partition.
//! The worker joins them: `assignment` (who owns what), `leaving` (how a partition is let go),
//! `first_starts` (what commits say of other partitions), `handling` (from received to finished),
//! `commit` (from finished to done), `measure` (how large a transaction may be), `suspects` (whose
//! output was refused), `slots` (what the producers report), `refusal` (what Kafka does not allow),
//! `intervention` (what an operator orders), `reading` and `memory` (what is left to others);
//! `caution` and `trials` find messages that end the process.

mod assignment;
mod caution;
mod commit;
mod effect;
mod failing;
mod first_starts;
mod found;
mod handling;
mod health;
mod input;
mod intervention;
mod journal;
mod keys;
mod lanes;
mod leaving;
mod measure;
mod memory;
mod notice;
mod partition;
mod reading;
mod recovery;
mod refusal;
mod schedule;
mod sending;
mod slots;
mod stop;
mod suspects;
mod transaction;
mod trials;
mod window;

pub use effect::{Cause, Effect, GivenUp, Position, Renewal, Start};
pub use found::{Commit, Found, Label, Siblings};
pub use health::{Health, Step, Waiting};
pub use input::{
    Call, Denied, Failure, FailureKind, Ground, Input, Intervention, Obstacle, Refusal, SlotEvent,
};
pub use notice::Notice;
pub use recovery::settle_unowned;
pub use stop::{PositionError, StopReason};
pub use transaction::is_suspicious;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use crate::breaker::Breaker;
use crate::entry::{Entry, Moved, PartitionId};
use crate::settings::Settings;

use assignment::{Drain, Rebalance};
use intervention::Pending;
use journal::Journal;
use measure::Measure;
use partition::Partition;
use refusal::Refusals;
use suspects::Suspects;
use transaction::{Slot, Transaction};
use trials::Solo;

/// Time since an arbitrary start, on a clock that never goes back.
pub type Time = Duration;

/// What a worker has done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Messages that are done.
    pub confirmed: u64,
    /// Transactions that were committed.
    pub committed: u64,
    /// Transactions that were aborted.
    pub aborted: u64,
    /// Commits whose reply was lost.
    pub in_doubt: u64,
    /// Producers that were created anew after the start.
    pub renewed: u64,
    /// Failures of messages.
    pub failures: u64,
    /// Messages that were given up and became dead letters.
    pub dead_letters: u64,
    /// Messages that an operator passed over.
    pub skipped: u64,
    /// Orders of operators that were carried out.
    pub interventions: u64,
    /// Messages that are known and not done.
    pub unfinished: u64,
}

/// One worker. See the module.
#[derive(Debug)]
pub struct Worker {
    settings: Settings,
    now: Time,
    partitions: BTreeMap<PartitionId, Partition>,
    rebalances: VecDeque<Rebalance>,
    drain: Drain,
    epochs: u64,
    slots: Vec<Slot>,
    transactions: VecDeque<Transaction>,
    numbers: u64,
    /// Since when something finished waits for a transaction.
    wanted: Option<Time>,
    last_begin: Option<Time>,
    last_close: Option<Time>,
    aborts_in_row: u32,
    resume_at: Time,
    measure: Measure,
    suspects: Suspects,
    /// The partition whose handler was begun last.
    served: Option<PartitionId>,
    /// The partition of the message that was tried last.
    tried: Option<PartitionId>,
    solo: Solo,
    breaker: Option<Breaker>,
    /// When a slot was fenced without a reason that is known.
    fences: VecDeque<Time>,
    /// The slots whose producers are out of date and cannot be replaced yet.
    outdated: BTreeSet<u32>,
    refusals: Refusals,
    /// When it is asked whether first starts need still be told.
    ask_uncommitted_at: Option<Time>,
    /// Whether a partition was ever read.
    has_read: bool,
    interventions: BTreeMap<(PartitionId, u64), Pending>,
    journal: Journal,
    effects: VecDeque<Effect>,
    counts: Counts,
    stopped: bool,
}

impl Worker {
    /// Starts a worker: the first effects open its producer slots.
    ///
    /// # Panics
    /// `settings.slots` is zero.
    pub fn new(settings: Settings, now: Time) -> Self {
        assert!(settings.slots > 0, "a worker needs a producer slot");
        let mut worker = Self {
            now,
            partitions: BTreeMap::new(),
            rebalances: VecDeque::new(),
            drain: Drain::No,
            epochs: 0,
            slots: Vec::new(),
            transactions: VecDeque::new(),
            numbers: 0,
            wanted: None,
            last_begin: None,
            last_close: None,
            aborts_in_row: 0,
            resume_at: now,
            measure: Measure::NEW,
            suspects: Suspects::default(),
            served: None,
            tried: None,
            solo: Solo::NO,
            breaker: settings.breaker.map(|it| Breaker::new(it, settings.seed)),
            fences: VecDeque::new(),
            outdated: BTreeSet::new(),
            refusals: Refusals::default(),
            ask_uncommitted_at: None,
            has_read: false,
            interventions: BTreeMap::new(),
            journal: Journal::default(),
            effects: VecDeque::new(),
            counts: Counts::default(),
            stopped: false,
            settings,
        };
        for slot in 0..worker.settings.slots {
            worker.slots.push(Slot::Opening { tries: 0 });
            worker.effects.push_back(Effect::Open { slot, why: Renewal::Start });
        }
        worker
    }

    /// Takes in what happened.
    pub fn handle(&mut self, input: Input, now: Time) {
        if let Input::Weighed { number, messages, bytes } = input
            && !self.is_filled_by(number, messages, bytes)
        {
            return;
        }
        self.now = self.now.max(now);
        if self.stopped {
            return;
        }
        match input {
            Input::Assigned(ids) => self.on_assigned(ids),
            Input::Recovered(found) => self.on_recovered(&found),
            Input::Unready(ids) => self.on_unready(&ids),
            Input::Revoked(ids) => self.on_revoked(ids),
            Input::Lost(ids) => self.on_lost(ids),
            Input::Received { partition, epoch, spans, keys } => {
                self.on_received(partition, epoch, &spans, &keys);
            }
            Input::Crowded { partition, epoch, from } => self.on_crowded(partition, epoch, from),
            Input::Memory { partition, epoch, messages } => {
                self.on_memory(partition, epoch, messages);
            }
            Input::AtEnd { partition, epoch, offset } => {
                self.on_at_end(partition, epoch, offset);
            }
            Input::Stored { write } => self.on_stored(write),
            Input::Finished { partition, epoch, lane, spans } => {
                self.on_finished(partition, epoch, lane, &spans);
            }
            Input::Failed { partition, epoch, lane, offset, failure } => {
                self.on_failed((partition, epoch, lane), offset, failure);
            }
            Input::LetterTooLarge { partition, epoch, offset, message } => {
                self.on_letter_too_large(partition, epoch, offset, message);
            }
            Input::Yielded { partition, epoch, lane } => self.on_yielded(partition, epoch, lane),
            Input::Denied { denied, ground, message } => self.on_denied(denied, ground, message),
            Input::Solo => self.on_solo(),
            Input::Slot(slot, event) => self.on_slot(slot, event),
            Input::Commits { number, commits } => self.on_commits(number, &commits),
            Input::Large { number } => self.on_large(number),
            Input::Uncommitted(topics) => self.on_uncommitted(&topics),
            Input::Outdated => self.on_outdated(),
            Input::Intervene(id, order) => self.on_intervene(id, order),
            Input::Drain => self.on_drain(),
            Input::StoreFailed(message) => self.stop(Err(StopReason::Store(message))),
            Input::Weighed { .. } | Input::Tick => {}
        }
        self.advance();
    }

    /// Whatever has become possible, in the order of the data's path; nothing once it has stopped.
    fn advance(&mut self) {
        for step in [
            Self::advance_slots,
            Self::advance_refusals,
            Self::advance_first_starts,
            Self::advance_rebalance,
            Self::advance_handling,
            Self::advance_transactions,
            Self::advance_rebalance,
            Self::advance_journal,
        ] {
            if !self.stopped {
                step(self);
            }
        }
    }

    /// What to do next, in order; `None` once there is nothing for now.
    #[must_use = "an effect that is not performed stalls the worker"]
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// When to call `handle(Input::Tick, ..)` if nothing else happens before.
    #[must_use = "a timer that is not set stalls the worker"]
    pub fn poll_timeout(&self) -> Option<Time> {
        if self.stopped {
            return None;
        }
        let timers = [
            self.handling_due(),
            self.solo_due(),
            self.transactions_due(),
            self.rebalance_due(),
            self.refusals_due(),
            self.ask_uncommitted_at,
            self.journal.due(self.settings.lazy_write),
        ];
        timers.into_iter().flatten().filter(|&due| due > self.now).min()
    }

    /// What was done so far.
    pub fn counts(&self) -> Counts {
        let unfinished = self.partitions.values().map(|p| p.window.messages()).sum();
        Counts { unfinished, ..self.counts }
    }

    /// The partitions that are owned, with their committed offsets.
    pub fn positions(&self) -> impl Iterator<Item = (PartitionId, u64)> + '_ {
        self.partitions.values().map(|partition| (partition.id, partition.position))
    }

    /// Whether nothing is being handled or committed.
    pub fn is_idle(&self) -> bool {
        self.transactions.is_empty() && self.partitions.values().all(|p| p.window.messages() == 0)
    }

    fn owned(&mut self, id: PartitionId, epoch: u64) -> Option<&mut Partition> {
        self.partitions
            .get_mut(&id)
            .filter(|partition| partition.epoch == epoch && !partition.is_recovering())
    }

    fn stop(&mut self, result: Result<(), StopReason>) {
        if !self.stopped {
            self.stopped = true;
            self.write_journal();
            self.answer_all(&Obstacle::Stopped, |_| true);
            self.effects.push_back(Effect::Stop(result));
        }
    }

    fn notice(&mut self, notice: Notice) {
        self.effects.push_back(Effect::Notice(notice));
    }

    /// Notes moves that ride with the next write.
    fn note(&mut self, moves: impl IntoIterator<Item = Moved>) {
        self.journal.note(moves.into_iter().map(Entry::Moved), self.now);
    }

    fn on_stored(&mut self, write: u64) {
        self.journal.on_stored(write);
        for partition in self.partitions.values_mut() {
            partition.stored(write);
        }
        self.answer_recorded(write);
    }

    fn advance_journal(&mut self) {
        if let Some((write, entries)) = self.journal.poll(self.now, self.settings.lazy_write) {
            self.effects.push_back(Effect::Write { write, entries });
        }
    }

    /// Writes what is noted at once, ahead of the effects that follow.
    fn write_journal(&mut self) {
        if let Some((write, entries)) = self.journal.take(self.now) {
            self.effects.push_back(Effect::Write { write, entries });
        }
    }
}
