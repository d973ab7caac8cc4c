//! How long a message takes from a paced producer through a peer to a `read_committed` reader.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use countersign_testkit::broker::LocalKafka;
use rdkafka::ClientConfig;
use rdkafka::Message as _;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::bench::Bench;
use crate::case::Data;
use crate::child::{Ended, Running};
use crate::data;
use crate::peer::{Job, Peer};
use crate::results::{LatencyResult, LatencyRow, LatencyRun};
use crate::throughput::remove;

const PARTITIONS: u32 = 4;
const BYTES: usize = 200;
/// Where the time of sending stands in a value, after its number.
const TIME_AT: usize = 8;
/// How long a message may take before it counts as lost.
const PATIENCE: Duration = Duration::from_secs(30);
/// Before the first message, so that the group has been joined and transactions have run.
const SETTLE: Duration = Duration::from_secs(3);

type Failure = Box<dyn Error + Send + Sync>;

/// How fast and how long.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    pub(crate) messages_per_s: u64,
    pub(crate) measured: Duration,
}

impl Pace {
    fn warm_up(&self) -> Duration {
        SETTLE + self.measured / 4
    }

    fn messages(&self) -> u64 {
        let time = self.warm_up() + self.measured;
        u64::try_from(time.as_millis()).unwrap_or(u64::MAX) * self.messages_per_s / 1_000
    }

    fn warm_up_messages(&self) -> u64 {
        u64::try_from(self.warm_up().as_millis()).unwrap_or(u64::MAX) * self.messages_per_s / 1_000
    }
}

/// When a transaction ends.
#[derive(Debug, Clone, Copy)]
enum End {
    AfterMs(u64),
    Early,
}

/// Runs all peers at all of their settings, interleaved.
pub(crate) fn run(bench: &mut Bench, pace: Pace, intervals: &[u64], rounds: u32) -> LatencyResult {
    let mut rows = vec![(None, LatencyRow::new(None, "nobody in between"))];
    for &peer in &bench.peers {
        for &interval in intervals {
            let row = LatencyRow::new(Some(peer), &format!("{interval} ms"));
            rows.push((Some((peer, End::AfterMs(interval))), row));
        }
        if peer.ends_early() {
            rows.push((Some((peer, End::Early)), LatencyRow::new(Some(peer), "early")));
        }
    }
    for _ in 0..rounds {
        for (who, row) in &mut rows {
            match once(bench, pace, *who) {
                Ok(run) => {
                    eprintln!("  {}: p50 {:.1} p99 {:.1} ms", row.name(), run.p50_ms, run.p99_ms);
                    row.runs.push(run);
                }
                Err(error) => {
                    let rate = pace.messages_per_s;
                    bench.failed(format!("latency at {rate}/s: {}: {error}", row.name()));
                }
            }
        }
    }
    let rows = rows.into_iter().map(|(_, row)| row).collect();
    LatencyResult { messages_per_s: pace.messages_per_s, rows }
}

impl LatencyRow {
    fn new(peer: Option<Peer>, setting: &str) -> Self {
        Self { peer, setting: setting.to_owned(), runs: Vec::new() }
    }

    /// Peer and setting.
    pub(crate) fn name(&self) -> String {
        match self.peer {
            Some(peer) => format!("{peer}, {}", self.setting),
            None => self.setting.clone(),
        }
    }
}

fn once(
    bench: &mut Bench,
    pace: Pace,
    who: Option<(Peer, End)>,
) -> Result<LatencyRun, Box<dyn Error>> {
    let input = bench.name("input");
    bench.kafka.create_topic(&input, PARTITIONS)?;
    let Some((peer, end)) = who else {
        let times = exchange(&bench.kafka, &input, &input, pace, &|| false)?;
        bench.kafka.delete_topic(&input)?;
        return Ok(percentiles(times, 0.0));
    };
    let output = bench.name("output");
    bench.kafka.create_topic(&output, PARTITIONS)?;
    let job = job(bench, pace, end, &input, &output);
    let command = job.command(peer, &bench.tools);
    let running = Running::start(command, &bench.log(), bench.broker()?)?;
    let times = exchange(&bench.kafka, &input, &output, pace, &|| running.has_ended())
        .map_err(|error| format!("{error}\n{}", bench.log_tail()))?;
    // One that has ended by itself by now has nothing against it.
    running.terminate()?;
    let ended = running.wait(PATIENCE)?;
    bench.kafka.delete_topic(&input)?;
    bench.kafka.delete_topic(&output)?;
    remove(&job.state_dir)?;
    Ok(percentiles(times, cpus(&ended, pace)))
}

fn job(bench: &mut Bench, pace: Pace, end: End, input: &str, output: &str) -> Job {
    let (commit_interval_ms, early) = match end {
        End::AfterMs(interval) => (interval, false),
        End::Early => (10, true),
    };
    Job {
        brokers: bench.kafka.bootstrap().to_owned(),
        group: bench.name("group"),
        input: input.to_owned(),
        output: output.to_owned(),
        records: pace.messages(),
        commit_interval_ms,
        transaction_records: 0,
        linger_ms: 0,
        compression: bench.compression.clone(),
        early,
        endless: true,
        state_dir: bench.dir.join("state"),
    }
}

/// CPU seconds in a second, from when all has settled to about the last message.
fn cpus(ended: &Ended, pace: Pace) -> f64 {
    let from = ended.started_ms() + pace.warm_up().as_secs_f64() * 1e3;
    let to = from + pace.measured.as_secs_f64() * 1e3;
    (ended.cpu_s_at(to).0 - ended.cpu_s_at(from).0) / pace.measured.as_secs_f64()
}

/// Sends all messages, receives all of them once, and gives the times of those after the warm-up,
/// in microseconds.
fn exchange(
    kafka: &LocalKafka,
    input: &str,
    output: &str,
    pace: Pace,
    has_ended: &dyn Fn() -> bool,
) -> Result<Vec<u32>, Box<dyn Error>> {
    let base = Instant::now();
    let consumer = reader(kafka.bootstrap(), output)?;
    let stopped = Arc::new(AtomicBool::new(false));
    let sender = {
        let (brokers, topic) = (kafka.bootstrap().to_owned(), input.to_owned());
        let stopped = Arc::clone(&stopped);
        thread::spawn(move || send(&brokers, &topic, pace, base, &stopped))
    };
    let received = receive(&consumer, pace, base, has_ended);
    stopped.store(true, Ordering::Relaxed);
    let sent = sender.join().map_err(|_| "the sender panicked")?;
    sent.map_err(|error| format!("sending: {error}"))?;
    received
}

fn send(
    brokers: &str,
    topic: &str,
    pace: Pace,
    base: Instant,
    stopped: &AtomicBool,
) -> Result<(), Failure> {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("linger.ms", "0")
        .set("delivery.report.only.error", "true")
        .create()?;
    let mut value = Vec::with_capacity(BYTES + 16);
    let started = Instant::now();
    let period = Duration::from_secs(1) / u32::try_from(pace.messages_per_s)?;
    for index in 0..pace.messages() {
        let due = started + period * u32::try_from(index)?;
        // Messages that are due are sent at once; otherwise the thread sleeps until the next is.
        thread::sleep(due.saturating_duration_since(Instant::now()));
        if stopped.load(Ordering::Relaxed) {
            return Ok(());
        }
        data::fill(&mut value, Data::Random, index, BYTES);
        let sent_us = u64::try_from(base.elapsed().as_micros())?;
        if let Some(time) = value.get_mut(TIME_AT..TIME_AT + 8) {
            time.copy_from_slice(&sent_us.to_be_bytes());
        }
        let partition = i32::try_from(index % u64::from(PARTITIONS))?;
        let record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(topic).partition(partition);
        producer.send(record.payload(&value)).map_err(|(error, _)| error)?;
    }
    Ok(producer.flush(PATIENCE)?)
}

fn reader(brokers: &str, topic: &str) -> Result<BaseConsumer, KafkaError> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        // Required by the client; nothing joins or commits.
        .set("group.id", "bench-peers-reader")
        .set("enable.auto.commit", "false")
        .set("isolation.level", "read_committed")
        .create()?;
    let mut assignment = TopicPartitionList::new();
    for partition in (0..).take(PARTITIONS as usize) {
        assignment.add_partition_offset(topic, partition, Offset::Beginning)?;
    }
    consumer.assign(&assignment)?;
    Ok(consumer)
}

fn receive(
    consumer: &BaseConsumer,
    pace: Pace,
    base: Instant,
    has_ended: &dyn Fn() -> bool,
) -> Result<Vec<u32>, Box<dyn Error>> {
    let messages = pace.messages();
    let mut seen = vec![false; usize::try_from(messages)?];
    let mut times = Vec::new();
    let mut left = messages;
    let mut heard = Instant::now();
    while left > 0 {
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => {
                let now_us = u64::try_from(base.elapsed().as_micros())?;
                heard = Instant::now();
                let (index, sent_us) = stamp(message.payload()).ok_or("a damaged message")?;
                let seen = seen.get_mut(usize::try_from(index)?).ok_or("an unknown message")?;
                if std::mem::replace(seen, true) {
                    return Err(format!("NOT EXACT: message {index} came twice").into());
                }
                left -= 1;
                if index >= pace.warm_up_messages() {
                    times.push(u32::try_from(now_us.saturating_sub(sent_us))?);
                }
            }
            Some(Err(error)) if is_passing(&error) => {}
            Some(Err(error)) => return Err(error.into()),
            None if has_ended() && heard.elapsed() > Duration::from_secs(5) => {
                return Err(format!("it ended with {left} of {messages} messages missing").into());
            }
            None => {}
        }
        if heard.elapsed() > PATIENCE {
            return Err(format!("{left} of {messages} messages did not come").into());
        }
    }
    Ok(times)
}

/// What librdkafka says of a topic that was made a moment ago.
fn is_passing(error: &KafkaError) -> bool {
    matches!(
        error,
        KafkaError::MessageConsumption(
            RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::BrokerTransportFailure
        )
    )
}

/// A message's number and when it was sent.
fn stamp(value: Option<&[u8]>) -> Option<(u64, u64)> {
    let index = data::index(value?, Data::Random)?;
    let sent = value?.get(TIME_AT..)?.first_chunk()?;
    Some((index, u64::from_be_bytes(*sent)))
}

fn percentiles(mut times_us: Vec<u32>, client_cpus: f64) -> LatencyRun {
    times_us.sort_unstable();
    let at = |part: f64| {
        let rank = (times_us.len() as f64 * part).ceil() as usize;
        let time = times_us.get(rank.saturating_sub(1)).copied().unwrap_or_default();
        f64::from(time) / 1e3
    };
    LatencyRun {
        p50_ms: at(0.5),
        p99_ms: at(0.99),
        p999_ms: at(0.999),
        max_ms: at(1.0),
        client_cpus,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_ranks() {
        let run = percentiles((1..=1_000).rev().map(|ms| ms * 1_000).collect(), 0.5);
        assert_eq!((run.p50_ms, run.p99_ms), (500.0, 990.0));
        assert_eq!((run.p999_ms, run.max_ms), (999.0, 1_000.0));
    }
}
