//! The check: what an independent reader saw against what the plan says.

use std::collections::{BTreeMap, HashMap};
use std::fmt::{self, Display, Formatter};

use super::log::{Letter, Log, Made};
use super::plan::{End, Fault, OUTPUTS, Plan, key_of};

/// What may not be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// The input is not what was loaded.
    Input,
    /// An output or a letter is of no message.
    Unknown,
    /// A message has neither outputs nor a letter.
    Lost,
    /// A message has one of its outputs, or its letter, more than once.
    Doubled,
    /// A message has some of its outputs, or some that it should not have.
    Torn,
    /// A message has outputs and a letter.
    BothEnds,
    /// A message that should have had outputs has a letter: it was blamed for what is not its own.
    GivenUp,
    /// A message that should have been given up has outputs.
    NotGivenUp,
    /// A message came out with an attempt that is not the one after its own failures.
    Attempts,
    /// A letter says something else than why the message failed, or is not the message.
    Letter,
    /// Messages of one key are not in their order.
    Order,
}

impl Rule {
    fn text(self) -> &'static str {
        match self {
            Self::Input => "not what was loaded",
            Self::Unknown => "of no message",
            Self::Lost => "lost",
            Self::Doubled => "doubled",
            Self::Torn => "torn: not exactly its outputs",
            Self::BothEnds => "both outputs and a dead letter",
            Self::GivenUp => "given up without cause",
            Self::NotGivenUp => "not given up",
            Self::Attempts => "attempts that are not its own",
            Self::Letter => "dead letter that does not fit",
            Self::Order => "out of order within their key",
        }
    }
}

/// How messages of one kind ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Row {
    /// How many there are.
    pub planned: u64,
    /// How many have outputs.
    pub outputs: u64,
    /// How many have a dead letter.
    pub letters: u64,
    /// How many were tried once more although they had failed for the last time: that was told, to
    /// Kafka or to the store, and its process died or lost the partition before the letter was
    /// committed. Who takes over does not know what was said, and asks once more.
    pub tried_again: u64,
}

/// What the check found.
#[derive(Debug, Default)]
pub struct Verdict {
    /// How messages ended, by how they fail.
    pub rows: BTreeMap<Option<Fault>, Row>,
    /// Dead letters by disposition and class.
    pub dispositions: BTreeMap<(String, String), u64>,
    /// How many rules were broken, each with its first case.
    pub violations: BTreeMap<Rule, (u64, String)>,
}

impl Verdict {
    /// Whether every message ended as it should have.
    pub fn is_exact(&self) -> bool {
        self.violations.is_empty()
    }

    fn violated(&mut self, rule: Rule, case: impl FnOnce() -> String) {
        let (count, _) = self.violations.entry(rule).or_insert_with(|| (0, case()));
        *count += 1;
    }
}

/// What was found of one message.
#[derive(Debug, Default)]
struct Found<'a> {
    /// Where it was read from.
    input: Option<(u32, u64)>,
    outputs: [Vec<&'a Made>; OUTPUTS.len()],
    letters: Vec<&'a Letter>,
}

impl Found<'_> {
    fn has_outputs(&self) -> bool {
        self.outputs.iter().any(|made| !made.is_empty())
    }
}

/// Judges what was read of messages `0..total`. Partitions were taken up `takeovers` times: each
/// time a message that had failed for the last time may have been tried once more.
pub fn check(total: u64, log: &Log, takeovers: u32) -> Verdict {
    let mut verdict = Verdict::default();
    let mut found: Vec<Found<'_>> = (0..total).map(|_| Found::default()).collect();
    gather(log, &mut found, &mut verdict);
    for (index, found) in (0..).zip(&found) {
        judge(&Plan::of(index), found, takeovers, &mut verdict);
    }
    for letter in &log.letters {
        let words = (letter.disposition.clone(), letter.class.clone());
        *verdict.dispositions.entry(words).or_default() += 1;
    }
    for (topic, made) in OUTPUTS.into_iter().zip(&log.outputs) {
        let made = made.iter().map(|made| (made.partition, made.offset, made.index, &made.key));
        order(topic, made, &mut verdict);
    }
    let letters = log.letters.iter().filter_map(|letter| {
        Some((letter.partition, letter.offset, log.index_of(letter.original)?, &letter.key))
    });
    order("the dead letters", letters, &mut verdict);
    verdict
}

/// Sorts what was read by message.
fn gather<'a>(log: &'a Log, found: &mut [Found<'a>], verdict: &mut Verdict) {
    for (&place, &index) in &log.inputs {
        match usize::try_from(index).ok().and_then(|index| found.get_mut(index)) {
            Some(found) if found.input.is_none() => found.input = Some(place),
            Some(_) | None => verdict.violated(Rule::Input, || format!("{index} at {place:?}")),
        }
    }
    for (topic, made) in log.outputs.iter().enumerate() {
        for made in made {
            let found = usize::try_from(made.index).ok().and_then(|index| found.get_mut(index));
            match found.and_then(|found| found.outputs.get_mut(topic)) {
                Some(outputs) => outputs.push(made),
                None => verdict.violated(Rule::Unknown, || format!("{made:?}")),
            }
        }
    }
    for letter in &log.letters {
        let index = log.index_of(letter.original).and_then(|index| usize::try_from(index).ok());
        match index.and_then(|index| found.get_mut(index)) {
            Some(found) => found.letters.push(letter),
            None => verdict.violated(Rule::Unknown, || format!("{letter:?}")),
        }
    }
}

fn judge(plan: &Plan, found: &Found<'_>, takeovers: u32, verdict: &mut Verdict) {
    count(plan, found, verdict);
    let case = || format!("{found:?} of {plan:?}");
    if found.input.is_none() {
        return verdict.violated(Rule::Input, case);
    }
    if found.letters.len() > 1 || found.outputs.iter().any(|made| made.len() > 1) {
        verdict.violated(Rule::Doubled, case);
    }
    match (found.has_outputs(), found.letters.first(), plan.end()) {
        (false, None, _) => verdict.violated(Rule::Lost, case),
        (true, Some(_), _) => verdict.violated(Rule::BothEnds, case),
        (false, Some(_), End::Outputs { .. }) => verdict.violated(Rule::GivenUp, case),
        (true, None, End::Letter { .. }) => verdict.violated(Rule::NotGivenUp, case),
        (true, None, End::Outputs { attempt }) => {
            let topics = found.outputs.each_ref().map(|made| !made.is_empty());
            if topics != plan.outputs {
                verdict.violated(Rule::Torn, case);
            }
            if found.outputs.iter().flatten().any(|made| made.attempt != attempt) {
                verdict.violated(Rule::Attempts, case);
            }
        }
        (false, Some(letter), End::Letter { attempts }) => {
            if !(attempts..=attempts + takeovers).contains(&letter.attempts) {
                verdict.violated(Rule::Attempts, case);
            }
            if !fits(plan, letter) {
                verdict.violated(Rule::Letter, case);
            }
        }
    }
}

fn count(plan: &Plan, found: &Found<'_>, verdict: &mut Verdict) {
    let row = verdict.rows.entry(plan.fails.map(|(fault, _)| fault)).or_default();
    row.planned += 1;
    row.outputs += u64::from(found.has_outputs());
    row.letters += u64::from(!found.letters.is_empty());
    if let End::Letter { attempts } = plan.end() {
        let is_more = |letter: &&Letter| letter.attempts > attempts;
        row.tried_again += u64::from(found.letters.first().is_some_and(is_more));
    }
}

/// Whether a letter is the message as it was, and says why it is one.
fn fits(plan: &Plan, letter: &Letter) -> bool {
    let words = plan.fails.map(|(fault, _)| fault.words());
    letter.key == plan.key()
        && letter.value == plan.value()
        && words == Some((letter.disposition.as_str(), letter.class.as_str()))
}

/// The messages of each key must be in one partition, in order; `records` are in the order of
/// their partition.
fn order<'a>(
    topic: &str,
    records: impl Iterator<Item = (u32, u64, u64, &'a String)>,
    verdict: &mut Verdict,
) {
    let mut last: HashMap<&str, (u32, u64)> = HashMap::new();
    for (partition, offset, index, key) in records {
        let before = last.insert(key, (partition, index));
        let follows = before.is_none_or(|(at, before)| at == partition && before < index);
        if !follows || *key != key_of(index) {
            verdict.violated(Rule::Order, || {
                format!(
                    "{index} of {key} at {topic}/{partition}@{offset} comes after {before:?} \
                     (partition, message)"
                )
            });
        }
    }
}

impl Display for Verdict {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "counted by an independent read_committed reader")?;
        writeln!(f, "  messages that      planned    outputs  dead letters  tried once more")?;
        for (fault, Row { planned, outputs, letters, tried_again }) in &self.rows {
            let kind = fault.map_or("do not fail".to_owned(), |fault| format!("{fault:?}"));
            writeln!(
                f,
                "  {kind:<14}  {planned:>10}  {outputs:>9}  {letters:>12}  {tried_again:>15}"
            )?;
        }
        for ((disposition, class), count) in &self.dispositions {
            writeln!(f, "  dead letters {disposition} by {class}: {count}")?;
        }
        for (rule, (count, first)) in &self.violations {
            writeln!(f, "  VIOLATED {count} times: {}; first: {first}", rule.text())?;
        }
        write!(f, "  {}", if self.is_exact() { "exact" } else { "NOT EXACT" })
    }
}
