//! What the store can tell a person: how things stand ([`state`]), and what happened to one message
//! ([`why`]). Both read a [`Journal`](crate::store::Journal), change nothing, and give reports that
//! are written as JSON or, by [`text`], in plain words.

mod state;
pub mod text;
mod why;

pub use state::{Counts, LastTransaction, PartitionState, Range, Ranges, StateReport, state};
pub use why::{
    Delivery, Happened, Held, Known, Operator, Present, Transaction, WhyError, WhyReport,
    parse_target, why,
};

use jiff::Timestamp;

/// UTC, as RFC 3339 has it, to the millisecond.
fn utc(at_ms: u64) -> String {
    let time = i64::try_from(at_ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    time.map_or_else(|| format!("{at_ms} ms"), |time| format!("{time:.3}"))
}
