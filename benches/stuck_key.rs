//! What one failing key costs the others with `order = key`, on a real Kafka: runs in which a key
//! fails for ten seconds, and runs without, in turn.
//!
//! ```sh
//! cargo bench --bench stuck_key
//! ```

use std::collections::HashMap;
use std::error::Error;
use std::fmt::{self, Display, Formatter};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use clap::Parser;
use countersign::statemachine::Backoff;
use countersign::{HandlerError, Message, Order, Outputs, Processor, To, handler};
use countersign_testkit::broker::LocalKafka;
use countersign_testkit::reader::{Isolation, LoadRecord, OwnedRecord, load, read_all};

/// Runs with a key that fails and runs without, in turn, and compares how many messages of the
/// other keys come out meanwhile. Ends with 1 if that is less than nine tenths.
#[derive(Debug, Clone, Parser)]
struct Args {
    /// How often each of the two is run
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// How many keys there are
    #[arg(long, default_value_t = 64)]
    keys: u64,
    /// How long a handler takes with a message
    #[arg(long, default_value_t = 20)]
    handler_ms: u64,
    /// How long the one key fails
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// How many partitions the topics have; in one the keys are the most in each other's way
    #[arg(long, default_value_t = 1)]
    partitions: u32,
    /// What cargo says to a benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

const INPUT: &str = "stuck-key-in";

/// The key that fails.
const STUCK: &str = "key-0";

const PATIENCE: Duration = Duration::from_secs(300);

/// The least that must be left to the other keys.
const SHARE_MIN: f64 = 0.9;

/// One run.
#[derive(Debug)]
struct Run {
    /// How many messages of the other keys came out while the one failed, or would have.
    others: u64,
    /// How often it failed.
    failures: u64,
    /// Whether every message came out once, in the order of its key.
    is_exact: bool,
}

impl Display for Run {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let exact = if self.is_exact { "exact" } else { "NOT EXACT" };
        write!(f, "{} of the other keys, {} failures, {exact}", self.others, self.failures)
    }
}

impl Args {
    /// As many as handlers can do in the time, and a few more.
    fn messages(&self) -> u64 {
        self.keys * (self.seconds + 2) * 1_000 / self.handler_ms.max(1)
    }
}

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let args = Args::parse();
    let kafka = LocalKafka::start()?;
    kafka.create_topic(INPUT, args.partitions)?;
    let record = |index: u64| LoadRecord {
        partition: None,
        key: Some(format!("key-{}", index % args.keys).into_bytes()),
        value: Some(index.to_string().into_bytes()),
    };
    load(kafka.bootstrap(), INPUT, args.messages(), PATIENCE, record, |_| {})?;
    println!("{args:?}, {} messages", args.messages());
    let mut shares = Vec::new();
    let mut all_exact = true;
    for round in 0..args.rounds {
        let fails_first = round % 2 == 1;
        let first = run(&kafka, &args, round, fails_first)?;
        let second = run(&kafka, &args, round, !fails_first)?;
        let (calm, stuck) = if fails_first { (second, first) } else { (first, second) };
        let share = ratio(stuck.others, calm.others);
        println!("round {round}: none fails: {calm}");
        println!("round {round}: one fails:  {stuck}; {share:.3} of the run without");
        all_exact &= calm.is_exact && stuck.is_exact;
        shares.push(share);
    }
    shares.sort_by(f64::total_cmp);
    let median = shares.get(shares.len() / 2).copied().unwrap_or(0.0);
    println!("median: {median:.3} of the throughput without a failing key");
    let is_good = all_exact && median >= SHARE_MIN;
    Ok(if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[expect(clippy::cast_precision_loss, reason = "counts of messages are small")]
fn ratio(part: u64, whole: u64) -> f64 {
    part as f64 / whole.max(1) as f64
}

#[tokio::main]
async fn run(
    kafka: &LocalKafka,
    args: &Args,
    round: u32,
    fails: bool,
) -> Result<Run, Box<dyn Error>> {
    let name = format!("stuck-key-{round}-{fails}");
    // The broker's clock tells when an output came, the same for both.
    let by_broker = [("message.timestamp.type", "LogAppendTime")];
    kafka.create_topic_with(&name, args.partitions, &by_broker)?;
    let failures = Arc::new(AtomicU64::new(0));
    let work = Work {
        topic: Arc::from(name.as_str()),
        takes: Duration::from_millis(args.handler_ms),
        fails_for: if fails { Duration::from_secs(args.seconds) } else { Duration::ZERO },
        started: Arc::default(),
        failures: Arc::clone(&failures),
    };
    let store = tempfile::tempdir()?;
    let processor = Processor::builder()
        .brokers(kafka.bootstrap())
        .group(&name)
        .inputs([INPUT])
        .outputs([&name])
        .store(store.path().join("store"))
        .order(Order::Key)
        .retry(Backoff { max: Duration::from_secs(1), ..Backoff::default() })
        .handler(handler::each(move |message| work.clone().handle(message)))
        .build()?;
    let caught_up = tokio::spawn(processor.shut_down_when_caught_up());
    processor.run().await?;
    caught_up.abort();
    let records = read_all(kafka.bootstrap(), &name, Isolation::Committed, PATIENCE)?;
    let failures = failures.load(Ordering::Relaxed);
    Ok(Run { others: others(&records, args), failures, is_exact: is_exact(&records, args) })
}

#[derive(Clone)]
struct Work {
    topic: Arc<str>,
    takes: Duration,
    fails_for: Duration,
    started: Arc<OnceLock<Instant>>,
    failures: Arc<AtomicU64>,
}

impl Work {
    async fn handle(self, message: Message) -> Result<Outputs, HandlerError> {
        let started = *self.started.get_or_init(Instant::now);
        tokio::time::sleep(self.takes).await;
        let record = message.record();
        if record.key() == Some(STUCK.as_bytes()) && started.elapsed() < self.fails_for {
            self.failures.fetch_add(1, Ordering::Relaxed);
            return Err(HandlerError::retryable("it is stuck"));
        }
        Ok(To::topic(self.topic).key_opt(record.key_bytes()).value_opt(record.value_bytes()).into())
    }
}

/// The messages of the other keys from the first output on, as long as the one key fails.
fn others(records: &[OwnedRecord], args: &Args) -> u64 {
    let first = records.iter().filter_map(|record| record.timestamp).min().unwrap_or(0);
    let end = first + i64::try_from(args.seconds * 1_000).unwrap_or(i64::MAX);
    let is_other = |record: &&OwnedRecord| record.key.as_deref() != Some(STUCK.as_bytes());
    let in_time = |record: &&OwnedRecord| record.timestamp.is_some_and(|time| time < end);
    records.iter().filter(is_other).filter(in_time).count() as u64
}

/// The messages of a key are every so many of all: each must follow the one before it.
fn is_exact(records: &[OwnedRecord], args: &Args) -> bool {
    let mut next: HashMap<u64, u64> = HashMap::new();
    for record in records {
        let number = record.value.as_deref().and_then(|value| std::str::from_utf8(value).ok());
        let Some(number) = number.and_then(|number| number.parse::<u64>().ok()) else {
            return false;
        };
        let key = number % args.keys;
        let expected = next.insert(key, number + args.keys).unwrap_or(key);
        if expected != number || record.key.as_deref() != Some(format!("key-{key}").as_bytes()) {
            return false;
        }
    }
    records.len() as u64 == args.messages()
}
