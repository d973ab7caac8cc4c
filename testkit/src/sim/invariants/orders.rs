//! What people were told is done is what became of the message, and what was refused was not done.

use countersign::dead_letter::LetterDisposition;
use countersign::statemachine::Verb;

use crate::sim::evidence::{Evidence, Seen};
use crate::sim::operator::{Fate, Ordered};

pub(super) fn check(evidence: &Evidence) -> Result<(), String> {
    for order in evidence.orders.iter().filter(|order| order.fate == Fate::Done) {
        is_done(evidence, order)?;
    }
    for letter in evidence.outputs.iter().filter(|seen| is_ordered(seen)) {
        let Some(origin) = &letter.provenance else { continue };
        let fate = evidence.fate(&origin.partition, origin.offset, Verb::DeadLetter);
        if matches!(fate, None | Some(Fate::Refused)) {
            let at = format!("{}@{}", origin.partition, origin.offset);
            return Err(format!("{at} is a dead letter, and the order for it {fate:?}"));
        }
    }
    Ok(())
}

fn is_done(evidence: &Evidence, order: &Ordered) -> Result<(), String> {
    let Ordered { partition, offset, verb, .. } = order;
    let inputs = evidence.inputs.get(partition).map(Vec::as_slice).unwrap_or_default();
    if !inputs.iter().any(|input| input.offset == *offset) {
        return Err(format!("{verb} of {partition}@{offset} is done, and there is no message"));
    }
    let letter = evidence.letter(partition, *offset);
    let holds = match verb {
        // Any output of it would come from nothing; see no_duplicate.
        Verb::Skip => letter.is_none(),
        Verb::DeadLetter => letter.is_some_and(is_ordered),
        Verb::Retry => true,
    };
    if holds { Ok(()) } else { Err(format!("{verb} of {partition}@{offset} is done: {letter:?}")) }
}

fn is_ordered(seen: &Seen) -> bool {
    seen.disposition == Some(LetterDisposition::Operator)
}
