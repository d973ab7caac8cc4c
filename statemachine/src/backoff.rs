//! Waiting times between tries.

use std::time::Duration;

/// Exponential backoff with jitter.
///
/// The wait before try `n` (from 1) is `base * factor^(n-1)`, at most `max`, less a random share of
/// up to `jitter` of itself, so that many that failed together do not return together.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Backoff {
    /// The first wait.
    pub base: Duration,
    /// By how much each wait is longer than the last.
    pub factor: f64,
    /// The longest wait, before jitter.
    pub max: Duration,
    /// The random share, from 0 (none) to 1 (anything down to no wait).
    pub jitter: f64,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            base: Duration::from_millis(100),
            factor: 2.0,
            max: Duration::from_secs(10),
            jitter: 0.2,
        }
    }
}

impl Backoff {
    /// The wait before try `n`, from 1; the same seed gives the same wait.
    pub fn wait(&self, n: u32, seed: u64) -> Duration {
        let exponent = i32::try_from(n.saturating_sub(1)).unwrap_or(i32::MAX);
        // A finite factor, so that nothing times it stays nothing.
        let factor = self.factor.max(1.0).powi(exponent).min(f64::MAX);
        let full = self.base.as_secs_f64() * factor;
        // `max` makes nothing of a jitter that is not a number.
        let jitter = self.jitter.max(0.0).clamp(0.0, 1.0);
        let share = jitter * unit(mix(seed ^ u64::from(n)));
        let wait = full.min(self.max.as_secs_f64()) * (1.0 - share);
        // Rounding may carry the largest durations over the limit.
        Duration::try_from_secs_f64(wait).map_or(self.max, |wait| wait.min(self.max))
    }
}

/// The finalizer of `SplitMix64` (Steele, Lea, Flood, 2014): spreads a seed over all bits.
fn mix(seed: u64) -> u64 {
    let z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A number in `[0, 1)` from the upper bits.
fn unit(bits: u64) -> f64 {
    let upper = u32::try_from(bits >> 32).unwrap_or(u32::MAX);
    f64::from(upper) / (f64::from(u32::MAX) + 1.0)
}
