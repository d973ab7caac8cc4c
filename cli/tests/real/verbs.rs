//! Goal: what holds a partition up is unblocked by each verb, through the owner and without one,
//! and it stays done.
//! Method: a handler in the shell that fails, hangs or copies by what the message says; orders by
//! the command; outputs and letters are read by the test kit's reader.

use std::fs;
use std::path::PathBuf;

use countersign::dead_letter::{DeadLetter, LetterDisposition};
use countersign_testkit::reader::{LoadRecord, load};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use serde_json::Value;

use crate::common::{Ended, with};
use crate::support::{Copying, PATIENCE, Process, until};

/// A message that says so fails while there is no file `mended`, or hangs; others are copied.
const HANDLER: &str = r#"
while read -r line; do
    id=${line#'{"id":'}; id=${id%%,*}
    value=${line#*'"value":"'}; value=${value%%'"'*}
    answer="\"outputs\":[{\"value\":\"$value\"}]"
    case $value in
    fails) [ -e "$0.mended" ] || answer='"error":{"message":"not today"}' ;;
    hangs) sleep 1000 ;;
    esac
    echo "{\"id\":$id,$answer}"
done
"#;

/// One partition that is processed in order.
struct Blocked {
    copying: Copying,
    letters: String,
}

impl Blocked {
    fn new(name: &'static str, values: &[&str]) -> Self {
        let copying = Copying::new(name);
        let letters = format!("{name}-dead");
        copying.kafka.create_topic(&letters, 1).unwrap();
        fs::write(copying.dir.path().join("handler.sh"), HANDLER).unwrap();
        let blocked = Self { copying, letters };
        blocked.load(values);
        blocked
    }

    fn load(&self, values: &[&str]) {
        let record = |n: u64| LoadRecord {
            partition: Some(0),
            key: None,
            value: Some(values[usize::try_from(n).unwrap()].as_bytes().to_vec()),
        };
        let bootstrap = self.copying.kafka.bootstrap();
        let total = values.len() as u64;
        load(bootstrap, &self.copying.input(), total, PATIENCE, record, |_| {}).unwrap();
    }

    fn handler(&self) -> PathBuf {
        self.copying.dir.path().join("handler.sh")
    }

    fn mend(&self) {
        fs::write(self.handler().with_extension("sh.mended"), "").unwrap();
    }

    fn start(&self) -> Process {
        self.start_as("a")
    }

    fn start_as(&self, instance: &str) -> Process {
        let command = format!("sh {}", self.handler().display());
        let args = [
            "--handler=exec",
            "--exec",
            &command,
            "--exec-processes=2",
            "--dead-letters",
            &self.letters,
            "--max-attempts=1000000",
            "--retry-base=10m",
            "--retry-max=10m",
            "--commit-interval=20ms",
            "--session-timeout=11s",
        ];
        self.copying.start(instance, &args)
    }

    fn message(&self, offset: u64) -> String {
        format!("{}/0@{offset}", self.copying.input())
    }

    fn order(&self, verb: &str, offset: u64, more: &[&str]) -> Ended {
        let store = self.copying.store("a").display().to_string();
        self.order_with(verb, offset, &[&["--store", &store], more].concat())
    }

    fn order_with(&self, verb: &str, offset: u64, more: &[&str]) -> Ended {
        let message = self.message(offset);
        let all = [verb, &message, "--reason", "it is in the way", "--by", "ann@desk"];
        with(&[&all, more].concat())
    }

    /// The same while the group is empty.
    fn order_alone(&self, verb: &str, offset: u64, more: &[&str]) -> Ended {
        let brokers = ["--brokers", self.copying.kafka.bootstrap()];
        self.order(verb, offset, &[&brokers, more].concat())
    }

    /// In the order of the alphabet: they go to the partitions in turn.
    fn outputs(&self) -> Vec<String> {
        let outputs = self.copying.read(&self.copying.output());
        let text = |value: Option<Vec<u8>>| String::from_utf8(value.unwrap()).unwrap();
        let mut values: Vec<_> = outputs.into_iter().map(|output| text(output.value)).collect();
        values.sort();
        values
    }

    fn dead(&self) -> Vec<DeadLetter> {
        let read = |record: countersign_testkit::reader::OwnedRecord| {
            let headers = record.headers.iter();
            let fields = headers.map(|(n, v)| (n.as_str(), v.as_deref().unwrap_or_default()));
            DeadLetter::read(fields).unwrap()
        };
        self.copying.read(&self.letters).into_iter().map(read).collect()
    }

    fn wait_outputs(&self, expected: &[&str]) {
        let mut expected = expected.to_vec();
        expected.sort_unstable();
        let what = format!("{expected:?} are the outputs");
        until(&what, PATIENCE, || (self.outputs() == expected).then_some(()));
    }

    fn why(&self, offset: u64) -> Value {
        let store = self.copying.store("a").display().to_string();
        let shown = with(&["why", &self.message(offset), "--format=json", "--store", &store]);
        serde_json::from_str(&shown.done().stdout).unwrap()
    }

    /// Who ordered something about a message, and why, is found again.
    fn assert_recorded(&self, offset: u64, detail: &str) {
        let why = self.why(offset);
        assert_eq!(why["known"]["present"]["detail"], detail, "{why:#}");
        let story = why["story"].as_array().unwrap();
        let by = |happened: &&Value| happened["operator"]["by"] == "ann@desk";
        let ordered: Vec<&Value> = story.iter().filter(by).collect();
        assert_eq!(ordered.len(), 1, "{why:#}");
        assert_eq!(ordered[0]["operator"]["reason"], "it is in the way");
    }
}

#[test]
fn the_owner_passes_over_it_and_it_stays_done_after_kill() {
    let it = Blocked::new("verbs-skip", &["one", "fails", "two"]);
    let process = it.start();
    wait_failed(&process);
    let ended = it.order("skip", 1, &["--format=json"]).done();
    process.kill();
    let answer: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!((&answer["done"], &answer["through"]), (&true.into(), &"owner".into()));
    it.assert_recorded(1, "skipped");
    it.load(&["three"]);
    let again = it.start();
    it.wait_outputs(&["one", "two", "three"]);
    it.order("skip", 1, &[]).failed(7, &["done already", "skipped"]);
    it.order("skip", 9, &[]).failed(7, &["not read yet", "4"]);
    let log = again.terminate();
    assert!(!log.contains("not today"), "it was not handled again: {log}");
    assert!(it.dead().is_empty());
}

#[test]
fn the_owner_retries_it_at_once() {
    let it = Blocked::new("verbs-retry", &["one", "fails", "two"]);
    let process = it.start();
    wait_failed(&process);
    it.mend();
    let told = it.order("retry", 1, &[]).done();
    assert!(told.stdout.contains("is due now"), "{told:#?}");
    it.wait_outputs(&["one", "fails", "two"]);
    process.terminate();
    it.assert_recorded(1, "processed");
}

#[test]
fn the_owner_makes_a_dead_letter_of_it() {
    let it = Blocked::new("verbs-letter", &["one", "fails", "two"]);
    let process = it.start();
    wait_failed(&process);
    it.order("dead-letter", 1, &[]).done();
    it.wait_outputs(&["one", "two"]);
    let [letter] = &it.dead()[..] else { panic!("one letter") };
    assert_eq!(letter.disposition, LetterDisposition::Operator);
    assert_eq!((letter.offset, letter.attempts), (1, 1));
    assert_eq!(letter.error, "it is in the way");
    process.terminate();
    it.assert_recorded(1, "dead-lettered");
}

/// There is no deadline: it would hang for ever.
#[test]
fn a_hung_handler_is_cancelled() {
    let it = Blocked::new("verbs-hung", &["one", "hangs", "two"]);
    let process = it.start();
    it.wait_outputs(&["one"]);
    it.order("skip", 1, &[]).done();
    it.wait_outputs(&["one", "two"]);
    process.terminate();
    it.assert_recorded(1, "skipped");
}

#[test]
fn without_an_owner_it_is_passed_over() {
    let it = Blocked::new("verbs-alone", &["one", "fails", "two", "hangs", "three"]);
    let process = it.start();
    wait_failed(&process);
    process.terminate();
    it.wait_empty();
    it.order("skip", 1, &[]).failed(2, &["--brokers"]);
    it.order_alone("skip", 0, &[]).failed(7, &["done already"]);
    it.order_alone("skip", 9, &[]).failed(7, &["not there yet"]);
    let ended = it.order_alone("skip", 1, &["--format=json"]).done();
    let answer: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!((&answer["done"], &answer["through"]), (&true.into(), &"empty-group".into()));
    it.assert_recorded(1, "skipped");
    // Beyond the position, which is 2 now.
    it.order_alone("skip", 3, &[]).done();
    it.order_alone("skip", 3, &[]).failed(7, &["done already"]);
    let process = it.start();
    it.wait_outputs(&["one", "two", "three"]);
    let log = process.terminate();
    assert!(!log.contains("not today"), "it was not handled again: {log}");
}

#[test]
fn without_an_owner_a_dead_letter_is_made_and_a_retry_forgets() {
    let it = Blocked::new("verbs-alone-2", &["one", "fails", "fails"]);
    let process = it.start();
    wait_failed(&process);
    process.terminate();
    it.wait_empty();
    it.order_alone("dead-letter", 1, &[]).failed(2, &["--dead-letters"]);
    it.order_alone("retry", 2, &[]).failed(7, &["no failure is counted"]);
    it.order_alone("retry", 1, &[]).done();
    it.order_alone("retry", 1, &[]).failed(7, &["no failure is counted"]);
    it.order_alone("dead-letter", 1, &["--dead-letters", &it.letters]).done();
    let [letter] = &it.dead()[..] else { panic!("one letter") };
    assert_eq!(letter.disposition, LetterDisposition::Operator);
    assert_eq!(letter.instance, "operator:ann@desk");
    let why = it.why(1);
    assert_eq!(why["known"]["present"]["detail"], "dead-lettered", "{why:#}");
    it.mend();
    let process = it.start();
    it.wait_outputs(&["one", "fails"]);
    process.terminate();
}

/// The transaction that it left open holds the commit until its time-out.
#[test]
fn what_a_killed_owner_left_open_is_waited_for() {
    let it = Blocked::new("verbs-killed", &["one", "fails", "two"]);
    let process = it.start();
    wait_failed(&process);
    process.kill();
    // Its session is not over yet.
    it.order_alone("skip", 1, &[]).failed(8, &["a-0", "127.0.0.1"]);
    it.wait_empty();
    it.order_alone("skip", 1, &[]).done();
    let process = it.start();
    it.wait_outputs(&["one", "two"]);
    process.terminate();
}

#[test]
fn who_is_not_the_owner_names_it() {
    let it = Blocked::new("verbs-elsewhere", &["one", "fails"]);
    let owner = it.start_as("owner");
    wait_failed(&owner);
    // The partitions that it gets are others.
    let process = it.start();
    process.wait_for_line(&["partition taken up"]);
    let stores = ["a", "owner"].map(|name| it.copying.store(name).display().to_string());
    let ask = || {
        let asked = stores.each_ref().map(|store| it.order_with("skip", 1, &["--store", store]));
        // Who was just given the partition has not read the message yet.
        asked.iter().any(|ended| ended.code == Some(0)).then_some(asked)
    };
    let asked = until("the owner does it", PATIENCE, ask);
    let codes = asked.each_ref().map(|ended| ended.code);
    let (done, refused) = if codes[0] == Some(0) { (0, 1) } else { (1, 0) };
    assert_eq!((codes[done], codes[refused]), (Some(0), Some(8)), "{asked:#?}");
    let names = ["a-0", "owner-0"];
    assert!(asked[refused].stderr.contains(names[done]), "{asked:#?}");
    let brokers = ["--brokers", it.copying.kafka.bootstrap(), "--group", it.copying.name];
    it.order_with("skip", 1, &brokers).failed(8, &["the group has members", names[done]]);
    process.terminate();
    owner.terminate();
}

#[test]
fn a_commit_that_another_tool_set_is_left_alone() {
    let it = Blocked::new("verbs-foreign", &["one", "two"]);
    let brokers = ["--brokers", it.copying.kafka.bootstrap(), "--group", it.copying.name];
    it.order_with("skip", 1, &brokers).failed(7, &["no committed offset"]);
    commit_as_another_tool(&it.copying);
    it.order_with("skip", 1, &brokers).failed(7, &["set by another tool"]);
}

fn wait_failed(process: &Process) {
    process.wait_for_line(&["message failed and is tried again"]);
}

fn commit_as_another_tool(copying: &Copying) {
    let tool: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", copying.kafka.bootstrap())
        .set("group.id", copying.name)
        .create()
        .unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(&copying.input(), 0, Offset::Offset(1)).unwrap();
    tool.commit(&list, CommitMode::Sync).unwrap();
}

impl Blocked {
    /// Static members stay in the group until their session is over.
    fn wait_empty(&self) {
        let look = || {
            // A message that is not there: the members are asked for first.
            let ended = self.order_alone("skip", 1_000_000, &[]);
            (ended.code != Some(8)).then_some(())
        };
        until("the group is empty", PATIENCE, look);
    }
}
