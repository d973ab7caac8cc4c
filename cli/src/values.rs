//! Values of settings, as the command line and the configuration file write them.

use std::str::FromStr;
use std::time::Duration;

use bytesize::ByteSize;
use countersign::Order;
use countersign::kafka::librdkafka as kafka;
use countersign::statemachine::{BreakerAction, BreakerSettings, Expired, StartAt};
use countersign::store::Damage;
use jiff::SignedDuration;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

/// A setting that has the same words on both sides.
macro_rules! choice {
    ($(#[$doc:meta])* $name:ident => $target:ty {
        $($(#[$of:meta])* $word:ident),* $(,)?
    }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Deserialize)]
        #[serde(rename_all = "lowercase")]
        #[value(rename_all = "lowercase")]
        pub(crate) enum $name { $($(#[$of])* $word),* }

        impl From<$name> for $target {
            fn from(choice: $name) -> Self {
                match choice { $($name::$word => Self::$word),* }
            }
        }
    };
}

choice! {
    /// Where a group starts that has no commit at all.
    Start => StartAt { Earliest, Latest }
}
choice! {
    /// How the classic protocol shares out partitions.
    Assignor => kafka::Assignor {
        #[serde(rename = "cooperative-sticky")]
        #[value(name = "cooperative-sticky")]
        CooperativeSticky,
        Range,
        RoundRobin,
    }
}
choice! {
    /// Which rebalance protocol to speak.
    GroupProtocol => kafka::GroupProtocol { Classic, Consumer }
}
choice! {
    /// How outputs are compressed.
    Compression => kafka::Compression { None, Lz4, Zstd, Gzip, Snappy }
}
choice! {
    /// What to do with a damaged store.
    OnDamagedStore => Damage { Quarantine, Refuse }
}
choice! {
    /// Which messages of a partition wait for each other.
    MessageOrder => Order { Partition, Key, None }
}

choice! {
    /// What to do when the commits of a known group are gone.
    OnExpired => Expired { Fail, Restart }
}

/// What happens when too many messages fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum OnManyFailures {
    Probe,
    Stop,
    GoOn,
}

impl OnManyFailures {
    /// The breaker that does it.
    pub(crate) fn breaker(self) -> Option<BreakerSettings> {
        let breaker = |action| Some(BreakerSettings { action, ..BreakerSettings::default() });
        match self {
            Self::Probe => breaker(BreakerAction::Probe),
            Self::Stop => breaker(BreakerAction::Stop),
            Self::GoOn => None,
        }
    }
}

/// A length of time with its unit: `100ms`, `5s`, `1m 30s`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Interval(pub(crate) Duration);

impl FromStr for Interval {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let signed = SignedDuration::from_str(text).ok();
        let length = signed.and_then(|signed| Duration::try_from(signed).ok());
        length.map(Self).ok_or_else(|| {
            format!("{text:?} is no length of time; give it a unit, as in 100ms, 5s or 2m")
        })
    }
}

/// An amount of memory: `48MiB`, `100MB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Memory(pub(crate) usize);

impl FromStr for Memory {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bytes = ByteSize::from_str(text).ok().and_then(|size| size.as_u64().try_into().ok());
        bytes.map(Self).ok_or_else(|| format!("{text:?} is no amount of memory, as 48MiB is"))
    }
}

/// Both are read from a file as from the command line.
macro_rules! from_string {
    ($($name:ty),*) => {$(
        impl TryFrom<String> for $name {
            type Error = String;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                text.parse()
            }
        }
    )*};
}

from_string!(Interval, Memory);

/// A setting of librdkafka by its own name. Without `Debug`: the value may be a password.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Passed {
    pub(crate) name: String,
    pub(crate) value: String,
}

impl FromStr for Passed {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, value) = text.split_once('=').ok_or("give it as SETTING=VALUE")?;
        Ok(Self { name: name.trim().to_owned(), value: value.to_owned() })
    }
}

/// Reads a table of librdkafka's settings. `fetch.min.bytes = 1` is a table within tables to TOML.
pub(crate) fn passed_settings<'de, D>(from: D) -> Result<Vec<Passed>, D::Error>
where
    D: Deserializer<'de>,
{
    let mut settings = Vec::new();
    flatten("", toml::Value::Table(toml::Table::deserialize(from)?), &mut settings)
        .map_err(D::Error::custom)?;
    Ok(settings)
}

fn flatten(name: &str, value: toml::Value, into: &mut Vec<Passed>) -> Result<(), String> {
    let value = match value {
        toml::Value::Table(table) => {
            for (key, value) in table {
                let name = if name.is_empty() { key } else { format!("{name}.{key}") };
                flatten(&name, value, into)?;
            }
            return Ok(());
        }
        toml::Value::String(text) => text,
        toml::Value::Integer(number) => number.to_string(),
        toml::Value::Float(number) => number.to_string(),
        toml::Value::Boolean(on) => on.to_string(),
        toml::Value::Datetime(_) | toml::Value::Array(_) => {
            return Err(format!("{name}: write the value as a string, as librdkafka expects it"));
        }
    };
    into.push(Passed { name: name.to_owned(), value });
    Ok(())
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "a name, or a list of names")]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

/// Reads `"a,b"` and `["a", "b"]` alike.
pub(crate) fn names<'de, D>(from: D) -> Result<Option<Vec<String>>, D::Error>
where
    D: Deserializer<'de>,
{
    Ok(Some(match OneOrMore::deserialize(from)? {
        OneOrMore::One(names) => names.split(',').map(ToOwned::to_owned).collect(),
        OneOrMore::More(names) => names,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_time_need_a_unit() {
        assert_eq!("100ms".parse(), Ok(Interval(Duration::from_millis(100))));
        assert_eq!("1m 30s".parse(), Ok(Interval(Duration::from_secs(90))));
        for wrong in ["", "100", "-5s", "soon"] {
            assert!(wrong.parse::<Interval>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn memory_is_written_as_people_do() {
        assert_eq!("48MiB".parse(), Ok(Memory(48 << 20)));
        assert_eq!("1000".parse(), Ok(Memory(1000)));
        assert!("much".parse::<Memory>().is_err());
    }

    #[test]
    fn only_the_first_equals_sign_splits_a_setting() {
        let passed: Passed = "sasl.password=a=b ".parse().unwrap_or_else(|error| panic!("{error}"));
        assert!(passed.name == "sasl.password" && passed.value == "a=b ");
        assert!("fetch.min.bytes".parse::<Passed>().is_err());
    }
}
