//! Counts what an independent `read_committed` reader sees.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::{self, Display, Formatter};

use countersign::provenance::{HEADER, Provenance};
use countersign_testkit::broker::LocalKafka;
use countersign_testkit::reader::{Isolation, read_all};

use super::PATIENCE;
use super::broker::OUTPUTS;

/// The outputs of one order.
#[derive(Debug, Default)]
struct Seen {
    of: u32,
    /// How often each of them was seen.
    outputs: BTreeMap<u32, u32>,
    /// The transactions they came in.
    transactions: Vec<(u64, u64)>,
}

/// What became visible.
#[derive(Debug)]
pub(crate) struct Check {
    orders: u64,
    per_topic: Vec<(&'static str, usize)>,
    lost: u64,
    doubled: usize,
    torn: usize,
}

impl Check {
    pub(crate) fn read(kafka: &LocalKafka, orders: u64) -> Result<Self, Box<dyn Error>> {
        let mut seen: BTreeMap<(u32, u64), Seen> = BTreeMap::new();
        let mut per_topic = Vec::new();
        for topic in OUTPUTS {
            let records = read_all(kafka.bootstrap(), topic, Isolation::Committed, PATIENCE)?;
            per_topic.push((topic, records.len()));
            for record in records {
                let header = record.headers.iter().find(|(name, _)| name == HEADER);
                let value = header.and_then(|(_, value)| value.as_deref());
                let from = Provenance::read(value.ok_or("an output without provenance")?)?;
                let seen = seen.entry((from.partition.partition, from.offset)).or_default();
                seen.of = from.of;
                *seen.outputs.entry(from.n).or_default() += 1;
                seen.transactions.push((from.author.incarnation, from.author.number));
            }
        }
        let one_transaction = |seen: &Seen| seen.transactions.windows(2).all(|w| w[0] == w[1]);
        let whole = |seen: &Seen| seen.outputs.len() == seen.of as usize && one_transaction(seen);
        Ok(Self {
            orders,
            per_topic,
            lost: orders.saturating_sub(seen.len() as u64),
            doubled: seen.values().filter(|seen| seen.outputs.values().any(|&n| n > 1)).count(),
            torn: seen.values().filter(|seen| !whole(seen)).count(),
        })
    }

    pub(crate) fn is_exact(&self) -> bool {
        self.lost == 0 && self.doubled == 0 && self.torn == 0
    }
}

impl Display for Check {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "counted by an independent read_committed reader")?;
        writeln!(f, "  orders              {:>9}", self.orders)?;
        for (topic, records) in &self.per_topic {
            writeln!(f, "  {topic:<18}  {records:>9}")?;
        }
        writeln!(f, "  lost                {:>9}", self.lost)?;
        writeln!(f, "  doubled             {:>9}", self.doubled)?;
        writeln!(f, "  torn transactions   {:>9}", self.torn)
    }
}
