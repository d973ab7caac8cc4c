//! Runs a local Kafka for demos and for tests that are not written in Rust.

use std::io::{self, Read as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;

use clap::Parser;
use countersign_testkit::broker::{
    KafkaVersion, LocalCluster, LocalKafka, LocalKafkaError, LocalKafkaOptions,
};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

/// Starts Apache Kafka on loopback, prints `bootstrap=HOST:PORT` (of several brokers separated by
/// commas), and stops it on SIGTERM, Ctrl-C or the end of standard input.
#[derive(Debug, Parser)]
#[command(name = "countersign-local-kafka", version)]
struct Args {
    /// A topic to create; may be repeated.
    #[arg(long = "topic", value_name = "NAME:PARTITIONS")]
    topics: Vec<TopicArg>,
    /// How many brokers; topics have three replicas where there are three or more.
    #[arg(long, default_value_t = 1)]
    brokers: u16,
    /// The version of Apache Kafka: 4.2.0 or 4.4.0.
    #[arg(long, value_name = "VERSION", default_value_t)]
    kafka: KafkaVersion,
    /// The port for clients of the first broker; those of others follow [default: free ones].
    #[arg(long)]
    port: Option<u16>,
    /// Where to keep data and log [default: a temporary directory, removed in the end].
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// A broker setting; may be repeated.
    #[arg(long = "property", value_name = "NAME=VALUE")]
    properties: Vec<PropertyArg>,
    /// Go on when standard input ends, for use in the background of a script.
    #[arg(long)]
    ignore_stdin: bool,
}

#[derive(Debug, Clone)]
struct TopicArg {
    name: String,
    partitions: u32,
}

impl FromStr for TopicArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, partitions) = text.rsplit_once(':').ok_or("must be NAME:PARTITIONS")?;
        let partitions = partitions.parse().map_err(|error| format!("{partitions}: {error}"))?;
        Ok(Self { name: name.to_owned(), partitions })
    }
}

#[derive(Debug, Clone)]
struct PropertyArg {
    name: String,
    value: String,
}

impl FromStr for PropertyArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, value) = text.split_once('=').ok_or("must be NAME=VALUE")?;
        Ok(Self { name: name.to_owned(), value: value.to_owned() })
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    match run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report(error.as_ref());
            ExitCode::FAILURE
        }
    }
}

fn report(error: &dyn std::error::Error) {
    eprintln!("error: {error}");
    let mut source = error.source();
    while let Some(cause) = source {
        eprintln!("  because: {cause}");
        source = cause.source();
    }
}

fn run(args: Args) -> Result<(), Box<dyn std::error::Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let ended = {
        let _entered = runtime.enter();
        // Before the broker starts, so that a signal during the start is not lost.
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?)
    };
    let stdin_end = watch_stdin(args.ignore_stdin);
    let cluster = start(args)?;
    let mut stdout = io::stdout();
    writeln!(stdout, "bootstrap={}", cluster.bootstrap())?;
    stdout.flush()?;
    runtime.block_on(async {
        let (mut terminate, mut interrupt) = ended;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            () = stdin_end => {}
        }
    });
    // The first may be the only controller, without which the others do not end in order.
    cluster.brokers().iter().rev().try_for_each(LocalKafka::stop)?;
    Ok(())
}

fn start(args: Args) -> Result<LocalCluster, LocalKafkaError> {
    let mut options = LocalKafkaOptions {
        version: args.kafka,
        port: args.port,
        dir: args.data,
        ..LocalKafkaOptions::default()
    };
    for PropertyArg { name, value } in args.properties {
        options = options.property(name, value);
    }
    let cluster = LocalCluster::start(args.brokers, &options)?;
    for TopicArg { name, partitions } in args.topics {
        cluster.create_topic(&name, partitions)?;
    }
    Ok(cluster)
}

/// Ends when standard input does. A thread of its own reads it, since that cannot be cancelled.
fn watch_stdin(ignored: bool) -> impl Future<Output = ()> {
    let (ended, end) = oneshot::channel::<()>();
    if !ignored {
        std::thread::spawn(move || {
            let mut buffer = [0; 512];
            while io::stdin().read(&mut buffer).is_ok_and(|count| count > 0) {}
            drop(ended);
        });
        return futures::future::Either::Left(async { drop(end.await) });
    }
    futures::future::Either::Right(std::future::pending())
}
