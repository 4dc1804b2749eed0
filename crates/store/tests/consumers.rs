//! Consumers: their states are stored behind the records that they speak of, also while the disk is full.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)] // A test fails by panicking.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use quic_websocket_store::{
    Health, Level, NewRecord, Options, Refusal, Retention, Room, Store, StoreError, Ticket, Topic,
};

const SEGMENT: u64 = 64 << 10;

fn options(dir: &Path) -> Options {
    let mut options = Options::new(dir);
    options.segment_bytes = SEGMENT;
    options.min_free_bytes = 0;
    options
}

fn open(dir: &Path) -> Store {
    Store::open(options(dir), ()).expect("the store opens")
}

/// The store as it is after the process has ended just now.
fn killed(dir: &Path) -> (tempfile::TempDir, Store) {
    let image = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        // A file may be deleted meanwhile.
        let _ = std::fs::copy(&path, image.path().join(path.file_name().unwrap()));
    }
    let store = open(image.path());
    (image, store)
}

fn topic(store: &Store, name: &str, level: Level) -> Topic {
    store.topic(name, level, Retention::default()).expect("a topic")
}

fn record(content: &str) -> NewRecord {
    NewRecord { at_ms: 1, tail: Bytes::from(content.to_owned()), attachment: None, key: None }
}

fn text(text: &str) -> Option<Bytes> {
    Some(Bytes::from(text.to_owned()))
}

fn states(topic: &Topic) -> Vec<(String, String)> {
    let text = |state: Bytes| String::from_utf8(state.to_vec()).unwrap();
    topic.consumers().into_iter().map(|(name, state)| (name.to_string(), text(state))).collect()
}

fn expected(states: &[(&str, &str)]) -> Vec<(String, String)> {
    states.iter().map(|(name, state)| ((*name).to_owned(), (*state).to_owned())).collect()
}

fn contents(store: &Store, topic: &Topic) -> Vec<Bytes> {
    let page = store.read(topic, 0, false, Room { records: 1000, bytes: 1 << 20 }).expect("readable");
    page.records.into_iter().map(|record| record.tail).collect()
}

#[test]
fn consumers_of_a_topic_are_there_after_a_restart_and_those_that_ended_are_not() {
    for level in [Level::Os, Level::Fsync] {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        let t = topic(&store, "t", level);
        let tickets: Vec<Ticket> = (0..1000)
            .map(|n| store.consumer(&t, ["a", "b", "c"][n % 3], text(&format!("state {n}"))).expect("taken"))
            .collect();
        assert_eq!(t.consumers().len(), 3, "taken states are seen at once");
        for ticket in tickets {
            ticket.wait().expect("stored");
        }
        store.consumer(&t, "b", None).expect("taken").wait().expect("stored");
        let (_image, after) = killed(dir.path());
        let t = after.find("t").expect("the topic");
        assert_eq!(states(&t), expected(&[("a", "state 999"), ("c", "state 998")]));
    }
}

#[test]
fn a_state_that_nobody_waits_for_is_written_soon_and_only_the_newest() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = options(dir.path());
    options.sync_interval = Duration::from_millis(20);
    let store = Store::open(options, ()).expect("the store opens");
    let t = topic(&store, "t", Level::Os);
    for n in 0..100_000 {
        store.consumer_lazily(&t, "c", text(&format!("state {n}"))).expect("taken");
    }
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        let (_image, after) = killed(dir.path());
        if after.find("t").is_some_and(|t| states(&t) == expected(&[("c", "state 99999")])) {
            break;
        }
        assert!(Instant::now() < end, "the state is not written");
    }
    let sizes = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len());
    assert!(sizes.sum::<u64>() < 4 * SEGMENT, "not every state is written");
    store.consumer_lazily(&t, "c", text("last")).expect("taken");
    drop(store);
    assert_eq!(states(&open(dir.path()).find("t").expect("the topic")), expected(&[("c", "last")]));
}

#[test]
fn a_dead_letter_and_the_state_of_its_consumer_are_stored_together() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let (from, to) = (topic(&store, "from", Level::Fsync), topic(&store, "dead", Level::Os));
    for n in 1..=20 {
        let state = Bytes::from(format!("{n} are dead"));
        let ticket = store.dead_letter(&to, record(&format!("letter {n}")), &from, "c", state).expect("taken");
        let other = store.consumer(&from, "c", text("other"));
        if let Ok(ticket) = other {
            // The letter was stored before this call.
            ticket.wait().expect("stored");
        } else {
            assert_eq!(other.err(), Some(Refusal::Busy));
        }
        assert_eq!(ticket.wait().expect("stored").offset, n);
    }
    let state = store.dead_letter(&to, record("last"), &from, "c", Bytes::from_static(b"21 are dead")).expect("taken");
    state.wait().expect("stored");
    let (_image, after) = killed(dir.path());
    assert_eq!(states(&after.find("from").expect("the topic")), expected(&[("c", "21 are dead")]));
    assert_eq!(contents(&after, &after.find("dead").expect("the topic")).len(), 21);
    // The dead letters' key makes repeats harmless, and the state is stored all the same.
    let keyed = |key: &str| NewRecord { key: Some(Arc::from(key)), ..record("keyed") };
    for n in 0..3 {
        let state = Bytes::from(format!("keyed {n}"));
        let stored = store.dead_letter(&to, keyed("k"), &from, "c", state).expect("taken").wait().expect("stored");
        assert_eq!((stored.offset, stored.duplicate), (22, n > 0));
        assert_eq!(states(&from), expected(&[("c", &format!("keyed {n}"))]));
    }
    // A topic may be its own.
    store.dead_letter(&to, record("self"), &to, "c", Bytes::from_static(b"x")).expect("taken").wait().expect("stored");
    assert_eq!((to.head().newest, states(&to)), (23, expected(&[("c", "x")])));
}

/// Fills a store up to its bound; returns how many records were stored.
fn fill(store: &Store, topic: &Topic) -> u64 {
    let end = Instant::now() + Duration::from_secs(20);
    let mut stored = 0;
    while Instant::now() < end {
        match store.append(topic, record(&"x".repeat(3000))).map(Ticket::wait) {
            Ok(Ok(_)) => stored += 1,
            Ok(Err(StoreError::Full)) | Err(Refusal::Full) => return stored,
            other => panic!("{other:?}"),
        }
    }
    panic!("the store does not fill");
}

#[test]
fn acknowledgements_and_trims_go_on_while_the_disk_is_full() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = options(dir.path());
    options.max_bytes = 5 * SEGMENT;
    let store = Store::open(options.clone(), ()).expect("the store opens");
    let (full, dead) = (topic(&store, "full", Level::Fsync), topic(&store, "dead", Level::Fsync));
    let stored = fill(&store, &full);
    assert!(stored > 50, "{stored}");
    assert_eq!(store.health(), Health::Full);
    for n in 0..600 {
        let state = text(&format!("{n} {}", "s".repeat(100)));
        store.consumer(&full, &format!("c{}", n % 5), state).expect("taken").wait().expect("stored");
    }
    // A dead letter is a publish: neither it nor its consumer's state is taken.
    let letter = store.dead_letter(&dead, record("letter"), &full, "c0", Bytes::from_static(b"dead"));
    assert_eq!(letter.err(), Some(Refusal::Full));
    store.consumer(&full, "last", text("state")).expect("taken").wait().expect("stored");
    assert_eq!(full.head().newest, stored, "no offset was given away");
    let (_image, after) = killed(dir.path());
    let found = after.find("full").expect("the topic");
    assert_eq!((found.consumers(), found.head().newest), (full.consumers(), stored));
    // Retention makes room, and the store ends being full by itself.
    store.trim(&full, stored);
    let end = Instant::now() + Duration::from_secs(20);
    while store.append(&full, record("more")).map(Ticket::wait).is_err() {
        let files = || std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name());
        assert!(Instant::now() < end, "the store stays full: {:?}, {:?}", store.failure(), files().collect::<Vec<_>>());
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(full.head().newest, stored + 1);
}
