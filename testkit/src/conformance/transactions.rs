//! Transactions: visibility, fencing, failed records, offsets.

use std::sync::Arc;
use std::time::Duration;

use countersign::kafka::{
    Admin, Committed, Consumer, ErrorKind, Group, Header, Kafka, Output, Producer, TopicPartition,
};
use countersign_statemachine::Disposition;

use super::reader::joined;
use super::{
    ClientSpec, Cluster, DEADLINE, QUIET, SHORT_POLL_INTERVAL, TOO_LARGE_BYTES, offset_of, output,
    ready_producer, send, stable,
};

/// Records of a transaction are seen when it is committed, not before.
pub async fn commit_makes_records_visible<C: Cluster>(cluster: &C) {
    let topic = "commit_makes_records_visible";
    cluster.create_topic(topic, 1, None).await;
    let mut producer = ready_producer(&cluster.client(&ClientSpec::new(topic, topic)), topic).await;
    producer.begin().expect("ready");
    send(&mut producer, topic, 0, "a").await;
    assert_eq!(cluster.read_committed(topic).await, Vec::<String>::new());
    producer.commit(DEADLINE).await.expect("commit");
    assert_eq!(until_visible(cluster, topic, 1).await, ["a"]);
}

/// Records of an aborted transaction are never seen, and the producer goes on.
pub async fn abort_keeps_records_invisible<C: Cluster>(cluster: &C) {
    let topic = "abort_keeps_records_invisible";
    cluster.create_topic(topic, 1, None).await;
    let mut producer = ready_producer(&cluster.client(&ClientSpec::new(topic, topic)), topic).await;
    producer.begin().expect("ready");
    send(&mut producer, topic, 0, "aborted").await;
    producer.abort(DEADLINE).await.expect("abort");
    producer.begin().expect("ready again");
    send(&mut producer, topic, 0, "committed").await;
    producer.commit(DEADLINE).await.expect("commit");
    assert_eq!(until_visible(cluster, topic, 1).await, ["committed"]);
}

/// A second producer with the id fences the first, whose transaction is aborted.
pub async fn second_init_fences_the_first<C: Cluster>(cluster: &C) {
    let topic = "second_init_fences_the_first";
    cluster.create_topic(topic, 1, None).await;
    let kafka = cluster.client(&ClientSpec::new(topic, topic));
    let mut first = ready_producer(&kafka, topic).await;
    first.begin().expect("ready");
    send(&mut first, topic, 0, "first").await;
    let mut second = ready_producer(&kafka, topic).await;
    let error = first.commit(DEADLINE).await.expect_err("fenced");
    assert_eq!((error.kind, error.disposition), (ErrorKind::Fenced, Disposition::Fenced));
    second.begin().expect("ready");
    send(&mut second, topic, 0, "second").await;
    second.commit(DEADLINE).await.expect("commit");
    assert_eq!(until_visible(cluster, topic, 1).await, ["second"]);
}

/// An open transaction of a dead producer blocks readers until its successor is initialised.
pub async fn successor_ends_an_open_transaction<C: Cluster>(cluster: &C) {
    let topic = "successor_ends_an_open_transaction";
    cluster.create_topic(topic, 1, None).await;
    let spec = ClientSpec::new(topic, topic);
    let kafka = cluster.client(&spec);
    let mut first = ready_producer(&kafka, topic).await;
    first.begin().expect("ready");
    send(&mut first, topic, 0, "open").await;
    drop(first);
    cluster.produce(topic, 0, &["behind"]).await;
    let mut reader = joined(cluster, &spec).await;
    let has_records = |reader: &super::Reader<_>| !reader.of(topic, 0).is_empty();
    reader.never(QUIET, "a record behind an open transaction", has_records).await;
    let _second = ready_producer(&kafka, topic).await;
    reader.until("the record behind it is read", has_records).await;
    assert_eq!(reader.of(topic, 0), ["behind"]);
}

/// A record for a partition that does not exist is refused by a producer that knows the topic, or
/// fails at flush; then only an abort is left.
pub async fn unknown_partition_fails_by_the_flush<C: Cluster>(cluster: &C) {
    let topic = "unknown_partition_fails_by_the_flush";
    cluster.create_topic(topic, 1, None).await;
    let mut producer = ready_producer(&cluster.client(&ClientSpec::new(topic, topic)), topic).await;
    producer.begin().expect("ready");
    // The topic is asked for with its first record: the answer may be faster than the record.
    let error = if let Err(refused) = producer.send_one(output(topic, 99, "nowhere"), None) {
        refused
    } else {
        producer.flush(0, DEADLINE).await.expect_err("the delivery report failed");
        producer.commit(DEADLINE).await.expect_err("a part of it failed")
    };
    assert_eq!(error.disposition, Disposition::Abortable);
    producer.abort(DEADLINE).await.expect("abort");
    producer.begin().expect("ready again");
}

/// A record larger than the topic's `max.message.bytes` fails at flush.
pub async fn record_too_large_for_the_topic_fails_at_flush<C: Cluster>(cluster: &C) {
    let topic = "record_too_large_for_the_topic_fails_at_flush";
    cluster.create_topic(topic, 1, Some(10_000)).await;
    let mut producer = ready_producer(&cluster.client(&ClientSpec::new(topic, topic)), topic).await;
    producer.begin().expect("ready");
    producer.send_one(output(topic, 0, vec![b'x'; 20_000]), None).expect("accepted");
    let error = producer.flush(0, DEADLINE).await.expect_err("the delivery report failed");
    assert_eq!(error.kind, ErrorKind::TooLarge);
    producer.abort(DEADLINE).await.expect("abort");
    assert_eq!(cluster.read_committed(topic).await, Vec::<String>::new());
}

/// A record larger than the producer accepts is refused at once and is not in the transaction.
pub async fn record_too_large_for_the_producer_fails_at_send<C: Cluster>(cluster: &C) {
    let topic = "record_too_large_for_the_producer_fails_at_send";
    cluster.create_topic(topic, 1, None).await;
    let mut producer = ready_producer(&cluster.client(&ClientSpec::new(topic, topic)), topic).await;
    producer.begin().expect("ready");
    let large = output(topic, 0, vec![b'x'; TOO_LARGE_BYTES]);
    let outputs = Arc::new(vec![output(topic, 0, "first"), large]);
    let unsent = producer.send(&outputs, 0..2, None).expect_err("too large");
    assert_eq!((unsent.index, unsent.error.kind), (1, ErrorKind::TooLarge));
    send(&mut producer, topic, 0, "small").await;
    producer.commit(DEADLINE).await.expect("the refused record does not count");
    assert_eq!(until_visible(cluster, topic, 2).await, ["first", "small"]);
}

/// What is handed over in one call comes in its order, whatever a record is made of.
pub async fn outputs_of_one_call_keep_their_order<C: Cluster>(cluster: &C) {
    let topic = "outputs_of_one_call_keep_their_order";
    cluster.create_topic(topic, 2, None).await;
    let mut producer = ready_producer(&cluster.client(&ClientSpec::new(topic, topic)), topic).await;
    let headers = vec![Header { name: "name".into(), value: None }];
    let outputs = (0..40_u32).map(|n| Output {
        headers: if n % 7 == 3 { headers.clone() } else { Vec::new() },
        timestamp: (n % 5 == 4).then_some(1_234),
        ..output(topic, n / 3 % 2, format!("{n:02}"))
    });
    let outputs = Arc::new(outputs.collect::<Vec<_>>());
    producer.begin().expect("ready");
    producer.send(&outputs, 0..7, None).expect("accepted");
    producer.send(&outputs, 7..7, None).expect("nothing is accepted, too");
    producer.send(&outputs, 7..40, None).expect("accepted");
    producer.flush(0, DEADLINE).await.expect("they are delivered");
    producer.commit(DEADLINE).await.expect("commit");
    let of = |partition| (0..40).filter(move |n| n / 3 % 2 == partition);
    let expected: Vec<_> = of(0).chain(of(1)).map(|n| format!("{n:02}")).collect();
    assert_eq!(until_visible(cluster, topic, 40).await, expected);
}

/// Offsets sent in a transaction are neither old nor new until it is decided (KIP-447).
pub async fn offsets_are_pending_until_decided<C: Cluster>(cluster: &C) {
    let topic = "offsets_are_pending_until_decided";
    cluster.create_topic(topic, 1, None).await;
    let spec = ClientSpec::new(topic, topic);
    let kafka = cluster.client(&spec);
    let reader = joined(cluster, &spec).await;
    let mut producer = ready_producer(&kafka, topic).await;
    let mut admin = kafka.admin().expect("valid settings");
    let partitions = [TopicPartition::new(topic, 0)];
    for (offset, is_committed) in [(5, true), (7, false)] {
        producer.begin().expect("ready");
        let offsets = [offset_of(topic, 0, offset, "mine")];
        producer
            .send_offsets(&offsets, &reader.consumer.group(), DEADLINE)
            .await
            .expect("offsets are sent");
        let told = admin.committed(&partitions, DEADLINE).await.expect("the broker is there");
        let kinds: Vec<_> = told.iter().map(|it| it.as_ref().map_err(|e| e.kind)).collect();
        assert_eq!(kinds, [Err(ErrorKind::Pending)]);
        if is_committed {
            producer.commit(DEADLINE).await.expect("commit");
        } else {
            producer.abort(DEADLINE).await.expect("abort");
        }
        let committed = stable(&mut admin, &partitions).await;
        let expected = Committed { offset: 5, metadata: "mine".to_owned() };
        assert_eq!(committed, [Some(expected)]);
    }
}

/// Metadata of 4,096 bytes is kept whole; one byte more aborts the transaction.
pub async fn metadata_has_a_limit<C: Cluster>(cluster: &C) {
    let topic = "metadata_has_a_limit";
    cluster.create_topic(topic, 1, None).await;
    let spec = ClientSpec::new(topic, topic);
    let kafka = cluster.client(&spec);
    let reader = joined(cluster, &spec).await;
    let mut producer = ready_producer(&kafka, topic).await;
    let mut admin = kafka.admin().expect("valid settings");
    let group = reader.consumer.group();
    let longest = "m".repeat(4096);

    producer.begin().expect("ready");
    let whole = [offset_of(topic, 0, 1, &longest)];
    producer.send_offsets(&whole, &group, DEADLINE).await.expect("fits");
    producer.commit(DEADLINE).await.expect("commit");

    producer.begin().expect("ready");
    let longer = [offset_of(topic, 0, 2, &format!("{longest}m"))];
    let error = producer.send_offsets(&longer, &group, DEADLINE).await.expect_err("too long");
    assert_eq!(error.disposition, Disposition::Abortable);
    producer.abort(DEADLINE).await.expect("abort");

    let partitions = [TopicPartition::new(topic, 0)];
    let committed = stable(&mut admin, &partitions).await;
    assert_eq!(committed, [Some(Committed { offset: 1, metadata: longest })]);
}

/// Offsets of a member whose generation is over are refused.
pub async fn stale_generation_is_refused<C: Cluster>(cluster: &C) {
    let topic = "stale_generation_is_refused";
    cluster.create_topic(topic, 1, None).await;
    let spec = ClientSpec::new(topic, topic).short_poll_interval();
    let kafka = cluster.client(&spec);
    let reader = joined(cluster, &spec).await;
    let mut producer = ready_producer(&kafka, topic).await;
    // The behaviour is what happens when this time has passed without a poll.
    tokio::time::sleep(SHORT_POLL_INTERVAL + Duration::from_secs(2)).await;
    producer.begin().expect("ready");
    let offsets = [offset_of(topic, 0, 5, "stale")];
    let group = reader.consumer.group();
    let error = producer.send_offsets(&offsets, &group, DEADLINE).await.expect_err("stale");
    assert!(matches!(error.kind, ErrorKind::StaleGeneration | ErrorKind::NoGeneration), "{error}");
    assert_eq!(error.disposition, Disposition::Abortable);
    producer.abort(DEADLINE).await.expect("abort");
    let mut admin = kafka.admin().expect("valid settings");
    let partitions = [TopicPartition::new(topic, 0)];
    assert_eq!(stable(&mut admin, &partitions).await, [None]);
}

/// Offsets are not sent for a member that has not joined: the broker would accept them.
pub async fn no_generation_is_refused<C: Cluster>(cluster: &C) {
    let topic = "no_generation_is_refused";
    cluster.create_topic(topic, 1, None).await;
    let kafka = cluster.client(&ClientSpec::new(topic, topic));
    let mut producer = ready_producer(&kafka, topic).await;
    producer.begin().expect("ready");
    let offsets = [offset_of(topic, 0, 5, "nobody's")];
    let consumer = kafka.consumer(0).expect("valid settings");
    let group = consumer.group();
    assert_eq!(group.generation(), None);
    let error = producer.send_offsets(&offsets, &group, DEADLINE).await.expect_err("refused");
    assert_eq!(error.kind, ErrorKind::NoGeneration);
    producer.abort(DEADLINE).await.expect("abort");
    let mut admin = kafka.admin().expect("valid settings");
    let partitions = [TopicPartition::new(topic, 0)];
    assert_eq!(stable(&mut admin, &partitions).await, [None]);
}

/// Markers are written after `commit` has returned, so that visibility is waited for.
async fn until_visible<C: Cluster>(cluster: &C, topic: &str, records: usize) -> Vec<String> {
    let deadline = tokio::time::Instant::now() + DEADLINE;
    loop {
        let values = cluster.read_committed(topic).await;
        if values.len() >= records || tokio::time::Instant::now() >= deadline {
            return values;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
