//! What only a broker can refuse ends with its own exit code.

use crate::support::Copying;

#[test]
fn unknown_topics_end_with_2() {
    let copying = Copying::new("refusals");
    let topics = ["--input", "--output"];
    for flag in topics {
        let mut process = copying.start("a", &[flag, "no-such-topic"]);
        assert_eq!(process.end(crate::support::PATIENCE), Some(2), "{}", process.stderr());
        let said = process.stderr();
        let error = said.lines().find(|line| line.starts_with("error: ")).unwrap();
        assert!(error.contains("no-such-topic"), "{error}");
    }
}

#[test]
fn transaction_time_outs_above_the_brokers_end_with_2() {
    let copying = Copying::new("refusals-timeout");
    let args = ["--transaction-timeout", "20m", "--session-timeout", "25m", "--until-caught-up"];
    copying.load(10);
    let mut process = copying.start("a", &args);
    let code = process.end(crate::support::PATIENCE);
    assert_eq!(code, Some(2), "{}", process.stderr());
}
