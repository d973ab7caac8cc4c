//! Questions about topics, offsets and logs.

use std::sync::Arc;
use std::time::Duration;

use countersign::kafka::{
    Admin, Committed, Consumer, ErrorKind, Kafka, LogRange, Producer, TopicPartition,
};

use super::reader::joined;
use super::{ClientSpec, Cluster, DEADLINE, offset_of, ready_producer, send, stable};

/// Topics are described in the order asked, each with an id of its own.
pub async fn topics_are_described<C: Cluster>(cluster: &C) {
    let (one, two) = ("topics_are_described.1", "topics_are_described.2");
    cluster.create_topic(one, 1, None).await;
    cluster.create_topic(two, 2, None).await;
    let mut admin = cluster.client(&ClientSpec::new(one, one)).admin().expect("valid settings");
    let names = [Arc::from(two), Arc::from(one)];
    let topics = admin.topics(&names, DEADLINE).await.expect("they exist");
    let described: Vec<_> = topics.iter().map(|topic| (&*topic.name, topic.partitions)).collect();
    assert_eq!(described, [(two, 2), (one, 1)]);
    assert_ne!(topics[0].id, topics[1].id);
    assert!(topics.iter().all(|topic| topic.id != [0; 16]));
    let id = admin.cluster_id(DEADLINE).await.expect("the broker is there");
    assert!(!id.is_empty());
}

/// A topic that does not exist is an error, not an empty answer.
pub async fn unknown_topic_is_told<C: Cluster>(cluster: &C) {
    let topic = "unknown_topic_is_told";
    let mut admin = cluster.client(&ClientSpec::new(topic, topic)).admin().expect("valid settings");
    let error = admin.topics(&[Arc::from(topic)], DEADLINE).await.expect_err("unknown");
    assert_eq!(error.kind, ErrorKind::UnknownTopic);
}

/// A partition without a committed offset has none, in the place asked.
pub async fn committed_is_none_at_first<C: Cluster>(cluster: &C) {
    let topic = "committed_is_none_at_first";
    cluster.create_topic(topic, 2, None).await;
    let mut admin = cluster.client(&ClientSpec::new(topic, topic)).admin().expect("valid settings");
    let partitions = [TopicPartition::new(topic, 1), TopicPartition::new(topic, 0)];
    let committed = admin.committed(&partitions, DEADLINE).await.expect("the broker is there");
    assert_eq!(committed, [Ok(None), Ok(None)]);
}

/// Of two partitions the one whose offset an open transaction may change is told as such, and the
/// other one's is told.
pub async fn a_pending_offset_hides_no_other<C: Cluster>(cluster: &C) {
    let topic = "a_pending_offset_hides_no_other";
    cluster.create_topic(topic, 2, None).await;
    let spec = ClientSpec::new(topic, topic);
    let member = joined(cluster, &spec).await;
    let kafka = cluster.client(&spec);
    let mut admin = kafka.admin().expect("valid settings");
    let mut producer = ready_producer(&kafka, topic).await;
    let group = member.consumer.group();
    let partitions = [TopicPartition::new(topic, 0), TopicPartition::new(topic, 1)];
    for (partition, offset) in [(0, 3), (1, 4)] {
        producer.begin().expect("ready");
        let offsets = [offset_of(topic, partition, offset, "")];
        producer.send_offsets(&offsets, &group, DEADLINE).await.expect("a member");
        if partition == 0 {
            producer.commit(DEADLINE).await.expect("commit");
            stable(&mut admin, &partitions).await;
        }
    }
    // The transaction must not time out before.
    let timeout = Duration::from_secs(2);
    let told = admin.committed(&partitions, timeout).await.expect("the broker is there");
    let offset = |told: &Option<Committed>| told.as_ref().map(|committed| committed.offset);
    assert_eq!(told[0].as_ref().map(offset), Ok(Some(3)));
    assert_eq!(told[1].as_ref().map_err(|error| error.kind), Err(ErrorKind::Pending));
    producer.abort(DEADLINE).await.expect("abort");
}

/// A partition that does not exist has an error, and the others have their ranges.
pub async fn an_unknown_partition_hides_no_other_range<C: Cluster>(cluster: &C) {
    let topic = "an_unknown_partition_hides_no_other_range";
    cluster.create_topic(topic, 1, None).await;
    cluster.produce(topic, 0, &["a"]).await;
    let mut admin = cluster.client(&ClientSpec::new(topic, topic)).admin().expect("valid settings");
    let nowhere = "an_unknown_partition_hides_no_other_range.nowhere";
    let partitions = [
        TopicPartition::new(topic, 7),
        TopicPartition::new(topic, 0),
        TopicPartition::new(nowhere, 0),
    ];
    let told = admin.log_ranges(&partitions, DEADLINE).await.expect("the broker is there");
    assert!(told[0].is_err() && told[2].is_err(), "{told:?}");
    assert_eq!(told[1], Ok(LogRange { start: 0, end: 1 }));
}

/// Commits are told without waiting for pending ones, with their metadata, and in the order asked.
pub async fn committed_now_does_not_wait<C: Cluster>(cluster: &C) {
    let topic = "committed_now_does_not_wait";
    cluster.create_topic(topic, 12, None).await;
    let spec = ClientSpec::new(topic, topic);
    let member = joined(cluster, &spec).await;
    let kafka = cluster.client(&spec);
    let mut admin = kafka.admin().expect("valid settings");
    let asked: Vec<_> = [1, 11, 0, 2].map(|number| TopicPartition::new(topic, number)).into();
    let mut producer = ready_producer(&kafka, topic).await;
    let mut before = None;
    for offset in [7, 8] {
        producer.begin().expect("ready");
        let (group, metadata) = (member.consumer.group(), format!("to {offset}"));
        let sent = offset_of(topic, 11, offset, &metadata);
        producer.send_offsets(&[sent], &group, DEADLINE).await.expect("a member");
        let told = admin.committed_now(&asked, DEADLINE).await.expect("the broker is there");
        assert_eq!(told, [None, before.clone(), None, None]);
        producer.commit(DEADLINE).await.expect("commit");
        // The markers are written after the answer.
        stable(&mut admin, &asked).await;
        before = Some(Committed { offset, metadata });
    }
    let told = admin.committed_now(&asked, DEADLINE).await.expect("the broker is there");
    assert_eq!(told, [None, before, None, None]);
}

/// The range ends where a `read_committed` reader stops: before an open transaction. Ranges come in
/// the order asked.
pub async fn log_range_ends_at_the_last_stable_offset<C: Cluster>(cluster: &C) {
    let topic = "log_range_ends_at_the_last_stable_offset";
    cluster.create_topic(topic, 2, None).await;
    cluster.produce(topic, 0, &["a", "b"]).await;
    cluster.produce(topic, 1, &["c"]).await;
    let kafka = cluster.client(&ClientSpec::new(topic, topic));
    let mut admin = kafka.admin().expect("valid settings");
    let partitions = [TopicPartition::new(topic, 1), TopicPartition::new(topic, 0)];
    let mut producer = ready_producer(&kafka, topic).await;
    producer.begin().expect("ready");
    send(&mut producer, topic, 0, "open").await;
    cluster.produce(topic, 0, &["behind"]).await;
    let ranges = admin.log_ranges(&partitions, DEADLINE).await.expect("both exist");
    assert_eq!(ranges, [Ok(LogRange { start: 0, end: 1 }), Ok(LogRange { start: 0, end: 2 })]);
    producer.commit(DEADLINE).await.expect("commit");
    let deadline = tokio::time::Instant::now() + DEADLINE;
    loop {
        let ranges = admin.log_ranges(&partitions[1..], DEADLINE).await.expect("it exists");
        if ranges == [Ok(LogRange { start: 0, end: 5 })] {
            return;
        }
        assert!(tokio::time::Instant::now() < deadline, "it is {ranges:?}");
    }
}
