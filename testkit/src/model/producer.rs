//! A transactional producer with librdkafka's local states.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use countersign::kafka::{CommitOffset, ErrorKind, KafkaError, Output, Producer, TopicPartition};
use countersign_statemachine::Disposition;
use tokio::time::Instant;

use super::ModelKafka;
use super::client::ModelGroup;
use super::cluster::{CONCURRENT_BACKOFF, Event, State};
use super::faults::{Call, Fault};
use super::log::output_bytes;
use super::request::{Code, Reply, Request, Sender};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
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
    transactional_id: Arc<str>,
    transaction_timeout: Duration,
    sender: Option<Sender>,
    stage: Stage,
    /// Partitions that `AddPartitionsToTxn` was sent for in this transaction.
    added: BTreeSet<TopicPartition>,
    has_offsets: bool,
    queue: Vec<Output>,
    delivery: Delivery,
    delivery_error: Option<KafkaError>,
    must_abort: bool,
    fatal: Option<KafkaError>,
}

impl ProducerState {
    pub(super) fn new(
        client: u64,
        transactional_id: Arc<str>,
        transaction_timeout: Duration,
    ) -> Self {
        Self {
            client,
            transactional_id,
            transaction_timeout,
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

    fn check_fatal(&self) -> Result<(), KafkaError> {
        self.fatal.clone().map_or(Ok(()), Err)
    }

    fn fail(&mut self, error: &KafkaError) {
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

    fn enter(&mut self, stage: Stage) {
        self.stage = stage;
        self.added.clear();
        self.has_offsets = false;
        self.queue.clear();
        self.delivery_error = None;
        self.must_abort = false;
    }

    fn begin(&mut self) -> Result<(), KafkaError> {
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
    fn start_end(&mut self, commit: bool) -> Result<Option<Sender>, KafkaError> {
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

fn end_call(commit: bool) -> &'static str {
    if commit { "commit_transaction" } else { "abort_transaction" }
}

/// librdkafka's `_STATE`: a bug of the caller.
fn state_error(call: &'static str, message: &str) -> KafkaError {
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
        if producer.queue.is_empty() || producer.fatal.is_some() {
            return;
        }
        let fault = match delivery {
            Delivery::Delayed => None,
            Delivery::Idle | Delivery::Due => self.faults.next(Call::Produce),
        };
        if let Some(Fault::Delay(delay)) = fault {
            self.delay_delivery(handle, delay);
            return;
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
        self.changed();
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

    fn enqueue(&mut self, handle: u64, output: &Output) -> Result<(), KafkaError> {
        let largest = self.config.message_max_bytes;
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
        if output_bytes(output) > largest {
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

/// A transactional producer on the model; dropping it leaves its transaction open.
#[derive(Debug)]
pub struct ModelProducer {
    kafka: ModelKafka,
    handle: u64,
    client: u64,
    retry_backoff: Duration,
}

impl ModelProducer {
    pub(super) fn new(
        kafka: ModelKafka,
        handle: u64,
        client: u64,
        retry_backoff: Duration,
    ) -> Self {
        Self { kafka, handle, client, retry_backoff }
    }

    fn state<T>(
        &self,
        call: &'static str,
        act: impl FnOnce(&mut ProducerState) -> Result<T, KafkaError>,
    ) -> Result<T, KafkaError> {
        self.kafka.with(|state| match state.producers.get_mut(&self.handle) {
            Some(producer) => act(producer),
            None => Err(state_error(call, "the client crashed")),
        })
    }

    /// Sends a request until it is decided, as librdkafka does.
    async fn send_request(
        &self,
        request: Request,
        deadline: Instant,
        call: &'static str,
    ) -> Result<Reply, KafkaError> {
        // librdkafka repeats this one after a fixed time.
        let backoff = match request {
            Request::TxnOffsetCommit { .. } => Duration::from_millis(500),
            _ => self.retry_backoff,
        };
        loop {
            let answer = self.kafka.call(self.client, &request, deadline, backoff).await;
            let code = match answer {
                Ok(reply) => return Ok(reply),
                Err(code) => code,
            };
            let pause = self.kafka.with(|state| state.faults.backoff(backoff));
            if !code.is_retried() || Instant::now() + pause >= deadline {
                if code.is_retried() {
                    tokio::time::sleep_until(deadline).await;
                }
                let error = code.error(call);
                self.state(call, |producer| {
                    producer.fail(&error);
                    Ok(())
                })?;
                return Err(error);
            }
            tokio::time::sleep(pause).await;
        }
    }

    async fn delivered(&self, in_flight: usize, deadline: Instant) -> Result<(), KafkaError> {
        self.kafka.running(self.client).await;
        let done = self.kafka.wait_until(deadline, |state| {
            let producer = state.producers.get(&self.handle)?;
            (producer.queue.len() <= in_flight || producer.fatal.is_some()).then_some(())
        });
        done.await.ok_or_else(|| Code::TimedOut.error("flush"))
    }

    async fn end(&self, commit: bool, deadline: Instant) -> Result<(), KafkaError> {
        let call = end_call(commit);
        let Some(sender) = self.state(call, |producer| producer.start_end(commit))? else {
            return Ok(());
        };
        let request = Request::EndTxn { sender, commit };
        match self.send_request(request, deadline, call).await {
            Ok(_) => self.state(call, |producer| {
                producer.enter(Stage::Ready);
                Ok(())
            }),
            Err(error) => self.state(call, |producer| {
                if error.disposition == Disposition::Abortable {
                    producer.stage = Stage::Open;
                }
                Err(error)
            }),
        }
    }
}

impl Producer for ModelProducer {
    type Group = ModelGroup;

    async fn init(&mut self, timeout: Duration) -> Result<(), KafkaError> {
        let call = "init_transactions";
        let deadline = Instant::now() + timeout;
        let (transactional_id, timeout) = self.state(call, |producer| {
            producer.check_fatal()?;
            match producer.stage {
                Stage::New => Ok((producer.transactional_id.clone(), producer.transaction_timeout)),
                Stage::Ready | Stage::Open | Stage::Ending { .. } => {
                    Err(state_error(call, "the producer is initialised already"))
                }
            }
        })?;
        let request =
            Request::InitProducerId { transactional_id: transactional_id.clone(), timeout };
        let reply = self.send_request(request, deadline, call).await?;
        self.state(call, |producer| {
            if let Reply::Producer { producer_id, epoch } = reply {
                producer.sender = Some(Sender { transactional_id, producer_id, epoch });
                producer.enter(Stage::Ready);
            }
            Ok(())
        })
    }

    fn begin(&mut self) -> Result<(), KafkaError> {
        self.state("begin_transaction", ProducerState::begin)
    }

    fn send(&mut self, output: &Output) -> Result<(), KafkaError> {
        self.kafka.with(|state| state.enqueue(self.handle, output))
    }

    async fn flush(&mut self, in_flight: usize, timeout: Duration) -> Result<(), KafkaError> {
        self.delivered(in_flight, Instant::now() + timeout).await?;
        self.state("flush", |producer| {
            producer.delivery_error.clone().map_or_else(|| producer.check_fatal(), Err)
        })
    }

    async fn send_offsets(
        &mut self,
        offsets: &[CommitOffset],
        group: &Self::Group,
        timeout: Duration,
    ) -> Result<(), KafkaError> {
        let call = "send_offsets_to_transaction";
        let deadline = Instant::now() + timeout;
        self.kafka.running(self.client).await;
        let metadata = group.metadata()?;
        let sender = self.state(call, |producer| {
            producer.check_fatal()?;
            if producer.stage != Stage::Open || producer.must_abort {
                let message = "erroneous state";
                let disposition = Disposition::Abortable;
                return Err(KafkaError::new(call, ErrorKind::Other, disposition, message));
            }
            Ok(producer.sender.clone())
        })?;
        let Some(sender) = sender else { return Err(state_error(call, "not initialised")) };
        let add =
            Request::AddOffsetsToTxn { sender: sender.clone(), group: metadata.group.clone() };
        self.send_request(add, deadline, call).await?;
        self.state(call, |producer| {
            producer.has_offsets = true;
            Ok(())
        })?;
        let commit = Request::TxnOffsetCommit { sender, metadata, offsets: offsets.to_vec() };
        self.send_request(commit, deadline, call).await.map(drop)
    }

    async fn commit(&mut self, timeout: Duration) -> Result<(), KafkaError> {
        let deadline = Instant::now() + timeout;
        self.delivered(0, deadline).await?;
        self.end(true, deadline).await
    }

    async fn abort(&mut self, timeout: Duration) -> Result<(), KafkaError> {
        let deadline = Instant::now() + timeout;
        self.kafka.running(self.client).await;
        self.state("abort_transaction", |producer| {
            producer.queue.clear();
            Ok(())
        })?;
        self.end(false, deadline).await
    }
}

impl Drop for ModelProducer {
    fn drop(&mut self) {
        self.kafka.with(|state| state.producers.remove(&self.handle));
    }
}

impl ProducerState {
    pub(super) fn client(&self) -> u64 {
        self.client
    }
}
