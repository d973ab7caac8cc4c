//! What happened, in order: for people, for counts, and as a hash to compare runs by.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::hash::{DefaultHasher, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use crate::model::Call;

/// How often each kind of thing happened.
pub type Totals = BTreeMap<String, u64>;

#[derive(Debug, Clone)]
pub(super) struct Journal(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    started: Instant,
    keep: bool,
    line: String,
    lines: Vec<String>,
    hasher: DefaultHasher,
    totals: Totals,
}

impl Journal {
    pub(super) fn new(keep: bool) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            started: Instant::now(),
            keep,
            line: String::new(),
            lines: Vec::new(),
            hasher: DefaultHasher::new(),
            totals: Totals::new(),
        })))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what happened.
    pub(super) fn say(&self, who: &str, what: fmt::Arguments<'_>) {
        let inner = &mut *self.inner();
        let at = inner.started.elapsed();
        inner.line.clear();
        let written = write!(inner.line, "{:>10.3} {who:<8} {what}", at.as_secs_f64());
        written.expect("writing to a string cannot fail");
        inner.hasher.write(inner.line.as_bytes());
        if inner.keep {
            inner.lines.push(inner.line.clone());
        }
    }

    /// Counts one of a kind.
    pub(super) fn count(&self, kind: &str) {
        let mut inner = self.inner();
        if let Some(count) = inner.totals.get_mut(kind) {
            *count += 1;
        } else {
            inner.totals.insert(kind.to_owned(), 1);
        }
    }

    /// Adds what the model counted.
    pub(super) fn struck(&self, struck: &BTreeMap<(Call, &'static str), u64>) {
        for ((call, fault), count) in struck {
            *self.inner().totals.entry(format!("fault: {fault}, {call:?}")).or_default() += count;
        }
    }

    pub(super) fn close(&self) -> (Totals, u64, Vec<String>) {
        let mut inner = self.inner();
        let lines = std::mem::take(&mut inner.lines);
        (inner.totals.clone(), inner.hasher.finish(), lines)
    }
}
