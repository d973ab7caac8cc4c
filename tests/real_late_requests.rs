//! What comes late to the coordinator does not touch our next transaction: rows 8, 11, 17 and 18 of
//! the hazard that every loop on librdkafka has. `testkit/tests/proxy.rs` shows how a naive loop
//! goes wrong in the same places.
//!
//! In every test the late request is let go while the next transaction is open, and the broker must
//! refuse it: that is what a renewed producer is for.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(unreachable_pub, dead_code, reason = "the helpers are shared by several programs")]

mod real;

use std::time::Duration;

use countersign_testkit::proxy::{HeldFrame, HoldForm, api_key, contains};
use real::{Copying, PATIENCE, Running, proxy, until};

const INVALID_PRODUCER_EPOCH: i16 = 47;
const PRODUCER_FENCED: i16 = 90;

/// A processor that has committed something, so that its partition is taken up.
fn warm(copying: &Copying) -> Running {
    let running = copying.start();
    copying.load(5);
    copying.wait_done();
    running
}

fn hold(copying: &Copying, key: i16, form: HoldForm) -> HeldFrame {
    proxy().hold_next_matching(key, form, contains(copying.id()))
}

/// Lets a late request go, which the broker must refuse.
#[track_caller]
fn release(late: HeldFrame) {
    let request = late.wait_held(PATIENCE).unwrap();
    let response = late.release(PATIENCE).unwrap();
    let error_at = match (request.api_key(), request.api_version()) {
        // Correlation id, throttle time, error code.
        (Some(api_key::END_TXN), Some(1)) => 8,
        // At its end are the error code of the only partition and three empty lists of tags.
        (Some(api_key::TXN_OFFSET_COMMIT), Some(3)) => response.bytes().len() - 5,
        other => panic!("a request of another version: {other:?}"),
    };
    let error = response.i16_at(error_at);
    let refused = [Some(INVALID_PRODUCER_EPOCH), Some(PRODUCER_FENCED)];
    assert!(refused.contains(&error), "the late request was not refused: {error:?} {response:?}");
}

/// Row 8: the commit of transaction 1 comes late, when transaction 2 has written its outputs, and
/// the process dies.
fn late_commit(name: &'static str, form: HoldForm) {
    let copying = Copying::new(name, |_| {});
    let running = warm(&copying);
    let late = hold(&copying, api_key::END_TXN, form);
    copying.load(5);
    late.wait_held(PATIENCE).unwrap();
    copying.wait_done();

    let offsets = hold(&copying, api_key::TXN_OFFSET_COMMIT, HoldForm::KeepOpen);
    copying.load(5);
    offsets.wait_held(PATIENCE).unwrap();
    assert_eq!(copying.written(), 15, "the outputs of transaction 2 are written");
    assert!(running.status().counts.renewed > 0);
    release(late);
    running.abort();
    let next = copying.start();
    copying.wait_done();
    next.shut_down();
    drop(offsets);
    copying.assert_exact();
}

/// Row 11: the abort of transaction 1 comes late, when transaction 2 has written its outputs.
fn late_abort(name: &'static str, form: HoldForm) {
    // So that the attempt of the refused message is not committed before its output.
    let copying = Copying::new(name, |config| config.commit_interval = Duration::from_secs(3));
    let running = warm(&copying);
    let refused = copying.next();
    let late = hold(&copying, api_key::END_TXN, form);
    copying.refuse_next();
    copying.load(5);
    late.wait_held(PATIENCE).unwrap();

    let offsets = hold(&copying, api_key::TXN_OFFSET_COMMIT, HoldForm::KeepOpen);
    offsets.wait_held(PATIENCE).unwrap();
    assert!(copying.has_written(&refused), "the outputs of transaction 2 are written");
    assert!(running.status().counts.aborted > 0);
    release(late);
    drop(offsets);
    copying.wait_done();
    running.shut_down();
    copying.assert_exact();
}

/// Row 17: the offsets of transaction 1, which was committed, come late, when transaction 2 has
/// sent its own.
fn late_offsets(name: &'static str, form: HoldForm) {
    let copying = Copying::new(name, |_| {});
    let running = warm(&copying);
    let late = hold(&copying, api_key::TXN_OFFSET_COMMIT, form);
    copying.load(5);
    late.wait_held(PATIENCE).unwrap();
    copying.wait_done();

    let end = hold(&copying, api_key::END_TXN, HoldForm::KeepOpen);
    copying.load(5);
    end.wait_held(PATIENCE).unwrap();
    release(late);
    drop(end);
    copying.wait_done();
    running.shut_down();
    copying.assert_exact();
}

/// Row 18: the offsets of transaction 1, which came to nothing, come late, when transaction 2 has
/// sent its own. A naive loop aborts of itself; ours when the offsets are not answered in time.
fn late_offsets_of_an_abort(name: &'static str, form: HoldForm) {
    let copying = Copying::new(name, |config| config.cluster.transaction_timeout_ms = 3_000);
    let running = warm(&copying);
    let holds = (0..30).map(|_| hold(&copying, api_key::TXN_OFFSET_COMMIT, form));
    let mut late: Vec<HeldFrame> = holds.collect();
    copying.load(5);
    until("transaction 1 came to nothing", || running.status().counts.aborted > 0);
    let end = hold(&copying, api_key::END_TXN, HoldForm::KeepOpen);
    late.retain(|late| late.wait_held(Duration::ZERO).is_ok());
    assert!(!late.is_empty());
    end.wait_held(PATIENCE).unwrap();
    late.into_iter().for_each(release);
    drop(end);
    copying.wait_done();
    running.shut_down();
    copying.assert_exact();
}

#[test]
fn row_8_late_commit_after_a_time_out() {
    late_commit("row-8-a", HoldForm::KeepOpen);
}

#[test]
fn row_8_late_commit_after_a_disconnect() {
    late_commit("row-8-b", HoldForm::Close);
}

#[test]
fn row_11_late_abort_after_a_time_out() {
    late_abort("row-11-a", HoldForm::KeepOpen);
}

#[test]
fn row_11_late_abort_after_a_disconnect() {
    late_abort("row-11-b", HoldForm::Close);
}

#[test]
fn row_17_late_offsets_after_a_time_out() {
    late_offsets("row-17-a", HoldForm::KeepOpen);
}

#[test]
fn row_17_late_offsets_after_a_disconnect() {
    late_offsets("row-17-b", HoldForm::Close);
}

#[test]
fn row_18_late_offsets_of_an_abort_after_a_time_out() {
    late_offsets_of_an_abort("row-18-a", HoldForm::KeepOpen);
}

#[test]
fn row_18_late_offsets_of_an_abort_after_a_disconnect() {
    late_offsets_of_an_abort("row-18-b", HoldForm::Close);
}
