//! One file per verb.

pub(crate) mod run;
pub(crate) mod state;
pub(crate) mod why;

use std::path::Path;

use clap::ValueEnum;
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
