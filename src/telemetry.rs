//! What is logged, in one place: every field has one name.

use std::collections::BTreeMap;

use countersign_statemachine::worker::{Cause, Notice, Renewal};
use countersign_statemachine::{Author, PartitionId};

use crate::driver::Identified;

/// Logs what an operator should know.
pub(crate) fn notice(notice: &Notice, author: &Author, known: &BTreeMap<PartitionId, Identified>) {
    let instance = author.instance.as_str();
    let name = |id: &PartitionId| {
        known.get(id).map_or_else(|| format!("partition {}", id.0), |k| k.partition.to_string())
    };
    match notice {
        Notice::Recovered { partition, offset, found_done, again } => tracing::info!(
            instance,
            partition = name(partition),
            offset,
            found_done,
            again,
            "partition taken up"
        ),
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
        Notice::Retry { partition, offset, attempt, wait_ms, message } => tracing::warn!(
            instance,
            partition = name(partition),
            offset,
            attempt,
            wait_ms,
            error = %message,
            "message failed and is tried again"
        ),
        Notice::DeadLettered { partition, offset, attempts, cause, message } => {
            let (partition, cause, error) = (name(partition), cause_name(*cause), message);
            let told = "message given up; its dead letter goes out with the transaction";
            tracing::warn!(instance, partition, offset, attempts, cause, %error, "{told}");
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

fn cause_name(cause: Cause) -> &'static str {
    match cause {
        Cause::AttemptsUsedUp => "attempts used up",
        Cause::Rejected => "rejected",
        Cause::Operator => "ordered by an operator",
    }
}

fn renewing(instance: &str, slot: u32, why: Renewal) {
    let why = match why {
        Renewal::Start => "start",
        Renewal::Suspicious => "a call was slow, so that a copy of it may arrive late",
        Renewal::Failed => "a call failed",
        Renewal::InDoubt => "the transaction is in doubt",
    };
    tracing::info!(instance, slot, why, "producer renewed");
}
