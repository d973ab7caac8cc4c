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

/// The offset at one end of the log of each partition of `list`, in its order; negative where it
/// was not told.
///
/// A time of -2 or -1 asks `ListOffsets` for the ends. `rd_kafka_ListOffsets` would ask the same,
/// but while its broker is away it connects without a pause, by two threads (measured with 2.12.1:
/// 18 s of processor time in 20 s).
pub(in super::super::super) fn log_ends(
    client: &NativeClient,
    mut list: TopicPartitionList,
    end: LogEnd,
    timeout: Duration,
) -> Result<Vec<i64>, Failure> {
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
        check(rd::rd_kafka_offsets_for_times(client.ptr(), list.ptr(), millis(timeout)))?;
        read_each(list.ptr(), |element| element.offset)
    }
}
