//! `countersign run`: a processor with a built-in handler.

use std::pin::pin;
use std::sync::Arc;

use countersign::handler::{self, Handler};
use countersign::{Outputs, Partitioning, Processor, RunError, To};
use tokio::runtime;

use crate::exec::Exec;
use crate::failure::{self, Failure};
use crate::logging;
use crate::progress::{self, Progress};
use crate::settings::{Handling, Settings};

/// Run a processor until Ctrl-C or SIGTERM
///
/// Reads the input topics as a member of the group, runs the handler for each message, and puts
/// outputs and consumed offset into one Kafka transaction: exactly once, also after a crash. The
/// first signal finishes what is under way, the second one aborts. `RUST_LOG` sets what is logged.
#[derive(clap::Args)]
#[command(after_help = failure::HELP)]
pub(crate) struct Args {
    #[command(flatten)]
    settings: Settings,
}

pub(crate) fn run(args: Args) -> Result<(), Failure> {
    let settings = args.settings.with_file()?;
    let bar = progress::bar(settings.log_format());
    logging::start(settings.log_format(), &bar)?;
    let runtime =
        runtime::Builder::new_multi_thread().enable_all().build().map_err(Failure::internal)?;
    // Children are started on the runtime.
    let entered = runtime.enter();
    let processor = processor(&settings)?;
    drop(entered);
    let result = runtime.block_on(async {
        let progress = Progress::start(&processor, bar, settings.until_caught_up())?;
        let result = work(processor, settings.until_caught_up()).await;
        progress.end();
        result
    });
    // What is left are questions about the lag, whose answers nobody waits for any more.
    runtime.shutdown_background();
    result.map_err(|error| match error {
        RunError::Setting(error) => settings.refused(&error),
        error => error.into(),
    })
}

fn processor(settings: &Settings) -> Result<Processor, Failure> {
    let builder = Processor::builder().config(settings.processor()?);
    let builder = match settings.handler()? {
        Handling::Copy { output } => builder.handler(copy(output)),
        Handling::Exec { command, processes, deadline, output } => {
            builder.handler(Exec::start(command, processes, deadline, output)?)
        }
    };
    builder.build().map_err(|error| settings.refused(&error))
}

/// Mirrors messages: all that a reader of the input sees, a reader of the output sees.
fn copy(topic: &str) -> impl Handler + use<> {
    let topic: Arc<str> = Arc::from(topic);
    handler::each(move |message| {
        let record = message.record();
        let mut copy = To::topic(Arc::clone(&topic))
            .key_opt(record.key_bytes())
            .value_opt(record.value_bytes())
            .headers(record.headers())
            .partitioning(Partitioning::AsInput);
        if let Some(timestamp) = record.timestamp() {
            copy = copy.timestamp(timestamp);
        }
        std::future::ready(Ok(Outputs::one(copy)))
    })
}

/// Runs until a signal, an error, or, if that is wanted, until the group has caught up.
async fn work(processor: Processor, until_caught_up: bool) -> Result<(), RunError> {
    let handle = processor.handle();
    let caught_up = processor.shut_down_when_caught_up();
    let mut run = pin!(processor.run_until_signal());
    if !until_caught_up {
        return run.await;
    }
    tokio::select! {
        result = &mut run => return result,
        watched = caught_up => match watched {
            Ok(()) => tracing::info!("caught up"),
            Err(error) => {
                handle.shut_down();
                // Why it could not be watched tells more than how the rest of it ended.
                let _ = run.await;
                return Err(error);
            }
        },
    }
    run.await
}
