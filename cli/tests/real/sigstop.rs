//! A process that stands still for longer than its time-outs is not taken for a twin.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::{Copying, PATIENCE, Process, until};

/// Without lingering, so that outputs are at the broker before their transaction ends.
const SHORT: [&str; 8] = [
    "--transaction-timeout",
    "2s",
    "--session-timeout",
    "3s",
    "--commit-interval",
    "600ms",
    "--linger",
    "1ms",
];

/// So many that their transaction does not end early.
const MANY: u64 = 5_000;

/// Longer than the session's time-out, the transaction's, and the broker's look for the latter.
const STILL: Duration = Duration::from_secs(6);

/// Stops the process in the middle of a transaction that has outputs.
fn stop_in_transaction(copying: &Copying, process: &Process) {
    let aborted = copying.uncommitted();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let before = copying.committed();
        copying.load(MANY);
        let seen =
            || (copying.uncommitted() > aborted || copying.committed() > before).then_some(());
        until("something is done", PATIENCE, seen);
        process.signal(Signal::STOP);
        if copying.uncommitted() > aborted {
            return;
        }
        assert!(Instant::now() < deadline, "no transaction was open at any stop");
        process.signal(Signal::CONT);
    }
}

fn do_some(copying: &Copying) {
    copying.load(1_000);
    copying.wait_committed(copying.loaded(), PATIENCE);
}

fn wait_still(since: Instant) {
    until("it stood still for long", PATIENCE, || (since.elapsed() >= STILL).then_some(()));
}

#[test]
fn alone_it_goes_on() {
    let copying = Copying::new("sigstop-alone");
    let process = copying.start("a", &SHORT);
    do_some(&copying);
    stop_in_transaction(&copying, &process);
    wait_still(Instant::now());
    process.signal(Signal::CONT);
    do_some(&copying);
    process.terminate();
    copying.assert_exact(copying.loaded());
}

#[test]
fn it_goes_on_beside_the_one_that_took_over() {
    let copying = Copying::new("sigstop-taken-over");
    let stopped = copying.start("a", &SHORT);
    do_some(&copying);
    stop_in_transaction(&copying, &stopped);
    let since = Instant::now();
    let other = copying.start("b", &SHORT);
    do_some(&copying);
    wait_still(since);
    stopped.signal(Signal::CONT);
    do_some(&copying);
    // The one that was stopped is a member again: alone, it does all that is left.
    other.terminate();
    do_some(&copying);
    stopped.terminate();
    copying.assert_exact(copying.loaded());
}
