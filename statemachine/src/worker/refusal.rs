//! What Kafka refuses for good: a right that is missing, or a setting that does not fit.
//!
//! A worker that was never let do a thing ends at the first refusal of it. Later, rights may be
//! being changed: a refusal that goes on for a minute ends it. The thing is asked for again all the
//! while, so that a refusal that is over is known to be.

use std::collections::BTreeMap;

use crate::entry::PartitionId;

use super::assignment::Drain;
use super::effect::Effect;
use super::input::{Denied, Ground};
use super::partition::Tenure;
use super::stop::StopReason;
use super::{Time, Worker};

/// How long a refusal is borne by a worker that was let do the thing before.
const GRACE: Time = Time::from_secs(60);

/// How often the thing is asked for again meanwhile.
const AGAIN: Time = Time::from_secs(10);

/// A refusal that is not repeated for so long is over: three times it was asked for in vain.
const SILENCE: Time = Time::from_secs(30);

/// What is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Subject {
    /// What the group's member is denied.
    Member(Denied),
    /// A call of a producer.
    Producing,
}

#[derive(Debug, Clone, Copy)]
struct Borne {
    since: Time,
    last: Time,
    ask_at: Time,
}

/// The refusals that are borne.
#[derive(Debug, Default)]
pub(super) struct Refusals(BTreeMap<Subject, Borne>);

impl Refusals {
    /// Notes a refusal; gives whether it has gone on for too long.
    fn note(&mut self, subject: Subject, now: Time) -> bool {
        let borne = Borne { since: now, last: now, ask_at: now + AGAIN };
        let borne = self.0.entry(subject).or_insert(borne);
        borne.last = now;
        borne.since + GRACE <= now
    }

    /// The thing was done.
    pub(super) fn end(&mut self, subject: Subject) {
        self.0.remove(&subject);
    }

    /// What is to be asked for again now.
    fn due(&mut self, now: Time) -> Vec<Denied> {
        self.0.retain(|_, borne| borne.last + SILENCE > now);
        let mut due = Vec::new();
        for (subject, borne) in &mut self.0 {
            if borne.ask_at <= now {
                borne.ask_at = now + AGAIN;
                due.extend(match subject {
                    Subject::Member(denied) => Some(*denied),
                    // It is tried again by itself.
                    Subject::Producing => None,
                });
            }
        }
        due
    }

    fn next(&self) -> Option<Time> {
        self.0.values().map(|borne| borne.ask_at.min(borne.last + SILENCE)).min()
    }
}

impl Worker {
    pub(super) fn on_denied(&mut self, denied: Denied, ground: Ground, message: String) {
        // Who is leaving needs neither.
        if self.drain != Drain::No {
            return;
        }
        let was_let = match denied {
            Denied::Membership => self.epochs > 0,
            Denied::Reading(id) => {
                let owned = |tenure| match tenure {
                    Tenure::Recovering(_) | Tenure::Owned => true,
                    Tenure::Leaving { .. } | Tenure::Abandoned => false,
                };
                if !self.partitions.get(&id).is_some_and(|partition| owned(partition.tenure)) {
                    return;
                }
                self.has_read
            }
        };
        if !self.bears(Subject::Member(denied), was_let) {
            self.stop(Err(StopReason::Denied { ground, message }));
        }
    }

    /// Whether a refusal is borne for now.
    pub(super) fn bears(&mut self, subject: Subject, was_let: bool) -> bool {
        was_let && !self.refusals.note(subject, self.now)
    }

    /// A partition was read, whatever came.
    pub(super) fn note_read(&mut self, id: PartitionId) {
        self.has_read = true;
        self.refusals.end(Subject::Member(Denied::Reading(id)));
    }

    pub(super) fn advance_refusals(&mut self) {
        for denied in self.refusals.due(self.now) {
            self.effects.push_back(Effect::AskAgain(denied));
        }
    }

    pub(super) fn refusals_due(&self) -> Option<Time> {
        self.refusals.next()
    }
}
