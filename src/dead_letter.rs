//! What a dead letter says: where the message is from, and why it is here.
//!
//! A dead letter is the message as it was (key, value, headers, timestamp) with headers added. The
//! first ones have the names and words that KIP-1317 gives those of share groups, so that the same
//! tools read both; the others are ours, by the same prefix. All values are text.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use countersign_statemachine::Reason;

use crate::kafka::{Header, Output, Record, TopicPartition};
use crate::origin::{self, Origin};

/// What the names of the headers begin with.
pub const PREFIX: &str = "_dlq.errors.";

/// An error's text is cut to so many bytes: the letter must not become larger than its topic takes.
const ERROR_BYTES: usize = 1_024;

/// A class is a name, and not meant to be long.
const CLASS_BYTES: usize = 128;

/// Why a message became a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LetterDisposition {
    /// It failed as often as it may.
    MaxDeliveryAttemptsReached,
    /// The handler said that trying again cannot help, or it cannot be decoded.
    ClientRejected,
    /// It ended the process again and again.
    PoisonPill,
    /// It was tried again for as long as it may be.
    RetryBudgetExhausted,
    /// An operator said so.
    Operator,
}

impl LetterDisposition {
    const ALL: [Self; 5] = [
        Self::MaxDeliveryAttemptsReached,
        Self::RetryBudgetExhausted,
        Self::ClientRejected,
        Self::PoisonPill,
        Self::Operator,
    ];

    fn word(self) -> &'static str {
        match self {
            Self::MaxDeliveryAttemptsReached => "MAX_DELIVERY_ATTEMPTS_REACHED",
            Self::RetryBudgetExhausted => "RETRY_BUDGET_EXHAUSTED",
            Self::ClientRejected => "CLIENT_REJECTED",
            Self::PoisonPill => "POISON_PILL",
            Self::Operator => "OPERATOR",
        }
    }
}

impl fmt::Display for LetterDisposition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl FromStr for LetterDisposition {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        let known = Self::ALL.into_iter().find(|known| known.word() == word);
        known.ok_or_else(|| format!("{word:?} is no disposition of a dead letter"))
    }
}

/// Where a dead letter is from, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Why it is one.
    pub disposition: LetterDisposition,
    /// The partition it was read from.
    pub partition: TopicPartition,
    /// Its offset there.
    pub offset: u64,
    /// Its timestamp there, in milliseconds since the epoch.
    pub timestamp: Option<i64>,
    /// The consumer group that could not handle it.
    pub group: String,
    /// The instance, with its worker, that gave it up.
    pub instance: String,
    /// How often it failed.
    pub attempts: u32,
    /// When it failed first, as far as that instance knows: milliseconds since the epoch.
    pub first_failed: i64,
    /// When it failed last: milliseconds since the epoch.
    pub last_failed: i64,
    /// How it failed: an error, a panic, a missed deadline.
    pub reason: Reason,
    /// The class that the handler gave its last error, if it did, cut to 128 bytes.
    pub class: Option<String>,
    /// What was said then, cut to 1 KiB.
    pub error: String,
    /// The message that the letter goes back to: itself, or for one that was a dead letter before
    /// whatever that one says. `None` if it is not told.
    pub origin: Option<Origin>,
}

/// The headers, in the order in which they are written.
mod name {
    pub(super) const DISPOSITION: &str = "_dlq.errors.disposition";
    pub(super) const TOPIC: &str = "_dlq.errors.original.topic";
    pub(super) const PARTITION: &str = "_dlq.errors.original.partition";
    pub(super) const OFFSET: &str = "_dlq.errors.original.offset";
    pub(super) const TIMESTAMP: &str = "_dlq.errors.original.timestamp";
    pub(super) const GROUP: &str = "_dlq.errors.group";
    pub(super) const INSTANCE: &str = "_dlq.errors.instance";
    pub(super) const ATTEMPTS: &str = "_dlq.errors.attempts";
    pub(super) const FIRST: &str = "_dlq.errors.first.timestamp";
    pub(super) const LAST: &str = "_dlq.errors.last.timestamp";
    pub(super) const REASON: &str = "_dlq.errors.reason";
    pub(super) const CLASS: &str = "_dlq.errors.class";
    pub(super) const MESSAGE: &str = "_dlq.errors.message";
}

impl DeadLetter {
    /// The name of the class of its last error: what the handler said, or else the reason.
    pub fn class(&self) -> &str {
        self.class.as_deref().unwrap_or(self.reason.name())
    }

    /// The headers that it adds.
    pub fn headers(&self) -> Vec<Header> {
        let text = |name: &'static str, value: String| Header {
            name: name.into(),
            value: Some(Bytes::from(value)),
        };
        let mut headers = vec![
            text(name::DISPOSITION, self.disposition.to_string()),
            text(name::TOPIC, self.partition.topic.to_string()),
            text(name::PARTITION, self.partition.partition.to_string()),
            text(name::OFFSET, self.offset.to_string()),
        ];
        headers.extend(self.timestamp.map(|time| text(name::TIMESTAMP, time.to_string())));
        headers.extend([
            text(name::GROUP, self.group.clone()),
            text(name::INSTANCE, self.instance.clone()),
            text(name::ATTEMPTS, self.attempts.to_string()),
            text(name::FIRST, self.first_failed.to_string()),
            text(name::LAST, self.last_failed.to_string()),
            text(name::REASON, self.reason.to_string()),
            text(name::CLASS, cut(self.class(), CLASS_BYTES).to_owned()),
            text(name::MESSAGE, cut(&self.error, ERROR_BYTES).to_owned()),
        ]);
        headers
    }

    /// Cuts so many bytes off what was said, so that the letter fits its topic.
    pub fn shorten(&mut self, bytes: usize) {
        let most = self.error.len().min(ERROR_BYTES).saturating_sub(bytes);
        self.error.truncate(cut(&self.error, most).len());
    }

    /// The letter itself: the message unchanged, for partition `partition` of `topic`. What an
    /// earlier dead letter said in headers of these names is replaced; the origin that it told, and
    /// the context of traces, go on unchanged as all headers of the message do.
    pub fn output(&self, record: &Record, topic: &str, partition: u32) -> Output {
        let mut headers: Vec<Header> =
            record.headers().filter(|header| !header.name.starts_with(PREFIX)).collect();
        if let Some(origin) = &self.origin
            && !headers.iter().any(|header| &*header.name == origin::HEADER)
        {
            headers.push(origin.header());
        }
        headers.extend(self.headers());
        Output {
            topic: topic.into(),
            partition,
            key: record.key_bytes(),
            value: record.value_bytes(),
            headers,
            timestamp: record.timestamp(),
        }
    }

    /// Reads what headers say; `None` if they are not those of a dead letter of ours.
    pub fn read<'a>(headers: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Option<Self> {
        let mut fields = std::collections::BTreeMap::new();
        for (name, value) in headers {
            fields.insert(name, String::from_utf8_lossy(value).into_owned());
        }
        let number = |name| fields.get(name).and_then(|text: &String| text.parse::<i64>().ok());
        let unsigned = |name| number(name).and_then(|number| u64::try_from(number).ok());
        let class = fields.get(name::CLASS)?;
        let told = fields.get(name::REASON)?;
        let reason = Reason::ALL.into_iter().find(|reason| reason.name() == told)?;
        Some(Self {
            disposition: fields.get(name::DISPOSITION)?.parse().ok()?,
            partition: TopicPartition::new(
                fields.get(name::TOPIC)?.as_str(),
                u32::try_from(unsigned(name::PARTITION)?).ok()?,
            ),
            offset: unsigned(name::OFFSET)?,
            timestamp: number(name::TIMESTAMP),
            group: fields.get(name::GROUP)?.clone(),
            instance: fields.get(name::INSTANCE)?.clone(),
            attempts: u32::try_from(unsigned(name::ATTEMPTS)?).ok()?,
            first_failed: number(name::FIRST)?,
            last_failed: number(name::LAST)?,
            reason,
            class: Some(class.clone()).filter(|class| *class != reason.name()),
            error: fields.get(name::MESSAGE)?.clone(),
            origin: fields.get(origin::HEADER).and_then(|text| Origin::read(text)),
        })
    }
}

/// The beginning of a text that is not too long, whole characters only.
fn cut(text: &str, most: usize) -> &str {
    let mut end = text.len().min(most);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::BatchBuilder;

    fn letter() -> DeadLetter {
        DeadLetter {
            disposition: LetterDisposition::MaxDeliveryAttemptsReached,
            partition: TopicPartition::new("orders", 3),
            offset: 12_345,
            timestamp: Some(7),
            group: "payments".to_owned(),
            instance: "a-0".to_owned(),
            attempts: 5,
            first_failed: 1_000,
            last_failed: 2_000,
            reason: Reason::Deadline,
            class: None,
            error: "too slow".to_owned(),
            origin: None,
        }
    }

    fn read(headers: &[Header]) -> Option<DeadLetter> {
        let fields = headers.iter().map(|h| (&*h.name, h.value.as_deref().unwrap_or_default()));
        DeadLetter::read(fields)
    }

    #[test]
    fn what_is_written_is_read_again() {
        for timestamp in [None, Some(-1), Some(1_794_000_000_000)] {
            let letter = DeadLetter { timestamp, ..letter() };
            assert_eq!(read(&letter.headers()), Some(letter));
        }
        for disposition in LetterDisposition::ALL {
            assert_eq!(disposition.to_string().parse(), Ok(disposition));
        }
    }

    #[test]
    fn a_class_of_the_handlers_is_told_beside_the_reason() {
        for (class, told) in [(None, "deadline"), (Some("http-503"), "http-503")] {
            let letter = DeadLetter { class: class.map(ToOwned::to_owned), ..letter() };
            let headers = letter.headers();
            let value = |name| headers.iter().find(|h| &*h.name == name)?.value.clone();
            assert_eq!(value("_dlq.errors.class"), Some(told.into()));
            assert_eq!(value("_dlq.errors.reason"), Some("deadline".into()));
            assert_eq!(read(&headers), Some(letter));
        }
    }

    fn origin_at(offset: u64) -> Origin {
        let partition = TopicPartition::new("orders", 3);
        Origin { topic_id: [7; 16], partition, offset }
    }

    /// The message at 12,345 becomes a letter, and that letter one of its own.
    #[test]
    fn origin_and_trace_context_travel_unchanged() {
        let (parent, state) =
            (&b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"[..], b"k=v");
        let mut builder = BatchBuilder::new(TopicPartition::new("orders", 3));
        let headers: [(&[u8], Option<&[u8]>); 2] =
            [(b"traceparent", Some(parent)), (b"tracestate", Some(state))];
        builder.push(12_345, None, None, None, headers);
        let record = builder.build().record(0).expect("one was added");
        let first = DeadLetter { origin: Some(origin_at(12_345)), ..letter() };
        let first = first.output(&record, "dead", 1);
        let mut builder = BatchBuilder::new(TopicPartition::new("dead", 1));
        let headers = first.headers.iter().map(|h| (h.name.as_bytes(), h.value.as_deref()));
        builder.push(17, None, None, None, headers);
        let record = builder.build().record(0).expect("one was added");
        let second = DeadLetter { origin: Some(origin_at(17)), ..letter() };
        let second = second.output(&record, "dead-again", 0);
        for output in [&first, &second] {
            let values = |name: &str| -> Vec<_> {
                let named = output.headers.iter().filter(|header| &*header.name == name);
                named.map(|header| header.value.clone().unwrap_or_default()).collect()
            };
            assert_eq!(values("traceparent"), [parent]);
            assert_eq!(values("tracestate"), [&state[..]]);
            assert_eq!(values(origin::HEADER).len(), 1);
            let letter = read(&output.headers).expect("a dead letter");
            assert_eq!(letter.origin, Some(origin_at(12_345)));
        }
    }

    #[test]
    fn the_message_is_unchanged_and_an_earlier_letter_is_replaced() {
        let mut builder = BatchBuilder::new(TopicPartition::new("orders", 3));
        let headers: [(&[u8], Option<&[u8]>); 3] =
            [(b"trace", Some(b"t")), (b"_dlq.errors.disposition", Some(b"OLD")), (b"trace", None)];
        builder.push(12_345, Some(7), Some(b"k"), Some(b"\xff"), headers);
        let batch = builder.build();
        let record = batch.record(0).expect("one was added");
        let output = letter().output(&record, "dead", 1);
        assert_eq!(
            (output.key.as_deref(), output.value.as_deref()),
            (Some(&b"k"[..]), Some(&b"\xff"[..]))
        );
        assert_eq!(output.timestamp, Some(7));
        let names: Vec<&str> = output.headers.iter().map(|header| &*header.name).collect();
        assert_eq!(names[..3], ["trace", "trace", "_dlq.errors.disposition"]);
        assert_eq!(read(&output.headers), Some(letter()));
    }

    #[test]
    fn long_errors_are_cut_between_characters() {
        let long = "\u{e4}".repeat(2_000);
        let letter = DeadLetter { error: format!("x{long}"), ..letter() };
        let read = read(&letter.headers()).expect("a dead letter");
        assert_eq!(read.error.len(), 1_023);
    }

    #[test]
    fn an_error_is_shortened_by_what_its_header_has_too_much() {
        let text = |letter: &DeadLetter| read(&letter.headers()).expect("a dead letter").error;
        for (error, bytes, left) in [(3_000, 24, 1_000), (10, 4, 6), (10, 11, 0)] {
            let mut letter = DeadLetter { error: "x".repeat(error), ..letter() };
            letter.shorten(bytes);
            assert_eq!(text(&letter).len(), left);
        }
        let mut letter = DeadLetter { error: "a\u{e4}".to_owned(), ..letter() };
        letter.shorten(1);
        assert_eq!(text(&letter), "a");
    }

    #[test]
    fn other_records_are_no_dead_letters() {
        assert_eq!(read(&[]), None);
        let mut headers = letter().headers();
        headers.remove(0);
        assert_eq!(read(&headers), None);
    }
}
