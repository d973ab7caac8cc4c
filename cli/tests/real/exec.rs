//! Handlers that are child processes: the README's, and one that does everything wrong.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use countersign_testkit::reader::{LoadRecord, OwnedRecord, load};

use crate::support::{Copying, PATIENCE};

/// Answers as `copy` does, but dies, hangs and writes rubbish when it first sees certain messages.
const UNRULY: &str = r#"
while read -r line; do
    id=${line#'{"id":'}; id=${id%%,*}
    partition=${line#*'"partition":'}; partition=${partition%%,*}
    key=${line#*'"key":"'}; key=${key%%'"'*}
    value=${line#*'"value":"'}; value=${value%%'"'*}
    case $line in
    *'"offset":7,'*'"attempt":1,'*) echo 'it dies' >&2; exit 3 ;;
    *'"offset":8,'*'"attempt":1,'*) kill -9 $$ ;;
    *'"offset":11,'*'"attempt":1,'*) sleep 600 ;;
    *'"offset":13,'*'"attempt":1,'*) echo rubbish; continue ;;
    *'"offset":14,'*'"attempt":1,'*) echo '{"id":0,"outputs":[]}'; continue ;;
    *'"offset":15,'*'"attempt":1,'*) answer='"error":{"message":"not now"}' ;;
    *)
        output="\"partition\":$partition,\"key\":\"$key\",\"value\":\"$value\""
        answer="\"outputs\":[{$output}]"
        ;;
    esac
    echo "{\"id\":$id,$answer}"
done
"#;

fn script(copying: &Copying, text: &str) -> PathBuf {
    let path = copying.dir.path().join("handler.sh");
    fs::write(&path, text).unwrap();
    path
}

type Content<'a> = (u32, Option<&'a [u8]>, Option<&'a [u8]>);

fn contents(records: &[OwnedRecord]) -> Vec<Content<'_>> {
    records.iter().map(|r| (r.partition, r.key.as_deref(), r.value.as_deref())).collect()
}

#[test]
fn children_that_die_hang_and_write_rubbish_only_fail_their_message() {
    let copying = Copying::new("exec-unruly");
    copying.load(400);
    let command = format!("sh {}", script(&copying, UNRULY).display());
    let args = ["--until-caught-up", "--handler", "exec", "--exec", &command];
    let log = copying
        .start("a", &[&args[..], &["--exec-processes", "2", "--deadline", "1s"]].concat())
        .done();
    let (input, output) = (copying.read(&copying.input()), copying.read(&copying.output()));
    assert_eq!(input.len(), 400);
    assert_eq!(contents(&output), contents(&input), "exact, and in order");
    let told = [
        "it dies",
        "exit status: 3",
        "signal: 9",
        "missed its deadline of 1s",
        "not understood",
        "answered message 0",
        "not now",
    ];
    for words in told {
        assert!(log.contains(words), "{words:?} is not in the log:\n{log}");
    }
    let sleeping = Command::new("pgrep").args(["-f", "^sleep 600$"]).output();
    if let Ok(sleeping) = sleeping {
        assert_eq!(String::from_utf8_lossy(&sleeping.stdout), "", "the child's own children");
    }
}

/// Answers after a moment, says more than it should, and leaves a file when its input ends.
const SLOW: &str = r#"
while read -r line; do
    id=${line#'{"id":'}; id=${id%%,*}
    sleep 0.05
    echo "{\"id\":$id,\"outputs\":[{\"value\":\"v\"}]}"
    case $line in *'"offset":3,'*) echo 'one thing more' ;; esac
done
sleep 0.2
echo ended >"$1.$$"
"#;

/// All messages wait for one child at once, most of them for longer than the deadline; and no
/// message has failed in the end.
#[test]
fn children_are_shared_in_peace_and_see_the_end_of_their_input() {
    let copying = Copying::new("exec-shared");
    copying.load(80);
    let ended = copying.dir.path().join("ended");
    let command = format!("sh {} {}", script(&copying, SLOW).display(), ended.display());
    let args = ["--until-caught-up", "--handler", "exec", "--exec", &command];
    let limits = ["--deadline", "1s", "--order", "none", "--max-attempts", "1"];
    copying.start("a", &[&args[..], &limits].concat()).done();
    assert_eq!(copying.read(&copying.output()).len(), 80);
    let files = fs::read_dir(copying.dir.path()).unwrap();
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    assert_eq!(names.filter(|name| name.starts_with("ended.")).count(), 1, "the last child");
}

#[test]
fn the_handler_of_the_readme_makes_invoices() {
    let copying = Copying::new("exec-python");
    let order = |id: u64| LoadRecord {
        partition: None,
        key: None,
        value: Some(format!("{{\"id\": {id}, \"cents\": {}}}", id + 1).into_bytes()),
    };
    let bootstrap = copying.kafka.bootstrap();
    load(bootstrap, &copying.input(), 500, PATIENCE, order, |_| {}).unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/handlers/invoices.py");
    let command = format!("python3 {}", script.display());
    let args = ["--until-caught-up", "--handler", "exec", "--exec", &command];
    copying.start("a", &args).done();
    let mut ids: Vec<u64> = copying
        .read(&copying.output())
        .iter()
        .map(|record| {
            let key = String::from_utf8(record.key.clone().unwrap()).unwrap();
            let value = String::from_utf8(record.value.clone().unwrap()).unwrap();
            assert_eq!(value, format!("{{\"id\": {key}, \"cents\": {}}}", ids_cents(&key)));
            key.parse().unwrap()
        })
        .collect();
    ids.sort_unstable();
    assert_eq!(ids, (0..500).collect::<Vec<_>>());
    // A message that cannot be paid stops the processor, and says why.
    let worthless = |_| LoadRecord {
        partition: Some(0),
        key: None,
        value: Some(br#"{"id": 500, "cents": 0}"#.to_vec()),
    };
    load(bootstrap, &copying.input(), 1, PATIENCE, worthless, |_| {}).unwrap();
    let mut stopped = copying.start("a", &args);
    assert_eq!(stopped.end(Duration::from_secs(60)), Some(6));
    assert!(stopped.stderr().contains("there is nothing to pay"), "{}", stopped.stderr());
}

fn ids_cents(id: &str) -> u64 {
    id.parse::<u64>().unwrap() + 1
}

#[test]
fn a_command_that_cannot_be_started_is_told_at_once() {
    let copying = Copying::new("exec-missing");
    let args = ["--handler", "exec", "--exec", "no-such-command --at all"];
    let mut process = copying.start("a", &args);
    assert_eq!(process.end(PATIENCE), Some(2));
    assert!(process.stderr().contains("no-such-command"), "{}", process.stderr());
}
