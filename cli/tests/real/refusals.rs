//! What only a broker can refuse ends with its own exit code.

use crate::support::{Copying, PATIENCE};

#[test]
fn unknown_topics_end_with_2() {
    let copying = Copying::new("refusals");
    for (flag, input, output) in
        [("--input", "no-such-topic", "refusals-out"), ("--output", "refusals-in", "no-such-topic")]
    {
        let mut process = copying.start_between(input, output);
        assert_eq!(process.end(PATIENCE), Some(2), "{flag}: {}", process.stderr());
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
    let code = process.end(PATIENCE);
    assert_eq!(code, Some(2), "{}", process.stderr());
}
