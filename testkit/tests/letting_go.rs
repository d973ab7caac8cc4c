//! Goal: a message that takes longer than handlers have when its partition is given back is left
//! from one member to the next, and nobody takes that for a death; a member that is killed is one.
//! Method: the real driver on the model Kafka in virtual time; what the commits say.

mod driven;
mod wait;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use countersign::commit_metadata::disarm;
use countersign::handler::each;
use countersign::kafka::TopicPartition;
use countersign::simulation::RunError;
use countersign::statemachine::CommitMetadata;
use countersign::{Handle, Message, Outputs, Processor, To};
use countersign_testkit::model::{Isolation, ModelConfig, ModelKafka};
use tokio::task::JoinHandle;

use wait::until;

/// How long a message takes, and how long it is waited for.
const TAKES: Duration = Duration::from_secs(40);
const DRAIN: Duration = Duration::from_secs(3);

/// Who has begun which message, in order.
type Begun = Arc<Mutex<Vec<(u64, u32)>>>;

struct Member {
    handle: Handle,
    run: JoinHandle<Result<(), RunError>>,
}

fn start(kafka: &ModelKafka, number: u64, begun: &Begun) -> Member {
    let mut config = driven::config("in");
    config.instance = format!("i{number}");
    config.drain = DRAIN;
    let begun = Arc::clone(begun);
    let handler = each(move |message: Message| {
        let partition = message.partition().partition;
        begun.lock().expect("no handler panics").push((number, partition));
        async move {
            tokio::time::sleep(TAKES).await;
            Ok(Outputs::one(To::topic("out").partition(partition).value("done")))
        }
    });
    let processor = Processor::builder().config(config).handler(handler).build();
    let processor = processor.expect("the settings fit each other");
    let handle = processor.handle();
    Member { handle, run: driven::start_as(kafka, "in", processor, number << 40) }
}

fn kafka() -> ModelKafka {
    let kafka = ModelKafka::new(ModelConfig::default());
    kafka.create_topic("in", 2);
    kafka.create_topic("out", 2);
    for partition in 0..2 {
        kafka.append("in", partition, None, b"slow");
    }
    kafka
}

fn begun_by(begun: &Begun, number: u64) -> usize {
    begun.lock().expect("no handler panics").iter().filter(|(by, _)| *by == number).count()
}

fn outputs(kafka: &ModelKafka) -> [usize; 2] {
    [0, 1].map(|partition| kafka.records("out", partition, Isolation::ReadCommitted).len())
}

/// The most takeovers that a commit tells of.
fn takeovers(kafka: &ModelKafka) -> u32 {
    let history = |partition| kafka.commit_history("in", &TopicPartition::new("in", partition));
    let commits = (0..2).flat_map(history).filter_map(|record| record.committed);
    let told = commits.map(|committed| {
        let bytes = disarm(&committed.metadata).expect("it is ours");
        CommitMetadata::decode(committed.offset, &bytes).expect("it can be read").takeovers
    });
    told.max().expect("there are commits")
}

#[tokio::test(start_paused = true)]
async fn members_that_come_and_go_while_messages_are_slow_are_not_taken_for_dead() {
    let (kafka, begun) = (kafka(), Begun::default());
    let first = start(&kafka, 1, &begun);
    until("the first handles both", || begun_by(&begun, 1) == 2).await;
    for number in 2..10 {
        let before = begun_by(&begun, 1);
        let member = start(&kafka, number, &begun);
        until("one is given to the other", || begun_by(&begun, number) == 1).await;
        member.handle.shut_down();
        member.run.await.expect("it does not panic").expect("it ends well");
        until("it is given back", || begun_by(&begun, 1) == before + 1).await;
    }
    until("both are done", || outputs(&kafka) == [1, 1]).await;
    assert_eq!(takeovers(&kafka), 0);
    first.run.abort();
}

#[tokio::test(start_paused = true)]
async fn a_member_that_is_killed_while_it_gives_a_message_back_is_dead() {
    let (kafka, begun) = (kafka(), Begun::default());
    let first = start(&kafka, 1, &begun);
    until("the first handles both", || begun_by(&begun, 1) == 2).await;
    first.handle.shut_down();
    tokio::time::sleep(DRAIN / 2).await;
    first.run.abort();
    let second = start(&kafka, 2, &begun);
    until("the second takes both up", || begun_by(&begun, 2) == 2).await;
    assert_eq!(takeovers(&kafka), 1);
    second.run.abort();
}
