//! Ranges of offsets.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A half-open range of offsets: `first` belongs to it, `end` does not. Never empty.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "Ends")]
pub struct Span {
    /// The first offset.
    pub first: u64,
    /// One past the last offset.
    pub end: u64,
}

/// A span as it is stored, which damage may have emptied.
#[derive(Deserialize)]
struct Ends {
    first: u64,
    end: u64,
}

impl TryFrom<Ends> for Span {
    type Error = &'static str;

    fn try_from(Ends { first, end }: Ends) -> Result<Self, Self::Error> {
        Self::new(first, end).ok_or("a span of offsets ends at or before its start")
    }
}

impl Span {
    /// Makes a span; `None` if it would be empty.
    pub const fn new(first: u64, end: u64) -> Option<Self> {
        if first < end { Some(Self { first, end }) } else { None }
    }

    /// The span of one offset.
    ///
    /// # Panics
    /// `offset` is `u64::MAX`, which Kafka's signed offsets cannot reach.
    pub const fn one(offset: u64) -> Self {
        Self { first: offset, end: offset + 1 }
    }

    /// How many offsets it covers.
    pub const fn len(self) -> u64 {
        self.end - self.first
    }

    /// Always false: a span covers at least one offset.
    pub const fn is_empty(self) -> bool {
        false
    }

    /// Whether `offset` belongs to it.
    pub const fn contains(self, offset: u64) -> bool {
        self.first <= offset && offset < self.end
    }

    /// Appends it to spans that lie before it; neighbours become one.
    pub fn append_to(self, spans: &mut Vec<Self>) {
        match spans.last_mut() {
            Some(last) if last.end == self.first => last.end = self.end,
            _ => spans.push(self),
        }
    }

    /// The part that both cover.
    pub fn intersect(self, other: Self) -> Option<Self> {
        Self::new(self.first.max(other.first), self.end.min(other.end))
    }
}

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Shown as `first..=last`, the way people count offsets; one offset is shown alone.
impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let last = self.end - 1;
        if last == self.first { write!(f, "{last}") } else { write!(f, "{}..={last}", self.first) }
    }
}
