//! The broker is killed in the middle and stays away for a while: the run waits and goes on.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use countersign_testkit::broker::LocalKafka;
use rustix::process::Signal;

use crate::support::{Copying, PATIENCE, until};

const TOTAL: u64 = 40_000;

const AWAY: Duration = Duration::from_secs(20);

/// Of its own: the other tests need theirs.
static KAFKA: LazyLock<LocalKafka> = LazyLock::new(|| LocalKafka::start().unwrap());

#[test]
fn run_goes_on_by_itself_when_the_broker_is_back() {
    let copying = Copying::on(&KAFKA, "broker-loss");
    copying.load(TOTAL);
    // A single attempt: the loss may not use it up.
    let args = ["--max-transaction-records", "100", "--max-attempts", "1"];
    let process = copying.start("a", &args);
    copying.wait_committed(TOTAL / 8, PATIENCE);
    KAFKA.kill().unwrap();
    let killed = Instant::now();
    process.wait_for_line(&["connection", "degraded"]);
    let degraded = killed.elapsed();
    let used = process.cpu_time();
    until("the broker is away for long", PATIENCE, || (killed.elapsed() >= AWAY).then_some(()));
    let used = process.cpu_time().saturating_sub(used);
    eprintln!("degraded after {degraded:?}; {used:?} of processor time in {AWAY:?}");
    assert!(used < AWAY / 10, "a busy loop: {used:?} of processor time in {AWAY:?}");

    let log = process.stderr();
    let last = log.lines().rfind(|line| line.contains("connection worker")).unwrap();
    assert!(last.contains("degraded"), "not shown as degraded any more: {log}");

    let before = log.len();
    // A broker that is alone and has just begun may end the transaction that was open without
    // markers, and its offsets stay pending for ever: nothing may ask it to before it is ready.
    process.signal(Signal::STOP);
    KAFKA.restart().unwrap();
    process.signal(Signal::CONT);
    let back = Instant::now();
    until("connected again", PATIENCE, || {
        process.stderr()[before..].contains("state=\"connected\"").then_some(())
    });
    assert!(copying.committed() < TOTAL, "it was killed too late");
    copying.wait_committed(TOTAL, PATIENCE);
    eprintln!("all done {:?} after the broker was back", back.elapsed());
    process.terminate();
    copying.assert_exact(TOTAL);
}
