//! Topics of a local Kafka.

use std::thread;
use std::time::{Duration, Instant};

use futures::executor::block_on;
use rdkafka::ClientConfig;
use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::metadata::MetadataTopic;

use super::LocalKafkaError;

const TIMEOUT: Duration = Duration::from_secs(30);
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Settings that keep a client from backing off for seconds while the broker starts.
fn client_config(bootstrap: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", bootstrap)
        .set("reconnect.backoff.ms", "20")
        .set("reconnect.backoff.max.ms", "100");
    config
}

/// Whether a metadata request brings a broker that leads all there is: after a kill it is back for
/// a moment before its partitions are.
pub(super) fn answers(bootstrap: &str, timeout: Duration) -> Result<bool, KafkaError> {
    let client: BaseConsumer = client_config(bootstrap).create()?;
    let Ok(metadata) = client.fetch_metadata(None, timeout) else {
        return Ok(false);
    };
    let mut partitions = metadata.topics().iter().flat_map(MetadataTopic::partitions);
    Ok(!metadata.brokers().is_empty() && partitions.all(|partition| partition.leader() >= 0))
}

/// Creates a topic and waits until every partition has a leader.
pub(super) fn create(
    bootstrap: &str,
    name: &str,
    partitions: u32,
    configs: &[(&str, &str)],
) -> Result<(), LocalKafkaError> {
    let call = || format!("creating topic {name}");
    let count = i32::try_from(partitions).unwrap_or(i32::MAX);
    let mut topic = NewTopic::new(name, count, TopicReplication::Fixed(1));
    for (key, value) in configs {
        topic = topic.set(key, value);
    }
    let admin = admin(bootstrap)?;
    let results = block_on(admin.create_topics([&topic], &options()))
        .map_err(|source| LocalKafkaError::Kafka { call: call(), source })?;
    refused(call, results)?;
    wait_for(&admin, name, "created", |topic| {
        topic.error().is_none()
            && topic.partitions().len() == usize::try_from(partitions).unwrap_or(usize::MAX)
            && topic.partitions().iter().all(|partition| partition.leader() >= 0)
    })
}

/// Changes a topic's settings.
pub(super) fn alter(
    bootstrap: &str,
    name: &str,
    configs: &[(&str, &str)],
) -> Result<(), LocalKafkaError> {
    let call = || format!("altering topic {name}");
    let mut change = AlterConfig::new(ResourceSpecifier::Topic(name));
    for (key, value) in configs {
        change = change.set(key, value);
    }
    let results = block_on(admin(bootstrap)?.alter_configs([&change], &options()))
        .map_err(|source| LocalKafkaError::Kafka { call: call(), source })?;
    refused(call, results)
}

/// Deletes a topic and waits until it is gone.
pub(super) fn delete(bootstrap: &str, name: &str) -> Result<(), LocalKafkaError> {
    let call = || format!("deleting topic {name}");
    let admin = admin(bootstrap)?;
    let results = block_on(admin.delete_topics(&[name], &options()))
        .map_err(|source| LocalKafkaError::Kafka { call: call(), source })?;
    refused(call, results)?;
    wait_for(&admin, name, "deleted", |topic| topic.error().is_some())
}

fn admin(bootstrap: &str) -> Result<AdminClient<DefaultClientContext>, LocalKafkaError> {
    client_config(bootstrap).create().map_err(|source| LocalKafkaError::Kafka {
        call: "creating an admin client".to_owned(),
        source,
    })
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(TIMEOUT)).operation_timeout(Some(TIMEOUT))
}

fn refused<Done, Place>(
    call: impl Fn() -> String,
    results: Vec<Result<Done, (Place, RDKafkaErrorCode)>>,
) -> Result<(), LocalKafkaError> {
    for result in results {
        result.map_err(|(_, code)| LocalKafkaError::Kafka {
            call: call(),
            source: KafkaError::AdminOp(code),
        })?;
    }
    Ok(())
}

fn wait_for(
    admin: &AdminClient<DefaultClientContext>,
    name: &str,
    expected: &'static str,
    done: impl Fn(&MetadataTopic) -> bool,
) -> Result<(), LocalKafkaError> {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        let metadata = admin.inner().fetch_metadata(Some(name), TIMEOUT).map_err(|source| {
            LocalKafkaError::Kafka { call: format!("describing {name}"), source }
        })?;
        if metadata.topics().iter().any(|topic| topic.name() == name && done(topic)) {
            return Ok(());
        }
        if Instant::now() >= deadline {
            let topic = name.to_owned();
            return Err(LocalKafkaError::Topic { topic, expected, waited: TIMEOUT });
        }
        thread::sleep(POLL_INTERVAL);
    }
}
