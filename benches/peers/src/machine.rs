//! On what it was measured.

use std::fs;
use std::thread;

use countersign_testkit::broker::KafkaVersion;
use serde::{Deserialize, Serialize};

/// The machine and the versions.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
pub(crate) struct Machine {
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    pub(crate) linux: String,
    pub(crate) kafka: String,
    pub(crate) librdkafka: String,
    pub(crate) franz_go: String,
    pub(crate) kafka_streams: String,
}

impl Machine {
    /// Whether figures of the two may stand side by side. Linux changes more often than it matters.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        let linux = other.linux.clone();
        *other == Self { linux, ..self.clone() }
    }

    pub(crate) fn look() -> Self {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let (_, librdkafka) = rdkafka::util::get_rdkafka_version();
        Self {
            cpu: between(&cpuinfo, "model name\t: ", "\n"),
            cores: thread::available_parallelism().map_or(1, usize::from),
            linux: release.trim().to_owned(),
            kafka: KafkaVersion::default().to_string(),
            librdkafka,
            franz_go: between(include_str!("../franz-go/go.mod"), "twmb/franz-go v", "\n"),
            kafka_streams: between(
                include_str!("../streams/pom.xml"),
                "<kafka.version>",
                "</kafka.version>",
            ),
        }
    }
}

/// What stands between two marks for the first time.
fn between(text: &str, from: &str, to: &str) -> String {
    let rest = text.split_once(from).map(|(_, rest)| rest);
    let found = rest.and_then(|rest| rest.split_once(to)).map(|(found, _)| found);
    found.unwrap_or("unknown").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found_where_they_are_set() {
        let machine = Machine::look();
        assert!(machine.franz_go.starts_with(|c: char| c.is_ascii_digit()), "{machine:?}");
        assert!(machine.kafka_streams.starts_with(|c: char| c.is_ascii_digit()), "{machine:?}");
    }
}
