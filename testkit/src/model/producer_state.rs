//! A producer's local states, as librdkafka keeps them, and the thread that sends for it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use countersign::kafka::{
    ErrorKind, KafkaError, Output, Refused, Sizes, TopicPartition, batch_bytes,
};
use countersign_statemachine::Disposition;

use super::cluster::{CONCURRENT_BACKOFF, Client, Event, State};
use super::faults::{Call, Fault};
use super::request::{Code, Request, Sender};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Not initialised.
    New,
    Ready,
    Open,
    /// `EndTxn` has no answer yet: only the same call may follow.
    Ending {
        commit: bool,
    },
}

/// Whether the producer's own thread is about to send what is queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Delivery {
    Idle,
    Due,
    /// Put off once already: not struck by another fault.
    Delayed,
}

#[derive(Debug)]
pub(super) struct ProducerState {
    client: u64,
    pub(super) transactional_id: Arc<str>,
    pub(super) transaction_timeout: Duration,
    sizes: Sizes,
    pub(super) sender: Option<Sender>,
    pub(super) stage: Stage,
    /// Partitions that `AddPartitionsToTxn` was sent for in this transaction.
    added: BTreeSet<TopicPartition>,
    pub(super) has_offsets: bool,
    /// What has no delivery report, numbered.
    pub(super) queue: Vec<(u64, Output)>,
    /// How many outputs were taken in this transaction.
    taken: u64,
    delivery: Delivery,
    pub(super) delivery_error: Option<KafkaError>,
    pub(super) refused: Refused,
    pub(super) must_abort: bool,
    pub(super) fatal: Option<KafkaError>,
}

impl ProducerState {
    pub(super) fn new(
        client: u64,
        transactional_id: Arc<str>,
        transaction_timeout: Duration,
        sizes: Sizes,
    ) -> Self {
        Self {
            client,
            transactional_id,
            transaction_timeout,
            sizes,
            sender: None,
            stage: Stage::New,
            added: BTreeSet::new(),
            has_offsets: false,
            queue: Vec::new(),
            taken: 0,
            delivery: Delivery::Idle,
            delivery_error: None,
            refused: Refused::default(),
            must_abort: false,
            fatal: None,
        }
    }

    /// What a crash leaves of it: nothing that was not sent.
    pub(super) fn crash(&mut self) {
        self.queue.clear();
        self.fatal = Some(state_error("crash", "the client crashed"));
    }

    pub(super) fn client(&self) -> u64 {
        self.client
    }

    pub(super) fn check_fatal(&self) -> Result<(), KafkaError> {
        self.fatal.clone().map_or(Ok(()), Err)
    }

    pub(super) fn fail(&mut self, error: &KafkaError) {
        match error.disposition {
            Disposition::Fenced | Disposition::Fatal | Disposition::Permanent => {
                self.fatal = Some(error.clone());
            }
            Disposition::Abortable => self.must_abort = true,
            Disposition::Retriable => {}
        }
    }

    fn fail_delivery(&mut self, error: KafkaError) {
        if error.disposition == Disposition::Fenced {
            self.fatal = Some(error.clone());
        }
        self.must_abort = true;
        self.delivery_error.get_or_insert(error);
    }

    fn is_empty_transaction(&self) -> bool {
        self.added.is_empty() && !self.has_offsets
    }

    pub(super) fn enter(&mut self, stage: Stage) {
        self.stage = stage;
        self.added.clear();
        self.has_offsets = false;
        self.queue.clear();
        self.taken = 0;
        self.delivery_error = None;
        self.refused = Refused::default();
        self.must_abort = false;
    }

    pub(super) fn begin(&mut self) -> Result<(), KafkaError> {
        self.check_fatal()?;
        match self.stage {
            Stage::Ready => self.enter(Stage::Open),
            Stage::New | Stage::Open => {
                return Err(state_error("begin_transaction", "no transaction can begin here"));
            }
            Stage::Ending { .. } => return Err(conflict("begin_transaction")),
        }
        Ok(())
    }

    /// Decides whether an `EndTxn` has to be sent.
    pub(super) fn start_end(&mut self, commit: bool) -> Result<Option<Sender>, KafkaError> {
        let call = end_call(commit);
        self.check_fatal()?;
        match self.stage {
            Stage::Ending { commit: ending } if ending != commit => return Err(conflict(call)),
            Stage::Ending { .. } => {}
            Stage::Open if commit && self.must_abort => {
                let message = "a part of the transaction failed: it must be aborted";
                let disposition = Disposition::Abortable;
                return Err(KafkaError::new(call, ErrorKind::Other, disposition, message));
            }
            Stage::Open if self.is_empty_transaction() => {
                self.enter(Stage::Ready);
                return Ok(None);
            }
            Stage::Open => self.stage = Stage::Ending { commit },
            Stage::New | Stage::Ready => return Err(state_error(call, "no transaction is open")),
        }
        Ok(self.sender.clone())
    }
}

pub(super) fn end_call(commit: bool) -> &'static str {
    if commit { "commit_transaction" } else { "abort_transaction" }
}

/// librdkafka's `_STATE`: a bug of the caller.
pub(super) fn state_error(call: &'static str, message: &str) -> KafkaError {
    KafkaError::new(call, ErrorKind::Other, Disposition::Fatal, message)
}

/// librdkafka's `_CONFLICT`: the call that is under way has to be resumed.
fn conflict(call: &'static str) -> KafkaError {
    let message = "another transactional call is under way and must be resumed";
    KafkaError::new(call, ErrorKind::Other, Disposition::Retriable, message)
}

/// Records as they go in one batch each: those of one partition, as many as fit.
fn batches(sent: &[(u64, Output)], sizes: Sizes) -> Vec<Vec<(u64, Output)>> {
    let mut batches: Vec<Vec<(u64, Output)>> = Vec::new();
    let mut open: BTreeMap<TopicPartition, (usize, usize)> = BTreeMap::new();
    for (number, output) in sent {
        let bytes = batch_bytes(output, None);
        let partition = TopicPartition::new(output.topic.clone(), output.partition);
        let (nth, held) = open.get(&partition).copied().unwrap_or((batches.len(), 0));
        let fits = held + bytes <= sizes.batch_bytes as usize;
        if let Some(batch) = batches.get_mut(nth).filter(|_| fits) {
            batch.push((*number, output.clone()));
            open.insert(partition, (nth, held + bytes));
        } else {
            open.insert(partition, (batches.len(), bytes));
            batches.push(vec![(*number, output.clone())]);
        }
    }
    batches
}

impl State {
    /// Sends what is queued, as the producer's own thread does.
    pub(super) fn deliver(&mut self, handle: u64) {
        let Some(producer) = self.producers.get_mut(&handle) else { return };
        let delivery = std::mem::replace(&mut producer.delivery, Delivery::Idle);
        let client = producer.client;
        let is_running = self.clients.get(&client).is_some_and(Client::is_running);
        if producer.queue.is_empty() || producer.fatal.is_some() || !is_running {
            return;
        }
        let fault = match delivery {
            Delivery::Delayed => None,
            Delivery::Idle | Delivery::Due => self.faults.next(Call::Produce),
        };
        match fault {
            Some(Fault::Delay(delay)) => return self.delay_delivery(handle, delay),
            Some(Fault::CrashBefore) => return self.crash(client),
            _ => {}
        }
        let later = self.way_free.saturating_duration_since(self.now);
        if self.config.bytes_per_second.is_some() && !later.is_zero() {
            return self.delay_delivery(handle, later);
        }
        let sent = self.take_queue(handle);
        if fault != Some(Fault::RequestLost) {
            match self.deliver_batches(handle, &sent) {
                Ok(()) => {}
                Err(Code::ConcurrentTransactions) => {
                    if let Some(producer) = self.producers.get_mut(&handle) {
                        producer.queue.splice(..0, sent);
                    }
                    self.delay_delivery(handle, CONCURRENT_BACKOFF);
                    return;
                }
                Err(code) => self.fail_delivery(handle, code),
            }
        }
        if matches!(fault, Some(Fault::RequestLost | Fault::ReplyLost)) {
            self.fail_delivery(handle, Code::TimedOut);
        }
        if fault == Some(Fault::CrashAfter) {
            self.crash(client);
        }
        self.deliver_more(handle);
        self.changed();
    }

    /// Takes what goes in one request: all, or a batch where the way to the broker is slow.
    fn take_queue(&mut self, handle: u64) -> Vec<(u64, Output)> {
        let Some(producer) = self.producers.get_mut(&handle) else { return Vec::new() };
        let Some(bytes_per_second) = self.config.bytes_per_second else {
            return std::mem::take(&mut producer.queue);
        };
        let mut bytes = 0;
        let most = producer.sizes.batch_bytes as usize;
        let fits = |(_, output): &&(u64, Output)| {
            let room = bytes < most;
            bytes += batch_bytes(output, None);
            room
        };
        let count = producer.queue.iter().take_while(fits).count();
        let micros = bytes as u64 * 1_000_000 / bytes_per_second.max(1);
        self.way_free = self.now + Duration::from_micros(micros);
        producer.queue.drain(..count).collect()
    }

    /// What was not taken goes when the way is free again. What cannot be part of the transaction
    /// any more is given up.
    fn deliver_more(&mut self, handle: u64) {
        let later = self.way_free.saturating_duration_since(self.now);
        let Some(producer) = self.producers.get_mut(&handle) else { return };
        if producer.must_abort {
            producer.queue.clear();
        }
        if !producer.queue.is_empty() {
            self.delay_delivery(handle, later);
        }
    }

    /// Goes on with what a frozen process had queued.
    pub(super) fn resume_delivery(&mut self, client: u64) {
        let queued = self.producers.iter_mut().filter(|(_, producer)| {
            producer.client == client
                && !producer.queue.is_empty()
                && producer.delivery == Delivery::Idle
        });
        let handles: Vec<_> = queued
            .map(|(handle, producer)| {
                producer.delivery = Delivery::Due;
                *handle
            })
            .collect();
        for handle in handles {
            self.schedule(self.now, Event::Deliver { producer: handle });
        }
    }

    fn delay_delivery(&mut self, handle: u64, delay: Duration) {
        if let Some(producer) = self.producers.get_mut(&handle) {
            producer.delivery = Delivery::Delayed;
        }
        self.schedule(self.now + delay, Event::Deliver { producer: handle });
    }

    fn deliver_batches(&mut self, handle: u64, sent: &[(u64, Output)]) -> Result<(), Code> {
        let Some(producer) = self.producers.get(&handle) else { return Ok(()) };
        let Some(sender) = producer.sender.clone() else { return Ok(()) };
        let (added, sizes) = (producer.added.clone(), producer.sizes);
        let partition =
            |output: &Output| TopicPartition::new(output.topic.clone(), output.partition);
        let new: BTreeSet<_> = sent
            .iter()
            .map(|(_, output)| partition(output))
            .filter(|partition| !added.contains(partition) && self.log_mut(partition).is_some())
            .collect();
        if !new.is_empty() {
            let partitions = new.iter().cloned().collect();
            let sender = sender.clone();
            self.execute(&Request::AddPartitionsToTxn { sender, partitions })?;
            if let Some(producer) = self.producers.get_mut(&handle) {
                producer.added.extend(new);
            }
        }
        for batch in batches(sent, sizes) {
            let (numbers, outputs): (Vec<u64>, Vec<Output>) = batch.into_iter().unzip();
            let request = Request::Produce { sender: sender.clone(), outputs: outputs.clone() };
            if let Err(code) = self.execute(&request) {
                self.refuse(handle, code, &numbers, &outputs);
                self.fail_delivery(handle, code);
            }
        }
        Ok(())
    }

    /// Tells which records of a batch are to blame, as far as a broker does.
    fn refuse(&mut self, handle: u64, code: Code, numbers: &[u64], outputs: &[Output]) {
        let topic = outputs.first().and_then(|first| self.topics.get(&first.topic));
        let is_wrong = |output: &Output| topic.is_some_and(|topic| !topic.takes(output));
        let wrong: Vec<u64> = numbers
            .iter()
            .zip(outputs)
            .filter(|(_, output)| is_wrong(output))
            .map(|(number, _)| *number)
            .collect();
        let named = if code == Code::InvalidRecord {
            wrong
        } else if code == Code::UnknownTopicOrPartition || numbers.len() == 1 {
            numbers.to_vec()
        } else {
            Vec::new()
        };
        let Some(producer) = self.producers.get_mut(&handle) else { return };
        if !code.delivery_error().is_refusal() {
            return;
        }
        if named.is_empty() {
            producer.refused.among.extend(numbers);
        } else {
            producer.refused.named.extend(named);
        }
    }

    fn fail_delivery(&mut self, handle: u64, code: Code) {
        if let Some(producer) = self.producers.get_mut(&handle) {
            producer.fail_delivery(code.delivery_error());
        }
    }

    pub(super) fn enqueue(&mut self, handle: u64, output: &Output) -> Result<(), KafkaError> {
        let longest_queue = self.config.queue_max_messages;
        let at = self.now + self.config.latency;
        let Some(producer) = self.producers.get_mut(&handle) else { return Ok(()) };
        producer.check_fatal()?;
        let refuse = |kind, disposition, message| {
            Err(KafkaError::new("produce", kind, disposition, message))
        };
        if producer.stage != Stage::Open || producer.must_abort {
            return refuse(ErrorKind::Other, Disposition::Abortable, "erroneous state");
        }
        if batch_bytes(output, None) > producer.sizes.record_bytes as usize {
            let message = "message size too large";
            return refuse(ErrorKind::TooLarge, Disposition::Abortable, message);
        }
        if producer.queue.len() >= longest_queue {
            return refuse(ErrorKind::QueueFull, Disposition::Retriable, "queue full");
        }
        producer.queue.push((producer.taken, output.clone()));
        producer.taken += 1;
        if producer.delivery == Delivery::Idle {
            producer.delivery = Delivery::Due;
            self.schedule(at, Event::Deliver { producer: handle });
        }
        Ok(())
    }
}
