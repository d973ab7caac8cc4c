//! A process that is asked to end does so in good order, and the next one goes on.

use crate::support::{Copying, PATIENCE};

const TOTAL: u64 = 40_000;

#[test]
fn end_in_the_middle_and_next_start_are_exact() {
    let copying = Copying::new("sigterm");
    copying.load(TOTAL);
    let process = copying.start("a", &["--max-transaction-records", "100", "--memory", "1MiB"]);
    copying.wait_committed(TOTAL / 8, PATIENCE);
    process.terminate();
    let committed = copying.committed();
    assert!(committed < TOTAL, "it was asked too late");
    assert_eq!(copying.uncommitted(), 0, "outputs of aborted or open transactions");
    copying.start("a", &["--until-caught-up"]).done();
    assert_eq!(copying.committed(), TOTAL);
    copying.assert_exact(TOTAL);
}
