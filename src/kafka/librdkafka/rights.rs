//! Names what is missing where Kafka refuses for good: its own words name neither the right nor the
//! setting, and often not the resource.

use rdkafka::error::RDKafkaErrorCode as Code;

use super::classify::Failure;
use super::config::ClusterConfig;
use super::settings::strategy;

/// For what a client asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asking {
    /// To be a member and to read, or about offsets.
    Read,
    /// To write in transactions.
    Write,
}

/// The names of a client's resources and settings.
#[derive(Debug, Clone)]
pub(super) struct Names {
    asking: Asking,
    group: String,
    transactional_id: String,
    session_timeout_ms: u32,
    assignor: &'static str,
}

impl Names {
    /// Those of a client that reads.
    pub(super) fn of_reader(config: &ClusterConfig) -> Self {
        Self {
            asking: Asking::Read,
            group: config.group.clone(),
            transactional_id: String::new(),
            session_timeout_ms: config.session_timeout_ms,
            assignor: strategy(config.assignor),
        }
    }

    /// Those of a producer.
    pub(super) fn of_producer(config: &ClusterConfig, transactional_id: &str) -> Self {
        let transactional_id = transactional_id.to_owned();
        Self { asking: Asking::Write, transactional_id, ..Self::of_reader(config) }
    }

    /// The same, where it is about offsets.
    pub(super) fn as_reader(&self) -> Self {
        Self { asking: Asking::Read, ..self.clone() }
    }

    /// Adds what is missing to the words of a failure; `topics` are those that it may be about.
    pub(super) fn explain(&self, failure: Failure, topics: &[&str]) -> Failure {
        let Some(missing) = self.missing(&failure, topics) else { return failure };
        Failure { message: format!("{}: {missing}", failure.message), ..failure }
    }

    fn missing(&self, failure: &Failure, topics: &[&str]) -> Option<String> {
        let Self { group, transactional_id, session_timeout_ms, .. } = self;
        let missing = match failure.code {
            Code::GroupAuthorizationFailed => {
                format!("the right READ to the group {group:?} is missing")
            }
            Code::TopicAuthorizationFailed => {
                let right = match self.asking {
                    Asking::Read => "READ",
                    Asking::Write => "WRITE",
                };
                match topics {
                    [] => format!("the right {right} to a topic is missing"),
                    [topic] => format!("the right {right} to the topic {topic:?} is missing"),
                    several => {
                        let several = several.join(", ");
                        format!("the right {right} to one of the topics {several} is missing")
                    }
                }
            }
            Code::TransactionalIdAuthorizationFailed => {
                format!("the right WRITE to the transactional id {transactional_id:?} is missing")
            }
            Code::InconsistentGroupProtocol => format!(
                "members of the group {group:?} use another assignor than {}: set \
                 partition.assignment.strategy (--assignor) as they do, or stop them first",
                self.assignor
            ),
            Code::InvalidSessionTimeout => format!(
                "session.timeout.ms (--session-timeout) is {session_timeout_ms}, and must lie \
                 between group.min.session.timeout.ms and group.max.session.timeout.ms of the \
                 brokers"
            ),
            _ => return None,
        };
        Some(missing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_right_or_the_setting_is_named() {
        let config = ClusterConfig::new("localhost:9092", "billing", ["orders".to_owned()]);
        let reader = Names::of_reader(&config);
        let producer = Names::of_producer(&config, "billing-a-0");
        let cases = [
            (&reader, Code::GroupAuthorizationFailed, vec![], "READ to the group \"billing\""),
            (
                &reader,
                Code::TopicAuthorizationFailed,
                vec!["orders"],
                "READ to the topic \"orders\"",
            ),
            (&producer, Code::TopicAuthorizationFailed, vec!["out"], "WRITE to the topic \"out\""),
            (&producer, Code::TopicAuthorizationFailed, vec!["a", "b"], "one of the topics a, b"),
            (
                &producer,
                Code::TransactionalIdAuthorizationFailed,
                vec![],
                "WRITE to the transactional id \"billing-a-0\"",
            ),
            (&reader, Code::InconsistentGroupProtocol, vec![], "--assignor"),
            (&reader, Code::InvalidSessionTimeout, vec![], "--session-timeout) is "),
        ];
        for (names, code, topics, expected) in cases {
            let explained = names.explain(Failure::of(code, "words"), &topics);
            assert!(explained.message.starts_with("words: "), "{}", explained.message);
            assert!(explained.message.contains(expected), "{}", explained.message);
            assert_eq!(explained.code, code);
        }
        let other = Failure::of(Code::OperationTimedOut, "words");
        assert_eq!(reader.explain(other.clone(), &[]), other);
    }
}
