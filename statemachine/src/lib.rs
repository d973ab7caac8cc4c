//! The decisions of Countersign, pure: no clock, no I/O, no randomness, no async.

#![forbid(unsafe_code)]

mod disposition;

pub use disposition::Disposition;
