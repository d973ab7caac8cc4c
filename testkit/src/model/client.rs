//! Processes with their clients: what `Kafka` is to the library.

use std::sync::Arc;
use std::time::Duration;

use countersign::kafka::{ErrorKind, Group, Kafka, KafkaError, Sizes};
use countersign_statemachine::Disposition;
use tokio::time::Instant;

use super::ModelKafka;
use super::admin::ModelAdmin;
use super::assignor::Assignor;
use super::consumer::ModelConsumer;
use super::member::{Member, MemberConfig};
use super::producer::ModelProducer;
use super::producer_state::ProducerState;
use super::request::GroupMetadata;

/// The settings of one process's clients.
#[derive(Debug, Clone)]
pub struct ModelClient {
    /// The consumer group.
    pub group: String,
    /// Static membership: worker `n` is the group instance `{instance}-{n}`.
    pub instance: Option<String>,
    /// The topics that its consumers subscribe to.
    pub inputs: Vec<String>,
    /// How the group gives out partitions.
    pub assignor: Assignor,
    /// How long the group waits for a member that does not heart-beat.
    pub session_timeout_ms: u64,
    /// How long a member may stay away from `poll`, and how long a rebalance waits for it.
    pub max_poll_interval_ms: u64,
    /// How long a transaction may stay open.
    pub transaction_timeout_ms: u64,
    /// librdkafka's `retry.backoff.ms`.
    pub retry_backoff_ms: u64,
}

impl ModelClient {
    /// Settings with librdkafka's times, but for a session of 10 s.
    pub fn new(group: &str, inputs: &[&str]) -> Self {
        Self {
            group: group.to_owned(),
            instance: None,
            inputs: inputs.iter().map(|&topic| topic.to_owned()).collect(),
            assignor: Assignor::default(),
            session_timeout_ms: 10_000,
            max_poll_interval_ms: 300_000,
            transaction_timeout_ms: 10_000,
            retry_backoff_ms: 100,
        }
    }
}

/// One process as the cluster sees it; clones are the same process.
#[derive(Debug, Clone)]
pub struct ModelProcess {
    kafka: ModelKafka,
    config: Arc<ModelClient>,
    id: u64,
}

impl ModelProcess {
    pub(super) fn new(kafka: ModelKafka, config: ModelClient) -> Self {
        let id = kafka.with(|state| {
            let id = state.next_number();
            state.clients.entry(id).or_default();
            id
        });
        Self { kafka, config: Arc::new(config), id }
    }

    /// Kills the process: what it had not sent is gone, nobody leaves or aborts, and calls that
    /// wait never return.
    pub fn crash(&self) {
        self.kafka.with(|state| state.crash(self.id));
    }

    /// Whether the process has crashed.
    pub fn is_crashed(&self) -> bool {
        self.kafka.with(|state| state.clients.get(&self.id).is_none_or(|c| c.is_crashed))
    }

    /// Waits until the process has crashed, by [`crash`](Self::crash) or by a fault.
    pub async fn crashed(&self) {
        let is_crashed = |client: &super::cluster::Client| client.is_crashed;
        self.kafka.until(|state| state.clients.get(&self.id).is_none_or(is_crashed)).await;
    }

    /// Stops the process as SIGSTOP does: no heart-beats, and its calls wait.
    pub fn freeze(&self) {
        self.kafka.with(|state| state.set_frozen(self.id, true));
    }

    /// Lets a frozen process go on. What it missed it finds out at its next poll.
    pub fn thaw(&self) {
        self.kafka.with(|state| state.set_frozen(self.id, false));
    }

    fn check(&self, call: &'static str) -> Result<(), KafkaError> {
        if self.is_crashed() {
            let message = "the process crashed";
            return Err(KafkaError::new(call, ErrorKind::Other, Disposition::Fatal, message));
        }
        Ok(())
    }
}

impl Kafka for ModelProcess {
    type Consumer = ModelConsumer;
    type Producer = ModelProducer;
    type Admin = ModelAdmin;
    type Group = ModelGroup;

    fn consumer(&self, worker: u32) -> Result<ModelConsumer, KafkaError> {
        self.check("consumer")?;
        let config = &self.config;
        let instance = config.instance.as_ref();
        let member = MemberConfig {
            client: self.id,
            group: Arc::from(config.group.as_str()),
            instance: instance.map(|instance| Arc::from(format!("{instance}-{worker}"))),
            topics: config.inputs.iter().map(|topic| Arc::from(topic.as_str())).collect(),
            assignor: config.assignor,
            session_timeout: Duration::from_millis(config.session_timeout_ms),
            max_poll_interval: Duration::from_millis(config.max_poll_interval_ms),
        };
        let handle = self.kafka.with(|state| {
            let handle = state.next_number();
            state.members.insert(handle, Member::new(member, Instant::now()));
            handle
        });
        Ok(ModelConsumer::new(self.kafka.clone(), handle, self.id))
    }

    /// Every record is a batch of its own.
    fn producer(&self, transactional_id: &str, sizes: Sizes) -> Result<ModelProducer, KafkaError> {
        self.check("producer")?;
        let timeout = Duration::from_millis(self.config.transaction_timeout_ms);
        let backoff = Duration::from_millis(self.config.retry_backoff_ms);
        let producer = ProducerState::new(self.id, Arc::from(transactional_id), timeout, sizes);
        let handle = self.kafka.with(|state| {
            let handle = state.next_number();
            state.producers.insert(handle, producer);
            handle
        });
        Ok(ModelProducer::new(self.kafka.clone(), handle, self.id, backoff))
    }

    fn admin(&self) -> Result<ModelAdmin, KafkaError> {
        self.check("admin")?;
        let group = Arc::from(self.config.group.as_str());
        Ok(ModelAdmin::new(self.kafka.clone(), self.id, group))
    }
}

/// Tells a member's group metadata of this moment.
#[derive(Debug, Clone)]
pub struct ModelGroup {
    kafka: ModelKafka,
    handle: u64,
}

impl ModelGroup {
    pub(super) fn new(kafka: ModelKafka, handle: u64) -> Self {
        Self { kafka, handle }
    }

    /// Without a generation nothing is sent: the broker would not fence it at all.
    pub(super) fn metadata(&self) -> Result<GroupMetadata, KafkaError> {
        let metadata = self.kafka.with(|state| {
            let member = state.members.get(&self.handle)?;
            Some(GroupMetadata {
                group: member.group.clone(),
                generation: member.generation?,
                member_id: member.member_id.clone().unwrap_or_default(),
                instance: member.instance.clone(),
            })
        });
        metadata.ok_or_else(|| {
            let call = "send_offsets_to_transaction";
            let message = "the member is in no generation; nothing was sent";
            KafkaError::new(call, ErrorKind::NoGeneration, Disposition::Abortable, message)
        })
    }
}

impl Group for ModelGroup {
    fn generation(&self) -> Option<i32> {
        self.kafka.with(|state| state.members.get(&self.handle)?.generation)
    }
}
