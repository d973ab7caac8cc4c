//! A process that was killed in a transaction goes on quickly: its successor has the same ids.

use std::time::{Duration, Instant};

use crate::support::{Copying, PATIENCE, until};

#[test]
fn first_transaction_is_committed_within_3_s_of_a_restart() {
    let copying = Copying::new("restart");
    copying.load(1_000);
    let first = copying.start("a", &[]);
    copying.wait_committed(1_000, PATIENCE);
    first.kill();
    // Its transactions stay open for long enough to be killed in.
    let slow = copying.start("a", &["--commit-interval", "3s", "--linger", "1ms"]);
    copying.wait_committed(1_000, PATIENCE);
    slow.wait_for_line(&["connected"]);
    let before = copying.uncommitted();
    // So many that the transaction does not end early.
    copying.load(5_000);
    copying.wait_open(before);
    slow.kill();
    assert_eq!(copying.committed(), 1_000, "the transaction was not open any more");

    let started = Instant::now();
    let last = copying.start("a", &[]);
    until("a transaction is committed", PATIENCE, || (copying.committed() > 1_000).then_some(()));
    let took = started.elapsed();
    eprintln!("first transaction {took:?} after the start");
    assert!(took < Duration::from_secs(3), "{took:?}");
    copying.wait_committed(6_000, PATIENCE);
    last.terminate();
    copying.assert_exact(6_000);
}
