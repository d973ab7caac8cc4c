//! What each failed call leaves to do, in full.

use std::time::Duration;

use super::*;

/// A row per call, a column per class of error: young, and older than the time-out.
const TABLE: &str = "\
call        age    retriable abortable fenced fatal  permanent
Open        young  Renew     Renew     Fenced Renew  Refused
Open        old    Renew     Renew     Fenced Renew  Refused
Send        young  Abort     Abort     Fenced Renew  Refused
Send        old    Abort     Abort     Renew  Renew  Refused
Flush       young  Abort     Abort     Fenced Renew  Refused
Flush       old    Abort     Abort     Renew  Renew  Refused
SendOffsets young  Renew     Abort     Fenced Renew  Refused
SendOffsets old    Renew     Abort     Renew  Renew  Refused
Commit      young  Doubt     Abort     Fenced Doubt  Doubt
Commit      old    Doubt     Abort     Doubt  Doubt  Doubt
Abort       young  Renew     Renew     Fenced Renew  Renew
Abort       old    Renew     Renew     Renew  Renew  Renew
";

const CALLS: [Call; 6] =
    [Call::Open, Call::Send, Call::Flush, Call::SendOffsets, Call::Commit, Call::Abort];

const DISPOSITIONS: [Disposition; 5] = [
    Disposition::Retriable,
    Disposition::Abortable,
    Disposition::Fenced,
    Disposition::Fatal,
    Disposition::Permanent,
];

#[test]
fn every_failed_call_leaves_what_the_table_says() {
    let timeout = Duration::from_secs(10);
    let mut rows =
        vec![TABLE.lines().next().unwrap().split_whitespace().collect::<Vec<_>>().join(" ")];
    for call in CALLS {
        for (name, age) in [("young", Duration::from_millis(9_999)), ("old", timeout)] {
            let steps = DISPOSITIONS.map(|it| format!("{:?}", after(call, it, age, timeout)));
            rows.push(format!("{call:?} {name} {}", steps.join(" ")));
        }
    }
    let expected: Vec<String> =
        TABLE.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(rows, expected);
}

#[test]
fn a_commit_or_abort_is_suspicious_from_four_fifths_of_the_backoff_on() {
    let backoff = Duration::from_millis(100);
    for call in [Call::Commit, Call::Abort] {
        assert!(!is_suspicious(call, Duration::from_micros(79_999), backoff));
        assert!(is_suspicious(call, Duration::from_millis(80), backoff));
    }
    assert!(!is_suspicious(Call::SendOffsets, Duration::from_millis(399), backoff));
    assert!(is_suspicious(Call::SendOffsets, Duration::from_millis(400), backoff));
    for call in [Call::Open, Call::Send, Call::Flush] {
        assert!(!is_suspicious(call, Duration::from_secs(60), backoff));
    }
}
