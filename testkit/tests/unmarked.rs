//! Goal: without provenance, where the outputs of many messages go to the producer in one call,
//! each comes out once and in order, also if the producer's queue is full in the middle of them.
//! Method: the real driver on the model Kafka in virtual time.

mod driven;
mod wait;

use std::future::ready;

use countersign::handler::each;
use countersign::{Message, Outputs, Processor, To};
use countersign_testkit::model::{Isolation, ModelConfig, ModelKafka};

use wait::until;

const MESSAGES: u64 = 200;

/// A message has none to four outputs, over two partitions.
fn outputs_of(offset: u64) -> impl Iterator<Item = (u32, String)> {
    (0..offset % 5)
        .map(move |n| (u32::from((offset + n).is_multiple_of(3)), format!("{offset} {n}")))
}

fn handle(message: &Message) -> Outputs {
    outputs_of(message.offset()).fold(Outputs::none(), |outputs, (partition, value)| {
        outputs.and(To::topic("out").partition(partition).value(value))
    })
}

fn visible(kafka: &ModelKafka, partition: u32) -> Vec<String> {
    let records = kafka.records("out", partition, Isolation::ReadCommitted);
    let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
    records.into_iter().map(|record| text(&record.value.unwrap_or_default())).collect()
}

#[tokio::test(start_paused = true)]
async fn every_output_comes_once_through_a_queue_that_is_full_again_and_again() {
    let kafka = ModelKafka::new(ModelConfig { queue_max_messages: 3, ..ModelConfig::default() });
    kafka.create_topic("in", 1);
    kafka.create_topic("out", 2);
    for offset in 0..MESSAGES {
        kafka.append("in", 0, None, format!("{offset}").as_bytes());
    }
    let mut config = driven::config("in");
    config.provenance = false;
    let handler = each(|message: Message| ready(Ok(handle(&message))));
    let built = Processor::builder().config(config).handler(handler).build();
    let run = driven::start(&kafka, "in", built.expect("the settings fit each other"));

    let expected = [0, 1].map(|partition| {
        let outputs = (0..MESSAGES).flat_map(outputs_of);
        outputs.filter(|it| it.0 == partition).map(|it| it.1).collect::<Vec<_>>()
    });
    let has_all = || (0..2).all(|at| visible(&kafka, at).len() >= expected[at as usize].len());
    until("every output", has_all).await;
    run.abort();
    assert_eq!([visible(&kafka, 0), visible(&kafka, 1)], expected);
}
