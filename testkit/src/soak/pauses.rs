//! How long a reader of the outputs waits: what a restart of a broker costs those behind it.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::reader::{Isolation, ReaderError, follow};

use super::plan::OUTPUTS;

/// How long a partition may bring nothing although all brokers are there.
pub const PAUSE_MAX: Duration = Duration::from_secs(30);

/// What is shorter is not noted: messages come many times a second.
const NOTED: Duration = Duration::from_secs(1);

/// A time.
type Span = (Instant, Instant);

/// A partition of an output topic.
type Place = (String, u32);

/// The longest pause.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pause {
    /// How long the partition brought nothing while all brokers were there.
    pub took: Duration,
    /// The same, with the time in which a broker was away.
    pub with_away: Duration,
    /// The topic and the partition; `None` if there was no pause of a second.
    pub place: Option<(String, u32)>,
}

/// Watches the outputs while brokers come and go.
#[derive(Debug, Default)]
pub(super) struct Watch {
    is_over: AtomicBool,
    away: Mutex<Vec<Span>>,
}

impl Watch {
    /// A broker was away from one time to the other.
    pub(super) fn was_away(&self, from: Instant, to: Instant) {
        self.away.lock().unwrap_or_else(PoisonError::into_inner).push((from, to));
    }

    /// No more is to come.
    pub(super) fn end(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }

    /// Reads the outputs as they become visible, until [`end`](Self::end); gives the times in which
    /// a partition brought none.
    pub(super) fn read(&self, bootstrap: &str) -> Result<Vec<(Place, Span)>, ReaderError> {
        let mut last: BTreeMap<(&str, u32), Instant> = BTreeMap::new();
        let mut silences = Vec::new();
        follow(bootstrap, &OUTPUTS, Isolation::Committed, &self.is_over, |topic, partition| {
            let now = Instant::now();
            let Some(topic) = OUTPUTS.into_iter().find(|known| *known == topic) else { return };
            if let Some(before) = last.insert((topic, partition), now)
                && now - before >= NOTED
            {
                silences.push(((topic.to_owned(), partition), (before, now)));
            }
        })?;
        Ok(silences)
    }

    /// The longest of these, without the times in which a broker was away.
    pub(super) fn longest(&self, silences: Vec<(Place, Span)>) -> Pause {
        let away = self.away.lock().unwrap_or_else(PoisonError::into_inner);
        let pauses = silences.into_iter().map(|(place, silence)| {
            let with_away = silence.1 - silence.0;
            let took = with_away.saturating_sub(away.iter().map(|it| common(silence, *it)).sum());
            Pause { took, with_away, place: Some(place) }
        });
        let none = Pause { took: Duration::ZERO, with_away: Duration::ZERO, place: None };
        pauses.fold(none, |longest, pause| if pause.took > longest.took { pause } else { longest })
    }
}

/// How long both last.
fn common(one: Span, other: Span) -> Duration {
    one.1.min(other.1).saturating_duration_since(one.0.max(other.0))
}

impl Display for Pause {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { took, with_away, place } = self;
        let Some((topic, partition)) = place else {
            return write!(f, "no partition brought nothing for {NOTED:?}");
        };
        let told =
            if *took > PAUSE_MAX { format!("  TOO LONG: {PAUSE_MAX:?}") } else { String::new() };
        let (took, with_away) = (took.as_secs_f64(), with_away.as_secs_f64());
        write!(
            f,
            "longest pause with all brokers there: {took:.1} s ({with_away:.1} s with the time in \
             which one was away), of {topic}/{partition}{told}"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The longest pause, in seconds, of silences of partition 0, 1, and so on while brokers were
    /// away; and its partition.
    fn longest(silences: &[(u64, u64)], away: &[(u64, u64)]) -> (u64, u64, Option<u32>) {
        let start = Instant::now();
        let span = |&(from, to): &(u64, u64)| {
            (start + Duration::from_secs(from), start + Duration::from_secs(to))
        };
        let watch = Watch::default();
        away.iter().map(span).for_each(|(from, to)| watch.was_away(from, to));
        let places = (0..).map(|partition| ("soak-a".to_owned(), partition));
        let pause = watch.longest(places.zip(silences.iter().map(span)).collect());
        let place = pause.place.map(|(_, partition)| partition);
        (pause.took.as_secs(), pause.with_away.as_secs(), place)
    }

    #[test]
    fn time_in_which_a_broker_is_away_is_no_pause() {
        assert_eq!(longest(&[], &[(0, 100)]), (0, 0, None));
        assert_eq!(longest(&[(10, 50)], &[]), (40, 40, Some(0)));
        assert_eq!(longest(&[(10, 50)], &[(0, 20)]), (30, 40, Some(0)));
        assert_eq!(longest(&[(10, 50)], &[(45, 60)]), (35, 40, Some(0)));
        assert_eq!(longest(&[(10, 50)], &[(10, 50)]), (0, 0, None));
    }

    #[test]
    fn a_pause_does_not_begin_anew_with_the_next_broker() {
        assert_eq!(longest(&[(0, 100)], &[(0, 10), (30, 40), (60, 70)]), (70, 100, Some(0)));
    }

    #[test]
    fn the_longest_pause_is_told_not_the_longest_silence() {
        assert_eq!(longest(&[(0, 60), (70, 80), (80, 85)], &[(0, 55)]), (10, 10, Some(1)));
    }
}
