//! What is noted of each effect of a process, and its end before the chosen one.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use countersign::simulation::Probe;
use countersign::statemachine::PartitionId;
use countersign::statemachine::worker::{Cause, Effect, GivenUp, Notice, Renewal};

use crate::model::ModelProcess;

use super::instance::Last;
use super::journal::Journal;

/// Notes every effect, and ends the process before the chosen one.
pub(super) fn probe(
    name: &str,
    journal: &Journal,
    process: &ModelProcess,
    doomed: Option<Last>,
    assigned: &Arc<Mutex<BTreeSet<PartitionId>>>,
) -> Probe {
    let (name, journal, process) = (name.to_owned(), journal.clone(), process.clone());
    let assigned = Arc::clone(assigned);
    let effects = AtomicU64::new(0);
    Arc::new(move |worker, effect| {
        let number = effects.fetch_add(1, Ordering::Relaxed) + 1;
        let is_last = match doomed {
            Some(Last::Nth(last)) => number >= last,
            Some(Last::Unassign) => matches!(effect, Effect::Unassign(_)),
            None => false,
        };
        if is_last || process.is_crashed() {
            if !process.is_crashed() {
                let gives_back = matches!(effect, Effect::Unassign(_));
                let kind =
                    if gives_back { "crash: while giving back" } else { "crash: before an effect" };
                journal.count(kind);
                journal.say(&name, format_args!("{worker} crash before {effect:?}"));
                process.crash();
            }
            return false;
        }
        journal.say(&name, format_args!("{worker} {effect:?}"));
        count(&journal, effect);
        let begun: Vec<_> = match effect {
            Effect::Assign(starts) => {
                starts.iter().filter(|(_, offset)| offset.is_some()).map(|(id, _)| *id).collect()
            }
            Effect::Fetch(starts) => starts.iter().map(|start| start.partition).collect(),
            _ => Vec::new(),
        };
        assigned.lock().unwrap_or_else(PoisonError::into_inner).extend(begun);
        true
    })
}

fn count(journal: &Journal, effect: &Effect) {
    let kind = match effect {
        Effect::Open { why: Renewal::Suspicious, .. } => "renewal: suspicious",
        Effect::Open { why: Renewal::Outdated, .. } => "renewal: outdated",
        Effect::Open { why: Renewal::Failed, .. } => "renewal: failed",
        Effect::Open { why: Renewal::InDoubt, .. } => "renewal: in doubt",
        Effect::Notice(Notice::Decided { committed: true, .. }) => "in doubt: was committed",
        Effect::Notice(Notice::Decided { committed: false, .. }) => "in doubt: was not committed",
        Effect::Notice(Notice::Aborted { .. }) => "transaction: aborted",
        Effect::Notice(Notice::Rewound { .. }) => "recovery: store was ahead",
        Effect::Notice(Notice::Recovered { found_done: 1.., .. }) => "recovery: store was behind",
        Effect::Notice(Notice::Recovered { again: 1.., .. }) => "recovery: handled again",
        Effect::DeadLetter(GivenUp { cause: Cause::AttemptsUsedUp, .. }) => "message: given up",
        Effect::DeadLetter(GivenUp { cause: Cause::PoisonPill, .. }) => "message: poison pill",
        Effect::Handle { solo: true, .. } => "handler: solo",
        Effect::Handle { at_any_cost: true, .. } => "memory: none for results",
        Effect::ReadAgain { .. } => "memory: read again",
        Effect::Commit { .. } => "transaction: commit sent",
        Effect::Assign(_) => "group: assigned",
        Effect::Fetch(_) => "partition: taken up later",
        Effect::Unassign(_) => "group: unassigned",
        _ => return,
    };
    journal.count(kind);
}
