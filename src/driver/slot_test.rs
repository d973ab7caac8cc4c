//! What a loop does that was given up: nothing any more.

use std::sync::Mutex;

use tokio::time::sleep;

use super::*;
use crate::driver::watchdog::{MARGIN, Trouble};
use crate::driver::{Host, Loops, Watchdog};
use crate::kafka::{
    Consumer, FakeAdmin, Group, Output, PollLimit, Polled, Refused, Sizes, TopicPartition, Waker,
};

#[derive(Clone)]
struct NoGroup;

impl Group for NoGroup {
    fn generation(&self) -> Option<i32> {
        None
    }
}

/// There is none.
enum NoConsumer {}

impl Consumer for NoConsumer {
    type Group = NoGroup;

    async fn poll(
        &mut self,
        _: Duration,
        _: PollLimit,
        _: &mut Vec<Polled>,
    ) -> Result<(), KafkaError> {
        match *self {}
    }

    fn assign(&mut self, _: &[(TopicPartition, Option<u64>)]) -> Result<(), KafkaError> {
        match *self {}
    }

    fn start(&mut self, _: &[(TopicPartition, u64)]) -> Result<(), KafkaError> {
        match *self {}
    }

    fn unassign(&mut self, _: &[TopicPartition]) -> Result<(), KafkaError> {
        match *self {}
    }

    fn rejoin(&mut self) -> Result<(), KafkaError> {
        match *self {}
    }

    fn pause(&mut self, _: &[TopicPartition]) -> Result<(), KafkaError> {
        match *self {}
    }

    fn resume(&mut self, _: &[TopicPartition]) -> Result<(), KafkaError> {
        match *self {}
    }

    fn seek(&mut self, _: &TopicPartition, _: u64) -> Result<(), KafkaError> {
        match *self {}
    }

    fn unsubscribe(&mut self) -> Result<(), KafkaError> {
        match *self {}
    }

    fn group(&self) -> NoGroup {
        match *self {}
    }

    fn waker(&self) -> Waker {
        match *self {}
    }
}

/// Notes its calls; sending offsets takes a minute, whatever the time-out.
#[derive(Clone, Default)]
struct Slow(Arc<Mutex<Vec<&'static str>>>);

impl Slow {
    fn note(&self, call: &'static str) {
        self.0.lock().expect("nobody panics").push(call);
    }

    fn calls(&self) -> Vec<&'static str> {
        self.0.lock().expect("nobody panics").clone()
    }
}

impl Kafka for Slow {
    type Consumer = NoConsumer;
    type Producer = Self;
    type Admin = FakeAdmin;
    type Group = NoGroup;

    fn consumer(&self, _: u32) -> Result<NoConsumer, KafkaError> {
        Err(KafkaError::no_answer("consumer"))
    }

    fn producer(&self, _: &str, _: Sizes) -> Result<Self, KafkaError> {
        Ok(self.clone())
    }

    fn admin(&self) -> Result<FakeAdmin, KafkaError> {
        Err(KafkaError::no_answer("admin"))
    }
}

impl Producer for Slow {
    type Group = NoGroup;

    async fn init(&mut self, _: Duration) -> Result<(), KafkaError> {
        self.note("init");
        Ok(())
    }

    fn begin(&mut self) -> Result<(), KafkaError> {
        self.note("begin");
        Ok(())
    }

    fn send(
        &mut self,
        _: &Arc<Vec<Output>>,
        _: Range<usize>,
        _: Option<&[u8]>,
    ) -> Result<(), Unsent> {
        Ok(())
    }

    async fn flush(&mut self, _: usize, _: Duration) -> Result<(), KafkaError> {
        self.note("flush");
        Ok(())
    }

    fn refused(&self) -> Refused {
        Refused::default()
    }

    async fn send_offsets(
        &mut self,
        _: &[CommitOffset],
        _: &NoGroup,
        _: Duration,
    ) -> Result<(), KafkaError> {
        self.note("send offsets");
        sleep(Duration::from_secs(60)).await;
        Ok(())
    }

    async fn commit(&mut self, _: Duration) -> Result<(), KafkaError> {
        self.note("commit");
        Ok(())
    }

    async fn abort(&mut self, _: Duration) -> Result<(), KafkaError> {
        self.note("abort");
        Ok(())
    }
}

fn config() -> SlotConfig {
    let (_, sizes) = tokio::sync::watch::channel(Sizes::default());
    SlotConfig {
        slot: 0,
        life: 3,
        transactional_id: "id".to_owned(),
        transaction_timeout: Duration::from_secs(10),
        retry_backoff: Duration::from_millis(100),
        provenance: false,
        sizes,
    }
}

#[tokio::test(start_paused = true)]
async fn offsets_that_were_sent_late_are_not_committed_by_a_loop_that_was_given_up() {
    let kafka = Slow::default();
    let (watchdog, _failures) = Watchdog::start(Host::Tasks, Loops::default());
    let reaper = Reaper::start(&watchdog).expect("tasks need no thread");
    let (inbox, mut news) = Inbox::new();
    let (orders, receiver) = mpsc::unbounded_channel();
    let (hears, told) = mpsc::unbounded_channel();
    let mut told = told;
    let tell = move |trouble| drop(hears.send(trouble));
    let (owner, pulse) = watchdog
        .spawn("slot", MARGIN, tell, |pulse| {
            let client = (Arc::new(kafka.clone()), NoGroup);
            SlotLoop::new(client, config(), inbox, pulse, reaper).run(receiver)
        })
        .expect("tasks need no thread");
    for order in [Order::Open, Order::Commit(Vec::new()), Order::Abort] {
        orders.send(order).expect("the loop lives");
    }
    let Some(Trouble::Overdue(overdue)) = told.recv().await else { panic!("it hangs") };
    assert_eq!(overdue.call, "send_offsets_to_transaction");
    assert!(watchdog.give_up(&pulse, &overdue).expect("it is the first"));
    sleep(Duration::from_secs(120)).await;
    assert_eq!(kafka.calls(), ["init", "begin", "send offsets"]);
    let Ok(News::Slot { life: 3, news: SlotNews::Done(SlotEvent::Opened), .. }) = news.try_recv()
    else {
        panic!("it was registered");
    };
    assert!(news.try_recv().is_err(), "nothing more is heard of it");
    drop(owner);
}
