//! The consumer's calls; what they do is in `member`.

use std::sync::Arc;
use std::time::Duration;

use countersign::kafka::{
    Consumer, ErrorKind, KafkaError, PollLimit, Polled, TopicPartition, Waker,
};
use countersign_statemachine::Disposition;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::client::ModelGroup;
use super::cluster::State;
use super::faults::{Call, Fault};
use super::member::{Member, Position, Stage};
use super::{ModelKafka, panic_quietly};

/// A group member on the model. Dropped without having left, it has crashed: it stops
/// heart-beating and its session ends by time.
#[derive(Debug)]
pub struct ModelConsumer {
    kafka: ModelKafka,
    handle: u64,
    client: u64,
    waker: Arc<Notify>,
}

impl ModelConsumer {
    pub(super) fn new(kafka: ModelKafka, handle: u64, client: u64) -> Self {
        Self { kafka, handle, client, waker: Arc::new(Notify::new()) }
    }

    fn member<T>(
        &self,
        call: &'static str,
        act: impl FnOnce(&mut Member) -> Result<T, KafkaError>,
    ) -> Result<T, KafkaError> {
        self.kafka.with(|state| {
            let Some(member) = state.members.get_mut(&self.handle) else {
                let message = "the client crashed";
                return Err(KafkaError::new(call, ErrorKind::Other, Disposition::Fatal, message));
            };
            act(member)
        })
    }

    /// Tells the poll interval that the caller is here until then.
    fn polled_until(&self, until: Instant) {
        self.kafka.with(|state| {
            if let Some(member) = state.members.get_mut(&self.handle) {
                member.polled_until = until;
            }
        });
    }
}

impl Consumer for ModelConsumer {
    type Group = ModelGroup;

    async fn poll(
        &mut self,
        wait: Duration,
        limit: PollLimit,
        polled: &mut Vec<Polled>,
    ) -> Result<(), KafkaError> {
        // A consumer that always finds something must not keep other tasks from running.
        tokio::task::yield_now().await;
        self.kafka.running(self.client).await;
        let deadline = Instant::now() + wait;
        self.polled_until(deadline);
        match self.kafka.with(|state| state.faults.next(Call::Fetch)) {
            Some(Fault::CrashBefore | Fault::CrashAfter) => {
                self.kafka.crash_here(self.client).await;
            }
            Some(Fault::Hang(long)) => tokio::time::sleep(long).await,
            Some(Fault::Panic) => panic_quietly(),
            Some(_) => {
                polled.push(Polled::Fault(fetch_error()));
                return Ok(());
            }
            None => {}
        }
        let before = polled.len();
        let (handle, client) = (self.handle, self.client);
        let look = self.kafka.wait_until(deadline, |state| {
            if !state.clients.get(&client).is_some_and(super::cluster::Client::is_running) {
                return None;
            }
            match state.poll_member(handle, limit, polled) {
                Ok(()) if polled.len() == before => None,
                result => Some(result),
            }
        });
        let result = tokio::select! {
            biased;
            result = look => result.unwrap_or(Ok(())),
            () = self.waker.notified() => Ok(()),
        };
        self.kafka.running(self.client).await;
        self.polled_until(Instant::now());
        result
    }

    fn assign(&mut self, starts: &[(TopicPartition, Option<u64>)]) -> Result<(), KafkaError> {
        let repeats = self.kafka.with(|state| state.faults.next(Call::Assign));
        let repeats = repeats == Some(Fault::Repeat);
        self.member("assign", |member| member.answer_assign(starts, repeats))?;
        self.kafka.with(|state| {
            state.finish_leaving(self.handle);
            state.changed();
        });
        Ok(())
    }

    fn start(&mut self, starts: &[(TopicPartition, u64)]) -> Result<(), KafkaError> {
        self.member("start", |member| member.start(starts))?;
        self.kafka.with(State::changed);
        Ok(())
    }

    fn unassign(&mut self, partitions: &[TopicPartition]) -> Result<(), KafkaError> {
        self.member("unassign", |member| member.answer_unassign(partitions))?;
        self.kafka.with(|state| {
            state.finish_leaving(self.handle);
            state.changed();
        });
        Ok(())
    }

    fn rejoin(&mut self) -> Result<(), KafkaError> {
        self.member("subscribe", Member::join_once_more)
    }

    fn pause(&mut self, partitions: &[TopicPartition]) -> Result<(), KafkaError> {
        self.member("pause", |member| member.set_paused(partitions, true, "pause"))
    }

    fn resume(&mut self, partitions: &[TopicPartition]) -> Result<(), KafkaError> {
        self.member("resume", |member| member.set_paused(partitions, false, "resume"))
    }

    fn seek(&mut self, partition: &TopicPartition, offset: u64) -> Result<(), KafkaError> {
        self.member("seek", |member| member.seek(partition, offset))?;
        self.kafka.with(State::changed);
        Ok(())
    }

    fn unsubscribe(&mut self) -> Result<(), KafkaError> {
        self.member("unsubscribe", Member::start_leaving)?;
        self.kafka.with(|state| state.finish_leaving(self.handle));
        Ok(())
    }

    fn group(&self) -> ModelGroup {
        ModelGroup::new(self.kafka.clone(), self.handle)
    }

    fn waker(&self) -> Waker {
        let waker = self.waker.clone();
        Arc::new(move || waker.notify_one())
    }
}

fn fetch_error() -> KafkaError {
    let message = "connection closed while fetching";
    let disposition = Disposition::Retriable;
    KafkaError::new("poll", ErrorKind::Transport, disposition, message)
}

impl Member {
    pub(super) fn assigned(
        &mut self,
        partition: &TopicPartition,
        call: &'static str,
    ) -> Result<&mut Position, KafkaError> {
        self.owned.get_mut(partition).ok_or_else(|| {
            let message = format!("{partition} is not assigned");
            KafkaError::new(call, ErrorKind::UnknownPartition, Disposition::Fatal, message)
        })
    }

    fn set_paused(
        &mut self,
        partitions: &[TopicPartition],
        is_paused: bool,
        call: &'static str,
    ) -> Result<(), KafkaError> {
        for partition in partitions {
            self.assigned(partition, call)?.is_paused = is_paused;
        }
        Ok(())
    }

    fn seek(&mut self, partition: &TopicPartition, offset: u64) -> Result<(), KafkaError> {
        self.assigned(partition, "seek")?.seek(offset);
        Ok(())
    }

    fn start_leaving(&mut self) -> Result<(), KafkaError> {
        self.check_fatal()?;
        if matches!(self.stage, Stage::New | Stage::Subscribed) {
            self.stage = Stage::Leaving;
            self.rejoin = false;
            self.revoke_all();
        }
        Ok(())
    }
}

impl State {
    /// Leaves the group when the last partition is given back.
    fn finish_leaving(&mut self, handle: u64) {
        let Some(member) = self.members.get_mut(&handle) else { return };
        if member.stage != Stage::Leaving || !member.is_settled() {
            return;
        }
        if !member.owned.is_empty() {
            member.revoke_all();
            return;
        }
        member.stage = Stage::Left;
        member.generation = None;
        self.end_membership(handle);
        self.changed();
    }
}

impl Drop for ModelConsumer {
    fn drop(&mut self) {
        self.kafka.with(|state| {
            state.stop_heart_beats(self.handle);
            if let Some(member) = state.members.get_mut(&self.handle) {
                member.stage = Stage::Left;
                member.generation = None;
            }
        });
    }
}
