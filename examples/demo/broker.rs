//! The topics of the demonstration and what is in them.

use std::error::Error;
use std::thread::sleep;
use std::time::{Duration, Instant};

use countersign_testkit::broker::LocalKafka;
use countersign_testkit::reader::{LoadRecord, committed_offsets, load};
use indicatif::ProgressBar;

use super::{ORDERS, PATIENCE};

/// How many partitions each topic has.
const PARTITIONS: u32 = 4;

/// What the payments service writes to.
pub(crate) const OUTPUTS: [&str; 4] = ["invoices", "ledger", "rejections", "dead-letters"];

pub(crate) fn create_topics(kafka: &LocalKafka) -> Result<(), Box<dyn Error>> {
    for topic in ["orders"].iter().chain(&OUTPUTS) {
        kafka.create_topic(topic, PARTITIONS)?;
    }
    Ok(())
}

/// One account in seven orders for more than its limit now and then.
pub(crate) fn load_orders(kafka: &LocalKafka, bar: &ProgressBar) -> Result<(), Box<dyn Error>> {
    let order = |id: u64| {
        let account = format!("account-{}", id % 997);
        let cents = id.wrapping_mul(7_919) % 100_000;
        let value = format!(r#"{{"id":{id},"account":"{account}","cents":{cents}}}"#);
        LoadRecord { partition: None, key: Some(account.into()), value: Some(value.into()) }
    };
    load(kafka.bootstrap(), "orders", ORDERS, PATIENCE, order, |done| bar.set_position(done))?;
    bar.finish();
    Ok(())
}

/// Waits until the group has committed `goal` orders.
pub(crate) fn wait_for(
    kafka: &LocalKafka,
    goal: u64,
    bar: &ProgressBar,
) -> Result<(), Box<dyn Error>> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let committed = committed_offsets(kafka.bootstrap(), "payments", "orders", PATIENCE)?;
        let done = committed.values().map(|(offset, _)| offset).sum();
        bar.set_position(done);
        if done >= goal {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(format!("only {done} of {goal} orders were committed in time").into());
        }
        sleep(Duration::from_millis(20));
    }
}
