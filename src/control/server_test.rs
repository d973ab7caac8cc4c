//! What the socket does with what comes in.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream as Client;
use std::sync::Mutex;

use countersign_statemachine::Verb;

use super::*;
use crate::control::{AskError, ask};
use crate::driver::{Host, Inbox, Loops, News, Watchdog};
use crate::kafka::{FakeAdmin, Member};
use crate::store::{Identity, Journal, JournalOptions, MemoryStore};

/// Knows that partition 9 is somebody else's.
fn admin() -> FakeAdmin {
    let (id, host) = ("m".to_owned(), "/10.0.0.7".to_owned());
    let member = Member { id, instance: Some("other-0".to_owned()), host };
    FakeAdmin::owned(TopicPartition::new("orders", 9), member)
}

/// A worker that owns one partition, and does what it is told.
fn worker(desk: &Desk, number: u32, partition: u32) -> Arc<Mutex<Vec<Wish>>> {
    let (inbox, mut news) = Inbox::new();
    desk.open(number, inbox);
    let done = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&done);
    tokio::spawn(async move {
        while let Some(news) = news.recv().await {
            let News::Wished(wish, answer) = news else { panic!("{news:?}") };
            let is_owned = wish.partition.partition == partition;
            if is_owned {
                seen.lock().expect("nobody panics").push(wish);
            }
            answer.send(is_owned.then_some(()).ok_or(Obstacle::NotOwned)).expect("it waits");
        }
    });
    done
}

fn request(partition: u32) -> Request {
    Request {
        version: 1,
        verb: Verb::Skip,
        topic: "orders".to_owned(),
        partition,
        offset: 17,
        by: "ann@desk".to_owned(),
        reason: "it is no order".to_owned(),
    }
}

fn watchdog() -> Watchdog {
    Watchdog::start(Host::Tasks, Loops::default()).0
}

fn clerk() -> Clerk {
    let identity =
        Identity { cluster_id: "c".to_owned(), group: "g".to_owned(), instance: "i".to_owned() };
    let options = JournalOptions::new(1, 1);
    let journal = Journal::open(Box::new(MemoryStore::new(Arc::default())), &identity, options);
    Clerk::start(journal.expect("it is new"), &watchdog()).expect("tasks need no thread")
}

fn scout() -> Scout {
    Scout::start(&watchdog(), || Ok(admin())).expect("tasks need no thread")
}

fn serving(store: &Path, desk: &Desk) -> Server {
    let server = Server::start(store, desk.clone(), (clerk(), scout()), watchdog().failing());
    server.expect("the path is short")
}

async fn asked(store: &Path, request: Request) -> Result<Answer, AskError> {
    let store = store.to_owned();
    let patience = Duration::from_secs(10);
    let asked = tokio::task::spawn_blocking(move || ask(&store, &request, patience));
    asked.await.expect("it does not panic")
}

/// What is answered to lines, and whether there is an end then.
async fn told(store: &Path, lines: Vec<u8>) -> Vec<Answer> {
    let socket = store.join(SOCKET);
    let exchange = move || {
        let mut stream = Client::connect(socket).expect("it listens");
        stream.write_all(&lines).expect("it reads");
        stream.shutdown(std::net::Shutdown::Write).expect("it is open");
        let lines = BufReader::new(stream).lines();
        lines.map(|line| serde_json::from_str(&line.expect("text")).expect("JSON")).collect()
    };
    tokio::task::spawn_blocking(exchange).await.expect("it does not panic")
}

#[tokio::test]
async fn an_order_goes_to_the_worker_that_owns_the_partition() {
    let (store, desk) = (tempfile::tempdir().expect("a directory"), Desk::default());
    let (first, second) = (worker(&desk, 0, 3), worker(&desk, 1, 4));
    let server = serving(store.path(), &desk);
    let answer = asked(store.path(), request(4)).await.expect("it answers");
    assert!(answer.done && answer.text.starts_with("orders/4@17 "), "{answer:?}");
    assert!(first.lock().expect("nobody panics").is_empty());
    let wishes = second.lock().expect("nobody panics").clone();
    assert_eq!(wishes.len(), 1);
    assert_eq!((wishes[0].by.as_str(), wishes[0].offset), ("ann@desk", 17));
    Server::end(Some(server)).await;
}

#[tokio::test]
async fn of_what_is_owned_elsewhere_the_owner_is_told() {
    let (store, desk) = (tempfile::tempdir().expect("a directory"), Desk::default());
    worker(&desk, 0, 3);
    let server = serving(store.path(), &desk);
    let answer = asked(store.path(), request(9)).await.expect("it answers");
    assert_eq!((answer.done, answer.why), (false, Some(Why::NotOwned)));
    assert_eq!(answer.owner.as_deref(), Some("other-0 at 10.0.0.7"));
    let answer = asked(store.path(), request(8)).await.expect("it answers");
    assert_eq!((answer.why, answer.owner), (Some(Why::NotOwned), None));
    Server::end(Some(server)).await;
}

#[tokio::test]
async fn what_cannot_be_read_is_answered_and_harms_nobody() {
    let (store, desk) = (tempfile::tempdir().expect("a directory"), Desk::default());
    worker(&desk, 0, 3);
    let server = serving(store.path(), &desk);
    let good = serde_json::to_string(&request(3)).expect("plain text");
    let lines = format!("rubbish\n\n{good}\n{{\"version\":7}}\n\u{fffd}{good}\n");
    let answers = told(store.path(), lines.into_bytes()).await;
    let done: Vec<bool> = answers.iter().map(|answer| answer.done).collect();
    assert_eq!(done, [false, false, true, false, false], "{answers:?}");
    // One that does not end is cut.
    let answers = told(store.path(), vec![b'x'; LINE_BYTES_MAX + 1]).await;
    assert_eq!(answers.len(), 1, "{answers:?}");
    assert_eq!(answers[0].why, Some(Why::Malformed));
    assert!(asked(store.path(), request(3)).await.expect("it answers").done);
    Server::end(Some(server)).await;
}

#[tokio::test]
async fn the_socket_is_its_owners_alone_and_gone_in_the_end() {
    let (store, desk) = (tempfile::tempdir().expect("a directory"), Desk::default());
    let socket = store.path().join(SOCKET);
    // What a process leaves that was killed.
    drop(std::os::unix::net::UnixListener::bind(&socket).expect("it is free"));
    let unheard = asked(store.path(), request(3)).await;
    assert!(matches!(unheard, Err(AskError::NoProcessor { .. })), "{unheard:?}");
    worker(&desk, 0, 3);
    let server = serving(store.path(), &desk);
    let mode = fs::metadata(&socket).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(asked(store.path(), request(3)).await.expect("it answers").done);
    Server::end(Some(server)).await;
    assert_eq!(fs::read_dir(store.path()).expect("a directory").count(), 0);
}

#[tokio::test]
async fn a_path_that_is_too_long_is_told() {
    let (dir, desk) = (tempfile::tempdir().expect("a directory"), Desk::default());
    let store = dir.path().join("x".repeat(120));
    let unheard = asked(&store, request(3)).await;
    assert!(matches!(unheard, Err(AskError::PathTooLong { .. })), "{unheard:?}");
    assert!(Server::start(&store, desk, (clerk(), scout()), watchdog().failing()).is_none());
}
