//! From what the user writes to what the driver runs.
//!
//! The driver runs a handler over a run of messages, so that only one future per run is boxed and
//! a handler that is ready at once costs a call.

use std::any::Any;
use std::future::{Future, poll_fn};
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use countersign_statemachine::Reason;
use countersign_statemachine::worker::{Failure, FailureKind};
use futures::FutureExt;
use serde::de::DeserializeOwned;

use crate::driver::{Progress, RunInput, words_of};
use crate::kafka::Record;

use super::{BatchError, HandlerError, Message, Outputs};

/// Handles one message at a time, in the order of the input partition.
pub trait Handler: Send + Sync + 'static {
    /// Handles a message; its outputs become visible with its offset, or not at all.
    ///
    /// May run more than once for a message: after a crash, an abort or a rebalance.
    fn handle(
        &self,
        message: Message,
    ) -> impl Future<Output = Result<Outputs, HandlerError>> + Send;
}

/// Handles several messages of one partition at once.
pub trait BatchHandler: Send + Sync + 'static {
    /// Handles messages; gives the outputs of each, in order.
    ///
    /// # Errors
    /// [`BatchError`] names the first that failed and keeps what was done before it.
    fn handle(
        &self,
        messages: Vec<Message>,
    ) -> impl Future<Output = Result<Vec<Outputs>, BatchError>> + Send;
}

/// A [`Handler`] made of a decoder and an async function.
pub struct Each<T, D, F> {
    decode: D,
    function: F,
    value: PhantomData<fn() -> T>,
}

impl<T, D, F> std::fmt::Debug for Each<T, D, F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Each")
    }
}

/// A [`BatchHandler`] made of an async function.
pub struct InBatches<F>(F);

impl<F> std::fmt::Debug for InBatches<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("InBatches")
    }
}

/// Handles raw messages with an async function.
pub fn each<F, R>(function: F) -> impl Handler
where
    F: Fn(Message) -> R + Send + Sync + 'static,
    R: Future<Output = Result<Outputs, HandlerError>> + Send,
{
    decoded(|_: &Record| Ok(()), function)
}

/// Handles messages whose values are JSON.
pub fn json<T, F, R>(function: F) -> impl Handler
where
    T: DeserializeOwned + Send + 'static,
    F: Fn(Message<T>) -> R + Send + Sync + 'static,
    R: Future<Output = Result<Outputs, HandlerError>> + Send,
{
    let decode = |record: &Record| {
        serde_json::from_slice(record.value().unwrap_or_default())
            .map_err(|error| HandlerError::permanent(format!("the value is not JSON: {error}")))
    };
    decoded(decode, function)
}

/// Handles messages whose values are in the postcard format.
pub fn postcard<T, F, R>(function: F) -> impl Handler
where
    T: DeserializeOwned + Send + 'static,
    F: Fn(Message<T>) -> R + Send + Sync + 'static,
    R: Future<Output = Result<Outputs, HandlerError>> + Send,
{
    let decode = |record: &Record| {
        ::postcard::from_bytes(record.value().unwrap_or_default())
            .map_err(|error| HandlerError::permanent(format!("the value is not postcard: {error}")))
    };
    decoded(decode, function)
}

/// Handles messages that `decode` turns into values.
pub fn decoded<T, D, F, R>(decode: D, function: F) -> impl Handler
where
    T: Send + 'static,
    D: Fn(&Record) -> Result<T, HandlerError> + Send + Sync + 'static,
    F: Fn(Message<T>) -> R + Send + Sync + 'static,
    R: Future<Output = Result<Outputs, HandlerError>> + Send,
{
    Each { decode, function, value: PhantomData }
}

impl<T, D, F, R> Handler for Each<T, D, F>
where
    T: Send + 'static,
    D: Fn(&Record) -> Result<T, HandlerError> + Send + Sync + 'static,
    F: Fn(Message<T>) -> R + Send + Sync + 'static,
    R: Future<Output = Result<Outputs, HandlerError>> + Send,
{
    async fn handle(&self, message: Message) -> Result<Outputs, HandlerError> {
        let value = (self.decode)(message.record())?;
        (self.function)(message.with(value)).await
    }
}

/// Handles raw messages in batches with an async function.
pub fn batch<F, R>(function: F) -> impl BatchHandler
where
    F: Fn(Vec<Message>) -> R + Send + Sync + 'static,
    R: Future<Output = Result<Vec<Outputs>, BatchError>> + Send,
{
    InBatches(function)
}

impl<F, R> BatchHandler for InBatches<F>
where
    F: Fn(Vec<Message>) -> R + Send + Sync + 'static,
    R: Future<Output = Result<Vec<Outputs>, BatchError>> + Send,
{
    async fn handle(&self, messages: Vec<Message>) -> Result<Vec<Outputs>, BatchError> {
        (self.0)(messages).await
    }
}

type RunFuture<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// Runs a handler over a run of messages, and reports how far it got.
pub(crate) trait Work: Send + Sync {
    fn run(&self, input: RunInput, progress: Progress) -> RunFuture<'_>;
}

/// One message after another.
pub(crate) struct EachWork<H>(pub(crate) H);

impl<H: Handler> Work for EachWork<H> {
    fn run(&self, input: RunInput, mut progress: Progress) -> RunFuture<'_> {
        Box::pin(async move {
            for message in input.messages() {
                let offset = message.offset();
                if !progress.may_handle(1, offset).await {
                    return progress.yielded();
                }
                let call = std::pin::pin!(async { self.0.handle(message).await });
                let mut call = guarded(call);
                // What is done already is not held back by a handler that waits.
                let result = if let Some(result) = (&mut call).now_or_never() {
                    result
                } else {
                    progress.report();
                    let Some(result) = progress.within(offset, call).await else {
                        return progress.yielded();
                    };
                    result.unwrap_or_else(Err)
                };
                match result {
                    Ok(outputs) => {
                        if let Err(failure) = progress.finished(offset, outputs) {
                            return progress.failed(offset, failure);
                        }
                    }
                    Err(failure) => return progress.failed(offset, failure),
                }
            }
            progress.report();
        })
    }
}

/// Up to `size` messages at once.
pub(crate) struct BatchWork<H> {
    pub(crate) handler: H,
    pub(crate) size: usize,
}

impl<H: BatchHandler> Work for BatchWork<H> {
    fn run(&self, input: RunInput, mut progress: Progress) -> RunFuture<'_> {
        Box::pin(async move {
            let mut messages = input.messages().peekable();
            while messages.peek().is_some() {
                // A batch that panics or is too slow does not tell by which message: the first one
                // is tried again alone, so that the blame goes on to the next until it is right.
                let has_failed = messages.peek().is_some_and(|message| message.attempt() > 1);
                let size = if has_failed { 1 } else { self.size };
                let batch: Vec<Message> = messages.by_ref().take(size).collect();
                let offsets: Vec<u64> = batch.iter().map(Message::offset).collect();
                let last = offsets.last().copied().unwrap_or_default();
                if !progress.may_handle(batch.len(), last).await {
                    return progress.yielded();
                }
                let call = async { self.handler.handle(batch).await };
                let call = progress.within(last, AssertUnwindSafe(call).catch_unwind());
                let Some(result) = call.await else { return progress.yielded() };
                let (done, failed) = match result {
                    Ok(Ok(Ok(done))) => (done, None),
                    Ok(Ok(Err(BatchError { done, error }))) => (done, Some(error.into())),
                    Ok(Err(panic)) => (Vec::new(), Some(failure_of_panic(panic.as_ref()))),
                    Err(failure) => (Vec::new(), Some(failure)),
                };
                // An error is about one of them, whatever the handler says is done.
                let done_max = offsets.len().saturating_sub(usize::from(failed.is_some()));
                let mut rest = offsets.iter();
                let done = done.into_iter().take(done_max);
                for (outputs, &offset) in done.zip(rest.by_ref()) {
                    if let Err(failure) = progress.finished(offset, outputs) {
                        return progress.failed(offset, failure);
                    }
                }
                if let Some(&offset) = rest.next() {
                    let missing = || HandlerError::fatal("a batch handler gave too few outputs");
                    let failure = failed.unwrap_or_else(|| missing().into());
                    return progress.failed(offset, failure);
                }
                progress.report();
            }
        })
    }
}

/// A call of a handler, whose panic is its message's failure. It wraps the call by hand, so that
/// what comes of it is moved as seldom as can be.
fn guarded(
    mut call: Pin<&mut (impl Future<Output = Result<Outputs, HandlerError>> + Send)>,
) -> impl Future<Output = Result<Outputs, Failure>> + Send + Unpin {
    poll_fn(move |cx| {
        let poll = AssertUnwindSafe(|| call.as_mut().poll(cx));
        match catch_unwind(poll) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(Ok(outputs))) => Poll::Ready(Ok(outputs)),
            Ok(Poll::Ready(Err(error))) => Poll::Ready(Err(error.into())),
            Err(panic) => Poll::Ready(Err(failure_of_panic(panic.as_ref()))),
        }
    })
}

pub(crate) fn failure_of_panic(panic: &(dyn Any + Send)) -> Failure {
    let message = format!("the handler panicked: {}", words_of(panic));
    Failure::new(Reason::Panic, FailureKind::Retryable, message)
}

/// What the builder keeps.
pub(crate) fn work_of(handler: impl Handler) -> Arc<dyn Work> {
    Arc::new(EachWork(handler))
}

/// What the builder keeps.
pub(crate) fn batch_work_of(handler: impl BatchHandler, size: usize) -> Arc<dyn Work> {
    Arc::new(BatchWork { handler, size: size.max(1) })
}
