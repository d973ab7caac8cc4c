//! The producer's calls; what they do locally is in `producer_state`.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use countersign::kafka::{
    CommitOffset, ErrorKind, Header, KafkaError, Output, Producer, Refused, Unsent,
};
use countersign::provenance;
use countersign_statemachine::Disposition;
use tokio::time::Instant;

use super::client::ModelGroup;
use super::faults::{Call, Fault};
use super::producer_state::{ProducerState, Stage, end_call, state_error};
use super::request::{Code, Reply, Request, Sender};
use super::{ModelKafka, panic_quietly};

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

/// The output with its provenance.
fn marked<'a>(output: &'a Output, mark: Option<&[u8]>) -> Cow<'a, Output> {
    let Some(mark) = mark else { return Cow::Borrowed(output) };
    let mut output = output.clone();
    output.headers.retain(|header| &*header.name != provenance::HEADER);
    let value = Some(Bytes::copy_from_slice(mark));
    output.headers.push(Header { name: Arc::from(provenance::HEADER), value });
    Cow::Owned(output)
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

    fn send(
        &mut self,
        outputs: &Arc<Vec<Output>>,
        which: Range<usize>,
        mark: Option<&[u8]>,
    ) -> Result<(), Unsent> {
        self.kafka.with(|state| {
            which.into_iter().try_for_each(|index| {
                let output = marked(&outputs[index], mark);
                let taken = state.enqueue(self.handle, &output);
                taken.map_err(|error| Unsent { index, error })
            })
        })
    }

    async fn flush(&mut self, in_flight: usize, timeout: Duration) -> Result<(), KafkaError> {
        match self.kafka.with(|state| state.faults.next(Call::Flush)) {
            Some(Fault::Hang(long)) => tokio::time::sleep(long).await,
            Some(Fault::Panic) => panic_quietly(),
            Some(_) | None => {}
        }
        self.delivered(in_flight, Instant::now() + timeout).await?;
        self.state("flush", |producer| {
            producer.delivery_error.clone().map_or_else(|| producer.check_fatal(), Err)
        })
    }

    fn refused(&self) -> Refused {
        let refused = |producer: &mut ProducerState| Ok(producer.refused.clone());
        self.state("flush", refused).unwrap_or_default()
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
