//! Two processes with one name: the older one gives way.

use crate::support::{Copying, PATIENCE};

const TOTAL: u64 = 20_000;

#[test]
fn the_older_of_two_with_one_name_ends_with_5() {
    let copying = Copying::new("twins");
    copying.load(TOTAL);
    let small = ["--max-transaction-records", "100"];
    let mut older = copying.start_in("older", "twin", &small);
    copying.wait_committed(TOTAL / 8, PATIENCE);
    let newer = copying.start_in("newer", "twin", &["--until-caught-up"]);
    assert_eq!(older.end(PATIENCE), Some(5), "{}", older.stderr());
    let said = older.stderr();
    let error = said.lines().find(|line| line.starts_with("error: ")).unwrap();
    assert!(error.contains("fenced") && error.contains("twin-0"), "{error}");
    assert!(error.contains("--instance"), "{error}");
    newer.done();
    copying.assert_exact(TOTAL);
}
