//! What a producer's events tell: delivery reports, and faults of the client.

use rdkafka::error::RDKafkaErrorCode as Code;

use super::classify::{Failure, Unflagged, classify};
use super::events::common;
use super::raw::{Event, EventKind, Message};
use super::topics::Topics;
use crate::kafka::{ErrorKind, KafkaError, Refused};

/// What the events have told.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// The first failed delivery of this transaction; a refusal, if there is one.
    pub(super) failed: Option<KafkaError>,
    /// Whether it was given up because of something else.
    pub(super) is_purged: bool,
    /// Whose delivery was refused.
    pub(super) refused: Refused,
    /// The last fault of the client, to be told with a timeout.
    pub(super) fault: Option<KafkaError>,
}

/// A report of a record that was not delivered.
struct Undelivered {
    number: u64,
    /// Whether it was refused only because another record of its batch was.
    is_bystander: bool,
    /// Whether it was given up because of something else.
    is_purged: bool,
    /// Equal for all that the broker says the same of.
    words_place: usize,
    error: KafkaError,
}

impl Seen {
    pub(super) fn read(&mut self, mut event: Event, topics: &mut Topics) {
        if event.kind() != EventKind::Delivery {
            self.fault = common("producer", &event).or_else(|| self.fault.take());
            return;
        }
        let (records, has_failed) = (event.message_count(), event.has_failed());
        let mut failed = Vec::new();
        if let Some(first) = event.next_message() {
            topics.reported(&first, records);
            failed.extend(undelivered(&first));
        }
        while has_failed && let Some(report) = event.next_message() {
            failed.extend(undelivered(&report));
        }
        if !failed.is_empty() {
            self.read_failed(&mut failed);
        }
    }

    /// The reports of one event are of one batch. If the answer named the records that are to blame
    /// (`record_errors`), librdkafka tells so of them, and of the others that they are bystanders
    /// (`rd_kafka_msgbatch_handle_Produce_result_record_errors`).
    fn read_failed(&mut self, batch: &mut [Undelivered]) {
        mark_bystanders(batch);
        let culprits = || batch.iter().filter(|report| !report.is_bystander);
        let refused = || culprits().filter(|report| report.error.is_refusal());
        let is_told = culprits().count() < batch.len() || batch.len() == 1;
        let numbers = refused().map(|report| report.number);
        if is_told || refused().all(|report| is_of_its_place(&report.error)) {
            self.refused.named.extend(numbers);
        } else {
            self.refused.among.extend(numbers);
        }
        let first = refused().chain(culprits()).chain(batch.iter()).next();
        let worse = self.failed.as_ref().is_none_or(|failed| !failed.is_refusal());
        if let Some(first) = first.filter(|_| worse)
            && (self.failed.is_none() || first.error.is_refusal())
        {
            self.is_purged = first.is_purged;
            self.failed = Some(first.error.clone());
        }
    }
}

/// If the broker names a single record, librdkafka 2.12.1 overwrites what it has told of the others
/// (`rd_kafka_interceptors_on_acknowledgement_queue`), and only the place of the words tells the
/// one from the others. Of two records it cannot be told which is which.
fn mark_bystanders(batch: &mut [Undelivered]) {
    let [first, second, third, ..] = batch else { return };
    let (first, second, third) = (first.words_place, second.words_place, third.words_place);
    let usual = if first == second || first == third { first } else { second };
    if batch.iter().filter(|report| report.words_place != usual).count() == 1 {
        for report in batch {
            report.is_bystander |= report.words_place == usual;
        }
    }
}

/// Whether it is where a record goes that is wrong: then each record is to blame that goes there.
fn is_of_its_place(error: &KafkaError) -> bool {
    matches!(error.kind, ErrorKind::UnknownTopic | ErrorKind::UnknownPartition)
}

fn undelivered(report: &Message<'_>) -> Option<Undelivered> {
    let failure = report.failure()?;
    let topic = String::from_utf8_lossy(report.topic());
    let message = format!("a record for {topic}/{}: {}", report.partition(), failure.message);
    Some(Undelivered {
        number: report.number() as u64,
        is_bystander: failure.code == Code::InvalidDifferentRecord,
        is_purged: matches!(failure.code, Code::PurgeQueue | Code::PurgeInflight),
        words_place: report.words_place(),
        error: classify("delivery", Failure::of(failure.code, message), Unflagged::Abortable),
    })
}
