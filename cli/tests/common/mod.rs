//! Running the binary.

#![allow(dead_code, reason = "not every test program uses all of it")]

use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

/// The binary, away from the terminal and the environment of whoever runs the tests.
pub(crate) fn countersign() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_countersign"));
    command.env_remove("RUST_LOG").env_remove("COLUMNS").stdin(Stdio::null());
    command
}

/// A finished run of the binary.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).expect("standard output is UTF-8"),
            stderr: String::from_utf8(output.stderr).expect("standard error is UTF-8"),
        }
    }
}

impl Ended {
    /// The line that begins with `error: `.
    #[track_caller]
    pub(crate) fn error(&self) -> &str {
        let line = self.stderr.lines().find(|line| line.starts_with("error: "));
        line.unwrap_or_else(|| panic!("no line says what is wrong: {self:#?}"))
    }

    /// Checks exit code and error line; nothing but data may be on standard output.
    #[track_caller]
    pub(crate) fn failed(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, Some(code), "{self:#?}");
        assert_eq!(self.stdout, "", "{self:#?}");
        for word in words {
            assert!(self.error().contains(word), "{word:?} is not in {:?}", self.error());
        }
    }

    /// Checks that it ended well.
    #[track_caller]
    pub(crate) fn done(self) -> Self {
        assert_eq!(self.code, Some(0), "{self:#?}");
        self
    }
}

/// Runs the binary to its end.
pub(crate) fn ended(command: &mut Command) -> Ended {
    command.output().expect("the binary can be started").into()
}

/// Runs the binary with these arguments.
pub(crate) fn with(args: &[&str]) -> Ended {
    ended(countersign().args(args))
}

/// Writes a file and gives its path.
pub(crate) fn file(dir: &Path, name: &str, text: &str) -> String {
    let path = dir.join(name);
    let mut file = std::fs::File::create(&path).expect("the directory can be written");
    file.write_all(text.as_bytes()).expect("the directory can be written");
    path.display().to_string()
}

/// A child that is killed if the test ends before it.
#[derive(Debug)]
pub(crate) struct Running(Option<Child>);

impl Running {
    /// Starts the binary with its output in pipes.
    pub(crate) fn start(command: &mut Command) -> Self {
        let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
        Self(Some(command.spawn().expect("the binary can be started")))
    }

    /// The process.
    pub(crate) fn child(&mut self) -> &mut Child {
        self.0.as_mut().expect("it is taken by the end only")
    }

    /// Waits for its end.
    pub(crate) fn end(mut self) -> Ended {
        let child = self.0.take().expect("it is taken by the end only");
        child.wait_with_output().expect("the child can be waited for").into()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
