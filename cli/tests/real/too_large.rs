//! Outputs that are larger than their topic takes: each is the failure of its own message, known
//! before anything is sent, and its neighbours do not notice.

use countersign_testkit::reader::{LoadRecord, OwnedRecord, load};

use crate::support::{Copying, PATIENCE, Process};

const LIMIT: &str = "10000";

/// Of every hundred messages one, and their number.
fn is_large(n: u64) -> bool {
    n % 100 == 42
}

fn add(copying: &Copying, from: u64, total: u64) {
    let record = |index: u64| {
        let n = from + index;
        let len = if is_large(n) { 20_000 } else { 500 };
        LoadRecord {
            partition: None,
            key: Some(format!("k{}", n % 64).into_bytes()),
            value: Some(format!("{n:0len$}").into_bytes()),
        }
    };
    load(copying.kafka.bootstrap(), &copying.input(), total, PATIENCE, record, |_| {}).unwrap();
}

fn numbers(records: &[OwnedRecord]) -> Vec<u64> {
    let number = |record: &OwnedRecord| {
        String::from_utf8(record.value.clone().unwrap()).unwrap().parse().unwrap()
    };
    let mut numbers: Vec<u64> = records.iter().map(number).collect();
    numbers.sort_unstable();
    numbers
}

fn shrink(copying: &Copying, topic: &str) {
    copying.kafka.alter_topic(topic, &[("max.message.bytes", LIMIT)]).unwrap();
}

/// A topic for dead letters, and how to use it.
fn letters(copying: &Copying) -> (String, [String; 3]) {
    let topic = format!("{}-dead", copying.name);
    copying.kafka.create_topic(&topic, 2).unwrap();
    let args = ["--dead-letters", &topic, "--retry-base=5ms"].map(ToOwned::to_owned);
    (topic, args)
}

fn aborts(log: &str) -> usize {
    log.lines().filter(|line| line.contains("transaction aborted")).count()
}

#[test]
fn a_too_large_output_among_good_ones_is_one_dead_letter_and_aborts_nothing() {
    let copying = Copying::new("too-large");
    let (dead, args) = letters(&copying);
    shrink(&copying, &copying.output());
    add(&copying, 0, 3_000);
    let args = [&["--until-caught-up"], &args.each_ref().map(String::as_str)[..]].concat();
    let log = copying.start("a", &args).done();
    let (large, small): (Vec<u64>, Vec<u64>) = (0..3_000).partition(|n| is_large(*n));
    assert_eq!(numbers(&copying.read(&copying.output())), small);
    assert_eq!(numbers(&copying.read(&dead)), large);
    let ended = log.lines().find(|line| line.contains("ended")).unwrap();
    assert!(ended.contains("aborted=0"), "{ended}");
    assert_eq!(aborts(&log), 0, "{log}");
}

/// The first batch that is refused tells that the limit has changed.
#[test]
fn a_limit_that_is_lowered_at_run_time_is_learned() {
    let copying = Copying::new("lowered");
    let (dead, args) = letters(&copying);
    let a = copying.start("a", &args.each_ref().map(String::as_str));
    add(&copying, 0, 500);
    copying.wait_committed(500, PATIENCE);
    shrink(&copying, &copying.output());
    add(&copying, 500, 500);
    copying.wait_committed(1_000, PATIENCE);
    a.wait_for_line(&["producer renewed", "the largest batch"]);
    let refused = aborts(&a.stderr());
    assert!(refused > 0, "{}", a.stderr());
    add(&copying, 1_000, 2_000);
    copying.wait_committed(3_000, PATIENCE);
    let log = a.terminate();
    assert_eq!(aborts(&log), refused, "it knows the limit now: {log}");
    let (large, small): (Vec<u64>, Vec<u64>) = (0..3_000).partition(|n| *n >= 500 && is_large(*n));
    assert_eq!(numbers(&copying.read(&copying.output())), small);
    assert_eq!(numbers(&copying.read(&dead)), large);
}

/// There is nowhere left to put its message, and nothing passes it.
#[test]
fn a_dead_letter_that_is_too_large_stops_the_processor_before_it_is_sent() {
    let copying = Copying::new("too-large-letter");
    let (dead, args) = letters(&copying);
    shrink(&copying, &copying.output());
    shrink(&copying, &dead);
    add(&copying, 0, 100);
    let mut a: Process = copying.start("a", &args.each_ref().map(String::as_str));
    assert_eq!(a.end(PATIENCE), Some(6), "{}", a.stderr());
    let log = a.stderr();
    let words = ["its dead letter is", "larger than the 10000", "raise that", "as a record batch"];
    for words in words {
        assert!(log.contains(words), "{words:?} is not in {log}");
    }
    assert_eq!(aborts(&log), 0, "{log}");
    assert!(copying.committed() < 100);
    assert_eq!(copying.read(&dead).len(), 0);
}
