//! What a message does and what must become of it: decided by its number alone, so that whoever
//! has the number knows both.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The topics that outputs go to: each message has outputs to one, two or all three.
pub const OUTPUTS: [&str; 3] = ["soak-a", "soak-b", "soak-c"];

/// How often a message may fail.
pub const ATTEMPTS: u32 = 5;

/// A failing message fails so often: whenever it is tried.
const ALWAYS: u32 = u32::MAX;

/// One key in so many is that of a message.
const KEYS: u64 = 1_000;

/// Of so many messages [`FAILING`] tells how many fail: 1 % in all.
const FAILING_OF: u64 = 60_000;

/// How many fail in which way.
const FAILING: [(Fault, u64); 6] = [
    (Fault::Retryable, 100),
    (Fault::Permanent, 100),
    (Fault::Panic, 100),
    (Fault::Deadline, 100),
    (Fault::Undecodable, 100),
    (Fault::TooLarge, 100),
];

/// Of so many messages one lets its handler wait for a moment, so that others overtake it.
const PAUSING_OF: u64 = 50;

/// What a message does to its handler.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Fault {
    /// The handler says that trying again may help.
    Retryable,
    /// The handler says that it does not.
    Permanent,
    /// The handler panics.
    Panic,
    /// The handler does not come back.
    Deadline,
    /// One of the outputs is larger than its topic takes.
    TooLarge,
    /// The value is no message at all.
    Undecodable,
}

impl Fault {
    /// How a message fails whose dice fell so, if it does.
    fn of(dice: u64) -> Option<Self> {
        let mut left = dice % FAILING_OF;
        FAILING.into_iter().find_map(|(fault, share)| match left.checked_sub(share) {
            None => Some(fault),
            Some(rest) => {
                left = rest;
                None
            }
        })
    }

    /// Whether trying again cannot help, so that the first failure is the last.
    fn is_final(self) -> bool {
        match self {
            Self::Permanent | Self::Undecodable | Self::TooLarge => true,
            Self::Retryable | Self::Panic | Self::Deadline => false,
        }
    }

    /// What the dead letter's headers say: the disposition, and the class of the error.
    pub fn words(self) -> (&'static str, &'static str) {
        let disposition =
            if self.is_final() { "CLIENT_REJECTED" } else { "MAX_DELIVERY_ATTEMPTS_REACHED" };
        let class = match self {
            Self::Retryable | Self::Permanent | Self::TooLarge | Self::Undecodable => "error",
            Self::Panic => "panic",
            Self::Deadline => "deadline",
        };
        (disposition, class)
    }
}

/// A message, as its value tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Its number.
    pub index: u64,
    /// Whether there is an output to each of [`OUTPUTS`].
    pub outputs: [bool; OUTPUTS.len()],
    /// How it fails, and how many of its attempts.
    pub fails: Option<(Fault, u32)>,
    /// How long its handler waits before it answers.
    pub pause_ms: u64,
}

/// What must become of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Its outputs, made by this attempt.
    Outputs {
        /// From 1.
        attempt: u32,
    },
    /// A dead letter and no output.
    Letter {
        /// How often it has failed at least.
        attempts: u32,
    },
}

impl Plan {
    /// What the message with this number does.
    pub fn of(index: u64) -> Self {
        let dice = mix(index);
        let fails = Fault::of(dice).map(|fault| (fault, times(fault, mix(dice))));
        // From 1 to 7, bit by bit.
        let bits = (dice >> 32) % 7 + 1;
        let pauses = (dice >> 40).is_multiple_of(PAUSING_OF) && fails.is_none();
        Self {
            index,
            outputs: [0, 1, 2].map(|bit| bits >> bit & 1 == 1),
            fails,
            pause_ms: if pauses { 1 + (dice >> 48) % 5 } else { 0 },
        }
    }

    /// Which messages it waits for.
    pub fn key(&self) -> String {
        key_of(self.index)
    }

    /// The message's value.
    pub(super) fn value(&self) -> Vec<u8> {
        let mut value = serde_json::to_vec(self).expect("a plan is plain data");
        if matches!(self.fails, Some((Fault::Undecodable, _))) {
            // Not even text.
            value.truncate(value.len() / 2);
            value.push(0xff);
        }
        value
    }

    /// How the message with this attempt fails, if it does.
    pub fn fault(&self, attempt: u32) -> Option<Fault> {
        self.fails.filter(|(_, times)| attempt <= *times).map(|(fault, _)| fault)
    }

    /// What must become of it.
    pub fn end(&self) -> End {
        match self.fails {
            None => End::Outputs { attempt: 1 },
            Some((fault, _)) if fault.is_final() => End::Letter { attempts: 1 },
            Some((_, times)) if times >= ATTEMPTS => End::Letter { attempts: ATTEMPTS },
            Some((_, times)) => End::Outputs { attempt: times + 1 },
        }
    }
}

/// The key of the message with this number.
pub fn key_of(index: u64) -> String {
    format!("key-{}", mix(index ^ 0x5bd1) % KEYS)
}

/// How many of the messages up to `total` fail in each way; `None`: those that do not.
pub fn planned(total: u64) -> BTreeMap<Option<Fault>, u64> {
    let mut counts = BTreeMap::new();
    for index in 0..total {
        *counts.entry(Plan::of(index).fails.map(|(fault, _)| fault)).or_default() += 1;
    }
    counts
}

/// How many of its attempts a message of this kind fails.
fn times(fault: Fault, dice: u64) -> u32 {
    let few = u32::try_from(dice >> 8 & 3).unwrap_or(0) + 1;
    match fault {
        Fault::Permanent | Fault::Undecodable | Fault::TooLarge => ALWAYS,
        Fault::Retryable if dice.is_multiple_of(3) => ALWAYS,
        Fault::Panic | Fault::Deadline if dice.is_multiple_of(2) => ALWAYS,
        Fault::Retryable | Fault::Panic | Fault::Deadline => few,
    }
}

/// The finaliser of splitmix64: every bit of the number changes half of the result's.
fn mix(number: u64) -> u64 {
    let mut bits = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_in_a_hundred_fails_and_every_way_is_met() {
        let counts = planned(60_000);
        let failing: u64 = counts.iter().filter(|(fault, _)| fault.is_some()).map(|(_, n)| n).sum();
        assert!((500..700).contains(&failing), "{counts:?}");
        assert_eq!(counts.len(), 1 + FAILING.len(), "{counts:?}");
        let plans: Vec<Plan> = (0..60_000).map(Plan::of).collect();
        for fault in [Fault::Retryable, Fault::Panic, Fault::Deadline] {
            let of = |plan: &&Plan| plan.fails.is_some_and(|(found, _)| found == fault);
            let (given_up, done): (Vec<&Plan>, Vec<&Plan>) =
                plans.iter().filter(of).partition(|plan| matches!(plan.end(), End::Letter { .. }));
            assert!(!given_up.is_empty() && !done.is_empty(), "{fault:?}");
        }
        for bits in 1..8 {
            let outputs = [0, 1, 2].map(|bit| bits >> bit & 1 == 1);
            assert!(plans.iter().any(|plan| plan.outputs == outputs), "{outputs:?}");
        }
    }

    #[test]
    fn values_say_what_the_plan_is_except_those_that_say_nothing() {
        for plan in (0..10_000).map(Plan::of) {
            let read = serde_json::from_slice::<Plan>(&plan.value());
            match plan.fails {
                Some((Fault::Undecodable, _)) => assert!(read.is_err()),
                Some(_) | None => assert_eq!(read.expect("JSON"), plan),
            }
        }
    }

    #[test]
    fn a_message_ends_with_the_first_attempt_that_does_not_fail() {
        for plan in (0..60_000).map(Plan::of) {
            match plan.end() {
                End::Outputs { attempt } => {
                    assert!((1..attempt).all(|failed| plan.fault(failed).is_some()));
                    assert_eq!(plan.fault(attempt), None);
                    assert!(attempt <= ATTEMPTS);
                }
                End::Letter { attempts } => {
                    assert!((1..=attempts + 100).all(|failed| plan.fault(failed).is_some()));
                }
            }
        }
    }
}
