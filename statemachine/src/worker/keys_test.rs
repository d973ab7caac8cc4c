//! What is known of lanes does not grow with what is done behind a message that never ends.

use std::time::Duration;

use crate::entry::PartitionId;
use crate::settings::{Order, Settings};
use crate::span::Span;
use crate::worker::{
    Commit, Effect, Failure, FailureKind, Found, Input, Label, Siblings, SlotEvent, Time, Worker,
};
use crate::{Backoff, Reason};

const P: PartitionId = PartitionId(0);

/// How many messages are read at a time.
const READ: u64 = 2_000;

fn settings() -> Settings {
    let never = Duration::from_secs(100_000);
    let backoff = Backoff { base: never, max: never, jitter: 0.0, ..Backoff::default() };
    Settings { order: Order::Key, retry: backoff.into(), slots: 1, ..Settings::new("w0", 1) }
}

/// What a shell that never fails answers; the handler of the first message fails.
fn answer(effect: Effect) -> Option<Input> {
    match effect {
        Effect::Open { slot, .. } => Some(Input::Slot(slot, SlotEvent::Opened)),
        Effect::Recover(begun) => {
            let commit = Some(Commit { offset: 0, label: Label::Foreign(String::new()) });
            let (siblings, known) = (Siblings::None(None), false);
            let (log_start, log_end, topic_id, runs) = (0, 0, [7; 16], Vec::new());
            let found = Found { commit, siblings, known, log_start, log_end, topic_id, runs };
            Some(Input::Recovered(begun.iter().map(|&(id, at)| (id, at, found.clone())).collect()))
        }
        Effect::Write { write, .. } => Some(Input::Stored { write }),
        Effect::Handle { partition, epoch, lane, spans, .. } => {
            if spans.first().is_some_and(|span| span.first == 0) {
                let failure = Failure::new(Reason::Error, FailureKind::Retryable, "no");
                return Some(Input::Failed { partition, epoch, lane, offset: 0, failure });
            }
            Some(Input::Finished { partition, epoch, lane, spans })
        }
        Effect::Flush { slot } => {
            Some(Input::Slot(slot, SlotEvent::Flushed { outputs: Vec::new() }))
        }
        Effect::Commit { slot, .. } => {
            Some(Input::Slot(slot, SlotEvent::Committed { suspicious: false }))
        }
        _ => None,
    }
}

fn tell(worker: &mut Worker, now: Time, input: Input) {
    let mut inputs = vec![input];
    while let Some(input) = inputs.pop() {
        worker.handle(input, now);
        while let Some(effect) = worker.poll_effect() {
            inputs.extend(answer(effect));
        }
    }
}

#[test]
fn lanes_of_messages_that_are_done_are_forgotten_behind_one_that_is_stuck() {
    let mut now = Duration::from_secs(1);
    let mut worker = Worker::new(settings(), now);
    tell(&mut worker, now, Input::Tick);
    tell(&mut worker, now, Input::Assigned(vec![P]));
    for first in (0..100).map(|nth| nth * READ) {
        let end = first + READ;
        let keys = (first..end).map(|at| u64::from(at > 0)).collect();
        let spans = vec![Span { first, end }];
        tell(&mut worker, now, Input::Received { partition: P, epoch: 1, spans, keys });
        let is_behind = |worker: &Worker| worker.counts().confirmed < end - 1;
        let deadline = now + Duration::from_secs(100);
        while is_behind(&worker) && now < deadline {
            now += Duration::from_millis(20);
            tell(&mut worker, now, Input::Tick);
        }
        assert!(!is_behind(&worker), "the other key goes on: {:?}", worker.counts());
        let keys = &worker.partitions[&P].lanes.keys.0;
        assert!(keys.len() as u64 <= super::FEW + 2, "{} are known", keys.len());
        assert!(keys.capacity() as u64 <= 8 * READ, "{} have room", keys.capacity());
    }
}
