//! What an operator orders about one message: pass over it, try it now, make a dead letter of it.
//!
//! There are two ways. While the message has an owner, the order goes to it through a socket beside
//! its store ([`ask`]), and rides in its next transaction. While the group has no member, the order
//! is carried out here, by a transaction that has the offset and nothing else but the dead letter
//! ([`intervene`]). Nothing is done to a group with members but by the owner. `docs/control.md` has
//! the protocol of the socket.

mod absent;
mod client;
#[cfg(not(unix))]
mod no_server;
mod protocol;
mod record;
#[cfg(unix)]
mod server;

pub use absent::{Absent, AbsentError, intervene};
pub use client::{AskError, ask};
pub use countersign_statemachine::Verb;
pub use protocol::{Answer, LINE_BYTES_MAX, REASON_BYTES_MAX, Request, VERSION, Why};
pub use record::{RecordError, record};

#[cfg(not(unix))]
pub(crate) use no_server::Server;
#[cfg(unix)]
pub(crate) use server::Server;

use std::path::{Path, PathBuf};

/// What the name of an author begins with that is no instance.
pub(crate) const OPERATOR_PREFIX: &str = "operator:";

/// The name of the socket in the store's directory.
const SOCKET: &str = "control.sock";

/// So many bytes of a path fit the address of a socket everywhere.
const PATH_BYTES_MAX: usize = 100;

/// Where the owner of a store listens; `None` if the store's path is too long for that.
fn socket_of(store: &Path) -> Option<PathBuf> {
    let path = store.join(SOCKET);
    (path.as_os_str().len() <= PATH_BYTES_MAX).then_some(path)
}
