//! The versions of Apache Kafka that are run.

use std::fmt::{self, Display, Formatter};
use std::str::FromStr;

use thiserror::Error;

/// A version of Apache Kafka that can be started here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum KafkaVersion {
    /// For brokers that are restarted under load: later ones report the end of a transaction
    /// and never finish it where a partition has no leader at that moment.
    V4_2_0,
    /// What tests run on unless they say otherwise.
    #[default]
    V4_4_0,
}

impl KafkaVersion {
    /// All of them, the oldest first.
    pub const ALL: [Self; 2] = [Self::V4_2_0, Self::V4_4_0];

    /// As Maven and Kafka write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V4_2_0 => "4.2.0",
            Self::V4_4_0 => "4.4.0",
        }
    }
}

impl Display for KafkaVersion {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// This version of Kafka cannot be started here.
#[derive(Debug, Error)]
#[error("Kafka {0} is not known here; 4.2.0 and 4.4.0 are")]
pub struct UnknownKafkaVersion(String);

impl FromStr for KafkaVersion {
    type Err = UnknownKafkaVersion;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let known = Self::ALL.into_iter().find(|version| version.as_str() == text);
        known.ok_or_else(|| UnknownKafkaVersion(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::KafkaVersion;

    #[test]
    fn versions_are_read_as_they_are_written_and_the_error_names_them() {
        let error = "4.3.0".parse::<KafkaVersion>().expect_err("it has both faults").to_string();
        for version in KafkaVersion::ALL {
            assert_eq!(version.to_string().parse::<KafkaVersion>().ok(), Some(version));
            assert!(error.contains(version.as_str()), "{error}");
        }
    }
}
