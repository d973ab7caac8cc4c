//! What the scout makes of topics that are not known.

use super::*;
use crate::kafka::{Committed, LogRange};

/// Knows every topic once it has been there for this long.
struct Admins(Instant, Duration);

impl Admin for Admins {
    async fn cluster_id(&mut self, _: Duration) -> Result<String, KafkaError> {
        Ok("cluster".to_owned())
    }

    async fn topics(&mut self, names: &[Arc<str>], _: Duration) -> Result<Vec<Topic>, KafkaError> {
        let Self(created, age) = *self;
        if created.elapsed() < age {
            let (kind, message) = (ErrorKind::UnknownTopic, "no such topic");
            return Err(KafkaError::new("topics", kind, Disposition::Retriable, message));
        }
        let topic = |name: &Arc<str>| Topic { name: name.clone(), id: [1; 16], partitions: 1 };
        Ok(names.iter().map(topic).collect())
    }

    async fn max_message_bytes(
        &mut self,
        names: &[Arc<str>],
        _: Duration,
    ) -> Result<Vec<Option<u32>>, KafkaError> {
        Ok(names.iter().map(|_| None).collect())
    }

    async fn committed(
        &mut self,
        of: &[TopicPartition],
        _: Duration,
    ) -> Result<Vec<Option<Committed>>, KafkaError> {
        Ok(of.iter().map(|_| None).collect())
    }

    async fn any_committed(
        &mut self,
        _: &[TopicPartition],
        _: Duration,
    ) -> Result<bool, KafkaError> {
        Ok(false)
    }

    async fn members(&mut self, _: Duration) -> Result<Members, KafkaError> {
        Ok(Members {
            is_stable: true,
            all: Vec::new(),
            assigned: std::collections::BTreeMap::new(),
        })
    }

    async fn log_ranges(
        &mut self,
        of: &[TopicPartition],
        _: Duration,
    ) -> Result<Vec<LogRange>, KafkaError> {
        Ok(of.iter().map(|_| LogRange { start: 0, end: 0 }).collect())
    }
}

async fn asked(known_after: Duration, patience: Duration) -> Result<Vec<Topic>, KafkaError> {
    let scout = Scout::start(Admins(Instant::now(), known_after), Host::Tasks);
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
