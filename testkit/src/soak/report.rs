//! What a soak tells.

use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use super::check::Verdict;
use super::pauses::{PAUSE_MAX, Pause};
use super::usage::Growth;

/// What happened.
#[derive(Debug, Default)]
pub struct Report {
    /// How many messages there were.
    pub messages: u64,
    /// How many kills.
    pub kills: u32,
    /// How many of them took the store, too.
    pub lost_stores: u32,
    /// How long the broker was away.
    pub broker_away: Duration,
    /// How many times a broker was ended and came back: in turn by SIGTERM and by SIGKILL.
    pub restarts: u32,
    /// The longest time in which a partition brought no output although all brokers were there;
    /// of a soak that restarts brokers.
    pub pause: Option<Pause>,
    /// What the process used after a while and in the end; of a steady soak.
    pub growth: Option<Growth>,
    /// From the first message to the commit of the last.
    pub took: Duration,
    /// Outputs and letters of transactions that came to nothing: kills that hit one.
    pub aborted: u64,
    /// What the check found.
    pub verdict: Verdict,
}

impl Report {
    /// Whether every message ended as it should have, no pause was too long, and nothing grew.
    pub fn is_good(&self) -> bool {
        self.verdict.is_exact()
            && self.pause.as_ref().is_none_or(|pause| pause.took <= PAUSE_MAX)
            && self.growth.as_ref().is_none_or(Growth::is_steady)
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let took = self.took.as_secs_f64();
        writeln!(f, "{} messages in {took:.1} s, all caught up", self.messages)?;
        if self.growth.is_none() && self.pause.is_none() {
            let Self { kills, lost_stores, .. } = self;
            writeln!(f, "{kills} kills -9, {lost_stores} of them with the loss of the store")?;
        }
        if !self.broker_away.is_zero() {
            writeln!(f, "the broker was killed, and away for {:?}", self.broker_away)?;
        }
        if let Some(pause) = &self.pause {
            let restarts = self.restarts;
            writeln!(f, "{restarts} restarts of brokers, in turn by SIGTERM and kill -9")?;
            writeln!(f, "{pause}")?;
        }
        if let Some(growth) = &self.growth {
            writeln!(f, "{growth}")?;
        }
        writeln!(f, "{} outputs and dead letters in aborted transactions", self.aborted)?;
        write!(f, "{}", self.verdict)
    }
}
