//! What goes over the socket: one JSON document per line, in both directions.

use countersign_statemachine::worker::Obstacle;
use serde::{Deserialize, Serialize};

use super::Verb;

/// The version of the protocol.
pub const VERSION: u32 = 1;

/// A longer line is refused.
pub const LINE_BYTES_MAX: usize = 16 * 1_024;

/// A longer reason is refused, and so is a longer name of who orders.
pub const REASON_BYTES_MAX: usize = 1_024;

/// An order about one message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// [`VERSION`].
    pub version: u32,
    /// `skip`, `retry` or `dead-letter`.
    #[serde(with = "verb")]
    pub verb: Verb,
    /// The input topic.
    pub topic: String,
    /// Its partition.
    pub partition: u32,
    /// The message.
    pub offset: u64,
    /// Who orders it.
    pub by: String,
    /// Why.
    pub reason: String,
}

/// What became of an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// [`VERSION`].
    pub version: u32,
    /// Whether it is carried out, committed and recorded.
    pub done: bool,
    /// Why it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<Why>,
    /// What to tell a person.
    pub text: String,
    /// Who owns the partition, where that is somebody else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
}

/// Why an order is not carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Why {
    /// The request cannot be read, or asks for what this version does not know.
    Malformed,
    /// Another instance owns the partition, or nobody.
    NotOwned,
    /// The message, or its partition, is in no state for it; nothing was done.
    Refused,
    /// The partition moved, or the processor ended, before it was known to be done.
    Unknown,
}

impl Request {
    /// Reads a line.
    pub(super) fn read(line: &[u8]) -> Result<Self, String> {
        /// What every version has.
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        let Versioned { version } =
            serde_json::from_slice(line).map_err(|error| format!("this is no request: {error}"))?;
        if version != VERSION {
            return Err(format!("version {version} is not known, but {VERSION} is"));
        }
        let request: Self =
            serde_json::from_slice(line).map_err(|error| format!("this is no request: {error}"))?;
        request.check()?;
        Ok(request)
    }

    /// Checks what a person may have written.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self) -> Result<(), String> {
        if self.reason.trim().is_empty() {
            return Err("the reason is empty: say why, for whoever asks later".to_owned());
        }
        for (name, text) in [("reason", &self.reason), ("name of who orders it", &self.by)] {
            if text.len() > REASON_BYTES_MAX {
                return Err(format!("the {name} is longer than {REASON_BYTES_MAX} bytes"));
            }
        }
        Ok(())
    }
}

impl Answer {
    pub(super) fn done(request: &Request) -> Self {
        let Request { verb, topic, partition, offset, .. } = request;
        let text = match verb {
            Verb::Skip => "is passed over: that is committed",
            Verb::Retry => "is due now, and its attempts are counted anew",
            Verb::DeadLetter => "is in the dead letters: that is committed",
        };
        let text = format!("{topic}/{partition}@{offset} {text}");
        Self { version: VERSION, done: true, why: None, text, owner: None }
    }

    pub(super) fn done_without_owner(request: &Request) -> Self {
        let Request { topic, partition, offset, .. } = request;
        let text = match request.verb {
            Verb::Skip | Verb::DeadLetter => return Self::done(request),
            Verb::Retry => "has its failures forgotten: the next owner tries it anew",
        };
        Self { text: format!("{topic}/{partition}@{offset} {text}"), ..Self::done(request) }
    }

    pub(super) fn refused(why: Why, text: String) -> Self {
        Self { version: VERSION, done: false, why: Some(why), text, owner: None }
    }
}

impl Why {
    pub(super) fn of(obstacle: &Obstacle) -> Self {
        match obstacle {
            Obstacle::NotOwned => Self::NotOwned,
            Obstacle::Moved | Obstacle::Stopped => Self::Unknown,
            Obstacle::TakingUp
            | Obstacle::LettingGo
            | Obstacle::BeingCommitted
            | Obstacle::Done
            | Obstacle::NoMessage
            | Obstacle::NotRead { .. }
            | Obstacle::UnderWay
            | Obstacle::NoLetters
            | Obstacle::LetterRefused(_) => Self::Refused,
        }
    }
}

mod verb {
    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serializer};

    use super::Verb;

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
    pub(super) fn serialize<S: Serializer>(verb: &Verb, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(verb)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<Verb, D::Error> {
        let word = String::deserialize(input)?;
        let known = Verb::ALL.into_iter().find(|verb| verb.to_string() == word);
        known.ok_or_else(|| D::Error::custom(format!("{word:?} is no verb")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = r#"{"version":1,"verb":"dead-letter","topic":"orders","partition":3,
        "offset":17,"by":"ann@desk","reason":"it is no order"}"#;

    #[test]
    fn what_is_written_is_read_again() {
        let request = Request::read(LINE.as_bytes()).expect("it is whole");
        assert_eq!((request.verb, request.offset), (Verb::DeadLetter, 17));
        let written = serde_json::to_vec(&request).expect("plain text");
        assert_eq!(Request::read(&written), Ok(request));
    }

    #[test]
    fn what_cannot_be_read_is_told() {
        let cases = [
            ("rubbish", "no request"),
            ("{}", "version"),
            (&LINE.replace("\"version\":1", "\"version\":2"), "version 2"),
            (&LINE.replace("dead-letter", "delete"), "\"delete\" is no verb"),
            (&LINE.replace("\"offset\":17", "\"offset\":-1"), "no request"),
            (&LINE.replace("\"by\"", "\"for\""), "unknown field"),
            (&LINE.replace("it is no order", " "), "reason is empty"),
            (&LINE.replace("it is no order", &"x".repeat(1_025)), "longer than 1024 bytes"),
        ];
        for (line, words) in cases {
            let refused = Request::read(line.as_bytes()).expect_err(line);
            assert!(refused.contains(words), "{refused}");
        }
    }
}
