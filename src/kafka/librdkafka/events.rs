//! Events that every client has: log lines, statistics and errors.

use countersign_statemachine::Disposition;

use super::classify::{Failure, Unflagged, classify};
use super::raw::{Event, EventKind};
use crate::kafka::{ErrorKind, KafkaError, TopicPartition};

/// Deals with an event that is not about records; the answer is a fault to be told.
pub(super) fn common(call: &'static str, event: &Event) -> Option<KafkaError> {
    match event.kind() {
        EventKind::Log => {
            event.log();
            None
        }
        EventKind::Stats => {
            event.stats();
            None
        }
        EventKind::Error => Some(classify(call, event.failure(), Unflagged::Retriable)),
        EventKind::TokenRefresh => Some(KafkaError::new(
            call,
            ErrorKind::Config,
            Disposition::Permanent,
            "a SASL token is asked for; set sasl.oauthbearer.method = oidc",
        )),
        EventKind::Fetch
        | EventKind::Delivery
        | EventKind::Rebalance
        | EventKind::Answer
        | EventKind::Other => None,
    }
}

/// A batch that cannot be read ends the consumer: librdkafka goes on behind it
/// (`rd_kafka_msgset_reader_msgs_v2`), so that what follows would pass for what comes next, and the
/// batch would be lost.
pub(super) fn unreadable(failure: &Failure, partition: &TopicPartition, offset: i64) -> KafkaError {
    let message = format!("{partition}@{offset} cannot be read: {}", failure.message);
    classify(
        "poll",
        Failure { fatal: true, ..Failure::of(failure.code, message) },
        Unflagged::Fatal,
    )
}

/// Says with a timeout what went wrong meanwhile. Missing rights are what the call failed of.
pub(super) fn explain(mut error: KafkaError, fault: Option<KafkaError>) -> KafkaError {
    if let Some(fault) = fault.filter(|_| error.kind == ErrorKind::Timeout) {
        if fault.kind == ErrorKind::NotAuthorized {
            error.kind = fault.kind;
            error.disposition = fault.disposition;
        }
        error.message = format!("{}; meanwhile: {}", error.message, fault.message);
    }
    error
}
