//! What is to be written to the store, and when.
//!
//! One write at a time: what is noted meanwhile is written together (group commit). A line that
//! must be flushed before a handler runs is urgent; the others ride along, or go after a while.

use std::time::Duration;

use crate::entry::Entry;

use super::Time;

#[derive(Debug, Default)]
pub(super) struct Journal {
    entries: Vec<Entry>,
    /// Since when the oldest entry waits.
    since: Option<Time>,
    urgent: bool,
    /// When the last write was begun.
    began: Option<Time>,
    writes: u64,
    stored: u64,
}

impl Journal {
    /// Notes lines that may wait.
    pub(super) fn note(&mut self, entries: impl IntoIterator<Item = Entry>, now: Time) {
        self.entries.extend(entries);
        if !self.entries.is_empty() {
            self.since.get_or_insert(now);
        }
    }

    /// The next write is not put off.
    pub(super) fn hurry(&mut self) {
        self.urgent = true;
    }

    /// The number of the write that will hold what is noted now.
    pub(super) fn next_write(&self) -> u64 {
        self.writes + 1
    }

    pub(super) fn on_stored(&mut self, write: u64) {
        self.stored = self.stored.max(write);
    }

    pub(super) fn is_writing(&self) -> bool {
        self.stored < self.writes
    }

    /// When the write began that is not flushed.
    pub(super) fn writing_since(&self) -> Option<Time> {
        self.began.filter(|_| self.is_writing())
    }

    /// When the last write is `pause` ago.
    pub(super) fn rests_until(&self, pause: Duration) -> Time {
        self.began.map_or(Time::ZERO, |began| began + pause)
    }

    /// The write that is due.
    pub(super) fn poll(&mut self, now: Time, lazy: Duration) -> Option<(u64, Vec<Entry>)> {
        let ripe = self.since.is_some_and(|at| at + lazy <= now);
        if self.is_writing() || !(self.urgent || ripe) { None } else { self.take(now) }
    }

    /// Whatever is noted, at once.
    pub(super) fn take(&mut self, now: Time) -> Option<(u64, Vec<Entry>)> {
        if self.entries.is_empty() {
            return None;
        }
        self.writes += 1;
        self.urgent = false;
        self.since = None;
        self.began = Some(now);
        Some((self.writes, std::mem::take(&mut self.entries)))
    }

    pub(super) fn due(&self, lazy: Duration) -> Option<Time> {
        self.since.filter(|_| !self.is_writing()).map(|at| at + lazy)
    }
}
