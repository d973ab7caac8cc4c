//! What every implementation of the library's Kafka seam has to do, one behaviour per function.
//!
//! The same functions run against the model and against a real Kafka: that is what makes the model
//! trustworthy. They use the seam's traits and a [`Cluster`] only, poll one client at a time (the
//! real implementation blocks its thread), and wait on conditions with deadlines that suit both.

#![expect(clippy::missing_panics_doc, reason = "a test fails by a panic")]

mod fetching;
mod groups;
mod questions;
mod reader;
mod refusals;
mod sizes;
mod transactions;

pub use fetching::*;
pub use groups::*;
pub use questions::*;
pub use reader::Reader;
pub use refusals::*;
pub use sizes::*;
pub use transactions::*;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use countersign::kafka::{
    Admin, CommitOffset, Committed, Kafka, Output, Producer, Sizes, TopicPartition, of_all,
};
use tokio::time::Instant;

/// How long a condition may take to come true.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// How long something that must not happen is waited for.
const QUIET: Duration = Duration::from_secs(1);

/// The session time-out and the poll interval of those who are to miss it.
const SHORT_POLL_INTERVAL: Duration = Duration::from_secs(6);

/// Larger than any client here accepts.
const TOO_LARGE_BYTES: usize = 2_000_000;

/// The settings of a process's clients.
#[derive(Debug, Clone)]
pub struct ClientSpec {
    /// The consumer group.
    pub group: String,
    /// Worker `n` is the group instance `{instance}-{n}`.
    pub instance: Option<String>,
    /// The topics to subscribe to.
    pub inputs: Vec<String>,
    /// Range instead of cooperative-sticky.
    pub is_eager: bool,
    /// The session time-out; also `max.poll.interval.ms` where the poll interval is short.
    pub session_timeout_ms: u64,
    /// How long a member may stay away from poll.
    pub max_poll_interval_ms: u64,
    /// How long a transaction may stay open.
    pub transaction_timeout_ms: u64,
}

impl ClientSpec {
    /// A cooperative member of `group` that reads `input`.
    pub fn new(group: &str, input: &str) -> Self {
        Self {
            group: group.to_owned(),
            instance: None,
            inputs: vec![input.to_owned()],
            is_eager: false,
            session_timeout_ms: 6_000,
            max_poll_interval_ms: 60_000,
            transaction_timeout_ms: 30_000,
        }
    }

    /// As another instance.
    #[must_use]
    pub fn instance(self, instance: &str) -> Self {
        Self { instance: Some(instance.to_owned()), ..self }
    }

    /// With eager rebalances.
    #[must_use]
    pub fn eager(self) -> Self {
        Self { is_eager: true, ..self }
    }

    fn short_poll_interval(self) -> Self {
        let interval_ms = u64::try_from(SHORT_POLL_INTERVAL.as_millis()).unwrap_or(u64::MAX);
        Self { max_poll_interval_ms: interval_ms, ..self }
    }
}

/// What the tests do to a cluster outside the seam.
///
/// Every test uses names of its own, which start with its function's name: one cluster serves
/// them all.
pub trait Cluster {
    /// The implementation under test.
    type Kafka: Kafka;

    /// A factory of clients with these settings.
    fn client(&self, spec: &ClientSpec) -> Self::Kafka;

    /// Creates a topic and waits until it is there.
    fn create_topic(
        &self,
        name: &str,
        partitions: u32,
        max_message_bytes: Option<usize>,
    ) -> impl Future<Output = ()>;

    /// Creates a compacted topic and waits until it is there.
    fn create_compacted_topic(&self, name: &str, partitions: u32) -> impl Future<Output = ()>;

    /// Changes a topic's `max.message.bytes`; it may take a moment until it holds.
    fn set_max_message_bytes(&self, topic: &str, bytes: usize) -> impl Future<Output = ()>;

    /// Writes records outside any transaction.
    fn produce(&self, topic: &str, partition: u32, values: &[&str]) -> impl Future<Output = ()>;

    /// Writes records in a transaction and aborts it.
    fn produce_aborted(
        &self,
        topic: &str,
        partition: u32,
        values: &[&str],
    ) -> impl Future<Output = ()>;

    /// What an independent `read_committed` reader sees of a topic, partition by partition.
    fn read_committed(&self, topic: &str) -> impl Future<Output = Vec<String>>;
}

/// An output without key.
fn output(topic: &str, partition: u32, value: impl Into<Bytes>) -> Output {
    Output {
        topic: Arc::from(topic),
        partition,
        key: None,
        value: Some(value.into()),
        headers: Vec::new(),
        timestamp: None,
    }
}

fn offset_of(topic: &str, partition: u32, offset: u64, metadata: &str) -> CommitOffset {
    let partition = TopicPartition::new(topic, partition);
    CommitOffset { partition, offset, metadata: metadata.to_owned() }
}

/// A producer that is ready to begin.
async fn ready_producer<K: Kafka>(kafka: &K, id: &str) -> K::Producer {
    let mut producer = kafka.producer(id, Sizes::default()).expect("valid settings");
    producer.init(DEADLINE).await.expect("the coordinator answers");
    producer
}

/// Sends one record and waits for its delivery.
async fn send<P: Producer>(producer: &mut P, topic: &str, partition: u32, value: &'static str) {
    producer.send_one(output(topic, partition, value), None).expect("the record is accepted");
    producer.flush(0, DEADLINE).await.expect("the record is delivered");
}

/// The committed offsets once none of them is pending.
async fn stable<A: Admin>(admin: &mut A, of: &[TopicPartition]) -> Vec<Option<Committed>> {
    let deadline = Instant::now() + DEADLINE;
    loop {
        match of_all(admin.committed(of, DEADLINE).await) {
            Ok(committed) => return committed,
            Err(error) => assert!(Instant::now() < deadline, "in time: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Makes one test of every behaviour: `$cluster` is an expression that makes the [`Cluster`],
/// `$test` the attribute of the tests.
#[macro_export]
macro_rules! conformance_tests {
    ($(#[$test:meta])+ $cluster:expr) => {
        $crate::conformance_tests! { @each [$(#[$test])+] $cluster;
            commit_makes_records_visible
            abort_keeps_records_invisible
            abort_is_skipped_by_readers
            second_init_fences_the_first
            successor_ends_an_open_transaction
            unknown_partition_fails_by_the_flush
            record_too_large_for_the_topic_fails_at_flush
            record_too_large_for_the_producer_fails_at_send
            outputs_of_one_call_keep_their_order
            records_without_a_key_for_a_compacted_topic_are_named
            a_batch_that_is_too_large_names_no_record
            what_is_sent_behind_a_refused_batch_does_not_hide_it
            max_message_bytes_is_told
            max_message_bytes_of_an_unknown_topic
            computed_size_is_what_the_broker_compares
            batches_fit_the_sizes_they_are_given
            offsets_are_pending_until_decided
            metadata_has_a_limit
            stale_generation_is_refused
            no_generation_is_refused
            revoked_partition_waits_for_unassign
            eager_partition_waits_for_unassign
            missed_polls_lose_partitions
            leaving_hands_over
            newer_static_member_fences_the_older
            rejoin_gives_out_what_is_nobodys
            static_member_leaving_hands_over
            committed_now_does_not_wait
            records_come_in_order_up_to_the_limit
            pause_at_the_end_skips_nothing
            a_partition_without_a_start_is_read_from_where_it_is_told
            paused_partition_is_silent
            seek_reads_again_from_there
            seek_of_a_paused_partition_outlives_its_pauses
            position_beyond_the_log_is_out_of_range
            waker_ends_a_poll
            topics_are_described
            unknown_topic_is_told
            committed_is_none_at_first
            a_pending_offset_hides_no_other
            an_unknown_partition_hides_no_other_range
            log_range_ends_at_the_last_stable_offset
        }
    };
    (@each $attributes:tt $cluster:expr; $($name:ident)*) => {
        $($crate::conformance_tests! { @one $attributes $cluster; $name })*
    };
    (@one [$($attribute:tt)+] $cluster:expr; $name:ident) => {
        $($attribute)+
        async fn $name() {
            $crate::conformance::$name(&$cluster).await;
        }
    };
}
