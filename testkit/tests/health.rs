//! Goal: whoever looks at the status of a processor that does not get on sees what it waits for.
//! Method: the real driver on the model Kafka in virtual time; each thing that can hold it up does.

mod driven;
mod wait;

use std::future::{pending, ready};
use std::time::Duration;

use countersign::handler::{Handler, each};
use countersign::{Config, HandlerError, Health, Message, Outputs, Processor, Watch, Why};
use countersign_testkit::model::{ModelConfig, ModelKafka};
use tokio::time::{Instant, sleep};

use wait::until;

fn kafka() -> ModelKafka {
    let kafka = ModelKafka::new(ModelConfig::default());
    kafka.create_topic("in", 1);
    kafka.create_topic("out", 1);
    for offset in 0..10 {
        kafka.append("in", 0, None, format!("{offset}").as_bytes());
    }
    kafka
}

fn started(kafka: &ModelKafka, config: Config, handler: impl Handler) -> Watch {
    let built = Processor::builder().config(config).handler(handler).build();
    let processor = built.expect("the settings fit each other");
    let watch = processor.handle().status();
    drop(driven::start(kafka, "in", processor));
    watch
}

async fn ill(watch: &Watch) -> Health {
    until("it is not well", || !watch.get().health.is_well()).await;
    watch.get().health
}

#[tokio::test(start_paused = true)]
async fn a_message_that_fails_for_ever_is_named_with_its_partition() {
    let kafka = kafka();
    let handler = each(|message: Message| {
        let fails = message.offset() == 3;
        let error = HandlerError::retryable("no stock");
        ready(if fails { Err(error) } else { Ok(Outputs::none()) })
    });
    let watch = started(&kafka, driven::config("in"), handler);
    let health = ill(&watch).await;
    let [stuck] = health.stuck.as_slice() else { panic!("{health}") };
    assert_eq!((stuck.topic.as_str(), stuck.partition, stuck.offset), ("in", 0, 3));
    assert!(stuck.since > Health::STUCK);
    let is_why = matches!(stuck.why, Why::Retry(3) | Why::Handler(3) | Why::Store(3));
    assert!(is_why, "{health}");
    assert!(health.to_string().contains("in/0 has stood at 3 for"), "{health}");
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_does_not_end_is_told() {
    let kafka = kafka();
    let handler = each(|_: Message| pending::<Result<Outputs, HandlerError>>());
    let watch = started(&kafka, driven::config("in"), handler);
    let health = ill(&watch).await;
    assert_eq!(health.stuck.first().map(|stuck| stuck.why), Some(Why::Handler(0)), "{health}");
}

#[tokio::test(start_paused = true)]
async fn who_gets_on_is_well_and_tells_so_every_second() {
    let kafka = kafka();
    let watch =
        started(&kafka, driven::config("in"), each(|_: Message| ready(Ok(Outputs::none()))));
    until("everything is done", || watch.get().counts.confirmed == 10).await;
    let over = Instant::now() + 3 * Health::STUCK;
    while Instant::now() < over {
        sleep(Duration::from_millis(100)).await;
        let health = watch.get().health;
        assert!(health.is_well(), "{health}");
        assert!(health.told.is_some_and(|told| told <= Duration::from_secs(2)), "{health:?}");
        assert!(health.stuck.is_empty() && health.transaction.is_none(), "{health:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_is_gone_tells_nothing_any_more() {
    let kafka = kafka();
    let built = Processor::builder()
        .config(driven::config("in"))
        .handler(each(|_: Message| ready(Ok(Outputs::none()))))
        .build();
    let processor = built.expect("the settings fit each other");
    let watch = processor.handle().status();
    let run = driven::start(&kafka, "in", processor);
    until("it has begun", || watch.get().health.told.is_some()).await;
    run.abort();
    let health = ill(&watch).await;
    assert!(health.told.is_some_and(|told| told > Health::TOLD), "{health:?}");
    assert!(health.to_string().contains("a worker has not answered for"), "{health}");
}
