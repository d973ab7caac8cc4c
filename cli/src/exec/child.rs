//! One child process.

use std::io;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::io::{AsyncRead, BufReader};
use tokio::process::{ChildStdin, ChildStdout};
use tokio::time::timeout;

use super::Command;

/// How long an answer may be: more than any broker takes.
const LONGEST_BYTES: u64 = 256 << 20;

/// How long a child that has closed its output may take to end.
const END_PATIENCE: Duration = Duration::from_secs(1);

/// A running child. Dropping it kills it, and its own children.
pub(super) struct Child {
    process: tokio::process::Child,
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
        Ok(Self { process, stdin, stdout: BufReader::new(stdout) })
    }

    /// Whether it has not ended by itself.
    pub(super) fn is_alive(&mut self) -> bool {
        matches!(self.process.try_wait(), Ok(None))
    }

    /// Hands over one line and waits for one. Writing and reading go on at the same time: a child
    /// may begin to answer before it has read all.
    ///
    /// # Errors
    /// Why there is no answer. The child must not be used any more.
    pub(super) async fn ask(&mut self, mut request: String) -> Result<String, String> {
        request.push('\n');
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
        match timeout(END_PATIENCE, self.process.wait()).await {
            Ok(Ok(status)) => format!("the child ended before it answered: {}", told(status)),
            Ok(Err(error)) => format!("the child ended before it answered: {error}"),
            Err(_) => "the child closed its output before it answered".to_owned(),
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let group = self.process.id().and_then(|id| i32::try_from(id).ok());
        if let Some(group) = group.and_then(Pid::from_raw) {
            // It may have ended by itself.
            let _ = kill_process_group(group, Signal::KILL);
        }
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
