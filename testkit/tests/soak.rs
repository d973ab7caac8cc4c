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
    assert!(report.contains("4 kills -9, 1 of them with the loss of the store"), "{report}");
    assert!(report.trim_end().ends_with("  exact"), "{report}");
}
