//! A worker as a process of its own, to be killed.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// A running worker; it does not outlive this.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
}

/// How workers are started, and where they keep what they have.
#[derive(Debug)]
pub(super) struct Workers<'a> {
    /// The program and its arguments; the brokers, the instance and the store follow.
    pub(super) command: &'a [OsString],
    pub(super) brokers: &'a str,
    pub(super) dir: &'a Path,
}

impl Workers<'_> {
    /// Starts the worker of this name.
    pub(super) fn start(&self, instance: &str) -> io::Result<Process> {
        let log = self.dir.join(format!("{instance}.log"));
        let log = File::options().create(true).append(true).open(log)?;
        let (program, args) = self.command.split_first().ok_or(io::ErrorKind::InvalidInput)?;
        let child = Command::new(program)
            .args(args)
            .args([self.brokers, instance])
            .arg(self.store(instance))
            // A backtrace for each handler that panics would take longer than the rest.
            .env("RUST_BACKTRACE", "0")
            // Its end tells the worker that this process is gone.
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()?;
        Ok(Process { child })
    }

    /// Throws away what the worker of this name has recorded.
    pub(super) fn remove_store(&self, instance: &str) -> io::Result<()> {
        fs::remove_dir_all(self.store(instance))
    }

    fn store(&self, instance: &str) -> PathBuf {
        self.dir.join(instance)
    }
}

impl Process {
    /// Kills it with SIGKILL; gives how it had ended if it had.
    pub(super) fn kill(&mut self) -> io::Result<Option<ExitStatus>> {
        let ended = self.child.try_wait()?;
        self.child.kill()?;
        self.child.wait()?;
        Ok(ended)
    }

    /// Asks it to end, and waits until it has; `None`: it does not.
    pub(super) fn terminate(&mut self, patience: Duration) -> io::Result<Option<ExitStatus>> {
        if let Some(ended) = self.child.try_wait()? {
            return Ok(Some(ended));
        }
        kill_process(Pid::from_child(&self.child), Signal::TERM)?;
        let deadline = Instant::now() + patience;
        loop {
            let ended = self.child.try_wait()?;
            if ended.is_some() || Instant::now() >= deadline {
                return Ok(ended);
            }
            sleep(POLL_INTERVAL);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
