//! How a handler says that a message failed.

use std::fmt;
use std::sync::Arc;

use countersign_statemachine::Reason;
use countersign_statemachine::worker::{Failure, FailureKind};

/// A failed message, with what the processor should make of it.
///
/// ```
/// use countersign::HandlerError;
///
/// let error = HandlerError::retryable("the service is busy").class("http-503");
/// assert_eq!(error.class_name(), Some("http-503"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandlerError {
    reason: Reason,
    kind: FailureKind,
    class: Option<Arc<str>>,
    message: String,
}

impl HandlerError {
    fn new(reason: Reason, kind: FailureKind, error: impl fmt::Display) -> Self {
        Self { reason, kind, class: None, message: error.to_string() }
    }

    /// Trying again may help: a service that is away, a lock that is held.
    pub fn retryable(error: impl fmt::Display) -> Self {
        Self::new(Reason::Error, FailureKind::Retryable, error)
    }

    /// Trying again cannot help: the message itself is wrong.
    pub fn permanent(error: impl fmt::Display) -> Self {
        Self::new(Reason::Error, FailureKind::Permanent, error)
    }

    /// The processor cannot go on and stops; the message stays undone.
    pub fn fatal(error: impl fmt::Display) -> Self {
        Self::new(Reason::Error, FailureKind::Fatal, error)
    }

    /// The handler itself noticed that it took too long: a missed deadline, which is retryable.
    pub fn deadline(error: impl fmt::Display) -> Self {
        Self::new(Reason::Deadline, FailureKind::Retryable, error)
    }

    /// Gives the error a class, by any name: retry policies are chosen by it, and dead letters are
    /// found by it. Use few names: one for each way in which messages fail.
    #[must_use]
    pub fn class(self, name: impl Into<Arc<str>>) -> Self {
        Self { class: Some(name.into()).filter(|name| !name.is_empty()), ..self }
    }

    /// What the processor makes of it.
    pub fn kind(&self) -> FailureKind {
        self.kind
    }

    /// The name of its class, if it was given one.
    pub fn class_name(&self) -> Option<&str> {
        self.class.as_deref()
    }
}

impl From<HandlerError> for Failure {
    fn from(error: HandlerError) -> Self {
        let HandlerError { reason, kind, class, message } = error;
        Self { reason, kind, class, message }
    }
}

impl fmt::Display for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// Any error may be returned with `?` and is retryable; [`HandlerError::permanent`] says otherwise.
impl<E: std::error::Error> From<E> for HandlerError {
    fn from(error: E) -> Self {
        let mut message = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            message.push_str(": ");
            message.push_str(&cause.to_string());
            source = cause.source();
        }
        Self::retryable(message)
    }
}

/// A failed message of a batch. The messages before it are done as well as those after it are not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchError {
    /// The outputs of the messages before the failed one, in order.
    pub done: Vec<super::Outputs>,
    /// What is wrong with the failed one.
    pub error: HandlerError,
}
