//! The lines between us and a child.

use std::sync::Arc;

use countersign::handler::{HandlerError, Message, Outputs, To};
use countersign::kafka::Header;
use data_encoding::BASE64;
use serde::{Deserialize, Serialize};

/// Bytes in JSON: text if they are UTF-8, else base64.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "a string, or an object with base64")]
enum Data {
    Text(String),
    Binary(Base64),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Base64 {
    base64: String,
}

impl Data {
    fn of(bytes: &[u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::Text(text.to_owned()),
            Err(_) => Self::Binary(Base64 { base64: BASE64.encode(bytes) }),
        }
    }

    fn bytes(self, what: &str) -> Result<Vec<u8>, String> {
        match self {
            Self::Text(text) => Ok(text.into_bytes()),
            Self::Binary(Base64 { base64 }) => BASE64
                .decode(base64.as_bytes())
                .map_err(|error| format!("{what} of an output is not base64: {error}")),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct NamedData {
    name: String,
    value: Option<Data>,
}

/// A message, as a child reads it.
#[derive(Debug, Serialize)]
pub(super) struct Request<'a> {
    id: u64,
    topic: &'a str,
    partition: u32,
    offset: u64,
    timestamp: Option<i64>,
    key: Option<Data>,
    value: Option<Data>,
    headers: Vec<NamedData>,
    attempt: u32,
    idempotency_key: String,
}

impl<'a> Request<'a> {
    pub(super) fn new(id: u64, message: &'a Message) -> Self {
        let record = message.record();
        let named = |header: Header| NamedData {
            name: header.name.to_string(),
            value: header.value.as_deref().map(Data::of),
        };
        Self {
            id,
            topic: &message.partition().topic,
            partition: message.partition().partition,
            offset: message.offset(),
            timestamp: record.timestamp(),
            key: record.key().map(Data::of),
            value: record.value().map(Data::of),
            headers: record.headers().map(named).collect(),
            attempt: message.attempt(),
            idempotency_key: message.idempotency_key(),
        }
    }

    /// It as a line, with its end.
    pub(super) fn line(&self) -> String {
        let mut line = serde_json::to_string(self).expect("numbers and strings are JSON");
        line.push('\n');
        line
    }
}

/// What a child answers: outputs, or an error.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Answer {
    id: u64,
    outputs: Option<Vec<OutputData>>,
    error: Option<ErrorData>,
}

#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct OutputData {
    topic: Option<String>,
    partition: Option<u32>,
    key: Option<Data>,
    value: Option<Data>,
    #[serde(default)]
    headers: Vec<NamedData>,
    timestamp: Option<i64>,
}

#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct ErrorData {
    kind: Option<Kind>,
    /// Any name. Without a kind, the name of one is that kind.
    class: Option<String>,
    message: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    #[default]
    Retryable,
    Permanent,
    Fatal,
}

impl Kind {
    fn of(word: &str) -> Option<Self> {
        match word {
            "retryable" => Some(Self::Retryable),
            "permanent" => Some(Self::Permanent),
            "fatal" => Some(Self::Fatal),
            _ => None,
        }
    }
}

impl ErrorData {
    fn error(self) -> HandlerError {
        let named = self.class.as_deref().filter(|_| self.kind.is_none()).and_then(Kind::of);
        let class = self.class.filter(|_| named.is_none());
        let error = match self.kind.or(named).unwrap_or_default() {
            Kind::Retryable => HandlerError::retryable(self.message),
            Kind::Permanent => HandlerError::permanent(self.message),
            Kind::Fatal => HandlerError::fatal(self.message),
        };
        error.class(class.unwrap_or_default())
    }
}

impl Answer {
    /// Reads a line.
    ///
    /// # Errors
    /// It is no answer to this message.
    pub(super) fn parse(line: &str, id: u64) -> Result<Self, String> {
        let answer: Self = serde_json::from_str(line)
            .map_err(|error| format!("the child's answer is not understood: {error}"))?;
        if answer.id != id {
            let wrong = answer.id;
            return Err(format!("the child answered message {wrong} when it was asked {id}"));
        }
        match (&answer.outputs, &answer.error) {
            (Some(_), None) | (None, Some(_)) => Ok(answer),
            (None, None) | (Some(_), Some(_)) => {
                Err("the child's answer needs either outputs or an error".to_owned())
            }
        }
    }

    /// The outputs; those that name no topic go to `topic`.
    ///
    /// # Errors
    /// The child's error, or an output that cannot be made.
    pub(super) fn outputs(self, topic: &Arc<str>) -> Result<Outputs, HandlerError> {
        if let Some(error) = self.error {
            return Err(error.error());
        }
        let outputs = self.outputs.unwrap_or_default().into_iter();
        let outputs: Result<_, String> = outputs.map(|output| output.to(topic)).collect();
        outputs.map_err(HandlerError::permanent)
    }
}

impl OutputData {
    fn to(self, topic: &Arc<str>) -> Result<To, String> {
        let topic = self.topic.map_or_else(|| Arc::clone(topic), Arc::from);
        let bytes = |data: Option<Data>, what| data.map(|data| data.bytes(what)).transpose();
        let mut to = To::topic(topic)
            .key_opt(bytes(self.key, "the key")?.map(Into::into))
            .value_opt(bytes(self.value, "the value")?.map(Into::into));
        for NamedData { name, value } in self.headers {
            let value = bytes(value, "a header")?.map(Into::into);
            to = to.headers([Header { name: name.into(), value }]);
        }
        if let Some(partition) = self.partition {
            to = to.partition(partition);
        }
        Ok(match self.timestamp {
            Some(timestamp) => to.timestamp(timestamp),
            None => to,
        })
    }
}

#[cfg(test)]
mod tests {
    use countersign::statemachine::worker::FailureKind;

    use super::*;

    fn outputs(line: &str) -> Result<Outputs, HandlerError> {
        let answer = Answer::parse(line, 7).expect("an answer");
        answer.outputs(&Arc::from("default"))
    }

    #[test]
    fn bytes_are_text_where_they_can_be() {
        assert_eq!(serde_json::to_string(&Data::of(b"a\"b")).expect("JSON"), r#""a\"b""#);
        let binary = serde_json::to_string(&Data::of(b"\xff\x00")).expect("JSON");
        assert_eq!(binary, r#"{"base64":"/wA="}"#);
        let back: Data = serde_json::from_str(&binary).expect("as it was written");
        assert_eq!(back.bytes("it"), Ok(b"\xff\x00".to_vec()));
    }

    #[test]
    fn outputs_go_where_they_say() {
        let line = r#"{"id":7,"outputs":[{"value":"v"},{"topic":"other","key":"k",
            "value":{"base64":"/w=="},"headers":[{"name":"h","value":"x"}],"timestamp":5}]}"#;
        let expected = Outputs::one(To::topic("default").value("v"))
            .and(To::topic("other").key("k").value(vec![0xff]).header("h", "x").timestamp(5));
        assert_eq!(outputs(line), Ok(expected));
        assert_eq!(outputs(r#"{"id":7,"outputs":[]}"#), Ok(Outputs::none()));
    }

    #[test]
    fn errors_have_a_kind() {
        let kind = |line: &str| outputs(line).expect_err("an error").kind();
        let table = [
            (r#"{"id":7,"error":{"message":"m"}}"#, FailureKind::Retryable),
            (r#"{"id":7,"error":{"kind":"retryable","message":"m"}}"#, FailureKind::Retryable),
            (r#"{"id":7,"error":{"kind":"permanent","message":"m"}}"#, FailureKind::Permanent),
            (r#"{"id":7,"error":{"kind":"fatal","message":"m"}}"#, FailureKind::Fatal),
            (r#"{"id":7,"outputs":[{"value":{"base64":"?"}}]}"#, FailureKind::Permanent),
        ];
        for (line, expected) in table {
            assert_eq!(kind(line), expected, "{line}");
        }
    }

    #[test]
    fn errors_may_have_a_class() {
        let table = [
            (r#""class":"http-503""#, FailureKind::Retryable, Some("http-503")),
            (r#""kind":"fatal","class":"disk""#, FailureKind::Fatal, Some("disk")),
            (r#""kind":"fatal","class":"permanent""#, FailureKind::Fatal, Some("permanent")),
            (r#""class":"permanent""#, FailureKind::Permanent, None),
            (r#""class":"""#, FailureKind::Retryable, None),
        ];
        for (told, kind, class) in table {
            let line = format!(r#"{{"id":7,"error":{{{told},"message":"m"}}}}"#);
            let error = outputs(&line).expect_err("an error");
            assert_eq!((error.kind(), error.class_name()), (kind, class), "{line}");
        }
    }

    #[test]
    fn rubbish_is_told_from_an_answer() {
        let rubbish = [
            "",
            "hello",
            "{}",
            r#"{"id":7}"#,
            r#"{"id":8,"outputs":[]}"#,
            r#"{"id":7,"outputs":[],"error":{"message":"both"}}"#,
            r#"{"id":7,"outputs":[{"valeu":"a slip"}]}"#,
        ];
        for line in rubbish {
            assert!(Answer::parse(line, 7).is_err(), "{line}");
        }
    }
}
