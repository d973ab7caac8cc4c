//! How failed messages are tried again: the defaults, and what classes of errors have of their own.

use std::collections::BTreeMap;
use std::str::FromStr;

use countersign::statemachine::{Retries, RetryPolicy};
use serde::{Deserialize, Deserializer};

use super::{Settings, set};
use crate::values::Interval;

/// What a class has of its own; the rest is as for all.
#[derive(Debug, Clone, Copy, PartialEq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct OwnRetry {
    base: Option<Interval>,
    factor: Option<f64>,
    max: Option<Interval>,
    jitter: Option<f64>,
    attempts: Option<u32>,
    budget: Option<Interval>,
}

/// A class of errors with its own retries, such as `http-503:base=1s,attempts=20`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ClassRetry {
    class: String,
    own: OwnRetry,
}

impl FromStr for ClassRetry {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // A class may have a colon in it; what follows has none.
        let (class, settings) = text
            .rsplit_once(':')
            .filter(|(class, _)| !class.is_empty())
            .ok_or("give it as CLASS:NAME=VALUE, as in http-503:base=1s,attempts=20")?;
        let mut own = OwnRetry::default();
        for setting in settings.split(',') {
            let (name, value) = setting
                .split_once('=')
                .ok_or_else(|| format!("{setting:?} is no NAME=VALUE, as attempts=20 is"))?;
            own.set(name.trim(), value.trim())?;
        }
        Ok(Self { class: class.to_owned(), own })
    }
}

impl OwnRetry {
    fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        match name {
            "base" => self.base = Some(value.parse()?),
            "factor" => self.factor = Some(number(value)?),
            "max" => self.max = Some(value.parse()?),
            "jitter" => self.jitter = Some(number(value)?),
            "attempts" => self.attempts = Some(number(value)?),
            "budget" => self.budget = Some(value.parse()?),
            _ => {
                let known = "base, factor, max, jitter, attempts, budget";
                return Err(format!("{name:?} is not known; there are {known}"));
            }
        }
        Ok(())
    }

    fn over(self, mut policy: RetryPolicy) -> RetryPolicy {
        set(&mut policy.backoff.base, self.base.map(|it| it.0));
        set(&mut policy.backoff.factor, self.factor);
        set(&mut policy.backoff.max, self.max.map(|it| it.0));
        set(&mut policy.backoff.jitter, self.jitter);
        policy.attempts = self.attempts.or(policy.attempts);
        policy.budget = self.budget.map(|it| it.0).or(policy.budget);
        policy
    }
}

fn number<T: FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("{text:?} is not a number that is allowed here"))
}

/// Reads a table of classes, each a table of its own retries.
pub(super) fn classes<'de, D>(from: D) -> Result<Vec<ClassRetry>, D::Error>
where
    D: Deserializer<'de>,
{
    let table = BTreeMap::<String, OwnRetry>::deserialize(from)?;
    Ok(table.into_iter().map(|(class, own)| ClassRetry { class, own }).collect())
}

impl Settings {
    pub(super) fn retries(&self) -> Retries {
        let all = OwnRetry {
            base: self.retry_base,
            factor: self.retry_factor,
            max: self.retry_max,
            jitter: self.retry_jitter,
            attempts: self.max_attempts,
            budget: self.retry_budget,
        };
        let default = all.over(RetryPolicy::default());
        let mut retries = Retries::from(default);
        for ClassRetry { class, own } in &self.retry_class {
            // A flag adds to what the file says of the class.
            let before = retries.of(class);
            retries.classes.insert(class.clone(), own.over(before));
        }
        retries
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn settings(toml: &str, flags: &[&str]) -> Retries {
        let file: Settings = toml::from_str(toml).expect("the file is right");
        let flags = flags.iter().map(|flag| flag.parse().expect("the flag is right"));
        Settings { retry_class: flags.collect(), ..Settings::default() }.over(file).retries()
    }

    #[test]
    fn a_class_has_what_it_says_and_the_rest_as_all() {
        let file = r#"
            retry-base = "5ms"
            max-attempts = 3
            retry-budget = "1m"
            [retry-class.http-503]
            base = "1s"
            budget = "10m"
        "#;
        let retries = settings(file, &["http-503:attempts=20,jitter=0", "panic:attempts=1"]);
        let seconds = Duration::from_secs;
        let of = |class: &str| {
            let policy = retries.of(class);
            (policy.backoff.base, policy.attempts, policy.budget)
        };
        assert_eq!(of("http-503"), (seconds(1), Some(20), Some(seconds(600))));
        assert_eq!(of("panic"), (Duration::from_millis(5), Some(1), Some(seconds(60))));
        assert_eq!(of("other"), (Duration::from_millis(5), Some(3), Some(seconds(60))));
        assert!(retries.of("http-503").backoff.jitter.abs() < f64::EPSILON);
    }

    #[test]
    fn what_is_wrong_with_a_class_is_said() {
        let table = [
            ("http-503", "CLASS:NAME=VALUE"),
            (":base=1s", "CLASS:NAME=VALUE"),
            ("http-503:base", "NAME=VALUE"),
            ("http-503:bas=1s", "\"bas\" is not known"),
            ("http-503:base=1", "no length of time"),
            ("http-503:attempts=-1", "not a number"),
        ];
        for (text, words) in table {
            let error = text.parse::<ClassRetry>().expect_err(text);
            assert!(error.contains(words), "{text}: {error}");
        }
        let unknown = toml::from_str::<Settings>("[retry-class.a]\nbas = \"1s\"");
        assert!(unknown.is_err_and(|error| error.message().contains("bas")));
    }
}
