//! Data goes to standard output, whole; everything else goes to standard error.

use std::io::{self, Write as _};

use serde::Serialize;

use crate::failure::Failure;

/// Writes a JSON document.
pub(crate) fn json(report: &impl Serialize) -> Result<(), Failure> {
    let mut text = serde_json::to_string_pretty(report).map_err(Failure::internal)?;
    text.push('\n');
    write(&text)
}

/// Writes one JSON document per line.
pub(crate) fn lines(reports: &[impl Serialize]) -> Result<(), Failure> {
    let lines: Result<Vec<String>, _> = reports.iter().map(serde_json::to_string).collect();
    let mut text = lines.map_err(Failure::internal)?.join("\n");
    if !text.is_empty() {
        text.push('\n');
    }
    write(&text)
}

/// Writes text; a reader that has seen enough is no error.
pub(crate) fn write(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::internal(format!("standard output cannot be written: {error}")))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}
