//! The poll loop against a consumer that notes what is asked of it.

use std::sync::{Arc, Mutex};

use super::*;
use crate::kafka::{Batch, BatchBuilder, Group, Waker};

#[derive(Clone)]
struct NoGroup;

impl Group for NoGroup {
    fn generation(&self) -> Option<i32> {
        None
    }
}

/// Notes the partitions that are paused, as librdkafka does: across ownerships.
#[derive(Clone, Default)]
struct Noting(Arc<Mutex<BTreeSet<TopicPartition>>>, Arc<Mutex<usize>>);

impl Noting {
    /// How often something was resumed.
    fn resumed(&self) -> usize {
        *self.1.lock().expect("nobody panics")
    }

    fn paused(&self) -> Vec<u32> {
        self.0.lock().expect("nobody panics").iter().map(|tp| tp.partition).collect()
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

    fn assign(&mut self, _: &[(TopicPartition, u64)]) -> Result<(), KafkaError> {
        Ok(())
    }

    fn unassign(&mut self, _: &[TopicPartition]) -> Result<(), KafkaError> {
        Ok(())
    }

    fn rejoin(&mut self) -> Result<(), KafkaError> {
        Ok(())
    }

    fn pause(&mut self, partitions: &[TopicPartition]) -> Result<(), KafkaError> {
        self.0.lock().expect("nobody panics").extend(partitions.iter().cloned());
        Ok(())
    }

    fn resume(&mut self, partitions: &[TopicPartition]) -> Result<(), KafkaError> {
        let mut paused = self.0.lock().expect("nobody panics");
        paused.retain(|partition| !partitions.contains(partition));
        *self.1.lock().expect("nobody panics") += 1;
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

/// A loop that owns partitions 0 and 1, with room for 100,000 bytes.
fn owner() -> (PollLoop<Noting>, Noting, Budget) {
    let (consumer, budget) = (Noting::default(), Budget::new(100_000));
    let (inbox, _) = Inbox::new();
    let mut poll = PollLoop::new(consumer.clone(), inbox, budget.clone(), Pulse::new());
    grant(&mut poll, &budget, 0);
    grant(&mut poll, &budget, 1);
    (poll, consumer, budget)
}

fn grant(poll: &mut PollLoop<Noting>, budget: &Budget, number: u32) {
    let share = budget.share();
    let (id, partition) = (PartitionId(number), partition(number));
    let grant = Grant { partition, id, epoch: 1, offset: 0, share };
    poll.carry_out(Command::Assign(vec![grant])).expect("the consumer takes it");
}

fn read(poll: &mut PollLoop<Noting>, batch: &Batch) {
    poll.pass_on(Polled::Records(batch.clone())).expect("the consumer takes it");
}

#[tokio::test]
async fn a_partition_that_takes_too_much_is_paused_alone_and_comes_back() {
    let (mut poll, consumer, _) = owner();
    let large = batch(0, 60_000);
    read(&mut poll, &large);
    read(&mut poll, &batch(1, 1_000));
    assert_eq!(consumer.paused(), [0]);
    assert_eq!(poll.rest(), Ok(None), "the other one is read");
    assert_eq!(consumer.paused(), [0], "nothing was given back");

    assert!(poll.owned[&partition(0)].share.give_back(&large), "there is room again");
    assert_eq!(poll.rest(), Ok(None));
    assert_eq!(consumer.paused(), [0; 0]);
}

#[tokio::test(start_paused = true)]
async fn what_is_paused_when_it_is_let_go_is_read_when_it_comes_back() {
    let (mut poll, consumer, budget) = owner();
    let all = batch(1, 200_000);
    read(&mut poll, &all);
    assert_eq!(poll.rest(), Ok(Some(REST)), "it waits for room");
    tokio::time::sleep(REST).await;
    assert_eq!(poll.rest(), Ok(None), "it goes on, for rebalances");
    assert_eq!(consumer.paused(), [0, 1]);

    let share = poll.owned[&partition(1)].share.clone();
    poll.carry_out(Command::Unassign(vec![partition(1)])).expect("the consumer takes it");
    assert!(share.give_back(&all), "there is room again");
    assert_eq!(poll.rest(), Ok(None));
    grant(&mut poll, &budget, 1);
    assert_eq!(consumer.paused(), [0; 0]);
}

/// A consumer tells of a refusal once: reading that begins anew makes it tell again.
#[tokio::test]
async fn a_partition_whose_reading_is_refused_is_read_anew_unless_it_is_paused() {
    let (mut poll, consumer, _) = owner();
    let reread = |of| Command::Reread(partition(of));
    poll.carry_out(reread(1)).expect("the consumer takes it");
    assert_eq!((consumer.resumed(), consumer.paused()), (1, vec![]));

    read(&mut poll, &batch(0, 60_000));
    poll.carry_out(reread(0)).expect("the consumer takes it");
    poll.carry_out(reread(7)).expect("nothing is asked of it");
    assert_eq!((consumer.resumed(), consumer.paused()), (1, vec![0]), "it takes too much");
}
