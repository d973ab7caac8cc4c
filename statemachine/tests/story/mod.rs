//! A worker with one partition, told event by event; what it asks for is shown as words.

#![allow(dead_code, reason = "each test program tells its own part")]

use std::time::Duration;

use countersign_statemachine::worker::{
    Call, Commit, Effect, Failure, FailureKind, Found, GivenUp, Input, Label, Position, Refusal,
    Siblings, SlotEvent, Worker,
};
use countersign_statemachine::{
    Backoff, CommitMetadata, Disposition, Entry, PartitionId, Reason, Settings, Span,
};

pub(crate) const P: PartitionId = PartitionId(0);

pub(crate) fn settings(slots: u32) -> Settings {
    let backoff = Backoff { base: Duration::from_millis(10), jitter: 0.0, ..Backoff::default() };
    Settings {
        slots,
        commit_pause: Duration::from_millis(100),
        write_pause: Duration::ZERO,
        transaction_records: 2,
        handle_records: 10,
        concurrency: 4,
        leave_budget: Duration::from_secs(1),
        close_budget: Duration::from_millis(200),
        retry: backoff.into(),
        abort_backoff: backoff,
        seed: 0,
        ..Settings::new("w0", 1)
    }
}

pub(crate) struct Story {
    pub(crate) worker: Worker,
    pub(crate) now: Duration,
    pub(crate) sent: Vec<Position>,
}

fn show(effect: &Effect) -> String {
    match effect {
        Effect::Recover(begun) => {
            let ids = begun.iter().map(|(id, _)| format!(" {}", id.0));
            format!("recover{}", ids.collect::<String>())
        }
        Effect::Assign(starts) => {
            let start = |(id, offset): &(PartitionId, Option<u64>)| match offset {
                Some(offset) => format!(" {}@{offset}", id.0),
                None => format!(" {}", id.0),
            };
            format!("assign{}", starts.iter().map(start).collect::<String>())
        }
        Effect::Fetch(starts) => {
            let starts = starts.iter().map(|s| format!(" {}@{}", s.partition.0, s.offset));
            format!("fetch{}", starts.collect::<String>())
        }
        Effect::Unassign(ids) => format!("unassign {}", ids.len()),
        Effect::Leave => "leave".to_owned(),
        Effect::AskUncommitted(ids) => format!("ask uncommitted {}", ids.len()),
        Effect::AskAgain(denied) => format!("ask again {denied:?}"),
        Effect::Write { write, entries } => {
            let line = |entry: &Entry| match entry {
                Entry::Moved(moved) => format!(", {} {:?}", moved.span, moved.event),
                Entry::Transaction(record) => {
                    format!(", transaction {} {:?}", record.author.number, record.end)
                }
            };
            format!("write {write}{}", entries.iter().map(line).collect::<String>())
        }
        Effect::Handle { spans, attempt, solo, at_any_cost, .. } => {
            let spans: Vec<String> = spans.iter().map(ToString::to_string).collect();
            let how = match (*solo, *at_any_cost) {
                (true, _) => " solo",
                (false, true) => " at any cost",
                (false, false) => "",
            };
            format!("handle {} attempt {attempt}{how}", spans.join(" "))
        }
        Effect::AskSolo => "ask solo".to_owned(),
        Effect::EndSolo => "end solo".to_owned(),
        Effect::DeadLetter(GivenUp { offset, attempts, cause, .. }) => {
            format!("dead letter {offset} attempts {attempts} {cause:?}")
        }
        Effect::Skip { offset, .. } => format!("skip {offset}"),
        Effect::Cancel { offset, .. } => format!("cancel {offset}"),
        Effect::Answer { id, answer: Ok(()) } => format!("answer {id} done"),
        Effect::Answer { id, answer: Err(obstacle) } => format!("answer {id} {obstacle:?}"),
        Effect::Interrupt { .. } => "interrupt".to_owned(),
        Effect::Halt { .. } => "halt".to_owned(),
        Effect::Forget { .. } => "forget".to_owned(),
        Effect::ReadAgain { offset, .. } => format!("read again {offset}"),
        Effect::Release { offset, .. } => format!("release {offset}"),
        Effect::Open { slot, why } => format!("open {slot} {why:?}"),
        Effect::Send { slot, number, span, .. } => format!("send {slot} #{number} {span}"),
        Effect::Flush { slot } => format!("flush {slot}"),
        Effect::Commit { slot, number, offsets } => {
            let offset = |p: &Position| {
                let metadata = CommitMetadata::decode(p.offset, &p.metadata).unwrap();
                let released = if metadata.released { " released" } else { "" };
                let caution = caution(&metadata);
                format!(" {}@{}{released}{caution}", p.partition.0, p.offset)
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

/// What a commit says of messages that may end the process.
fn caution(metadata: &CommitMetadata) -> String {
    let takeovers = Some(metadata.takeovers).filter(|&takeovers| takeovers > 0);
    let takeovers = takeovers.map(|takeovers| format!(" takeovers {takeovers}"));
    let careful = metadata.careful.map(|until| format!(" careful {until}"));
    let trial = metadata.trial.map(|trial| {
        let verb = if trial.announced { "trying" } else { "tried" };
        format!(" {verb} {} {}", trial.offset, trial.deliveries)
    });
    takeovers.into_iter().chain(careful).chain(trial).collect()
}

pub(crate) fn span(first: u64, end: u64) -> Span {
    Span { first, end }
}

impl Story {
    pub(crate) fn new(settings: Settings) -> Self {
        let now = Duration::from_secs(1);
        let mut story = Self { worker: Worker::new(settings, now), now, sent: Vec::new() };
        story.effects();
        story
    }

    /// All slots open, one partition owned from offset 0 on, and a commit known.
    pub(crate) fn owning(slots: u32) -> Self {
        Self::owning_with(settings(slots))
    }

    pub(crate) fn owning_with(settings: Settings) -> Self {
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

    /// All slots open, and the partition taken up from a commit at 0 that another process wrote.
    pub(crate) fn taking_up(settings: Settings, metadata: &CommitMetadata, log_end: u64) -> Self {
        let slots = settings.slots;
        let mut story = Self::new(settings);
        for slot in 0..slots {
            story.slot(slot, SlotEvent::Opened);
        }
        story.tell(Input::Assigned(vec![P]));
        let label = Label::Ours(metadata.encode(0));
        story.found((P, 1), Some(Commit { offset: 0, label }), log_end);
        story
    }

    /// As `owning`, and messages `0..n` are signed in and being handled.
    pub(crate) fn handling(slots: u32, n: u64) -> Self {
        let mut story = Self::owning(slots);
        story.received(0, n);
        let handle = story.tell(Input::Stored { write: 1 });
        assert_eq!(handle, [format!("handle {} attempt 0", span(0, n))]);
        story
    }

    pub(crate) fn effects(&mut self) -> Vec<String> {
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

    pub(crate) fn tell(&mut self, input: Input) -> Vec<String> {
        self.worker.handle(input, self.now);
        assert!(self.worker.poll_timeout().is_none_or(|due| due > self.now));
        self.effects()
    }

    pub(crate) fn after(&mut self, ms: u64, input: Input) -> Vec<String> {
        self.now += Duration::from_millis(ms);
        self.tell(input)
    }

    pub(crate) fn recovered(&mut self, commit: Option<Commit>) -> Vec<String> {
        // What is in the log would make the first commit come before the first handler.
        let log_end = commit.as_ref().map_or(100, |commit| commit.offset);
        self.found((P, 1), commit, log_end)
    }

    pub(crate) fn found(
        &mut self,
        (id, epoch): (PartitionId, u64),
        commit: Option<Commit>,
        log_end: u64,
    ) -> Vec<String> {
        let (siblings, known) = (Siblings::None(None), false);
        let (log_start, topic_id, runs) = (0, [7; 16], Vec::new());
        let found = Found { commit, siblings, known, log_start, log_end, topic_id, runs };
        self.tell(Input::Recovered(vec![(id, epoch, found)]))
    }

    /// Another partition is owned from offset 0 on.
    pub(crate) fn owning_another(&mut self, id: PartitionId, epoch: u64) {
        self.tell(Input::Assigned(vec![id]));
        let label = Label::Foreign(String::new());
        self.found((id, epoch), Some(Commit { offset: 0, label }), 0);
    }

    /// Another partition is owned from offset 0 on, and this many messages of it are handled.
    pub(crate) fn handling_another(&mut self, id: PartitionId, epoch: u64, n: u64) {
        self.owning_another(id, epoch);
        self.received_of((id, epoch), 0, n);
        let handle = self.tell(Input::Stored { write: epoch });
        assert_eq!(handle, [format!("handle {} attempt 0", span(0, n))]);
    }

    pub(crate) fn received(&mut self, first: u64, end: u64) -> Vec<String> {
        self.received_of((P, 1), first, end)
    }

    pub(crate) fn received_of(
        &mut self,
        (partition, epoch): (PartitionId, u64),
        first: u64,
        end: u64,
    ) -> Vec<String> {
        let (spans, keys) = (vec![span(first, end)], Vec::new());
        self.tell(Input::Received { partition, epoch, spans, keys })
    }

    pub(crate) fn at_end(&mut self, offset: u64) -> Vec<String> {
        self.tell(Input::AtEnd { partition: P, epoch: 1, offset })
    }

    pub(crate) fn finished(&mut self, first: u64, end: u64) -> Vec<String> {
        self.tell(Input::Finished {
            partition: P,
            epoch: 1,
            lane: 0,
            spans: vec![span(first, end)],
        })
    }

    pub(crate) fn failed(&mut self, offset: u64) -> Vec<String> {
        let failure = Failure::new(Reason::Error, FailureKind::Retryable, "no");
        self.tell(Input::Failed { partition: P, epoch: 1, lane: 0, offset, failure })
    }

    pub(crate) fn slot(&mut self, slot: u32, event: SlotEvent) -> Vec<String> {
        self.tell(Input::Slot(slot, event))
    }

    pub(crate) fn flushed(&mut self, slot: u32) -> Vec<String> {
        self.slot(slot, SlotEvent::Flushed { outputs: Vec::new() })
    }

    pub(crate) fn committed(&mut self, slot: u32) -> Vec<String> {
        self.slot(slot, SlotEvent::Committed { suspicious: false })
    }

    pub(crate) fn aborted(&mut self, slot: u32) -> Vec<String> {
        self.slot(slot, SlotEvent::Aborted { suspicious: false })
    }

    pub(crate) fn fault(&mut self, slot: u32, call: Call, disposition: Disposition) -> Vec<String> {
        let (refusal, message) = (None, "no".to_owned());
        self.slot(slot, SlotEvent::Failed { call, disposition, refusal, message })
    }

    /// Messages that are sent in a transaction have so many bytes.
    pub(crate) fn weighed(&mut self, number: u64, messages: u64, bytes: u64) -> Vec<String> {
        self.tell(Input::Weighed { number, messages, bytes })
    }

    /// An output of the transaction is refused; which one is not said.
    pub(crate) fn refused(&mut self, slot: u32) -> Vec<String> {
        self.refusal(slot, Refusal::Among(Vec::new()))
    }

    /// An output of this message is refused.
    pub(crate) fn refused_of(&mut self, slot: u32, offset: u64) -> Vec<String> {
        self.refusal(slot, Refusal::Of(vec![(P, offset)]))
    }

    pub(crate) fn refusal(&mut self, slot: u32, refusal: Refusal) -> Vec<String> {
        let (call, disposition) = (Call::Flush, Disposition::Abortable);
        let (refusal, message) = (Some(refusal), "too large".to_owned());
        self.slot(slot, SlotEvent::Failed { call, disposition, refusal, message })
    }

    /// The stable commit as the last one sent, or as it was before.
    pub(crate) fn commits(&mut self, number: u64, arrived: bool) -> Vec<String> {
        let commit = |p: &Position| {
            let label = Label::Ours(p.metadata.clone());
            (p.partition, arrived.then_some(Commit { offset: p.offset, label }))
        };
        let commits = self.sent.iter().map(commit).collect();
        self.tell(Input::Commits { number, commits })
    }

    /// Messages 0 and 1 are sent in a full transaction whose commit is under way on slot 0.
    pub(crate) fn committing(slots: u32, n: u64) -> Self {
        let mut story = Self::handling(slots, n);
        assert_eq!(story.finished(0, 2), ["send 0 #1 0..=1", "flush 0"]);
        assert_eq!(story.flushed(0), ["commit 0 #1 0@2"]);
        story
    }
}

pub(crate) const NOTHING: [String; 0] = [];

/// The next owner may be another worker on the same store: what was noted is written before the
/// group learns that the partition is free.
pub(crate) fn assert_lets_go(effects: &[String]) {
    let place = |start: &str| effects.iter().position(|effect| effect.starts_with(start));
    let places = [place("forget"), place("write"), place("unassign 1")];
    assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{effects:?}");
}
