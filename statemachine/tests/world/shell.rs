//! What the driver, the producers, the store and the handlers do.

use countersign_statemachine::worker::Siblings;
use countersign_statemachine::{CommitMetadata, Recorded};

use super::kafka::key_of;
use super::*;

impl Process {
    pub(super) fn new(slots: usize) -> Self {
        Self {
            slots: (0..slots).map(|_| VecDeque::new()).collect(),
            ready: vec![None; slots],
            ..Self::default()
        }
    }

    pub(super) fn is_let_go(&self, id: u32) -> bool {
        self.wanted.iter().any(|wanted| match wanted {
            Wanted::Unassign(ids) => ids.contains(&PartitionId(id)),
            Wanted::Assign(_) => false,
        })
    }

    /// Whether Kafka does not tell how a partition stands.
    fn is_sick(&mut self, id: u32) -> bool {
        let left = self.sick.get_mut(&id).filter(|left| **left > 0);
        left.map(|left| *left -= 1).is_some()
    }

    /// What a slot may do next whose transaction has ended, or that was opened.
    fn rest(&mut self, slot: u32, suspicious: bool) {
        let must_open = self.outdated.contains(&slot) || suspicious;
        let ready = if must_open { Ready::Suspicious } else { Ready::Idle };
        self.ready[slot as usize] = Some(ready);
    }

    /// From now on producers are made with other settings. One that is idle here may have a
    /// transaction that nothing was sent in yet.
    pub(super) fn outdate(&mut self) {
        self.outdated = (0..).take(self.ready.len()).collect();
    }

    fn move_slot(&mut self, slot: u32, from: &[Ready], to: Ready) {
        let ready = &mut self.ready[slot as usize];
        let allowed = ready.is_none_or(|ready| from.contains(&ready));
        assert!(allowed, "slot {slot} cannot go from {ready:?} to {to:?}");
        *ready = Some(to);
    }
}

impl World {
    pub(super) fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Recover(begun) => {
                for (partition, epoch) in begun {
                    self.on_recover(partition, epoch);
                }
            }
            Effect::Assign(starts) => self.on_assign(starts),
            Effect::Fetch(starts) => self.on_fetch(starts),
            Effect::Unassign(ids) => self.on_unassign(&ids),
            Effect::Leave => {
                assert!(self.process.draining, "only a drain leaves");
                self.process.left = Some(self.now);
            }
            Effect::AskAgain(_) | Effect::AskUncommitted(_) => panic!("not here: {effect:?}"),
            Effect::Write { write, entries } => {
                self.process.jobs.push_back(Job::Write(write, entries));
            }
            Effect::Handle { partition, epoch, lane, spans, attempt, solo, at_any_cost } => {
                self.check_memory(partition.0, epoch, &spans, at_any_cost);
                self.on_handle((partition, epoch, lane), &spans, (attempt, solo, at_any_cost));
            }
            Effect::ReadAgain { partition, epoch, offset } => {
                self.on_read_again(partition.0, epoch, offset);
            }
            Effect::AskSolo => {
                assert_eq!(self.process.solo, Solo::No);
                self.process.solo = Solo::Asked;
            }
            Effect::EndSolo => {
                let mut running = self.process.running.iter();
                let solo = running.find(|(_, running)| running.solo);
                assert!(solo.is_none(), "the solo ends and {solo:?} does not");
                self.process.solo = Solo::No;
            }
            Effect::DeadLetter(given_up) => {
                let GivenUp { partition, epoch, offset, .. } = given_up;
                assert_eq!(self.process.epochs.get(&partition.0), Some(&epoch));
                self.assert_reason(&given_up);
                let is_ordered = given_up.cause == Cause::Operator;
                let made = if is_ordered { Made::OrderedLetter } else { Made::Letter };
                self.process.results.entry(partition.0).or_default().insert(offset, made);
            }
            Effect::Skip { partition, epoch, offset } => self.on_skip(partition.0, epoch, offset),
            Effect::Cancel { partition, lane, offset } => {
                self.cancel(partition, offset, |at| at == lane);
            }
            Effect::Answer { id, answer } => self.on_answer(id, answer),
            Effect::Interrupt { partition } => {
                for ((id, _), running) in &mut self.process.running {
                    running.interrupted |= *id == partition.0;
                }
            }
            Effect::Halt { partition } => self.cancel(partition, 0, |_| true),
            Effect::Forget { partition } => self.on_forget(partition.0),
            Effect::Release { partition, offset, beyond } => {
                let results = self.process.results.entry(partition.0).or_default();
                *results = results.split_off(&offset);
                results.retain(|at, _| !beyond.iter().any(|span| span.contains(*at)));
            }
            Effect::Open { slot, .. } => self.queue(slot, Ready::Opening, effect),
            Effect::Send { slot, partition, span, .. } => {
                let results = self.process.results.get(&partition.0);
                let at_hand = |at: u64| results.is_some_and(|results| results.contains_key(&at));
                assert!((span.first..span.end).all(at_hand), "no result to send: {span}");
                self.queue(slot, Ready::Filling, effect);
            }
            Effect::Flush { slot } => self.queue(slot, Ready::Flushing, effect),
            Effect::Commit { slot, ref offsets, .. } => {
                for position in offsets {
                    let id = position.partition.0;
                    assert!(self.process.epochs.contains_key(&id), "{id} is not owned");
                    self.check_metadata(position);
                }
                self.queue(slot, Ready::Committing, effect);
            }
            Effect::Abort { slot } => self.queue(slot, Ready::Aborting, effect),
            Effect::ReadCommits { number, partitions } => {
                self.process.reads.push((number, partitions));
            }
            Effect::Notice(Notice::Intervened { partition, offset, verb: Verb::Retry, .. }) => {
                self.process.anew.insert((partition.0, offset));
            }
            Effect::Notice(Notice::Tried { partition, offset, .. }) => {
                self.process.tried = Some((partition.0, offset));
            }
            Effect::Notice(_) => {}
            Effect::Stop(result) => self.on_stop(result),
        }
    }

    fn on_skip(&mut self, id: u32, epoch: u64, offset: u64) {
        assert_eq!(self.process.epochs.get(&id), Some(&epoch));
        self.process.results.entry(id).or_default().insert(offset, Made::Nothing);
    }

    /// Runs of these lanes are to stop at a message. Their ends may be on the way.
    fn cancel(&mut self, partition: PartitionId, offset: u64, is_meant: impl Fn(u64) -> bool) {
        for ((id, lane), running) in &mut self.process.running {
            if *id == partition.0 && is_meant(*lane) {
                running.cancelled = Some(offset.min(running.cancelled.unwrap_or(offset)));
            }
        }
    }

    /// Nothing is given up before it may be: messages of the class have more tries, and no time.
    fn assert_reason(&self, given_up: &GivenUp) {
        let GivenUp { partition, offset, attempts, cause, failure, .. } = given_up;
        let policy = self.settings.retry.of(failure.class());
        match cause {
            Cause::Rejected => assert_ne!(failure.kind, FailureKind::Retryable),
            Cause::AttemptsUsedUp => assert!(*attempts >= policy.attempts.unwrap()),
            Cause::BudgetUsedUp => assert!(policy.budget.is_some()),
            Cause::Operator => {}
            Cause::PoisonPill => {
                let at = (partition.0, *offset);
                let deaths = self.deaths.iter().filter(|(of, _)| *of == at).count();
                let least = self.settings.deliveries as usize;
                assert!(deaths >= least, "{at:?} ended {deaths} processes");
            }
        }
    }

    /// Names are short here; what they leave free is not room.
    fn check_metadata(&self, position: &Position) {
        let metadata = CommitMetadata::decode(position.offset, &position.metadata).unwrap();
        // One failed message is always provided for.
        let failed = metadata.attempts.len().saturating_sub(1);
        let lists = (metadata.completed.len() as u64, failed as u64);
        let most = CommitMetadata::most_bytes(lists.0, lists.1, LOG_MAX);
        assert!(position.metadata.len() as u64 <= most);
        assert!(most <= self.settings.metadata_bytes as u64, "{lists:?} do not fit");
    }

    fn queue(&mut self, slot: u32, to: Ready, effect: Effect) {
        let from: &[Ready] = match to {
            Ready::Filling => &[Ready::Idle, Ready::Filling],
            Ready::Flushing => {
                if self.process.ready[slot as usize] == Some(Ready::Idle) {
                    self.begun += 1;
                }
                &[Ready::Idle, Ready::Filling]
            }
            Ready::Committing => &[Ready::Flushed],
            Ready::Aborting => {
                &[Ready::Idle, Ready::Filling, Ready::Flushing, Ready::Flushed, Ready::Failed]
            }
            _ if self.process.outdated.remove(&slot) => {
                &[Ready::Idle, Ready::Failed, Ready::Dead, Ready::Suspicious]
            }
            _ => &[Ready::Failed, Ready::Dead, Ready::Suspicious],
        };
        self.process.move_slot(slot, from, to);
        self.process.slots[slot as usize].push_back(effect);
    }

    fn on_recover(&mut self, partition: PartitionId, epoch: u64) {
        let open = |ready: &Option<Ready>| !matches!(ready, None | Some(Ready::Opening));
        assert!(self.process.ready.iter().all(open), "a slot may hold its offsets back");
        self.process.epochs.insert(partition.0, epoch);
        self.process.recovered.insert(partition.0);
        self.process.jobs.push_back(Job::Recover(partition, epoch));
    }

    /// Nothing is begun for which there is no memory, but what nothing can be done before.
    fn check_memory(&self, id: u32, epoch: u64, spans: &[Span], at_any_cost: bool) {
        let messages: u64 = spans.iter().map(|span| span.len()).sum();
        if at_any_cost {
            assert_eq!(messages, 1, "{spans:?} at any cost");
            return;
        }
        let of_it = |((of, _), _): &(&(u32, u64), &Running)| *of == id;
        let running = self.process.running.iter().filter(of_it);
        let under_way = running.map(|(_, running)| running.offsets.len() as u64).sum::<u64>();
        let memory = self.process.memory.get(&(id, epoch)).copied().unwrap_or(u64::MAX);
        assert!(under_way.saturating_add(messages) <= memory, "{under_way} and {spans:?}");
    }

    fn on_forget(&mut self, id: u32) {
        self.process.running.retain(|(of, _), _| *of != id);
        self.process.results.remove(&id);
        self.process.epochs.remove(&id);
    }

    /// What was read from there on is forgotten: none of it may be begun.
    fn on_read_again(&mut self, id: u32, epoch: u64, offset: u64) {
        assert_eq!(self.process.epochs.get(&id), Some(&epoch));
        let read = self.process.fetch.insert(id, offset).expect("it was read");
        assert!(self.kafka.log(id).is_message(offset) && offset < read, "{offset} of {read}");
        let running = self.process.running.iter().filter(|((of, _), _)| *of == id);
        let last = running.flat_map(|(_, running)| running.offsets.iter()).max();
        assert!(last.is_none_or(|last| *last < offset), "{last:?} is under way");
        self.process.at_end.remove(&id);
    }

    fn on_handle(
        &mut self,
        (partition, epoch, lane): (PartitionId, u64, u64),
        spans: &[Span],
        (attempt, solo, at_any_cost): (u32, bool, bool),
    ) {
        let id = partition.0;
        assert_eq!(self.process.epochs.get(&id), Some(&epoch));
        let record = self.store.get(&id).expect("a handler runs after its Start is flushed");
        let ours = self.group[id as usize] == Member::Ours;
        let offsets: VecDeque<u64> = spans.iter().flat_map(|span| span.first..span.end).collect();
        let results = self.process.results.entry(id).or_default();
        let log = &self.kafka.logs[id as usize];
        for &at in &offsets {
            let state = record.at(at).map(|run| run.history.state.name());
            assert_eq!(state, Some("processing"), "{id}@{at} is handled");
            assert_eq!(self.kafka.lane(at), self.kafka.lane(offsets[0]), "{id}@{at} is in {lane}");
            if ours {
                assert!(!log.done.contains(&at), "{id}@{at} is done and handled again");
                // Others may have counted on; what nobody may do is to forget.
                let told = log.attempts().get(&at).copied().unwrap_or(0);
                let known = if at == offsets[0] { attempt } else { 0 };
                let anew = self.process.anew.contains(&(id, at));
                assert!(anew || told <= known, "{id}@{at} has failed {told} times, not {known}");
            }
            let before = (log.position()..at).filter(|&before| log.is_message(before));
            let mut same = before.filter(|&before| self.kafka.lane(before) == self.kafka.lane(at));
            let ready = |before| {
                results.contains_key(&before)
                    || offsets.contains(&before)
                    || log.done.contains(&before)
            };
            assert!(!ours || same.all(ready), "{id}@{at} overtakes an earlier one");
        }
        assert!(log.commit.is_some(), "handlers wait for the first commit");
        if solo {
            self.check_solo(id, &offsets);
        }
        let (interrupted, cancelled) = (false, None);
        let running = Running { epoch, offsets, interrupted, solo, at_any_cost, cancelled };
        let before = self.process.running.insert((id, lane), running);
        assert!(before.is_none(), "{id} runs {before:?} when {spans:?} are to be handled");
        // Beside a solo the others stand still.
        let running = self.process.running.values().filter(|running| !running.solo).count() as u64;
        assert!(running <= self.settings.concurrency, "{running} run at once");
    }

    /// Who runs solo is one message, and announced as far as Kafka can tell.
    fn check_solo(&self, id: u32, offsets: &VecDeque<u64>) {
        assert_eq!((self.process.solo, offsets.len()), (Solo::Ours, 1));
        if self.group[id as usize] == Member::Ours {
            let metadata = self.kafka.logs[id as usize].metadata().unwrap().1.unwrap();
            let trial = metadata.trial.filter(|trial| trial.announced);
            assert_eq!(trial.map(|trial| trial.offset), offsets.front().copied());
            assert_eq!(metadata.author.incarnation, self.settings.incarnation);
        }
    }

    pub(super) fn grant_solo(&mut self) {
        if self.process.solo == Solo::Asked {
            self.process.solo = Solo::Ours;
            self.tell(Input::Solo);
        }
    }

    /// Whether a message ends the process that handles it.
    fn is_pill(&self, id: u32, at: u64) -> bool {
        self.kafka.has_pills && (at + 5 * u64::from(id)) % 23 == 3
    }

    /// Whom processes that ended have left as announced, and whether each does end them.
    pub(crate) fn suspected(&self) -> Vec<(u32, u64, bool)> {
        let blamed = self.deaths.iter().map(|(at, _)| *at);
        blamed.map(|(id, at)| (id, at, self.is_pill(id, at))).collect()
    }

    /// What the commit says is what the next owner goes by.
    fn note_death(&mut self, id: u32) {
        let Some((_, Some(metadata))) = self.kafka.logs[id as usize].metadata() else { return };
        let author = (metadata.author.incarnation, metadata.author.number);
        if let Some(trial) = metadata.trial.filter(|trial| trial.announced)
            && author.0 != self.settings.incarnation
        {
            self.deaths.insert(((id, trial.offset), author));
        }
    }

    fn on_assign(&mut self, starts: Vec<(PartitionId, Option<u64>)>) {
        let ids: Vec<_> = starts.iter().map(|(id, _)| *id).collect();
        let Some(Wanted::Assign(wanted)) = self.process.wanted.pop_front() else {
            panic!("nobody waits for Assign");
        };
        assert_eq!(ids, wanted, "the answer names all");
        self.process.assigned.extend(&ids);
        for (PartitionId(id), offset) in starts {
            if let Some(offset) = offset {
                self.process.fetch.insert(id, offset);
                self.process.at_end.remove(&id);
            }
        }
    }

    fn on_fetch(&mut self, starts: Vec<Start>) {
        for Start { partition, offset } in starts {
            assert!(self.process.assigned.contains(&partition), "it is not assigned");
            let before = self.process.fetch.insert(partition.0, offset);
            assert_eq!(before, None, "{partition:?} is fetched already");
            self.process.at_end.remove(&partition.0);
        }
    }

    fn on_unassign(&mut self, ids: &[PartitionId]) {
        let wanted = self.process.wanted.pop_front();
        assert_eq!(wanted, Some(Wanted::Unassign(ids.to_vec())));
        for slot in 0..self.settings.slots {
            let queue = &self.process.slots[slot as usize];
            // What there is belongs to a former self, is being decided, or comes to nothing.
            if matches!(
                self.process.ready[slot as usize],
                None | Some(Ready::Opening | Ready::Dead | Ready::Aborting)
            ) {
                continue;
            }
            let holds = |id: PartitionId| ids.contains(&id);
            for effect in queue {
                match effect {
                    Effect::Send { partition, .. } => assert!(!holds(*partition)),
                    Effect::Commit { offsets, .. } => {
                        assert!(!offsets.iter().any(|position| holds(position.partition)));
                    }
                    _ => {}
                }
            }
            let producer = &self.kafka.producers[slot as usize];
            let records = producer.open.iter().flat_map(|open| &open.records);
            let mut held = records.filter(|record| holds(PartitionId(record.partition)));
            assert!(
                producer.broken.is_some() || held.next().is_none(),
                "slot {slot} has records of {ids:?}"
            );
        }
        for id in ids {
            assert!(!self.process.epochs.contains_key(&id.0), "{id:?} is not forgotten");
            self.process.fetch.remove(&id.0);
            self.process.assigned.remove(id);
            // A later assignment may be waiting already.
            self.group[id.0 as usize] = Member::Free;
        }
    }

    /// An operator orders something about a message, which may be anywhere.
    pub(super) fn intervene(&mut self, choice: &mut Choice) {
        let partition = choice.partition();
        let offset = self.kafka.log(partition).position() + choice.below(6);
        // That which is tried has more moments than others.
        let tried = self.process.tried.filter(|_| choice.one_in(2));
        let (partition, offset) = tried.unwrap_or((partition, offset));
        let verb = Verb::ALL[choice.index(Verb::ALL.len())];
        self.orders += 1;
        let id = self.orders;
        self.process.orders.insert(id, (partition, offset, verb));
        let (by, reason) = ("ann".to_owned(), "it is in the way".to_owned());
        let order = Intervention { id, offset, verb, by, reason };
        self.ordered.entry((partition, offset, verb)).or_default().insert(id);
        self.tell(Input::Intervene(PartitionId(partition), order));
    }

    /// Each order is answered once, and what is said to be done is in Kafka.
    fn on_answer(&mut self, id: u64, answer: Result<(), Obstacle>) {
        let order = self.process.orders.remove(&id);
        let (partition, offset, verb) = order.expect("an order is answered once");
        let log = &self.kafka.logs[partition as usize];
        match answer {
            Ok(()) => {
                let wanted = match verb {
                    Verb::Retry => return,
                    Verb::Skip => Made::Nothing,
                    Verb::DeadLetter => Made::OrderedLetter,
                };
                let made = log.made.get(&offset).copied();
                assert_eq!(made, Some(wanted), "{verb} of {partition}@{offset} is done");
            }
            // Nobody knows.
            Err(Obstacle::Moved | Obstacle::Stopped) => {}
            Err(obstacle) => {
                let ours = self.group[partition as usize] == Member::Ours;
                let is_done = log.done.contains(&offset) || !log.is_message(offset);
                let claims_done = obstacle == Obstacle::Done;
                assert!(!claims_done || !ours || is_done, "{partition}@{offset} is not done");
                let orders = self.ordered.entry((partition, offset, verb)).or_default();
                orders.remove(&id);
            }
        }
    }

    /// What was refused was not done.
    fn check_orders(&self) {
        for (partition, log) in (0..).zip(&self.kafka.logs) {
            for (&offset, made) in &log.made {
                let verb = match made {
                    Made::Outputs | Made::Letter => continue,
                    Made::OrderedLetter => Verb::DeadLetter,
                    Made::Nothing => Verb::Skip,
                };
                let orders = self.ordered.get(&(partition, offset, verb));
                let is_ordered = orders.is_some_and(|orders| !orders.is_empty());
                assert!(is_ordered, "{verb} of {partition}@{offset} was refused, and done");
            }
        }
    }

    fn on_stop(&mut self, result: Result<(), StopReason>) {
        match &result {
            Ok(()) => {
                let left = self.process.left.expect("it stops after leaving");
                // The group may never answer.
                let patient = self.now >= left + Duration::from_secs(5);
                assert!(patient || self.process.epochs.is_empty(), "it stops without partitions");
            }
            Err(StopReason::Fenced { .. }) => {
                assert!(self.was_fenced, "it was its own time-out");
            }
            Err(reason) => panic!("it stops: {reason}"),
        }
        self.process.stopped = Some(result);
    }

    pub(super) fn fetch(&mut self, choice: &mut Choice) {
        let id = choice.partition();
        let partition = PartitionId(id);
        let (Some(&from), Some(&epoch)) =
            (self.process.fetch.get(&id), self.process.epochs.get(&id))
        else {
            return;
        };
        let log = self.kafka.log(id);
        let to = log.end().min(from + 1 + choice.below(6));
        let (end, spans) = (log.end(), log.spans(from, to));
        self.process.fetch.insert(id, to);
        if !spans.is_empty() {
            let keys = match self.settings.order {
                Order::Key => spans.iter().flat_map(|s| s.first..s.end).map(key_of).collect(),
                Order::Partition | Order::None => Vec::new(),
            };
            self.tell(Input::Received { partition, epoch, spans, keys });
        }
        if to == end && self.process.at_end.get(&id) != Some(&end) {
            self.process.at_end.insert(id, end);
            self.tell(Input::AtEnd { partition, epoch, offset: end });
        }
    }

    pub(super) fn run_handler(&mut self, choice: &mut Choice) {
        if self.process.running.is_empty() {
            return;
        }
        let nth = choice.index(self.process.running.len());
        let stands = self.process.solo == Solo::Ours;
        let (&(id, lane), running) = self.process.running.iter().nth(nth).unwrap();
        let (next, parked) = (running.offsets[0], stands && !running.solo);
        let healthy = running.offsets.iter().take_while(|at| !self.is_pill(id, **at)).count();
        if !parked && self.is_pill(id, next) {
            self.trace.push(format!("{id}@{next} ends the process"));
            self.crash(choice);
            return;
        }
        let running = self.process.running.get_mut(&(id, lane)).unwrap();
        let (partition, epoch) = (PartitionId(id), running.epoch);
        let cancelled = running.cancelled.is_some_and(|from| running.offsets[0] >= from);
        let interrupted = running.interrupted && choice.one_in(2);
        // There is no memory for its results any more.
        let memory = self.process.memory.get(&(id, epoch)).copied();
        let costs = !running.at_any_cost && memory.is_some_and(|messages| messages == 0);
        if cancelled || interrupted || costs {
            self.process.running.remove(&(id, lane));
            self.tell(Input::Yielded { partition, epoch, lane });
            return;
        }
        if parked {
            return;
        }
        if !self.healing && choice.one_in(6) {
            let offset = running.offsets[0];
            self.process.running.remove(&(id, lane));
            let kind = match choice.below(4) {
                0 => FailureKind::Permanent,
                _ => FailureKind::Retryable,
            };
            let class = choice.one_in(3).then(|| HASTY.into());
            let error = Failure::new(Reason::Error, kind, "the handler failed");
            let failure = Failure { class, ..error };
            self.tell(Input::Failed { partition, epoch, lane, offset, failure });
            return;
        }
        let left = choice.index(running.offsets.len());
        let most = running.offsets.len() - left;
        let done: Vec<u64> = running.offsets.drain(..most.min(healthy)).collect();
        if running.offsets.is_empty() {
            self.process.running.remove(&(id, lane));
        }
        let made = done.iter().map(|&at| (at, Made::Outputs));
        self.process.results.entry(id).or_default().extend(made);
        let mut spans: Vec<Span> = Vec::new();
        for at in done {
            Span::one(at).append_to(&mut spans);
        }
        self.tell(Input::Finished { partition, epoch, lane, spans });
    }

    pub(super) fn apply(&mut self, entries: &[Entry]) {
        for entry in entries {
            let Entry::Moved(moved) = entry else { continue };
            let id = moved.partition.0;
            self.process.recovered.remove(&id);
            let runs = self.store.entry(id).or_default();
            if let Err(error) = runs.apply(moved.span, moved.event) {
                panic!("{moved:?}: {error}");
            }
        }
        self.check_store();
    }

    /// The record never says more than Kafka does.
    fn check_store(&mut self) {
        for (&id, runs) in &self.store {
            let log = &self.kafka.logs[id as usize];
            // What recovery found may still be unwritten.
            let owned = self.process.epochs.contains_key(&id);
            if !owned || self.process.recovered.contains(&id) {
                continue;
            }
            for run in runs.iter().filter(|run| run.history.state.is_confirmed()) {
                for at in run.span.first..run.span.end {
                    let known = log.done.contains(&at) || !log.is_message(at);
                    assert!(known, "{id}@{at} is confirmed and not done");
                }
                let position = log.position();
                let mut beyond = run.span.first.max(position)..run.span.end;
                assert!(
                    beyond.all(|at| log.done.contains(&at)),
                    "{id}: {run:?} is beyond {position}"
                );
            }
        }
    }

    pub(super) fn run_store(&mut self) {
        match self.process.jobs.pop_front() {
            None => {}
            Some(Job::Write(write, entries)) => {
                self.apply(&entries);
                self.tell(Input::Stored { write });
            }
            Some(Job::Recover(partition, epoch)) => {
                let id = partition.0;
                if self.group[id as usize] != Member::Ours {
                    // The answer comes too late to matter; what it says does not.
                    return;
                }
                if self.process.is_sick(id) {
                    self.process.jobs.push_back(Job::Recover(partition, epoch));
                    self.tell(Input::Unready(vec![(partition, epoch)]));
                    return;
                }
                assert!(!self.kafka.has_pending_offsets(id), "{id} is not stable");
                self.note_death(id);
                let has_any = self.kafka.logs.iter().any(|log| log.commit.is_some());
                let siblings =
                    if has_any { Siblings::Some(Recorded::Nothing) } else { Siblings::None(None) };
                let log = self.kafka.log(id);
                let runs: Vec<_> = self.store.get(&id).into_iter().flat_map(Runs::iter).collect();
                let found = Found {
                    commit: log.commit.clone(),
                    siblings,
                    known: !runs.is_empty() && log.commit.is_some(),
                    log_start: 0,
                    log_end: log.end(),
                    topic_id: TOPIC_ID,
                    runs,
                };
                self.process.recovered.insert(id);
                self.tell(Input::Recovered(vec![(partition, epoch, found)]));
            }
        }
    }

    pub(super) fn answer_read(&mut self, choice: &mut Choice) {
        if self.process.reads.is_empty() {
            return;
        }
        let nth = choice.index(self.process.reads.len());
        let (number, partitions) = self.process.reads.remove(nth);
        let read = |&id: &PartitionId| {
            let commit: Option<Commit> = self.kafka.logs[id.0 as usize].commit.clone();
            (id, commit)
        };
        let commits = partitions.iter().map(read).collect();
        self.tell(Input::Commits { number, commits });
    }

    pub(super) fn run_slot(&mut self, choice: &mut Choice) {
        let slot = u32::try_from(choice.below(u64::from(self.settings.slots))).unwrap();
        let Some(effect) = self.process.slots[slot as usize].pop_front() else { return };
        let fenced = self.fenced_by_another && !self.healing;
        self.was_fenced |= fenced;
        let producer = self.kafka.producer(slot);
        let old = producer
            .open
            .as_ref()
            .is_some_and(|open| open.began + self.settings.transaction_timeout <= self.now);
        if (old || fenced) && !matches!(effect, Effect::Open { .. }) {
            // The coordinator ends it, or another process does.
            producer.open = None;
            producer.broken = Some(Disposition::Fenced);
        }
        match effect {
            Effect::Open { .. } => self.run_open(slot, choice),
            Effect::Send { partition, span, .. } => self.run_send(slot, partition, span, choice),
            Effect::Flush { .. } => self.run_flush(slot, choice),
            Effect::Commit { offsets, .. } => self.run_commit(slot, offsets, choice),
            Effect::Abort { .. } => self.run_abort(slot, choice),
            other => panic!("{other:?} is not for a slot"),
        }
    }

    fn fails(&self, choice: &mut Choice) -> bool {
        !self.healing && choice.one_in(8)
    }

    fn fault(&mut self, slot: u32, call: Call, disposition: Disposition) {
        self.blamed(slot, call, disposition, None);
    }

    fn blamed(
        &mut self,
        slot: u32,
        call: Call,
        disposition: Disposition,
        refusal: Option<Refusal>,
    ) {
        let ready = match (call, disposition) {
            (Call::Open | Call::Abort, _) | (_, Disposition::Fenced | Disposition::Fatal) => {
                Ready::Dead
            }
            (Call::SendOffsets | Call::Commit, Disposition::Retriable) => Ready::Dead,
            _ => Ready::Failed,
        };
        // What was asked for after the call stays asked for.
        if self.process.ready[slot as usize] != Some(Ready::Aborting) || call == Call::Abort {
            self.process.ready[slot as usize] = Some(ready);
        }
        if call != Call::Open {
            self.kafka.producer(slot).broken.get_or_insert(disposition);
        }
        let message = format!("{call:?} is {disposition:?}");
        self.tell(Input::Slot(slot, SlotEvent::Failed { call, disposition, refusal, message }));
    }

    fn run_open(&mut self, slot: u32, choice: &mut Choice) {
        if self.fails(choice) {
            let disposition = [Disposition::Retriable, Disposition::Fatal][choice.index(2)];
            self.fault(slot, Call::Open, disposition);
            return;
        }
        let producer = self.kafka.producer(slot);
        producer.broken = None;
        if let Some(open) = producer.open.take()
            && !open.offsets.is_empty()
            && choice.one_in(2)
        {
            // The lost commit had arrived.
            self.kafka.commit(open);
        }
        self.process.rest(slot, false);
        self.tell(Input::Slot(slot, SlotEvent::Opened));
    }

    fn run_send(&mut self, slot: u32, partition: PartitionId, span: Span, choice: &mut Choice) {
        if let Some(broken) = self.kafka.producer(slot).broken {
            self.fault(slot, Call::Send, broken);
            return;
        }
        if self.fails(choice) {
            let all = [Disposition::Retriable, Disposition::Abortable, Disposition::Fatal];
            self.fault(slot, Call::Send, all[choice.index(3)]);
            return;
        }
        let results = self.process.results.get(&partition.0);
        // Those of a partition that is forgotten are of a transaction that comes to nothing.
        let made = |at| results.and_then(|results| results.get(&at).copied());
        let made: Vec<_> =
            (span.first..span.end).map(|at| (at, made(at).unwrap_or(Made::Outputs))).collect();
        self.kafka.append(slot, partition.0, &made, self.now);
    }

    fn run_flush(&mut self, slot: u32, choice: &mut Choice) {
        if let Some(broken) = self.kafka.producer(slot).broken {
            self.fault(slot, Call::Flush, broken);
            return;
        }
        let records = self.kafka.producer(slot).open.iter().flat_map(|open| open.records.clone());
        let records: Vec<_> = records.map(|r| (r.partition, r.offset)).collect();
        // A letter that is refused is the end of a worker; here it never is, unless a person has
        // ordered it. And nothing cannot be refused.
        let may_be = |&(id, at): &(u32, u64)| {
            let made = self.process.results.get(&id).and_then(|results| results.get(&at));
            !matches!(made, Some(Made::Letter | Made::Nothing))
        };
        let refused = |at: &&(u32, u64)| self.refused.contains_key(at) && may_be(at);
        let refused = records.iter().find(refused).copied();
        if let Some(at) = refused {
            let left = self.refused.get_mut(&at).unwrap();
            *left -= 1;
            if *left == 0 {
                self.refused.remove(&at);
            }
            let is_named = choice.one_in(2);
            let (id, offset) = (PartitionId(at.0), at.1);
            let refusal = if is_named {
                Refusal::Of(vec![(id, offset)])
            } else if choice.one_in(2) {
                Refusal::Among(Vec::new())
            } else {
                // Those of the batch that it is in.
                let batch = records.iter().filter(|(of, at)| *of == id.0 && at % 2 == offset % 2);
                Refusal::Among(batch.map(|&(of, at)| (PartitionId(of), Span::one(at))).collect())
            };
            self.blamed(slot, Call::Flush, Disposition::Abortable, Some(refusal));
            return;
        }
        if self.fails(choice) {
            let all = [Disposition::Retriable, Disposition::Abortable, Disposition::Fatal];
            self.fault(slot, Call::Flush, all[choice.index(3)]);
            return;
        }
        if self.process.ready[slot as usize] == Some(Ready::Flushing) {
            self.process.ready[slot as usize] = Some(Ready::Flushed);
        }
        let outputs = (0..PARTITIONS).map(|p| {
            let count = records.iter().filter(|(partition, _)| *partition == p).count();
            (PartitionId(p), count as u64)
        });
        let outputs = outputs.collect();
        self.tell(Input::Slot(slot, SlotEvent::Flushed { outputs }));
    }

    fn run_commit(&mut self, slot: u32, offsets: Vec<Position>, choice: &mut Choice) {
        if let Some(broken) = self.kafka.producer(slot).broken {
            self.fault(slot, Call::SendOffsets, broken);
            return;
        }
        if offsets.iter().any(|p| self.group[p.partition.0 as usize] != Member::Ours) {
            self.fault(slot, Call::SendOffsets, Disposition::Abortable);
            return;
        }
        if self.fails(choice) {
            let all = [Disposition::Retriable, Disposition::Abortable, Disposition::Fatal];
            self.fault(slot, Call::SendOffsets, all[choice.index(3)]);
            return;
        }
        let now = self.now;
        let mut open =
            self.kafka.producer(slot).open.take().unwrap_or(Open { began: now, ..Open::default() });
        open.offsets = offsets;
        if self.fails(choice) {
            match choice.below(4) {
                // The commit arrives, and its reply does not.
                0 => self.kafka.commit(open),
                // It is decided when the producer is opened anew.
                1 => self.kafka.producer(slot).open = Some(open),
                2 => {
                    open.offsets.clear();
                    self.kafka.producer(slot).open = Some(open);
                }
                _ => {
                    open.offsets.clear();
                    self.kafka.producer(slot).open = Some(open);
                    self.fault(slot, Call::Commit, Disposition::Abortable);
                    return;
                }
            }
            let all = [Disposition::Retriable, Disposition::Fatal];
            self.fault(slot, Call::Commit, all[choice.index(2)]);
            return;
        }
        self.kafka.commit(open);
        let suspicious = !self.healing && choice.one_in(4);
        self.process.rest(slot, suspicious);
        self.tell(Input::Slot(slot, SlotEvent::Committed { suspicious }));
    }

    fn run_abort(&mut self, slot: u32, choice: &mut Choice) {
        let broken = self.kafka.producer(slot).broken;
        if let Some(broken @ (Disposition::Fenced | Disposition::Fatal)) = broken {
            self.fault(slot, Call::Abort, broken);
            return;
        }
        if self.fails(choice) {
            let all = [Disposition::Retriable, Disposition::Fatal];
            self.fault(slot, Call::Abort, all[choice.index(2)]);
            return;
        }
        let producer = self.kafka.producer(slot);
        producer.open = None;
        producer.broken = None;
        let suspicious = !self.healing && choice.one_in(4);
        self.process.rest(slot, suspicious);
        self.tell(Input::Slot(slot, SlotEvent::Aborted { suspicious }));
    }

    /// No more faults: everything there is gets done, and then there is quiet.
    pub(crate) fn heal(&mut self) {
        self.healing = true;
        self.refused.clear();
        let mut choice = Choice(0);
        self.finish_drain(&mut choice);
        let is_short = self.process.memory.values().any(|messages| *messages < 4);
        let rounds = if self.kafka.has_pills || is_short { 3_000 } else { 400 };
        for round in 0..rounds {
            self.turn(round);
            if self.process.stopped.is_some() {
                assert!(self.was_fenced);
                self.restart(&mut choice);
            }
            if self.process.wanted.is_empty() {
                let free = (0..PARTITIONS).filter(|&p| self.group[p as usize] == Member::Free);
                let ids: Vec<_> = free.map(PartitionId).collect();
                if !ids.is_empty() {
                    self.assign(ids);
                }
            }
            if self.is_all_done() {
                self.check_quiet();
                return;
            }
        }
        panic!("there is no end to it");
    }

    /// Everything that is queued is done; if nothing is, time passes.
    fn turn(&mut self, round: u64) {
        let before = self.trace.len();
        for id in 0..u64::from(PARTITIONS) {
            self.fetch(&mut Choice(id));
            self.run_handler(&mut Choice(round));
        }
        for slot in 0..u64::from(self.settings.slots) {
            self.run_slot(&mut Choice(slot));
        }
        self.run_store();
        self.answer_read(&mut Choice(0));
        self.grant_solo();
        if self.trace.len() == before {
            self.pass_to_timeout();
        }
    }

    /// Everything that is asked for is done, handlers aside, that end only if they are cancelled;
    /// one process follows another.
    pub(super) fn do_all(&mut self, choice: &mut Choice) {
        loop {
            let before = self.trace.len();
            for slot in 0..u64::from(self.settings.slots) {
                self.run_slot(&mut Choice(slot));
            }
            self.run_store();
            self.answer_read(&mut Choice(0));
            self.end_cancelled();
            if self.process.left.is_some() && self.process.wanted.is_empty() {
                let ours = (0..PARTITIONS).filter(|&p| self.group[p as usize] == Member::Ours);
                self.revoke(ours.map(PartitionId).collect());
            }
            if self.process.stopped.is_some() {
                self.restart(choice);
            }
            if self.trace.len() == before {
                return;
            }
        }
    }

    fn end_cancelled(&mut self) {
        let running = self.process.running.iter();
        let cancelled = running.filter(|(_, running)| running.cancelled.is_some());
        let cancelled: Vec<_> = cancelled.map(|(&at, running)| (at, running.epoch)).collect();
        for ((id, lane), epoch) in cancelled {
            self.process.running.remove(&(id, lane));
            self.tell(Input::Yielded { partition: PartitionId(id), epoch, lane });
        }
    }

    fn is_all_done(&self) -> bool {
        self.kafka.logs.iter().all(|log| log.commit.is_some() && log.position() == log.end())
    }

    /// One that is ended by a message meanwhile is started anew, and nobody asks that to drain.
    fn finish_drain(&mut self, choice: &mut Choice) {
        for round in 0..200 {
            if !self.process.draining {
                return;
            }
            if self.process.stopped.is_some() {
                return self.restart(choice);
            }
            self.turn(round);
            let ours = (0..PARTITIONS).filter(|&p| self.group[p as usize] == Member::Ours);
            let ids: Vec<_> = ours.map(PartitionId).collect();
            if self.process.left.is_some() && self.process.wanted.is_empty() && !ids.is_empty() {
                self.revoke(ids);
            }
        }
        panic!("the drain has no end");
    }

    /// Nothing happens any more, and the record agrees with Kafka.
    fn check_quiet(&mut self) {
        let (mut begun, mut quiet) = (self.begun, 0);
        for round in 0..60 {
            self.turn(round);
            quiet = if begun == self.begun { quiet + 1 } else { 0 };
            begun = self.begun;
        }
        assert!(quiet > 40, "transactions without end");
        assert_eq!(self.worker.poll_timeout(), None, "a timer without anything to do");
        assert!(self.process.orders.is_empty(), "orders without an answer");
        assert!(self.process.jobs.is_empty() && self.process.running.is_empty());
        self.kafka.check();
        self.check_orders();
        self.check_store();
        for (id, runs) in &self.store {
            for run in runs.iter() {
                assert!(run.history.state.is_confirmed(), "{id}: {run:?} is left");
            }
        }
    }
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.trace.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}
