//! What a worker does, told event by event.

#![expect(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::time::Duration;

use countersign_statemachine::worker::{
    Call, Commit, Effect, Failure, FailureClass, Found, Input, Label, Position, SlotEvent, Worker,
};
use countersign_statemachine::{
    Backoff, CommitMetadata, Disposition, Entry, Expired, PartitionId, Reason, Settings, Span,
    StartAt,
};

const P: PartitionId = PartitionId(0);

fn settings(slots: u32) -> Settings {
    let backoff = Backoff { base: Duration::from_millis(10), jitter: 0.0, ..Backoff::default() };
    Settings {
        instance: "w0".to_owned(),
        incarnation: 1,
        slots,
        commit_interval: Duration::from_millis(100),
        commit_pause: Duration::from_millis(100),
        transaction_records: 2,
        transaction_timeout: Duration::from_secs(10),
        handle_records: 10,
        leave_budget: Duration::from_secs(1),
        lazy_write: Duration::from_millis(50),
        start: StartAt::Earliest,
        expired: Expired::Fail,
        retry: backoff,
        attempts: None,
        abort_backoff: backoff,
        seed: 0,
    }
}

struct Story {
    worker: Worker,
    now: Duration,
    sent: Vec<Position>,
}

fn show(effect: &Effect) -> String {
    match effect {
        Effect::Recover { partition, .. } => format!("recover {}", partition.0),
        Effect::Assign(starts) => {
            let starts = starts.iter().map(|s| format!(" {}@{}", s.partition.0, s.offset));
            format!("assign{}", starts.collect::<String>())
        }
        Effect::Unassign(ids) => format!("unassign {}", ids.len()),
        Effect::Leave => "leave".to_owned(),
        Effect::Write { write, entries } => {
            let line = |entry: &Entry| match entry {
                Entry::Moved(moved) => format!(", {} {:?}", moved.span, moved.event),
                Entry::Transaction(record) => {
                    format!(", transaction {} {:?}", record.author.number, record.end)
                }
            };
            format!("write {write}{}", entries.iter().map(line).collect::<String>())
        }
        Effect::Handle { span, attempt, .. } => format!("handle {span} attempt {attempt}"),
        Effect::Interrupt { .. } => "interrupt".to_owned(),
        Effect::Forget { .. } => "forget".to_owned(),
        Effect::Release { offset, .. } => format!("release {offset}"),
        Effect::Open { slot, why } => format!("open {slot} {why:?}"),
        Effect::Send { slot, number, span, .. } => format!("send {slot} #{number} {span}"),
        Effect::Flush { slot } => format!("flush {slot}"),
        Effect::Commit { slot, number, offsets } => {
            let offset = |p: &Position| {
                let metadata = CommitMetadata::decode(p.offset, &p.metadata).unwrap();
                let released = if metadata.released { " released" } else { "" };
                format!(" {}@{}{released}", p.partition.0, p.offset)
            };
            let offsets = offsets.iter().map(offset).collect::<String>();
            format!("commit {slot} #{number}{offsets}")
        }
        Effect::Abort { slot } => format!("abort {slot}"),
        Effect::ReadCommits { number, .. } => format!("read commits of #{number}"),
        Effect::Notice(_) => "notice".to_owned(),
        Effect::Stop(result) => format!("stop ok={}", result.is_ok()),
    }
}

fn span(first: u64, end: u64) -> Span {
    Span { first, end }
}

impl Story {
    fn new(settings: Settings) -> Self {
        let now = Duration::from_secs(1);
        let mut story = Self { worker: Worker::new(settings, now), now, sent: Vec::new() };
        story.effects();
        story
    }

    /// All slots open, one partition owned from offset 0 on, and a commit known.
    fn owning(slots: u32) -> Self {
        Self::owning_with(settings(slots))
    }

    fn owning_with(settings: Settings) -> Self {
        let slots = settings.slots;
        let mut story = Self::new(settings);
        for slot in 0..slots {
            story.slot(slot, SlotEvent::Opened);
        }
        story.tell(Input::Assigned(vec![P]));
        let label = Label::Foreign(String::new());
        story.recovered(Some(Commit { offset: 0, label }));
        story.after(0, Input::Tick);
        story
    }

    /// As `owning`, and messages `0..n` are signed in and being handled.
    fn handling(slots: u32, n: u64) -> Self {
        let mut story = Self::owning(slots);
        story.received(0, n);
        let handle = story.tell(Input::Stored { write: 1 });
        assert_eq!(handle, [format!("handle {} attempt 0", span(0, n))]);
        story
    }

    fn effects(&mut self) -> Vec<String> {
        let mut shown = Vec::new();
        while let Some(effect) = self.worker.poll_effect() {
            if let Effect::Commit { offsets, .. } = &effect {
                self.sent.clone_from(offsets);
            }
            shown.push(show(&effect));
        }
        // What an operator is told is a story of its own.
        shown.retain(|effect| effect != "notice");
        shown
    }

    fn tell(&mut self, input: Input) -> Vec<String> {
        self.worker.handle(input, self.now);
        assert!(self.worker.poll_timeout().is_none_or(|due| due > self.now));
        self.effects()
    }

    fn after(&mut self, ms: u64, input: Input) -> Vec<String> {
        self.now += Duration::from_millis(ms);
        self.tell(input)
    }

    fn recovered(&mut self, commit: Option<Commit>) -> Vec<String> {
        let (siblings, known) = (false, false);
        let (log_start, log_end, topic_id, runs) = (0, 100, [7; 16], Vec::new());
        let found = Found { commit, siblings, known, log_start, log_end, topic_id, runs };
        self.tell(Input::Recovered(P, 1, Box::new(found)))
    }

    fn received(&mut self, first: u64, end: u64) -> Vec<String> {
        self.tell(Input::Received { partition: P, epoch: 1, spans: vec![span(first, end)] })
    }

    fn at_end(&mut self, offset: u64) -> Vec<String> {
        self.tell(Input::AtEnd { partition: P, epoch: 1, offset })
    }

    fn finished(&mut self, first: u64, end: u64) -> Vec<String> {
        self.tell(Input::Finished { partition: P, epoch: 1, span: span(first, end) })
    }

    fn failed(&mut self, offset: u64) -> Vec<String> {
        let (reason, class) = (Reason::Error, FailureClass::Retryable);
        let failure = Failure { reason, class, message: "no".to_owned() };
        self.tell(Input::Failed { partition: P, epoch: 1, offset, failure })
    }

    fn slot(&mut self, slot: u32, event: SlotEvent) -> Vec<String> {
        self.tell(Input::Slot(slot, event))
    }

    fn flushed(&mut self, slot: u32) -> Vec<String> {
        self.slot(slot, SlotEvent::Flushed { outputs: Vec::new() })
    }

    fn committed(&mut self, slot: u32) -> Vec<String> {
        self.slot(slot, SlotEvent::Committed { suspicious: false })
    }

    fn aborted(&mut self, slot: u32) -> Vec<String> {
        self.slot(slot, SlotEvent::Aborted { suspicious: false })
    }

    fn fault(&mut self, slot: u32, call: Call, disposition: Disposition) -> Vec<String> {
        let (blame, message) = (None, "no".to_owned());
        self.slot(slot, SlotEvent::Failed { call, disposition, blame, message })
    }

    /// The stable commit as the last one sent, or as it was before.
    fn commits(&mut self, number: u64, arrived: bool) -> Vec<String> {
        let commit = |p: &Position| {
            let label = Label::Ours(p.metadata.clone());
            (p.partition, arrived.then_some(Commit { offset: p.offset, label }))
        };
        let commits = self.sent.iter().map(commit).collect();
        self.tell(Input::Commits { number, commits })
    }

    /// Messages 0 and 1 are sent in a full transaction whose commit is under way on slot 0.
    fn committing(slots: u32, n: u64) -> Self {
        let mut story = Self::handling(slots, n);
        assert_eq!(story.finished(0, 2), ["send 0 #1 0..=1", "flush 0"]);
        assert_eq!(story.flushed(0), ["commit 0 #1 0@2"]);
        story
    }
}

const NOTHING: [String; 0] = [];

/// The next owner may be another worker on the same store: what was noted is written before the
/// group learns that the partition is free.
fn assert_lets_go(effects: &[String]) {
    let place = |start: &str| effects.iter().position(|effect| effect.starts_with(start));
    let places = [place("forget"), place("write"), place("unassign 1")];
    assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{effects:?}");
}

#[test]
fn one_transaction_from_received_to_done() {
    let mut story = Story::owning(1);
    assert_eq!(story.received(0, 2), ["write 1, 0..=1 Start"]);
    assert_eq!(story.tell(Input::Stored { write: 1 }), ["handle 0..=1 attempt 0"]);
    assert_eq!(story.finished(0, 1), ["send 0 #1 0"]);
    assert_eq!(story.finished(1, 2), ["send 0 #1 1", "flush 0"]);
    assert_eq!(story.flushed(0), ["commit 0 #1 0@2"]);
    assert_eq!(story.committed(0), ["release 2"]);
    let written = ["write 2, transaction 1 Committed, 0..=1 Committed(Processed)"];
    assert_eq!(story.after(50, Input::Tick), written);
}

#[test]
fn two_slots_take_turns() {
    let mut story = Story::handling(2, 6);
    assert_eq!(story.finished(0, 6), ["send 0 #1 0..=1", "flush 0"]);
    let next = ["commit 0 #1 0@2", "send 1 #2 2..=3", "flush 1"];
    assert_eq!(story.flushed(0), next);
    assert_eq!(story.flushed(1), NOTHING, "it waits for the one before it");
    let next = ["release 2", "commit 1 #2 0@4", "send 0 #3 4..=5", "flush 0"];
    assert_eq!(story.committed(0), next);
}

/// Large transactions, which end 5 ms after the one before at the earliest.
fn hasty() -> Settings {
    let commit_pause = Duration::from_millis(5);
    Settings { commit_pause, transaction_records: 10_000, handle_records: 5_000, ..settings(2) }
}

#[test]
fn a_transaction_that_nothing_is_about_to_join_ends_at_once_or_after_a_pause() {
    let mut story = Story::owning_with(hasty());
    story.received(0, 1);
    story.tell(Input::Stored { write: 1 });
    assert_eq!(story.finished(0, 1), ["send 0 #1 0", "flush 0"], "none was before it");
    story.after(1, Input::Tick);
    story.received(1, 2);
    story.flushed(0);
    story.after(1, Input::Stored { write: 2 });
    assert_eq!(story.finished(1, 2), ["send 1 #2 1"]);
    assert_eq!(story.worker.poll_timeout(), Some(story.now + Duration::from_millis(3)));
    assert_eq!(story.after(2, Input::Tick), NOTHING);
    assert_eq!(story.after(1, Input::Tick), ["flush 1"]);
}

#[test]
fn a_transaction_waits_for_what_is_under_way_up_to_its_interval() {
    let mut story = Story::owning_with(hasty());
    story.received(0, 2);
    story.tell(Input::Stored { write: 1 });
    assert_eq!(story.finished(0, 1), ["send 0 #1 0"], "another message is being handled");
    assert_eq!(story.after(99, Input::Tick), NOTHING);
    assert_eq!(story.after(1, Input::Tick), ["flush 0"]);
}

#[test]
fn a_transaction_of_many_messages_ends_with_its_interval() {
    let mut story = Story::owning_with(hasty());
    story.received(0, 1_000);
    story.tell(Input::Stored { write: 1 });
    assert_eq!(story.finished(0, 1_000), ["send 0 #1 0..=999"], "under load they grow");
    assert_eq!(story.after(99, Input::Tick), NOTHING);
    assert_eq!(story.after(1, Input::Tick), ["flush 0"]);
}

#[test]
fn what_follows_an_aborted_transaction_is_aborted_and_sent_again_in_order() {
    let mut story = Story::handling(2, 4);
    story.finished(0, 4);
    story.flushed(0);
    let faults = story.fault(0, Call::SendOffsets, Disposition::Abortable);
    assert_eq!(faults, ["abort 1", "abort 0"]);
    assert_eq!(story.aborted(1), NOTHING, "2 and 3 may not overtake 0 and 1");
    assert_eq!(story.aborted(0), NOTHING);
    assert_eq!(story.after(20, Input::Tick), ["send 0 #3 0..=1", "flush 0"]);
}

#[test]
fn a_lost_reply_is_found_committed() {
    let mut story = Story::committing(1, 2);
    assert_eq!(story.fault(0, Call::Commit, Disposition::Retriable), ["open 0 InDoubt"]);
    assert_eq!(story.slot(0, SlotEvent::Opened), ["read commits of #1"]);
    assert_eq!(story.commits(1, true), ["release 2"]);
    let written = story.after(50, Input::Tick);
    let told = "write 2, 0..=1 ReplyLost, transaction 1 InDoubt, \
                transaction 1 FoundCommitted, 0..=1 Committed(Processed)";
    assert_eq!(written, [told]);
}

#[test]
fn a_lost_reply_is_found_not_committed() {
    let mut story = Story::committing(1, 2);
    story.fault(0, Call::Commit, Disposition::Fatal);
    story.slot(0, SlotEvent::Opened);
    assert_eq!(story.commits(1, false), NOTHING, "it pauses after an abort");
    assert_eq!(story.after(10, Input::Tick), ["send 0 #2 0..=1", "flush 0"]);
}

#[test]
fn a_transaction_in_doubt_does_not_hold_a_lost_partition_back() {
    let mut story = Story::committing(1, 2);
    story.fault(0, Call::Commit, Disposition::Retriable);
    assert_lets_go(&story.tell(Input::Lost(vec![P])));
    assert_eq!(story.slot(0, SlotEvent::Opened), NOTHING, "nobody is left to ask for");
    assert!(story.worker.is_idle());
}

#[test]
fn a_lost_partition_waits_for_the_end_that_is_under_way() {
    let mut story = Story::committing(1, 2);
    assert_eq!(story.tell(Input::Lost(vec![P])), NOTHING);
    assert_lets_go(&story.committed(0));
}

#[test]
fn a_revoked_partition_commits_what_its_handler_had_finished() {
    let mut story = Story::handling(1, 3);
    assert_eq!(story.tell(Input::Revoked(vec![P])), ["interrupt"]);
    assert_eq!(story.received(3, 5), NOTHING, "nothing more is admitted");
    assert_eq!(story.at_end(5), NOTHING);
    assert_eq!(story.finished(0, 1), ["send 0 #1 0"]);
    assert_eq!(story.tell(Input::Yielded { partition: P, epoch: 1 }), ["flush 0"]);
    assert_eq!(story.flushed(0), ["commit 0 #1 0@1 released"]);
    assert_lets_go(&story.committed(0));
}

#[test]
fn a_handler_that_does_not_end_is_given_up_after_the_budget() {
    let mut story = Story::handling(1, 1);
    story.tell(Input::Revoked(vec![P]));
    assert_eq!(story.after(999, Input::Tick), NOTHING);
    let write = "write 2, 0 RolledBack(Revoked)";
    assert_eq!(story.after(1, Input::Tick), ["forget", write, "unassign 1"]);
    assert_eq!(story.finished(0, 1), NOTHING, "it comes too late");
}

#[test]
fn an_assignment_is_answered_though_it_is_taken_back_meanwhile() {
    let mut story = Story::new(settings(1));
    assert_eq!(story.tell(Input::Assigned(vec![P])), NOTHING, "the slot is not open");
    assert_eq!(story.tell(Input::Revoked(vec![P])), ["assign", "unassign 1"]);
}

#[test]
fn the_first_start_is_committed_before_the_first_handler() {
    let mut story = Story::new(settings(1));
    story.slot(0, SlotEvent::Opened);
    assert_eq!(story.tell(Input::Assigned(vec![P])), ["recover 0"]);
    assert_eq!(story.recovered(None), ["assign 0@0", "flush 0"]);
    assert_eq!(story.received(0, 1), ["write 1, 0 Start"]);
    assert_eq!(story.tell(Input::Stored { write: 1 }), NOTHING);
    assert_eq!(story.flushed(0), ["commit 0 #1 0@0"]);
    assert_eq!(story.committed(0), ["release 0", "handle 0 attempt 0"]);
}

#[test]
fn the_end_of_the_log_moves_the_position_once() {
    let mut story = Story::owning(2);
    assert_eq!(story.at_end(7), ["flush 0"]);
    assert_eq!(story.flushed(0), ["commit 0 #1 0@7"]);
    assert_eq!(story.after(200, Input::Tick), NOTHING, "it is under way");
    assert_eq!(story.committed(0), ["release 7"]);
    assert_eq!(story.after(200, Input::Tick).len(), 1, "the record");
    story.tell(Input::Stored { write: 1 });
    assert_eq!(story.at_end(7), NOTHING);
    assert_eq!(story.worker.poll_timeout(), None);
}

#[test]
fn a_failed_message_waits_and_is_handled_again() {
    let mut story = Story::handling(1, 2);
    assert_eq!(story.failed(0), ["flush 0"], "how often it failed is committed");
    assert_eq!(story.after(9, Input::Tick), NOTHING);
    let again = ["write 2, 0 RolledBack(Error), 0 Again, 0 Start"];
    assert_eq!(story.after(1, Input::Tick), again);
    assert_eq!(story.tell(Input::Stored { write: 2 }), ["handle 0..=1 attempt 1"]);
}

#[test]
fn a_refused_output_is_found_by_sending_one_message_at_a_time() {
    let mut story = Story::handling(1, 2);
    story.finished(0, 2);
    assert_eq!(story.fault(0, Call::Flush, Disposition::Abortable), ["abort 0"]);
    story.aborted(0);
    assert_eq!(story.after(10, Input::Tick), ["send 0 #2 0", "flush 0"]);
    assert_eq!(story.flushed(0), ["commit 0 #2 0@1"]);
    assert_eq!(story.committed(0), ["release 1", "send 0 #3 1", "flush 0"]);
    assert_eq!(story.fault(0, Call::Flush, Disposition::Abortable), ["abort 0"]);
    story.aborted(0);
    assert_eq!(story.worker.counts().failures, 1, "it is 1 that is refused");
}

/// The other producer is filled and flushed meanwhile, but sends its offsets only behind the new
/// epoch: a late `TxnOffsetCommit` of the old one would set the group's offset back.
#[test]
fn a_suspicious_producer_is_opened_anew_before_the_other_commits() {
    let mut story = Story::handling(2, 4);
    story.finished(0, 4);
    story.flushed(0);
    let suspicious = SlotEvent::Committed { suspicious: true };
    assert_eq!(story.slot(0, suspicious), ["open 0 Suspicious", "release 2"]);
    assert_eq!(story.flushed(1), [""; 0]);
    assert_eq!(story.slot(0, SlotEvent::Opened), ["commit 1 #2 0@4"]);
}

/// Two owners of an id fence each other at every transaction.
#[test]
fn young_transactions_that_are_fenced_again_and_again_stop_the_worker() {
    let mut story = Story::handling(1, 1);
    story.finished(0, 1);
    for _ in 0..2 {
        story.after(100, Input::Tick);
        assert_eq!(story.fault(0, Call::Flush, Disposition::Fenced), ["open 0 Failed"]);
        story.slot(0, SlotEvent::Opened);
        story.after(100, Input::Tick);
    }
    story.after(100, Input::Tick);
    let stopped = story.fault(0, Call::Flush, Disposition::Fenced);
    assert_eq!(stopped.last().map(String::as_str), Some("stop ok=false"));
    assert_eq!(story.committed(0), NOTHING);
}

/// A late copy of `AddOffsetsToTxn` opened a transaction while the worker was idle, and the
/// coordinator timed it out. This may happen now and then.
#[test]
fn a_fencing_now_and_then_is_not_of_another_owner() {
    let mut story = Story::handling(1, 1);
    story.finished(0, 1);
    for _ in 0..10 {
        story.after(100, Input::Tick);
        assert_eq!(story.fault(0, Call::Flush, Disposition::Fenced), ["open 0 Failed"]);
        story.slot(0, SlotEvent::Opened);
        // The abort's wait, and then a while without transactions.
        story.after(61_000, Input::Tick);
    }
}

/// Whether its transaction was committed is not known then.
#[test]
fn a_commit_that_is_fenced_is_in_doubt() {
    let mut story = Story::committing(1, 2);
    let doubt = story.fault(0, Call::Commit, Disposition::Fenced);
    assert_eq!(doubt.last().map(String::as_str), Some("open 0 InDoubt"));
}

#[test]
fn an_old_transaction_that_is_fenced_has_timed_out() {
    let mut story = Story::handling(1, 2);
    story.finished(0, 2);
    story.after(10_000, Input::Tick);
    assert_eq!(story.fault(0, Call::Flush, Disposition::Fenced), ["open 0 Failed"]);
}

#[test]
fn a_drained_worker_releases_leaves_and_stops() {
    let mut story = Story::handling(1, 1);
    assert_eq!(story.tell(Input::Drain), ["interrupt"]);
    assert_eq!(story.finished(0, 1), ["send 0 #1 0", "flush 0"]);
    assert_eq!(story.flushed(0), ["commit 0 #1 0@1 released"]);
    assert_eq!(story.committed(0), ["release 1", "leave"]);
    let last = story.tell(Input::Revoked(vec![P]));
    let record = "write 2, transaction 1 Committed, 0 Committed(Processed)";
    assert_eq!(last, ["forget", record, "unassign 1", "stop ok=true"]);
}

/// Without an answer that names every partition, the group's revocation would never come.
#[test]
fn an_assignment_is_answered_in_whole_when_the_budget_of_a_drain_is_used_up() {
    let mut story = Story::new(settings(1));
    story.slot(0, SlotEvent::Opened);
    assert_eq!(story.tell(Input::Assigned(vec![P])), ["recover 0"]);
    assert_eq!(story.tell(Input::Drain), NOTHING);
    assert_eq!(story.after(1_000, Input::Tick), ["assign 0@0", "leave"]);
    assert_eq!(story.received(0, 3), NOTHING, "nothing of it is handled");
    let last = story.tell(Input::Revoked(vec![P]));
    assert_eq!(last, ["forget", "unassign 1", "stop ok=true"]);
}

#[test]
fn a_second_retry_does_not_replace_the_first() {
    let mut story = Story::handling(1, 3);
    story.finished(0, 1);
    story.failed(1);
    story.after(100, Input::Tick);
    let (call, disposition) = (Call::Flush, Disposition::Abortable);
    let (blame, message) = (Some((P, 0)), "no".to_owned());
    story.slot(0, SlotEvent::Failed { call, disposition, blame, message });
    story.aborted(0);
    story.tell(Input::Stored { write: 2 });
    story.after(100, Input::Tick);
    assert_eq!(story.tell(Input::Stored { write: 3 }), ["handle 0..=2 attempt 1"]);
}
