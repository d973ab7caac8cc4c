//! Stops handling when too much fails, so that an outage of something downstream does not carry a
//! whole topic into the dead letters.

use std::collections::VecDeque;
use std::time::Duration;

use crate::backoff::Backoff;

/// When a [`Breaker`] opens, and how it finds out that it may close.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BreakerSettings {
    /// How many results in a row have to be failures.
    pub row: u32,
    /// Which share of the last [`window`](Self::window) results have to be failures, from 0 to 1.
    pub share: f64,
    /// How many results the share is of; with fewer it says nothing.
    pub window: u32,
    /// How long it waits before it tries a message, and then the next one.
    pub probe: Backoff,
    /// What happens when it opens.
    pub action: BreakerAction,
}

/// What happens when a [`Breaker`] opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BreakerAction {
    /// Single messages are tried until one succeeds.
    Probe,
    /// The worker stops.
    Stop,
}

impl Default for BreakerSettings {
    fn default() -> Self {
        Self {
            row: 20,
            share: 0.5,
            window: 100,
            probe: Backoff {
                base: Duration::from_secs(1),
                max: Duration::from_secs(30),
                ..Backoff::default()
            },
            action: BreakerAction::Probe,
        }
    }
}

/// Of how many messages that are tried in vain while the breaker is open one is given up.
const PROBES_PER_LETTER: u32 = 10;

/// What a result changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Switch {
    /// Too much failed: nothing is handled but single messages, to find out.
    Opened,
    /// A message succeeded again.
    Closed,
}

/// How much may be handled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leave {
    /// As much as there is.
    Any,
    /// One message, if none is under way.
    One,
    /// None before this time.
    None {
        /// On the worker's clock.
        until: Duration,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Closed,
    Open { probes: u32, next: Duration },
}

/// Counts how messages end, and opens when too many of the last ones failed.
///
/// Every failure of a message's own counts, whether it is tried again or not; aborts, crashes and
/// rebalances do not.
#[derive(Debug, Clone)]
pub struct Breaker {
    settings: BreakerSettings,
    /// The last results, newest last: whether they are failures.
    last: VecDeque<bool>,
    failures: u32,
    row: u32,
    state: State,
    seed: u64,
}

impl Breaker {
    /// A breaker that is closed; the seed is for the jitter of its waits.
    pub fn new(settings: BreakerSettings, seed: u64) -> Self {
        let last = VecDeque::new();
        Self { settings, last, failures: 0, row: 0, state: State::Closed, seed }
    }

    /// What happens when it opens.
    pub fn action(&self) -> BreakerAction {
        self.settings.action
    }

    /// Whether only single messages are tried.
    pub fn is_open(&self) -> bool {
        self.state != State::Closed
    }

    /// Whether a message that has failed often enough may be given up. While it is open, what is
    /// wrong is likely not the message; but if nothing but such messages is left to be tried, it
    /// would never close. So one of many that are tried in vain is given up.
    pub fn gives_way(&self) -> bool {
        match self.state {
            State::Closed => true,
            State::Open { probes, .. } => probes % PROBES_PER_LETTER == 0,
        }
    }

    /// How much may be handled now.
    pub fn leave(&self, now: Duration) -> Leave {
        match self.state {
            State::Closed => Leave::Any,
            State::Open { next, .. } if next <= now => Leave::One,
            State::Open { next, .. } => Leave::None { until: next },
        }
    }

    /// An operator wants one tried now.
    pub fn hurry(&mut self, now: Duration) {
        if let State::Open { next, .. } = &mut self.state {
            *next = now.min(*next);
        }
    }

    /// So many messages ended well.
    pub fn succeeded(&mut self, messages: u64) -> Option<Switch> {
        self.row = 0;
        let kept = messages.min(u64::from(self.settings.window));
        for _ in 0..kept {
            self.remember(false);
        }
        if messages > 0 && self.is_open() {
            // What it knows is of another time.
            self.last.clear();
            self.failures = 0;
            self.state = State::Closed;
            return Some(Switch::Closed);
        }
        None
    }

    /// A message failed.
    pub fn failed(&mut self, now: Duration) -> Option<Switch> {
        self.row = self.row.saturating_add(1);
        self.remember(true);
        match self.state {
            // It was begun before the breaker opened, and says nothing new.
            State::Open { next, .. } if now < next => None,
            State::Open { probes, .. } => {
                self.open(probes.saturating_add(1), now);
                None
            }
            State::Closed if self.is_too_much() => {
                self.open(1, now);
                Some(Switch::Opened)
            }
            State::Closed => None,
        }
    }

    fn open(&mut self, probes: u32, now: Duration) {
        let wait = self.settings.probe.wait(probes, self.seed);
        self.state = State::Open { probes, next: now + wait };
    }

    fn is_too_much(&self) -> bool {
        let window = self.settings.window;
        let is_full = window > 0 && self.last.len() as u64 >= u64::from(window);
        let share = f64::from(self.failures) >= self.settings.share * f64::from(window);
        self.row >= self.settings.row.max(1) || is_full && share && self.failures > 0
    }

    fn remember(&mut self, failed: bool) {
        self.last.push_back(failed);
        self.failures += u32::from(failed);
        while self.last.len() as u64 > u64::from(self.settings.window) {
            self.failures -= u32::from(self.last.pop_front() == Some(true));
        }
    }
}
