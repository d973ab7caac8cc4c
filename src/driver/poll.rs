//! The loop that polls the consumer: one thread, one group member.
//!
//! It tags what it reads with the ownership under which it was read. Assignments are carried out
//! here and nowhere else, so that a record of an earlier ownership can never carry a later tag.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use countersign_statemachine::PartitionId;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use crate::kafka::{Consumer, KafkaError, PollLimit, Polled, TopicPartition};

use super::budget::{Budget, Share};
use super::inbox::{Inbox, News};
use super::pulse::{GivenUp, Pulse};
use super::watchdog::Trouble;

/// What the driver asks of the consumer.
#[derive(Debug)]
pub(super) enum Command {
    /// Joins the group once more after the assignment that waits.
    Rejoin,
    /// Ends an assignment.
    Assign(Vec<Grant>),
    /// Ends a revocation or a loss.
    Unassign(Vec<TopicPartition>),
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
    pub(super) id: PartitionId,
    pub(super) epoch: u64,
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

/// How long polling may rest for want of room. After that it goes on with every partition paused,
/// so that rebalances are served; pausing throws away what was fetched ahead.
const REST: Duration = Duration::from_millis(500);

pub(super) struct PollLoop<C> {
    consumer: C,
    inbox: Inbox,
    budget: Budget,
    pulse: Pulse,
    owned: BTreeMap<TopicPartition, Grant>,
    /// Paused because they take too much of the budget.
    large: BTreeSet<TopicPartition>,
    /// Whether everything is paused because the budget is spent.
    paused: bool,
    resting_since: Option<Instant>,
}

impl<C: Consumer> PollLoop<C> {
    pub(super) fn new(consumer: C, inbox: Inbox, budget: Budget, pulse: Pulse) -> Self {
        Self {
            consumer,
            inbox,
            budget,
            pulse,
            owned: BTreeMap::new(),
            large: BTreeSet::new(),
            paused: false,
            resting_since: None,
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
            self.at("consumer_poll");
            self.consumer.poll(WAIT, LIMIT, &mut polled).await?;
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
            Command::Assign(_) => "consumer_assign",
            Command::Unassign(_) => "consumer_unassign",
            Command::Leave => "consumer_unsubscribe",
            Command::Reread(_) | Command::Room => "consumer_resume",
        });
        match command {
            Command::Rejoin => self.consumer.rejoin()?,
            Command::Assign(grants) => {
                let starts: Vec<_> =
                    grants.iter().map(|grant| (grant.partition.clone(), grant.offset)).collect();
                self.consumer.assign(&starts)?;
                if self.paused {
                    let partitions: Vec<_> = starts.into_iter().map(|(tp, _)| tp).collect();
                    self.consumer.pause(&partitions)?;
                }
                self.owned.extend(grants.into_iter().map(|grant| (grant.partition.clone(), grant)));
            }
            Command::Unassign(partitions) => {
                // A pause would outlive the ownership (`RD_KAFKA_TOPPAR_F_APP_PAUSE`), and nothing
                // would end it in the next one. What is lost may refuse.
                let _ = self.consumer.resume(&partitions);
                for partition in &partitions {
                    self.owned.remove(partition);
                    self.large.remove(partition);
                }
                self.consumer.unassign(&partitions)?;
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
        if self.paused || self.large.contains(of) || !self.owned.contains_key(of) {
            return Ok(());
        }
        self.consumer.pause(partition)?;
        self.consumer.resume(partition)
    }

    /// How long to wait for room; `None` to poll.
    fn rest(&mut self) -> Result<Option<Duration>, KafkaError> {
        if !self.budget.is_spent() {
            self.resting_since = None;
            self.resume()?;
            return Ok(None);
        }
        let now = Instant::now();
        let until = *self.resting_since.get_or_insert(now) + REST;
        if now < until {
            return Ok(Some(until - now));
        }
        if !self.paused {
            self.paused = true;
            let owned: Vec<_> = self.owned.keys().cloned().collect();
            self.consumer.pause(&owned)?;
        }
        Ok(None)
    }

    fn resume(&mut self) -> Result<(), KafkaError> {
        let mut again = Vec::new();
        self.large.retain(|partition| {
            let stays = self.owned.get(partition).is_some_and(|grant| !grant.share.is_small());
            if !stays {
                again.push(partition.clone());
            }
            stays
        });
        if std::mem::take(&mut self.paused) {
            again = self.owned.keys().filter(|tp| !self.large.contains(*tp)).cloned().collect();
        }
        if again.is_empty() { Ok(()) } else { self.consumer.resume(&again) }
    }

    fn pass_on(&mut self, event: Polled) -> Result<(), KafkaError> {
        let news = match event {
            Polled::Records(batch) => {
                let Some(grant) = self.owned.get(batch.partition()) else { return Ok(()) };
                let (partition, epoch) = (grant.id, grant.epoch);
                grant.share.take(&batch);
                self.pause_large(batch.partition())?;
                News::Records { partition, epoch, batch }
            }
            Polled::End { partition, offset } => {
                let Some(grant) = self.owned.get(&partition) else { return Ok(()) };
                News::AtEnd { partition: grant.id, epoch: grant.epoch, offset }
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

    /// A partition whose messages wait for a retry must not take what the others need.
    fn pause_large(&mut self, partition: &TopicPartition) -> Result<(), KafkaError> {
        let large = self.owned.get(partition).is_some_and(|grant| grant.share.is_large());
        if !large || self.owned.len() == 1 || !self.large.insert(partition.clone()) {
            return Ok(());
        }
        self.consumer.pause(std::slice::from_ref(partition))
    }
}

#[cfg(test)]
#[path = "poll_test.rs"]
mod tests;
