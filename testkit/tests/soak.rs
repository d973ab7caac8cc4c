//! The mixed soak in its short form; `make soak` is the long one.

use std::process::Command;

#[test]
fn every_message_of_a_short_soak_ends_exactly_once() {
    let soak = Command::new(env!("CARGO_BIN_EXE_countersign-soak"))
        .args(["--seconds", "15", "--rate", "2000"])
        .output()
        .expect("it was built with this test");
    let (report, errors) =
        (String::from_utf8_lossy(&soak.stdout), String::from_utf8_lossy(&soak.stderr));
    assert!(soak.status.success(), "{report}{errors}");
    let kills = report.lines().find_map(|line| line.split_once(" kills -9, "));
    let (kills, of_them) = kills.expect("it tells of the kills");
    // Loading takes fifteen seconds and whatever it is behind.
    assert!(kills.parse::<u32>().is_ok_and(|kills| kills >= 4), "{report}");
    assert!(!of_them.starts_with('0'), "none took the store with it: {report}");
    assert!(report.trim_end().ends_with("  exact"), "{report}");
}
