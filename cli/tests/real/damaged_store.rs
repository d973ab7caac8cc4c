//! The store is the record and not the truth: whatever happens to it, the output is exact.

use std::fs::{self, OpenOptions};
use std::path::Path;
use std::process::Command;

use crate::support::{Copying, PATIENCE};

const TOTAL: u64 = 40_000;

/// Many small transactions, so that the kills are in the middle.
const SMALL: &[&str] = &["--max-transaction-records", "100"];

/// Runs to the middle, is killed, runs again, is killed, and finishes; what happens to the store
/// between the runs is `first` and `second`. Gives what the last run said.
fn run_through(
    name: &'static str,
    first: impl FnOnce(&Path),
    second: impl FnOnce(&Path),
) -> String {
    let copying = Copying::new(name);
    copying.load(TOTAL);
    let store = copying.store("a");
    let process = copying.start("a", SMALL);
    copying.wait_committed(TOTAL / 8, PATIENCE);
    process.kill();
    first(&store);
    let process = copying.start("a", SMALL);
    copying.wait_committed(TOTAL / 4, PATIENCE);
    process.kill();
    assert!(copying.committed() < TOTAL, "it was killed too late");
    second(&store);
    let said = copying.start("a", &["--until-caught-up"]).done();
    assert_eq!(copying.committed(), TOTAL);
    copying.assert_exact(TOTAL);
    said
}

fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-r").arg(from).arg(to).status().unwrap();
    assert!(status.success());
}

#[test]
fn deleted() {
    run_through("store-deleted", |_| {}, |store| fs::remove_dir_all(store).unwrap());
}

#[test]
fn replaced_by_an_old_copy() {
    let save = |store: &Path| copy(store, &store.with_file_name("old"));
    run_through("store-restored", save, |store| {
        fs::remove_dir_all(store).unwrap();
        fs::rename(store.with_file_name("old"), store).unwrap();
    });
}

/// What sled can still read of it, it takes for the whole.
#[test]
fn truncated() {
    run_through(
        "store-truncated",
        |_| {},
        |store| {
            let file = OpenOptions::new().write(true).open(store.join("db")).unwrap();
            let bytes = file.metadata().unwrap().len();
            file.set_len(bytes / 3).unwrap();
        },
    );
}

#[test]
fn overwritten() {
    let said = run_through(
        "store-overwritten",
        |_| {},
        |store| {
            let bytes = fs::metadata(store.join("db")).unwrap().len();
            fs::write(store.join("db"), vec![0xa5; usize::try_from(bytes).unwrap()]).unwrap();
        },
    );
    assert!(said.contains("the store was damaged and is replaced"), "{said}");
    assert!(said.contains("quarantined"), "{said}");
}
