//! Where logs begin and end.

use std::time::Duration;

use rdkafka::bindings as rd;
use rdkafka::client::NativeClient;
use rdkafka::error::RDKafkaErrorCode as Code;
use rdkafka::{Offset, TopicPartitionList};

use super::super::event::read_each;
use super::super::{Failure, check, millis};

/// One end of a log, as the client's isolation level shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super::super) enum LogEnd {
    /// The first offset that still exists.
    First,
    /// Behind the last record that is shown.
    Last,
}

/// What was told of ends of logs.
#[derive(Debug)]
pub(in super::super::super) struct Ends {
    /// Why nothing was told of the partitions that have no error of their own.
    pub(in super::super::super) whole: Result<(), Failure>,
    /// For each partition the offset, negative where it was not told, or its own error.
    pub(in super::super::super) each: Vec<Result<i64, Failure>>,
}

/// The offset at one end of the log of each partition of `list`, in its order.
///
/// A time of -2 or -1 asks `ListOffsets` for the ends. `rd_kafka_ListOffsets` would ask the same,
/// and tell each partition's error, but while its broker is away it connects without a pause, by
/// two threads (measured with 2.12.1: 18 s of processor time in 20 s).
///
/// Here a partition without a leader has an error of its own (`LEADER_NOT_AVAILABLE`, by
/// `rd_kafka_topic_partition_list_get_leaders`), and all others are asked for. What any of their
/// leaders refuses, or does not answer in time, fails the whole.
pub(in super::super::super) fn log_ends(
    client: &NativeClient,
    mut list: TopicPartitionList,
    end: LogEnd,
    timeout: Duration,
) -> Result<Ends, Failure> {
    let time = match end {
        LogEnd::First => Offset::Beginning,
        LogEnd::Last => Offset::End,
    };
    list.set_all_offsets(time).map_err(|error| {
        Failure::of(error.rdkafka_error_code().unwrap_or(Code::Fail), error.to_string())
    })?;
    // SAFETY: client and list are alive; the call writes into the list's elements and is over
    // before they are read.
    unsafe {
        let code = rd::rd_kafka_offsets_for_times(client.ptr(), list.ptr(), millis(timeout));
        let each = read_each(list.ptr(), |element| element.offset);
        Ok(Ends { whole: check(code), each })
    }
}
