//! The reply to a commit is lost, and the broker with it: the transaction is in doubt until the
//! group's commits tell what became of it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(unreachable_pub, dead_code, reason = "the helpers are shared by several programs")]

mod real;

use std::sync::{Mutex, PoisonError};

use countersign::Config;
use countersign_testkit::proxy::{HoldForm, api_key, contains};
use real::{Copying, PATIENCE, proxy, until};

/// The tests take the whole proxy away.
static ALONE: Mutex<()> = Mutex::new(());

fn short(config: &mut Config) {
    config.cluster.transaction_timeout_ms = 2_000;
}

fn short_with_two_slots(config: &mut Config) {
    short(config);
    config.pipelined = true;
}

/// `arrives` says whether the broker executed the commit.
fn in_doubt(name: &'static str, change: fn(&mut Config), arrives: bool) {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let copying = Copying::new(name, change);
    let running = copying.start();
    copying.load(5);
    copying.wait_done();
    let ours = || contains(format!("{name}-i-0-"));
    let before = copying.committed();
    if arrives {
        let lost = proxy().drop_response_matching(api_key::END_TXN, ours());
        copying.load(1_000);
        lost.wait_dropped(PATIENCE).unwrap();
    } else {
        let lost = proxy().hold_next_matching(api_key::END_TXN, HoldForm::Close, ours());
        copying.load(1_000);
        lost.wait_held(PATIENCE).unwrap();
    }
    proxy().refuse(true);
    proxy().cut_all();
    until("a transaction is in doubt", || running.status().counts.in_doubt > 0);
    if arrives {
        assert!(copying.committed() > before, "the broker executed it");
    }
    proxy().refuse(false);
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
