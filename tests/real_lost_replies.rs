//! The replies to a commit are lost, however often it is repeated: the transaction is in doubt
//! until the group's commits tell what became of it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(unreachable_pub, dead_code, reason = "the helpers are shared by several programs")]

mod real;

use countersign::Config;
use countersign_testkit::proxy::{HoldForm, api_key, contains};
use real::{Copying, proxy, until};

/// More often than a request is repeated until the call gives up.
const REPETITIONS_MAX: u32 = 500;

fn short(config: &mut Config) {
    config.cluster.transaction_timeout_ms = 2_000;
    // So that all is loaded before the first transaction ends.
    config.commit_interval = std::time::Duration::from_millis(600);
}

fn short_with_two_slots(config: &mut Config) {
    short(config);
    config.pipelined = true;
}

/// `arrives` says whether the broker executed the commit.
fn in_doubt(name: &'static str, change: fn(&mut Config), arrives: bool) {
    let copying = Copying::new(name, change);
    let running = copying.start();
    copying.load(5);
    copying.wait_done();
    let before = copying.committed();
    let ours = || contains(format!("{name}-i-0-"));
    // The client repeats the request until its deadline.
    let mut dropped = Vec::new();
    let mut held = Vec::new();
    for _ in 0..REPETITIONS_MAX {
        if arrives {
            dropped.push(proxy().drop_response_matching(api_key::END_TXN, ours()));
        } else {
            held.push(proxy().hold_next_matching(api_key::END_TXN, HoldForm::Close, ours()));
        }
    }
    copying.load(50);
    until("a transaction is in doubt", || running.status().counts.in_doubt > 0);
    drop((dropped, held));
    if arrives {
        assert!(copying.committed() > before, "the broker executed it");
    }
    copying.wait_done();
    let counts = running.status().counts;
    running.shut_down();
    copying.assert_exact();
    assert_eq!(arrives, counts.aborted == 0, "the verdict: {counts:?}");
}

#[test]
fn committed_with_one_slot() {
    in_doubt("doubt-committed-1", short, true);
}

#[test]
fn committed_with_two_slots() {
    in_doubt("doubt-committed-2", short_with_two_slots, true);
}

#[test]
fn not_committed_with_one_slot() {
    in_doubt("doubt-not-committed-1", short, false);
}

#[test]
fn not_committed_with_two_slots() {
    in_doubt("doubt-not-committed-2", short_with_two_slots, false);
}
