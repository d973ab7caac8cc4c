//! The proxy forwards, and its faults do to a naive transactional loop what `delayed-endtxn.md`
//! says: that shows that the proxy is right, and why the library must do better.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use countersign_testkit::broker::{LocalKafka, LocalKafkaError, LocalKafkaOptions};
use countersign_testkit::proxy::{HoldForm, KafkaProxy, ProxyError, api_key, contains};
use countersign_testkit::reader::{Isolation, LoadRecord, committed_offsets, load, read_all};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

const TIMEOUT: Duration = Duration::from_secs(30);

/// One broker for all tests; every test has topics, a group and a transactional id of its own.
fn shared() -> &'static (LocalKafka, KafkaProxy) {
    static SHARED: OnceLock<Result<(LocalKafka, KafkaProxy), LocalKafkaError>> = OnceLock::new();
    let start = || LocalKafka::start_proxied(&LocalKafkaOptions::default());
    SHARED.get_or_init(start).as_ref().unwrap()
}

/// A loop without any care, as most applications have it.
struct Naive {
    producer: BaseProducer,
    group: BaseConsumer,
    name: &'static str,
}

impl Naive {
    fn start(name: &'static str) -> Self {
        let (kafka, proxy) = shared();
        kafka.create_topic(&format!("{name}-in"), 2).unwrap();
        kafka.create_topic(&format!("{name}-out"), 1).unwrap();
        let producer: BaseProducer = ClientConfig::new()
            .set("bootstrap.servers", proxy.bootstrap())
            .set("transactional.id", name)
            .set("socket.timeout.ms", "1000")
            .set("transaction.timeout.ms", "30000")
            .create()
            .unwrap();
        producer.init_transactions(TIMEOUT).unwrap();
        let group = ClientConfig::new()
            .set("bootstrap.servers", kafka.bootstrap())
            .set("group.id", name)
            .create()
            .unwrap();
        Self { producer, group, name }
    }

    fn begin_with_outputs(&self, value: &str) {
        let topic = format!("{}-out", self.name);
        self.producer.begin_transaction().unwrap();
        for _ in 0..5 {
            self.producer.send(BaseRecord::<(), str>::to(&topic).payload(value)).unwrap();
        }
        self.producer.flush(TIMEOUT).unwrap();
    }

    fn send_offset(&self, offset: i64) {
        self.send_offset_of(0, offset);
    }

    fn send_offset_of(&self, partition: i32, offset: i64) {
        let mut offsets = TopicPartitionList::new();
        let topic = format!("{}-in", self.name);
        offsets.add_partition_offset(&topic, partition, Offset::Offset(offset)).unwrap();
        let group = self.group.group_metadata().unwrap();
        self.producer.send_offsets_to_transaction(&offsets, &group, TIMEOUT).unwrap();
    }

    /// The committed outputs, as value and count, and the group's offset of partition 0.
    fn seen(&self) -> (Vec<(String, usize)>, Option<u64>) {
        let bootstrap = shared().0.bootstrap();
        let topic = format!("{}-out", self.name);
        let mut counts: Vec<(String, usize)> = Vec::new();
        for record in read_all(bootstrap, &topic, Isolation::Committed, TIMEOUT).unwrap() {
            let value = String::from_utf8(record.value.unwrap()).unwrap();
            match counts.iter_mut().find(|(found, _)| *found == value) {
                Some((_, count)) => *count += 1,
                None => counts.push((value, 1)),
            }
        }
        let input = format!("{}-in", self.name);
        let offsets = committed_offsets(bootstrap, self.name, &input, TIMEOUT).unwrap();
        (counts, offsets.get(&0).map(|(offset, _)| *offset))
    }

    /// A commit is answered before its markers are written.
    fn assert_becomes(&self, expected: &(Vec<(String, usize)>, Option<u64>), what: &str) {
        let deadline = Instant::now() + TIMEOUT;
        let mut seen = self.seen();
        while seen != *expected && Instant::now() < deadline {
            seen = self.seen();
        }
        assert_eq!(seen, *expected, "{what}");
    }
}

/// `EndTxn` version 1 responds with correlation id, throttle time and error code.
const END_TXN_ERROR_AT: usize = 8;

/// Row 8: a late commit of transaction 1 commits the outputs of transaction 2, which the loop
/// aborts: they will be written again.
fn late_commit_doubles(name: &'static str, form: HoldForm) {
    let naive = Naive::start(name);
    naive.begin_with_outputs("one");
    naive.send_offset(5);
    let held = shared().1.hold_next_matching(api_key::END_TXN, form, contains(name));
    naive.producer.commit_transaction(TIMEOUT).unwrap();
    let frame = held.wait_held(TIMEOUT).unwrap();
    assert_eq!((frame.api_key(), frame.api_version()), (Some(api_key::END_TXN), Some(1)));
    naive.assert_becomes(&(vec![("one".to_owned(), 5)], Some(5)), "the first is committed");

    naive.begin_with_outputs("two");
    assert_eq!(held.release(TIMEOUT).unwrap().i16_at(END_TXN_ERROR_AT), Some(0));
    naive.send_offset(10);
    naive.producer.abort_transaction(TIMEOUT).unwrap();
    let outputs = vec![("one".to_owned(), 5), ("two".to_owned(), 5)];
    assert_eq!(naive.seen(), (outputs, Some(5)), "aborted outputs are visible, silently");
}

/// Row 11: a late abort of transaction 1 throws the outputs of transaction 2 away, whose offsets
/// are then committed: the outputs are lost.
fn late_abort_loses(name: &'static str, form: HoldForm) {
    let naive = Naive::start(name);
    naive.begin_with_outputs("one");
    naive.send_offset(5);
    let held = shared().1.hold_next_matching(api_key::END_TXN, form, contains(name));
    naive.producer.abort_transaction(TIMEOUT).unwrap();
    held.wait_held(TIMEOUT).unwrap();

    naive.begin_with_outputs("two");
    assert_eq!(held.release(TIMEOUT).unwrap().i16_at(END_TXN_ERROR_AT), Some(0));
    naive.send_offset(10);
    naive.producer.commit_transaction(TIMEOUT).unwrap();
    assert_eq!(naive.seen(), (vec![], Some(10)), "committed outputs are lost, silently");
}

#[test]
fn late_commit_after_a_timeout_doubles() {
    late_commit_doubles("row-8-a", HoldForm::KeepOpen);
}

#[test]
fn late_commit_after_a_disconnect_doubles() {
    late_commit_doubles("row-8-b", HoldForm::Close);
}

#[test]
fn late_abort_after_a_timeout_loses() {
    late_abort_loses("row-11-a", HoldForm::KeepOpen);
}

#[test]
fn late_abort_after_a_disconnect_loses() {
    late_abort_loses("row-11-b", HoldForm::Close);
}

/// Row 17: late offsets of transaction 1 put the group's offset back within transaction 2.
#[test]
fn late_offsets_go_back() {
    let name = "row-17";
    let naive = Naive::start(name);
    naive.begin_with_outputs("one");
    let key = api_key::TXN_OFFSET_COMMIT;
    let held = shared().1.hold_next_matching(key, HoldForm::Close, contains(name));
    naive.send_offset(5);
    held.wait_held(TIMEOUT).unwrap();
    naive.producer.commit_transaction(TIMEOUT).unwrap();
    assert_eq!(naive.seen().1, Some(5));

    naive.begin_with_outputs("two");
    naive.send_offset(10);
    held.release(TIMEOUT).unwrap();
    naive.producer.commit_transaction(TIMEOUT).unwrap();
    let outputs = vec![("one".to_owned(), 5), ("two".to_owned(), 5)];
    naive.assert_becomes(&(outputs, Some(5)), "the offset went back, silently");
}

/// Row 18: late offsets of transaction 1, which was aborted, are committed by transaction 2.
#[test]
fn late_offsets_of_an_abort_are_committed() {
    let name = "row-18";
    let naive = Naive::start(name);
    naive.begin_with_outputs("one");
    let key = api_key::TXN_OFFSET_COMMIT;
    let held = shared().1.hold_next_matching(key, HoldForm::Close, contains(name));
    naive.send_offset(5);
    held.wait_held(TIMEOUT).unwrap();
    naive.producer.abort_transaction(TIMEOUT).unwrap();
    assert_eq!(naive.seen(), (vec![], None));

    naive.begin_with_outputs("two");
    naive.send_offset_of(1, 10);
    held.release(TIMEOUT).unwrap();
    naive.producer.commit_transaction(TIMEOUT).unwrap();
    let seen = (vec![("two".to_owned(), 5)], Some(5));
    naive.assert_becomes(&seen, "an aborted offset is committed, silently");
}

/// A request that only matches another transaction passes, and so does one whose handle is gone.
#[test]
fn faults_strike_only_their_request() {
    let naive = Naive::start("untouched");
    let proxy = &shared().1;
    let other = proxy.hold_next_matching(api_key::END_TXN, HoldForm::Close, contains("no-such-id"));
    drop(proxy.hold_next_matching(api_key::END_TXN, HoldForm::Close, contains("untouched")));
    naive.begin_with_outputs("one");
    naive.send_offset(5);
    naive.producer.commit_transaction(TIMEOUT).unwrap();
    naive.assert_becomes(&(vec![("one".to_owned(), 5)], Some(5)), "nothing struck it");
    let missing = other.wait_held(Duration::ZERO);
    assert!(matches!(missing, Err(ProxyError::NoRequest { api_key: api_key::END_TXN, .. })));
}

/// The broker executes what the client then repeats; for a commit that is harmless.
#[test]
fn dropped_response_was_executed() {
    let naive = Naive::start("response-dropped");
    naive.begin_with_outputs("one");
    naive.send_offset(5);
    let dropped = shared().1.drop_response_matching(api_key::END_TXN, contains("response-dropped"));
    naive.producer.commit_transaction(TIMEOUT).unwrap();
    let response = dropped.wait_dropped(TIMEOUT).unwrap();
    assert_eq!(response.i16_at(END_TXN_ERROR_AT), Some(0), "the first commit was executed");
    naive.assert_becomes(&(vec![("one".to_owned(), 5)], Some(5)), "it is committed once");
}

/// The rest changes all traffic of a proxy, so it has a broker of its own.
#[test]
fn traffic_is_forwarded_cut_refused_and_delayed() {
    let (kafka, proxy) = LocalKafka::start_proxied(&LocalKafkaOptions::default()).unwrap();
    kafka.create_topic("traffic", 2).unwrap();
    let record = |index: u64| LoadRecord {
        value: Some(index.to_be_bytes().to_vec()),
        ..LoadRecord::default()
    };
    let mut cuts = 0;
    load(proxy.bootstrap(), "traffic", 20_000, TIMEOUT, record, |acknowledged| {
        if cuts == 0 && acknowledged > 0 {
            proxy.cut_all();
            cuts += 1;
        }
    })
    .unwrap();
    assert_eq!(cuts, 1);
    let read = |timeout| read_all(proxy.bootstrap(), "traffic", Isolation::Committed, timeout);
    assert_eq!(read(TIMEOUT).unwrap().len(), 20_000);

    proxy.refuse(true);
    assert!(read(Duration::from_millis(500)).is_err(), "a client that stays on the proxy fails");
    let direct = read_all(kafka.bootstrap(), "traffic", Isolation::Committed, TIMEOUT).unwrap();
    assert_eq!(direct.len(), 20_000);
    proxy.refuse(false);

    let delay = Duration::from_millis(700);
    proxy.delay(api_key::METADATA, delay);
    let started = Instant::now();
    assert_eq!(read(TIMEOUT).unwrap().len(), 20_000);
    assert!(started.elapsed() >= delay);
}
