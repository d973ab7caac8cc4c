//! One of two processes is killed with SIGKILL every two seconds while messages come in.

use std::thread;
use std::time::{Duration, Instant};

use countersign_testkit::reader::load;

use crate::support::{Copying, PATIENCE, record, until};

const KILL_INTERVAL: Duration = Duration::from_secs(2);

/// How many records are sent before the clock is looked at.
const PACE: u64 = 512;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().unwrap())
}

/// Loads evenly over the time given, so that something is under way at every kill.
fn feed(copying: &Copying, total: u64, time: Duration) {
    let started = Instant::now();
    let paced = |index: u64| {
        if index.is_multiple_of(PACE) {
            let share = u32::try_from(index * 10_000 / total).unwrap();
            thread::sleep((time * share / 10_000).saturating_sub(started.elapsed()));
        }
        record(index)
    };
    let (bootstrap, input) = (copying.kafka.bootstrap(), copying.input());
    load(bootstrap, &input, total, time + PATIENCE, paced, |_| {}).unwrap();
}

#[test]
fn kills_lose_and_double_nothing() {
    let total = setting("COUNTERSIGN_TEST_MESSAGES", 200_000);
    let time = Duration::from_secs(setting("COUNTERSIGN_TEST_SECONDS", 9));
    let copying = Copying::new("kill-every-2-s");
    let mut processes = [Some(copying.start("a", &[])), Some(copying.start("b", &[]))];
    until("both work", PATIENCE, || {
        let logs = processes.iter().flatten().all(|it| it.stderr().contains("connected"));
        logs.then_some(())
    });
    let mut kills = 0;
    thread::scope(|scope| {
        let feeding = scope.spawn(|| feed(&copying, total, time));
        let mut due = Instant::now() + KILL_INTERVAL;
        while !feeding.is_finished() {
            thread::sleep(Duration::from_millis(10));
            if Instant::now() >= due {
                let (slot, name) = [(0, "a"), (1, "b")][kills % 2];
                processes[slot].take().unwrap().kill();
                processes[slot] = Some(copying.start(name, &[]));
                kills += 1;
                due += KILL_INTERVAL;
            }
        }
        feeding.join().unwrap();
    });
    copying.wait_committed(total, PATIENCE * 2);
    for process in processes.into_iter().flatten() {
        process.terminate();
    }
    copying.assert_exact(total);
    let aborted = copying.uncommitted();
    eprintln!("{total} messages, {kills} kills, {aborted} outputs of aborted transactions");
    assert!(kills >= 3, "{kills} kills in {time:?}");
    assert!(aborted > 0, "no kill hit an open transaction");
}
