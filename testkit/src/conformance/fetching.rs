//! Fetching: order, limits, ends, pauses, positions.

use countersign::kafka::{Admin, Consumer, Kafka, LogRange, PollLimit, TopicPartition};
use tokio::time::Instant;

use super::reader::joined;
use super::{ClientSpec, Cluster, DEADLINE, QUIET, Reader};

/// Aborted records are not read, and the end lies beyond them and their control record.
pub async fn abort_is_skipped_by_readers<C: Cluster>(cluster: &C) {
    let topic = "abort_is_skipped_by_readers";
    cluster.create_topic(topic, 1, None).await;
    cluster.produce(topic, 0, &["a"]).await;
    cluster.produce_aborted(topic, 0, &["x", "y"]).await;
    let spec = ClientSpec::new(topic, topic);
    let partition = TopicPartition::new(topic, 0);
    let mut reader = joined(cluster, &spec).await;
    reader.until("the end", |reader| reader.ends.get(&partition) == Some(&4)).await;
    assert_eq!(reader.of(topic, 0), ["a"]);
    let mut admin = cluster.client(&spec).admin().expect("valid settings");
    let asked = std::slice::from_ref(&partition);
    let ranges = admin.log_ranges(asked, DEADLINE).await.expect("the partition exists");
    assert_eq!(ranges, [Ok(LogRange { start: 0, end: 4 })]);
    cluster.produce(topic, 0, &["b"]).await;
    reader.until("the next end", |reader| reader.ends.get(&partition) == Some(&5)).await;
    assert_eq!(reader.of(topic, 0), ["a", "b"]);
}

/// Records come in order, and no poll takes more than its limit.
pub async fn records_come_in_order_up_to_the_limit<C: Cluster>(cluster: &C) {
    let topic = "records_come_in_order_up_to_the_limit";
    cluster.create_topic(topic, 1, None).await;
    let values: Vec<String> = (0..25).map(|n| n.to_string()).collect();
    let written: Vec<&str> = values.iter().map(String::as_str).collect();
    cluster.produce(topic, 0, &written).await;
    let mut reader = joined(cluster, &ClientSpec::new(topic, topic)).await;
    reader.limit = PollLimit { records: 10, bytes: 1 << 20 };
    let mut before = reader.of(topic, 0).len();
    let deadline = Instant::now() + DEADLINE;
    while reader.of(topic, 0).len() < written.len() {
        assert!(Instant::now() < deadline, "in time: all records");
        reader.poll().await;
        let after = reader.of(topic, 0).len();
        assert!(after - before <= 10, "{} records in one poll", after - before);
        before = after;
    }
    assert_eq!(reader.of(topic, 0), written);
}

/// What is written after the end was reached and before reading goes on is not passed over.
pub async fn pause_at_the_end_skips_nothing<C: Cluster>(cluster: &C) {
    let topic = "pause_at_the_end_skips_nothing";
    cluster.create_topic(topic, 1, None).await;
    cluster.produce(topic, 0, &["a"]).await;
    let mut reader = joined(cluster, &ClientSpec::new(topic, topic)).await;
    let partition = TopicPartition::new(topic, 0);
    reader.until("the end", |reader| reader.ends.get(&partition) == Some(&1)).await;
    reader.consumer.pause(std::slice::from_ref(&partition)).expect("it is assigned");
    reader.poll().await;
    reader.consumer.resume(std::slice::from_ref(&partition)).expect("it is assigned");
    cluster.produce(topic, 0, &["b"]).await;
    reader.until("the record after the end", |reader| reader.of(topic, 0) == ["a", "b"]).await;
    assert!(reader.out_of_range.is_empty());
}

/// A paused partition delivers nothing; resumed, it goes on without a gap.
pub async fn paused_partition_is_silent<C: Cluster>(cluster: &C) {
    let topic = "paused_partition_is_silent";
    cluster.create_topic(topic, 1, None).await;
    cluster.produce(topic, 0, &["a", "b", "c"]).await;
    let mut reader = joined(cluster, &ClientSpec::new(topic, topic)).await;
    let partitions = [TopicPartition::new(topic, 0)];
    reader.limit = PollLimit { records: 1, bytes: 1 << 20 };
    reader.until("a record", |reader| !reader.of(topic, 0).is_empty()).await;
    reader.consumer.pause(&partitions).expect("assigned");
    let before = reader.of(topic, 0).len();
    reader.never(QUIET, "a record", |reader| reader.of(topic, 0).len() > before).await;
    reader.consumer.resume(&partitions).expect("assigned");
    reader.until("the rest", |reader| reader.of(topic, 0).len() == 3).await;
    assert_eq!(reader.of(topic, 0), ["a", "b", "c"]);
}

/// A partition that is assigned without a start is silent, also after other pauses, until it is
/// told where to start; the others are read meanwhile.
pub async fn a_partition_without_a_start_is_read_from_where_it_is_told<C: Cluster>(cluster: &C) {
    let topic = "a_partition_without_a_start_is_read_from_where_it_is_told";
    cluster.create_topic(topic, 2, None).await;
    cluster.produce(topic, 0, &["a", "b", "c"]).await;
    cluster.produce(topic, 1, &["x"]).await;
    let consumer = cluster.client(&ClientSpec::new(topic, topic)).consumer(0);
    let mut reader = Reader::new(consumer.expect("valid settings"));
    let later = TopicPartition::new(topic, 0);
    reader.later.insert(later.clone());
    reader.until("the other one is read", |reader| !reader.of(topic, 1).is_empty()).await;
    reader.never(QUIET, "a record", |reader| !reader.of(topic, 0).is_empty()).await;
    reader.consumer.start(&[(later, 1)]).expect("it is assigned");
    reader.until("the rest", |reader| reader.of(topic, 0).len() == 2).await;
    assert_eq!(reader.of(topic, 0), ["b", "c"]);
}

/// After a seek nothing comes that was fetched before, and the end is told once more.
pub async fn seek_reads_again_from_there<C: Cluster>(cluster: &C) {
    let topic = "seek_reads_again_from_there";
    cluster.create_topic(topic, 1, None).await;
    let values: Vec<String> = (0..50).map(|n| n.to_string()).collect();
    let written: Vec<&str> = values.iter().map(String::as_str).collect();
    cluster.produce(topic, 0, &written).await;
    let mut reader = joined(cluster, &ClientSpec::new(topic, topic)).await;
    let partition = TopicPartition::new(topic, 0);
    reader.limit = PollLimit { records: 10, bytes: 1 << 20 };
    reader.until("some", |reader| reader.of(topic, 0).len() >= 20).await;
    reader.values.clear();
    reader.consumer.seek(&partition, 3).expect("assigned");
    reader.until("the end", |reader| reader.ends.get(&partition) == Some(&50)).await;
    assert_eq!(reader.of(topic, 0), written[3..]);
    reader.values.clear();
    reader.ends.clear();
    reader.consumer.seek(&partition, 48).expect("assigned");
    reader.until("the end again", |reader| reader.ends.get(&partition) == Some(&50)).await;
    assert_eq!(reader.of(topic, 0), ["48", "49"]);
}

/// The offset of a seek holds through a pause before and after it, in which nothing was read.
pub async fn seek_of_a_paused_partition_outlives_its_pauses<C: Cluster>(cluster: &C) {
    let topic = "seek_of_a_paused_partition_outlives_its_pauses";
    cluster.create_topic(topic, 1, None).await;
    cluster.produce(topic, 0, &["a", "b", "c", "d", "e"]).await;
    let mut reader = joined(cluster, &ClientSpec::new(topic, topic)).await;
    let partitions = [TopicPartition::new(topic, 0)];
    reader.until("all", |reader| reader.of(topic, 0).len() == 5).await;
    reader.values.clear();
    reader.consumer.pause(&partitions).expect("assigned");
    reader.consumer.seek(&partitions[0], 2).expect("assigned");
    reader.never(QUIET, "a record", |reader| !reader.of(topic, 0).is_empty()).await;
    reader.consumer.resume(&partitions).expect("assigned");
    reader.consumer.pause(&partitions).expect("assigned");
    reader.consumer.resume(&partitions).expect("assigned");
    reader.until("the rest", |reader| reader.of(topic, 0).len() >= 3).await;
    assert_eq!(reader.of(topic, 0), ["c", "d", "e"]);
}

/// A start beyond the log's end is told, not silently reset.
pub async fn position_beyond_the_log_is_out_of_range<C: Cluster>(cluster: &C) {
    let topic = "position_beyond_the_log_is_out_of_range";
    cluster.create_topic(topic, 1, None).await;
    cluster.produce(topic, 0, &["a"]).await;
    let consumer = cluster.client(&ClientSpec::new(topic, topic)).consumer(0);
    let mut reader = Reader::new(consumer.expect("valid settings"));
    reader.starts.insert(TopicPartition::new(topic, 0), 1000);
    reader.until("out of range", |reader| !reader.out_of_range.is_empty()).await;
    assert!(reader.of(topic, 0).is_empty());
}

/// The waker makes a waiting poll return.
pub async fn waker_ends_a_poll<C: Cluster>(cluster: &C) {
    let topic = "waker_ends_a_poll";
    cluster.create_topic(topic, 1, None).await;
    let mut reader = joined(cluster, &ClientSpec::new(topic, topic)).await;
    reader.until("the end", |reader| !reader.ends.is_empty()).await;
    let wake = reader.consumer.waker();
    let waker = std::thread::spawn(move || wake());
    waker.join().expect("the waker works on any thread");
    let started = Instant::now();
    let mut polled = Vec::new();
    let result = reader.consumer.poll(DEADLINE, reader.limit, &mut polled).await;
    result.expect("nothing ended the consumer");
    assert!(started.elapsed() < DEADLINE / 2, "it waited to the end");
}
