//! A process that stands still for longer than its time-outs is not taken for a twin.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::{Copying, PATIENCE, Process, until};

const SHORT: [&str; 6] =
    ["--transaction-timeout", "2s", "--session-timeout", "3s", "--commit-interval", "600ms"];

/// Longer than the session's time-out, the transaction's, and the broker's look for the latter.
const STILL: Duration = Duration::from_secs(6);

/// Stops the process in the middle of a transaction that has outputs.
fn stop_in_transaction(copying: &Copying, process: &Process, loaded: &mut u64) {
    let aborted = copying.uncommitted();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let before = copying.committed();
        copying.load(1_000);
        *loaded += 1_000;
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

fn wait_still(since: Instant) {
    until("it stood still for long", PATIENCE, || (since.elapsed() >= STILL).then_some(()));
}

#[test]
fn alone_it_goes_on() {
    let copying = Copying::new("sigstop-alone");
    let process = copying.start("a", &SHORT);
    let mut loaded = 1_000;
    copying.load(loaded);
    copying.wait_committed(loaded, PATIENCE);
    stop_in_transaction(&copying, &process, &mut loaded);
    wait_still(Instant::now());
    process.signal(Signal::CONT);
    copying.load(1_000);
    loaded += 1_000;
    copying.wait_committed(loaded, PATIENCE);
    process.terminate();
    copying.assert_exact(loaded);
}

#[test]
fn it_goes_on_beside_the_one_that_took_over() {
    let copying = Copying::new("sigstop-taken-over");
    let stopped = copying.start("a", &SHORT);
    let mut loaded = 1_000;
    copying.load(loaded);
    copying.wait_committed(loaded, PATIENCE);
    stop_in_transaction(&copying, &stopped, &mut loaded);
    let since = Instant::now();
    let other = copying.start("b", &SHORT);
    copying.load(1_000);
    loaded += 1_000;
    copying.wait_committed(loaded, PATIENCE);
    wait_still(since);
    stopped.signal(Signal::CONT);
    copying.load(1_000);
    loaded += 1_000;
    copying.wait_committed(loaded, PATIENCE);
    // The one that was stopped is a member again: alone, it does all that is left.
    other.terminate();
    copying.load(1_000);
    loaded += 1_000;
    copying.wait_committed(loaded, PATIENCE);
    stopped.terminate();
    copying.assert_exact(loaded);
}
