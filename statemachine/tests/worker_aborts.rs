//! What becomes of a worker's transactions after some came to nothing, told event by event.
//!
//! Two causes are told apart: Kafka is slow or away, and the next transactions are smaller; or
//! outputs were refused, and only the messages that may be to blame are kept apart.

#![expect(clippy::unwrap_used, reason = "a test that panics has failed")]

mod story;

use std::collections::BTreeSet;
use std::time::Duration;

use countersign_statemachine::worker::{Call, Input, Refusal, SlotEvent};
use countersign_statemachine::{Backoff, Disposition, Order, PartitionId, Settings};
use story::{NOTHING, P, Story, settings, span};

/// Large transactions of messages in one lane, which end at once.
fn large(slots: u32) -> Settings {
    let commit_pause = Duration::ZERO;
    Settings { commit_pause, transaction_records: 1_000, handle_records: 1_000, ..settings(slots) }
}

/// Messages `0..n` are being handled.
fn handling(settings: Settings, n: u64) -> Story {
    let mut story = Story::owning_with(settings);
    story.received(0, n);
    story.tell(Input::Stored { write: 1 });
    story
}

/// What is sent next, all of it at once, once the pause after an abort is over.
fn next_sent(story: &mut Story) -> String {
    let mut effects = story.after(10_000, Input::Tick);
    effects.retain(|effect| !effect.starts_with("write"));
    let [send, flush] = effects.as_slice() else { panic!("{effects:?}") };
    assert_eq!(flush, "flush 0");
    send.split(' ').nth(3).unwrap().to_owned()
}

/// It was seen to send all that had finished again, and again after the next time-out.
#[test]
fn after_an_abort_transactions_are_half_as_large_down_to_one_message() {
    let mut story = handling(large(1), 9);
    assert_eq!(story.finished(0, 9), ["send 0 #1 0..=8", "flush 0"]);
    for sent in ["0..=3", "0..=1", "0", "0"] {
        story.fault(0, Call::Flush, Disposition::Retriable);
        story.aborted(0);
        assert_eq!(next_sent(&mut story), sent);
    }
    story.flushed(0);
    assert_eq!(story.committed(0), ["release 1", "send 0 #6 1..=2", "flush 0"], "they grow again");
    story.flushed(0);
    assert_eq!(story.committed(0), ["release 3", "send 0 #7 3..=6", "flush 0"]);
    story.flushed(0);
    assert_eq!(story.committed(0), ["release 7", "send 0 #8 7..=8", "flush 0"]);
}

/// What follows is aborted with it, and that says nothing more of Kafka.
#[test]
fn a_transaction_and_the_one_that_follows_it_count_as_one_abort() {
    let mut story = handling(Settings { transaction_records: 8, ..unordered(2) }, 16);
    finish_each(&mut story, 0, 16);
    let faults = story.fault(0, Call::Flush, Disposition::Abortable);
    assert_eq!(faults, ["abort 1", "abort 0"]);
    story.aborted(1);
    story.aborted(0);
    assert_eq!(story.after(9, Input::Tick), NOTHING, "the first pause has 10 ms");
    assert_eq!(story.after(1, Input::Tick), ["send 0 #3 0..=3", "flush 0"]);
}

/// After an outage nothing is known of what Kafka manages, and the first try must not fail.
#[test]
fn what_fails_late_is_followed_by_a_single_message() {
    let mut story = handling(large(1), 9);
    story.finished(0, 9);
    story.now += Duration::from_secs(5);
    story.fault(0, Call::Flush, Disposition::Retriable);
    story.aborted(0);
    assert_eq!(next_sent(&mut story), "0");
}

#[test]
fn a_transaction_that_was_fenced_after_its_time_out_is_followed_by_a_single_message() {
    let mut story = handling(large(1), 9);
    story.finished(0, 9);
    story.now += Duration::from_secs(11);
    story.fault(0, Call::Flush, Disposition::Fenced);
    story.slot(0, SlotEvent::Opened);
    assert_eq!(next_sent(&mut story), "0");
}

#[test]
fn what_is_bounded_in_messages_is_bounded_in_bytes_too() {
    let mut story = handling(large(1), 16);
    story.finished(0, 8);
    story.weighed(1, 8, 8_000);
    story.fault(0, Call::Flush, Disposition::Abortable);
    story.aborted(0);
    assert_eq!(next_sent(&mut story), "0..=3");
    assert_eq!(story.weighed(2, 4, 400), NOTHING);
    story.flushed(0);
    story.committed(0);
    story.flushed(0);
    story.committed(0);
    // Messages as heavy as the first: twice of what was committed last, or half of what failed.
    story.finished(8, 9);
    story.weighed(4, 1, 3_000);
    story.flushed(0);
    story.committed(0);
    assert_eq!(story.finished(9, 16), ["send 0 #5 9..=10", "flush 0"]);
}

/// A fill is decided before what it takes can be weighed.
#[test]
fn a_fill_takes_no_more_than_its_bytes_by_what_messages_weighed_before() {
    let mut story = handling(Settings { transaction_bytes: 10_000, ..large(1) }, 100);
    assert_eq!(story.finished(0, 1), ["send 0 #1 0"]);
    assert_eq!(story.weighed(1, 1, 3_000), NOTHING);
    assert_eq!(story.finished(1, 100), ["send 0 #1 1..=2"]);
    assert_eq!(story.weighed(1, 2, 6_000), NOTHING, "1,000 bytes are left, which is some room");
    assert_eq!(story.after(0, Input::Tick), ["send 0 #1 3", "flush 0"]);
}

#[test]
fn a_flush_that_takes_most_of_the_time_makes_the_next_one_smaller() {
    let mut story = handling(large(1), 200);
    story.finished(0, 100);
    assert_eq!(story.after(200, Input::Tick).last().unwrap(), "flush 0");
    story.now += Duration::from_secs(5);
    story.flushed(0);
    story.finished(100, 200);
    // A quarter of the time-out of 10 s.
    assert_eq!(story.committed(0), ["release 100", "send 0 #2 100..=149", "flush 0"]);
    story.now += Duration::from_millis(100);
    story.flushed(0);
    assert_eq!(story.committed(0), ["release 150", "send 0 #3 150..=199", "flush 0"]);
}

/// A long wait, so that what failed once stays away.
fn patient(settings: Settings) -> Settings {
    let base = Duration::from_secs(3_600);
    let retry = Backoff { base, max: base, jitter: 0.0, ..Backoff::default() };
    Settings { retry: retry.into(), ..settings }
}

/// Messages in no order.
fn unordered(slots: u32) -> Settings {
    patient(Settings { order: Order::None, concurrency: 1_000, ..large(slots) })
}

fn finish_each(story: &mut Story, first: u64, end: u64) -> Vec<String> {
    let finished = (first..end).flat_map(|at| {
        let (lane, spans) = (at, vec![span(at, at + 1)]);
        story.tell(Input::Finished { partition: P, epoch: 1, lane, spans })
    });
    finished.collect()
}

/// A broker that refuses outputs of some messages, and answers everything at once.
struct Broker {
    story: Story,
    refused: BTreeSet<u64>,
    /// Whether it names them.
    names: bool,
    open: Vec<u64>,
    /// How many messages each transaction had, and whether it was committed.
    ended: Vec<(usize, bool)>,
}

fn offsets(words: &str) -> impl Iterator<Item = u64> {
    let (first, last) = words.split_once("..=").unwrap_or((words, words));
    first.parse().unwrap()..=last.parse::<u64>().unwrap()
}

impl Broker {
    fn refusing(story: Story, refused: impl IntoIterator<Item = u64>) -> Self {
        let refused = refused.into_iter().collect();
        Self { story, refused, names: false, open: Vec::new(), ended: Vec::new() }
    }

    /// Answers effects, and those that come of it.
    fn answer(&mut self, mut effects: Vec<String>) {
        while !effects.is_empty() {
            let next: Vec<String> = effects.drain(..).flat_map(|it| self.answer_one(&it)).collect();
            effects = next;
        }
    }

    fn answer_one(&mut self, effect: &str) -> Vec<String> {
        let words: Vec<&str> = effect.split([' ', ',']).collect();
        match words.as_slice() {
            ["send", _, _, span] => {
                self.open.extend(offsets(span));
                Vec::new()
            }
            ["flush", _] => self.flush(),
            ["abort", _] => {
                self.ended.push((std::mem::take(&mut self.open).len(), false));
                self.story.aborted(0)
            }
            ["commit", ..] => {
                self.ended.push((std::mem::take(&mut self.open).len(), true));
                self.story.committed(0)
            }
            ["write", write, ..] => {
                self.story.tell(Input::Stored { write: write.parse().unwrap() })
            }
            ["handle", spans @ .., "attempt", _] => {
                let spans: Vec<u64> = spans.iter().flat_map(|span| offsets(span)).collect();
                spans.iter().flat_map(|&at| finish_each(&mut self.story, at, at + 1)).collect()
            }
            _ => Vec::new(),
        }
    }

    fn flush(&mut self) -> Vec<String> {
        let refused: Vec<u64> =
            self.open.iter().copied().filter(|at| self.refused.contains(at)).collect();
        if refused.is_empty() {
            self.story.flushed(0)
        } else if self.names {
            let named = refused.iter().map(|&at| (P, at)).collect();
            self.story.refusal(0, Refusal::Of(named))
        } else {
            self.story.refused(0)
        }
    }

    /// Reads messages, and passes time until they are done or wait for a retry.
    fn read(&mut self, first: u64, end: u64) {
        let received = self.story.received(first, end);
        self.answer(received);
        for _ in 0..20 {
            let ticked = self.story.after(20, Input::Tick);
            self.answer(ticked);
        }
    }
}

/// It was seen to send one message per transaction, of every partition, as long as the message that
/// was found waited for its retry.
#[test]
fn one_refused_output_among_many_is_found_in_few_transactions_and_holds_nobody_up() {
    let mut broker = Broker::refusing(Story::owning_with(unordered(1)), [300]);
    broker.read(0, 512);
    assert_eq!(broker.story.worker.counts().confirmed, 511);
    assert_eq!(broker.story.worker.counts().failures, 1);
    let refused = broker.ended.iter().filter(|(_, is_committed)| !is_committed).count();
    assert!(refused <= 10 && broker.ended.len() <= 24, "{:?}", broker.ended);
    broker.ended.clear();
    broker.read(512, 1_024);
    assert_eq!(broker.story.worker.counts().confirmed, 1_023);
    assert!(broker.ended.len() <= 3, "one waits, the others go on: {:?}", broker.ended);
}

#[test]
fn messages_that_the_broker_names_fail_at_once() {
    let mut broker = Broker::refusing(Story::owning_with(unordered(1)), [3, 300]);
    broker.names = true;
    broker.read(0, 512);
    assert_eq!(broker.story.worker.counts().confirmed, 510);
    assert_eq!(broker.story.worker.counts().failures, 2);
    let refused = broker.ended.iter().filter(|(_, is_committed)| !is_committed);
    assert!(refused.count() <= 2 && broker.ended.len() <= 6, "{:?}", broker.ended);
}

#[test]
fn many_refused_outputs_are_all_found() {
    let refused: Vec<u64> = (0..512).filter(|at| at % 37 == 5).collect();
    let mut broker = Broker::refusing(Story::owning_with(unordered(1)), refused.clone());
    broker.read(0, 512);
    let found = refused.len() as u64;
    assert_eq!(broker.story.worker.counts().failures, found);
    assert_eq!(broker.story.worker.counts().confirmed, 512 - found);
}

/// What is tried again takes no others with it: they are not sent with it.
#[test]
fn what_was_refused_once_is_sent_apart_when_its_retry_is_due() {
    let mut broker = Broker::refusing(Story::owning_with(unordered(1)), [7]);
    broker.names = true;
    broker.read(0, 16);
    broker.ended.clear();
    broker.story.now += Duration::from_secs(3_600);
    broker.read(16, 32);
    assert_eq!(broker.story.worker.counts().failures, 2);
    assert_eq!(broker.story.worker.counts().confirmed, 31);
    let refused: Vec<_> = broker.ended.iter().filter(|(_, is_committed)| !is_committed).collect();
    assert_eq!(refused, [&(1, false)], "{:?}", broker.ended);
}

#[test]
fn suspects_and_others_take_turns() {
    let mut story = handling(unordered(1), 8);
    let sent = finish_each(&mut story, 0, 4);
    assert_eq!(sent.first().unwrap(), "send 0 #1 0");
    story.after(200, Input::Tick);
    finish_each(&mut story, 4, 8);
    let among = Refusal::Among(vec![(P, span(0, 2))]);
    story.refusal(0, among);
    let first = story.aborted(0);
    assert_eq!(first, ["send 0 #2 0", "flush 0"], "one half of those that may be to blame");
    story.flushed(0);
    let second = story.committed(0);
    assert_eq!(second, ["release 1", "send 0 #3 2..=7", "flush 0"], "all that are not");
    story.flushed(0);
    assert_eq!(story.committed(0), ["release 1", "send 0 #4 1", "flush 0"], "the other half");
}

/// In the order of the partition what follows a suspect waits for it, and another partition does
/// not.
#[test]
fn nothing_overtakes_a_suspect_of_its_lane_and_other_partitions_go_on() {
    let mut story = handling(large(1), 8);
    let (another, epoch) = (PartitionId(1), 2);
    story.handling_another(another, epoch, 6);
    assert_eq!(story.finished(0, 8), ["send 0 #1 0..=7"]);
    story.after(200, Input::Tick);
    let (lane, spans) = (0, vec![span(0, 6)]);
    story.tell(Input::Finished { partition: another, epoch, lane, spans });
    story.refusal(0, Refusal::Among(vec![(P, span(2, 6))]));
    let first = story.aborted(0);
    assert_eq!(first, ["send 0 #2 0..=1", "send 0 #2 0..=5", "flush 0"], "suspects are behind");
    story.flushed(0);
    let second = story.committed(0);
    assert_eq!(second, ["release 2", "release 6", "send 0 #3 2..=3", "flush 0"]);
    story.flushed(0);
    assert_eq!(story.committed(0), ["release 4", "send 0 #4 4..=5", "flush 0"]);
    story.flushed(0);
    assert_eq!(story.committed(0), ["release 6", "send 0 #5 6..=7", "flush 0"]);
}

/// Of two keys in turn, one suspect each.
#[test]
fn nothing_overtakes_a_suspect_of_its_key() {
    let mut story = Story::owning_with(Settings { order: Order::Key, ..unordered(1) });
    let (spans, keys) = (vec![span(0, 6)], vec![1, 2, 1, 2, 1, 2]);
    story.tell(Input::Received { partition: P, epoch: 1, spans, keys });
    story.tell(Input::Stored { write: 1 });
    for lane in [1, 2] {
        let spans = (lane - 1..6).step_by(2).map(|at| span(at, at + 1)).collect();
        story.tell(Input::Finished { partition: P, epoch: 1, lane, spans });
    }
    story.refusal(0, Refusal::Among(vec![(P, span(0, 1)), (P, span(3, 4))]));
    let first = story.aborted(0);
    assert_eq!(first, ["send 0 #2 0", "flush 0"]);
    story.flushed(0);
    let others = story.committed(0);
    assert_eq!(others, ["release 1", "send 0 #3 1..=2", "send 0 #3 4", "flush 0"], "5 is behind 3");
    story.flushed(0);
    assert_eq!(story.committed(0), ["release 3", "send 0 #4 3", "flush 0"]);
    story.flushed(0);
    assert_eq!(story.committed(0), ["release 5", "send 0 #5 5", "flush 0"]);
}

/// The next owner of a partition that comes back has no suspects.
#[test]
fn suspects_of_a_partition_that_is_lost_are_forgotten() {
    let mut story = handling(large(1), 4);
    story.finished(0, 4);
    story.refused(0);
    story.tell(Input::Lost(vec![P]));
    story.aborted(0);
    story.owning_another(P, 2);
    story.after(200, Input::Tick);
    story.received_of((P, 2), 0, 4);
    for write in 2..5 {
        story.tell(Input::Stored { write });
    }
    let finished = Input::Finished { partition: P, epoch: 2, lane: 0, spans: vec![span(0, 4)] };
    let sent = story.tell(finished);
    assert!(sent.first().is_some_and(|sent| sent.ends_with("0..=3")), "{sent:?}");
}
