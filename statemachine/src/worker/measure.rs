//! How large a transaction may be: by the settings, and by what Kafka managed of late.
//!
//! What was not delivered is not tried again in the same size. Transactions are half as large then
//! as the one that failed; after one that took half of the transaction's time-out they
//! begin with a single message, because nothing is known of what Kafka manages now. Each commit
//! allows twice of what it had. A flush that takes more than a quarter of the time-out is too large
//! as well, though it succeeds: two of them share the way to the broker, and their commits come on
//! top.

use crate::settings::Settings;

use super::transaction::{Loss, Stage, Transaction};
use super::{Time, Worker};

/// A flush may take this share of the transaction's time-out.
const FLUSH_SHARE: u32 = 4;

/// What failed after this share of the time-out, or later, has failed for want of time.
const LATE_SHARE: u32 = 2;

/// No bound but that of the settings.
const UNBOUND: u64 = u64::MAX;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Measure {
    /// At most so many messages.
    records: u64,
    /// At most so many bytes.
    bytes: u64,
    /// How many bytes a message of the transaction that was weighed last has; zero: none was.
    mean: u64,
}

impl Measure {
    pub(super) const NEW: Self = Self { records: UNBOUND, bytes: UNBOUND, mean: 0 };

    /// How many messages more a transaction may take. An empty one takes at least one.
    pub(super) fn room(&self, transaction: &Transaction, settings: &Settings) -> u64 {
        let held = transaction.messages;
        let records = self.records.min(settings.transaction_records).saturating_sub(held);
        // What was sent and not weighed yet is taken for as heavy as the rest.
        let unweighed = held.saturating_sub(transaction.weighed);
        let bytes = transaction.bytes.saturating_add(unweighed.saturating_mul(self.mean));
        let left = self.bytes.min(settings.transaction_bytes).saturating_sub(bytes);
        let by_bytes = if transaction.is_large || left == 0 {
            0
        } else {
            left.checked_div(self.mean).unwrap_or(u64::MAX).max(1)
        };
        records.min(by_bytes).max(u64::from(held == 0))
    }

    /// Messages of a transaction have so many bytes.
    fn weighed(&mut self, transaction: &Transaction) {
        if let Some(mean) = transaction.bytes.checked_div(transaction.weighed) {
            self.mean = mean.max(1);
        }
    }

    /// A transaction is acknowledged, which took so long.
    fn flushed(&mut self, transaction: &Transaction, settings: &Settings) {
        let share = settings.transaction_timeout / FLUSH_SHARE;
        if transaction.messages > 0 && transaction.flush_took > share {
            let timely = |held| in_time(held, transaction.flush_took, share);
            self.records = self.records.min(timely(transaction.messages));
            self.bytes = self.bytes.min(timely(transaction.bytes));
        }
    }

    /// A transaction of that size can be committed.
    pub(super) fn committed(&mut self, transaction: &Transaction, settings: &Settings) {
        let (took, share) = (transaction.flush_took, settings.transaction_timeout / FLUSH_SHARE);
        let grown = |bound: u64, held: u64, most: u64| {
            let twice = held.saturating_mul(2);
            let next = if took > share / 2 { twice.min(in_time(held, took, share)) } else { twice };
            Some(bound.max(next)).filter(|bound| *bound < most).unwrap_or(UNBOUND)
        };
        self.records = grown(self.records, transaction.messages, settings.transaction_records);
        self.bytes = grown(self.bytes, transaction.bytes, settings.transaction_bytes);
    }

    /// The outputs of a transaction were not delivered, and no message is to blame.
    fn failed(&mut self, transaction: &Transaction) {
        let less = |bound: u64, held: u64| match held {
            0 => bound,
            _ => bound.min((held / 2).max(1)),
        };
        self.records = less(self.records, transaction.messages);
        self.bytes = less(self.bytes, transaction.bytes);
    }

    /// A transaction came to nothing after so long that Kafka may not have been there at all.
    fn failed_late(&mut self, transaction: &Transaction) {
        if transaction.messages > 0 {
            (self.records, self.bytes) = (1, 1);
        }
    }
}

/// How much can be flushed within a share of the time-out, if `held` took so long.
fn in_time(held: u64, took: Time, share: Time) -> u64 {
    let much = (u128::from(held) * share.as_micros()).checked_div(took.as_micros());
    much.map_or(u64::MAX, |much| u64::try_from(much).unwrap_or(u64::MAX)).max(1)
}

impl Worker {
    pub(super) fn on_large(&mut self, number: u64) {
        if let Some(transaction) = self.transaction(number) {
            transaction.is_large = true;
        }
    }

    /// Messages of a transaction were weighed; gives whether it can take no more because of it.
    pub(super) fn is_filled_by(&mut self, number: u64, messages: u64, bytes: u64) -> bool {
        let Some(it) = self.transactions.iter_mut().find(|it| it.number == number) else {
            return false;
        };
        it.weighed = it.messages.min(it.weighed + messages);
        it.bytes = it.bytes.saturating_add(bytes);
        self.measure.weighed(it);
        it.stage == Stage::Filling && self.measure.room(it, &self.settings) == 0
    }

    /// All of a transaction is acknowledged.
    pub(super) fn note_flushed(&mut self, number: u64) {
        let Some(it) = self.transactions.iter_mut().find(|it| it.number == number) else { return };
        it.flush_took = self.now.saturating_sub(it.closed.unwrap_or(self.now));
        self.measure.flushed(it, &self.settings);
    }

    /// What it means that a call of a transaction fails now, if it is not for want of time.
    pub(super) fn loss_now(&self, transaction: &Transaction, unless_late: Loss) -> Loss {
        let waited = self.now.saturating_sub(transaction.closed.unwrap_or(transaction.began));
        let is_late = waited >= self.settings.transaction_timeout / LATE_SHARE;
        if is_late { Loss::Late } else { unless_late }
    }

    /// What failed for how Kafka is, waits and is tried again in a smaller way. What follows it
    /// came to nothing with it, and counts as one with it. If messages are to blame, they alone
    /// wait, as any that failed: what was with them goes out at once, and is committed before they
    /// are tried again.
    pub(super) fn pause_after(&mut self, transaction: &Transaction) {
        let pauses = match transaction.loss {
            Some(Loss::Refused | Loss::Followed) => false,
            Some(Loss::Undelivered) => {
                self.measure.failed(transaction);
                true
            }
            Some(Loss::Late) => {
                self.measure.failed_late(transaction);
                true
            }
            Some(Loss::Failed | Loss::Lost) | None => true,
        };
        if pauses {
            self.aborts_in_row = self.aborts_in_row.saturating_add(1);
            let wait = self.settings.abort_backoff.wait(self.aborts_in_row, self.settings.seed);
            self.resume_at = self.now + wait;
        }
    }
}
