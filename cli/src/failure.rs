//! How the command ends when it fails: an exit code, and one line that says what to do.

use std::fmt::Display;
use std::process::ExitCode;

use countersign::RunError;
use countersign::kafka::{ErrorKind, KafkaError};
use countersign::store::StoreError;

/// The exit codes, for every help text.
pub(crate) const HELP: &str = "\
Exit codes:
    0  done
    1  internal error, no thread to be had, or a client of Kafka failed for good
    2  usage or configuration
    3  Kafka cannot be reached, hangs, or does not authorise it
    4  store: missing, locked, damaged, or of another cluster, group, instance or format
    5  fenced: another process took over the same id
    6  stopped by policy: a message failed for good, or a committed offset cannot be worked with
    7  refused: the message is in no state for what was ordered; nothing was done
    8  owned elsewhere: only the instance that owns the partition can do it; nothing was done
    9  not known: the order was given, and no answer came
  130  aborted by a second signal; the next start takes up what was under way";

/// Why the command ends; other tools rely on the numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    Internal = 1,
    Usage = 2,
    Kafka = 3,
    Store = 4,
    Fenced = 5,
    Policy = 6,
    Refused = 7,
    Elsewhere = 8,
    Unknown = 9,
    Aborted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// A failed command.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    /// What went wrong, where, and what to do, in one line.
    pub(crate) message: String,
}

impl Failure {
    pub(crate) fn new(exit: Exit, message: impl Display) -> Self {
        let message = message.to_string();
        let lines: Vec<&str> = message.lines().map(str::trim).collect();
        Self { exit, message: lines.join(" ") }
    }

    /// A question to Kafka failed.
    pub(crate) fn kafka(error: KafkaError) -> Self {
        Self::from(RunError::from(error))
    }

    pub(crate) fn internal(message: impl Display) -> Self {
        Self::new(Exit::Internal, message)
    }

    pub(crate) fn usage(message: impl Display) -> Self {
        Self::new(Exit::Usage, message)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::new(Exit::Store, error)
    }
}

impl From<RunError> for Failure {
    fn from(error: RunError) -> Self {
        let (exit, hint) = judge(&error);
        match hint {
            Some(hint) => Self::new(exit, format!("{error}; {hint}")),
            None => Self::new(exit, error),
        }
    }
}

/// The exit code of an error, and what to do where its own words do not say it.
fn judge(error: &RunError) -> (Exit, Option<&'static str>) {
    match error {
        RunError::Config(error) if error.kind == ErrorKind::UnknownTopic => {
            (Exit::Usage, Some("check the name, or create the topic first"))
        }
        RunError::Config(_) | RunError::Setting(_) => (Exit::Usage, None),
        RunError::Unreachable { .. } | RunError::Hung { .. } => (Exit::Kafka, None),
        RunError::NotAuthorized(_) => {
            let hint = "check the credentials (-X sasl.*) and the rights to the group, the topics \
                        and the transactional ids";
            (Exit::Kafka, Some(hint))
        }
        RunError::Store(_) => (Exit::Store, None),
        RunError::Fenced { .. } => (Exit::Fenced, None),
        RunError::Message { .. } => {
            (Exit::Policy, Some("remove the cause and start again: the message is not passed over"))
        }
        RunError::PoisonPill { .. } => {
            let hint =
                "give --dead-letters a topic; or mend the handler and raise --max-deliveries";
            (Exit::Policy, Some(hint))
        }
        RunError::Breaker { .. } => {
            (Exit::Policy, Some("see why; what was given up before is in the dead letters"))
        }
        RunError::Position { .. } => (Exit::Policy, None),
        RunError::OutOfRange { .. } => {
            let hint = "set a committed offset with kafka-consumer-groups --reset-offsets";
            (Exit::Policy, Some(hint))
        }
        RunError::Aborted => (Exit::Aborted, None),
        RunError::Kafka(error) => (of_kafka(error), None),
        RunError::Panicked { .. } => {
            let hint = "report it; nothing is lost or doubled, and the next start goes on";
            (Exit::Internal, Some(hint))
        }
        RunError::Protocol(_) | RunError::Thread { .. } | _ => (Exit::Internal, None),
    }
}

fn of_kafka(error: &KafkaError) -> Exit {
    if error.is_connection() { Exit::Kafka } else { Exit::Internal }
}
