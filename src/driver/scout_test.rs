//! What the scout makes of topics that are not known.

use super::*;
use crate::driver::{Host, Loops};
use crate::kafka::FakeAdmin;

async fn asked(known_after: Duration, patience: Duration) -> Result<Vec<Topic>, KafkaError> {
    let (watchdog, _) = Watchdog::start(Host::Tasks, Loops::default());
    let known_from = Instant::now() + known_after;
    let scout = Scout::start(&watchdog, move || Ok(FakeAdmin::known_from(known_from)));
    let scout = scout.expect("tasks need no thread");
    existing(&scout, &["in".into()], patience).await
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_is_new_to_the_broker_is_waited_for() {
    let topics = asked(Duration::from_secs(3), Duration::from_secs(10)).await;
    assert_eq!(topics.expect("it comes in time").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_is_gone_is_told() {
    let begun = Instant::now();
    let error = asked(Duration::from_secs(60), Duration::from_secs(10)).await;
    assert_eq!(error.expect_err("it is gone").kind, ErrorKind::UnknownTopic);
    assert!(begun.elapsed() < Duration::from_secs(15), "it took {:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_slip_in_a_name_is_told_at_once() {
    let begun = Instant::now();
    let error = asked(Duration::from_secs(60), Duration::ZERO).await;
    assert_eq!(error.expect_err("nobody made it").kind, ErrorKind::UnknownTopic);
    assert!(begun.elapsed() < Duration::from_secs(1), "it took {:?}", begun.elapsed());
}
