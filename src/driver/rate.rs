//! How many messages per second are handled, over all workers of a processor.

use std::num::NonZeroU32;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use tokio::time::{Instant, sleep};

type Limiter = RateLimiter<NotKeyed, InMemoryState, Pace, NoOpMiddleware<Duration>>;

/// Waits are cut to this, so that a changed rate and an interruption are noticed soon.
const GLANCE: Duration = Duration::from_millis(50);

/// Over how long a rate is even: a tenth of what a second allows may come at once.
const BURSTS_PER_SECOND: u32 = 10;

/// Tokio's clock, which tests can stop.
#[derive(Debug, Clone)]
struct Pace(Instant);

impl Clock for Pace {
    type Instant = Duration;

    fn now(&self) -> Duration {
        self.0.elapsed()
    }
}

/// A limit that can change while it is in use; clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rate(Arc<RwLock<Option<Arc<Limiter>>>>);

impl Rate {
    /// From now on so many messages per second; `None`: without limit.
    pub(crate) fn set(&self, per_second: Option<NonZeroU32>) {
        let limiter = per_second.map(|rate| {
            let burst = rate.get().div_ceil(BURSTS_PER_SECOND);
            let burst = NonZeroU32::new(burst).unwrap_or(NonZeroU32::MIN);
            let quota = Quota::per_second(rate).allow_burst(burst);
            Arc::new(RateLimiter::direct_with_clock(quota, Pace(Instant::now())))
        });
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = limiter;
    }

    /// Takes leave for one message, or gives how long to wait before asking again.
    fn ask(&self) -> Result<(), Duration> {
        let limiter = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let Some(limiter) = &*limiter else { return Ok(()) };
        limiter.check().map_err(|not_yet| {
            let now = limiter.clock().now();
            not_yet.wait_time_from(now).clamp(Duration::from_millis(1), GLANCE)
        })
    }

    /// Takes leave for one message at once, if there is.
    pub(crate) fn is_free(&self) -> bool {
        self.ask().is_ok()
    }

    /// Waits for leave for one message, unless `given_up` comes true; whether there is leave.
    pub(crate) async fn wait(&self, given_up: impl Fn() -> bool) -> bool {
        loop {
            if given_up() {
                return false;
            }
            match self.ask() {
                Ok(()) => return true,
                Err(wait) => sleep(wait).await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn passed_in(rate: &Rate, time: Duration) -> u32 {
        let end = Instant::now() + time;
        let mut passed = 0;
        while rate.wait(|| Instant::now() >= end).await {
            passed += 1;
        }
        passed
    }

    #[tokio::test(start_paused = true)]
    async fn as_many_pass_as_the_rate_says_and_it_can_change() {
        let rate = Rate::default();
        for per_second in [1_000, 20, 300] {
            rate.set(NonZeroU32::new(per_second));
            let passed = passed_in(&rate, Duration::from_secs(10)).await;
            let expected = per_second * 10;
            let burst = per_second.div_ceil(BURSTS_PER_SECOND);
            assert!((expected..=expected + burst).contains(&passed), "{per_second}: {passed}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_limit_nothing_waits() {
        let rate = Rate::default();
        rate.set(NonZeroU32::new(1));
        rate.set(None);
        let begun = Instant::now();
        for _ in 0..10_000 {
            assert!(rate.is_free());
        }
        assert_eq!(begun.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_can_be_called_away() {
        let rate = Rate::default();
        rate.set(NonZeroU32::new(1));
        assert!(rate.is_free());
        let away = Instant::now() + Duration::from_millis(200);
        assert!(!rate.wait(|| Instant::now() >= away).await);
        assert!(away.elapsed() <= GLANCE);
    }
}
