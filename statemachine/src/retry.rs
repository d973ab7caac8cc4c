//! How failed messages are tried again, by the class of their error.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::backoff::Backoff;

/// How failed messages are tried again, and when they are given up.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct RetryPolicy {
    /// The waits between tries.
    pub backoff: Backoff,
    /// How often a message may fail; `None`: without limit.
    pub attempts: Option<u32>,
    /// How long after its first failure a message is tried again, as far as this owner of its
    /// partition knows; `None`: without limit. The last try is at the end of it.
    pub budget: Option<Duration>,
}

/// The retry policies of all classes.
///
/// The policy of a message is that of its last failure; attempts are counted over all classes, and
/// the budget begins with the first failure of whatever class.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Retries {
    /// For classes without a policy of their own.
    pub default: RetryPolicy,
    /// By the name of the class: the handler's, or `error`, `panic` or `deadline`.
    pub classes: BTreeMap<String, RetryPolicy>,
}

impl Retries {
    /// The policy of a class.
    pub fn of(&self, class: &str) -> RetryPolicy {
        self.classes.get(class).copied().unwrap_or(self.default)
    }
}

impl From<RetryPolicy> for Retries {
    /// One policy for all classes.
    fn from(default: RetryPolicy) -> Self {
        Self { default, classes: BTreeMap::new() }
    }
}

impl From<Backoff> for Retries {
    /// The same waits for all classes, without limits.
    fn from(backoff: Backoff) -> Self {
        Self::from(RetryPolicy { backoff, ..RetryPolicy::default() })
    }
}

impl RetryPolicy {
    /// Whether a message that failed so often may not be tried again.
    pub(crate) fn is_spent(&self, attempts: u32) -> bool {
        self.attempts.is_some_and(|most| attempts >= most)
    }

    /// Whether it is too late to try a message again that failed first at `first`.
    pub(crate) fn is_over(&self, first: Duration, now: Duration) -> bool {
        self.end(first).is_some_and(|end| end <= now)
    }

    /// When a message is tried again that has failed so often, first at `first`.
    pub(crate) fn due(&self, attempts: u32, first: Duration, now: Duration, seed: u64) -> Duration {
        let due = now.saturating_add(self.backoff.wait(attempts, seed));
        // What is tried though its time is over waits as any other.
        self.end(first).filter(|end| *end > now).map_or(due, |end| due.min(end))
    }

    fn end(&self, first: Duration) -> Option<Duration> {
        self.budget.map(|budget| first.saturating_add(budget))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn policy() -> RetryPolicy {
        let backoff = Backoff { base: seconds(1), max: seconds(60), jitter: 0.0, factor: 2.0 };
        RetryPolicy { backoff, attempts: Some(3), budget: Some(seconds(10)) }
    }

    #[test]
    fn a_class_has_its_own_policy_or_the_default() {
        let own = RetryPolicy { attempts: Some(9), ..policy() };
        let classes = BTreeMap::from([("http-503".to_owned(), own)]);
        let retries = Retries { default: policy(), classes };
        assert_eq!(retries.of("http-503"), own);
        assert_eq!(retries.of("http-504"), policy());
    }

    #[test]
    fn the_last_try_is_at_the_end_of_the_budget() {
        let policy = policy();
        assert_eq!(policy.due(1, seconds(5), seconds(5), 0), seconds(6));
        assert_eq!(policy.due(4, seconds(5), seconds(9), 0), seconds(15));
        assert!(!policy.is_over(seconds(5), seconds(14)));
        assert!(policy.is_over(seconds(5), seconds(15)));
        assert_eq!(policy.due(1, seconds(5), seconds(16), 0), seconds(17));
    }

    #[test]
    fn without_limits_nothing_is_spent() {
        let policy = RetryPolicy::default();
        assert!(!policy.is_spent(u32::MAX) && !policy.is_over(seconds(0), Duration::MAX));
        let due = policy.due(u32::MAX, seconds(0), Duration::MAX, 0);
        assert_eq!(due, Duration::MAX);
    }
}
