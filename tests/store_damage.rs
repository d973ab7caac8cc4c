//! Opening real sled directories that were really damaged: never a panic, always a typed error or a
//! quarantine.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use countersign::store::{
    Damage, Identity, Journal, JournalOptions, Opened, StoreError, open_sled,
    open_sled_for_inspection,
};
use countersign_statemachine::{Entry, Event, Moved, Note, Outcome, PartitionId, Reason, Span};
use tempfile::TempDir;

fn identity() -> Identity {
    Identity { cluster_id: "c1".into(), group: "g1".into(), instance: "i1".into() }
}

fn journal(opened: Opened) -> Result<Journal, StoreError> {
    Journal::open(Box::new(opened.store), &identity(), JournalOptions::new(1, 0))
}

const TRANSACTIONS: u64 = 400;

fn moved(partition: PartitionId, span: Span, event: Event) -> Entry {
    Entry::Moved(Moved { partition, span, event, note: Note::None })
}

/// A store of some hundred kilobytes, closed in good order.
fn filled() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let mut journal = journal(open_sled(&path, Damage::Refuse).unwrap()).unwrap();
    let id = journal.intern("orders", 3, [1; 16]).unwrap();
    for n in 0..TRANSACTIONS {
        let span = Span { first: n * 10, end: n * 10 + 10 };
        journal.append(&[moved(id, span, Event::Start)], n).unwrap();
        let failed = moved(id, Span::one(n * 10), Event::RolledBack(Reason::Error));
        let rest = Span { first: n * 10 + 1, end: n * 10 + 10 };
        let done = moved(id, rest, Event::Committed(Outcome::Processed));
        journal.append(&[failed, done], n).unwrap();
        journal.flush().unwrap();
    }
    (dir, path)
}

/// Opens a damaged store by both policies and checks that it is usable afterwards.
///
/// Returns whether it was quarantined; if not, it must have been readable as it is.
fn survives(path: &Path) -> bool {
    // On a copy: where sled panicked, it may keep its lock as long as the process lives.
    let copy = path.with_file_name("copy");
    let copied = Command::new("cp").arg("-r").arg(path).arg(&copy).status().unwrap();
    assert!(copied.success());
    let refused = open_sled(&copy, Damage::Refuse).and_then(journal);
    let damage = refused.as_ref().err().map(StoreError::is_damage);
    assert_ne!(damage, Some(false), "{refused:?}");
    drop(refused);
    let opened = open_sled(path, Damage::Quarantine).unwrap();
    let quarantined = opened.quarantined.as_ref().map(|it| it.to.clone());
    assert_eq!(quarantined.is_some(), damage == Some(true));
    if let Some(to) = &quarantined {
        let name = to.file_name().unwrap().to_string_lossy().into_owned();
        assert!(name.starts_with("store.quarantined-"), "{name}");
        assert!(to.is_dir());
        assert!(opened.is_new);
    }
    let mut journal = journal(opened).unwrap();
    let id = journal.intern("orders", 7, [1; 16]).unwrap();
    journal.append(&[moved(id, Span::one(5), Event::Start)], 1).unwrap();
    journal.flush().unwrap();
    quarantined.is_some()
}

fn data(path: &Path) -> (File, u64) {
    let file = OpenOptions::new().read(true).write(true).open(path.join("db")).unwrap();
    let len = file.metadata().unwrap().len();
    (file, len)
}

#[test]
fn a_store_opens_again_as_it_was() {
    let (_dir, path) = filled();
    let opened = open_sled(&path, Damage::Refuse).unwrap();
    assert!(!opened.is_new);
    let journal = journal(opened).unwrap();
    let (id, _) = journal.partitions().next().unwrap();
    assert_eq!(journal.unfinished(id).count() as u64, TRANSACTIONS);
}

#[test]
fn flipped_bytes_anywhere_are_survived() {
    for part in 1..8 {
        let (_dir, path) = filled();
        let (mut file, len) = data(&path);
        let from = len * part / 8;
        let mut bytes = vec![0; 512];
        file.seek(SeekFrom::Start(from)).unwrap();
        let read = file.read(&mut bytes).unwrap();
        for byte in &mut bytes[..read] {
            *byte ^= 0x5a;
        }
        file.seek(SeekFrom::Start(from)).unwrap();
        file.write_all(&bytes[..read]).unwrap();
        drop(file);
        survives(&path);
    }
}

#[test]
fn rubbish_in_place_of_the_data_is_quarantined() {
    let (_dir, path) = filled();
    let (mut file, len) = data(&path);
    let rubbish: Vec<u8> = (0..len).map(|n| (n * 31 % 251) as u8).collect();
    file.write_all(&rubbish).unwrap();
    drop(file);
    assert!(survives(&path));
}

#[test]
fn a_truncated_store_is_survived() {
    for (part, all) in [(1, 10), (1, 2), (9, 10)] {
        let (_dir, path) = filled();
        let (file, len) = data(&path);
        file.set_len(len * part / all).unwrap();
        drop(file);
        survives(&path);
    }
}

fn snapshots(path: &Path) -> Vec<PathBuf> {
    let names = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
    let is_snapshot =
        |path: &PathBuf| path.file_name().unwrap().to_string_lossy().starts_with("snap.");
    names.filter(is_snapshot).collect()
}

#[test]
fn a_torn_snapshot_is_quarantined() {
    let (_dir, path) = filled();
    // sled writes one when it opens a store that has data.
    drop(open_sled(&path, Damage::Refuse).unwrap());
    let snapshots = snapshots(&path);
    assert!(!snapshots.is_empty());
    for snapshot in snapshots {
        let len = fs::metadata(&snapshot).unwrap().len();
        File::options().write(true).open(&snapshot).unwrap().set_len(len / 2).unwrap();
    }
    assert!(survives(&path));
}

#[test]
fn a_missing_or_damaged_conf_is_survived() {
    let (_dir, path) = filled();
    fs::remove_file(path.join("conf")).unwrap();
    survives(&path);
    let (_dir, path) = filled();
    fs::write(path.join("conf"), "segment_size: 4096\nuse_compression: false\nversion: 9.9\nxxxx")
        .unwrap();
    assert!(survives(&path));
}

#[test]
fn a_missing_data_file_is_a_new_store() {
    let (_dir, path) = filled();
    fs::remove_file(path.join("db")).unwrap();
    survives(&path);
}

#[test]
fn an_open_store_is_locked_and_the_error_names_the_path() {
    let (_dir, path) = filled();
    let open = open_sled(&path, Damage::Quarantine).unwrap();
    let error = open_sled(&path, Damage::Quarantine).unwrap_err();
    assert!(matches!(&error, StoreError::Locked { path: at } if *at == path), "{error}");
    assert!(error.to_string().contains(path.to_str().unwrap()));
    drop(open);
    assert!(open_sled(&path, Damage::Refuse).is_ok());
}

#[test]
fn what_is_not_a_store_is_never_touched() {
    let dir = tempfile::tempdir().unwrap();
    let letters = dir.path().join("letters");
    fs::create_dir(&letters).unwrap();
    fs::write(letters.join("dear.txt"), "hello").unwrap();
    let error = open_sled(&letters, Damage::Quarantine).unwrap_err();
    assert!(matches!(error, StoreError::NotAStore { .. }), "{error}");
    assert_eq!(fs::read_dir(&letters).unwrap().count(), 1);
    let file = letters.join("dear.txt");
    let error = open_sled(&file, Damage::Quarantine).unwrap_err();
    assert!(matches!(error, StoreError::NotAStore { .. }), "{error}");

    let foreign = dir.path().join("foreign");
    let config = sled::Config::new().path(&foreign).segment_size(128 * 1024);
    let db = config.open().unwrap();
    db.insert("name", "somebody else's").unwrap();
    db.flush().unwrap();
    drop(db);
    let error = open_sled(&foreign, Damage::Quarantine).unwrap_err();
    assert!(matches!(error, StoreError::NotAStore { .. }), "{error}");
}

#[test]
fn inspection_makes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("absent");
    let error = open_sled_for_inspection(&path).unwrap_err();
    assert!(matches!(error, StoreError::Missing { .. }), "{error}");
    assert!(!path.exists());
    let (_dir, path) = filled();
    let journal = Journal::inspect(Box::new(open_sled_for_inspection(&path).unwrap())).unwrap();
    assert_eq!(journal.identity(), &identity());
    let mut journal = journal;
    assert!(matches!(journal.flush(), Err(StoreError::Closed { .. })));
}

/// Root may write anywhere, so only a mount that is read-only stops it.
fn mounted(options: &str) -> Option<Mount> {
    let dir = tempfile::tempdir().unwrap();
    let mut mount = Command::new("mount");
    mount.args(["-t", "tmpfs", "-o", options, "none"]).arg(dir.path());
    let mounted = mount.output().is_ok_and(|output| output.status.success());
    mounted.then_some(Mount { dir })
}

struct Mount {
    dir: TempDir,
}

impl Drop for Mount {
    fn drop(&mut self) {
        Command::new("umount").arg(self.dir.path()).status().unwrap();
    }
}

#[test]
fn a_read_only_directory_is_an_error_that_names_it() {
    let (parent, mount);
    let at = if let Some(mounted) = mounted("size=1m,ro") {
        mount = mounted;
        mount.dir.path()
    } else {
        parent = tempfile::tempdir().unwrap();
        fs::set_permissions(parent.path(), fs::Permissions::from_mode(0o555)).unwrap();
        parent.path()
    };
    let path = at.join("store");
    for path in [path.as_path(), at] {
        let error = open_sled(path, Damage::Quarantine).unwrap_err();
        assert!(matches!(&error, StoreError::NotWritable { path: it, .. } if it == path));
        assert!(error.to_string().contains(path.to_str().unwrap()));
    }
}

#[test]
fn a_full_disk_is_an_error_and_what_was_flushed_is_there_once_there_is_room() {
    let Some(mount) = mounted("size=2m") else {
        // Without the right to mount, the same is shown on the memory store's injected failure.
        return;
    };
    let path = mount.dir.path().join("store");
    let mut journal = journal(open_sled(&path, Damage::Quarantine).unwrap()).unwrap();
    let id = journal.intern("orders", 0, [1; 16]).unwrap();
    let mut flushed = 0;
    let error = loop {
        let at = flushed * 2;
        let text = Note::Failure(format!("{flushed:0500}"));
        let start = moved(id, Span { first: at, end: at + 1 }, Event::Start);
        let event = Event::RolledBack(Reason::Error);
        let span = Span::one(at);
        let failed = Entry::Moved(Moved { partition: id, span, event, note: text });
        let written = journal.append(&[start, failed], flushed).and_then(|()| journal.flush());
        match written {
            Ok(()) => flushed += 1,
            Err(error) => break error,
        }
        assert!(flushed < 100_000, "a disk of 2 MiB does not fill up");
    };
    assert!(matches!(error, StoreError::Full), "{error}");
    let error = journal.append(&[moved(id, Span::one(9), Event::Again)], 1).unwrap_err();
    assert!(matches!(error, StoreError::Closed { .. }), "{error}");
    drop(journal);
    let mut remount = Command::new("mount");
    remount.args(["-o", "remount,size=16m"]).arg(mount.dir.path());
    assert!(remount.status().unwrap().success());
    let opened = open_sled(&path, Damage::Refuse).unwrap();
    let journal = Journal::inspect(Box::new(opened.store)).unwrap();
    assert!(journal.runs(id).count() as u64 >= flushed, "flushed records are lost");
}
