//! What a producer's events tell: delivery reports, and faults of the client.

use rdkafka::error::RDKafkaErrorCode as Code;

use super::classify::{Failure, Unflagged, classify};
use super::events::common;
use super::raw::{Event, EventKind, Message};
use super::topics::Topics;
use crate::kafka::KafkaError;

/// What the events have told.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// The first failed delivery of this transaction.
    pub(super) failed: Option<KafkaError>,
    /// Whether it was given up because of something else.
    pub(super) is_purged: bool,
    /// The last fault of the client, to be told with a timeout.
    pub(super) fault: Option<KafkaError>,
}

impl Seen {
    pub(super) fn read(&mut self, mut event: Event, topics: &mut Topics) {
        if event.kind() != EventKind::Delivery {
            self.fault = common("producer", &event).or_else(|| self.fault.take());
            return;
        }
        let (records, has_failed) = (event.message_count(), event.has_failed());
        if let Some(first) = event.next_message() {
            topics.reported(&first, records);
            self.read_report(&first);
        }
        while has_failed && let Some(report) = event.next_message() {
            self.read_report(&report);
        }
    }

    fn read_report(&mut self, report: &Message<'_>) {
        if self.failed.is_none()
            && let Some(failure) = report.failure()
        {
            self.is_purged = matches!(failure.code, Code::PurgeQueue | Code::PurgeInflight);
            self.failed = Some(undelivered(report, &failure));
        }
    }
}

fn undelivered(report: &Message<'_>, failure: &Failure) -> KafkaError {
    let topic = String::from_utf8_lossy(report.topic());
    let message = format!("a record for {topic}/{}: {}", report.partition(), failure.message);
    classify("delivery", Failure::of(failure.code, message), Unflagged::Abortable)
}
