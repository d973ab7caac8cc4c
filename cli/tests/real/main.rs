//! `countersign run` on a real Kafka, through what kills and stops it: one behaviour per file, each
//! judged by an independent reader. `tests/README.md` says how to run the long forms.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../common/mod.rs"]
#[allow(unreachable_pub, reason = "it is shared with test programs that are one file")]
mod common;
mod support;

mod broker_loss;
mod damaged_store;
mod dead_letters;
mod exec;
mod kill_every_2_s;
mod refusals;
mod restart;
mod rolling_restart;
mod sigstop;
mod sigterm;
mod too_large;
mod transactional_input;
mod twins;
mod verbs;
