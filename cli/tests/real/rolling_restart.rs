//! Brokers go and come one by one under load, as in every rolling restart: the run goes on.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use countersign_testkit::broker::{KafkaVersion, LocalCluster, LocalKafka, LocalKafkaOptions};
use countersign_testkit::reader::load;

use crate::support::{Copying, PARTITIONS, PATIENCE, record};

/// How long the run may take to go on once all brokers are there.
const GOES_ON: Duration = Duration::from_secs(40);

/// More than can be loaded while the brokers restart.
const TOTAL: u64 = 120_000;

/// How many a second are loaded meanwhile.
const RATE: u64 = 1_000;

/// So many more are committed than before a restart only if the run goes on after it.
const MORE: u64 = 2 * RATE;

static TWO: LazyLock<LocalCluster> = LazyLock::new(|| start(2));

static THREE: LazyLock<LocalCluster> = LazyLock::new(|| start(3));

/// Of a version that finishes transactions whose partitions have no leader for a while.
fn start(brokers: u16) -> LocalCluster {
    let version = KafkaVersion::V4_2_0;
    let options = LocalKafkaOptions { version, heap_mb: 256, ..LocalKafkaOptions::default() };
    LocalCluster::start(brokers, &options).unwrap()
}

#[derive(Clone, Copy)]
enum End {
    Killed,
    Stopped,
}

/// Ends a broker, starts it again, and waits until the run goes on.
fn restart(copying: &Copying, broker: &LocalKafka, end: End) {
    let before = copying.committed();
    match end {
        End::Killed => broker.kill().unwrap(),
        End::Stopped => broker.stop().unwrap(),
    }
    broker.restart().unwrap();
    let back = Instant::now();
    copying.wait_committed(before + MORE, GOES_ON);
    eprintln!(
        "{} went on {:?} after broker {} was back",
        copying.name,
        back.elapsed(),
        broker.id()
    );
}

/// Lets what is left be loaded at once, however the test ends.
struct Hurry<'a>(&'a AtomicBool);

impl Drop for Hurry<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Copies under load while this happens to the brokers; then everything is there once.
fn assert_goes_on(copying: &Copying, happens: impl FnOnce()) {
    let process = copying.start("a", &["--commit-interval", "20ms"]);
    let is_over = AtomicBool::new(false);
    let started = Instant::now();
    let paced = |index: u64| {
        if index.is_multiple_of(RATE / 50) && !is_over.load(Ordering::Relaxed) {
            let due = Duration::from_millis(index * 1_000 / RATE);
            thread::sleep(due.saturating_sub(started.elapsed()));
        }
        record(index)
    };
    thread::scope(|scope| {
        let (bootstrap, input) = (copying.bootstrap, copying.input());
        let feeding =
            scope.spawn(move || load(bootstrap, &input, TOTAL, PATIENCE * 4, paced, |_| {}));
        let hurry = Hurry(&is_over);
        copying.wait_committed(MORE, PATIENCE);
        happens();
        assert!(started.elapsed().as_secs() < TOTAL / RATE, "not under load any more");
        drop(hurry);
        feeding.join().unwrap().unwrap();
    });
    copying.wait_committed(TOTAL, PATIENCE);
    let asked = Instant::now();
    process.terminate();
    eprintln!("{} ended {:?} after SIGTERM", copying.name, asked.elapsed());
    copying.assert_exact(TOTAL);
}

/// The call that sends the offsets waits for the group's coordinator.
#[test]
fn run_goes_on_when_its_groups_coordinator_is_back() {
    let copying = Copying::over(&TWO, "coordinator-restart");
    TWO.place_transaction_coordinator(&[1]).unwrap();
    TWO.place_group_coordinator(&[2]).unwrap();
    TWO.create_topic_on(&[1], &copying.input(), PARTITIONS).unwrap();
    TWO.create_topic_on(&[2], &copying.output(), PARTITIONS).unwrap();
    let second = &TWO.brokers()[1];
    assert_goes_on(&copying, || {
        restart(&copying, second, End::Killed);
        restart(&copying, second, End::Stopped);
    });
}

#[test]
fn run_goes_on_while_each_of_three_brokers_restarts() {
    let copying = Copying::over(&THREE, "rolling-restart");
    THREE.create_topic(&copying.input(), PARTITIONS).unwrap();
    THREE.create_topic(&copying.output(), PARTITIONS).unwrap();
    assert_goes_on(&copying, || {
        for (broker, end) in THREE.brokers().iter().zip([End::Stopped, End::Killed, End::Stopped]) {
            THREE.wait_in_sync().unwrap();
            restart(&copying, broker, end);
        }
    });
}
