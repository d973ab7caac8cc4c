//! How a handler says that a message failed.

use std::fmt;

use countersign_statemachine::worker::FailureClass;

/// A failed message, with what the processor should make of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandlerError {
    class: FailureClass,
    message: String,
}

impl HandlerError {
    /// Trying again may help: a service that is away, a lock that is held.
    pub fn retryable(error: impl fmt::Display) -> Self {
        Self { class: FailureClass::Retryable, message: error.to_string() }
    }

    /// Trying again cannot help: the message itself is wrong.
    pub fn permanent(error: impl fmt::Display) -> Self {
        Self { class: FailureClass::Permanent, message: error.to_string() }
    }

    /// The processor cannot go on and stops; the message stays undone.
    pub fn fatal(error: impl fmt::Display) -> Self {
        Self { class: FailureClass::Fatal, message: error.to_string() }
    }

    /// What the processor makes of it.
    pub fn class(&self) -> FailureClass {
        self.class
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
