//! One child process.

use std::io;
use std::process::{ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::ioctl_fionread;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::io::{AsyncRead, BufReader};
use tokio::process::{ChildStdin, ChildStdout};
use tokio::time::timeout;

use super::Command;

/// How long an answer may be: more than any broker takes.
const LONGEST_BYTES: u64 = 256 << 20;

/// How long a child may take to end that has closed its output, or whose input has ended.
const END_PATIENCE: Duration = Duration::from_secs(1);

const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// A running process. Dropping it kills it, and its own children.
struct Process(tokio::process::Child);

impl Process {
    fn is_alive(&mut self) -> bool {
        matches!(self.0.try_wait(), Ok(None))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let group = self.0.id().and_then(|id| i32::try_from(id).ok());
        if let Some(group) = group.and_then(Pid::from_raw) {
            // It may have ended by itself.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

/// A running child. Dropping it kills it at once; [`dismiss`] lets it end.
pub(super) struct Child {
    process: Process,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Child {
    /// Starts a child; what it writes to its error output goes to the log.
    pub(super) fn start(command: &Command) -> io::Result<Self> {
        let mut process = tokio::process::Command::new(&command.program)
            .args(&command.args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            // A Ctrl-C in the terminal is for us: a child finishes what is under way. And it is
            // killed with the children that it may have.
            .process_group(0)
            .spawn()?;
        let pid = process.id().unwrap_or_default();
        let missing = || io::Error::other("the child has no pipes");
        let stdin = process.stdin.take().ok_or_else(missing)?;
        let stdout = process.stdout.take().ok_or_else(missing)?;
        let stderr = process.stderr.take().ok_or_else(missing)?;
        tokio::spawn(pass_on(pid, stderr));
        tracing::debug!(pid, "child started");
        let process = Process(process);
        Ok(Self { process, stdin, stdout: BufReader::new(stdout) })
    }

    /// Whether it can be asked: it has not ended by itself, and has said nothing that the next
    /// message would take for its answer.
    pub(super) fn is_waiting(&mut self) -> bool {
        let is_silent = self.stdout.buffer().is_empty()
            && matches!(ioctl_fionread(self.stdout.get_ref()), Ok(0));
        is_silent && self.process.is_alive()
    }

    /// Hands over one line with its end and waits for one. Writing and reading go on at the same
    /// time: a child may begin to answer before it has read all.
    ///
    /// # Errors
    /// Why there is no answer. The child must not be used any more.
    pub(super) async fn ask(&mut self, request: &str) -> Result<String, String> {
        let Self { stdin, stdout, .. } = self;
        let write = async {
            stdin.write_all(request.as_bytes()).await?;
            stdin.flush().await
        };
        let (written, read) = tokio::join!(write, read_line(stdout));
        match (written, read) {
            (_, Ok(Some(answer))) => Ok(answer),
            (_, Err(error)) => Err(format!("the child's answer: {error}")),
            (_, Ok(None)) => Err(self.end().await),
        }
    }

    /// How it ended.
    async fn end(&mut self) -> String {
        match timeout(END_PATIENCE, self.process.0.wait()).await {
            Ok(Ok(status)) => format!("the child ended before it answered: {}", told(status)),
            Ok(Err(error)) => format!("the child ended before it answered: {error}"),
            Err(_) => "the child closed its output before it answered".to_owned(),
        }
    }
}

/// Shows children without a message the end of their input and waits until they have ended, all
/// of them together for a second; what is left then is killed.
///
/// It blocks: a task that waited instead would be lost with the runtime, and its children killed.
pub(super) fn dismiss(children: Vec<Child>) {
    let close = |Child { process, stdin, stdout }| {
        drop(stdin);
        // Its output stays open: what it writes last is no reason for it to fail.
        (process, stdout)
    };
    let mut left: Vec<_> = children.into_iter().map(close).collect();
    let deadline = Instant::now() + END_PATIENCE;
    loop {
        left.retain_mut(|(process, _)| process.is_alive());
        if left.is_empty() || deadline <= Instant::now() {
            return;
        }
        thread::sleep(POLL_INTERVAL);
    }
}

fn told(status: ExitStatus) -> String {
    if status.success() { "exit status 0".to_owned() } else { status.to_string() }
}

/// One line without its end; `None` if there is none any more.
async fn read_line(from: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Option<String>> {
    let mut line = Vec::new();
    from.take(LONGEST_BYTES).read_until(b'\n', &mut line).await?;
    if line.is_empty() {
        return Ok(None);
    }
    if line.pop_if(|last| *last == b'\n').is_none() {
        let why = "it ends without the end of a line";
        return Err(io::Error::new(io::ErrorKind::InvalidData, why));
    }
    String::from_utf8(line)
        .map(Some)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8"))
}

/// Writes a child's error output to the log, line by line.
async fn pass_on(pid: u32, stderr: impl AsyncRead + Unpin) {
    let mut stderr = BufReader::new(stderr);
    let mut line = Vec::new();
    while let Ok(1..) = (&mut stderr).take(LONGEST_BYTES).read_until(b'\n', &mut line).await {
        tracing::info!(target: "exec", pid, "{}", String::from_utf8_lossy(&line).trim_end());
        line.clear();
    }
}
