//! Messages that fail for good, while processes are killed: each ends once, as its output or as its
//! dead letter, and only those that fail by themselves are given up.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use countersign::dead_letter::{DeadLetter, LetterDisposition};
use countersign_testkit::reader::{LoadRecord, OwnedRecord, load};

use crate::common::with;
use crate::support::{Copying, PATIENCE};

const MESSAGES: u64 = 2_000;

/// What a message does is the last two digits of its number: most are copied.
const HANDLER: &str = r#"
while read -r line; do
    id=${line#'{"id":'}; id=${id%%,*}
    value=${line#*'"value":"'}; value=${value%%'"'*}
    case $value in
    *07) answer='"error":{"kind":"permanent","class":"unreal","message":"not a real order"}' ;;
    *13) answer='"error":{"message":"never works"}' ;;
    *21) exit 9 ;;
    *) answer="\"outputs\":[{\"value\":\"$value\"}]" ;;
    esac
    echo "{\"id\":$id,$answer}"
done
"#;

fn handler(copying: &Copying) -> String {
    let path: PathBuf = copying.dir.path().join("handler.sh");
    fs::write(&path, HANDLER).unwrap();
    format!("sh {}", path.display())
}

fn letter_of(record: &OwnedRecord) -> DeadLetter {
    let headers = record.headers.iter();
    let headers = headers.map(|(n, v)| (n.as_str(), v.as_deref().unwrap_or_default()));
    DeadLetter::read(headers).unwrap()
}

fn number(record: &OwnedRecord) -> u64 {
    String::from_utf8(record.value.clone().unwrap()).unwrap().parse().unwrap()
}

#[test]
fn every_message_ends_once_as_output_or_as_dead_letter() {
    let copying = Copying::new("dead-letters");
    let letters = "dead-letters-dead";
    copying.kafka.create_topic(letters, 2).unwrap();
    let record = |n: u64| LoadRecord {
        partition: None,
        key: Some(format!("k{}", n % 64).into_bytes()),
        value: Some(format!("{n:06}").into_bytes()),
    };
    let bootstrap = copying.kafka.bootstrap();
    load(bootstrap, &copying.input(), MESSAGES, PATIENCE, record, |_| {}).unwrap();
    let command = handler(&copying);
    let args = [
        "--until-caught-up",
        "--handler=exec",
        "--exec",
        &command,
        "--exec-processes=4",
        "--order=key",
        "--concurrency=4",
        "--dead-letters",
        letters,
        "--max-attempts=3",
        "--retry-base=5ms",
        "--on-many-failures=go-on",
        "--commit-interval=20ms",
    ];
    let (a, b) = (copying.start("a", &args), copying.start("b", &args));
    copying.wait_committed(MESSAGES / 5, PATIENCE);
    a.kill();
    let a = copying.start("a", &args);
    copying.wait_committed(MESSAGES / 2, PATIENCE);
    b.kill();
    // Another store, which knows nothing of what was tried.
    let b = copying.start_in("b2", "b", &args);
    a.done();
    b.done();
    let mut outputs: Vec<u64> = copying.read(&copying.output()).iter().map(number).collect();
    outputs.sort_unstable();
    let dead = copying.read(letters);
    let mut given_up: Vec<u64> = dead.iter().map(number).collect();
    given_up.sort_unstable();
    let fails = |n: &u64| [7, 13, 21].contains(&(n % 100));
    let (bad, good): (Vec<u64>, Vec<u64>) = (0..MESSAGES).partition(fails);
    assert_eq!(outputs, good, "each once");
    assert_eq!(given_up, bad, "each once, and none for a crash that was not its own");
    assert_letters(&copying, &dead);
    assert_listed(&copying, letters, &bad);
}

fn assert_letters(copying: &Copying, dead: &[OwnedRecord]) {
    let input = copying.read(&copying.input());
    let input: BTreeMap<(u32, u64), &OwnedRecord> =
        input.iter().map(|record| ((record.partition, record.offset), record)).collect();
    for record in dead {
        let letter = letter_of(record);
        let original = input[&(letter.partition.partition, letter.offset)];
        assert_eq!((&record.key, &record.value), (&original.key, &original.value));
        assert_eq!((letter.timestamp, record.timestamp), (original.timestamp, original.timestamp));
        assert_eq!(letter.group, copying.name);
        let origin = letter.origin.as_ref().unwrap();
        assert_eq!((&origin.partition, origin.offset), (&letter.partition, letter.offset));
        let (disposition, error) = match number(record) % 100 {
            7 => (LetterDisposition::ClientRejected, "not a real order"),
            13 => (LetterDisposition::MaxDeliveryAttemptsReached, "never works"),
            _ => (LetterDisposition::MaxDeliveryAttemptsReached, "exit status: 9"),
        };
        assert_eq!(letter.disposition, disposition);
        assert!(letter.error.contains(error), "{letter:?}");
        // Who takes over a message that was about to be given up tries it once more.
        let least = if disposition == LetterDisposition::ClientRejected { 1 } else { 3 };
        assert!((least..=least + 2).contains(&letter.attempts), "{letter:?}");
        assert!(letter.first_failed <= letter.last_failed);
    }
}

/// The command line shows the same.
fn assert_listed(copying: &Copying, letters: &str, bad: &[u64]) {
    let bootstrap = copying.kafka.bootstrap();
    let list = |more: &[&str]| {
        let args = ["dead-letters", "list", letters, "--brokers", bootstrap, "--format", "json"];
        with(&[&args[..], more].concat()).done().stdout
    };
    assert_eq!(list(&[]).lines().count(), bad.len());
    assert_eq!(list(&["--disposition", "CLIENT_REJECTED"]).lines().count(), bad.len() / 3);
    assert_eq!(list(&["--error", "never works"]).lines().count(), bad.len() / 3);
    assert_eq!(list(&["--class", "unreal"]).lines().count(), bad.len() / 3);
    assert_eq!(list(&["--class", "error"]).lines().count(), bad.len() / 3 * 2);
    assert_eq!(list(&["--limit", "5"]).lines().count(), 5);
    let first = list(&["--limit", "1"]);
    let (_, place) = first.split_once("\"at\":\"").unwrap();
    let (place, _) = place.split_once('"').unwrap();
    let shown = with(&["dead-letters", "show", place, "--brokers", bootstrap]).done().stdout;
    for words in ["disposition", "class", "reason", "origin", copying.name] {
        assert!(shown.contains(words), "{words:?} is not in {shown}");
    }
}
