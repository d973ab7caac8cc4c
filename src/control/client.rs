//! The end of the socket where the operator is.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use thiserror::Error;

use super::{Answer, Request};

/// Why there is no answer.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AskError {
    /// Nobody listens.
    #[error("no processor runs on the store at {}", store.display())]
    NoProcessor {
        /// The store.
        store: PathBuf,
    },
    /// The path is too long for a socket.
    #[error(
        "the path of the store at {} is too long for a socket in it: its processor cannot be \
         reached; give the store a shorter path",
        store.display()
    )]
    PathTooLong {
        /// The store.
        store: PathBuf,
    },
    /// There are no such sockets here.
    #[error("a running processor can be reached on Unix only; stop it, and order it then")]
    Unsupported,
    /// The processor took the order, and did not say in time what became of it.
    #[error(
        "no answer within {waited:?}: the order stands, and it is not known whether it is done"
    )]
    NoAnswer {
        /// How long was waited.
        waited: Duration,
    },
    /// The connection failed after the order was sent.
    #[error("the processor did not answer, and it is not known whether it is done: {0}")]
    Lost(io::Error),
}

/// Sends an order to the processor that runs on a store, and waits for what becomes of it.
///
/// # Errors
/// [`AskError`]; only [`NoAnswer`](AskError::NoAnswer) and [`Lost`](AskError::Lost) leave open
/// whether something was done.
#[cfg(unix)]
pub fn ask(store: &Path, request: &Request, patience: Duration) -> Result<Answer, AskError> {
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::os::unix::net::UnixStream;

    let path = || store.to_owned();
    let Some(socket) = super::socket_of(store) else {
        return Err(AskError::PathTooLong { store: path() });
    };
    let Ok(mut stream) = UnixStream::connect(socket) else {
        return Err(AskError::NoProcessor { store: path() });
    };
    let mut line = serde_json::to_vec(request).map_err(|error| AskError::Lost(error.into()))?;
    line.push(b'\n');
    let mut answer = String::new();
    let exchange = || {
        stream.set_read_timeout(Some(patience))?;
        stream.write_all(&line)?;
        BufReader::new(&stream).read_line(&mut answer)
    };
    match { exchange }() {
        Ok(0) => Err(AskError::Lost(io::ErrorKind::UnexpectedEof.into())),
        Ok(_) => serde_json::from_str(&answer).map_err(|error| AskError::Lost(error.into())),
        Err(error)
            if [io::ErrorKind::WouldBlock, io::ErrorKind::TimedOut].contains(&error.kind()) =>
        {
            Err(AskError::NoAnswer { waited: patience })
        }
        Err(error) => Err(AskError::Lost(error)),
    }
}

/// Sends an order to the processor that runs on a store.
///
/// # Errors
/// [`AskError::Unsupported`].
#[cfg(not(unix))]
pub fn ask(_: &Path, _: &Request, _: Duration) -> Result<Answer, AskError> {
    Err(AskError::Unsupported)
}
