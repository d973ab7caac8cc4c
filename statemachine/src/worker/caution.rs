//! What a partition knows of messages that may end the process.
//!
//! Whoever takes a partition up from an owner that ended without a word counts it. After two such
//! takeovers with the same committed offset a message may be to blame: those that may have been
//! under way are tried one at a time, each announced by a commit before its handler runs. A message
//! that is announced when the process ends has had a delivery that nobody lived to tell of.
//!
//! What may have been under way is few messages, because a new owner begins with few
//! (`takeover_records`) and doubles that with each commit. What ends the process before the first
//! commit is thus among the first few; if the owner got beyond them, because the position was held
//! up, the next takeover looks at twice as many.

use crate::metadata::{Author, CommitMetadata, Trial};
use crate::settings::Settings;
use crate::span::Span;
use crate::state::State;

use super::found::Found;

/// From so many on the number is not limited any more.
const MANY: u64 = 1 << 16;

/// A worker starts anew within its process less often than that.
const RENEWALS_MAX: u64 = 1 << 32;

/// From so many takeovers on a message may be to blame.
const TAKEOVERS_MOST: u32 = 2;

/// How far a trial is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Its announcement is to be committed.
    Announcing,
    /// Its announcement is committed.
    Announced,
    /// Its handler runs.
    Running,
    /// Its handler has ended, or is no longer waited for; that is to be committed.
    Ended,
}

/// A message that is being tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Trying {
    pub(crate) offset: u64,
    pub(crate) stage: Stage,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Caution {
    /// Takeovers in a row with this position, from owners that ended without a word. An owner that
    /// let the partition go in good order and left a message to the next one is none of them, and
    /// does not end the row: that message may end its owner after a while.
    pub(crate) takeovers: u32,
    /// Messages below it are tried one at a time.
    pub(crate) until: Option<u64>,
    /// Where the log ended at the takeover: what came later was not under way.
    log_end: u64,
    /// The message that was announced when the process ended, and how often.
    pub(crate) suspect: Option<(u64, u32)>,
    /// The message that is being tried.
    pub(crate) trying: Option<Trying>,
    /// How many messages may be under way at first.
    few: u64,
    /// How many messages may be under way; `None`: as many as there is room for.
    pub(crate) most: Option<u64>,
    /// Whether messages were done since the takeover, other than by trying them.
    pub(crate) advanced: bool,
    /// Whether the present takeover was counted.
    pub(crate) counted: bool,
}

impl Caution {
    /// What a new owner makes of what the last one wrote.
    pub(crate) fn of(metadata: &CommitMetadata, found: &Found, settings: &Settings) -> Self {
        let position = found.commit.as_ref().map_or(0, |commit| commit.offset);
        let died = !metadata.released && !is_of(&metadata.author, settings);
        let suspect = metadata.trial.and_then(|trial| survived(trial, died));
        let until = metadata.careful.max(suspect.map(|(offset, _)| offset + 1));
        let mut caution = Self {
            takeovers: metadata.takeovers,
            until: until.filter(|&until| until > position),
            suspect,
            log_end: found.log_end,
            few: settings.takeover_records.max(1),
            ..Self::default()
        };
        // What is not in the log yet cannot have been under way.
        if died && found.log_end > position {
            caution.counted = true;
            caution.takeovers = caution.takeovers.saturating_add(1);
            caution.most = Some(caution.few);
            let explained = metadata.trial.is_some_and(|trial| trial.announced);
            if caution.takeovers >= TAKEOVERS_MOST && !explained {
                let known = (metadata.author.instance == settings.instance).then_some(found);
                caution.widen(position, metadata, found.log_end, known);
            }
        }
        caution
    }

    /// Looks at the first few messages that are not done; at twice as many if the last owner got
    /// beyond those that it tried.
    fn widen(&mut self, position: u64, last: &CommitMetadata, end: u64, store: Option<&Found>) {
        let done = &last.completed;
        let most = match self.until {
            None => self.few,
            Some(until) if last.advanced => {
                undone_below(position, until, done).saturating_mul(2).max(self.few)
            }
            Some(_) => return,
        };
        let mut until = nth_undone(position, most, done).min(end);
        // The store of the last owner names what was under way.
        if self.until.is_none()
            && let Some(last) = store.and_then(|found| last_under_way(found, position))
        {
            until = until.min(last);
        }
        self.until = self.until.max(Some(until)).filter(|&until| until > position);
    }

    /// There is no message in a gap of the log. It is messages that are counted: there may be
    /// more offsets of aborted transactions behind the position than are looked at.
    pub(crate) fn pass_gap(&mut self, gap: Span) {
        if let Some(until) = &mut self.until
            && gap.first < *until
        {
            *until = until.saturating_add(gap.len()).min(self.log_end).max(*until);
        }
    }

    /// What a commit tells.
    pub(crate) fn told(&self, commit: Step, is_done: impl Fn(u64) -> bool) -> Told {
        let offset = commit.offset;
        let open = |at: u64| at >= offset && !is_done(at);
        // Only what is open can be told: positions in the metadata do not lie below its offset.
        let announced = self.trying.filter(|trying| trying.is_announced() && open(trying.offset));
        let trial = match announced {
            Some(Trying { offset, .. }) => {
                Some(Trial { offset, deliveries: self.deaths(offset) + 1, announced: true })
            }
            None => self.suspect.filter(|(at, _)| open(*at)).map(|(offset, deliveries)| Trial {
                offset,
                deliveries,
                announced: false,
            }),
        };
        Told {
            takeovers: if commit.clears { 0 } else { self.takeovers },
            advanced: self.advanced || commit.advances,
            careful: self.until.filter(|&until| until > offset),
            trial,
        }
    }

    /// A commit is there.
    pub(crate) fn committed(&mut self, commit: Step, told: &Told) {
        self.takeovers = told.takeovers;
        self.advanced = told.advanced;
        if commit.advances {
            let double = |most: u64| most.saturating_mul(2);
            self.most = self.most.map(double).filter(|&most| most < MANY);
        }
        if self.until.is_some_and(|until| until <= commit.offset) {
            self.until = None;
            self.most = Some(self.few);
        }
        let announced = told.trial.filter(|trial| trial.announced).map(|trial| trial.offset);
        if let Some(trying) = &mut self.trying {
            match trying.stage {
                Stage::Announcing if announced == Some(trying.offset) => {
                    trying.stage = Stage::Announced;
                }
                Stage::Ended if announced.is_none() => self.trying = None,
                Stage::Announcing | Stage::Announced | Stage::Running | Stage::Ended => {}
            }
        }
    }

    /// A commit with an announcement came to nothing.
    pub(crate) fn aborted(&mut self) {
        let announcing = |trying: &Trying| trying.stage == Stage::Announcing;
        self.trying = self.trying.filter(|trying| !announcing(trying));
    }

    /// How often a message was announced when the process ended.
    pub(crate) fn deaths(&self, offset: u64) -> u32 {
        self.suspect.filter(|(at, _)| *at == offset).map_or(0, |(_, deaths)| deaths)
    }

    pub(crate) fn stage(&self) -> Option<Stage> {
        self.trying.map(|trying| trying.stage)
    }

    /// Whether the message that is being tried needs a commit for its trial to go on.
    pub(crate) fn waits_for_commit(&self) -> bool {
        match self.stage() {
            Some(Stage::Announcing | Stage::Ended) => true,
            Some(Stage::Announced | Stage::Running) | None => false,
        }
    }

    /// The trial is over; whether there was one.
    pub(crate) fn end(&mut self) -> bool {
        self.trying.as_mut().is_some_and(|trying| {
            trying.stage = Stage::Ended;
            true
        })
    }
}

impl Trying {
    fn is_announced(self) -> bool {
        match self.stage {
            Stage::Announcing | Stage::Announced | Stage::Running => true,
            Stage::Ended => false,
        }
    }
}

/// What a commit does to a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) offset: u64,
    /// Whether no takeover counts any more: that is not the offset before, or the partition is let
    /// go and all that was begun has ended.
    pub(crate) clears: bool,
    /// Whether messages are done by it, other than by trying them.
    pub(crate) advances: bool,
}

/// What a commit tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) takeovers: u32,
    pub(crate) advanced: bool,
    pub(crate) careful: Option<u64>,
    pub(crate) trial: Option<Trial>,
}

/// Whether a commit is this process's own: whoever finds one has not died since. The worker may be
/// another one, or have started anew.
pub(crate) fn is_of(author: &Author, settings: &Settings) -> bool {
    author.incarnation.wrapping_sub(settings.process) < RENEWALS_MAX
}

/// The message that was tried last, with the deliveries that nobody lived to tell of.
fn survived(trial: Trial, died: bool) -> Option<(u64, u32)> {
    let alive = u32::from(trial.announced && !died);
    let deaths = trial.deliveries.saturating_sub(alive);
    (deaths > 0).then_some((trial.offset, deaths))
}

/// How many offsets from `position` up to `until` are not done.
fn undone_below(position: u64, until: u64, completed: &[Span]) -> u64 {
    let all = Span::new(position, until);
    let done = completed.iter().filter_map(|span| span.intersect(all?));
    all.map_or(0, Span::len) - done.map(Span::len).sum::<u64>()
}

/// The end of the first `most` offsets from `position` on that are not done.
fn nth_undone(position: u64, most: u64, completed: &[Span]) -> u64 {
    let mut end = position.saturating_add(most);
    for span in completed {
        if span.first >= end {
            break;
        }
        end = end.saturating_add(span.len());
    }
    end
}

/// The end of what the store holds as under way.
fn last_under_way(found: &Found, position: u64) -> Option<u64> {
    let under_way = |state: State| match state {
        State::Processing | State::InDoubt => true,
        State::Pending | State::Confirmed(_) | State::RolledBack(_) => false,
    };
    let runs = found.runs.iter().filter(|run| under_way(run.history.state));
    runs.map(|run| run.span.end).max().filter(|&end| end > position)
}

#[cfg(test)]
#[path = "caution_test.rs"]
mod tests;
