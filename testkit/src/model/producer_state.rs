//! A producer's local states, as librdkafka keeps them, and the thread that sends for it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use countersign::kafka::{ErrorKind, KafkaError, Output, Sizes, TopicPartition, batch_bytes};
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
    /// `message.max.bytes`.
    record_bytes: usize,
    pub(super) sender: Option<Sender>,
    pub(super) stage: Stage,
    /// Partitions that `AddPartitionsToTxn` was sent for in this transaction.
    added: BTreeSet<TopicPartition>,
    pub(super) has_offsets: bool,
    pub(super) queue: Vec<Output>,
    delivery: Delivery,
    pub(super) delivery_error: Option<KafkaError>,
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
            record_bytes: sizes.record_bytes as usize,
            sender: None,
            stage: Stage::New,
            added: BTreeSet::new(),
            has_offsets: false,
            queue: Vec::new(),
            delivery: Delivery::Idle,
            delivery_error: None,
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
        self.delivery_error = None;
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
        if fault != Some(Fault::RequestLost) {
            match self.deliver_queue(handle) {
                Ok(()) => {}
                Err(Code::ConcurrentTransactions) => {
                    self.delay_delivery(handle, CONCURRENT_BACKOFF);
                    return;
                }
                Err(code) => self.fail_delivery(handle, code),
            }
        }
        if matches!(fault, Some(Fault::RequestLost | Fault::ReplyLost)) {
            self.fail_delivery(handle, Code::TimedOut);
        }
        if let Some(producer) = self.producers.get_mut(&handle) {
            producer.queue.clear();
        }
        if fault == Some(Fault::CrashAfter) {
            self.crash(client);
        }
        self.changed();
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

    fn deliver_queue(&mut self, handle: u64) -> Result<(), Code> {
        let Some(producer) = self.producers.get(&handle) else { return Ok(()) };
        let Some(sender) = producer.sender.clone() else { return Ok(()) };
        let (added, queue) = (producer.added.clone(), producer.queue.clone());
        let partition =
            |output: &Output| TopicPartition::new(output.topic.clone(), output.partition);
        let new: BTreeSet<_> = queue
            .iter()
            .map(partition)
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
        for output in queue {
            let request = Request::Produce { sender: sender.clone(), outputs: vec![output] };
            if let Err(code) = self.execute(&request) {
                self.fail_delivery(handle, code);
            }
        }
        Ok(())
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
        if batch_bytes(output, None) > producer.record_bytes {
            let message = "message size too large";
            return refuse(ErrorKind::TooLarge, Disposition::Abortable, message);
        }
        if producer.queue.len() >= longest_queue {
            return refuse(ErrorKind::QueueFull, Disposition::Retriable, "queue full");
        }
        producer.queue.push(output.clone());
        if producer.delivery == Delivery::Idle {
            producer.delivery = Delivery::Due;
            self.schedule(at, Event::Deliver { producer: handle });
        }
        Ok(())
    }
}
