//! The decisions of Countersign, pure: no clock, no I/O, no randomness, no async.
//!
//! - [`transition`] says what may happen to a message; [`Runs`] keeps it for a whole partition.
//! - [`CommitMetadata`] is what moves with a partition to its next owner.
//! - [`worker::Worker`] joins them: the partitions of one group member and its transactions.
//! - [`amend`] says what an operator's order makes of the commit of a partition without an owner.
//! - [`Backoff`] says how long to wait, [`Retries`] how often and how long to try, and [`Breaker`]
//!   when to stop trying.

#![forbid(unsafe_code)]

mod amend;
mod backoff;
mod breaker;
mod disposition;
mod entry;
mod first_start;
mod metadata;
mod retry;
mod runs;
mod settings;
mod span;
mod state;
mod transition;
pub mod worker;

pub use amend::{AmendError, Amended, Unowned, amend};
pub use backoff::Backoff;
pub use breaker::{Breaker, BreakerAction, BreakerSettings, Leave, Switch};
pub use disposition::Disposition;
pub use entry::{End, Entry, Moved, Note, Part, PartitionId, TransactionRecord};
pub use first_start::{Beginning, FirstStart, FirstStarts, Recorded};
pub use metadata::{ATTEMPT_MAX, Author, CommitMetadata, MetadataError, NAME_BYTES_MAX, Trial};
pub use retry::{Retries, RetryPolicy};
pub use runs::{ApplyError, Change, Run, Runs};
pub use settings::{Expired, GiveUp, Order, Settings, StartAt};
pub use span::Span;
pub use state::{History, Outcome, Reason, State, Verb};
pub use transition::{Durability, Event, InvalidTransition, transition};
