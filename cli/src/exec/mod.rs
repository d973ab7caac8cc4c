//! The handler `exec`: messages go to child processes as lines of JSON, and answers come back.
//!
//! A child has one message at a time, so that whatever goes wrong with it is that message's failure
//! and nobody else's: a child that ends, writes rubbish or is too slow is killed, and the next
//! message gets a new one. What a child says or does after its answer belongs to no message, so
//! what goes wrong with one that had waited is first asked again of a new one. The protocol is on
//! one page, `docs/exec.md`.

mod child;
mod pool;
mod protocol;

use std::ffi::OsString;
use std::sync::Arc;
use std::time::Duration;

use countersign::Outputs;
use countersign::handler::{Handler, HandlerError, Message};
use tokio::time::timeout;

use crate::failure::Failure;
use pool::{Pool, Seat};
use protocol::{Answer, Request};

/// How long a child may take that nobody set a deadline for: one that hangs must not hold its
/// partition for ever.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// A command with its arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Command {
    pub(crate) program: OsString,
    pub(crate) args: Vec<OsString>,
}

impl Command {
    /// Splits a line into words as a shell does; nothing else of a shell is done.
    ///
    /// # Errors
    /// There is no word, or a quotation has no end.
    pub(crate) fn parse(line: &str) -> Result<Self, Failure> {
        let words = shlex::split(line).unwrap_or_default();
        let mut words = words.into_iter().map(OsString::from);
        let Some(program) = words.next() else {
            let why = "it is no command: there is no word, or a quotation has no end";
            return Err(Failure::usage(format!("--exec {line:?}: {why}")));
        };
        Ok(Self { program, args: words.collect() })
    }
}

/// Hands messages to child processes.
pub(crate) struct Exec {
    pool: Pool,
    /// How long a child may have a message.
    deadline: Duration,
    /// Where outputs go that name no topic.
    topic: Arc<str>,
}

impl Exec {
    /// Starts the first child, so that a command that does not exist is known at once.
    ///
    /// # Errors
    /// The command cannot be started.
    pub(crate) fn start(
        command: Command,
        processes: u32,
        deadline: Duration,
        topic: &str,
    ) -> Result<Self, Failure> {
        let shown = command.program.to_string_lossy().into_owned();
        let pool = Pool::start(command, processes).map_err(|error| {
            Failure::usage(format!("--exec {shown:?}: it cannot be started: {error}"))
        })?;
        Ok(Self { pool, deadline, topic: topic.into() })
    }

    /// Asks a child; `line` makes what it reads from the number of the message.
    ///
    /// The deadline begins when a child has the message: waiting for one that is free is nothing
    /// that the message could be blamed for.
    async fn answer(&self, line: impl FnOnce(u64) -> String) -> Result<Answer, HandlerError> {
        let (mut seat, id) = self.pool.seat().await.map_err(HandlerError::fatal)?;
        let line = line(id);
        // Dropped before its answer, by the deadline or a shutdown, the child is killed.
        let Ok(answer) = timeout(self.deadline, ask(&mut seat, &line, id)).await else {
            let deadline = self.deadline;
            let why = format!("the handler missed its deadline of {deadline:?}");
            return Err(HandlerError::deadline(why));
        };
        let answer = answer?;
        seat.keep();
        Ok(answer)
    }
}

impl Handler for Exec {
    async fn handle(&self, message: Message) -> Result<Outputs, HandlerError> {
        let answer = self.answer(|id| Request::new(id, &message).line()).await?;
        answer.outputs(&self.topic)
    }
}

/// Asks the child of a seat. What goes wrong with one that had waited may be left over from the
/// message before, so a new one is asked before the message is blamed.
async fn ask(seat: &mut Seat<'_>, line: &str, id: u64) -> Result<Answer, HandlerError> {
    let answer = match seat.ask(line, id).await {
        Err(why) if !seat.is_fresh() => {
            tracing::info!(target: "exec", "a new child is asked once more: {why}");
            seat.renew().map_err(HandlerError::fatal)?;
            seat.ask(line, id).await
        }
        answer => answer,
    };
    answer.map_err(HandlerError::retryable)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::time::Instant;

    use countersign::statemachine::worker::FailureKind;
    use tokio::task::JoinSet;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    /// One child at a time, in a shell; it reads the number of each message.
    fn exec(script: &str, deadline: Duration) -> Exec {
        let command = Command { program: "sh".into(), args: vec!["-c".into(), script.into()] };
        Exec::start(command, 1, deadline, "out").expect("there is a shell")
    }

    async fn ask_once(exec: &Exec) -> Result<Outputs, HandlerError> {
        exec.answer(|id| format!("{id}\n")).await?.outputs(&exec.topic)
    }

    async fn until(what: &str, mut is: impl FnMut() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !is() {
            assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn is_running(pid: &str) -> bool {
        let ps = std::process::Command::new("ps").args(["-o", "stat=", "-p", pid]).output();
        let stat = String::from_utf8(ps.expect("there is ps").stdout).expect("it is ASCII");
        !stat.trim().is_empty() && !stat.starts_with('Z')
    }

    async fn pid_in(file: &Path) -> String {
        let read = || fs::read_to_string(file).unwrap_or_default();
        until("the child wrote its id", || read().ends_with('\n')).await;
        read().trim().to_owned()
    }

    /// The last one waits for longer than the deadline, and its child is as fast as the others'.
    #[tokio::test]
    async fn waiting_for_a_child_misses_no_deadline() {
        let answer = r#"echo "{\"id\":$id,\"outputs\":[]}""#;
        let deadline = Duration::from_millis(1500);
        let script = format!("while read -r id; do sleep 0.3; {answer}; done");
        let exec = Arc::new(exec(&script, deadline));
        let started = Instant::now();
        let mut asked = JoinSet::new();
        for _ in 0..7 {
            let exec = Arc::clone(&exec);
            asked.spawn(async move { ask_once(&exec).await });
        }
        for result in asked.join_all().await {
            assert_eq!(result, Ok(Outputs::none()));
        }
        assert!(deadline < started.elapsed(), "the last one had to wait");
    }

    #[tokio::test]
    async fn a_child_that_misses_its_deadline_is_killed_at_once() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("pid");
        let script = format!("echo $$ >{}; exec sleep 600", file.display());
        let exec = exec(&script, Duration::from_millis(50));
        let pid = pid_in(&file).await;
        let error = ask_once(&exec).await.expect_err("it sleeps");
        assert_eq!(error.kind(), FailureKind::Retryable);
        let why = "the handler missed its deadline of 50ms";
        assert_eq!(error, HandlerError::deadline(why));
        until("it is dead", || !is_running(&pid)).await;
    }

    #[tokio::test]
    async fn what_a_child_does_after_its_answer_fails_no_message() {
        let answer = r#"printf '{"id":%s,"outputs":[]}\n' $id"#;
        let table = [
            ("it ends", format!("read -r id; {answer}")),
            ("it ends a little later", format!("read -r id; {answer}; sleep 0.01; exit 3")),
            ("it says more", format!("while read -r id; do {answer}; echo more; done")),
            ("and later", format!("while read -r id; do {answer}; sleep 0.01; echo more; done")),
            (
                "at once",
                r#"while read -r id; do printf '{"id":%s,"outputs":[]}\nmore\n' $id; done"#.into(),
            ),
        ];
        for (what, script) in table {
            let exec = exec(&script, PATIENCE);
            for _ in 0..20 {
                assert_eq!(ask_once(&exec).await, Ok(Outputs::none()), "{what}");
            }
        }
    }

    #[tokio::test]
    async fn what_a_new_child_does_too_is_the_failure_of_the_message() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("asked");
        let exec = exec(&format!("read -r id; echo $id >>{}; exit 3", file.display()), PATIENCE);
        let error = ask_once(&exec).await.expect_err("there is no answer");
        assert_eq!(error.kind(), FailureKind::Retryable);
        assert!(error.to_string().contains("exit status: 3"), "{error}");
        assert_eq!(fs::read_to_string(&file).expect("it was asked"), "1\n1\n", "by two children");
    }

    #[tokio::test]
    async fn a_child_without_a_message_may_end_by_itself() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("ended");
        let script = format!("cat >/dev/null; sleep 0.1; echo yes >{}", file.display());
        drop(exec(&script, PATIENCE));
        assert_eq!(fs::read_to_string(&file).expect("it had the time"), "yes\n");
    }

    #[tokio::test]
    async fn a_child_that_does_not_end_with_its_input_is_killed() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("pid");
        let exec = exec(&format!("echo $$ >{}; exec sleep 600", file.display()), PATIENCE);
        let pid = pid_in(&file).await;
        drop(exec);
        until("it is dead", || !is_running(&pid)).await;
    }

    #[test]
    fn a_command_is_split_as_a_shell_does() {
        let command = Command::parse("python3 'my handler.py' --fast").expect("three words");
        assert_eq!(command.program, "python3");
        assert_eq!(command.args, ["my handler.py", "--fast"]);
    }

    #[test]
    fn what_is_no_command_is_refused() {
        for line in ["", "  ", "sh -c 'half"] {
            assert!(Command::parse(line).is_err(), "{line:?}");
        }
    }
}
