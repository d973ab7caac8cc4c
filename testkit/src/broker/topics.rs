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
use rdkafka::metadata::{MetadataPartition, MetadataTopic};

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

/// Where the replicas of a new topic are.
#[derive(Debug, Clone, Copy)]
pub(super) enum Replicas<'a> {
    /// As many as the brokers' settings say, where the controller puts them.
    Default,
    /// Those of each partition on these brokers, of which the first leads.
    On(&'a [i32]),
}

/// Whether a metadata request brings the broker with this id, and a leader for each partition that
/// it has: after a kill it is back for a moment before its partitions are.
pub(super) fn answers(bootstrap: &str, id: u16, timeout: Duration) -> Result<bool, KafkaError> {
    let client: BaseConsumer = client_config(bootstrap).create()?;
    let Ok(metadata) = client.fetch_metadata(None, timeout) else {
        return Ok(false);
    };
    let id = i32::from(id);
    let mut partitions = metadata.topics().iter().flat_map(MetadataTopic::partitions);
    Ok(metadata.brokers().iter().any(|broker| broker.id() == id)
        && partitions.all(|found| found.leader() >= 0 || !found.replicas().contains(&id)))
}

/// Waits until each replica of each partition has what its leader has.
pub(super) fn wait_in_sync(bootstrap: &str, timeout: Duration) -> Result<(), LocalKafkaError> {
    let admin = admin(bootstrap)?;
    let deadline = Instant::now() + timeout;
    loop {
        // While a broker goes or comes there may be no answer.
        if let Ok(metadata) = admin.inner().fetch_metadata(None, timeout) {
            let mut partitions = metadata.topics().iter().flat_map(MetadataTopic::partitions);
            if partitions.all(|found| found.leader() >= 0 && in_sync(found)) {
                return Ok(());
            }
        }
        if Instant::now() >= deadline {
            return Err(LocalKafkaError::NotInSync { waited: timeout });
        }
        thread::sleep(POLL_INTERVAL);
    }
}

fn in_sync(partition: &MetadataPartition) -> bool {
    partition.isr().len() == partition.replicas().len()
}

/// Creates a topic and waits until every partition has a leader.
pub(super) fn create(
    bootstrap: &str,
    name: &str,
    partitions: u32,
    replicas: Replicas<'_>,
    configs: &[(&str, &str)],
) -> Result<(), LocalKafkaError> {
    let call = || format!("creating topic {name}");
    let count = i32::try_from(partitions).unwrap_or(i32::MAX);
    let assignment;
    let replication = match replicas {
        // What the protocol has for the brokers' setting.
        Replicas::Default => TopicReplication::Fixed(-1),
        Replicas::On(brokers) => {
            assignment = vec![brokers; usize::try_from(partitions).unwrap_or(usize::MAX)];
            TopicReplication::Variable(&assignment)
        }
    };
    let mut topic = NewTopic::new(name, count, replication);
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
