//! Runs the mixed soak: kills, lost stores and failing messages on a real Kafka.

use std::error::Error;
use std::ffi::OsString;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use countersign_testkit::soak::{self, Report, Settings, worker};

/// Kills two processes in turn while they handle messages of which one in a hundred fails, and has
/// an independent reader count how each message ended. Ends with 1 where one did not end exactly
/// once, as it should have.
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
    Worker { brokers: String, instance: String, store: PathBuf },
}

fn main() -> ExitCode {
    let args = Args::parse();
    let ended = match args.worker {
        Some(Role::Worker { brokers, instance, store }) => work(brokers, instance, store),
        None => run(&args),
    };
    ended.unwrap_or_else(|error| {
        eprintln!("countersign-soak: {error}");
        ExitCode::FAILURE
    })
}

#[tokio::main]
async fn work(
    brokers: String,
    instance: String,
    store: PathBuf,
) -> Result<ExitCode, Box<dyn Error>> {
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
    worker::work(brokers, instance, store).await?;
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
        kill_interval: Duration::from_secs(args.kill_every),
        broker_away: args.broker_away.map(Duration::from_secs),
    });
    if !matches!(&report, Ok(report) if report.verdict.is_exact()) {
        eprintln!("stores and logs are left in {}", dir.display());
        drop(temporary.keep());
    }
    let report: Report = report?;
    println!("{report}");
    Ok(if report.verdict.is_exact() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
