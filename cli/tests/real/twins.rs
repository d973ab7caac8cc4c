//! Two processes with one name: the older one gives way.

use crate::support::{Copying, PATIENCE, Process};

fn assert_fenced(older: &mut Process) {
    assert_eq!(older.end(PATIENCE), Some(5), "{}", older.stderr());
    let said = older.stderr();
    let error = said.lines().find(|line| line.starts_with("error: ")).unwrap();
    assert!(error.contains("fenced") && error.contains("twin-0"), "{error}");
    assert!(error.contains("--instance"), "{error}");
}

#[test]
fn the_older_of_two_with_one_name_ends_with_5() {
    let copying = Copying::new("twins");
    copying.load(60_000);
    let small = ["--max-transaction-records", "50"];
    let mut older = copying.start_in("older", "twin", &small);
    copying.wait_committed(5_000, PATIENCE);
    // One that ends at once would leave the group to the older one again.
    let newer = copying.start_in("newer", "twin", &[]);
    assert_fenced(&mut older);
    copying.wait_committed(60_000, PATIENCE);
    newer.terminate();
    copying.assert_exact(60_000);
}

#[test]
fn so_does_one_with_nothing_to_do() {
    let copying = Copying::new("twins-idle");
    copying.load(1_000);
    let mut older = copying.start_in("older", "twin", &[]);
    copying.wait_committed(1_000, PATIENCE);
    let newer = copying.start_in("newer", "twin", &[]);
    assert_fenced(&mut older);
    copying.load(1_000);
    copying.wait_committed(2_000, PATIENCE);
    newer.terminate();
    copying.assert_exact(2_000);
}
