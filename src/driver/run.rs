//! One run of messages on its way through the handler.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use countersign_statemachine::worker::{Failure, FailureKind};
use countersign_statemachine::{PartitionId, Reason, Span};
use tokio::time::timeout;

use crate::handler::{Message, Outputs, Source, Topics, Work, failure_of_panic};
use crate::kafka::{Batch, Record};

use super::brake::Brake;
use super::budget::Budget;
use super::inbox::{Inbox, News};
use super::meter::Meter;
use super::rate::Rate;
use super::results::Draft;
use super::solo::{Gate, Turn};

/// The messages of a run.
pub(crate) struct RunInput {
    /// Batches in offset order, each from an index on; they may hold more than the spans.
    pub(super) batches: Vec<(Batch, usize)>,
    pub(super) spans: Vec<Span>,
    /// How often the first message failed before.
    pub(super) attempt: u32,
}

impl RunInput {
    /// The run's messages, in order.
    pub(crate) fn messages(&self) -> impl Iterator<Item = Message> + Send + '_ {
        let first = self.spans.first().map(|span| span.first);
        let records = self.spans.iter().flat_map(|span| self.records(*span));
        records.map(move |record| {
            let again = if Some(record.offset()) == first { self.attempt } else { 0 };
            Message::new(record, again + 1)
        })
    }

    fn records(&self, span: Span) -> impl Iterator<Item = Record> + Send + '_ {
        let from = self.batches.partition_point(|(batch, _)| batch.end() <= span.first);
        let batches = self.batches.get(from..).unwrap_or_default().iter();
        let reached = batches.take_while(move |(batch, _)| batch.begins_below(span.end));
        reached.flat_map(move |(batch, fresh)| {
            let from = batch.index_of(span.first).max(*fresh);
            (from..batch.index_of(span.end)).filter_map(move |index| batch.record(index))
        })
    }
}

/// How a run reports what it has done.
pub(crate) struct Progress {
    pub(super) partition: PartitionId,
    pub(super) source: Source,
    pub(super) epoch: u64,
    pub(super) lane: u64,
    pub(super) topics: Arc<Topics>,
    pub(super) inbox: Inbox,
    pub(super) brake: Arc<Brake>,
    /// How long one call of the handler may take.
    pub(super) deadline: Option<Duration>,
    pub(super) rate: Rate,
    pub(super) turn: Turn,
    pub(super) draft: Draft,
    pub(super) meter: Meter,
}

impl Progress {
    /// The message at `offset` is done.
    ///
    /// # Errors
    /// One of its outputs cannot be addressed, so it is not done.
    pub(crate) fn finished(&mut self, offset: u64, outputs: Outputs) -> Result<(), Failure> {
        let before = self.draft.outputs.len();
        if let Err(failure) = self.address(offset, outputs) {
            self.draft.outputs.truncate(before);
            return Err(failure);
        }
        self.draft.push(offset);
        self.meter.count(self.draft.outputs.get(before..).unwrap_or_default());
        Ok(())
    }

    /// Partitions may be chosen by the user's function, which may panic.
    fn address(&mut self, offset: u64, outputs: Outputs) -> Result<(), Failure> {
        let sink = &mut self.draft.outputs;
        let address = AssertUnwindSafe(|| self.topics.address(outputs, self.source, offset, sink));
        match catch_unwind(address) {
            Ok(addressed) => addressed.map_err(|error| {
                Failure::new(Reason::Error, FailureKind::Permanent, error.to_string())
            }),
            Err(panic) => Err(failure_of_panic(panic.as_ref())),
        }
    }

    /// Waits until so many messages, the last one at `last`, may be handled, now; whether they may,
    /// or the run should stop: also if there is no memory for their results.
    pub(crate) async fn may_handle(&mut self, messages: usize, last: u64) -> bool {
        if !self.meter.reserve(messages) {
            return false;
        }
        for _ in 0..messages {
            if self.brake.stops(last) {
                return false;
            }
            if !self.rate.is_free() {
                // What is done already is not held back.
                self.report();
                self.turn.pause();
                if !self.rate.wait(|| self.brake.stops(last)).await {
                    return false;
                }
            }
        }
        if self.turn.is_given() {
            return true;
        }
        self.report();
        let brake = Arc::clone(&self.brake);
        self.turn.wait(|| brake.stops(last)).await
    }

    /// Waits for a call of the handler whose last message is at `last`, as long as it may take.
    /// `None`: it is cancelled, since a message of it was taken from it.
    ///
    /// # Errors
    /// It missed its deadline and is cancelled.
    pub(crate) async fn within<T>(
        &self,
        last: u64,
        call: impl Future<Output = T>,
    ) -> Option<Result<T, Failure>> {
        tokio::select! {
            biased;
            result = self.in_time(call) => Some(result),
            () = self.brake.cancels(last) => None,
        }
    }

    async fn in_time<T>(&self, call: impl Future<Output = T>) -> Result<T, Failure> {
        let Some(deadline) = self.deadline else { return Ok(call.await) };
        timeout(deadline, call).await.map_err(|_| {
            let message = format!("the handler missed its deadline of {deadline:?}");
            Failure::new(Reason::Deadline, FailureKind::Retryable, message)
        })
    }

    /// Reports what was done since the last report.
    pub(crate) fn report(&mut self) {
        let draft = std::mem::take(&mut self.draft);
        if !draft.is_empty() {
            let (partition, epoch, lane) = (self.partition, self.epoch, self.lane);
            let results = Arc::new(draft.finish(self.meter.take()));
            self.inbox.send(News::Finished { partition, epoch, lane, results });
        }
    }

    /// The message at `offset` failed, and the run ends.
    pub(crate) fn failed(mut self, offset: u64, failure: Failure) {
        self.report();
        self.meter.give_back();
        let (partition, epoch, lane) = (self.partition, self.epoch, self.lane);
        self.inbox.send(News::Failed { partition, epoch, lane, offset, failure });
    }

    /// The run ends before its last message.
    pub(crate) fn yielded(mut self) {
        self.report();
        self.meter.give_back();
        let (partition, epoch, lane) = (self.partition, self.epoch, self.lane);
        self.inbox.send(News::Yielded { partition, epoch, lane });
    }
}

/// Runs a handler over a batch without a driver, and gives how many outputs there are.
pub(crate) async fn run_alone(work: &dyn Work, batch: Batch, topics: Arc<Topics>) -> usize {
    let (inbox, mut news) = Inbox::new();
    let first = batch.offset(0).unwrap_or(0);
    let last = batch.offset(batch.len().saturating_sub(1)).unwrap_or(first);
    let span = Span { first, end: last + 1 };
    let batches = vec![(batch, 0)];
    let progress = Progress {
        partition: PartitionId(0),
        source: Source { partition: 0, partitions: 1, mark: None },
        epoch: 0,
        lane: 0,
        topics,
        inbox,
        brake: Arc::default(),
        deadline: None,
        rate: Rate::default(),
        turn: Turn::shared(&Gate::default()),
        draft: Draft::default(),
        meter: Meter::new(&Budget::new(usize::MAX).share(), &batches, 0, false),
    };
    work.run(RunInput { batches, spans: vec![span], attempt: 0 }, progress).await;
    let mut outputs = 0;
    while let Ok(news) = news.try_recv() {
        if let News::Finished { results, .. } = news {
            outputs += results.outputs().len();
        }
    }
    outputs
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::handler::{
        self, BatchError, HandlerError, Partitioning, To, Work, batch_work_of, work_of,
    };
    use crate::kafka::{BatchBuilder, Topic, TopicPartition};
    use crate::limits::Limit;

    fn progress(inbox: Inbox) -> Progress {
        let topic = Topic { name: "out".into(), id: [0; 16], partitions: 3 };
        Progress {
            partition: PartitionId(0),
            source: Source { partition: 0, partitions: 1, mark: None },
            epoch: 1,
            lane: 0,
            topics: Arc::new(Topics::new(&[topic], |_| Limit::default())),
            inbox,
            brake: Arc::default(),
            deadline: Some(Duration::from_secs(5)),
            rate: Rate::default(),
            turn: Turn::shared(&Gate::default()),
            draft: Draft::default(),
            meter: Meter::new(&Budget::new(1 << 20).share(), &[], 0, false),
        }
    }

    /// Messages from offset 5 on with these values.
    fn input(values: &[&[u8]]) -> RunInput {
        let mut builder = BatchBuilder::new(TopicPartition::new("in", 0));
        for (offset, value) in (5..).zip(values) {
            builder.push(offset, None, None, Some(value), []);
        }
        let span = Span { first: 5, end: 5 + values.len() as u64 };
        RunInput { batches: vec![(builder.build(), 0)], spans: vec![span], attempt: 2 }
    }

    /// What a run reports: the values of finished messages, and what failed.
    async fn report(
        work: Arc<dyn Work>,
        input: RunInput,
    ) -> (Vec<Vec<u8>>, Option<(u64, Failure)>) {
        let (inbox, mut news) = Inbox::new();
        work.run(input, progress(inbox)).await;
        let (mut values, mut failed) = (Vec::new(), None);
        while let Ok(it) = news.try_recv() {
            match it {
                News::Finished { results, .. } => {
                    let outputs = results.outputs().iter();
                    values.extend(
                        outputs.map(|output| output.value.clone().unwrap_or_default().to_vec()),
                    );
                }
                News::Failed { offset, failure, .. } => failed = Some((offset, failure)),
                other => panic!("{other:?}"),
            }
        }
        (values, failed)
    }

    fn echo<T: ToString>(value: &T) -> Outputs {
        To::topic("out").value(value.to_string()).into()
    }

    #[tokio::test]
    async fn values_are_decoded_and_what_is_not_json_fails_for_good() {
        let work = work_of(handler::json(|m: Message<u32>| async move { Ok(echo(m.value())) }));
        let (values, failed) = report(work, input(&[b"1", b"22", b"x", b"4"])).await;
        assert_eq!(values, [b"1".to_vec(), b"22".to_vec()]);
        let (offset, failure) = failed.expect("the third is not JSON");
        assert_eq!((offset, failure.kind), (7, FailureKind::Permanent));
    }

    #[tokio::test]
    async fn postcard_and_own_decoders_are_used() {
        let encoded = postcard::to_stdvec(&300_u32).expect("a number");
        let work = work_of(handler::postcard(|m: Message<u32>| async move { Ok(echo(m.value())) }));
        assert_eq!(report(work, input(&[&encoded])).await.0, [b"300".to_vec()]);
        let decode = |record: &Record| Ok(record.value().map_or(0, <[u8]>::len));
        let work =
            work_of(handler::decoded(
                decode,
                |m: Message<usize>| async move { Ok(echo(m.value())) },
            ));
        assert_eq!(report(work, input(&[b"four", b""])).await.0, [b"4".to_vec(), b"0".to_vec()]);
    }

    #[tokio::test]
    async fn only_the_first_message_of_a_retried_run_has_failed_before() {
        let work = work_of(handler::each(|m| async move { Ok(echo(&m.attempt())) }));
        let (values, _) = report(work, input(&[b"a", b"b"])).await;
        assert_eq!(values, [b"3".to_vec(), b"1".to_vec()]);
    }

    #[tokio::test]
    async fn a_panic_is_a_retryable_failure_of_its_message() {
        let work = work_of(handler::each(|m| async move {
            assert!(m.offset() != 6, "not this one");
            Ok(echo(&m.offset()))
        }));
        let (values, failed) = report(work, input(&[b"", b"", b""])).await;
        assert_eq!(values, [b"5".to_vec()]);
        let (offset, failure) = failed.expect("it panics");
        assert_eq!((offset, failure.reason), (6, Reason::Panic));
        assert_eq!(failure.kind, FailureKind::Retryable);
    }

    #[tokio::test]
    async fn a_batch_keeps_what_was_done_before_the_failed_message() {
        let work = batch_work_of(
            handler::batch(|messages| async move {
                let mut done = Vec::new();
                for message in &messages {
                    if message.offset() == 8 {
                        let error = HandlerError::permanent("no");
                        return Err(BatchError { done, error });
                    }
                    done.push(echo(&messages.len()));
                }
                Ok(done)
            }),
            2,
        );
        let (values, failed) = report(work, input(&[b"", b"", b"", b"", b""])).await;
        // The first had failed before, and comes alone.
        assert_eq!(values, [b"1".to_vec(), b"2".to_vec(), b"2".to_vec()]);
        assert_eq!(
            failed.map(|(offset, failure)| (offset, failure.kind)),
            Some((8, FailureKind::Permanent))
        );
    }

    #[tokio::test]
    async fn an_error_of_a_batch_fails_its_last_message_at_least() {
        let work = batch_work_of(
            handler::batch(|messages: Vec<Message>| async move {
                let done = messages.iter().map(|m| echo(&m.offset())).collect();
                Err(BatchError { done, error: HandlerError::fatal("no") })
            }),
            3,
        );
        let first = RunInput { attempt: 0, ..input(&[b"", b"", b""]) };
        let (values, failed) = report(work, first).await;
        assert_eq!(values, [b"5".to_vec(), b"6".to_vec()]);
        let (offset, failure) = failed.expect("there is an error");
        assert_eq!((offset, failure.kind), (7, FailureKind::Fatal));
        assert_eq!(failure.message, "no");
    }

    #[tokio::test(start_paused = true)]
    async fn a_missed_deadline_is_a_retryable_failure_and_cancels_the_handler() {
        let ended = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&ended);
        let work = work_of(handler::each(move |m: Message| {
            let ended = Arc::clone(&ended);
            async move {
                if m.offset() == 6 {
                    tokio::time::sleep(Duration::from_secs(6)).await;
                    ended.store(true, Ordering::Relaxed);
                }
                Ok(echo(&m.offset()))
            }
        }));
        let (values, failed) = report(work, input(&[b"", b"", b""])).await;
        assert_eq!(values, [b"5".to_vec()]);
        let (offset, failure) = failed.expect("it is too slow");
        assert_eq!((offset, failure.reason), (6, Reason::Deadline));
        assert_eq!(failure.kind, FailureKind::Retryable);
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(!seen.load(Ordering::Relaxed), "it was cancelled");
    }

    /// The first message is blamed once, and then tried alone: it is not the one that panics.
    #[tokio::test]
    async fn a_batch_without_a_culprit_blames_its_first_message_and_tries_that_alone() {
        let work = batch_work_of(
            handler::batch(|messages: Vec<Message>| async move {
                assert!(messages.iter().all(|m| m.offset() != 7), "not that one");
                Ok(messages.iter().map(|m| echo(&m.offset())).collect())
            }),
            2,
        );
        let (values, failed) = report(work, input(&[b"", b"", b"", b""])).await;
        assert_eq!(values, [b"5".to_vec()], "alone, since it had failed before");
        assert_eq!(failed.map(|(offset, _)| offset), Some(6), "blamed for its neighbour");
    }

    /// A function of the user's that panics while an output is addressed is the message's failure,
    /// and leaves nothing of its outputs behind.
    #[test]
    fn a_partitioner_that_panics_fails_its_message() {
        let (inbox, mut news) = Inbox::new();
        let mut progress = progress(inbox);
        let choose = |_: Option<&[u8]>, _| panic!("no idea");
        let bad = To::topic("out").partitioning(Partitioning::With(Arc::new(choose)));
        progress.finished(7, To::topic("out").value("fine").into()).expect("it can be addressed");
        let failure = progress
            .finished(8, Outputs::one(To::topic("out").value("first")).and(bad))
            .expect_err("its second output cannot be addressed");
        assert_eq!(failure.reason, Reason::Panic);
        assert!(failure.message.contains("no idea"), "{}", failure.message);
        progress.failed(8, failure);
        let Ok(News::Finished { results, .. }) = news.try_recv() else { panic!("7 is finished") };
        assert_eq!(results.spans().collect::<Vec<_>>(), [Span::one(7)]);
        assert_eq!(results.outputs().len(), 1);
        assert!(matches!(news.try_recv(), Ok(News::Failed { offset: 8, .. })));
    }

    /// What a run reports that is braked once its handler waits.
    async fn braked(work: Arc<dyn Work>, brake: impl FnOnce(&Brake)) -> (Vec<Vec<u8>>, bool) {
        let (inbox, mut news) = Inbox::new();
        let progress = Progress { deadline: None, ..progress(inbox) };
        let shared = Arc::clone(&progress.brake);
        let run = tokio::spawn(async move { work.run(input(&[b"", b"", b""]), progress).await });
        // Until nothing but the brake can make it go on.
        tokio::time::sleep(Duration::from_secs(1)).await;
        brake(&shared);
        run.await.expect("it does not panic");
        let (mut values, mut has_yielded) = (Vec::new(), false);
        while let Ok(it) = news.try_recv() {
            match it {
                News::Finished { results, .. } => {
                    let outputs = results.outputs().iter();
                    values.extend(outputs.map(|it| it.value.clone().unwrap_or_default().to_vec()));
                }
                News::Yielded { .. } => has_yielded = true,
                other => panic!("{other:?}"),
            }
        }
        (values, has_yielded)
    }

    /// Hangs at offset 6, or for 10 seconds where another one is to be cancelled.
    fn hangs(seconds: u64) -> Arc<dyn Work> {
        work_of(handler::each(move |m: Message| async move {
            if m.offset() == 6 {
                tokio::time::sleep(Duration::from_secs(seconds)).await;
            }
            Ok(echo(&m.offset()))
        }))
    }

    #[tokio::test(start_paused = true)]
    async fn a_hung_handler_is_cancelled_and_what_was_done_before_is_kept() {
        let (values, has_yielded) = braked(hangs(u64::MAX), |brake| brake.cancel_from(6)).await;
        assert_eq!((values, has_yielded), (vec![b"5".to_vec()], true));
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_before_the_cancelled_one_is_left_to_its_handler() {
        let (values, has_yielded) = braked(hangs(10), |brake| brake.cancel_from(7)).await;
        assert_eq!((values, has_yielded), (vec![b"5".to_vec(), b"6".to_vec()], true));
    }

    #[tokio::test(start_paused = true)]
    async fn a_hung_batch_is_cancelled_whole() {
        let work = batch_work_of(
            handler::batch(|messages: Vec<Message>| async move {
                if messages.iter().any(|message| message.offset() == 7) {
                    tokio::time::sleep(Duration::MAX).await;
                }
                Ok(messages.iter().map(|m| echo(&m.offset())).collect())
            }),
            2,
        );
        // The first had failed before, and comes alone.
        let (values, has_yielded) = braked(work, |brake| brake.cancel_from(7)).await;
        assert_eq!((values, has_yielded), (vec![b"5".to_vec()], true));
    }
}
