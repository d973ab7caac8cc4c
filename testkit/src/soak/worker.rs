//! The process that is killed: the library, embedded, with a handler that does what messages say.

use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Duration;

use bytes::Bytes;
use countersign::kafka::librdkafka::{ClusterConfig, SettingError};
use countersign::statemachine::Backoff;
use countersign::{
    Config, HandlerError, Message, Order, Outputs, Processor, RunError, To, handler,
};
use thiserror::Error;

use super::log::{INPUT, LETTERS, Value};
use super::plan::{ATTEMPTS, Fault, OUTPUTS, Plan};

/// The consumer group.
pub const GROUP: &str = "soak";

/// How long a handler may take. Only those that never come back take longer, however busy the
/// machine is: one that waits for a moment has answered when both are over.
const DEADLINE: Duration = Duration::from_millis(200);

/// Larger than a topic takes by default.
static TOO_LARGE: LazyLock<Bytes> = LazyLock::new(|| Bytes::from(vec![b'.'; 1_100_000]));

/// Why a worker ended.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum WorkerError {
    /// A setting cannot be used.
    #[error(transparent)]
    Setting(#[from] SettingError),
    /// It stopped.
    #[error(transparent)]
    Run(#[from] RunError),
}

/// Processes until a signal comes.
///
/// # Errors
/// The processor cannot be built, or stops by itself.
pub async fn work(brokers: String, instance: String, store: PathBuf) -> Result<(), WorkerError> {
    let mut config = Config::new(ClusterConfig::new(brokers, GROUP, [INPUT]), store);
    config.instance = instance;
    config.outputs = OUTPUTS.map(str::to_owned).to_vec();
    // The broker may be away when a process starts.
    config.connect_timeout = Duration::from_secs(300);
    let (base, max) = (Duration::from_millis(20), Duration::from_millis(500));
    let processor = Processor::builder()
        .config(config)
        .order(Order::Key)
        .attempts(ATTEMPTS)
        .retry(Backoff { base, max, ..Backoff::default() })
        .deadline(DEADLINE)
        .dead_letters(LETTERS)
        // While it is open failures are not counted, and the check counts them.
        .breaker(None)
        .handler(handler::json(handle))
        .build()?;
    Ok(processor.run_until_signal().await?)
}

async fn handle(message: Message<Plan>) -> Result<Outputs, HandlerError> {
    let (plan, attempt) = (message.value(), message.attempt());
    tokio::time::sleep(Duration::from_millis(plan.pause_ms)).await;
    let is_too_large = match plan.fault(attempt) {
        Some(Fault::Retryable) => return Err(HandlerError::retryable("not yet")),
        Some(Fault::Permanent) => return Err(HandlerError::permanent("never")),
        Some(Fault::Panic) => panic!("message {} panics", plan.index),
        Some(Fault::Deadline) => std::future::pending().await,
        Some(Fault::TooLarge) => true,
        Some(Fault::Undecodable) => return Err(HandlerError::fatal("it was decoded")),
        None => false,
    };
    let mut outputs = Outputs::none();
    for (topic, is_wanted) in OUTPUTS.into_iter().zip(plan.outputs) {
        let output = To::topic(topic).key(plan.key());
        if is_wanted {
            outputs.push(output.json(&Value { index: plan.index, attempt })?);
        }
    }
    if is_too_large {
        outputs.push(To::topic(OUTPUTS[0]).value(TOO_LARGE.clone()));
    }
    Ok(outputs)
}
