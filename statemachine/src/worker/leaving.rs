//! How a partition is let go: in stages, each with its time.
//!
//! The last commit says that the partition is let go in good order, which its next owner must know:
//! whoever says nothing has died. It comes when no handler is at work any more, so that a process
//! that a handler ends has said nothing. Handlers have a time to finish what they are at. Then they
//! are cancelled, and the rest is left to the next owner.

use super::effect::Effect;
use super::partition::{Partition, Tenure};
use super::{Time, Worker};

/// How far a partition is that is being let go. Each stage has its time; the last commit, which
/// says that it is let go in good order, ends it at any of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Leave {
    /// Handlers may finish the message that they are at.
    Finishing,
    /// Handlers are cancelled: what they are at is left to the next owner.
    Cancelling,
    /// Handlers that are not cancelled yet, because they block their thread, are not waited for.
    Closing,
}

/// What this owner has done with handlers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Handlers {
    /// None was begun.
    NotBegun,
    /// Those that were begun end by themselves.
    LeftToEnd,
    /// Some were cancelled, so that the partition can be let go.
    CutShort,
}

impl Partition {
    /// Whether the partition is about to be let go and only commits are left to do.
    pub(crate) fn is_closing(&self) -> bool {
        match self.tenure {
            Tenure::Leaving { stage: Leave::Finishing | Leave::Cancelling, .. } => {
                !self.is_running()
            }
            Tenure::Leaving { stage: Leave::Closing, .. } => true,
            Tenure::Recovering(_) | Tenure::Owned | Tenure::Abandoned => false,
        }
    }

    /// No new message is handled from now on; handlers have until then.
    pub(super) fn leave(&mut self, until: Time) {
        self.tenure = Tenure::Leaving { stage: Leave::Finishing, until };
    }

    /// Nothing is waited for any more but the last commit.
    pub(super) fn hasten(&mut self, now: Time) {
        if let Tenure::Leaving { stage: Leave::Finishing, until } = &mut self.tenure {
            *until = now.min(*until);
        }
    }

    /// A handler is begun.
    pub(super) fn note_run(&mut self) {
        if self.handlers == Handlers::NotBegun {
            self.handlers = Handlers::LeftToEnd;
        }
    }

    /// Handlers have had their time to finish what they are at; whether one is to be cancelled.
    pub(super) fn cut_runs_short(&mut self) -> bool {
        let is_running = self.is_running();
        if is_running {
            self.handlers = Handlers::CutShort;
        }
        is_running
    }

    /// Whether every handler that this owner began has ended by itself, and there was one. Then no
    /// message that was begun is what ended the owners before.
    pub(super) fn has_survived(&self) -> bool {
        self.handlers == Handlers::LeftToEnd && !self.is_running()
    }

    /// Whether nothing is left to do before the partition is let go, but for transactions that are
    /// under way.
    pub(crate) fn is_settled(&self) -> bool {
        match self.tenure {
            Tenure::Owned => false,
            Tenure::Recovering(_) | Tenure::Abandoned => true,
            Tenure::Leaving { .. } => {
                self.is_closing() && !self.has_finished() && !self.wants_commit()
            }
        }
    }
}

impl Worker {
    /// What has had its time is cut short.
    pub(super) fn hurry_overdue(&mut self) {
        let patience = self.settings.close_budget / 2;
        let mut overdue = Vec::new();
        for partition in self.partitions.values_mut() {
            while let Tenure::Leaving { stage, until } = partition.tenure
                && until <= self.now
            {
                let next = match stage {
                    Leave::Finishing => Leave::Cancelling,
                    Leave::Cancelling => Leave::Closing,
                    Leave::Closing => {
                        overdue.push(partition.id);
                        break;
                    }
                };
                if next == Leave::Cancelling && partition.cut_runs_short() {
                    self.effects.push_back(Effect::Halt { partition: partition.id });
                }
                partition.tenure = Tenure::Leaving { stage: next, until: until + patience };
            }
        }
        if !overdue.is_empty() {
            self.abandon(&overdue);
        }
    }
}
