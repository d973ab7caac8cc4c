//! A flush waits without using the processor.
//!
//! Alone in its program, because it takes the processor time of all of its threads.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process;
use std::time::{Duration, Instant};

use countersign::kafka::librdkafka::{ClusterConfig, LibrdKafka};
use countersign::kafka::{Kafka as _, Output, Producer as _, Sizes};
use countersign_testkit::broker::{LocalKafka, LocalKafkaOptions};
use countersign_testkit::process::processor_time;
use countersign_testkit::proxy::api_key;
use futures::executor::block_on;

const LONG: Duration = Duration::from_secs(30);

/// How long the broker takes for each batch. All of them take less than what is lingered for.
const DELAY: Duration = Duration::from_millis(80);

/// Three fit into a batch, and the fourth fills it: four full batches and a rest.
const RECORDS: u32 = 14;
const RECORD_BYTES: usize = 250_000;

/// librdkafka polls without a pause for whatever stands behind a request and is due, and beside
/// `rd_kafka_flush` everything is.
#[test]
fn a_flush_of_several_batches_of_a_partition_leaves_the_processor_alone() {
    let (kafka, proxy) = LocalKafka::start_proxied(&LocalKafkaOptions::default()).unwrap();
    kafka.create_topic("flush", 1).unwrap();
    let config = ClusterConfig::new(proxy.bootstrap(), "flush", ["flush"]);
    let kafka = LibrdKafka::new(config).unwrap();
    let mut producer = kafka.producer("flush", Sizes::default()).unwrap();
    block_on(producer.init(LONG)).unwrap();
    let record = Output {
        topic: "flush".into(),
        partition: 0,
        key: None,
        value: Some(vec![b'x'; RECORD_BYTES].into()),
        headers: Vec::new(),
        timestamp: None,
    };
    producer.begin().unwrap();
    producer.send_one(record.clone(), None).unwrap();
    block_on(producer.flush(0, LONG)).unwrap();

    proxy.delay(api_key::PRODUCE, DELAY);
    let used = || processor_time(process::id()).unwrap();
    let (start, used_before) = (Instant::now(), used());
    for _ in 0..RECORDS {
        producer.send_one(record.clone(), None).unwrap();
    }
    block_on(producer.flush(0, LONG)).unwrap();
    let (took, used) = (start.elapsed(), used().saturating_sub(used_before));
    block_on(producer.commit(LONG)).unwrap();
    assert!(took > 3 * DELAY, "the requests went side by side: {took:?}");
    assert!(used < took / 4, "{used:?} of processor time in {took:?}");
}
