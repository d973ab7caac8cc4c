//! The handler `exec`: messages go to child processes as lines of JSON, and answers come back.
//!
//! A child has one message at a time, so that whatever goes wrong with it is that message's failure
//! and nobody else's: a child that ends, writes rubbish or is too slow is killed, and the next
//! message gets a new one. The protocol is on one page, `docs/exec.md`.

mod child;
mod pool;
mod protocol;

use std::ffi::OsString;
use std::sync::Arc;

use countersign::Outputs;
use countersign::handler::{Handler, HandlerError, Message};

use crate::failure::Failure;
use pool::Pool;
use protocol::{Answer, Request};

/// A command with its arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Command {
    pub(crate) program: OsString,
    pub(crate) args: Vec<OsString>,
}

impl Command {
    /// Splits a line into words as a shell does; nothing else of a shell is done.
    ///
    /// # Errors
    /// There is no word, or a quotation has no end.
    pub(crate) fn parse(line: &str) -> Result<Self, Failure> {
        let words = shlex::split(line).unwrap_or_default();
        let mut words = words.into_iter().map(OsString::from);
        let Some(program) = words.next() else {
            let why = "it is no command: there is no word, or a quotation has no end";
            return Err(Failure::usage(format!("--exec {line:?}: {why}")));
        };
        Ok(Self { program, args: words.collect() })
    }
}

/// Hands messages to child processes.
pub(crate) struct Exec {
    pool: Pool,
    /// Where outputs go that name no topic.
    topic: Arc<str>,
}

impl Exec {
    /// Starts the first child, so that a command that does not exist is known at once.
    ///
    /// # Errors
    /// The command cannot be started.
    pub(crate) fn start(command: Command, processes: u32, topic: &str) -> Result<Self, Failure> {
        let shown = command.program.to_string_lossy().into_owned();
        let pool = Pool::start(command, processes).map_err(|error| {
            Failure::usage(format!("--exec {shown:?}: it cannot be started: {error}"))
        })?;
        Ok(Self { pool, topic: topic.into() })
    }
}

impl Handler for Exec {
    async fn handle(&self, message: Message) -> Result<Outputs, HandlerError> {
        let (mut seat, id) = self.pool.seat().await.map_err(HandlerError::fatal)?;
        let request = Request::new(id, &message).line();
        // Dropped before its answer, by a deadline or a shutdown, the child is killed with it.
        let answer = seat.child().ask(request).await.map_err(HandlerError::retryable)?;
        let answer = Answer::parse(&answer, id).map_err(HandlerError::retryable)?;
        seat.keep();
        answer.outputs(&self.topic)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_split_as_a_shell_does() {
        let command = Command::parse("python3 'my handler.py' --fast").expect("three words");
        assert_eq!(command.program, "python3");
        assert_eq!(command.args, ["my handler.py", "--fast"]);
    }

    #[test]
    fn what_is_no_command_is_refused() {
        for line in ["", "  ", "sh -c 'half"] {
            assert!(Command::parse(line).is_err(), "{line:?}");
        }
    }
}
