//! Goal: a commit that a Countersign wrote and this one cannot read stops the run, and changes
//! nothing: whoever takes it for nothing does completed messages again.
//! Method: the real driver on the model Kafka in virtual time.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod driven;
mod wait;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use countersign::handler::each;
use countersign::kafka::{Committed, TopicPartition};
use countersign::simulation::RunError;
use countersign::{HandlerError, Message, Order, Outputs, Processor, To};
use countersign_testkit::model::{Isolation, ModelKafka};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use wait::until;

const MESSAGES: u32 = 100;

/// What becomes of the text of a commit.
type Damage = fn(&str) -> String;

fn input() -> TopicPartition {
    TopicPartition::new("in", 0)
}

fn outputs(kafka: &ModelKafka) -> usize {
    kafka.records("out", 0, Isolation::ReadCommitted).len()
}

fn start(
    kafka: &ModelKafka,
    instance: &str,
    is_healed: &Arc<AtomicBool>,
) -> JoinHandle<Result<(), RunError>> {
    let mut config = driven::config("in");
    instance.clone_into(&mut config.instance);
    config.order = Order::Key;
    let is_healed = Arc::clone(is_healed);
    let handle = move |message: Message| {
        let fails = message.offset() == 0 && !is_healed.load(Ordering::Relaxed);
        let value = message.record().value().unwrap_or_default().to_vec();
        std::future::ready(if fails {
            Err(HandlerError::retryable("the first one fails"))
        } else {
            Ok(Outputs::one(To::topic("out").value(value)))
        })
    };
    let built = Processor::builder().config(config).handler(each(handle)).build();
    driven::start(kafka, "in", built.expect("the settings fit each other"))
}

/// All messages but the first are done and listed in the metadata, and the owner is gone.
async fn all_but_the_first(is_healed: &Arc<AtomicBool>) -> (ModelKafka, Committed) {
    let kafka = ModelKafka::default();
    kafka.create_topic("in", 1);
    kafka.create_topic("out", 1);
    for n in 0..MESSAGES {
        let key: &[u8] = if n == 0 { b"stuck" } else { b"k" };
        kafka.append("in", 0, Some(key), n.to_string().as_bytes());
    }
    let first = start(&kafka, "a", is_healed);
    until("99 outputs", || outputs(&kafka) == 99).await;
    first.abort();
    let _ = first.await;
    // What it had under way is ended by its time-out.
    until("no transaction is open", || kafka.open_transactions().is_empty()).await;
    let committed = kafka.committed("in", &input()).unwrap();
    assert_eq!((committed.offset, &committed.metadata[..4]), (0, "cs1:"));
    (kafka, committed)
}

#[tokio::test(start_paused = true)]
async fn a_commit_of_ours_that_cannot_be_read_ends_the_run_and_nothing_is_done_twice() {
    let damages: [(&str, Damage); 8] = [
        ("one character more", |text| format!("{text}=")),
        ("one character less", |text| text[..text.len() - 1].to_owned()),
        ("cut in the prefix", |text| text[..3].to_owned()),
        ("nothing but the prefix", |text| text[..4].to_owned()),
        ("not base64", |text| text.replacen("cs1:", "cs1:!", 1)),
        ("the next text form", |text| text.replacen("cs1:", "cs2:", 1)),
        ("a text form far ahead", |text| text.replacen("cs1:", "cs99999999999:", 1)),
        // The first byte is the version of the bytes.
        ("bytes of another version", |text| text.replacen("cs1:A", "cs1:_", 1)),
    ];
    for (what, damage) in damages {
        let is_healed = Arc::new(AtomicBool::new(false));
        let (kafka, committed) = all_but_the_first(&is_healed).await;
        let damaged = Committed { offset: 0, metadata: damage(&committed.metadata) };
        assert_ne!(damaged.metadata, committed.metadata, "{what}");
        kafka.set_committed("in", &input(), damaged.clone());
        is_healed.store(true, Ordering::Relaxed);
        let second = start(&kafka, "b", &is_healed);
        let ended = timeout(Duration::from_secs(120), second).await;
        let error = ended.unwrap_or_else(|_| panic!("{what}: it goes on")).unwrap().unwrap_err();
        assert!(matches!(error, RunError::Position { .. }), "{what}: {error}");
        let text = error.to_string();
        assert!(text.contains("in/0") && text.contains("offset 0"), "{what}: {text}");
        assert_eq!(outputs(&kafka), 99, "{what}");
        assert_eq!(kafka.committed("in", &input()), Some(damaged), "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_text_of_another_tool_is_a_reset_from_outside() {
    for text in ["", "set by hand", "cs:1", "csv1:", "acs1:AA", "CS1:AA"] {
        let is_healed = Arc::new(AtomicBool::new(false));
        let (kafka, _) = all_but_the_first(&is_healed).await;
        let reset = Committed { offset: 98, metadata: text.to_owned() };
        kafka.set_committed("in", &input(), reset);
        is_healed.store(true, Ordering::Relaxed);
        let second = start(&kafka, "b", &is_healed);
        until("the last two once more", || outputs(&kafka) == 101).await;
        second.abort();
    }
}
