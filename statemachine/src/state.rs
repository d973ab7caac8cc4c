//! The states of a message, and what is counted along with them.
//!
//! ```text
//! pending ----start------> processing ----committed----> confirmed(outcome)
//!    ^                          |   \
//!    |                          |    `--reply lost--> in doubt --verdict--> confirmed, rolled_back
//!    |                          `--error, panic, deadline | aborted | crashed | revoked--.
//!    `-------------again (at once, or when the retry is due)------ rolled_back(reason) <-'
//! ```
//!
//! Monotonic: `attempt` until an operator orders a retry, `deliveries` within a life, and `life`.
//! Only an operator's rewind leaves `confirmed`; it starts a new life. Of a done message whose
//! history is no longer kept only the outcome stays: [`History::of_outcome`].

use std::fmt;

use serde::{Deserialize, Serialize};

/// Where a message stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum State {
    /// Known, and not being worked on.
    Pending,
    /// Signed in: a handler runs, has run, or the result is part of an open transaction.
    Processing,
    /// The transaction was to be committed and the reply was lost: a phase of `processing`.
    InDoubt,
    /// The transaction that holds its outputs and its offset is committed.
    Confirmed(Outcome),
    /// What was done for it is undone.
    RolledBack(Reason),
}

/// How a confirmed message ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Outcome {
    /// Its outputs, of which there may be none, are visible.
    Processed,
    /// It is in the dead-letter topic.
    DeadLettered,
    /// It waits in a retry topic.
    Parked,
    /// It repeated an earlier message.
    Duplicate,
    /// An operator passed over it.
    Skipped,
    /// Another instance did it; the history names it.
    Elsewhere,
    /// It is done, and the commit does not say by whom.
    Unknown,
}

/// What an operator may order for one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Verb {
    /// Pass over it: it is done without outputs.
    Skip,
    /// Try it now; its attempts are counted anew.
    Retry,
    /// Make a dead letter of it.
    DeadLetter,
}

/// Why a message was rolled back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Reason {
    /// Its handler returned an error, or its output could not be sent.
    Error,
    /// Its handler panicked.
    Panic,
    /// Its handler missed its deadline.
    Deadline,
    /// The transaction was aborted, through no fault of the message.
    Aborted,
    /// The process ended while it was being worked on.
    Crashed,
    /// The partition went to another owner.
    Revoked,
}

impl Outcome {
    /// Every outcome.
    pub const ALL: [Self; 7] = [
        Self::Processed,
        Self::DeadLettered,
        Self::Parked,
        Self::Duplicate,
        Self::Skipped,
        Self::Elsewhere,
        Self::Unknown,
    ];
}

impl Verb {
    /// Every verb.
    pub const ALL: [Self; 3] = [Self::Skip, Self::Retry, Self::DeadLetter];

    /// How a message ends by it; `None` if it does not end.
    pub const fn outcome(self) -> Option<Outcome> {
        match self {
            Self::Skip => Some(Outcome::Skipped),
            Self::Retry => None,
            Self::DeadLetter => Some(Outcome::DeadLettered),
        }
    }
}

impl Reason {
    /// Every reason.
    pub const ALL: [Self; 6] =
        [Self::Error, Self::Panic, Self::Deadline, Self::Aborted, Self::Crashed, Self::Revoked];

    /// The reason's name as users see it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Panic => "panic",
            Self::Deadline => "deadline",
            Self::Aborted => "aborted",
            Self::Crashed => "crashed",
            Self::Revoked => "revoked",
        }
    }

    /// Whether the message itself caused it; only then it counts as an attempt.
    pub const fn is_own(self) -> bool {
        match self {
            Self::Error | Self::Panic | Self::Deadline => true,
            Self::Aborted | Self::Crashed | Self::Revoked => false,
        }
    }
}

/// A message's state with its counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct History {
    /// Where it stands.
    pub state: State,
    /// How often it failed by itself: what limits apply to.
    pub attempt: u32,
    /// How often it was started, for whatever reason.
    pub deliveries: u32,
    /// How often an operator rewound it.
    pub life: u32,
}

impl History {
    /// A message that nothing has happened to.
    pub const NEW: Self = Self { state: State::Pending, attempt: 0, deliveries: 0, life: 0 };

    /// A message that was done at the first try.
    pub const CLEAN: Self = Self::of_outcome(Outcome::Processed);

    /// What is told of a done message once its details are no longer kept: how it ended. The
    /// counters are those of a message that ended so without ado.
    pub const fn of_outcome(outcome: Outcome) -> Self {
        let deliveries = match outcome {
            Outcome::Processed | Outcome::DeadLettered | Outcome::Parked | Outcome::Duplicate => 1,
            Outcome::Skipped | Outcome::Elsewhere | Outcome::Unknown => 0,
        };
        Self { state: State::Confirmed(outcome), attempt: 0, deliveries, life: 0 }
    }
}

impl State {
    /// The state's name as users see it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Processing => "processing",
            Self::InDoubt => "in doubt",
            Self::Confirmed(_) => "confirmed",
            Self::RolledBack(_) => "rolled_back",
        }
    }

    /// Whether the message is done for good.
    pub const fn is_confirmed(self) -> bool {
        matches!(self, Self::Confirmed(_))
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pending | Self::Processing | Self::InDoubt => f.write_str(self.name()),
            Self::Confirmed(outcome) => write!(f, "confirmed ({outcome})"),
            Self::RolledBack(reason) => write!(f, "rolled_back ({reason})"),
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Processed => "processed",
            Self::DeadLettered => "dead-lettered",
            Self::Parked => "parked",
            Self::Duplicate => "duplicate",
            Self::Skipped => "skipped",
            Self::Elsewhere => "elsewhere",
            Self::Unknown => "author unknown",
        })
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Skip => "skip",
            Self::Retry => "retry",
            Self::DeadLetter => "dead-letter",
        })
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
