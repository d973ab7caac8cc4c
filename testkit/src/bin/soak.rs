//! Runs the mixed soak: kills, lost stores and failing messages on a real Kafka.

use std::error::Error;
use std::ffi::OsString;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use countersign_testkit::broker::KafkaVersion;
use countersign_testkit::soak::{self, Report, Settings, Trouble, worker};

/// Kills two processes in turn while they handle messages of which one in a hundred fails, and has
/// an independent reader count how each message ended. Or restarts their brokers in turn, or leaves
/// one process alone and measures what it uses. Ends with 1 where a message did not end exactly
/// once, as it should have, an output was waited for too long, or more is used in the end.
#[derive(Debug, Parser)]
#[command(name = "countersign-soak", version, args_conflicts_with_subcommands = true)]
struct Args {
    /// How long messages are loaded, in seconds.
    #[arg(long, default_value_t = 120)]
    seconds: u64,
    /// Messages per second.
    #[arg(long, default_value = "6000")]
    rate: NonZeroU64,
    /// A process is killed every so many seconds.
    #[arg(long, default_value_t = 3)]
    kill_every: u64,
    /// The broker is killed in the middle and comes back after so many seconds.
    #[arg(long, value_name = "SECONDS")]
    broker_away: Option<u64>,
    /// How many brokers there are; topics have three replicas where there are three or more.
    #[arg(long, default_value_t = 1)]
    brokers: u16,
    /// Instead of killing processes, a broker is restarted every so many seconds: each in turn, by
    /// SIGTERM and by kill -9. No partition may then bring nothing for more than 30 s.
    #[arg(long, value_name = "SECONDS", conflicts_with_all = ["kill_every", "broker_away"])]
    restart_brokers: Option<u64>,
    /// One process, which is left alone and keeps a minute of history. Its memory, threads, file
    /// descriptors and store must in the end be within 5 % of what they were after a fifth of the
    /// time.
    #[arg(long, conflicts_with_all = ["kill_every", "broker_away", "restart_brokers"])]
    steady: bool,
    /// The version of Apache Kafka [default: 4.4.0, or 4.2.0 with --restart-brokers, since later
    /// ones lose ends of transactions by themselves then].
    #[arg(long, value_name = "VERSION")]
    kafka: Option<KafkaVersion>,
    /// A new directory, where the stores and the workers' logs are left [default: a temporary one,
    /// which is kept after a failure].
    #[arg(long)]
    dir: Option<PathBuf>,
    #[command(subcommand)]
    worker: Option<Role>,
}

#[derive(Debug, Subcommand)]
enum Role {
    /// One of the processes that are killed.
    #[command(hide = true)]
    Worker(WorkerArgs),
}

#[derive(Debug, clap::Args)]
struct WorkerArgs {
    #[arg(long)]
    history: Option<u64>,
    brokers: String,
    instance: String,
    store: PathBuf,
}

impl Args {
    fn trouble(&self) -> Trouble {
        let seconds = Duration::from_secs;
        match self.restart_brokers {
            Some(interval) => Trouble::Restarts { interval: seconds(interval) },
            None if self.steady => Trouble::Nothing,
            None => Trouble::Kills {
                interval: seconds(self.kill_every),
                broker_away: self.broker_away.map(seconds),
            },
        }
    }

    fn kafka(&self) -> KafkaVersion {
        let without_fault = self.restart_brokers.map(|_| KafkaVersion::V4_2_0);
        self.kafka.or(without_fault).unwrap_or_default()
    }
}

fn main() -> ExitCode {
    let mut args = Args::parse();
    let ended = match args.worker.take() {
        Some(Role::Worker(args)) => work(args),
        None => run(&args),
    };
    ended.unwrap_or_else(|error| {
        eprintln!("countersign-soak: {error}");
        ExitCode::FAILURE
    })
}

#[tokio::main]
async fn work(args: WorkerArgs) -> Result<ExitCode, Box<dyn Error>> {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env();
    let filter = filter.unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let log = tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false);
    log.with_env_filter(filter).init();
    std::thread::spawn(|| {
        // Whoever started this has gone.
        if std::io::copy(&mut std::io::stdin(), &mut std::io::sink()).is_ok() {
            std::process::exit(1);
        }
    });
    let history = args.history.map(Duration::from_secs);
    worker::work(args.brokers, args.instance, args.store, history).await?;
    Ok(ExitCode::SUCCESS)
}

fn run(args: &Args) -> Result<ExitCode, Box<dyn Error>> {
    let temporary = tempfile::Builder::new().prefix("countersign-soak-").tempdir()?;
    // A store that is left from another run is refused: it is of another Kafka.
    let dir = match &args.dir {
        Some(dir) => std::fs::create_dir(dir)
            .map(|()| dir.as_path())
            .map_err(|error| format!("making {}: {error}", dir.display()))?,
        None => temporary.path(),
    };
    let command = [std::env::current_exe()?.into_os_string(), OsString::from("worker")];
    let report = soak::run(&Settings {
        command: &command,
        dir,
        time: Duration::from_secs(args.seconds),
        rate: args.rate,
        brokers: args.brokers,
        kafka: args.kafka(),
        trouble: args.trouble(),
    });
    if !matches!(&report, Ok(report) if report.is_good()) {
        eprintln!("stores and logs are left in {}", dir.display());
        drop(temporary.keep());
    }
    let report: Report = report?;
    println!("{report}");
    Ok(if report.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
