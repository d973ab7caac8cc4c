//! Reports in plain words, for someone who has never seen this project.

use std::fmt::{Result, Write};

use crate::control::OPERATOR_PREFIX;

use super::state::{Counts, Range, Ranges, StateReport};
use super::why::{Happened, Known, Present, Transaction, WhyReport};

/// Writes how things stand.
///
/// # Errors
/// Only what `out` returns.
pub fn write_state(out: &mut dyn Write, report: &StateReport) -> Result {
    let StateReport { cluster_id, group, instance, .. } = report;
    writeln!(out, "group {group} on cluster {cluster_id}, instance {instance}")?;
    for partition in &report.partitions {
        write!(out, "\n{}/{}: ", partition.topic, partition.partition)?;
        write_counts(out, &partition.counts)?;
        for (state, ranges) in &partition.ranges {
            writeln!(out, "  {state:<12} {}", listed(ranges))?;
        }
    }
    write!(out, "\nall partitions: ")?;
    write_counts(out, &report.totals)?;
    if !report.last_transactions.is_empty() {
        writeln!(out, "\nlast transactions, newest first:")?;
    }
    for it in &report.last_transactions {
        let (at, instance, number, end) = (&it.at, &it.instance, it.number, it.end);
        write!(out, "  {at} {instance} no. {number}: {end}, {} messages, ", it.messages)?;
        writeln!(out, "{} outputs, open for {}", it.outputs, milliseconds(it.open_us))?;
    }
    Ok(())
}

fn write_counts(out: &mut dyn Write, counts: &Counts) -> Result {
    write!(out, "{} messages", counts.total)?;
    let states = [
        ("pending", counts.pending),
        ("processing", counts.processing),
        ("in doubt", counts.in_doubt),
        ("confirmed", counts.confirmed),
        ("rolled_back", counts.rolled_back),
    ];
    for (state, count) in states.into_iter().filter(|&(_, count)| count > 0) {
        write!(out, ", {count} {state}")?;
        let details = match state {
            "confirmed" => &counts.confirmed_by_outcome,
            "rolled_back" => &counts.rolled_back_by_reason,
            _ => continue,
        };
        let details: Vec<String> = details.iter().map(|(name, n)| format!("{name} {n}")).collect();
        write!(out, " ({})", details.join(", "))?;
    }
    writeln!(out)
}

fn listed(ranges: &Ranges) -> String {
    let mut text: Vec<String> = ranges.first.iter().map(|&range| shown(range)).collect();
    if ranges.more > 0 {
        text.push(format!("and {} more ranges", ranges.more));
    }
    text.join(", ")
}

fn shown(Range { first, last }: Range) -> String {
    if first == last { format!("{first}") } else { format!("{first}..={last}") }
}

fn milliseconds(us: u64) -> String {
    format!("{}.{} ms", us / 1_000, us % 1_000 / 100)
}

/// Writes the story of one message.
///
/// # Errors
/// Only what `out` returns.
pub fn write_why(out: &mut dyn Write, report: &WhyReport) -> Result {
    write!(out, "{}/{}@{} ", report.topic, report.partition, report.offset)?;
    match &report.known {
        Known::Message { present, may_be_gap } => {
            writeln!(out, "{}", stands(present))?;
            if *may_be_gap {
                let why = "a control record of a transaction, or a record that was compacted away";
                writeln!(out, "The record here counts fewer messages than offsets, so that this")?;
                writeln!(out, "offset may also hold no message at all: {why}.")?;
            }
        }
        Known::Gap => writeln!(
            out,
            "holds no message: it is between recorded ones, where Kafka keeps its own control \
             records, or it was compacted away."
        )?,
        Known::BeforeTheStore { first } => writeln!(
            out,
            "was done before this store existed: the lowest offset it knows is {first}. Kafka's \
             committed offset vouches for it; how it went is not recorded here."
        )?,
        Known::NotReceived { last: Some(last) } => {
            writeln!(out, "has not been received yet: the highest offset recorded is {last}.")?;
        }
        Known::NotReceived { last: None } => {
            writeln!(out, "has not been received yet: nothing of this partition has.")?;
        }
    }
    if report.pruned && report.story.is_empty() {
        writeln!(out, "Its story is no longer kept, nor how often it was tried.")?;
    } else if report.pruned {
        writeln!(out, "The beginning of its story is no longer kept.")?;
    }
    if !report.story.is_empty() {
        writeln!(out, "\nWhat happened, in order (times are UTC):")?;
    }
    for happened in &report.story {
        write_happened(out, happened)?;
    }
    Ok(())
}

fn stands(present: &Present) -> String {
    let detail = present.detail.as_deref().unwrap_or_default();
    let text = match (present.state, detail) {
        ("pending", _) => "is pending: it waits to be handled.".to_owned(),
        ("processing", _) => {
            "is processing: it is signed in, and not yet part of a committed transaction."
                .to_owned()
        }
        ("in doubt", _) => "is in doubt: its transaction was to be committed and the reply was \
                            lost; Kafka will tell whether it was."
            .to_owned(),
        ("confirmed", "processed") => {
            "is confirmed: its outputs are visible, exactly once.".to_owned()
        }
        ("confirmed", "elsewhere") => {
            "is confirmed: another instance did it, as Kafka's commit shows.".to_owned()
        }
        ("confirmed", "author unknown") => {
            "is confirmed: Kafka's committed offset is past it, and does not say who did it."
                .to_owned()
        }
        ("confirmed", "skipped") => "is confirmed: an operator passed over it.".to_owned(),
        ("confirmed", detail) => format!("is confirmed: {detail}."),
        (state, detail) => format!("is {state} ({detail}): it will be handled again."),
    };
    let mut counts = String::new();
    if present.deliveries > 1 {
        counts = format!(" It was handed to the handler {} times", present.deliveries);
        let own = match present.attempt {
            0 => ", never because it failed itself.".to_owned(),
            1 => ", once because it failed itself.".to_owned(),
            n => format!(", {n} times because it failed itself."),
        };
        counts.push_str(&own);
    }
    text + &counts
}

fn write_happened(out: &mut dyn Write, happened: &Happened) -> Result {
    if happened.after_restart {
        writeln!(out, "  -- here the process ended and was started again --")?;
    }
    write!(out, "  {}  {}", happened.at, told(happened))?;
    if happened.messages > 1 {
        let (messages, offsets) = (happened.messages, shown(happened.offsets));
        write!(out, " (together with its neighbours: {messages} messages, offsets {offsets})")?;
    }
    writeln!(out)?;
    if let Some(error) = &happened.error {
        writeln!(out, "      error: {error}")?;
    }
    if let Some(operator) = &happened.operator {
        writeln!(out, "      reason: {}", operator.reason)?;
    }
    if let Some(incarnation) = happened.incarnation.as_ref().filter(|_| happened.delivery.is_some())
    {
        writeln!(out, "      in the process with incarnation {incarnation}")?;
    }
    match &happened.transaction {
        Some(transaction) => write_transaction(out, transaction),
        None => Ok(()),
    }
}

fn told(happened: &Happened) -> String {
    let detail = happened.detail.as_deref().unwrap_or_default();
    let after = happened.after_restart;
    match (happened.event, detail) {
        ("started", _) => {
            let delivery = happened.delivery.map(|it| format!(" (delivery {})", it.0));
            format!("it was signed in, to be handled{}", delivery.unwrap_or_default())
        }
        ("committed", "processed") => {
            "the transaction with its outputs and its offset was committed".to_owned()
        }
        ("committed", outcome) => format!("a transaction was committed that made it: {outcome}"),
        ("reply lost", _) => {
            "its transaction was to be committed, and the reply was lost".to_owned()
        }
        ("rolled back", "crashed") if happened.error.is_some() => {
            "it was taken for a poison pill, and not handled".to_owned()
        }
        ("rolled back", "crashed") if !after => "the partition was taken over anew while it was \
                                                 being handled; Kafka's committed offset showed \
                                                 that nothing of it had become visible"
            .to_owned(),
        ("rolled back", "crashed") => "the process had been killed while it was being handled; \
                                       Kafka's committed offset showed that nothing of it had \
                                       become visible"
            .to_owned(),
        ("rolled back", "aborted") if happened.transaction.is_none() => {
            "it was taken from its handler, through no fault of its own".to_owned()
        }
        ("rolled back", "aborted") => {
            "its transaction was aborted, through no fault of its own; nothing of it became visible"
                .to_owned()
        }
        ("rolled back", "revoked") => {
            "the partition went to another owner before it was done".to_owned()
        }
        ("rolled back", reason) => format!("its handling failed ({reason}) and was undone"),
        ("again", _) => "it was made ready to be handled again".to_owned(),
        ("found done", "elsewhere") if is_operators(happened) => {
            "Kafka's committed offset, as an operator left it, showed that it was done".to_owned()
        }
        ("found done", "elsewhere") => {
            "Kafka's committed offset showed that another instance had done it".to_owned()
        }
        ("found done", "processed") if after => "the process had been killed before it heard that \
                                                 the transaction was committed; Kafka's committed \
                                                 offset showed that it was"
            .to_owned(),
        ("found done", outcome) => format!("Kafka's committed offset showed it done: {outcome}"),
        ("rewound", _) => "an operator moved the committed offset back below it: it will be done \
                           once more"
            .to_owned(),
        ("ordered", verb) => {
            let by = happened.operator.as_ref().map_or("an operator", |operator| &operator.by);
            format!("{by} ordered: {verb}")
        }
        (event, detail) => format!("{event} {detail}"),
    }
}

fn is_operators(happened: &Happened) -> bool {
    let author = happened.transaction.as_ref().and_then(|it| it.instance.as_deref());
    author.is_some_and(|author| author.starts_with(OPERATOR_PREFIX))
}

fn write_transaction(out: &mut dyn Write, transaction: &Transaction) -> Result {
    write!(out, "      transaction {}", transaction.number)?;
    if let Some(instance) = &transaction.instance {
        write!(out, " of {instance}")?;
    }
    if let Some(end) = transaction.end {
        write!(out, ": {end}")?;
    }
    if let Some(open_us) = transaction.open_us {
        write!(out, ", open for {}", milliseconds(open_us))?;
    }
    writeln!(out)?;
    for held in &transaction.held {
        let (topic, partition) = (&held.topic, held.partition);
        write!(out, "        it held {} messages of {topic}/{partition} ", held.messages)?;
        writeln!(out, "with {} outputs, and committed offset {}", held.outputs, held.offset)?;
    }
    Ok(())
}
