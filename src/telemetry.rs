//! What is logged, in one place: every field has one name.

use std::collections::BTreeMap;

use countersign_statemachine::worker::{Cause, Notice, Renewal};
use countersign_statemachine::{Author, PartitionId, Span};

use crate::driver::Identified;

/// Logs what an operator should know.
pub(crate) fn notice(notice: &Notice, author: &Author, known: &BTreeMap<PartitionId, Identified>) {
    let instance = author.instance.as_str();
    let name = |id: &PartitionId| {
        known.get(id).map_or_else(|| format!("partition {}", id.0), |k| k.partition.to_string())
    };
    match notice {
        Notice::Recovered { partition, offset, found_done, again } => {
            let partition = name(partition);
            tracing::info!(instance, partition, offset, found_done, again, "partition taken up");
        }
        Notice::OutsideReset { partition, offset } => tracing::warn!(
            instance,
            partition = name(partition),
            offset,
            "the committed offset was set by another tool; it is obeyed"
        ),
        Notice::Rewound { partition, span } => tracing::warn!(
            instance,
            partition = name(partition),
            offsets = %span,
            "the committed offset is below confirmed messages; they are handled again"
        ),
        Notice::TakenOver { partition, offset, takeovers } => {
            taken_over(instance, &name(partition), *offset, *takeovers);
        }
        Notice::CarefulBegun { partition, span } => {
            careful(instance, &name(partition), Some(*span));
        }
        Notice::CarefulEnded { partition, offset: _ } => careful(instance, &name(partition), None),
        Notice::Tried { partition, offset, delivery, most } => {
            tried(instance, &name(partition), *offset, (*delivery, *most));
        }
        Notice::InDoubt { number, message } => tracing::warn!(
            instance,
            transaction = number,
            error = %message,
            "the reply to a commit was lost; Kafka is asked what became of it"
        ),
        Notice::Decided { number, committed } => {
            tracing::info!(instance, transaction = number, committed, "the doubt is settled");
        }
        Notice::Aborted { number, message } => tracing::warn!(
            instance,
            transaction = number,
            error = %message,
            "transaction aborted; its results are sent again"
        ),
        Notice::Retry { partition, offset, attempt, wait_ms, message } => {
            failed(instance, &name(partition), (*offset, *attempt, *wait_ms), message);
        }
        Notice::DeadLettered { partition, offset, attempts, cause, message } => {
            given_up(instance, &name(partition), (*offset, *attempts), *cause, message);
        }
        Notice::Intervened { partition, offset, verb, by, reason } => {
            let (partition, verb) = (name(partition), verb.to_string());
            tracing::warn!(instance, partition, offset, verb, by, reason, "an operator's order");
        }
        Notice::BreakerOpened { message } => {
            let told = "too many messages fail; single ones are tried until one succeeds";
            tracing::error!(instance, error = %message, "{told}");
        }
        Notice::BreakerClosed => {
            tracing::info!(instance, "a message succeeded; everything is handled again");
        }
        Notice::Renewing { slot, why } => renewing(instance, *slot, *why),
    }
}

fn failed(instance: &str, partition: &str, of: (u64, u32, u64), error: &str) {
    let (offset, attempt, wait_ms) = of;
    let told = "message failed and is tried again";
    tracing::warn!(instance, partition, offset, attempt, wait_ms, %error, "{told}");
}

fn given_up(instance: &str, partition: &str, of: (u64, u32), cause: Cause, error: &str) {
    let (offset, attempts) = of;
    let cause = match cause {
        Cause::AttemptsUsedUp => "attempts used up",
        Cause::BudgetUsedUp => "retry budget used up",
        Cause::Rejected => "rejected",
        Cause::PoisonPill => "poison pill",
        Cause::Operator => "ordered by an operator",
    };
    let told = "message given up; its dead letter goes out with the transaction";
    tracing::warn!(instance, partition, offset, attempts, cause, %error, "{told}");
}

fn taken_over(instance: &str, partition: &str, offset: u64, takeovers: u32) {
    let told = "the last owner ended without letting the partition go";
    tracing::warn!(instance, partition, offset, takeovers, "{told}");
}

fn careful(instance: &str, partition: &str, span: Option<Span>) {
    if let Some(offsets) = span {
        let told = "a message may have ended the last owners; these are handled one at a time";
        tracing::warn!(instance, partition, %offsets, "{told}");
    } else {
        tracing::info!(instance, partition, "messages are handled beside each other again");
    }
}

/// Most of those that are tried are not to blame.
fn tried(instance: &str, partition: &str, offset: u64, (delivery, most): (u32, u32)) {
    if delivery > 1 {
        let told = "this message ended the process before; nothing else is handled beside it";
        tracing::warn!(instance, partition, offset, delivery, most, "{told}");
    } else {
        let told = "message announced; nothing else is handled beside it";
        tracing::debug!(instance, partition, offset, delivery, most, "{told}");
    }
}

fn renewing(instance: &str, slot: u32, why: Renewal) {
    let why = match why {
        Renewal::Start => "start",
        Renewal::Suspicious => "a call was slow, so that a copy of it may arrive late",
        Renewal::Outdated => "the largest batch that the topics take has changed",
        Renewal::Failed => "a call failed",
        Renewal::InDoubt => "the transaction is in doubt",
    };
    tracing::info!(instance, slot, why, "producer renewed");
}
