//! Whose record was refused, as far as the broker says.

use countersign::kafka::{ErrorKind, Output, Producer, Refused};

use super::{ClientSpec, Cluster, DEADLINE, output, ready_producer};

fn keyed(topic: &str, value: &'static str) -> Output {
    Output { key: Some("key".into()), ..output(topic, 0, value) }
}

/// A broker refuses a batch as a whole, and says which of its records are to blame
/// (`record_errors` of a produce response).
pub async fn records_without_a_key_for_a_compacted_topic_are_named<C: Cluster>(cluster: &C) {
    let topic = "records_without_a_key_for_a_compacted_topic_are_named";
    cluster.create_compacted_topic(topic, 1).await;
    let kafka = cluster.client(&ClientSpec::new(topic, topic));
    let mut producer = ready_producer(&kafka, topic).await;
    for wrong in [vec![3], vec![0], vec![2, 7, 8]] {
        producer.begin().expect("ready");
        for nth in 0..9 {
            let is_wrong = wrong.contains(&nth);
            let record = if is_wrong { output(topic, 0, "no key") } else { keyed(topic, "good") };
            producer.send_one(record, None).expect("accepted");
        }
        let error = producer.flush(0, DEADLINE).await.expect_err("some are refused");
        assert_eq!(error.kind, ErrorKind::Rejected, "{error}");
        assert_eq!(producer.refused(), Refused { named: wrong, among: Vec::new() });
        producer.abort(DEADLINE).await.expect("abort");
    }
    // As the processor does after a refusal: the broker has not seen the numbers of the records
    // that it refused, and misses them in what follows.
    let mut producer = ready_producer(&kafka, topic).await;
    producer.begin().expect("ready");
    producer.send_one(keyed(topic, "good"), None).expect("accepted");
    producer.flush(0, DEADLINE).await.expect("it is good");
    assert_eq!(producer.refused(), Refused::default());
    producer.abort(DEADLINE).await.expect("abort");
}

/// Any of its records may be to blame; one that was alone in its batch is.
pub async fn a_batch_that_is_too_large_names_no_record<C: Cluster>(cluster: &C) {
    let topic = "a_batch_that_is_too_large_names_no_record";
    cluster.create_topic(topic, 1, Some(5_000)).await;
    let kafka = cluster.client(&ClientSpec::new(topic, topic));
    for (count, bytes) in [(20, 400), (1, 6_000)] {
        let mut producer = ready_producer(&kafka, topic).await;
        producer.begin().expect("ready");
        for _ in 0..count {
            producer.send_one(output(topic, 0, vec![b'x'; bytes]), None).expect("accepted");
        }
        let error = producer.flush(0, DEADLINE).await.expect_err("the batch is refused");
        assert_eq!(error.kind, ErrorKind::TooLarge, "{error}");
        let all: Vec<u64> = (0..count).collect();
        let expected = match count {
            1 => Refused { named: all, among: Vec::new() },
            _ => Refused { named: Vec::new(), among: all },
        };
        assert_eq!(producer.refused(), expected);
        producer.abort(DEADLINE).await.expect("abort");
    }
}

/// After a refusal a producer takes nothing more; a flush still tells why.
pub async fn what_is_sent_behind_a_refused_batch_does_not_hide_it<C: Cluster>(cluster: &C) {
    let topic = "what_is_sent_behind_a_refused_batch_does_not_hide_it";
    cluster.create_compacted_topic(topic, 1).await;
    let kafka = cluster.client(&ClientSpec::new(topic, topic));
    let mut producer = ready_producer(&kafka, topic).await;
    producer.begin().expect("ready");
    producer.send_one(keyed(topic, "good"), None).expect("accepted");
    producer.send_one(output(topic, 0, "no key"), None).expect("accepted");
    producer.send_one(keyed(topic, "good"), None).expect("accepted");
    producer.flush(0, DEADLINE).await.expect_err("refused");
    let error = producer.send_one(keyed(topic, "good"), None).expect_err("it must be aborted");
    assert!(!error.is_refusal(), "it is not to blame: {error}");
    let error = producer.flush(0, DEADLINE).await.expect_err("refused");
    assert_eq!(error.kind, ErrorKind::Rejected, "{error}");
    assert_eq!(producer.refused(), Refused { named: vec![1], among: Vec::new() });
    producer.abort(DEADLINE).await.expect("abort");
}
