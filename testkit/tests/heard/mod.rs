//! What people are told: the log of this test's thread, on which everything of a simulation runs.

use std::cell::RefCell;
use std::io;
use std::sync::Once;

thread_local! {
    static WRITTEN: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

struct Thread;

impl io::Write for Thread {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        WRITTEN.with_borrow_mut(|written| written.extend_from_slice(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Begins to listen.
pub(crate) fn listen() {
    static LISTENING: Once = Once::new();
    LISTENING.call_once(|| {
        tracing_subscriber::fmt().with_ansi(false).with_writer(|| Thread).init();
    });
}

/// The lines that have all of these words.
pub(crate) fn lines_with(words: &[&str]) -> Vec<String> {
    let text = WRITTEN.with_borrow(|written| String::from_utf8_lossy(written).into_owned());
    let lines = text.lines().filter(|line| words.iter().all(|word| line.contains(word)));
    lines.map(str::to_owned).collect()
}
