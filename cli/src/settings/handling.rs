//! What is done with each message.

use std::time::Duration;

use clap::ValueEnum;
use serde::Deserialize;

use super::Settings;
use crate::exec::{self, Command};
use crate::failure::Failure;

/// A built-in handler.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum HandlerName {
    /// Same key, value, headers and timestamp; same partition if the topics have as many
    Copy,
    /// Whatever the command of `--exec` answers
    Exec,
}

/// A handler with what it needs.
#[derive(Debug)]
pub(crate) enum Handling<'a> {
    Copy { output: &'a str },
    Exec { command: Command, processes: u32, deadline: Duration, output: &'a str },
}

impl Settings {
    /// What is done with each message.
    pub(crate) fn handler(&self) -> Result<Handling<'_>, Failure> {
        let output = self.output.as_deref().unwrap_or_default();
        match (self.handler.unwrap_or(HandlerName::Copy), output, &self.exec) {
            (HandlerName::Copy, _, Some(_)) => {
                Err(Failure::usage("--exec: it is for --handler exec; add that"))
            }
            (HandlerName::Exec, _, None) => {
                Err(Failure::usage("--handler exec: give the command as --exec COMMAND"))
            }
            (HandlerName::Copy, [output], None) => Ok(Handling::Copy { output }),
            (HandlerName::Exec, [output, ..], Some(line)) => Ok(Handling::Exec {
                command: Command::parse(line)?,
                processes: self.exec_processes.unwrap_or(1),
                deadline: self.deadline.map_or(exec::DEADLINE, |it| it.0),
                output,
            }),
            (HandlerName::Copy, _, None) => {
                Err(Failure::usage("--output: the handler copy writes to one topic"))
            }
            (HandlerName::Exec, [], Some(_)) => Err(self.missing()),
        }
    }
}
