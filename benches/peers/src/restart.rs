//! How long a start takes after a kill -9, with a store that knows much.

use std::error::Error;
use std::thread;
use std::time::{Duration, Instant};

use countersign_testkit::reader::committed_offsets;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::args::Args;
use crate::bench::Bench;
use crate::case::{Bound, Case, Data};
use crate::child::Running;
use crate::copy::{create_output, disk_bytes, job_of, load_range, remove};
use crate::peer::Job;
use crate::results::{RestartResult, Start};
use crate::verify;

const PARTITIONS: u32 = 4;
const BYTES: usize = 200;
/// One message of so many fails once, and has a history of its own.
const FAIL_EVERY: u64 = 100;
/// How many messages wait for each start.
const WAITING: u64 = 1_000_000;
const PATIENCE: Duration = Duration::from_secs(300);
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// Has messages tracked, then kills and starts the processor again and again.
pub(crate) fn run(bench: &mut Bench, args: &Args) -> Result<RestartResult, Box<dyn Error>> {
    let (tracked, waiting) = if args.quick { (200_000, 100_000) } else { (10_000_000, WAITING) };
    let rounds = u64::from(bench.rounds);
    let mut case = Case {
        bytes: BYTES,
        data: Data::Json,
        bound: Bound::Interval,
        partitions: PARTITIONS,
        records: tracked + rounds * waiting,
    };
    let input = bench.name("input");
    bench.kafka.create_topic(&input, PARTITIONS)?;
    let output = create_output(bench, &case)?;
    let job = Job { endless: true, ..job_of(bench, &case, &input, &output) };
    remove(&job.state_dir)?;

    load_range(bench, &case, &input, 0..tracked)?;
    let mut running = start(bench, &job)?;
    until_committed(bench, &job, tracked, &running)?;
    let mut starts = Vec::new();
    let mut known = tracked;
    for _ in 0..rounds {
        load_range(bench, &case, &input, known..known + waiting)?;
        until_committed(bench, &job, known + waiting / 2, &running)?;
        drop(running);
        let store_bytes = disk_bytes(&job.state_dir)?;
        let watch = Watch::new(bench, &output)?;
        let from = Instant::now();
        running = start(bench, &job)?;
        watch.first(&running)?;
        let seconds = from.elapsed().as_secs_f64();
        eprintln!("  {seconds:.2} s");
        starts.push(Start { seconds, store_bytes });
        known += waiting;
        until_committed(bench, &job, known, &running)?;
    }
    running.terminate()?;
    running.wait(PATIENCE)?;
    case.records = known;
    let found = verify::read(bench.kafka.bootstrap(), &output, &case)?;
    if !found.is_once() {
        bench.failed(format!("restart: NOT EXACT: {found}"));
    }
    bench.kafka.delete_topic(&input)?;
    bench.kafka.delete_topic(&output)?;
    Ok(RestartResult { tracked, histories: tracked / FAIL_EVERY, starts })
}

fn start(bench: &Bench, job: &Job) -> Result<Running, Box<dyn Error>> {
    let command = job.library(&bench.tools, &[&format!("--fail-every={FAIL_EVERY}")]);
    Ok(Running::start(command, &bench.log(), bench.broker()?)?)
}

/// Waits until the group has passed so many messages of the input.
fn until_committed(
    bench: &Bench,
    job: &Job,
    messages: u64,
    running: &Running,
) -> Result<(), Box<dyn Error>> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let offsets = committed_offsets(bench.kafka.bootstrap(), &job.group, &job.input, PATIENCE)?;
        let passed: u64 = offsets.values().map(|(offset, _)| offset).sum();
        if passed >= messages {
            return Ok(());
        }
        if running.has_ended() || Instant::now() > deadline {
            return Err(format!("{passed} of {messages} passed\n{}", bench.log_tail()).into());
        }
        thread::sleep(LOOK_INTERVAL);
    }
}

/// A reader of what becomes visible from now on.
struct Watch(BaseConsumer);

impl Watch {
    fn new(bench: &Bench, topic: &str) -> Result<Self, Box<dyn Error>> {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", bench.kafka.bootstrap())
            // Required by the client; nothing joins or commits.
            .set("group.id", "bench-peers-reader")
            .set("enable.auto.commit", "false")
            .set("isolation.level", "read_committed")
            .create()?;
        let mut assignment = TopicPartitionList::new();
        for partition in 0..i32::try_from(PARTITIONS)? {
            // Where the killed process has an open transaction, what is behind it is not visible.
            let (_, end) = consumer.fetch_watermarks(topic, partition, PATIENCE)?;
            assignment.add_partition_offset(topic, partition, Offset::Offset(end))?;
        }
        consumer.assign(&assignment)?;
        Ok(Self(consumer))
    }

    /// Waits for the first message.
    fn first(&self, running: &Running) -> Result<(), Box<dyn Error>> {
        let deadline = Instant::now() + PATIENCE;
        while !running.has_ended() && Instant::now() < deadline {
            if let Some(message) = self.0.poll(LOOK_INTERVAL) {
                message?;
                return Ok(());
            }
        }
        Err("the processor was started again and did nothing".into())
    }
}
