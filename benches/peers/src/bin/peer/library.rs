//! Countersign as a service embeds it.

use std::error::Error;
use std::future::ready;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use countersign::handler::{self, Handler};
use countersign::kafka::librdkafka::{ClusterConfig, Compression, LibrdKafka};
use countersign::simulation::{self, Host};
use countersign::statemachine::{Backoff, Retries};
use countersign::store::{MemoryImage, MemoryStore};
use countersign::{
    Config, HandlerError, Message, Order, Outputs, Partitioning, Processor, RunError, To,
};

use crate::client::{Codec, Options};

/// How long a failed message waits before it is tried again.
const RETRY: Duration = Duration::from_millis(1);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    options: Options,
    /// Leave out the provenance header, which no other peer adds
    #[arg(long)]
    no_provenance: bool,
    /// End once the group has caught up, rather than by a signal
    #[arg(long)]
    until_caught_up: bool,
    /// Keep the store in memory, and no history
    #[arg(long)]
    untracked: bool,
    /// Members of the group
    #[arg(long, default_value_t = 1)]
    workers: u32,
    /// Fail the first attempt at every so many messages; then they are handled in any order
    #[arg(long, default_value_t = 0)]
    fail_every: u64,
    /// How long a handler waits; then messages are handled in any order
    #[arg(long, default_value_t = 0, conflicts_with = "fail_every")]
    handler_ms: u64,
    /// Handlers in flight
    #[arg(long, default_value_t = 128)]
    concurrency: u32,
}

pub(crate) fn run(args: &Args) -> Result<(), Box<dyn Error>> {
    let options = &args.options;
    let builder = Processor::builder().config(config(args));
    let processor = match (args.handler_ms, args.fail_every) {
        (0, 0) => builder.handler(copy(&options.output)).build()?,
        (0, every) => builder.handler(failing_copy(&options.output, every)).build()?,
        (pause, _) => builder.handler(slow_copy(&options.output, pause)).build()?,
    };
    let runtime = tokio::runtime::Runtime::new()?;
    let result = runtime.block_on(async {
        // Without it the processor runs until the process is ended.
        let caught_up = args.until_caught_up.then(|| processor.shut_down_when_caught_up());
        let mut run = pin!(start(processor, args));
        if let Some(caught_up) = caught_up {
            tokio::select! {
                result = &mut run => return result,
                watched = caught_up => watched?,
            }
        }
        run.await
    });
    runtime.shutdown_background();
    Ok(result?)
}

async fn start(processor: Processor, args: &Args) -> Result<(), RunError> {
    if !args.untracked {
        return processor.run().await;
    }
    let cluster = cluster(&args.options);
    let kafka = Arc::new(LibrdKafka::new(cluster).map_err(RunError::Setting)?);
    let store = Box::new(MemoryStore::new(MemoryImage::shared()));
    simulation::run(processor, kafka, Host::Threads, store, 1, None).await
}

fn config(args: &Args) -> Config {
    let options = &args.options;
    let mut config = Config::new(cluster(options), &options.state_dir);
    config.outputs = vec![options.output.clone()];
    config.commit_interval = Duration::from_millis(options.commit_interval_ms);
    config.provenance = !args.no_provenance;
    config.workers = args.workers;
    config.concurrency = args.concurrency;
    if args.handler_ms > 0 || args.fail_every > 0 {
        config.order = Order::None;
        config.retry = Retries::from(Backoff { base: RETRY, ..Backoff::default() });
    }
    if options.transaction_records > 0 {
        config.transaction_records = options.transaction_records;
    }
    if args.untracked {
        config.history = Duration::ZERO;
    }
    config
}

fn cluster(options: &Options) -> ClusterConfig {
    let mut cluster = ClusterConfig::new(&options.brokers, &options.group, [&options.input]);
    cluster.compression = match options.compression {
        Codec::None => Compression::None,
        Codec::Lz4 => Compression::Lz4,
    };
    cluster
}

fn copy(topic: &str) -> impl Handler + use<> {
    let topic: Arc<str> = Arc::from(topic);
    handler::each(move |message| ready(Ok(Outputs::one(copy_of(&message, &topic)))))
}

/// As one that asks somebody else and waits for the answer.
fn slow_copy(topic: &str, pause_ms: u64) -> impl Handler + use<> {
    let topic: Arc<str> = Arc::from(topic);
    handler::each(move |message| {
        let copy = copy_of(&message, &topic);
        async move {
            tokio::time::sleep(Duration::from_millis(pause_ms)).await;
            Ok(Outputs::one(copy))
        }
    })
}

/// As one that succeeds when it is asked again.
fn failing_copy(topic: &str, every: u64) -> impl Handler + use<> {
    let topic: Arc<str> = Arc::from(topic);
    handler::each(move |message| {
        let fails = message.offset() % every == 0 && message.attempt() == 1;
        ready(if fails {
            Err(HandlerError::retryable("the first attempt"))
        } else {
            Ok(Outputs::one(copy_of(&message, &topic)))
        })
    })
}

fn copy_of(message: &Message, topic: &Arc<str>) -> To {
    let record = message.record();
    let mut copy = To::topic(Arc::clone(topic))
        .key_opt(record.key_bytes())
        .value_opt(record.value_bytes())
        .partitioning(Partitioning::AsInput);
    if let Some(timestamp) = record.timestamp() {
        copy = copy.timestamp(timestamp);
    }
    copy
}
