//! The group's stable commits, partition by partition.
//!
//! `rd_kafka_committed` waits for pending offsets, and one of them holds all others up. So what is
//! not answered in a part of the time is asked by halves. `rd_kafka_ListConsumerGroupOffsets` would
//! tell each partition's state at once, but it may end the process: if it times out while its
//! coordinator is looked for, the answer that comes later fails an assertion
//! (`rd_kafka_enq_once_del_source_return`, 2.12.1; seen whenever the coordinator restarted).

use std::time::{Duration, Instant};

use countersign_statemachine::Disposition;
use rdkafka::client::NativeClient;
use rdkafka::error::RDKafkaErrorCode as Code;

use super::classify::{Failure, Unflagged, classify};
use super::lists::plain;
use super::raw;
use crate::kafka::{Committed, Each, ErrorKind, KafkaError, TopicPartition};

type Told = Result<Option<Committed>, KafkaError>;

const CALL: &str = "committed";

/// In how many parts the time is used.
const PARTS: u32 = 5;

pub(super) fn committed((offset, metadata): (i64, Vec<u8>)) -> Option<Committed> {
    let metadata = String::from_utf8_lossy(&metadata).into_owned();
    u64::try_from(offset).ok().map(|offset| Committed { offset, metadata })
}

pub(super) fn of_partition(
    call: &'static str,
    partition: &TopicPartition,
    failure: &Failure,
) -> KafkaError {
    let message = format!("{partition}: {}", failure.message);
    classify(call, Failure::of(failure.code, message), Unflagged::Retriable)
}

/// The stable commits, in the order asked. One that is not told although the coordinator answers is
/// pending, or a neighbour of it is.
pub(super) fn stable(
    client: &NativeClient,
    partitions: &[TopicPartition],
    timeout: Duration,
) -> Each<Option<Committed>> {
    let Some(first) = partitions.first() else { return Ok(Vec::new()) };
    let (deadline, part) = (Instant::now() + timeout, timeout / PARTS);
    let mut asked = Asked { client, deadline, part, told: Vec::new(), late: None };
    asked.ask(partitions)?;
    let Some(late) = asked.late.take() else { return Ok(asked.all()) };
    // Nobody commits a partition that cannot exist: it is told exactly if the coordinator answers.
    let nowhere = TopicPartition::new(first.topic.clone(), i32::MAX.unsigned_abs());
    let answers = asked.told.iter().any(Option::is_some)
        || raw::committed(client, &plain(CALL, &[nowhere])?, part).is_ok();
    if answers { Ok(asked.all()) } else { Err(classify(CALL, late, Unflagged::Retriable)) }
}

struct Asked<'a> {
    client: &'a NativeClient,
    deadline: Instant,
    part: Duration,
    /// Of the first partitions in order; `None` of one that was not told in time.
    told: Vec<Option<Told>>,
    /// Why something was not told in time.
    late: Option<Failure>,
}

impl Asked<'_> {
    fn ask(&mut self, partitions: &[TopicPartition]) -> Result<(), KafkaError> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        let list = plain(CALL, partitions)?;
        match raw::committed(self.client, &list, left.min(self.part)) {
            Ok(told) => {
                let each = partitions.iter().zip(told).map(|(partition, told)| {
                    let told = told.map(committed);
                    Some(told.map_err(|failure| of_partition(CALL, partition, &failure)))
                });
                self.told.extend(each);
            }
            Err(failure) if failure.code != Code::OperationTimedOut => {
                return Err(classify(CALL, failure, Unflagged::Retriable));
            }
            Err(_) if partitions.len() > 1 && Instant::now() < self.deadline => {
                let (some, others) = partitions.split_at(partitions.len() / 2);
                self.ask(some)?;
                self.ask(others)?;
            }
            Err(failure) => {
                self.told.extend(partitions.iter().map(|_| None));
                self.late = Some(failure);
            }
        }
        Ok(())
    }

    fn all(self) -> Vec<Told> {
        let pending = || {
            let message = "an open transaction may still change it";
            Err(KafkaError::new(CALL, ErrorKind::Pending, Disposition::Retriable, message))
        };
        self.told.into_iter().map(|told| told.unwrap_or_else(pending)).collect()
    }
}
