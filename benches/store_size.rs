//! Measures what the store takes on disk for clean traffic, and how fast it opens.
//!
//! `cargo bench --bench store_size -- [messages] [messages per transaction]`

mod traffic;

use std::error::Error;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Instant;

use countersign::store::{Damage, Journal, JournalOptions, open_sled};
use countersign_statemachine::{Entry, Event, Moved, Note, PartitionId, Reason, Span};

const PARTITIONS: u32 = 4;
/// As long as one that is drawn.
const INCARNATION: u64 = 0x5eed_5eed_5eed_5eed;
const START_MS: u64 = 1_800_000_000_000;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    // Cargo adds `--bench`.
    let arguments = std::env::args().skip(1).filter(|text| text != "--bench");
    let mut arguments = arguments.map(|text| text.parse::<u64>());
    let messages = arguments.next().transpose()?.unwrap_or(10_000_000);
    let per_transaction = arguments.next().transpose()?.unwrap_or(10_000);
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("store");

    let began = Instant::now();
    fill(&path, messages / per_transaction, per_transaction / u64::from(PARTITIONS))?;
    let filled = began.elapsed();
    let bytes = size(&path)?;
    println!("{messages} messages, {per_transaction} per transaction: {bytes} bytes on disk,");
    let thousandths = bytes * 1_000 / messages;
    println!("  {thousandths} thousandths of a byte per message, written in {filled:?}");

    let began = Instant::now();
    let mut journal = open(&path, 2)?;
    println!("  opened again in {:?}", began.elapsed());
    scatter(&mut journal, messages, 100_000)?;
    drop(journal);
    let began = Instant::now();
    let journal = open(&path, 3)?;
    let runs = journal.runs(PartitionId(0)).count();
    println!("  opened with {runs} runs in one partition in {:?}", began.elapsed());
    Ok(())
}

fn open(path: &Path, incarnation: u64) -> Result<Journal> {
    let opened = open_sled(path, Damage::Refuse)?;
    let options = JournalOptions::new(incarnation, START_MS);
    Ok(Journal::open(Box::new(opened.store), &traffic::identity(), options)?)
}

/// Clean traffic: sign in and flush, then confirm; what a confirm says rides with the next flush.
fn fill(path: &Path, transactions: u64, per_partition: u64) -> Result<()> {
    let mut journal = open(path, INCARNATION)?;
    let ids = (0..PARTITIONS).map(|partition| journal.intern("orders", partition, [7; 16]));
    let ids = ids.collect::<std::result::Result<Vec<_>, _>>()?;
    let mut riding = Vec::new();
    for number in 0..transactions {
        let first = number * per_partition;
        let span = Span { first, end: first + per_partition };
        let at_ms = START_MS + number * 100;
        riding.extend(traffic::signed_in(span, &ids));
        journal.append(&riding, at_ms)?;
        journal.flush()?;
        journal.prune(at_ms)?;
        riding.clear();
        riding.extend(traffic::committed(INCARNATION, number, span, &ids));
    }
    journal.append(&riding, START_MS + transactions * 100)?;
    journal.flush()?;
    Ok(())
}

/// Gives every other one of `2 * count` messages a history of its own.
fn scatter(journal: &mut Journal, from: u64, count: u64) -> Result<()> {
    let id = PartitionId(0);
    let span = Span { first: from, end: from + 2 * count };
    let moved = |span, event| Entry::Moved(Moved { partition: id, span, event, note: Note::None });
    journal.append(&[moved(span, Event::Start)], START_MS)?;
    for chunk in 0..count / 1_000 {
        let offsets = (0..1_000).map(|n| from + 2 * (chunk * 1_000 + n));
        let failed = Event::RolledBack(Reason::Error);
        let entries: Vec<Entry> = offsets.map(|at| moved(Span::one(at), failed)).collect();
        journal.append(&entries, START_MS + chunk)?;
    }
    journal.flush()?;
    Ok(())
}

/// What the files take on the disk, as `du` counts.
fn size(path: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        println!("    {:>10} {}", metadata.blocks() * 512, entry.file_name().display());
        bytes += metadata.blocks() * 512;
        if metadata.is_dir() {
            bytes += size(&entry.path())?;
        }
    }
    Ok(bytes)
}
