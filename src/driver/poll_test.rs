//! The poll loop against a consumer that notes what is asked of it.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use countersign_statemachine::PartitionId;

use super::*;
use crate::kafka::{Batch, BatchBuilder, Group, Waker};

#[derive(Clone)]
struct NoGroup;

impl Group for NoGroup {
    fn generation(&self) -> Option<i32> {
        None
    }
}

/// Notes the partitions that are paused, as librdkafka does: across ownerships; and what is sought.
#[derive(Clone, Default)]
struct Noting {
    paused: Arc<Mutex<BTreeSet<TopicPartition>>>,
    resumed: Arc<Mutex<usize>>,
    sought: Arc<Mutex<Vec<(u32, u64)>>>,
}

impl Noting {
    /// How often something was resumed.
    fn resumed(&self) -> usize {
        *self.resumed.lock().expect("nobody panics")
    }

    fn paused(&self) -> Vec<u32> {
        self.paused.lock().expect("nobody panics").iter().map(|tp| tp.partition).collect()
    }
}

impl Consumer for Noting {
    type Group = NoGroup;

    async fn poll(
        &mut self,
        _: Duration,
        _: PollLimit,
        _: &mut Vec<Polled>,
    ) -> Result<(), KafkaError> {
        Ok(())
    }

    fn assign(&mut self, _: &[(TopicPartition, Option<u64>)]) -> Result<(), KafkaError> {
        Ok(())
    }

    fn start(&mut self, starts: &[(TopicPartition, u64)]) -> Result<(), KafkaError> {
        let partitions: Vec<_> = starts.iter().map(|(partition, _)| partition.clone()).collect();
        self.resume(&partitions)
    }

    fn unassign(&mut self, _: &[TopicPartition]) -> Result<(), KafkaError> {
        Ok(())
    }

    fn rejoin(&mut self) -> Result<(), KafkaError> {
        Ok(())
    }

    fn pause(&mut self, partitions: &[TopicPartition]) -> Result<(), KafkaError> {
        self.paused.lock().expect("nobody panics").extend(partitions.iter().cloned());
        Ok(())
    }

    fn resume(&mut self, partitions: &[TopicPartition]) -> Result<(), KafkaError> {
        let mut paused = self.paused.lock().expect("nobody panics");
        paused.retain(|partition| !partitions.contains(partition));
        *self.resumed.lock().expect("nobody panics") += 1;
        Ok(())
    }

    fn seek(&mut self, partition: &TopicPartition, offset: u64) -> Result<(), KafkaError> {
        self.sought.lock().expect("nobody panics").push((partition.partition, offset));
        Ok(())
    }

    fn unsubscribe(&mut self) -> Result<(), KafkaError> {
        Ok(())
    }

    fn group(&self) -> NoGroup {
        NoGroup
    }

    fn waker(&self) -> Waker {
        Arc::new(|| ())
    }
}

fn partition(number: u32) -> TopicPartition {
    TopicPartition::new("in", number)
}

fn batch(of: u32, bytes: usize) -> Batch {
    let mut builder = BatchBuilder::new(partition(of));
    builder.push(0, None, None, Some(&vec![0; bytes]), []);
    builder.build()
}

/// A loop that owns so many partitions, with room for 100,000 bytes of messages.
fn owner(partitions: u32) -> (PollLoop<Noting>, Noting, mpsc::UnboundedReceiver<News>) {
    let (consumer, budget) = (Noting::default(), Budget::new(100_000));
    budget.set_for_messages(100_000);
    let (inbox, news) = Inbox::new();
    let mut poll = PollLoop::new(consumer.clone(), inbox, budget, Pulse::new());
    (0..partitions).for_each(|number| grant(&mut poll, number));
    (poll, consumer, news)
}

fn grant(poll: &mut PollLoop<Noting>, number: u32) {
    let reading = Reading { partition: PartitionId(number), epoch: 1, again: 0 };
    let grant =
        Grant { partition: partition(number), reading, offset: 0, share: poll.budget.share() };
    let assign = Command::Assign { grants: vec![grant], later: Vec::new() };
    poll.carry_out(assign).expect("the consumer takes it");
}

fn read(poll: &mut PollLoop<Noting>, batch: &Batch) {
    poll.pass_on(Polled::Records(batch.clone())).expect("the consumer takes it");
}

/// Which partitions were told that others need their memory.
fn crowded(news: &mut mpsc::UnboundedReceiver<News>) -> Vec<u32> {
    let mut told = Vec::new();
    while let Ok(news) = news.try_recv() {
        if let News::Crowded { of } = news {
            told.push(of.partition.0);
        }
    }
    told
}

fn share(poll: &PollLoop<Noting>, number: u32) -> Share {
    poll.owned[&partition(number)].share.clone()
}

/// Room is given and taken all the time: nobody is paused, whoever has how much.
#[tokio::test(start_paused = true)]
async fn while_everyone_works_his_messages_off_nobody_is_paused() {
    let (mut poll, consumer, mut news) = owner(2);
    for _ in 0..20 {
        let large = batch(0, 90_000);
        read(&mut poll, &large);
        let small = batch(1, 20_000);
        read(&mut poll, &small);
        assert_eq!(poll.rest(), Ok(Some(REST)), "it waits for room");
        tokio::time::sleep(LOOK / 2).await;
        share(&poll, 0).give_back(&large);
        share(&poll, 1).give_back(&small);
        assert_eq!(poll.rest(), Ok(None));
        assert_eq!(consumer.paused(), [0; 0]);
    }
    assert_eq!(crowded(&mut news), [0; 0]);
}

/// Two that are stuck hold everything: the third is read within a second, and they are told to give
/// back what is beyond their shares, once they cannot be seen to work it off.
#[tokio::test(start_paused = true)]
async fn who_has_less_than_its_share_is_read_whatever_the_others_hold() {
    let (mut poll, consumer, mut news) = owner(3);
    let all = [batch(0, 55_000), batch(1, 55_000)];
    for batch in &all {
        read(&mut poll, batch);
    }
    assert_eq!(poll.rest(), Ok(Some(REST)), "it waits for room");
    tokio::time::sleep(REST).await;
    assert_eq!(poll.rest(), Ok(None), "it goes on");
    assert_eq!(consumer.paused(), [0, 1]);
    assert_eq!(crowded(&mut news), [0, 1]);
    assert!(poll.limit().bytes <= 100_000 / 3 / 4, "little is read at once");

    read(&mut poll, &batch(2, 20_000));
    assert_eq!(poll.rest(), Ok(None), "it has less than its share");
    read(&mut poll, &batch(2, 20_000));
    assert_eq!(consumer.paused(), [0, 1, 2], "and now it has it");

    let [first, _] = &all;
    share(&poll, 0).give_back(first);
    assert_eq!(poll.rest(), Ok(None));
    assert_eq!(consumer.paused(), [1, 2], "there is room for its next messages");
}

/// What is taken over later finds the budget used up, and does not wait for those that use it.
#[tokio::test(start_paused = true)]
async fn a_partition_that_comes_later_gets_its_share() {
    let (mut poll, consumer, mut news) = owner(1);
    read(&mut poll, &batch(0, 105_000));
    assert_eq!(poll.rest(), Ok(Some(REST)));
    tokio::time::sleep(REST).await;
    assert_eq!(poll.rest(), Ok(None), "it goes on, for rebalances");
    assert_eq!((consumer.paused(), crowded(&mut news)), (vec![0], vec![]), "nobody else needs it");
    grant(&mut poll, 1);
    assert_eq!(poll.rest(), Ok(None), "the other one is read");
    assert_eq!(consumer.paused(), [0]);
    tokio::time::sleep(LOOK).await;
    assert_eq!(poll.rest(), Ok(None));
    assert_eq!(crowded(&mut news), [0], "it holds more than half");
}

/// Results have become large while much was read: too much is used, also by a single partition.
#[tokio::test(start_paused = true)]
async fn where_too_much_is_used_it_is_given_back_at_once() {
    let (mut poll, consumer, mut news) = owner(1);
    read(&mut poll, &batch(0, 90_000));
    let results = share(&poll, 0);
    results.take_results(30_000);
    poll.budget.set_for_messages(50_000);
    assert_eq!(poll.rest(), Ok(Some(REST)));
    assert_eq!((consumer.paused(), crowded(&mut news)), (vec![0], vec![0]));
}

/// A stuck partition that has given back is not read beyond its share again, however idle the
/// others are: what it holds is enough for when it goes on.
#[tokio::test(start_paused = true)]
async fn who_gave_back_is_read_again_when_it_has_worked_off_half_of_its_share() {
    let (mut poll, consumer, _news) = owner(2);
    let (kept, beyond) = (batch(0, 40_000), batch(0, 60_000));
    read(&mut poll, &kept);
    read(&mut poll, &beyond);
    for _ in 0..2 {
        poll.rest().expect("the consumer takes it");
        tokio::time::sleep(LOOK).await;
    }
    poll.rest().expect("the consumer takes it");
    share(&poll, 0).give_back(&beyond);
    assert_eq!(poll.rest(), Ok(None));
    assert_eq!(consumer.paused(), [0]);
    assert!(share(&poll, 0).is_paused());
    share(&poll, 0).give_back(&kept);
    assert_eq!(poll.rest(), Ok(None));
    assert_eq!(consumer.paused(), [0; 0]);
    assert!(!share(&poll, 0).is_paused());
}

#[tokio::test(start_paused = true)]
async fn what_is_paused_when_it_is_let_go_is_read_when_it_comes_back() {
    let (mut poll, consumer, _news) = owner(2);
    let all = batch(1, 200_000);
    read(&mut poll, &all);
    assert_eq!(poll.rest(), Ok(Some(REST)), "it waits for room");
    tokio::time::sleep(REST).await;
    assert_eq!(poll.rest(), Ok(None), "it goes on, for rebalances");
    assert_eq!(consumer.paused(), [1]);

    let share = share(&poll, 1);
    poll.carry_out(Command::Unassign(vec![partition(1)])).expect("the consumer takes it");
    share.give_back(&all);
    assert_eq!(poll.rest(), Ok(None));
    grant(&mut poll, 1);
    assert_eq!(consumer.paused(), [0; 0]);
}

/// A consumer tells of a refusal once: reading that begins anew makes it tell again.
#[tokio::test(start_paused = true)]
async fn a_partition_whose_reading_is_refused_is_read_anew_unless_it_is_paused() {
    let (mut poll, consumer, _news) = owner(2);
    let reread = |of| Command::Reread(partition(of));
    poll.carry_out(reread(1)).expect("the consumer takes it");
    assert_eq!((consumer.resumed(), consumer.paused()), (1, vec![]));

    let all = batch(0, 105_000);
    read(&mut poll, &all);
    assert_eq!(poll.rest(), Ok(Some(REST)));
    tokio::time::sleep(REST).await;
    assert_eq!(poll.rest(), Ok(None));
    poll.carry_out(reread(0)).expect("the consumer takes it");
    poll.carry_out(reread(7)).expect("nothing is asked of it");
    assert_eq!((consumer.resumed(), consumer.paused()), (1, vec![0]), "it takes too much");
}

#[test]
fn what_is_read_again_has_another_mark_and_a_stale_ownership_is_left_alone() {
    let (mut poll, consumer, mut news) = owner(1);
    let again = |poll: &mut PollLoop<Noting>, epoch, again, offset| {
        let command = Command::ReadAgain { partition: partition(0), epoch, again, offset };
        poll.carry_out(command).expect("the consumer takes it");
    };
    again(&mut poll, 1, 1, 7);
    again(&mut poll, 9, 5, 3);
    assert_eq!(*consumer.sought.lock().expect("nobody panics"), [(0, 7)]);
    read(&mut poll, &batch(0, 10));
    let Ok(News::Records { of, .. }) = news.try_recv() else { panic!("it is passed on") };
    assert_eq!(of, Reading { partition: PartitionId(0), epoch: 1, again: 1 });
}
