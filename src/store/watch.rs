//! Watching a store that is being opened: it may take long, and it may hang.
//!
//! How long an honest opening takes depends on the store and on the disk, so that it has no limit.
//! It reads on, and that can be seen: what it has read of the file (sled does that by itself), and
//! how many records were looked at. Damaged files can make sled loop or wait for ever; that is an
//! opening of which nothing is seen for long, though it does not wait for the disk either.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use super::StoreError;
use super::guard::catching;

/// The name of the thread, by which its reading is found: at most 15 bytes, as Linux has it.
const THREAD: &str = "store-open";

/// When it is looked at, told, and taken for hanging.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// How often it is looked at.
    pub(super) look: Duration,
    /// How often people are told that it is still at it.
    pub(super) tell: Duration,
    /// How long nothing may be seen of it.
    pub(super) silence: Duration,
}

impl Patience {
    /// A disk gives a block within seconds, a store on one that does not is not damaged by it, and
    /// between two reads sled takes milliseconds: a minute of silence is no reading.
    pub(super) const USUAL: Self = Self {
        look: Duration::from_secs(1),
        tell: Duration::from_secs(10),
        silence: Duration::from_secs(60),
    };
}

/// How many records were looked at.
#[derive(Debug, Clone, Default)]
pub(super) struct Looked(Arc<AtomicU64>);

impl Looked {
    pub(super) fn at_one(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn at(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What is seen of an opening.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Signs {
    /// Records looked at.
    records: u64,
    /// Bytes read and written, as far as the system tells.
    bytes: u64,
}

/// Opens in a thread of its own, and waits as long as something is seen of it.
///
/// # Errors
/// What `open` returns, or [`OpenHangs`](StoreError::OpenHangs).
pub(super) fn watched<T: Send + 'static>(
    path: &Path,
    patience: Patience,
    open: impl FnOnce(&Looked) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    let (sender, receiver) = mpsc::channel();
    let looked = Looked::default();
    let of_thread = looked.clone();
    thread::Builder::new()
        .name(THREAD.to_owned())
        // Nobody waits any more for one that hung; then the store closes again.
        .spawn(move || drop(sender.send(catching(|| open(&of_thread)))))
        .map_err(|error| StoreError::of_io("starting a thread", error))?;
    let began = Instant::now();
    let (mut last, mut seen_at, mut told_at) = (Signs::default(), began, began);
    loop {
        match receiver.recv_timeout(patience.look) {
            Ok(opened) => return opened,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                return Err(StoreError::Panicked { what: "its thread has ended".to_owned() });
            }
        }
        let now = Signs { records: looked.at(), bytes: moved_bytes().unwrap_or(0) };
        // Where the system does not tell, silence proves nothing.
        let waits_for_disk = waits_for_disk().unwrap_or(true);
        if now != last || waits_for_disk {
            (last, seen_at) = (now, Instant::now());
        }
        if told_at.elapsed() >= patience.tell {
            told_at = Instant::now();
            tell(path, began, now, waits_for_disk);
        }
        if seen_at.elapsed() >= patience.silence {
            return Err(StoreError::OpenHangs { path: path.to_owned(), silence: patience.silence });
        }
    }
}

fn tell(path: &Path, began: Instant, seen: Signs, waits_for_disk: bool) {
    let (seconds, records, mebibytes) = (began.elapsed().as_secs(), seen.records, seen.bytes >> 20);
    tracing::warn!(
        path = %path.display(), seconds, mebibytes, records, waits_for_disk,
        "the store is still being opened"
    );
}

/// What has been read and written so far by those who open; `None` if the system does not tell.
fn moved_bytes() -> Option<u64> {
    let threads = of_threads("io")?;
    let of = |line: &str| {
        let count = line.strip_prefix("rchar:").or_else(|| line.strip_prefix("wchar:"))?;
        count.trim().parse::<u64>().ok()
    };
    Some(threads.iter().flat_map(|io| io.lines()).filter_map(of).sum())
}

/// Whether one of those who open is in an uninterruptible wait, which is one for a disk.
fn waits_for_disk() -> Option<bool> {
    let threads = of_threads("status")?;
    let mut states = threads.iter().flat_map(|status| status.lines());
    Some(states.any(|line| {
        line.strip_prefix("State:").is_some_and(|state| state.trim_start().starts_with('D'))
    }))
}

/// A file of the kernel about each thread that opens a store: ours, and those of sled, which may
/// read for it. Whoever embeds several processors sees all of their stores as one.
fn of_threads(file: &str) -> Option<Vec<String>> {
    let all = fs::read_dir("/proc/self/task").ok()?;
    let opens = |path: &Path| {
        let name = fs::read_to_string(path.join("comm")).unwrap_or_default();
        name.trim() == THREAD || name.starts_with("sled")
    };
    let ours = all.flatten().map(|thread| thread.path()).filter(|path| opens(path));
    let texts: Vec<String> = ours.filter_map(|it| fs::read_to_string(it.join(file)).ok()).collect();
    (!texts.is_empty()).then_some(texts)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    const PATIENCE: Patience = Patience {
        look: Duration::from_millis(5),
        tell: Duration::from_millis(20),
        silence: Duration::from_millis(200),
    };

    /// Works until a multiple of the silence is over.
    fn for_long(mut work: impl FnMut()) {
        let until = Instant::now() + 4 * PATIENCE.silence;
        while Instant::now() < until {
            work();
        }
    }

    #[test]
    fn an_opening_that_looks_at_records_may_take_as_long_as_it_likes() {
        let opened = watched(Path::new("store"), PATIENCE, |looked| {
            for_long(|| looked.at_one());
            Ok(7)
        });
        assert_eq!(opened.expect("it is not taken for hanging"), 7);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn an_opening_that_reads_may_take_as_long_as_it_likes() {
        let opened = watched(Path::new("store"), PATIENCE, |_| {
            let mut zeros = fs::File::open("/dev/zero").expect("it is there");
            for_long(|| zeros.read_exact(&mut [0; 64]).expect("it never ends"));
            Ok(())
        });
        opened.expect("it is not taken for hanging");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn an_opening_that_waits_for_ever_is_told() {
        let (never, waits) = mpsc::channel::<()>();
        let opened = watched(Path::new("store"), PATIENCE, move |_| {
            let _ = waits.recv();
            Ok(())
        });
        let error = opened.expect_err("it hangs");
        assert!(matches!(&error, StoreError::OpenHangs { .. }), "{error}");
        assert!(error.is_damage());
        drop(never);
    }
}
