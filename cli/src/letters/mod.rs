//! Dead letters as people and programs see them.

mod show;

pub(crate) use show::{table, text};

use std::time::Duration;

use countersign::dead_letter::{DeadLetter, LetterDisposition};
use countersign::kafka::Record;
use countersign::origin::Origin;
use data_encoding::BASE64;
use jiff::Timestamp;
use serde::Serialize;

/// One dead letter with the message in it.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Letter {
    /// Where it is in the topic of dead letters.
    at: String,
    /// The message that could not be handled.
    message: String,
    /// The message that it goes back to, with the id of its topic.
    origin: Option<String>,
    #[serde(skip)]
    from: (String, u32),
    #[serde(skip)]
    disposition_of: LetterDisposition,
    #[serde(skip)]
    last_failed_ms: i64,
    disposition: String,
    group: String,
    instance: String,
    attempts: u32,
    class: String,
    /// How it failed: an error, a panic, a missed deadline.
    reason: String,
    error: String,
    first_failed: String,
    last_failed: String,
    timestamp: Option<String>,
    key: Option<String>,
    value: Option<String>,
    /// Those that the message had itself.
    headers: Vec<(String, Option<String>)>,
}

impl Letter {
    /// Reads a record; `None` if it is no dead letter of ours.
    pub(crate) fn of(record: &Record) -> Option<Self> {
        let headers: Vec<_> = record.headers().collect();
        let told = headers.iter().map(|h| (&*h.name, h.value.as_deref().unwrap_or_default()));
        let letter = DeadLetter::read(told)?;
        let own = headers
            .iter()
            .filter(|header| !is_ours(&header.name))
            .map(|header| (header.name.to_string(), header.value.as_deref().map(shown)));
        let class = letter.class().to_owned();
        Some(Self {
            at: format!("{}@{}", record.partition(), record.offset()),
            message: format!("{}@{}", letter.partition, letter.offset),
            from: (letter.partition.topic.to_string(), letter.partition.partition),
            disposition_of: letter.disposition,
            last_failed_ms: letter.last_failed,
            disposition: letter.disposition.to_string(),
            group: letter.group,
            instance: letter.instance,
            attempts: letter.attempts,
            class,
            reason: letter.reason.to_string(),
            origin: letter.origin.as_ref().map(told_origin),
            error: letter.error,
            first_failed: time(letter.first_failed),
            last_failed: time(letter.last_failed),
            timestamp: letter.timestamp.map(time),
            key: record.key().map(shown),
            value: record.value().map(shown),
            headers: own.collect(),
        })
    }
}

fn is_ours(header: &str) -> bool {
    header.starts_with(countersign::dead_letter::PREFIX) || header == countersign::origin::HEADER
}

fn told_origin(origin: &Origin) -> String {
    let Origin { partition, offset, .. } = origin;
    format!("{partition}@{offset} (topic id {})", origin.topic_id_text())
}

/// Text as it is, other bytes as base64.
fn shown(bytes: &[u8]) -> String {
    std::str::from_utf8(bytes)
        .map_or_else(|_| format!("base64:{}", BASE64.encode(bytes)), ToOwned::to_owned)
}

fn time(milliseconds: i64) -> String {
    Timestamp::from_millisecond(milliseconds)
        .map_or_else(|_| milliseconds.to_string(), |time| time.to_string())
}

/// Which letters are listed: those that fit everything that is given.
#[derive(Debug, Default)]
pub(crate) struct Filter {
    pub(crate) from: Option<(String, Option<u32>)>,
    pub(crate) group: Option<String>,
    pub(crate) disposition: Option<LetterDisposition>,
    pub(crate) class: Option<String>,
    pub(crate) error: Option<String>,
    pub(crate) key: Option<String>,
    pub(crate) since: Option<Duration>,
}

impl Filter {
    pub(crate) fn takes(&self, letter: &Letter) -> bool {
        let Self { from, group, disposition, class, error, key, since } = self;
        let (topic, partition) = &letter.from;
        let since = since.and_then(|since| Timestamp::now().checked_sub(since).ok());
        from.as_ref().is_none_or(|(of, number)| {
            of == topic && number.is_none_or(|number| number == *partition)
        }) && group.as_ref().is_none_or(|group| *group == letter.group)
            && disposition.is_none_or(|disposition| disposition == letter.disposition_of)
            && class.as_ref().is_none_or(|class| *class == letter.class)
            && error.as_ref().is_none_or(|words| letter.error.contains(words))
            && key.as_ref().is_none_or(|key| letter.key.as_ref() == Some(key))
            && since.is_none_or(|since| letter.last_failed_ms >= since.as_millisecond())
    }
}

#[cfg(test)]
mod tests {
    use countersign::kafka::{BatchBuilder, TopicPartition};

    use super::*;

    fn letter() -> Letter {
        let letter = DeadLetter {
            disposition: LetterDisposition::ClientRejected,
            partition: TopicPartition::new("orders", 3),
            offset: 17,
            timestamp: None,
            group: "payments".to_owned(),
            instance: "a-0".to_owned(),
            attempts: 1,
            first_failed: 0,
            last_failed: Timestamp::now().as_millisecond() - 60_000,
            reason: countersign::statemachine::Reason::Error,
            class: Some("http-404".to_owned()),
            error: "no such customer".to_owned(),
            origin: None,
        };
        let mut builder = BatchBuilder::new(TopicPartition::new("dead", 0));
        let headers = letter.headers();
        let headers = headers.iter().map(|h| (h.name.as_bytes(), h.value.as_deref()));
        builder.push(4, None, Some(b"k"), Some(b"\xff"), headers);
        let record = builder.build().record(0).expect("one was added");
        Letter::of(&record).expect("a dead letter")
    }

    #[test]
    fn bytes_that_are_no_text_are_shown_as_base64() {
        assert_eq!(letter().value.as_deref(), Some("base64:/w=="));
        assert_eq!((letter().at.as_str(), letter().message.as_str()), ("dead/0@4", "orders/3@17"));
    }

    #[test]
    fn every_filter_keeps_what_fits_and_drops_what_does_not() {
        let text = |text: &str| Some(text.to_owned());
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        let none = Filter::default;
        let table = [
            (none(), true),
            (Filter { from: Some(("orders".to_owned(), None)), ..none() }, true),
            (Filter { from: Some(("orders".to_owned(), Some(3))), ..none() }, true),
            (Filter { from: Some(("orders".to_owned(), Some(4))), ..none() }, false),
            (Filter { from: Some(("other".to_owned(), None)), ..none() }, false),
            (Filter { group: text("payments"), ..none() }, true),
            (Filter { group: text("other"), ..none() }, false),
            (Filter { disposition: Some(LetterDisposition::ClientRejected), ..none() }, true),
            (Filter { disposition: Some(LetterDisposition::PoisonPill), ..none() }, false),
            (Filter { class: text("http-404"), ..none() }, true),
            (Filter { class: text("error"), ..none() }, false),
            (Filter { error: text("customer"), ..none() }, true),
            (Filter { error: text("order"), ..none() }, false),
            (Filter { key: text("k"), ..none() }, true),
            (Filter { key: text("kk"), ..none() }, false),
            (Filter { since: seconds(3_600), ..none() }, true),
            (Filter { since: seconds(1), ..none() }, false),
        ];
        for (filter, takes) in table {
            assert_eq!(filter.takes(&letter()), takes, "{filter:?}");
        }
    }
}
