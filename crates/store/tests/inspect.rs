//! What an inspector promises: a true view beside a store that writes, and every damage found.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)] // A test fails by panicking.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use quic_websocket_store::{Inspector, Level, NewRecord, OpenError, Options, Record, Retention, Room, Store, Topic};

const ROOM: Room = Room { records: 100, bytes: 1 << 20 };

fn open(dir: &Path) -> Store {
    let mut options = Options::new(dir);
    options.segment_bytes = 64 << 10;
    options.min_free_bytes = 0;
    Store::open(options, ()).expect("the store opens")
}

fn record(topic: &Topic, n: u64) -> NewRecord {
    let tail = format!("{} {n} {}", topic.name(), "x".repeat(usize::try_from(n % 300).unwrap()));
    NewRecord { at_ms: n, tail: tail.into(), attachment: None, key: None }
}

/// Appends so many records to each topic, and waits until the last ones are stored.
fn fill(store: &Store, topics: &[Topic], from: u64, count: u64) {
    for n in from..from + count {
        let tickets: Vec<_> =
            topics.iter().map(|topic| store.append(topic, record(topic, n)).expect("taken")).collect();
        if n % 50 == 0 || n + 1 == from + count {
            tickets.into_iter().for_each(|ticket| assert_eq!(ticket.wait().expect("stored").offset, n));
        }
    }
}

fn topics(store: &Store, retention: Retention) -> Vec<Topic> {
    let levels = [("a", Level::Os), ("b", Level::Fsync), ("c", Level::Os)];
    levels.map(|(name, level)| store.topic(name, level, retention).expect("a topic")).to_vec()
}

fn all(inspector: &Inspector, topic: &Topic) -> (Vec<Record>, Vec<(u64, u64)>) {
    let (mut records, mut damaged, mut next) = (Vec::new(), Vec::new(), Some(0));
    while let Some(from) = next {
        let page = inspector.read(topic, from, false, ROOM).expect("readable");
        records.extend(page.records);
        damaged.extend(page.damaged);
        next = page.next;
    }
    (records, damaged)
}

/// The folder as bytes.
fn content(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let files = fs::read_dir(dir).unwrap().map(|entry| {
        let entry = entry.unwrap();
        (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())
    });
    files.collect()
}

#[test]
fn a_view_shows_what_the_store_has_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let made = topics(&store, Retention::default());
    fill(&store, &made, 1, 900);
    store.consumer(&made[1], "reader", Some(Bytes::from_static(b"at 7"))).expect("taken").wait().expect("stored");
    store.trim(&made[0], 400);
    drop(store);
    let before = content(dir.path());
    let inspector = Inspector::open(dir.path()).expect("a view");
    let names: Vec<_> = inspector.topics().iter().map(|topic| topic.name().to_string()).collect();
    assert_eq!(names, ["a", "b", "c"]);
    for (topic, known) in inspector.topics().iter().zip(&made) {
        let head = topic.head();
        let trimmed = if &**topic.name() == "a" { 400 } else { 0 };
        assert_eq!((topic.level(), topic.epoch()), (known.level(), known.epoch()));
        assert_eq!((head.newest, head.trimmed_through, head.count), (900, trimmed, 900 - trimmed));
        let (records, damaged) = all(&inspector, topic);
        assert!(damaged.is_empty());
        for (n, found) in (trimmed + 1..).zip(&records) {
            assert_eq!((found.offset, &found.tail), (n, &record(topic, n).tail));
        }
        assert_eq!(records.len() as u64, head.count);
    }
    let reader = inspector.find("b").expect("a topic").consumers();
    assert_eq!(reader, [(Arc::from("reader"), Bytes::from_static(b"at 7"))]);
    let report = inspector.verify().expect("readable");
    assert!(report.is_good() && report.notes.is_empty(), "{report:?}");
    assert_eq!((report.topics, report.records), (3, 500 + 2 * 900));
    assert!(report.segments > 5, "{report:?}");
    assert!(content(dir.path()) == before, "the folder was changed");
}

#[test]
fn views_beside_a_store_that_writes_see_no_damage() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    // Old segments are deleted meanwhile.
    let made = topics(&store, Retention { count: 300, ..Retention::default() });
    fill(&store, &made, 1, 100);
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let followed = Inspector::open(dir.path()).expect("a view").follow();
        let looking = scope.spawn(|| {
            let mut views = 0;
            while !is_done.load(Ordering::Acquire) {
                let inspector = Inspector::open(dir.path()).expect("a view");
                for topic in inspector.topics() {
                    let (records, damaged) = all(&inspector, topic);
                    assert!(damaged.is_empty(), "{}: {damaged:?}", topic.name());
                    assert_eq!(records.len() as u64, topic.head().count);
                    assert!(records.iter().all(|found| found.tail == record(topic, found.offset).tail));
                }
                let report = inspector.verify().expect("readable");
                assert!(report.is_good(), "{report:?}");
                views += 1;
            }
            views
        });
        let following = scope.spawn(|| {
            let mut follower = followed;
            let mut newest = BTreeMap::from(["a", "b", "c"].map(|name| (name.to_owned(), 100)));
            while newest.values().any(|newest| *newest < 6000) {
                let count = follower.poll(&mut |topic, record| {
                    let newest = newest.get_mut(&**topic).expect("a topic");
                    assert!(record.offset > *newest, "each record at most once, in order");
                    *newest = record.offset;
                });
                if count.expect("readable") == 0 {
                    std::thread::yield_now();
                }
            }
        });
        fill(&store, &made, 101, 5900);
        is_done.store(true, Ordering::Release);
        following.join().expect("followed");
        assert!(looking.join().expect("looked") > 0);
    });
}

#[test]
fn a_follower_goes_on_behind_a_restart_and_learns_new_topics() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let made = topics(&store, Retention::default());
    fill(&store, &made, 1, 10);
    let mut follower = Inspector::open(dir.path()).expect("a view").follow();
    let mut poll = || {
        let mut got = Vec::new();
        let count = follower.poll(&mut |topic, record| got.push((topic.to_string(), record.offset))).expect("readable");
        assert_eq!(count, got.len());
        got
    };
    assert_eq!(poll(), []);
    fill(&store, &made[..1], 11, 1);
    assert_eq!(poll(), [("a".to_owned(), 11)]);
    drop(store);
    let store = open(dir.path());
    let made = store.topic("new", Level::Fsync, Retention::default()).expect("a topic");
    fill(&store, &[made], 1, 2);
    assert_eq!(poll(), [("new".to_owned(), 1), ("new".to_owned(), 2)]);
}

#[test]
fn a_flipped_bit_is_found_with_the_offsets_that_it_took() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let made = topics(&store, Retention::default());
    fill(&store, &made, 1, 600);
    drop(store);
    let good = content(dir.path());
    let mut lost = 0;
    for (name, bytes) in &good {
        let used = bytes.len() - bytes.iter().rev().take_while(|byte| **byte == 0).count();
        for part in [0, 1, 2, 3, 4] {
            if used == 0 {
                continue;
            }
            let at = (used - 1) * part / 4;
            let mut damaged = bytes.clone();
            damaged[at] ^= 16;
            fs::write(dir.path().join(name), &damaged).unwrap();
            match Inspector::open(dir.path()) {
                Err(OpenError::Damaged { .. } | OpenError::NewerFormat { .. }) => {}
                Err(error) => panic!("{name} at {at}: {error}"),
                Ok(inspector) => {
                    let report = inspector.verify().expect("readable");
                    assert!(!report.is_good(), "a flip in {name} at {at} goes unnoticed");
                    assert!(report.damage.iter().any(|finding| &finding.file == name), "{name} at {at}: {report:?}");
                    for missing in &report.lost {
                        let topic = inspector.find(&missing.topic).expect("a topic");
                        let page = inspector.read(topic, missing.first, false, ROOM).expect("readable");
                        assert!(page.records.iter().all(|record| record.offset > missing.last));
                    }
                    lost += report.lost.len();
                }
            }
        }
        fs::write(dir.path().join(name), bytes).unwrap();
    }
    assert!(lost > 5, "{lost}");
    assert!(Inspector::open(dir.path()).expect("a view").verify().expect("readable").is_good());
}

#[test]
fn what_is_no_store_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let error = |dir: &Path| Inspector::open(dir).err().expect("refused");
    assert!(matches!(error(dir.path()), OpenError::NotAStore(_)));
    assert!(matches!(error(&dir.path().join("none")), OpenError::Io { .. }));
    drop(open(dir.path()));
    let path = dir.path().join("STORE");
    let mut bytes = fs::read(&path).unwrap();
    bytes[8] = 99;
    let crc = crc32c::crc32c(&bytes[..12]);
    bytes[12..16].copy_from_slice(&crc.to_le_bytes());
    fs::write(&path, bytes).unwrap();
    assert!(matches!(error(dir.path()), OpenError::NewerFormat { found: 99, .. }));
}

#[test]
fn a_topic_that_begins_behind_an_offset_outlives_restarts() {
    let dir = tempfile::tempdir().unwrap();
    for life in 0..3_u64 {
        let store = open(dir.path());
        let topic = store.topic("t", Level::Fsync, Retention::default()).expect("a topic");
        if life == 0 {
            let ticket = store.skip(&topic, 1000).expect("taken").expect("the topic is empty");
            ticket.wait().expect("stored");
        }
        assert!(store.skip(&topic, 5000).expect("taken").is_none(), "its offsets are given");
        fill(&store, std::slice::from_ref(&topic), 1001 + life * 10, 10);
        let head = topic.head();
        assert_eq!((head.trimmed_through, head.newest, head.count), (1000, 1010 + life * 10, 10 + life * 10));
        drop(store);
        let inspector = Inspector::open(dir.path()).expect("a view");
        let topic = inspector.find("t").expect("a topic");
        assert_eq!(topic.head(), head);
        let (records, damaged) = all(&inspector, topic);
        assert_eq!((records.len() as u64, damaged.len()), (head.count, 0));
        assert!(inspector.verify().expect("readable").is_good());
    }
}
