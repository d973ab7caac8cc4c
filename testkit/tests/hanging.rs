//! Goal: a call of a client that never returns, or returns long after its time-out, stops nothing
//! for longer than it takes to notice, and no end of the process waits for it; a loop that panics
//! ends the run with its name.
//! Method: the real driver on the model Kafka in virtual time; one call hangs.

mod driven;
mod wait;

use std::time::Duration;

use countersign::handler::each;
use countersign::simulation::RunError;
use countersign::{Connection, Handle, LoopState, Message, Outputs, Processor, To};
use countersign_testkit::model::{Call, Fault, Isolation, ModelKafka, SIMULATED_PANIC};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use wait::until;

const MESSAGES: usize = 400;

const NEVER: Fault = Fault::Hang(Duration::MAX);

/// Much longer than a call is waited for.
const LATE: Fault = Fault::Hang(Duration::from_secs(40));

struct Case {
    kafka: ModelKafka,
    handle: Handle,
    run: JoinHandle<Result<(), RunError>>,
}

impl Case {
    /// Reads what is written over 20 s.
    fn start(kafka: ModelKafka) -> Self {
        kafka.create_topic("in", 1);
        kafka.create_topic("out", 1);
        let handler = each(|message: Message| async move {
            let value = message.record().value().unwrap_or_default().to_vec();
            Ok(Outputs::one(To::topic("out").value(value)))
        });
        let config = driven::config("in");
        let processor = Processor::builder().config(config).handler(handler).build();
        let processor = processor.expect("the settings fit each other");
        let handle = processor.handle();
        let run = driven::start(&kafka, "in", processor);
        let fed = kafka.clone();
        tokio::spawn(async move {
            for n in 0..MESSAGES {
                fed.append("in", 0, None, format!("{n}").as_bytes());
                sleep(Duration::from_millis(50)).await;
            }
        });
        Self { kafka, handle, run }
    }

    fn outputs(&self) -> Vec<String> {
        let records = self.kafka.records("out", 0, Isolation::ReadCommitted);
        let text = |value: Option<bytes::Bytes>| value.unwrap_or_default().to_vec();
        records
            .into_iter()
            .map(|record| String::from_utf8(text(record.value)).expect("a number"))
            .collect()
    }

    fn given_up(&self) -> usize {
        self.handle.status().get().given_up
    }

    /// Everything comes out once and in order, and the end does not wait for what hangs.
    async fn ends_well(self, what: &str) {
        until(what, || self.outputs().len() >= MESSAGES).await;
        let expected: Vec<String> = (0..MESSAGES).map(|n| n.to_string()).collect();
        assert_eq!(self.outputs(), expected, "{what}");
        assert_eq!(self.handle.status().get().connection, Connection::Connected, "{what}");
        self.handle.shut_down();
        let run = timeout(Duration::from_secs(20), self.run).await;
        run.expect(what).expect("it does not panic").expect(what);
    }

    async fn error(self) -> RunError {
        let run = timeout(Duration::from_secs(600), self.run).await.expect("it ends");
        run.expect("it does not panic").expect_err("nobody asked it to end")
    }
}

const PRODUCER_CALLS: [Call; 5] =
    [Call::InitProducerId, Call::Flush, Call::AddOffsetsToTxn, Call::TxnOffsetCommit, Call::EndTxn];

#[tokio::test(start_paused = true)]
async fn a_producers_call_that_never_returns_is_given_up_and_nothing_is_lost() {
    for call in PRODUCER_CALLS {
        for after in [0, 1, 20] {
            let what = format!("{call:?} after {after}");
            let case = Case::start(ModelKafka::default());
            if call == Call::InitProducerId && after > 1 {
                // Two are made at the start.
                case.kafka.fault_after(Call::EndTxn, after, Fault::RequestLost);
                case.kafka.fault_after(call, 2, NEVER);
            } else {
                case.kafka.fault_after(call, after, NEVER);
            }
            until(&what, || case.given_up() == 1).await;
            case.ends_well(&what).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_hangs_after_its_request_is_decided_as_any_doubt() {
    let case = Case::start(ModelKafka::default());
    case.kafka.fault_after(Call::EndTxn, 20, Fault::HangAfter);
    until("it is given up", || case.given_up() == 1).await;
    let handle = case.handle.clone();
    case.ends_well("a commit that was executed").await;
    assert_eq!(handle.status().get().counts.in_doubt, 1);
}

#[tokio::test(start_paused = true)]
async fn an_abort_that_never_returns_is_given_up() {
    let case = Case::start(ModelKafka::default());
    sleep(Duration::from_secs(2)).await;
    case.kafka.fault(Call::Produce, Fault::RequestLost);
    case.kafka.fault_after(Call::EndTxn, 1, NEVER);
    until("it is given up", || case.given_up() == 1).await;
    case.ends_well("an abort").await;
}

#[tokio::test(start_paused = true)]
async fn a_call_that_returns_late_changes_nothing_any_more() {
    for call in [Call::Flush, Call::AddOffsetsToTxn, Call::TxnOffsetCommit, Call::EndTxn] {
        let what = format!("{call:?}");
        let case = Case::start(ModelKafka::default());
        case.kafka.fault_after(call, 20, LATE);
        until(&what, || case.given_up() == 1).await;
        until(&what, || case.given_up() == 0).await;
        case.ends_well(&what).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_call_within_its_margin_is_waited_for() {
    let case = Case::start(ModelKafka::default());
    case.kafka.fault_after(Call::TxnOffsetCommit, 20, Fault::Hang(Duration::from_secs(9)));
    let handle = case.handle.clone();
    case.ends_well("9 s are less than 5 s and a margin of 5 s").await;
    assert_eq!(handle.status().get().counts.renewed, 1, "it was suspicious, and not lost");
}

#[tokio::test(start_paused = true)]
async fn a_question_that_never_returns_is_asked_again() {
    for call in [Call::Metadata, Call::OffsetFetch, Call::ListOffsets] {
        let what = format!("{call:?}");
        let case = Case::start(ModelKafka::default());
        case.kafka.fault(call, NEVER);
        until(&what, || case.given_up() == 1).await;
        case.ends_well(&what).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_hangs_is_told_with_its_name_and_call() {
    let case = Case::start(ModelKafka::default());
    case.kafka.fault_after(Call::TxnOffsetCommit, 20, NEVER);
    let mut watch = case.handle.status();
    let degraded = tokio::spawn(async move {
        while watch.changed().await {
            if let Connection::Degraded(why) = watch.get().connection {
                return why;
            }
        }
        "it was never told".to_owned()
    });
    let hangs = |case: &Case| {
        let loops = case.handle.status().get().loops;
        loops.into_iter().find(|it| {
            matches!(it.state, LoopState::Calling { since, .. } if since > Duration::from_secs(6))
        })
    };
    until("it hangs", || hangs(&case).is_some()).await;
    let it = hangs(&case).expect("it was just there");
    assert!(it.name.starts_with("countersign-slot-0-"), "{}", it.name);
    assert!(it.state.to_string().starts_with("in send_offsets_to_transaction"), "{}", it.state);
    case.ends_well("it goes on").await;
    let degraded = degraded.await.expect("it does not panic");
    assert!(degraded.starts_with("send_offsets_to_transaction has not returned"), "{degraded}");
}

#[tokio::test(start_paused = true)]
async fn an_end_that_is_asked_for_does_not_wait_for_what_hangs() {
    for (abort, most) in [(false, 40), (true, 10)] {
        let case = Case::start(ModelKafka::default());
        case.kafka.fault_after(Call::TxnOffsetCommit, 20, NEVER);
        sleep(Duration::from_secs(8)).await;
        let asked = Instant::now();
        if abort {
            case.handle.abort();
        } else {
            case.handle.shut_down();
        }
        let run = timeout(Duration::from_secs(600), case.run).await.expect("it ends");
        let is_good = match run.expect("it does not panic") {
            Ok(()) => !abort,
            Err(error) => abort && matches!(error, RunError::Aborted),
        };
        assert!(is_good, "it ends as it was asked to");
        assert!(asked.elapsed() < Duration::from_secs(most), "it took {:?}", asked.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn too_many_calls_that_never_return_end_the_run() {
    let case = Case::start(ModelKafka::default());
    for _ in 0..20 {
        case.kafka.fault(Call::TxnOffsetCommit, NEVER);
    }
    let error = case.error().await;
    let RunError::Hung { name, call, .. } = &error else { panic!("{error}") };
    assert!(name.starts_with("countersign-slot-0-"), "{name}");
    assert_eq!(*call, "send_offsets_to_transaction");
}

#[tokio::test(start_paused = true)]
async fn a_consumer_that_hangs_ends_the_run() {
    let case = Case::start(ModelKafka::default());
    case.kafka.fault_after(Call::Fetch, 20, NEVER);
    let error = case.error().await;
    let RunError::Hung { name, call, waited } = &error else { panic!("{error}") };
    assert_eq!((name.as_str(), *call), ("countersign-poll-0", "consumer_poll"));
    assert!(*waited < Duration::from_secs(35), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn a_loop_that_panics_ends_the_run_with_its_name() {
    let loops = [
        (Call::InitProducerId, "countersign-slot-0-0"),
        (Call::Flush, "countersign-slot-0-0"),
        (Call::EndTxn, "countersign-slot-0-0"),
        (Call::Fetch, "countersign-poll-0"),
        (Call::Metadata, "countersign-admin"),
        (Call::OffsetFetch, "countersign-admin"),
    ];
    for (call, expected) in loops {
        let case = Case::start(ModelKafka::default());
        case.kafka.fault(call, Fault::Panic);
        let error = case.error().await;
        let RunError::Panicked { name, message } = &error else { panic!("{call:?}: {error}") };
        assert_eq!((name.as_str(), message.as_str()), (expected, SIMULATED_PANIC), "{call:?}");
    }
}
