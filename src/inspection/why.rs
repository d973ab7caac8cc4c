//! The story of one message.

use countersign_statemachine::{Event, PartitionId, Run, State};
use serde::Serialize;
use thiserror::Error;

use super::state::{Range, end_name};
use super::utc;
use crate::store::record::{
    Happening, HistoryRecord, SessionRecord, StoredNote, StoredTransaction,
};
use crate::store::{Journal, PartitionName, StoreError};

/// Why no story can be told.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum WhyError {
    /// The store has never seen the partition.
    #[error("the store has never seen {topic}/{partition}; it knows {known}")]
    UnknownPartition {
        /// The topic asked for.
        topic: String,
        /// The partition asked for.
        partition: u32,
        /// What it does know.
        known: String,
    },
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// All that the store knows of one message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WhyReport {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: u32,
    /// The offset.
    pub offset: u64,
    /// What is known of the offset.
    pub known: Known,
    /// What happened, in order, as far as it is kept.
    pub story: Vec<Happened>,
    /// Whether older history was pruned.
    pub pruned: bool,
}

/// What is known of an offset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Known {
    /// It holds a message, or (only if `may_be_gap`) none.
    Message {
        /// How it stands.
        present: Present,
        /// The record counts fewer messages than offsets here, so that this offset may hold a
        /// control record or have been compacted away.
        may_be_gap: bool,
    },
    /// Between recorded messages, but not recorded: no message at this offset.
    Gap,
    /// Below all that is recorded: done before this store existed.
    BeforeTheStore {
        /// The lowest recorded offset.
        first: u64,
    },
    /// Above all that is recorded: not received yet.
    NotReceived {
        /// The highest recorded offset; `None` if nothing is recorded.
        last: Option<u64>,
    },
}

/// How a message stands. Once its history is no longer kept ([`WhyReport::pruned`]) the counters
/// are those of a message that ended without ado, whatever it went through.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Present {
    /// The state's name.
    pub state: &'static str,
    /// The outcome or reason, if the state has one.
    pub detail: Option<String>,
    /// How often it failed by itself.
    pub attempt: u32,
    /// How often it was started.
    pub deliveries: u32,
    /// How often an operator rewound it.
    pub life: u32,
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Happened {
    /// When, UTC.
    pub at: String,
    /// The start of the process it happened in, in hexadecimal; absent if that is not kept.
    pub incarnation: Option<String>,
    /// Whether the process ended between the thing before and this one.
    pub after_restart: bool,
    /// What.
    pub event: &'static str,
    /// The outcome or reason.
    pub detail: Option<String>,
    /// For a start, which delivery it was, if that can be told.
    pub delivery: Option<Delivery>,
    /// To which offsets it happened together.
    pub offsets: Range,
    /// To how many messages.
    pub messages: u64,
    /// The error.
    pub error: Option<String>,
    /// Who ordered it, and why.
    pub operator: Option<Operator>,
    /// The transaction it belongs to.
    pub transaction: Option<Transaction>,
}

/// An operator who ordered something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Operator {
    /// Who.
    pub by: String,
    /// Why.
    pub reason: String,
}

/// The number of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Delivery(pub u32);

/// A transaction, as far as it is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Transaction {
    /// Its number with its author.
    pub number: u64,
    /// Who made it; `None` if its record is not kept.
    pub instance: Option<String>,
    /// How it ended, if that is kept.
    pub end: Option<&'static str>,
    /// How long it was open, in microseconds.
    pub open_us: Option<u64>,
    /// What it held.
    pub held: Vec<Held>,
}

/// What a transaction held of one partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Held {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: u32,
    /// How many messages.
    pub messages: u64,
    /// How many outputs they had.
    pub outputs: u64,
    /// The offset it committed.
    pub offset: u64,
}

/// Splits `TOPIC/PARTITION@OFFSET`.
pub fn parse_target(text: &str) -> Option<(&str, u32, u64)> {
    let (place, offset) = text.rsplit_once('@')?;
    let (topic, partition) = place.rsplit_once('/')?;
    if topic.is_empty() {
        return None;
    }
    Some((topic, partition.parse().ok()?, offset.parse().ok()?))
}

/// Tells what happened to a message, and how it stands.
///
/// Of several topics that had the name in turn, the last one is meant.
///
/// # Errors
/// The partition is not known, or the store is damaged.
pub fn why(
    journal: &Journal,
    topic: &str,
    partition: u32,
    offset: u64,
) -> Result<WhyReport, WhyError> {
    let named = |(id, name): (PartitionId, &PartitionName)| {
        (name.topic == topic && name.partition == partition).then_some(id)
    };
    let Some(id) = journal.partitions().filter_map(named).last() else {
        let all: Vec<String> = journal.partitions().map(|(_, name)| name.to_string()).collect();
        let known = if all.is_empty() { "no partition".to_owned() } else { all.join(", ") };
        return Err(WhyError::UnknownPartition { topic: topic.to_owned(), partition, known });
    };
    let story = Teller::new(journal, id, offset)?.story();
    // What was signed in was received: spans that are signed in have no gaps.
    let received = story.iter().any(|it| it.event == STARTED);
    let known = known(journal, id, offset, received);
    let present = match &known {
        Known::Message { present, .. } => Some(present),
        Known::Gap | Known::BeforeTheStore { .. } | Known::NotReceived { .. } => None,
    };
    let starts = story.iter().filter(|it| it.event == STARTED).count();
    let pruned = present.is_some_and(|it| starts < it.deliveries as usize && it.life == 0);
    let story = present.map_or(Vec::new(), |it| numbered(story, it.deliveries));
    Ok(WhyReport { topic: topic.to_owned(), partition, offset, known, story, pruned })
}

fn known(journal: &Journal, id: PartitionId, offset: u64, received: bool) -> Known {
    if let Some(run) = journal.run_at(id, offset) {
        let may_be_gap = !received && run.count < run.span.len();
        return Known::Message { present: present(run), may_be_gap };
    }
    let (mut first, mut last) = (None, None);
    for run in journal.runs(id) {
        first = first.or(Some(run.span.first));
        last = Some(run.span.end - 1);
    }
    match (first, last) {
        (Some(first), _) if offset < first => Known::BeforeTheStore { first },
        (_, Some(end)) if offset < end => Known::Gap,
        (_, last) => Known::NotReceived { last },
    }
}

fn present(run: Run) -> Present {
    let history = run.history;
    let detail = match history.state {
        State::Pending | State::Processing | State::InDoubt => None,
        State::Confirmed(outcome) => Some(outcome.to_string()),
        State::RolledBack(reason) => Some(reason.to_string()),
    };
    Present {
        state: history.state.name(),
        detail,
        attempt: history.attempt,
        deliveries: history.deliveries,
        life: history.life,
    }
}

const STARTED: &str = "started";

/// Numbers the starts from the last one back: the first ones may have been pruned.
fn numbered(mut story: Vec<Happened>, deliveries: u32) -> Vec<Happened> {
    let mut left = deliveries;
    for happened in story.iter_mut().rev() {
        match happened.event {
            STARTED if left > 0 => {
                happened.delivery = Some(Delivery(left));
                left -= 1;
            }
            // Before a rewind another life was counted.
            "rewound" => break,
            _ => {}
        }
    }
    story
}

struct Teller<'a> {
    journal: &'a Journal,
    sessions: Vec<SessionRecord>,
    transactions: Vec<StoredTransaction>,
    happenings: Vec<Happening>,
}

/// More transactions than that do not hold the same message.
const TRANSACTIONS_MAX: usize = 1_000;

impl<'a> Teller<'a> {
    fn new(journal: &'a Journal, id: PartitionId, offset: u64) -> Result<Self, StoreError> {
        let records = journal.history_at(id, offset)?;
        let concerned = |happening: &&Happening| happening.span.contains(offset);
        let all = records.iter().flat_map(HistoryRecord::happenings);
        let mut happenings: Vec<Happening> = all.filter(concerned).cloned().collect();
        happenings.sort_by_key(|happening| happening.sequence);
        let transactions = journal.transactions(TRANSACTIONS_MAX, |transaction| {
            transaction.parts.iter().any(|part| {
                part.partition == id && part.span.is_some_and(|span| span.contains(offset))
            })
        })?;
        Ok(Self { journal, sessions: journal.sessions()?, transactions, happenings })
    }

    fn story(&self) -> Vec<Happened> {
        let mut session_before = None;
        let tell = |happening: &Happening| {
            let session = happening.sequence.session();
            let after_restart = session_before.is_some_and(|before| before != session);
            session_before = Some(session);
            self.happened(happening, after_restart)
        };
        self.happenings.iter().map(tell).collect()
    }

    fn happened(&self, happening: &Happening, after_restart: bool) -> Happened {
        let (event, detail) = event_name(happening.event);
        let session = happening.sequence.session();
        let session = self.sessions.iter().find(|it| it.number == session);
        let operator = match &happening.note {
            StoredNote::Operator(by, reason) => {
                Some(Operator { by: by.clone(), reason: reason.clone() })
            }
            StoredNote::None
            | StoredNote::Failure(_)
            | StoredNote::Transaction(_)
            | StoredNote::Author(..) => None,
        };
        let (error, transaction) = match &happening.note {
            StoredNote::None | StoredNote::Operator(..) => (None, None),
            StoredNote::Failure(text) => (Some(text.clone()), None),
            StoredNote::Transaction(number) => {
                (None, Some(self.own(*number, session.map(|it| it.incarnation))))
            }
            StoredNote::Author(author, number) => {
                let author = self.journal.author(*author, *number);
                let incarnation = author.as_ref().map(|it| it.incarnation);
                let told = self.own(*number, incarnation);
                let instance = author.map(|it| it.instance);
                (None, Some(Transaction { instance: told.instance.or(instance), ..told }))
            }
        };
        Happened {
            at: utc(happening.at_ms),
            incarnation: session.map(|it| format!("{:016x}", it.incarnation)),
            after_restart,
            event,
            detail,
            delivery: None,
            offsets: happening.span.into(),
            messages: happening.count,
            error,
            operator,
            transaction,
        }
    }

    /// The transaction of a number made by some worker of one start of a process.
    fn own(&self, number: u64, incarnation: Option<u64>) -> Transaction {
        let found = self.transactions.iter().find_map(|stored| {
            let author = self.journal.author(stored.author, stored.number)?;
            let same = stored.number == number && Some(author.incarnation) == incarnation;
            same.then_some((stored, author.instance))
        });
        let Some((stored, instance)) = found else {
            return Transaction { number, instance: None, end: None, open_us: None, held: vec![] };
        };
        Transaction {
            number,
            instance: Some(instance),
            end: Some(end_name(stored.end)),
            open_us: Some(stored.open_us),
            held: self.held(stored),
        }
    }

    fn held(&self, stored: &StoredTransaction) -> Vec<Held> {
        let held = stored.parts.iter().filter_map(|part| {
            let name = self.journal.name_of(part.partition)?;
            Some(Held {
                topic: name.topic.clone(),
                partition: name.partition,
                messages: part.messages,
                outputs: part.outputs,
                offset: part.offset,
            })
        });
        held.collect()
    }
}

fn event_name(event: Event) -> (&'static str, Option<String>) {
    match event {
        Event::Start => (STARTED, None),
        Event::Committed(outcome) => ("committed", Some(outcome.to_string())),
        Event::ReplyLost => ("reply lost", None),
        Event::RolledBack(reason) => ("rolled back", Some(reason.to_string())),
        Event::Again => ("again", None),
        Event::FoundDone(outcome) => ("found done", Some(outcome.to_string())),
        Event::Rewound => ("rewound", None),
        Event::Intervened(verb) => ("ordered", Some(verb.to_string())),
    }
}
