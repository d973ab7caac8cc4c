//! Countersign as a service embeds it.

use std::error::Error;
use std::future::ready;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use countersign::handler::{self, Handler};
use countersign::kafka::librdkafka::{ClusterConfig, Compression};
use countersign::{Config, Outputs, Partitioning, Processor, RunError, To};

use crate::client::Options;

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
}

pub(crate) fn run(args: &Args) -> Result<(), Box<dyn Error>> {
    let options = &args.options;
    let processor =
        Processor::builder().config(config(args)?).handler(copy(&options.output)).build()?;
    let runtime = tokio::runtime::Runtime::new()?;
    let result = runtime.block_on(work(processor, args.until_caught_up));
    runtime.shutdown_background();
    Ok(result?)
}

fn config(args: &Args) -> Result<Config, Box<dyn Error>> {
    let options = &args.options;
    let mut cluster = ClusterConfig::new(&options.brokers, &options.group, [&options.input]);
    cluster.linger_ms = options.linger_ms;
    cluster.compression = match options.compression.as_str() {
        "none" => Compression::None,
        "lz4" => Compression::Lz4,
        other => return Err(format!("no compression {other:?}").into()),
    };
    let mut config = Config::new(cluster, &options.state_dir);
    config.outputs = vec![options.output.clone()];
    config.commit_interval = Duration::from_millis(options.commit_interval_ms);
    config.provenance = !args.no_provenance;
    if options.transaction_records > 0 {
        config.transaction_records = options.transaction_records;
    }
    Ok(config)
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

async fn work(processor: Processor, until_caught_up: bool) -> Result<(), RunError> {
    if !until_caught_up {
        return processor.run_until_signal().await;
    }
    let caught_up = processor.shut_down_when_caught_up();
    let mut run = pin!(processor.run());
    tokio::select! {
        result = &mut run => return result,
        watched = caught_up => watched?,
    }
    run.await
}
