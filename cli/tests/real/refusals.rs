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

fn error_of(said: &str) -> String {
    let line = said.lines().find(|line| line.starts_with("error: "));
    line.unwrap_or_else(|| panic!("no error: {said}")).to_owned()
}

#[test]
fn session_time_outs_outside_of_the_brokers_bounds_end_with_2() {
    let copying = Copying::new("refusals-session");
    // The broker takes half an hour at most.
    let args = ["--session-timeout", "45m", "--max-poll-interval", "1h"];
    let mut process = copying.start("a", &args);
    assert_eq!(process.end(PATIENCE), Some(2), "{}", process.stderr());
    let error = error_of(&process.stderr());
    assert!(error.contains("--session-timeout) is 2700000"), "{error}");
}

#[test]
fn an_assignor_that_the_others_do_not_use_ends_with_2() {
    let copying = Copying::new("refusals-assignor");
    copying.load(10);
    let first = copying.start("a", &["--assignor", "range"]);
    copying.wait_committed(10, PATIENCE);
    let mut second = copying.start("b", &["--assignor", "cooperative-sticky"]);
    assert_eq!(second.end(PATIENCE), Some(2), "{}", second.stderr());
    let error = error_of(&second.stderr());
    let names = error.contains("--assignor") && error.contains("cooperative-sticky");
    assert!(names && error.contains("\"refusals-assignor"), "{error}");
    first.terminate();
}
