//! Where logs begin and end, partition by partition.
//!
//! All are asked for at once. What one leader refuses or does not answer in time fails what all
//! others have told, so that then each leader is asked for its own, and of those that refuse, each
//! partition.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::time::{Duration, Instant};

use countersign_statemachine::Disposition;
use rdkafka::client::NativeClient;
use rdkafka::error::RDKafkaErrorCode as Code;

use super::classify::{Failure, Unflagged, classify, kind};
use super::lists::plain;
use super::raw::{self, LogEnd};
use crate::kafka::{Each, ErrorKind, KafkaError, LogRange, TopicPartition};

const CALL: &str = "ListOffsets";

/// What came of a partition.
#[derive(Debug, Clone)]
enum Answer {
    Told(LogRange),
    /// It has an error of its own.
    Sick(Failure),
    /// The question failed, for whichever partition.
    None(Failure),
}

/// The ranges of partitions' logs that a `read_committed` client can see. Waits at most `timeout`.
pub(super) fn log_ranges(
    client: &NativeClient,
    partitions: &[TopicPartition],
    timeout: Duration,
) -> Each<LogRange> {
    if partitions.is_empty() {
        return Ok(Vec::new());
    }
    let deadline = Instant::now() + timeout;
    let first = if partitions.len() == 1 { timeout } else { timeout / 3 };
    let mut answers: BTreeMap<_, _> = ask(client, partitions, first)?.into_iter().collect();
    let open = unanswered(&answers);
    if partitions.len() > 1 && !open.is_empty() {
        let groups = by_leader(client, &open, left(deadline) / 3)?;
        ask_groups(client, &groups, deadline, &mut answers)?;
        let refused: Vec<_> = unanswered_by(&answers, |failure| !is_silence(failure))
            .into_iter()
            .map(|partition| vec![partition])
            .collect();
        ask_groups(client, &refused, deadline, &mut answers)?;
    }
    each(partitions, answers)
}

fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}

/// Whether there was no answer, as opposed to one that is an error.
fn is_silence(failure: &Failure) -> bool {
    matches!(kind(failure.code), ErrorKind::Timeout | ErrorKind::Transport)
}

type Answers = BTreeMap<TopicPartition, Answer>;

fn unanswered(answers: &Answers) -> Vec<TopicPartition> {
    unanswered_by(answers, |_| true)
}

fn unanswered_by(answers: &Answers, is_meant: impl Fn(&Failure) -> bool) -> Vec<TopicPartition> {
    let is_open = |answer: &Answer| matches!(answer, Answer::None(failure) if is_meant(failure));
    answers.iter().filter(|it| is_open(it.1)).map(|it| it.0.clone()).collect()
}

/// Asks for some, and then for the next, each with its share of the time that is left.
fn ask_groups(
    client: &NativeClient,
    groups: &[Vec<TopicPartition>],
    deadline: Instant,
    answers: &mut Answers,
) -> Result<(), KafkaError> {
    for (place, group) in groups.iter().enumerate() {
        let to_come = u32::try_from(groups.len() - place).unwrap_or(u32::MAX);
        let share = left(deadline) / to_come;
        if share.is_zero() {
            break;
        }
        answers.extend(ask(client, group, share)?);
    }
    Ok(())
}

/// The partitions by the broker that leads them; those without one are a group, too.
fn by_leader(
    client: &NativeClient,
    partitions: &[TopicPartition],
    timeout: Duration,
) -> Result<Vec<Vec<TopicPartition>>, KafkaError> {
    let mut names: Vec<&str> = partitions.iter().map(|partition| &*partition.topic).collect();
    names.dedup();
    let names: Result<Vec<_>, _> = names.into_iter().map(CString::new).collect();
    let names = names.map_err(|error| {
        KafkaError::new(CALL, ErrorKind::UnknownTopic, Disposition::Permanent, error.to_string())
    })?;
    let names: Vec<_> = names.iter().map(CString::as_c_str).collect();
    let told = raw::describe_topics(client, &names, timeout).unwrap_or_default();
    let mut groups: BTreeMap<Option<i32>, Vec<TopicPartition>> = BTreeMap::new();
    for partition in partitions {
        let topic = told.iter().find(|topic| *topic.name == *partition.topic);
        let leader = topic.and_then(|topic| topic.leaders.get(&partition.partition).copied());
        groups.entry(leader).or_default().push(partition.clone());
    }
    Ok(groups.into_values().collect())
}

/// Asks for all of them at once.
fn ask(
    client: &NativeClient,
    partitions: &[TopicPartition],
    timeout: Duration,
) -> Result<Vec<(TopicPartition, Answer)>, KafkaError> {
    let deadline = Instant::now() + timeout;
    let told = |end| {
        let told = raw::log_ends(client, plain(CALL, partitions)?, end, left(deadline));
        told.map_err(|failure| classify(CALL, failure, Unflagged::Retriable))
    };
    let starts = told(LogEnd::First)?;
    let (whole, ends) = match starts.whole {
        Ok(()) => {
            let ends = told(LogEnd::Last)?;
            (ends.whole, ends.each)
        }
        Err(failure) => (Err(failure), starts.each.clone()),
    };
    let answer = |(start, end): (Result<i64, Failure>, Result<i64, Failure>)| match (start, end) {
        (Err(failure), _) | (_, Err(failure)) => Answer::Sick(failure),
        (Ok(start), Ok(end)) => match &whole {
            Ok(()) => range(start, end),
            Err(failure) => Answer::None(failure.clone()),
        },
    };
    let answers = starts.each.into_iter().zip(ends).map(answer);
    Ok(partitions.iter().cloned().zip(answers).collect())
}

fn range(start: i64, end: i64) -> Answer {
    match (u64::try_from(start), u64::try_from(end)) {
        (Ok(start), Ok(end)) => Answer::Told(LogRange { start, end }),
        _ => Answer::Sick(Failure::of(Code::BadMessage, format!("offsets {start} and {end}"))),
    }
}

/// The answers in the order asked; an error of the whole if there is none.
fn each(partitions: &[TopicPartition], mut answers: Answers) -> Each<LogRange> {
    let failed = |failure, of: Option<&TopicPartition>| {
        let mut error = classify(CALL, failure, Unflagged::Retriable);
        if let Some(partition) = of {
            error.message = format!("{partition}: {}", error.message);
        }
        error
    };
    let mut all = Vec::with_capacity(partitions.len());
    let mut silence = None;
    for partition in partitions {
        all.push(match answers.remove(partition) {
            Some(Answer::Told(range)) => Ok(range),
            Some(Answer::Sick(failure)) => Err(failed(failure, Some(partition))),
            Some(Answer::None(failure)) => {
                silence.get_or_insert_with(|| failure.clone());
                Err(failed(failure, Some(partition)))
            }
            None => Err(failed(Failure::of(Code::BadMessage, "asked for twice"), Some(partition))),
        });
    }
    match silence {
        Some(failure) if all.iter().all(Result::is_err) => Err(failed(failure, None)),
        Some(_) | None => Ok(all),
    }
}
