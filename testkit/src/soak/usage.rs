//! What a process uses, early and late: what grows for ever is found before it is used up.

use std::fmt::{self, Display, Formatter};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use crate::process::{self, Resources};

/// How much more, or less, may be used in the end than early, in per cent.
const TOLERANCE_PERCENT: u64 = 5;

/// The early window begins after one part in so many of the time: after two minutes of ten.
const BEFORE_EARLY: u32 = 5;

/// Each of the windows takes one part in so many: a minute of ten.
const WINDOW: u32 = 10;

/// The unit of what the system counts in a file's blocks.
const BLOCK_BYTES: u64 = 512;

/// What is measured, by name and with the unit that it is told in.
const KINDS: [(&str, &str, u64); 4] = [
    ("memory", "MB", 1_000_000),
    ("threads", "", 1),
    ("file descriptors", "", 1),
    ("store on disk", "MB", 1_000_000),
];

/// What was used at one time, in the order of [`KINDS`].
type Sample = [u64; KINDS.len()];

/// What a process used, second by second.
#[derive(Debug, Default)]
pub(super) struct Samples(Vec<(Duration, Sample)>);

impl Samples {
    /// Measures what the process and its store use so long after the begin.
    pub(super) fn take(&mut self, at: Duration, pid: u32, store: &Path) -> io::Result<()> {
        let Resources { resident_bytes, threads, descriptors } = process::resources(pid)?;
        self.0.push((at, [resident_bytes, threads, descriptors, bytes_on_disk(store)?]));
        Ok(())
    }

    /// Compares an early time with the end of all of it. A single moment would tell of the store's
    /// last flush, or of a buffer that is on its way.
    pub(super) fn growth(&self, time: Duration) -> Growth {
        let (early, window) = (time / BEFORE_EARLY, time / WINDOW);
        let early = self.medians(early, early + window);
        Growth { early, late: self.medians(time.saturating_sub(window), time), window }
    }

    fn medians(&self, from: Duration, to: Duration) -> Sample {
        let of = |kind: usize| {
            let within = self.0.iter().filter(|(at, _)| (from..to).contains(at));
            let mut values: Vec<u64> =
                within.filter_map(|(_, sample)| sample.get(kind).copied()).collect();
            values.sort_unstable();
            values.get(values.len() / 2).copied().unwrap_or_default()
        };
        [of(0), of(1), of(2), of(3)]
    }
}

/// What a process used early and late: the medians of two windows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Growth {
    early: Sample,
    late: Sample,
    /// How long each of the windows is.
    window: Duration,
}

impl Growth {
    /// Whether everything was measured, and in the end is what it was.
    pub fn is_steady(&self) -> bool {
        self.early.iter().zip(&self.late).all(|(early, late)| is_same(*early, *late))
    }
}

fn is_same(early: u64, late: u64) -> bool {
    early > 0 && early.abs_diff(late) * 100 <= early * TOLERANCE_PERCENT
}

impl Display for Growth {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { early, late, window } = self;
        write!(f, "what the process used: medians of {window:?} after a fifth, and in the end")?;
        for (((name, unit, size), early), late) in KINDS.iter().zip(early).zip(late) {
            let told = if is_same(*early, *late) { "" } else { "  NOT STEADY" };
            let (early, late) = (told_in(*early, *size), told_in(*late, *size));
            write!(f, "\n  {name:<16}  {early:>8}  {late:>8} {unit}{told}")?;
        }
        Ok(())
    }
}

/// With one digit behind the point where the unit is large.
fn told_in(value: u64, size: u64) -> String {
    if size == 1 {
        value.to_string()
    } else {
        format!("{}.{}", value / size, value % size * 10 / size)
    }
}

/// What the files below a directory take. Those that go meanwhile take nothing.
fn bytes_on_disk(dir: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    let mut open = vec![dir.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in unless_gone(fs::read_dir(dir))?.into_iter().flatten() {
            let entry = entry?;
            if let Some(found) = unless_gone(entry.metadata())? {
                bytes += found.blocks() * BLOCK_BYTES;
                if found.is_dir() {
                    open.push(entry.path());
                }
            }
        }
    }
    Ok(bytes)
}

fn unless_gone<T>(found: io::Result<T>) -> io::Result<Option<T>> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A sample each second of 100: all kinds alike but one, which `of` tells.
    fn samples(kind: usize, of: impl Fn(u64) -> u64) -> Samples {
        let sample = |second| {
            let mut sample = [1_000; KINDS.len()];
            sample[kind] = of(second);
            (Duration::from_secs(second), sample)
        };
        Samples((0..100).map(sample).collect())
    }

    fn growth(kind: usize, of: impl Fn(u64) -> u64) -> Growth {
        samples(kind, of).growth(Duration::from_secs(100))
    }

    #[test]
    fn what_stays_is_steady_whatever_it_was_before_and_for_a_moment() {
        for kind in 0..KINDS.len() {
            let peaks = |second| if second < 20 || second % 10 == 3 { 9_000 } else { 1_000 };
            assert!(growth(kind, peaks).is_steady());
            assert!(growth(kind, |second| if second < 90 { 1_000 } else { 1_050 }).is_steady());
        }
    }

    #[test]
    fn what_grows_or_is_not_measured_is_not_steady() {
        for (kind, (name, _, _)) in KINDS.iter().enumerate() {
            let grown = growth(kind, |second| 1_000 + second);
            assert!(!grown.is_steady(), "{grown}");
            let told = grown.to_string();
            let line = told.lines().find(|line| line.contains("NOT STEADY")).expect("it is told");
            assert!(line.trim_start().starts_with(name), "{told}");
            assert!(!growth(kind, |second| if second < 90 { 1_000 } else { 940 }).is_steady());
            assert!(!growth(kind, |_| 0).is_steady());
        }
        assert!(!Samples::default().growth(Duration::from_secs(100)).is_steady());
    }

    #[test]
    fn files_in_all_directories_are_counted() {
        let dir = tempfile::tempdir().expect("there is room");
        assert_eq!(bytes_on_disk(&dir.path().join("gone")).ok(), Some(0));
        let inner = dir.path().join("inner");
        fs::create_dir(&inner).expect("there is room");
        let before = bytes_on_disk(dir.path()).expect("it is there");
        for dir in [dir.path(), &inner] {
            fs::write(dir.join("file"), vec![7; 100_000]).expect("there is room");
        }
        let grown = bytes_on_disk(dir.path()).expect("it is there") - before;
        assert!((200_000..400_000).contains(&grown), "{grown}");
    }
}
