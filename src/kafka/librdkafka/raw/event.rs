//! Events and the records in them.

use std::ffi::{c_char, c_int};
use std::iter;
use std::marker::PhantomData;
use std::ptr::{self, NonNull};

use rdkafka::bindings as rd;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::RDKafkaErrorCode as Code;

use super::{bytes, check, text};
use crate::kafka::TopicPartition;
use crate::kafka::librdkafka::classify::Failure;
use crate::kafka::librdkafka::context;

/// Something that happened in a client.
#[derive(Debug)]
pub(in super::super) struct Event(pub(super) NonNull<rd::rd_kafka_event_t>);

// SAFETY: an event belongs to nobody but its holder once it was taken from its queue.
unsafe impl Send for Event {}

/// What kind of event it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum EventKind {
    /// A record.
    Fetch,
    /// Delivery reports.
    Delivery,
    /// An error, or the end of a partition.
    Error,
    /// Partitions are given or taken.
    Rebalance,
    /// A line for the log.
    Log,
    /// Statistics.
    Stats,
    /// A SASL token is asked for.
    TokenRefresh,
    /// The answer to a question of the admin API.
    Answer,
    /// One that was not asked for.
    Other,
}

/// A change of the assignment that the application must answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) enum Rebalance {
    /// Partitions are given.
    Assign(Vec<TopicPartition>),
    /// Partitions are taken.
    Revoke(Vec<TopicPartition>),
}

impl Event {
    pub(super) fn new(event: NonNull<rd::rd_kafka_event_t>) -> Self {
        Self(event)
    }

    /// What kind of event it is.
    pub(in super::super) fn kind(&self) -> EventKind {
        // SAFETY: the event is alive.
        match unsafe { rd::rd_kafka_event_type(self.0.as_ptr()) } {
            rd::RD_KAFKA_EVENT_FETCH => EventKind::Fetch,
            rd::RD_KAFKA_EVENT_DR => EventKind::Delivery,
            rd::RD_KAFKA_EVENT_ERROR => EventKind::Error,
            rd::RD_KAFKA_EVENT_REBALANCE => EventKind::Rebalance,
            rd::RD_KAFKA_EVENT_LOG => EventKind::Log,
            rd::RD_KAFKA_EVENT_STATS => EventKind::Stats,
            rd::RD_KAFKA_EVENT_OAUTHBEARER_TOKEN_REFRESH => EventKind::TokenRefresh,
            rd::RD_KAFKA_EVENT_DESCRIBETOPICS_RESULT
            | rd::RD_KAFKA_EVENT_DESCRIBECONFIGS_RESULT
            | rd::RD_KAFKA_EVENT_DESCRIBECONSUMERGROUPS_RESULT
            | rd::RD_KAFKA_EVENT_LISTCONSUMERGROUPOFFSETS_RESULT => EventKind::Answer,
            _ => EventKind::Other,
        }
    }

    /// Takes the next record, or the next delivery report.
    pub(in super::super) fn next_message(&mut self) -> Option<Message<'_>> {
        // SAFETY: the event is alive; its messages live until it is destroyed, which the borrow
        // of `self` forbids meanwhile.
        let message = unsafe { rd::rd_kafka_event_message_next(self.0.as_ptr()) };
        NonNull::new(message.cast_mut()).map(Message::new)
    }

    /// Whether delivery reports are about records that were not delivered; all of an event are, or
    /// none is.
    pub(in super::super) fn has_failed(&self) -> bool {
        // SAFETY: the event is alive.
        Code::from(unsafe { rd::rd_kafka_event_error(self.0.as_ptr()) }) != Code::NoError
    }

    /// How many delivery reports were not taken.
    pub(in super::super) fn message_count(&self) -> usize {
        // SAFETY: the event is alive.
        unsafe { rd::rd_kafka_event_message_count(self.0.as_ptr()) }
    }

    /// The error of the event.
    pub(in super::super) fn failure(&self) -> Failure {
        // SAFETY: the event is alive; its words are copied. `is_fatal` reads a field that only
        // error events have, and it is asked only of those.
        unsafe {
            let event = self.0.as_ptr();
            let code: Code = rd::rd_kafka_event_error(event).into();
            let fatal =
                self.kind() == EventKind::Error && rd::rd_kafka_event_error_is_fatal(event) != 0;
            let message = text(rd::rd_kafka_event_error_string(event));
            Failure { fatal, ..Failure::of(code, message) }
        }
    }

    /// The partition that an error event is about, and where.
    pub(in super::super) fn partition(&self) -> Option<(TopicPartition, i64)> {
        // SAFETY: the event is alive; the partition that is returned is a copy, which is ours.
        unsafe {
            let element = rd::rd_kafka_event_topic_partition(self.0.as_ptr());
            let read = element.as_ref().map(|element| (partition_of(element), element.offset));
            if !element.is_null() {
                rd::rd_kafka_topic_partition_destroy(element);
            }
            read
        }
    }

    /// The change of the assignment.
    pub(in super::super) fn rebalance(&self) -> Option<Rebalance> {
        // SAFETY: the event is alive and owns the list, which is only read.
        let (code, list) = unsafe {
            let event = self.0.as_ptr();
            (Code::from(rd::rd_kafka_event_error(event)), partitions_of(event))
        };
        match code {
            Code::AssignPartitions => Some(Rebalance::Assign(list)),
            Code::RevokePartitions => Some(Rebalance::Revoke(list)),
            _ => None,
        }
    }

    /// Passes a line for the log on.
    pub(in super::super) fn log(&self) {
        let mut facility: *const c_char = ptr::null();
        let mut words: *const c_char = ptr::null();
        let mut level: c_int = 0;
        // SAFETY: the event is alive and owns the strings, which are copied.
        let (facility, words) = unsafe {
            rd::rd_kafka_event_log(
                self.0.as_ptr(),
                &raw mut facility,
                &raw mut words,
                &raw mut level,
            );
            (text(facility), text(words))
        };
        context::log(level_of(level), facility.trim(), words.trim());
    }

    /// Passes statistics on.
    pub(in super::super) fn stats(&self) {
        // SAFETY: the event is alive and owns the string, which is copied; it has one only if it
        // is one of statistics.
        if self.kind() == EventKind::Stats {
            context::stats(&unsafe { text(rd::rd_kafka_event_stats(self.0.as_ptr())) });
        }
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: the event is ours and is not used again.
        unsafe { rd::rd_kafka_event_destroy(self.0.as_ptr()) }
    }
}

fn level_of(level: c_int) -> RDKafkaLogLevel {
    match level {
        ..=0 => RDKafkaLogLevel::Emerg,
        1 => RDKafkaLogLevel::Alert,
        2 => RDKafkaLogLevel::Critical,
        3 => RDKafkaLogLevel::Error,
        4 => RDKafkaLogLevel::Warning,
        5 => RDKafkaLogLevel::Notice,
        6 => RDKafkaLogLevel::Info,
        7.. => RDKafkaLogLevel::Debug,
    }
}

/// # Safety
/// `event` is alive.
unsafe fn partitions_of(event: *mut rd::rd_kafka_event_t) -> Vec<TopicPartition> {
    // SAFETY: the caller's promise; the list has `cnt` elements.
    unsafe {
        let Some(list) = rd::rd_kafka_event_topic_partition_list(event).as_ref() else {
            return Vec::new();
        };
        elements(list).iter().map(|element| partition_of(element)).collect()
    }
}

/// # Safety
/// `list` is a list of librdkafka's.
pub(super) unsafe fn elements(
    list: &rd::rd_kafka_topic_partition_list_t,
) -> &[rd::rd_kafka_topic_partition_t] {
    let len = usize::try_from(list.cnt).unwrap_or(0);
    if list.elems.is_null() {
        return &[];
    }
    // SAFETY: the list has `cnt` elements, and they live as long as it does.
    unsafe { std::slice::from_raw_parts(list.elems, len) }
}

/// Reads each element of a list by `read`, or why it has failed.
///
/// # Safety
/// `list` is null or a list of librdkafka's that is alive.
pub(super) unsafe fn read_each<T>(
    list: *const rd::rd_kafka_topic_partition_list_t,
    read: impl Fn(&rd::rd_kafka_topic_partition_t) -> T,
) -> Vec<Result<T, Failure>> {
    // SAFETY: the caller's promise.
    let elements = unsafe { list.as_ref().map_or(&[][..], |list| elements(list)) };
    elements.iter().map(|element| check(element.err).map(|()| read(element))).collect()
}

/// A committed offset and its metadata.
///
/// # Safety
/// `element` is an element of a list of librdkafka's.
pub(super) unsafe fn offset_of(element: &rd::rd_kafka_topic_partition_t) -> (i64, Vec<u8>) {
    // SAFETY: the list owns the metadata of its elements.
    let metadata = unsafe { bytes(element.metadata, element.metadata_size) };
    (element.offset, metadata.unwrap_or_default().to_vec())
}

/// # Safety
/// `element` is an element of a list of librdkafka's.
pub(super) unsafe fn partition_of(element: &rd::rd_kafka_topic_partition_t) -> TopicPartition {
    // SAFETY: an element has a topic, which ends with a zero.
    let topic = unsafe { text(element.topic) };
    TopicPartition::new(topic, u32::try_from(element.partition).unwrap_or(u32::MAX))
}

/// A record, or a delivery report.
#[derive(Debug)]
pub(in super::super) struct Message<'a> {
    raw: NonNull<rd::rd_kafka_message_t>,
    /// An event, or a list of messages.
    owner: PhantomData<&'a Event>,
}

impl<'a> Message<'a> {
    /// A message that lives for `'a`.
    pub(super) fn new(raw: NonNull<rd::rd_kafka_message_t>) -> Self {
        Self { raw, owner: PhantomData }
    }

    fn get(&self) -> &'a rd::rd_kafka_message_t {
        // SAFETY: the message lives as long as its owner, and nobody changes it.
        unsafe { self.raw.as_ref() }
    }

    /// Why it was not delivered or not read.
    pub(in super::super) fn failure(&self) -> Option<Failure> {
        match Code::from(self.get().err) {
            Code::NoError => None,
            code => Some(Failure::of(code, code.to_string())),
        }
    }

    /// The error that came in the place of a record.
    pub(in super::super) fn fault(&self) -> Option<Failure> {
        // SAFETY: the message is alive and owns the words, which are copied.
        let words = || unsafe { text(rd::rd_kafka_message_errstr(self.raw.as_ptr())) };
        self.failure().map(|failure| Failure::of(failure.code, words()))
    }

    /// The number with which a record was handed over that this is the report of.
    pub(in super::super) fn number(&self) -> usize {
        self.get()._private.addr()
    }

    /// Where the broker's words about a record are that was not delivered. They must not be read:
    /// librdkafka 2.12.1 frees them with the broker's answer. But equal words are in one place.
    pub(in super::super) fn words_place(&self) -> usize {
        // SAFETY: the message is alive and a delivery report, of which this reads a field.
        unsafe { rd::rd_kafka_message_produce_errstr(self.raw.as_ptr()) }.addr()
    }

    /// The partition it is from or for.
    pub(in super::super) fn place(&self) -> Option<TopicPartition> {
        let topic = String::from_utf8_lossy(self.topic());
        (!topic.is_empty()).then(|| TopicPartition::new(topic, self.partition()))
    }

    /// The topic's name; empty if there is none.
    pub(in super::super) fn topic(&self) -> &'a [u8] {
        let topic = self.get().rkt;
        if topic.is_null() {
            return &[];
        }
        // SAFETY: the message keeps its topic alive, and a topic keeps its name.
        unsafe { std::ffi::CStr::from_ptr(rd::rd_kafka_topic_name(topic)) }.to_bytes()
    }

    /// The partition's number.
    pub(in super::super) fn partition(&self) -> u32 {
        u32::try_from(self.get().partition).unwrap_or(u32::MAX)
    }

    /// The record's offset; negative if there is none.
    pub(in super::super) fn offset(&self) -> i64 {
        self.get().offset
    }

    /// Milliseconds since the epoch.
    pub(in super::super) fn timestamp(&self) -> Option<i64> {
        let mut kind = rd::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        // SAFETY: the message is alive, and `kind` is written only by this call.
        let time = unsafe { rd::rd_kafka_message_timestamp(self.raw.as_ptr(), &raw mut kind) };
        (kind != rd::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE).then_some(time)
    }

    /// The record's key.
    pub(in super::super) fn key(&self) -> Option<&'a [u8]> {
        // SAFETY: the message has `key_len` bytes of key, which live as long as it.
        unsafe { bytes(self.get().key, self.get().key_len) }
    }

    /// The record's value.
    pub(in super::super) fn value(&self) -> Option<&'a [u8]> {
        // SAFETY: the message has `len` bytes of value, which live as long as it.
        unsafe { bytes(self.get().payload, self.get().len) }
    }

    /// The record's headers, in order.
    pub(in super::super) fn headers(&self) -> impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)> {
        let mut headers: *mut rd::rd_kafka_headers_t = ptr::null_mut();
        // SAFETY: the message is alive; it keeps the headers, and the call parses them only once.
        let found = unsafe { rd::rd_kafka_message_headers(self.raw.as_ptr(), &raw mut headers) };
        let some = Code::from(found) == Code::NoError && !headers.is_null();
        let mut index = 0;
        iter::from_fn(move || {
            // SAFETY: there are headers, and they live as long as the message.
            let header = if some { unsafe { header(headers, index) } } else { None };
            index += 1;
            header
        })
    }
}

/// # Safety
/// `headers` outlives `'a`.
unsafe fn header<'a>(
    headers: *const rd::rd_kafka_headers_t,
    index: usize,
) -> Option<(&'a [u8], Option<&'a [u8]>)> {
    let mut name: *const c_char = ptr::null();
    let mut value = ptr::null();
    let mut size = 0;
    // SAFETY: the caller's promise; past the last header the call writes nothing and says so.
    // Names end with a zero, values have `size` bytes.
    unsafe {
        let found = rd::rd_kafka_header_get_all(
            headers,
            index,
            &raw mut name,
            &raw mut value,
            &raw mut size,
        );
        (Code::from(found) == Code::NoError && !name.is_null())
            .then(|| (std::ffi::CStr::from_ptr(name).to_bytes(), bytes(value, size)))
    }
}
