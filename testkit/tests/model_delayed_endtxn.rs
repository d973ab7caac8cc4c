//! The rows of table 2 in `delayed-endtxn.md`: what a late first copy of `EndTxn` or
//! `TxnOffsetCommit` does to the next transaction of the same producer, as measured on Kafka.
//!
//! Method: transaction 1 writes "one" and offset 5 while the first copy of one request is held;
//! transaction 2 plays the row's steps, in which `Late` lets the copy arrive.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use countersign::kafka::{
    CommitOffset, Consumer, ErrorKind, Kafka, KafkaError, Output, PollLimit, Polled, Producer,
    Sizes, TopicPartition,
};
use countersign_statemachine::Disposition;
use countersign_testkit::model::{
    Call, Fault, Isolation, ModelClient, ModelConsumer, ModelKafka, ModelProcess, ModelProducer,
};
use tokio::time::Instant;

const TIMEOUT: Duration = Duration::from_secs(5);
const GROUP: &str = "group";

#[derive(Debug, Clone, Copy)]
enum Step {
    /// The first half, to partition 0, flushed.
    A,
    /// The rest to the same partition.
    BSame,
    /// The rest to a partition that was not written yet.
    BNew,
    /// Offset 10 of the input partition 0.
    Offsets,
    /// An offset of the input partition 1.
    OtherOffsets,
    Late,
    Commit,
    Abort,
    /// Drop, create, initialise: the defence.
    Renew,
}

use Step::{A, Abort, BNew, BSame, Commit, Late, Offsets, OtherOffsets, Renew};

const INVALID: (ErrorKind, Disposition) =
    (ErrorKind::InvalidTransactionState, Disposition::Abortable);
const FATAL: (ErrorKind, Disposition) = (ErrorKind::InvalidTransactionState, Disposition::Fatal);
const INCONSISTENT: (ErrorKind, Disposition) = (ErrorKind::Other, Disposition::Abortable);

/// The request of transaction 1 whose first copy is late, and how transaction 1 ended.
#[derive(Debug, Clone, Copy)]
struct First {
    late: Call,
    is_committed: bool,
    has_offsets: bool,
}

const COMMIT: First = First { late: Call::EndTxn, is_committed: true, has_offsets: true };
const ABORT: First = First { late: Call::EndTxn, is_committed: false, has_offsets: true };

struct Row {
    kafka: ModelKafka,
    process: ModelProcess,
    producer: ModelProducer,
    consumer: ModelConsumer,
    errors: Vec<(ErrorKind, Disposition)>,
}

impl Row {
    async fn start() -> Self {
        let kafka = ModelKafka::default();
        kafka.create_topic("in", 2);
        kafka.create_topic("out", 2);
        let process = kafka.client(ModelClient::new(GROUP, &["in"]));
        let mut consumer = process.consumer(0).expect("valid settings");
        let mut polled = Vec::new();
        let limit = PollLimit { records: 10, bytes: 1000 };
        consumer.poll(TIMEOUT, limit, &mut polled).await.expect("the member joins");
        let Some(Polled::Assign(partitions)) = polled.pop() else { panic!("{polled:?}") };
        let starts: Vec<_> = partitions.into_iter().map(|partition| (partition, Some(0))).collect();
        consumer.assign(&starts).expect("as offered");
        let mut producer = process.producer("id", Sizes::default()).expect("valid settings");
        producer.init(TIMEOUT).await.expect("the coordinator answers");
        Self { kafka, process, producer, consumer, errors: Vec::new() }
    }

    async fn first(&mut self, first: First) {
        self.producer.begin().expect("ready");
        self.send(0, "one").await.expect("delivered");
        self.kafka.fault(first.late, Fault::Held);
        if first.has_offsets {
            self.offsets(0, 5).await.expect("the member is current");
        }
        let started = Instant::now();
        let ended = if first.is_committed {
            self.producer.commit(TIMEOUT).await
        } else {
            self.producer.abort(TIMEOUT).await
        };
        ended.expect("librdkafka retried it in silence");
        if first.late == Call::EndTxn {
            assert!(started.elapsed() >= Duration::from_millis(80), "{:?}", started.elapsed());
        }
        assert_eq!(self.kafka.held(), 1);
        self.settle().await;
    }

    async fn send(&mut self, partition: u32, value: &'static str) -> Result<(), KafkaError> {
        let value = Some(Bytes::from_static(value.as_bytes()));
        let headers = Vec::new();
        let topic = Arc::from("out");
        let output = Output { topic, partition, key: None, value, headers, timestamp: None };
        self.producer.send_one(output, None)?;
        self.producer.flush(0, TIMEOUT).await
    }

    async fn offsets(&mut self, partition: u32, offset: u64) -> Result<(), KafkaError> {
        let partition = TopicPartition::new("in", partition);
        let offsets = [CommitOffset { partition, offset, metadata: String::new() }];
        self.producer.send_offsets(&offsets, &self.consumer.group(), TIMEOUT).await
    }

    async fn play(&mut self, steps: &[Step]) {
        self.producer.begin().expect("ready");
        for step in steps {
            let result = match step {
                A => self.send(0, "A").await,
                BSame => self.send(0, "B").await,
                BNew => self.send(1, "B").await,
                Offsets => self.offsets(0, 10).await,
                OtherOffsets => self.offsets(1, 3).await,
                Late => {
                    assert_eq!(self.kafka.release(), 1);
                    self.settle().await;
                    Ok(())
                }
                Commit => self.producer.commit(TIMEOUT).await,
                Abort => self.producer.abort(TIMEOUT).await,
                Renew => unreachable!("comes before the transaction"),
            };
            if let Err(error) = result {
                self.errors.push((error.kind, error.disposition));
            }
        }
        self.settle().await;
    }

    async fn renew(&mut self) {
        self.producer = self.process.producer("id", Sizes::default()).expect("valid settings");
        self.producer.init(TIMEOUT).await.expect("the coordinator answers");
    }

    /// Waits until the markers are written.
    async fn settle(&self) {
        let deadline = Instant::now() + TIMEOUT;
        let is_ending = |kafka: &ModelKafka| {
            use countersign_testkit::model::TransactionState::Ongoing;
            kafka.open_transactions().iter().any(|transaction| transaction.state != Ongoing)
        };
        while is_ending(&self.kafka) {
            assert!(Instant::now() < deadline, "markers in time");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// What transaction 2 left for a `read_committed` reader, and the group's offset.
    fn seen(&self) -> (Vec<String>, Option<u64>) {
        let records = (0..2).flat_map(|p| self.kafka.records("out", p, Isolation::ReadCommitted));
        let values = records
            .map(|record| String::from_utf8_lossy(&record.value.unwrap_or_default()).into_owned())
            .filter(|value| value != "one")
            .collect();
        let committed = self.kafka.committed(GROUP, &TopicPartition::new("in", 0));
        (values, committed.map(|committed| committed.offset))
    }
}

async fn check(
    first: First,
    steps: &[Step],
    errors: &[(ErrorKind, Disposition)],
    values: &[&str],
    offset: Option<u64>,
) {
    let mut row = Row::start().await;
    row.first(first).await;
    let steps = if let [Renew, rest @ ..] = steps {
        row.renew().await;
        rest
    } else {
        steps
    };
    row.play(steps).await;
    assert_eq!(row.errors, errors);
    let values: Vec<String> = values.iter().map(|&value| value.to_owned()).collect();
    assert_eq!(row.seen(), (values, offset));
}

macro_rules! rows {
    ($($name:ident: $first:expr, [$($step:expr),*], [$($error:expr),*] =>
        [$($value:expr),*], $offset:expr;)*) => {
        $(#[tokio::test(start_paused = true)]
        async fn $name() {
            check($first, &[$($step),*], &[$($error),*], &[$($value),*], $offset).await;
        })*
    };
}

const OFFSETS_COMMITTED: First = First { late: Call::TxnOffsetCommit, ..COMMIT };
const OFFSETS_ABORTED: First = First { late: Call::TxnOffsetCommit, ..ABORT };

rows! {
    row_1: COMMIT, [A, Late, BSame, Abort], [INVALID, FATAL] => ["A"], Some(5);
    row_2: COMMIT, [A, Late, BSame, Commit, Abort], [INVALID, INCONSISTENT, FATAL]
        => ["A"], Some(5);
    row_3: COMMIT, [A, Late, Abort], [FATAL] => ["A"], Some(5);
    row_4: COMMIT, [A, Late, Commit], [] => ["A"], Some(5);
    row_5: COMMIT, [A, Late, BNew, Abort], [] => ["A"], Some(5);
    row_6: COMMIT, [A, Late, BNew, Commit], [] => ["A", "B"], Some(5);
    row_7: COMMIT, [A, Late, Offsets, Commit], [] => ["A"], Some(10);
    row_8: COMMIT, [A, Late, Offsets, Abort], [] => ["A"], Some(5);
    row_9: COMMIT, [Offsets, Late, BNew, Abort], [] => [], Some(10);
    row_10: COMMIT, [Offsets, Late, BNew, Commit], [] => ["B"], Some(10);
    row_11: ABORT, [A, Late, Offsets, Commit], [] => [], Some(10);
    row_12: ABORT, [Offsets, Late, BNew, Commit], [] => ["B"], None;
    row_13: ABORT, [A, Late, BNew, Commit], [] => ["B"], None;
    row_14: ABORT, [A, Late, BSame, Commit, Abort], [INVALID, INCONSISTENT] => [], None;
    row_15: ABORT, [A, Late, Commit], [FATAL] => [], None;
    row_16: ABORT, [A, Late, BSame, Abort], [INVALID] => [], None;
    row_17: OFFSETS_COMMITTED, [A, Offsets, Late, Commit], [] => ["A"], Some(5);
    row_18: OFFSETS_ABORTED, [A, OtherOffsets, Late, Commit], [] => ["A"], Some(5);
    row_1_renewed: COMMIT, [Renew, A, Late, BSame, Abort], [] => [], Some(5);
    row_8_renewed: COMMIT, [Renew, A, Late, Offsets, Abort], [] => [], Some(5);
    row_11_renewed: ABORT, [Renew, A, Late, Offsets, Commit], [] => ["A"], Some(10);
    row_17_renewed: OFFSETS_COMMITTED, [Renew, A, Offsets, Late, Commit], [] => ["A"], Some(10);
    row_18_renewed: OFFSETS_ABORTED, [Renew, A, OtherOffsets, Late, Commit], [] => ["A"], None;
}

/// Row 6 is whole in the end, but two transactions: the check for torn ones has to see it.
#[tokio::test(start_paused = true)]
async fn a_split_transaction_is_visible_as_two() {
    let mut row = Row::start().await;
    row.first(First { has_offsets: false, ..COMMIT }).await;
    row.play(&[A, Late, BNew, Commit]).await;
    let a = row.kafka.records("out", 0, Isolation::ReadCommitted);
    let b = row.kafka.records("out", 1, Isolation::ReadCommitted);
    let first = row.kafka.transaction_of("out", 0, a.last().expect("A").offset);
    let second = row.kafka.transaction_of("out", 1, b.last().expect("B").offset);
    assert!(first.is_some() && second.is_some());
    assert_ne!(first, second);
}

/// A late copy of the offsets takes librdkafka's fixed 500 ms to be retried.
#[tokio::test(start_paused = true)]
async fn retried_offsets_take_at_least_the_threshold() {
    let mut row = Row::start().await;
    row.producer.begin().expect("ready");
    row.send(0, "one").await.expect("delivered");
    row.kafka.fault(Call::TxnOffsetCommit, Fault::Retried { late: Duration::from_secs(1) });
    let started = Instant::now();
    row.offsets(0, 5).await.expect("retried in silence");
    assert!(started.elapsed() >= Duration::from_millis(400), "{:?}", started.elapsed());
}
