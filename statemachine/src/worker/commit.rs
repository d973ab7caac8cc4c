//! From finished to done: the chain of transactions.
//!
//! Transactions are decided in the order they were begun. One takes messages of a partition only
//! when those that the one before it has of that partition are acknowledged, so that outputs keep
//! their order; it sends its offsets only when that one has ended well; and if that one comes to
//! nothing, it comes to nothing too, and both are sent again in order.

use crate::entry::{End, Entry, Part, PartitionId, TransactionRecord};
use crate::metadata::Author;
use crate::settings::Order;
use crate::state::Reason;

use super::effect::Effect;
use super::input::Denied;
use super::notice::Notice;
use super::partition::{Partition, Tenure};
use super::refusal::Subject;
use super::sending::Pick;
use super::suspects::Load;
use super::transaction::{Loss, Slot, Stage, Transaction};
use super::window::Phase;
use super::{Time, Worker};

/// A transaction with fewer messages than this may end early. Under load there are moments in which
/// nothing is under way, too, and transactions must not become small because of them.
const FEW: u64 = 1_000;

impl Worker {
    pub(super) fn advance_transactions(&mut self) {
        self.commit_front();
        self.fill();
        self.close();
        self.note_wanted();
        if self.wants_transaction() && self.begin() {
            self.fill();
            self.close();
        }
    }

    /// What waits for its turn waits for the commit as well: its interval has begun.
    fn note_wanted(&mut self) {
        if !self.partitions.values().any(Partition::has_finished) {
            self.wanted = None;
        } else if self.wanted.is_none() {
            self.wanted = Some(self.now);
        }
    }

    fn commit_front(&mut self) {
        let Some(front) = self.transactions.front() else { return };
        if front.stage != Stage::Flushed || self.is_renewing() {
            return;
        }
        let (number, slot) = (front.number, front.slot);
        let mut sent = Vec::new();
        for partition in self.partitions.values_mut() {
            let holds = partition.window.any(|phase| phase == Phase::Sent { number });
            if holds || partition.wants_commit() {
                sent.push(partition.send(number, &self.settings));
            }
        }
        if sent.is_empty() {
            self.withdraw(number);
            return;
        }
        let offsets = sent.iter().map(|sent| sent.position.clone()).collect();
        self.effects.push_back(Effect::Commit { slot, number, offsets });
        if let Some(transaction) = self.transaction(number) {
            transaction.stage = Stage::Committing;
            transaction.sent = sent;
        }
    }

    /// Whether a producer is being replaced. Until its successor is registered, a late copy of its
    /// last `TxnOffsetCommit` may still find its transaction undecided, while the markers of a
    /// commit that was answered are being written: it would stand behind the offsets that are sent
    /// now, and the group's offset would go back.
    fn is_renewing(&self) -> bool {
        self.slots.iter().any(|slot| matches!(slot, Slot::Opening { .. } | Slot::Closed { .. }))
    }

    /// Whether a partition that is being let go waits for nothing but its commit.
    fn is_urgent(&self) -> bool {
        let mut leaving = self
            .partitions
            .values()
            .filter(|p| matches!(p.tenure, Tenure::Leaving { .. }))
            .peekable();
        leaving.peek().is_some() && leaving.all(Partition::is_closing)
    }

    /// Whether outputs of a partition are under way that those which follow must not overtake.
    pub(super) fn is_flushing(&self, id: PartitionId) -> bool {
        let keeps_order = self.settings.order != Order::None;
        let mut flushing = self.transactions.iter().filter(|t| t.stage == Stage::Flushing);
        keeps_order && flushing.any(|transaction| transaction.holds.contains(&id))
    }

    fn wants_transaction(&self) -> bool {
        let mut flushed = self.transactions.iter().filter(|t| t.stage == Stage::Flushing);
        let flushing = flushed.clone().next().is_some();
        // Suspects may well be refused, and what follows would come to nothing with them.
        if flushed.any(|transaction| transaction.load != Load::Others) {
            return false;
        }
        if self.next_load().is_some() {
            return true;
        }
        // A position alone waits until all is acknowledged: it may be told with what follows.
        if flushing {
            return false;
        }
        if self.partitions.values().any(|p| p.hurries() && p.wants_commit()) {
            return true;
        }
        let rested =
            self.last_begin.is_none_or(|begin| begin + self.settings.commit_interval <= self.now);
        (rested || self.is_urgent()) && self.partitions.values().any(Partition::wants_commit)
    }

    fn begin(&mut self) -> bool {
        let free = self.slots.iter().position(|slot| *slot == Slot::Idle);
        let in_order = self.transactions.iter().all(|transaction| match transaction.stage {
            Stage::Flushing | Stage::Flushed | Stage::Committing => true,
            Stage::Filling
            | Stage::Aborting
            | Stage::Withdrawn
            | Stage::InDoubt
            | Stage::Deciding => false,
        });
        let Some(slot) = free.and_then(|slot| u32::try_from(slot).ok()) else { return false };
        if !in_order || self.resume_at > self.now || self.stopped {
            return false;
        }
        self.numbers += 1;
        self.last_begin = Some(self.now);
        self.set_slot(slot, Slot::Busy);
        let due = self.wanted.take().unwrap_or(self.now) + self.settings.commit_interval;
        let load = self.take_load();
        self.transactions.push_back(Transaction::new(self.numbers, slot, (self.now, due), load));
        true
    }

    fn fill(&mut self) {
        let Some(back) = self.transactions.back() else { return };
        if back.stage != Stage::Filling {
            return;
        }
        // Each transaction starts with another partition, so that none is starved by the bound.
        let turn = usize::try_from(back.number).unwrap_or(0) % self.partitions.len().max(1);
        let ids: Vec<PartitionId> =
            self.partitions.keys().copied().filter(|id| !self.is_flushing(*id)).collect();
        let has_suspects = !self.suspects.is_empty();
        let Some(back) = self.transactions.back_mut() else { return };
        for id in ids.iter().cycle().skip(turn).take(ids.len()) {
            let Some(partition) = self.partitions.get_mut(id) else { continue };
            if partition.window.count(Phase::Finished) == 0 {
                continue;
            }
            let room = self.measure.room(back, &self.settings);
            if room == 0 {
                break;
            }
            let suspects = if has_suspects { self.suspects.of(*id) } else { Vec::new() };
            let pick = match &back.load {
                Load::Others if suspects.is_empty() => Pick::All,
                Load::Others => Pick::Without(&suspects),
                Load::Suspects { group, .. } => Pick::Only(group.get(id).map_or(&[], |s| &**s)),
            };
            for span in partition.take_finished(back.number, (room, pick), &self.settings) {
                back.messages += span.len();
                back.holds.insert(*id);
                let (slot, number) = (back.slot, back.number);
                self.effects.push_back(Effect::Send { slot, number, partition: *id, span });
            }
        }
    }

    fn close(&mut self) {
        if self.transactions.back().is_none_or(|back| back.stage != Stage::Filling) {
            return;
        }
        let urgent = self.is_urgent() || self.partitions.values().any(Partition::hurries);
        // Behind another one it would be flushed only to wait, and what comes meanwhile as well.
        let ripe = self.transactions.len() == 1 && self.ripens().is_some_and(|at| at <= self.now);
        let Some(back) = self.transactions.back_mut() else { return };
        let full = self.measure.room(back, &self.settings) == 0 || back.load != Load::Others;
        // Without messages it was begun for a position alone, and there is nothing to wait for.
        if full || ripe || urgent || back.messages == 0 {
            back.stage = Stage::Flushing;
            back.closed = Some(self.now);
            self.last_close = Some(self.now);
            self.effects.push_back(Effect::Flush { slot: back.slot });
        }
    }

    /// When the open transaction has been filled for long enough.
    fn ripens(&self) -> Option<Time> {
        let back = self.transactions.back().filter(|back| back.stage == Stage::Filling)?;
        Some(self.early_end().map_or(back.due, |early| early.min(back.due)))
    }

    /// When the open transaction ends although its interval is not over: everything that is signed
    /// in is part of it. What was read since then waits for the next write to the store anyway.
    fn early_end(&self) -> Option<Time> {
        let back = self.transactions.back()?;
        let is_under_way = |phase| match phase {
            Phase::Admitting { .. } | Phase::Ready | Phase::Running => true,
            // Suspects, and what follows them, do not join it.
            Phase::Finished => self.suspects.is_empty(),
            Phase::Received | Phase::Waiting | Phase::Sent { .. } | Phase::Done => false,
        };
        let more = self.partitions.values().any(|p| p.window.any(is_under_way));
        if back.stage != Stage::Filling || back.messages >= FEW || more {
            return None;
        }
        let pause = self.settings.commit_pause.min(self.settings.commit_interval);
        Some(self.last_close.map_or(back.began, |last| last + pause))
    }

    pub(super) fn transactions_due(&self) -> Option<Time> {
        let interval = self.settings.commit_interval;
        let closed = self.slots.iter().filter_map(|slot| match slot {
            Slot::Closed { due, .. } => Some(*due),
            Slot::Opening { .. } | Slot::Idle | Slot::Busy => None,
        });
        let waiting = self.partitions.values().any(Partition::wants_commit);
        let rest = self.last_begin.filter(|_| waiting).map(|begin| begin + interval);
        closed
            .chain(self.ripens())
            .chain(rest)
            .chain([self.resume_at])
            .filter(|&due| due > self.now)
            .min()
    }

    pub(super) fn finish_committed(&mut self, number: u64, end: End) {
        self.record(number, end);
        let Some(transaction) = self.remove(number) else { return };
        if end == End::FoundCommitted {
            self.notice(Notice::Decided { number, committed: true });
        }
        self.counts.committed += 1;
        self.counts.confirmed += transaction.messages;
        self.aborts_in_row = 0;
        // Only a member is let commit.
        self.refusals.end(Subject::Producing);
        self.refusals.end(Subject::Member(Denied::Membership));
        self.measure.committed(&transaction, &self.settings);
        let (mut moves, mut committed) = (Vec::new(), Vec::new());
        for sent in &transaction.sent {
            let id = sent.position.partition;
            let Some(partition) = self.partitions.get_mut(&id) else { continue };
            if partition.epoch != sent.epoch {
                continue;
            }
            let mut beyond = partition.window.spans(|phase| phase == Phase::Sent { number });
            if !self.suspects.is_empty() {
                self.suspects.clear(id, &beyond);
            }
            let was_careful = partition.caution.until.is_some();
            moves.extend(partition.committed(number, sent));
            if was_careful && partition.caution.until.is_none() {
                let offset = partition.position;
                self.effects
                    .push_back(Effect::Notice(Notice::CarefulEnded { partition: id, offset }));
            }
            let offset = partition.position;
            beyond.retain(|span| span.first > offset);
            self.effects.push_back(Effect::Release { partition: id, offset, beyond });
            committed.push(id);
        }
        self.note(moves);
        self.record_interventions(&committed);
    }

    pub(super) fn finish_aborted(&mut self, number: u64) {
        if self.transaction(number).is_some_and(|t| t.stage == Stage::Withdrawn) {
            self.remove(number);
            return;
        }
        self.record(number, End::Aborted);
        let Some(transaction) = self.remove(number) else { return };
        if transaction.stage == Stage::Deciding {
            self.notice(Notice::Decided { number, committed: false });
        }
        self.counts.aborted += 1;
        self.pause_after(&transaction);
        // The group waits: what is left is one more try, within the time for the last commit.
        let is_revoking = self.is_revoking();
        let mut moves = Vec::new();
        for partition in self.partitions.values_mut() {
            moves.extend(partition.aborted(number, Reason::Aborted));
            if is_revoking {
                partition.hasten(self.now);
            }
        }
        // Its partition may have been given up meanwhile.
        let mut blamed = transaction.blamed;
        blamed.retain(|(id, offset, _)| {
            moves.iter().any(|moved| moved.partition == *id && moved.span.contains(*offset))
        });
        self.note(moves);
        for (id, offset, message) in blamed {
            if !self.stopped {
                self.blame(id, offset, message);
            }
        }
    }

    /// What a transaction was begun for has been committed by the one before it: nobody misses it.
    fn withdraw(&mut self, number: u64) {
        let Some(transaction) = self.transaction(number) else { return };
        transaction.stage = Stage::Withdrawn;
        let slot = transaction.slot;
        self.effects.push_back(Effect::Abort { slot });
    }

    /// A transaction comes to nothing, and with it those that follow.
    pub(super) fn abort(&mut self, number: u64, loss: Loss, message: String) {
        if let Some(transaction) = self.transaction(number) {
            transaction.stage = Stage::Aborting;
            transaction.loss.get_or_insert(loss);
        }
        self.notice(Notice::Aborted { number, message });
        let message = "the transaction before it came to nothing";
        self.abort_from(number + 1, Loss::Followed, message);
    }

    /// Aborts every open transaction from `number` on. One whose end is under way is awaited.
    pub(super) fn abort_from(&mut self, number: u64, loss: Loss, message: &str) {
        let open = |t: &Transaction| t.number >= number && t.is_open();
        let aborted: Vec<u64> =
            self.transactions.iter().filter(|t| open(t)).map(|t| t.number).collect();
        for number in aborted {
            let Some(transaction) = self.transaction(number) else { continue };
            transaction.stage = Stage::Aborting;
            transaction.loss.get_or_insert(loss);
            let slot = transaction.slot;
            self.effects.push_back(Effect::Abort { slot });
            self.notice(Notice::Aborted { number, message: message.to_owned() });
        }
    }

    pub(super) fn record(&mut self, number: u64, end: End) {
        let Some(transaction) = self.transactions.iter().find(|t| t.number == number) else {
            return;
        };
        let part = |partition: &Partition| {
            let (span, messages) = partition.part(number);
            let sent = transaction.sent.iter().find(|s| s.position.partition == partition.id);
            let offset = sent.map_or(partition.position, |sent| sent.position.offset);
            let outputs = transaction
                .outputs
                .iter()
                .find(|(id, _)| *id == partition.id)
                .map_or(0, |(_, outputs)| *outputs);
            (span.is_some() || sent.is_some()).then_some(Part {
                partition: partition.id,
                span,
                messages,
                outputs,
                offset,
            })
        };
        let open = self.now.saturating_sub(transaction.began);
        let record = TransactionRecord {
            author: Author {
                instance: self.settings.instance.clone(),
                incarnation: self.settings.incarnation,
                number,
            },
            slot: transaction.slot,
            end,
            open_us: u64::try_from(open.as_micros()).unwrap_or(u64::MAX),
            parts: self.partitions.values().filter_map(part).collect(),
        };
        self.journal.note([Entry::Transaction(record)], self.now);
    }

    pub(super) fn remove(&mut self, number: u64) -> Option<Transaction> {
        let index = self.transactions.iter().position(|t| t.number == number)?;
        self.transactions.remove(index)
    }

    pub(super) fn transaction(&mut self, number: u64) -> Option<&mut Transaction> {
        self.transactions.iter_mut().find(|transaction| transaction.number == number)
    }
}
