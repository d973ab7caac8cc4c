//! The broker's process and the watchdog that ends it with the test.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// Becomes the broker once it is told to, or ends if the test died before it could say so.
const STARTER: &str = r#"read -r go || exit 1; exec java "$@""#;

/// Waits for the end of the test process, which closes the pipe, then ends the broker and removes
/// its temporary directory. Bounded, for where nobody reaps the broker.
const WATCHDOG: &str = r#"
read -r forever
kill -KILL "$1" 2>/dev/null
for attempt in 1 2 3 4 5 6 7 8 9 10; do kill -0 "$1" 2>/dev/null || break; sleep 0.1; done
if [ -n "$2" ]; then rm -rf -- "$2"; fi
"#;

const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// A running Java machine. Dropping it kills it.
#[derive(Debug)]
pub(super) struct Jvm {
    java: Child,
    watchdog: Child,
    /// Set once the process has been reaped and its id may belong to someone else.
    status: Option<ExitStatus>,
}

impl Jvm {
    /// Starts `java` with `args`; `remove` is deleted if this process ends before the Java machine.
    pub(super) fn spawn(args: &[String], log: &File, remove: Option<&Path>) -> io::Result<Self> {
        // Both get process groups of their own: a Ctrl-C is for the test alone, whose end they
        // then follow.
        let mut java = Command::new("sh")
            .args(["-c", STARTER, "java"])
            .args(args)
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log.try_clone()?)
            .process_group(0)
            .spawn()?;
        let starter = java.stdin.take();
        let watchdog = Command::new("sh")
            .args(["-c", WATCHDOG, "watchdog", &java.id().to_string()])
            .arg(remove.unwrap_or_else(|| Path::new("")))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()?;
        let jvm = Self { java, watchdog, status: None };
        if let Some(mut starter) = starter {
            starter.write_all(b"go\n")?;
        }
        Ok(jvm)
    }

    /// The broker's process id.
    pub(super) fn pid(&self) -> u32 {
        self.java.id()
    }

    /// Sends a signal, unless the process has ended.
    pub(super) fn signal(&mut self, signal: Signal) -> io::Result<()> {
        if self.exited()?.is_some() {
            return Ok(());
        }
        kill_process(Pid::from_child(&self.java), signal)?;
        Ok(())
    }

    /// How the process ended, if it has.
    pub(super) fn exited(&mut self) -> io::Result<Option<ExitStatus>> {
        if self.status.is_none() {
            // The watchdog goes first: it must not hold an id that is free again.
            if is_zombie(self.java.id()) {
                self.dismiss_watchdog()?;
            }
            self.status = self.java.try_wait()?;
        }
        Ok(self.status)
    }

    /// Kills the process and waits for its end.
    pub(super) fn kill(&mut self) -> io::Result<()> {
        if self.status.is_some() {
            return Ok(());
        }
        self.java.kill()?;
        self.dismiss_watchdog()?;
        self.status = Some(self.java.wait()?);
        Ok(())
    }

    /// Asks the process to end, and kills it after `timeout`.
    pub(super) fn terminate(&mut self, timeout: Duration) -> io::Result<()> {
        let deadline = Instant::now() + timeout;
        self.signal(Signal::TERM)?;
        // A paused process would not hear it.
        self.signal(Signal::CONT)?;
        while self.exited()?.is_none() && Instant::now() < deadline {
            thread::sleep(POLL_INTERVAL);
        }
        self.kill()
    }

    fn dismiss_watchdog(&mut self) -> io::Result<()> {
        self.watchdog.kill()?;
        self.watchdog.wait()?;
        Ok(())
    }
}

impl Drop for Jvm {
    fn drop(&mut self) {
        if let Err(error) = self.kill() {
            tracing::warn!(pid = self.pid(), %error, "the broker could not be killed");
        }
    }
}

/// Whether the process has ended and waits to be reaped.
fn is_zombie(pid: u32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else {
        return true;
    };
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z'))
}
