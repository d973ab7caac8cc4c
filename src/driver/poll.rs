//! The loop that polls the consumer: one thread, one group member.
//!
//! It tags what it reads with the ownership under which it was read. Assignments are carried out
//! here and nowhere else, so that a record of an earlier ownership can never carry a later tag.
//!
//! When memory is used up, reading rests. If no room comes, those partitions are paused that have
//! their share, and the others are read on; and whoever holds more than its share and works little
//! of it off is told to give back what nothing was begun with.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use crate::kafka::{Consumer, KafkaError, PollLimit, Polled, TopicPartition};

use super::budget::{Budget, RECORD_OVERHEAD, Share};
use super::inbox::{Inbox, News, Reading};
use super::pulse::{GivenUp, Pulse};
use super::watchdog::Trouble;

/// What the driver asks of the consumer.
#[derive(Debug)]
pub(super) enum Command {
    /// Joins the group once more after the assignment that waits.
    Rejoin,
    /// Ends an assignment.
    Assign {
        /// What is read from now on.
        grants: Vec<Grant>,
        /// What is read later.
        later: Vec<TopicPartition>,
    },
    /// Reads partitions that are assigned.
    Fetch(Vec<Grant>),
    /// Ends a revocation or a loss.
    Unassign(Vec<TopicPartition>),
    /// Reads a partition again from an earlier offset.
    ReadAgain { partition: TopicPartition, epoch: u64, again: u64, offset: u64 },
    /// Leaves the group.
    Leave,
    /// Finds out whether reading a partition is still refused.
    Reread(TopicPartition),
    /// There is room again.
    Room,
}

/// A partition with its tag.
#[derive(Debug, Clone)]
pub(super) struct Grant {
    pub(super) partition: TopicPartition,
    pub(super) reading: Reading,
    pub(super) offset: u64,
    pub(super) share: Share,
}

const LIMIT: PollLimit = PollLimit { records: 4_000, bytes: 1 << 20 };

const WAIT: Duration = Duration::from_millis(500);

/// How long a call of the consumer may take beyond its own time-out. No other consumer can take
/// its place without a rebalance, so that a hanging one ends the run: not before it must.
pub(super) const MARGIN: Duration = Duration::from_secs(30);

/// A consumer that hangs or panics ends the run.
pub(super) fn teller(inbox: Inbox) -> impl Fn(Trouble) + Send + Sync {
    move |trouble| {
        inbox.send(News::Broken(match trouble {
            Trouble::Overdue(overdue) => overdue.into_error(),
            Trouble::Panicked(error) => error,
        }));
    }
}

/// How long polling may rest for want of room. After that it goes on with every partition paused
/// that has its share, so that the others are read and rebalances are served; pausing throws away
/// what was fetched ahead.
const REST: Duration = Duration::from_millis(500);

/// How often it is looked who works off what he holds, while there is no room.
const LOOK: Duration = Duration::from_millis(500);

/// Why a partition is not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Want {
    /// It has its share, and all memory is used up.
    Full,
    /// It had more than its share and worked little of it off while others waited; or too much is
    /// used.
    Stuck,
}

pub(super) struct PollLoop<C> {
    consumer: C,
    inbox: Inbox,
    budget: Budget,
    pulse: Pulse,
    owned: BTreeMap<TopicPartition, Grant>,
    /// What is paused for want of memory.
    paused: BTreeMap<TopicPartition, Want>,
    /// Whether nobody takes more than its share, since there was no room for some time.
    is_sharing: bool,
    resting_since: Option<Instant>,
    looked: Option<Instant>,
}

impl<C: Consumer> PollLoop<C> {
    pub(super) fn new(consumer: C, inbox: Inbox, budget: Budget, pulse: Pulse) -> Self {
        Self {
            consumer,
            inbox,
            budget,
            pulse,
            owned: BTreeMap::new(),
            paused: BTreeMap::new(),
            is_sharing: false,
            resting_since: None,
            looked: None,
        }
    }

    pub(super) async fn run(mut self, mut commands: mpsc::UnboundedReceiver<Command>) {
        if let Err(error) = self.turn(&mut commands).await {
            self.inbox.send(News::ConsumerFailed(error));
        }
        self.at("consumer_close");
    }

    async fn turn(
        &mut self,
        commands: &mut mpsc::UnboundedReceiver<Command>,
    ) -> Result<(), KafkaError> {
        let mut polled = Vec::new();
        loop {
            loop {
                match commands.try_recv() {
                    Ok(command) => self.carry_out(command)?,
                    Err(mpsc::error::TryRecvError::Empty) => break,
                    Err(mpsc::error::TryRecvError::Disconnected) => return Ok(()),
                }
            }
            if let Some(rest) = self.rest()? {
                // It is watched and never given up.
                let _: Result<(), GivenUp> = self.pulse.leave();
                if let Ok(Some(command)) = timeout(rest, commands.recv()).await {
                    self.carry_out(command)?;
                }
                continue;
            }
            let limit = self.limit();
            self.at("consumer_poll");
            self.consumer.poll(WAIT, limit, &mut polled).await?;
            for event in polled.drain(..) {
                self.pass_on(event)?;
            }
        }
    }

    /// Tells whoever watches which call comes next. The loop is never given up.
    fn at(&self, call: &'static str) {
        let _: Result<(), GivenUp> = self.pulse.enter(call, WAIT);
    }

    fn carry_out(&mut self, command: Command) -> Result<(), KafkaError> {
        self.at(match command {
            Command::Rejoin => "consumer_rejoin",
            Command::Assign { .. } => "consumer_assign",
            Command::Fetch(_) | Command::ReadAgain { .. } => "consumer_seek",
            Command::Unassign(_) => "consumer_unassign",
            Command::Leave => "consumer_unsubscribe",
            Command::Reread(_) | Command::Room => "consumer_resume",
        });
        match command {
            Command::Rejoin => self.consumer.rejoin()?,
            Command::Assign { grants, later } => {
                let starts = grants.iter().map(|it| (it.partition.clone(), Some(it.offset)));
                let later = later.into_iter().map(|partition| (partition, None));
                let starts: Vec<_> = starts.chain(later).collect();
                self.consumer.assign(&starts)?;
                self.own(grants);
            }
            Command::Fetch(grants) => {
                let starts: Vec<_> =
                    grants.iter().map(|it| (it.partition.clone(), it.offset)).collect();
                self.consumer.start(&starts)?;
                self.own(grants);
            }
            Command::Unassign(partitions) => {
                // A pause would outlive the ownership (`RD_KAFKA_TOPPAR_F_APP_PAUSE`), and nothing
                // would end it in the next one. What is lost may refuse.
                let _ = self.consumer.resume(&partitions);
                for partition in &partitions {
                    self.owned.remove(partition);
                    self.paused.remove(partition);
                }
                self.consumer.unassign(&partitions)?;
            }
            Command::ReadAgain { partition, epoch, again, offset } => {
                let grant = self.owned.get_mut(&partition);
                if let Some(grant) = grant.filter(|grant| grant.reading.epoch == epoch) {
                    grant.reading.again = again;
                    self.consumer.seek(&partition, offset)?;
                }
            }
            Command::Leave => self.consumer.unsubscribe()?,
            Command::Reread(partition) => self.reread(&[partition])?,
            Command::Room => {}
        }
        Ok(())
    }

    /// A consumer tells of a refusal once; reading that begins anew tells again. What is paused is
    /// not being read.
    fn reread(&mut self, partition: &[TopicPartition; 1]) -> Result<(), KafkaError> {
        let [of] = partition;
        if self.paused.contains_key(of) || !self.owned.contains_key(of) {
            return Ok(());
        }
        self.consumer.pause(partition)?;
        self.consumer.resume(partition)
    }

    fn own(&mut self, grants: Vec<Grant>) {
        self.owned.extend(grants.into_iter().map(|grant| (grant.partition.clone(), grant)));
    }

    /// How long to wait for room; `None` to poll.
    fn rest(&mut self) -> Result<Option<Duration>, KafkaError> {
        let is_spent = self.budget.is_spent();
        if self.is_sharing || !self.paused.is_empty() {
            self.resume(is_spent)?;
        }
        if !is_spent {
            self.resting_since = None;
            return Ok(None);
        }
        let now = Instant::now();
        self.look(now)?;
        let until = *self.resting_since.get_or_insert(now) + REST;
        if now < until && !self.is_sharing {
            return Ok(Some(until - now));
        }
        self.is_sharing = true;
        let full = self.owned.values().filter(|grant| grant.share.is_full());
        for partition in full.map(|grant| grant.partition.clone()).collect::<Vec<_>>() {
            self.pause(partition, Want::Full)?;
        }
        Ok(None)
    }

    /// How much may be read at once: not much of what there is.
    fn limit(&self) -> PollLimit {
        let all = if self.is_sharing { self.budget.fair() } else { self.budget.limit() };
        let bytes = (all / 4).clamp(1, LIMIT.bytes);
        PollLimit { records: (all / 4 / RECORD_OVERHEAD).clamp(1, LIMIT.records), bytes }
    }

    fn resume(&mut self, is_spent: bool) -> Result<(), KafkaError> {
        self.is_sharing &= is_spent || !self.budget.is_low();
        let (owned, is_sharing) = (&self.owned, self.is_sharing);
        let mut again = Vec::new();
        self.paused.retain(|partition, want| {
            let Some(grant) = owned.get(partition) else { return false };
            let must_wait = match want {
                Want::Full => is_sharing,
                Want::Stuck => true,
            };
            let stays = must_wait && !grant.share.is_small();
            if !stays {
                grant.share.pause(false);
                again.push(partition.clone());
            }
            stays
        });
        if again.is_empty() { Ok(()) } else { self.consumer.resume(&again) }
    }

    /// Whoever takes more than his share and works little of it off leaves it to the others.
    fn look(&mut self, now: Instant) -> Result<(), KafkaError> {
        let since = self.looked.map(|looked| now - looked);
        if since.is_some_and(|since| since < LOOK) {
            return Ok(());
        }
        self.looked = Some(now);
        // What was worked off over a long time tells nothing of now.
        let is_known = since.is_some_and(|since| since < 2 * LOOK);
        let (is_over, has_others) = (self.budget.is_over(), self.owned.len() > 1);
        let mut stuck = Vec::new();
        for grant in self.owned.values() {
            let is_slow = grant.share.is_slow() && is_known && has_others;
            if grant.share.is_above() && (is_slow || is_over) {
                stuck.push((grant.partition.clone(), grant.reading));
            }
        }
        for (partition, of) in stuck {
            self.pause(partition, Want::Stuck)?;
            self.inbox.send(News::Crowded { of });
        }
        Ok(())
    }

    fn pause(&mut self, partition: TopicPartition, want: Want) -> Result<(), KafkaError> {
        let Some(grant) = self.owned.get(&partition) else { return Ok(()) };
        grant.share.pause(true);
        let before = self.paused.get(&partition).copied();
        if before == Some(Want::Stuck) {
            return Ok(());
        }
        if before.is_none() {
            self.consumer.pause(std::slice::from_ref(&partition))?;
        }
        self.paused.insert(partition, want);
        Ok(())
    }

    fn pass_on(&mut self, event: Polled) -> Result<(), KafkaError> {
        let news = match event {
            Polled::Records(batch) => {
                let Some(grant) = self.owned.get(batch.partition()) else { return Ok(()) };
                let of = grant.reading;
                grant.share.take(&batch);
                if self.is_sharing && grant.share.is_full() {
                    self.pause(batch.partition().clone(), Want::Full)?;
                }
                News::Records { of, batch }
            }
            Polled::End { partition, offset } => {
                let Some(grant) = self.owned.get(&partition) else { return Ok(()) };
                News::AtEnd { of: grant.reading, offset }
            }
            Polled::Assign(partitions) => News::Assigned(partitions),
            Polled::Revoke(partitions) => News::Revoked(partitions),
            Polled::Lost(partitions) => News::Lost(partitions),
            Polled::OutOfRange(partition) => News::OutOfRange(partition),
            Polled::Fault(error) => News::Fault(error),
            Polled::Refused { partition, error } => News::Refused { partition, error },
        };
        self.inbox.send(news);
        Ok(())
    }
}

#[cfg(test)]
#[path = "poll_test.rs"]
mod tests;
