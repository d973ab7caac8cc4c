//! Questions about group and topics.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use countersign_statemachine::Disposition;
use rdkafka::client::NativeClient;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::RDKafkaErrorCode as Code;

use super::classify::{Failure, Unflagged, classify, classify_binding};
use super::commits::{committed, of_partition, stable};
use super::config::ClusterConfig;
use super::context::Context;
use super::events::{common, explain};
use super::lists::plain;
use super::ranges::log_ranges;
use super::raw::{self, Configured, Description, Queue};
use super::rights::Names;
use super::settings;
use crate::kafka::{
    Admin, Committed, Each, ErrorKind, KafkaError, LogRange, Members, Topic, TopicPartition,
};

/// A client for questions: a consumer that has the group's name and never joins it.
pub struct LibrdAdmin {
    // The queue belongs to the client and is dropped before it.
    queue: Queue,
    base: BaseConsumer<Context>,
    group: CString,
    names: Names,
}

impl fmt::Debug for LibrdAdmin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LibrdAdmin").finish_non_exhaustive()
    }
}

impl LibrdAdmin {
    pub(super) fn new(config: &ClusterConfig) -> Result<Self, KafkaError> {
        let call = "rd_kafka_new";
        let base = BaseConsumer::from_config_and_context(&settings::admin(config), Context)
            .map_err(|error| classify_binding(call, &error))?;
        let queue = Queue::of_consumer(base.client().native_client()).ok_or_else(|| {
            let kind = ErrorKind::Other;
            KafkaError::new(call, kind, Disposition::Fatal, "the client has no queue")
        })?;
        let group = CString::new(config.group.as_str())
            .map_err(|error| classify_binding(call, &error.into()))?;
        Ok(Self { queue, base, group, names: Names::of_reader(config) })
    }

    fn native(&self) -> &NativeClient {
        self.base.client().native_client()
    }

    /// Reads the events that wait. Nobody else does.
    fn drain(&self) -> Option<KafkaError> {
        let mut fault = None;
        while let Some(event) = self.queue.poll(Duration::ZERO) {
            fault = common("admin", &event).or(fault);
        }
        fault
    }

    fn done<T>(&self, call: &'static str, result: Result<T, Failure>) -> Result<T, KafkaError> {
        let fault = self.drain();
        result.map_err(|failure| {
            let failure = self.names.explain(failure, &[]);
            explain(classify(call, failure, Unflagged::Retriable), fault)
        })
    }
}

fn topic(call: &'static str, description: Description) -> Result<Topic, KafkaError> {
    if let Some(failure) = description.failure {
        let message = format!("topic {}: {}", description.name, failure.message);
        return Err(classify(call, Failure { message, ..failure }, Unflagged::Retriable));
    }
    Ok(Topic {
        name: description.name.into(),
        id: description.id,
        partitions: u32::try_from(description.partitions).unwrap_or(u32::MAX),
    })
}

fn c_names(call: &'static str, names: &[Arc<str>]) -> Result<Vec<CString>, KafkaError> {
    let names = names.iter().map(|name| CString::new(&**name));
    names.collect::<Result<_, _>>().map_err(|error| classify_binding(call, &error.into()))
}

/// What is told of one topic; nothing where it is not for us to know.
fn largest(
    call: &'static str,
    topic: &str,
    told: &[Configured],
) -> Result<Option<u32>, KafkaError> {
    let Some(told) = told.iter().find(|told| told.topic == topic) else { return Ok(None) };
    match &told.value {
        Ok(value) => Ok(value.as_ref().and_then(|value| value.parse().ok())),
        Err(failure) => {
            let message = format!("topic {topic}: {}", failure.message);
            let failure = Failure { message, ..failure.clone() };
            let error = classify(call, failure, Unflagged::Retriable);
            if error.kind == ErrorKind::NotAuthorized { Ok(None) } else { Err(error) }
        }
    }
}

impl Admin for LibrdAdmin {
    async fn cluster_id(&mut self, timeout: Duration) -> Result<String, KafkaError> {
        let code = Code::OperationTimedOut;
        // It comes with the first metadata, which nothing else asks for before a timer of 1 s.
        let id = raw::reach(self.native(), timeout).and_then(|()| {
            raw::cluster_id(self.native())
                .ok_or_else(|| Failure::of(code, "the cluster's id was not told in time"))
        });
        self.done("clusterid", id)
    }

    async fn topics(
        &mut self,
        names: &[Arc<str>],
        timeout: Duration,
    ) -> Result<Vec<Topic>, KafkaError> {
        let call = "DescribeTopics";
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let owned = c_names(call, names)?;
        let borrowed: Vec<_> = owned.iter().map(CString::as_c_str).collect();
        let told = raw::describe_topics(self.native(), &borrowed, timeout);
        let mut told = self.done(call, told)?;
        names
            .iter()
            .map(|name| {
                let place = told.iter().position(|description| description.name == **name);
                let place = place.ok_or_else(|| {
                    let message = format!("topic {name}: it is not in the answer");
                    KafkaError::new(call, ErrorKind::UnknownTopic, Disposition::Retriable, message)
                })?;
                topic(call, told.swap_remove(place))
            })
            .collect()
    }

    async fn max_message_bytes(
        &mut self,
        names: &[Arc<str>],
        timeout: Duration,
    ) -> Result<Vec<Option<u32>>, KafkaError> {
        let call = "DescribeConfigs";
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let owned = c_names(call, names)?;
        let borrowed: Vec<_> = owned.iter().map(CString::as_c_str).collect();
        let told = raw::describe_setting(self.native(), &borrowed, c"max.message.bytes", timeout);
        let told = self.done(call, told)?;
        names.iter().map(|name| largest(call, name, &told)).collect()
    }

    async fn committed(
        &mut self,
        partitions: &[TopicPartition],
        timeout: Duration,
    ) -> Each<Option<Committed>> {
        let told = stable(self.native(), partitions, timeout);
        let fault = self.drain();
        told.map_err(|error| explain(error, fault))
    }

    async fn committed_now(
        &mut self,
        partitions: &[TopicPartition],
        timeout: Duration,
    ) -> Result<Vec<Option<Committed>>, KafkaError> {
        let call = "ListConsumerGroupOffsets";
        if partitions.is_empty() {
            return Ok(Vec::new());
        }
        let list = plain(call, partitions)?;
        let told = raw::committed_now(self.native(), &self.group, &list, timeout);
        let mut told: BTreeMap<_, _> = self.done(call, told)?.into_iter().collect();
        let each = partitions.iter().map(|partition| {
            let untold = || Err(Failure::of(Code::BadMessage, "it is not in the answer"));
            let told = told.remove(partition).unwrap_or_else(untold);
            told.map(committed).map_err(|failure| of_partition(call, partition, &failure))
        });
        each.collect()
    }

    async fn members(&mut self, timeout: Duration) -> Result<Members, KafkaError> {
        let told = raw::members(self.native(), &self.group, timeout);
        self.done("DescribeConsumerGroups", told)
    }

    async fn log_ranges(
        &mut self,
        partitions: &[TopicPartition],
        timeout: Duration,
    ) -> Each<LogRange> {
        let told = log_ranges(self.native(), partitions, timeout);
        let fault = self.drain();
        told.map_err(|error| explain(error, fault))
    }
}
