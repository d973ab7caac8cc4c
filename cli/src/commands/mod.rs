//! One file per verb.

pub(crate) mod dead_letters;
pub(crate) mod intervene;
pub(crate) mod run;
pub(crate) mod state;
pub(crate) mod why;

use std::path::Path;
use std::str::FromStr;

use clap::ValueEnum;
use countersign::inspection;
use countersign::store::{Journal, StoreError, open_sled_for_inspection};

use crate::failure::{Exit, Failure};

/// How a report is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Table,
    /// For programs: one JSON document.
    Json,
}

/// A message, such as `orders/3@12345`.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) topic: String,
    pub(crate) partition: u32,
    pub(crate) offset: u64,
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (topic, partition, offset) = inspection::parse_target(text)
            .ok_or("name a message as TOPIC/PARTITION@OFFSET, such as orders/3@12345")?;
        Ok(Self { topic: topic.to_owned(), partition, offset })
    }
}

/// Opens the store of a processor that does not run.
fn journal(store: &Path) -> Result<Journal, Failure> {
    let open = || Journal::inspect(Box::new(open_sled_for_inspection(store)?));
    open().map_err(|error| match error {
        StoreError::Locked { path } => {
            let path = path.display();
            let what = format!(
                "the store at {path} is locked: a running processor holds it; stop that, or ask \
                 when it has ended"
            );
            Failure::new(Exit::Store, what)
        }
        other => other.into(),
    })
}
