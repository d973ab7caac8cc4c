//! Countersign as a service embeds it.

use std::error::Error;
use std::future::ready;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use countersign::handler::{self, Handler};
use countersign::kafka::librdkafka::{ClusterConfig, Compression, LibrdKafka};
use countersign::simulation::{self, Host};
use countersign::store::{MemoryImage, MemoryStore};
use countersign::{Config, Outputs, Partitioning, Processor, RunError, To};

use crate::client::{Codec, Options};

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
}

pub(crate) fn run(args: &Args) -> Result<(), Box<dyn Error>> {
    let options = &args.options;
    let processor =
        Processor::builder().config(config(args)).handler(copy(&options.output)).build()?;
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
    handler::each(move |message| {
        let record = message.record();
        let mut copy = To::topic(Arc::clone(&topic))
            .key_opt(record.key_bytes())
            .value_opt(record.value_bytes())
            .partitioning(Partitioning::AsInput);
        if let Some(timestamp) = record.timestamp() {
            copy = copy.timestamp(timestamp);
        }
        ready(Ok(Outputs::one(copy)))
    })
}
