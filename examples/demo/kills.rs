//! What a kill interrupted, and what became of it.

use std::error::Error;
use std::fmt::{self, Display, Formatter, Write as _};

use countersign::inspection;
use countersign::statemachine::{Event, PartitionId, Reason, Span, State};
use countersign::store::Journal;

use super::process::Payments;

/// Messages that were signed in and not confirmed when the process died.
#[derive(Debug)]
pub(crate) struct Kill {
    at: u64,
    in_flight: Vec<(PartitionId, u32, Span)>,
}

impl Kill {
    /// Looks into the store of the dead process.
    pub(crate) fn look(at: u64, dead: &Payments) -> Result<Self, Box<dyn Error>> {
        let journal = dead.journal()?;
        let mut in_flight = Vec::new();
        for (id, name) in journal.partitions() {
            let open = |state| matches!(state, State::Processing | State::InDoubt);
            let runs = journal.runs(id).filter(|run| open(run.history.state));
            in_flight.extend(runs.map(|run| (id, name.partition, run.span)));
        }
        Ok(Self { at, in_flight })
    }

    fn messages(&self) -> u64 {
        self.in_flight.iter().map(|(_, _, span)| span.len()).sum()
    }

    /// One message that was in flight.
    pub(crate) fn interrupted(&self) -> Option<(u32, u64)> {
        self.in_flight.iter().map(|(_, partition, span)| (*partition, span.end - 1)).next()
    }

    /// How many of them Kafka showed as committed, and how many were handled again.
    fn fate(&self, journal: &Journal) -> Result<(u64, u64), Box<dyn Error>> {
        let (mut committed, mut again) = (0, 0);
        for (id, _, span) in &self.in_flight {
            for offset in span.first..span.end {
                let rolled_back = journal.history_at(*id, offset)?.iter().any(|record| {
                    record.happenings().any(|happening| {
                        happening.event == Event::RolledBack(Reason::Crashed)
                            && happening.span.contains(offset)
                    })
                });
                if rolled_back { again += 1 } else { committed += 1 }
            }
        }
        Ok((committed, again))
    }
}

impl Display for Kill {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} messages in flight", self.messages())
    }
}

/// The kills as a table for people.
pub(crate) fn table(kills: &[Kill], victim: &Payments) -> Result<String, Box<dyn Error>> {
    let journal = victim.journal()?;
    let mut table = String::new();
    writeln!(table, "kill -9 at     in flight  found committed  handled again  not confirmed now")?;
    for kill in kills {
        let (committed, again) = kill.fate(&journal)?;
        let open = kill.in_flight.iter().map(|(id, _, span)| unconfirmed(&journal, *id, *span));
        let open: u64 = open.sum();
        let (at, messages) = (kill.at, kill.messages());
        writeln!(table, "{at:<12} {messages:>11}  {committed:>15}  {again:>13}  {open:>17}")?;
    }
    let state = inspection::state(&journal)?;
    write!(table, "the store of instance a now: {} confirmed", state.totals.confirmed)?;
    Ok(table)
}

fn unconfirmed(journal: &Journal, id: PartitionId, span: Span) -> u64 {
    let runs = journal.runs(id).filter(|run| !run.history.state.is_confirmed());
    runs.filter_map(|run| run.span.intersect(span)).map(Span::len).sum()
}
