//! The end of the socket where the owner is.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use countersign_statemachine::worker::Obstacle;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::oneshot;
use tokio::task::{JoinError, JoinHandle, JoinSet};
use tokio::time::timeout;

use super::protocol::{Answer, LINE_BYTES_MAX, Request, Why};
use super::{SOCKET, socket_of};
use crate::driver::{Clerk, Declined, Desk, Failing, Scout, Wish, unless_it_panics};
use crate::kafka::TopicPartition;

/// How many may ask at once; others wait.
const CLIENTS_MAX: usize = 16;

/// How long a client may be silent.
const SILENCE: Duration = Duration::from_secs(60);

/// How long answers that are on their way are waited for in the end.
const PATIENCE: Duration = Duration::from_secs(1);

/// What is needed to carry orders out.
#[derive(Debug, Clone)]
struct Office {
    desk: Desk,
    clerk: Clerk,
    scout: Scout,
}

/// Listens until its end; the socket's file is gone then.
#[derive(Debug)]
pub(crate) struct Server {
    socket: PathBuf,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Server {
    /// Listens beside a store that is open: its lock proves that whoever made a socket that is
    /// there is gone. Without a socket the processor works as well; it says so and goes on.
    /// A panic of it ends the run.
    pub(crate) fn start(
        store: &Path,
        desk: Desk,
        (clerk, scout): (Clerk, Scout),
        failing: Failing,
    ) -> Option<Self> {
        let Some(socket) = socket_of(store) else {
            tracing::warn!(
                store = %store.display(),
                "the store's path is too long for a socket in it: skip, retry and dead-letter \
                 cannot reach this process"
            );
            return None;
        };
        match listen(&socket) {
            Ok(listener) => {
                let (stop, stopped) = oneshot::channel();
                let office = Arc::new(Office { desk, clerk, scout });
                let task = tokio::spawn(async move {
                    let serving = serve(listener, office, stopped);
                    if let Err(error) = unless_it_panics("control", serving).await {
                        failing.fail(error);
                    }
                });
                Some(Self { socket, stop, task })
            }
            Err(error) => {
                let socket = socket.display();
                let told = "no socket for orders of operators";
                tracing::warn!(%socket, %error, "{told}");
                None
            }
        }
    }

    /// Ends it, after the answers that are on their way.
    pub(crate) async fn end(server: Option<Self>) {
        let Some(Self { socket, stop, task }) = server else { return };
        // Somebody else may have removed it.
        let _ = fs::remove_file(socket);
        // It may have ended by itself.
        let _ = stop.send(());
        let _ = task.await;
    }
}

/// Nobody else may ever connect, so that the file gets its name when it has its rights.
fn listen(socket: &Path) -> io::Result<UnixListener> {
    let new = socket.with_file_name(format!("{SOCKET}.new"));
    for stale in [socket, &new] {
        match fs::remove_file(stale) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    let listener = UnixListener::bind(&new)?;
    fs::set_permissions(&new, Permissions::from_mode(0o600))?;
    fs::rename(&new, socket)?;
    Ok(listener)
}

async fn serve(listener: UnixListener, office: Arc<Office>, mut stopped: oneshot::Receiver<()>) {
    let mut clients = JoinSet::new();
    loop {
        tokio::select! {
            _ = &mut stopped => break,
            Some(ended) = clients.join_next(), if !clients.is_empty() => pass_on_panic(ended),
            accepted = listener.accept(), if clients.len() < CLIENTS_MAX => match accepted {
                Ok((stream, _)) => {
                    let office = Arc::clone(&office);
                    clients.spawn(async move {
                        if let Err(error) = converse(stream, &office).await {
                            tracing::debug!(%error, "an operator's connection ended");
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "no more orders of operators are taken");
                    break;
                }
            },
        }
    }
    drop(listener);
    let all = async { while clients.join_next().await.is_some() {} };
    // Who is silent does not hold the end up.
    let _ = timeout(PATIENCE, all).await;
}

/// A panic of one is one of all.
fn pass_on_panic(ended: Result<(), JoinError>) {
    if let Err(panic) = ended.map_err(JoinError::try_into_panic)
        && let Ok(panic) = panic
    {
        resume_unwind(panic);
    }
}

/// One line in, one line out, until the client has had enough.
async fn converse(stream: UnixStream, office: &Office) -> io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    loop {
        let mut line = Vec::new();
        let most = LINE_BYTES_MAX as u64 + 1;
        let mut limited = (&mut reader).take(most);
        let read = timeout(SILENCE, limited.read_until(b'\n', &mut line)).await??;
        if read == 0 {
            return Ok(());
        }
        let is_long = line.len() > LINE_BYTES_MAX;
        let answer = if is_long {
            Answer::refused(Why::Malformed, format!("a line has at most {LINE_BYTES_MAX} bytes"))
        } else {
            office.answer(&line).await
        };
        let mut text = serde_json::to_vec(&answer).map_err(io::Error::other)?;
        text.push(b'\n');
        writer.write_all(&text).await?;
        if is_long {
            // Where the next line begins is not known.
            return Ok(());
        }
    }
}

impl Office {
    async fn answer(&self, line: &[u8]) -> Answer {
        let request = match Request::read(line) {
            Ok(request) => request,
            Err(text) => return Answer::refused(Why::Malformed, text),
        };
        let Request { verb, offset, by, reason, .. } = request.clone();
        let partition = TopicPartition::new(request.topic.as_str(), request.partition);
        let wish = Wish { partition: partition.clone(), offset, verb, by, reason };
        match self.desk.order(&wish, &self.clerk).await {
            Ok(()) => Answer::done(&request),
            Err(declined) => self.decline(&partition, offset, &declined).await,
        }
    }

    async fn decline(
        &self,
        partition: &TopicPartition,
        offset: u64,
        declined: &Declined,
    ) -> Answer {
        let Declined { obstacle, state } = declined;
        let mut text = format!("{partition}@{offset}: {obstacle}");
        if let Some(state) = state {
            text = format!("{text} ({state})");
        }
        let mut answer = Answer::refused(Why::of(obstacle), text);
        if *obstacle == Obstacle::NotOwned {
            // Without an answer it is not known who else it is.
            let members = self.scout.members().await.ok();
            let owner = members.and_then(|members| members.assigned.get(partition).cloned());
            answer.owner = owner.map(|owner| owner.to_string());
        }
        answer
    }
}

#[cfg(test)]
#[path = "server_test.rs"]
mod tests;
