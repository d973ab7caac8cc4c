//! Goal: what can go wrong without a broker ends with its own exit code and one line that helps.
//! Method: the binary is run; ports and directories are those of the test.

mod common;

use std::net::TcpListener;
use std::time::{Duration, Instant};

use common::{ended, file, with};
use countersign::store::{Damage, open_sled};

const COMPLETE: [&str; 9] =
    ["run", "--brokers", "127.0.0.1:1", "--group", "g", "--input", "in", "--output", "out"];

fn run(args: &[&str]) -> common::Ended {
    ended(common::countersign().args(COMPLETE).args(args))
}

#[test]
fn wrong_usage_ends_with_2() {
    let cases: [(&[&str], &str); 7] = [
        (&["run", "--no-such-flag"], "--no-such-flag"),
        (&["run", "--handler", "paste"], "paste"),
        (&["run", "--commit-interval", "100"], "unit"),
        (&["run", "--memory", "much"], "48MiB"),
        (&["run", "-X", "fetch.min.bytes"], "SETTING=VALUE"),
        (&["why", "orders/3", "--store", "s"], "TOPIC/PARTITION@OFFSET"),
        (&["why", "orders/three@1", "--store", "s"], "TOPIC/PARTITION@OFFSET"),
    ];
    for (args, word) in cases {
        with(args).failed(2, &[word]);
    }
    assert_eq!(with(&["why", "orders/3@1"]).code, Some(2), "--store is needed");
    assert_eq!(with(&[]).code, Some(2), "a verb is needed");
}

#[test]
fn an_order_that_cannot_be_given_ends_with_2() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("s").display().to_string();
    let reason = ["--reason", "it is in the way"];
    for verb in ["skip", "retry", "dead-letter"] {
        assert_eq!(with(&[verb, "orders/3@1", "--store", &store]).code, Some(2), "why?");
        let said = |more: &[&str]| with(&[&[verb, "orders/3@1"], &reason[..], more].concat());
        said(&[]).failed(2, &["--store", "--brokers"]);
        said(&["--store", &store]).failed(2, &["no processor runs", &store, "--brokers"]);
        said(&["--brokers", "127.0.0.1:1"]).failed(2, &["--group"]);
    }
    with(&["skip", "orders/3", "--reason", "x"]).failed(2, &["TOPIC/PARTITION@OFFSET"]);
    with(&["skip", "orders/3@1", "--reason", " "]).failed(2, &["reason is empty"]);
    // Nobody listens on a path that is too long, and nothing tells whether somebody would.
    let long = dir.path().join("x".repeat(120)).display().to_string();
    let with_long = ["skip", "orders/3@1", "--reason", "x", "--store", &long];
    with(&with_long).failed(2, &["too long for a socket"]);
}

#[test]
fn everything_that_is_missing_is_named_at_once() {
    let all = ["--brokers", "--group", "--input", "--output", "--store", "--config"];
    with(&["run"]).failed(2, &all);
    run(&[]).failed(2, &["missing: --store;"]);
}

#[test]
fn settings_that_cannot_be_used_are_named_as_they_were_given() {
    let cases: [(&[&str], &[&str]); 9] = [
        (&["-X", "linger.ms=6"], &["-X linger.ms=6", "use --linger"]),
        (&["--linger", "1m"], &["--linger", "transaction_timeout_ms"]),
        (&["-X", "enable.auto.commit=true"], &["-X enable.auto.commit=true", "transaction"]),
        (&["-X", "no.such.setting=1"], &["-X no.such.setting"]),
        (&["--workers", "0"], &["--workers", "at least 1"]),
        (&["--max-transaction-records", "0"], &["--max-transaction-records"]),
        (&["--commit-interval", "1m"], &["--commit-interval"]),
        (&["--transaction-timeout", "1ms"], &["--transaction-timeout"]),
        (&["--instance", "a b"], &["--instance", "a b"]),
    ];
    for (args, words) in cases {
        run(&[args, &["--store", "s"]].concat()).failed(2, words);
    }
    let same = ["--brokers", "b:1", "--group", "g", "--input", "in", "--output", "in"];
    with(&[&["run", "--store", "s"], &same[..]].concat()).failed(2, &["--output \"in\""]);
}

#[test]
fn a_file_is_read_and_its_mistakes_are_named_with_their_line() {
    let dir = tempfile::tempdir().unwrap();
    let cases: [(&str, &[&str]); 5] = [
        ("group = 'g'\nno-such-key = 1\n", &["line 2", "no-such-key"]),
        ("commit-interval = '100'\n", &["line 1", "unit"]),
        ("config = 'other.toml'\n", &["config"]),
        ("[librdkafka]\n'ssl.ca.location' = [1]\n", &["ssl.ca.location"]),
        ("[librdkafka]\nenable.auto.commit = true\n", &["-X enable.auto.commit=true"]),
    ];
    for (text, words) in cases {
        let path = file(dir.path(), "countersign.toml", text);
        run(&["--store", "s", "--config", &path]).failed(2, words);
    }
    run(&["--config", "no/such/file.toml"]).failed(2, &["no/such/file.toml"]);
}

#[test]
fn a_password_in_the_file_is_not_shown() {
    let dir = tempfile::tempdir().unwrap();
    let text = "[librdkafka]\nsasl.password = 'hunter2' x\n";
    let path = file(dir.path(), "countersign.toml", text);
    let ended = run(&["--store", "s", "--config", &path]);
    ended.failed(2, &["line 2"]);
    assert!(!ended.stderr.contains("hunter2"), "{ended:#?}");
}

/// Which setting counts is seen in which one is refused.
#[test]
fn flags_win_over_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let text =
        "store = 's'\nworkers = 0\ncompression = 'zstd'\n[librdkafka]\nfetch.min.bytes = 'few'\n";
    let path = file(dir.path(), "countersign.toml", text);
    run(&["--config", &path]).failed(2, &["-X fetch.min.bytes"]);
    run(&["--config", &path, "-X", "fetch.min.bytes=6"]).failed(2, &["--workers"]);
    let instance = ["--instance", "a b"];
    let flags = [&["--config", &path, "-X", "fetch.min.bytes=6", "--workers", "1"], &instance[..]];
    run(&flags.concat()).failed(2, &["--instance"]);
}

#[test]
fn no_broker_ends_with_3_within_the_time_given() {
    let dir = tempfile::tempdir().unwrap();
    // The port is ours, and nobody listens once it is dropped.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (brokers, store) = (format!("127.0.0.1:{port}"), dir.path().join("s"));
    let mut run = common::countersign();
    run.args(["run", "--brokers", &brokers, "--group", "g", "--input", "in", "--output", "out"]);
    run.args(["--connect-timeout", "2s", "--store"]).arg(&store);
    let started = Instant::now();
    ended(&mut run).failed(3, &[&brokers, "check the address"]);
    let waited = started.elapsed();
    assert!(waited >= Duration::from_secs(2) && waited < Duration::from_secs(4), "{waited:?}");
    assert!(!store.exists(), "a store was made before the cluster was known");
    // The same, for programs: every line is JSON, the last one with the code.
    let json = ended(run.args(["--log-format", "json"]));
    assert_eq!(json.code, Some(3), "{json:#?}");
    let lines: Vec<serde_json::Value> =
        json.stderr.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.last().unwrap()["exit_code"], 3, "{json:#?}");
}

#[test]
fn stores_that_cannot_be_looked_at_end_with_4() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("missing").display().to_string();
    for args in [&["state"][..], &["why", "orders/3@1"]] {
        with(&[args, &["--store", &missing]].concat()).failed(4, &[&missing, "no store"]);
    }
    assert!(!dir.path().join("missing").exists(), "looking at it made it");
    let path = file(dir.path(), "notes.txt", "mine");
    with(&["state", "--store", &path]).failed(4, &[&path, "not a store"]);
    let locked = dir.path().join("locked");
    let _held = open_sled(&locked, Damage::Refuse).unwrap();
    let locked = locked.display().to_string();
    with(&["state", "--store", &locked]).failed(4, &[&locked, "running processor"]);
}
