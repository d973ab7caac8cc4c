//! How large records and batches may be.

use std::sync::Arc;

use countersign::kafka::{Admin, ErrorKind, Header, Kafka, Output, Producer, Sizes, batch_bytes};
use tokio::time::{Instant, sleep};

use super::{ClientSpec, Cluster, DEADLINE, output, ready_producer};

/// The largest batch that topics take is told in the order asked, also after it was changed.
pub async fn max_message_bytes_is_told<C: Cluster>(cluster: &C) {
    let (one, two) = ("max_message_bytes_is_told.1", "max_message_bytes_is_told.2");
    cluster.create_topic(one, 1, Some(10_000)).await;
    cluster.create_topic(two, 2, None).await;
    let mut admin = cluster.client(&ClientSpec::new(one, one)).admin().expect("valid settings");
    let names = [Arc::from(two), Arc::from(one)];
    let told = admin.max_message_bytes(&names, DEADLINE).await.expect("they exist");
    assert_eq!(told, [Some(1_048_588), Some(10_000)]);
    cluster.set_max_message_bytes(one, 5_000).await;
    let deadline = Instant::now() + DEADLINE;
    while admin.max_message_bytes(&names[1..], DEADLINE).await.expect("it exists") != [Some(5_000)]
    {
        assert!(Instant::now() < deadline, "the change is not told");
        sleep(std::time::Duration::from_millis(10)).await;
    }
}

/// A topic that does not exist has no limit that could be told.
pub async fn max_message_bytes_of_an_unknown_topic<C: Cluster>(cluster: &C) {
    let topic = "max_message_bytes_of_an_unknown_topic";
    let mut admin = cluster.client(&ClientSpec::new(topic, topic)).admin().expect("valid settings");
    let error = admin.max_message_bytes(&[Arc::from(topic)], DEADLINE).await.expect_err("unknown");
    assert_eq!(error.kind, ErrorKind::UnknownTopic);
}

/// An output of so many bytes, as a batch with this mark.
fn of_size(topic: &str, bytes: usize, mark: Option<&[u8]>) -> Output {
    let header = |name: &str, value: Option<&'static str>| Header {
        name: name.into(),
        value: value.map(Into::into),
    };
    let of_value = |len: usize| Output {
        key: Some("a key".into()),
        headers: vec![
            header("one", Some("value")),
            header("none", None),
            header("countersign", None),
        ],
        timestamp: Some(1_794_000_000_000),
        ..output(topic, 0, vec![b'x'; len])
    };
    let mark = mark.map(<[u8]>::len);
    // All lengths on the way have as many digits.
    let rest = batch_bytes(&of_value(bytes - 500), mark) - (bytes - 500);
    of_value(bytes - rest)
}

/// The bytes of a batch that are computed are those that a broker compares with the limit.
pub async fn computed_size_is_what_the_broker_compares<C: Cluster>(cluster: &C) {
    let topic = "computed_size_is_what_the_broker_compares";
    let limit = 10_000;
    cluster.create_topic(topic, 1, Some(limit)).await;
    let kafka = cluster.client(&ClientSpec::new(topic, topic));
    for mark in [None, Some(&b"1 an-instance 0123456789abcdef 17 orders 3 12345 1/2"[..])] {
        for (bytes, fits) in [(limit, true), (limit + 1, false)] {
            let output = of_size(topic, bytes, mark);
            assert_eq!(batch_bytes(&output, mark.map(<[u8]>::len)), bytes);
            // As the processor does after a refusal.
            let mut producer = ready_producer(&kafka, topic).await;
            producer.begin().expect("ready");
            producer.send_one(output, mark).expect("accepted");
            let delivered = producer.flush(0, DEADLINE).await;
            let refused = delivered.as_ref().err().map(|error| error.kind);
            let expected = (!fits).then_some(ErrorKind::TooLarge);
            assert_eq!(refused, expected, "{bytes} bytes, {mark:?}: {delivered:?}");
            producer.abort(DEADLINE).await.expect("abort");
        }
    }
}

/// No record is refused because of those that share its batch.
pub async fn batches_fit_the_sizes_they_are_given<C: Cluster>(cluster: &C) {
    let topic = "batches_fit_the_sizes_they_are_given";
    cluster.create_topic(topic, 1, Some(5_000)).await;
    let sizes = Sizes { batch_bytes: 5_000, record_bytes: 5_000 };
    let kafka = cluster.client(&ClientSpec::new(topic, topic));
    let mut producer = kafka.producer(topic, sizes).expect("valid settings");
    producer.init(DEADLINE).await.expect("the coordinator answers");
    producer.begin().expect("ready");
    for n in 0..2_000 {
        let record = if n % 100 == 0 {
            of_size(topic, 5_000, None)
        } else {
            output(topic, 0, vec![b'x'; 100 + n % 50])
        };
        producer.send_one(record, None).expect("accepted");
    }
    producer.flush(0, DEADLINE).await.expect("none is refused");
    producer.abort(DEADLINE).await.expect("abort");
}
