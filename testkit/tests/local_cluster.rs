//! Goal: several brokers are one Kafka, of the version asked for, which goes on without any one of
//! them, its controller too. Method: each is ended and started again while records are written and
//! read.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::time::Duration;

use countersign_testkit::broker::{KafkaVersion, LocalCluster, LocalKafka, LocalKafkaOptions};
use countersign_testkit::reader::{Isolation, LoadRecord, load, read_all};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};

const TIMEOUT: Duration = Duration::from_secs(60);

fn start(brokers: u16) -> LocalCluster {
    let version = KafkaVersion::V4_2_0;
    let options = LocalKafkaOptions { version, heap_mb: 256, ..LocalKafkaOptions::default() };
    LocalCluster::start(brokers, &options).unwrap()
}

fn add(cluster: &LocalCluster, topic: &str, total: u64) {
    let record = |index: u64| {
        let text = index.to_string().into_bytes();
        LoadRecord { partition: None, key: Some(text.clone()), value: Some(text) }
    };
    load(cluster.bootstrap(), topic, total, TIMEOUT, record, |_| {}).unwrap();
}

fn count(cluster: &LocalCluster, topic: &str) -> usize {
    read_all(cluster.bootstrap(), topic, Isolation::Committed, TIMEOUT).unwrap().len()
}

/// The leader and the replicas of each partition.
fn places(cluster: &LocalCluster, topic: &str) -> Vec<(i32, Vec<i32>)> {
    let client: BaseConsumer =
        ClientConfig::new().set("bootstrap.servers", cluster.bootstrap()).create().unwrap();
    let metadata = client.fetch_metadata(Some(topic), TIMEOUT).unwrap();
    let partitions = metadata.topics()[0].partitions();
    partitions.iter().map(|found| (found.leader(), found.replicas().to_vec())).collect()
}

fn log(broker: &LocalKafka) -> String {
    fs::read_to_string(broker.dir().join("broker.log")).unwrap()
}

#[test]
fn three_brokers_go_on_without_any_one_of_them() {
    let cluster = start(3);
    assert!(log(&cluster.brokers()[0]).contains("4.2.0"), "not the version asked for");
    cluster.create_topic("held-thrice", 3).unwrap();
    for (_, replicas) in places(&cluster, "held-thrice") {
        assert_eq!(replicas.len(), 3);
    }
    let mut expected = 0;
    for broker in cluster.brokers() {
        cluster.wait_in_sync().unwrap();
        let pid = broker.pid();
        match broker.id() {
            2 => broker.kill().unwrap(),
            _ => broker.stop().unwrap(),
        }
        add(&cluster, "held-thrice", 100);
        expected += 100;
        assert_eq!(count(&cluster, "held-thrice"), expected, "without broker {}", broker.id());
        broker.restart().unwrap();
        assert_ne!(broker.pid(), pid);
    }
}

#[test]
fn what_is_placed_on_a_broker_goes_and_comes_with_it() {
    let cluster = start(2);
    cluster.place_group_coordinator(&[2]).unwrap();
    cluster.place_transaction_coordinator(&[1]).unwrap();
    cluster.create_topic_on(&[2], "second", 2).unwrap();
    let on = |broker: i32| (broker, vec![broker]);
    assert_eq!(places(&cluster, "__consumer_offsets"), vec![on(2); 4]);
    assert_eq!(places(&cluster, "__transaction_state"), vec![on(1); 4]);
    assert_eq!(places(&cluster, "second"), vec![on(2); 2]);
    add(&cluster, "second", 100);
    let second = &cluster.brokers()[1];
    second.kill().unwrap();
    let short = Duration::from_secs(1);
    assert!(read_all(cluster.bootstrap(), "second", Isolation::Committed, short).is_err());
    second.restart().unwrap();
    assert_eq!(count(&cluster, "second"), 100);
}
