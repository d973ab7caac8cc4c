//! Input with aborted transactions, control records at its end and empty partitions.

use std::collections::BTreeMap;

use countersign_testkit::reader::{Isolation, committed_offsets};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};

use crate::support::{Copying, PARTITIONS, PATIENCE};

const TRANSACTIONS: u32 = 30;

/// Partition 3 stays empty; every third transaction is aborted, the last ones among them.
fn fill(copying: &Copying) -> u64 {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", copying.kafka.bootstrap())
        .set("transactional.id", copying.name)
        .create()
        .unwrap();
    producer.init_transactions(PATIENCE).unwrap();
    let input = copying.input();
    let mut kept = 0;
    for number in 1..=TRANSACTIONS {
        producer.begin_transaction().unwrap();
        for n in 0..99 {
            let value = format!("{number}-{n}");
            let partition = n % 3;
            let record = BaseRecord::<str, str>::to(&input).partition(partition);
            producer.send(record.key("key").payload(&value)).unwrap();
        }
        producer.flush(PATIENCE).unwrap();
        if number.is_multiple_of(3) {
            producer.abort_transaction(PATIENCE).unwrap();
        } else {
            producer.commit_transaction(PATIENCE).unwrap();
            kept += 99;
        }
    }
    kept
}

/// The last stable offset of each partition that has any record.
fn ends(copying: &Copying) -> BTreeMap<u32, u64> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", copying.kafka.bootstrap())
        .set("isolation.level", "read_committed")
        .set("group.id", "ends")
        .create()
        .unwrap();
    let end = |partition: u32| {
        let number = i32::try_from(partition).unwrap();
        let (_, end) = consumer.fetch_watermarks(&copying.input(), number, PATIENCE).unwrap();
        (partition, u64::try_from(end).unwrap())
    };
    (0..PARTITIONS).map(end).filter(|(_, end)| *end > 0).collect()
}

#[test]
fn aborted_input_is_passed_over_and_the_end_is_reached() {
    let copying = Copying::new("transactional-input");
    let kept = fill(&copying);
    copying.start("a", &["--until-caught-up"]).done();
    copying.assert_exact(kept);
    let (bootstrap, input) = (copying.kafka.bootstrap(), copying.input());
    let mut offsets: BTreeMap<u32, u64> =
        committed_offsets(bootstrap, copying.name, &input, PATIENCE)
            .unwrap()
            .into_iter()
            .map(|(partition, (offset, _))| (partition, offset))
            .collect();
    // The empty partition may have been committed at its start.
    offsets.retain(|_, offset| *offset > 0);
    assert_eq!(offsets, ends(&copying), "the group has reached the ends");
    assert_eq!(copying.outputs(Isolation::Committed), kept);
    // Nothing is left: the next run ends at once, and writes nothing.
    copying.start("a", &["--until-caught-up"]).done();
    copying.assert_exact(kept);
}
