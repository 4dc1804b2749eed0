//! What the store promises, on the file system of the machine.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)] // A test fails by panicking.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use quic_websocket_store::{
    Committed, Health, Level, NewRecord, OpenError, Options, Record, Refusal, Retention, Room, Store, Stored, Topic,
};

const ROOM: Room = Room { records: 1000, bytes: 1 << 20 };

fn options(dir: &Path) -> Options {
    let mut options = Options::new(dir);
    options.segment_bytes = 256 << 10;
    options.min_free_bytes = 0;
    options
}

fn open(dir: &Path) -> Store {
    Store::open(options(dir), ()).expect("the store opens")
}

fn record(n: u64, key: Option<&str>) -> NewRecord {
    let tail = Bytes::from(format!("content {n} {}", "x".repeat(usize::try_from(n % 300).unwrap())));
    NewRecord {
        at_ms: n * 1000,
        tail,
        attachment: n.is_multiple_of(3).then(|| Bytes::from_static(b"attached")),
        key: key.map(Arc::from),
    }
}

fn append(store: &Store, topic: &Topic, n: u64, key: Option<&str>) -> Stored {
    store.append(topic, record(n, key)).expect("taken").wait().expect("stored")
}

fn everything(store: &Store, topic: &Topic, reverse: bool, room: Room) -> (Vec<Record>, Vec<(u64, u64)>) {
    let (mut records, mut damaged, mut next) = (Vec::new(), Vec::new(), Some(if reverse { u64::MAX } else { 0 }));
    while let Some(from) = next {
        let page = store.read(topic, from, reverse, room).expect("readable");
        assert!(page.records.len() <= room.records);
        records.extend(page.records);
        damaged.extend(page.damaged);
        next = page.next;
    }
    (records, damaged)
}

#[test]
fn records_epochs_keys_and_consumers_outlive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut epochs = Vec::new();
    for life in 0..4_u64 {
        let store = open(dir.path());
        for level in [Level::Os, Level::Fsync] {
            let topic = store.topic(&format!("{level:?}"), level, Retention::default()).expect("a topic");
            if life == 0 {
                epochs.push(topic.epoch())
            } else {
                assert!(epochs.contains(&topic.epoch()))
            }
            let head = topic.head();
            assert_eq!((head.newest, head.count, head.trimmed_through), (life * 500, life * 500, 0));
            if life > 0 {
                let again = append(&store, &topic, 9999, Some(&format!("key {}", life * 500)));
                assert_eq!(again, Stored { epoch: topic.epoch(), offset: life * 500, duplicate: true });
                let (name, state) = topic.consumers().pop().expect("a consumer");
                assert_eq!((&*name, &state[..]), ("reader", format!("at {}", life * 500).as_bytes()));
            }
            let tickets: Vec<_> = (life * 500 + 1..=life * 500 + 500)
                .map(|n| store.append(&topic, record(n, Some(&format!("key {n}")))).expect("taken"))
                .collect();
            for (n, ticket) in (life * 500 + 1..).zip(tickets) {
                assert_eq!(
                    ticket.wait().expect("stored"),
                    Stored { epoch: topic.epoch(), offset: n, duplicate: false }
                );
            }
            let state = Bytes::from(format!("at {}", topic.head().newest));
            store.consumer(&topic, "reader", Some(state)).expect("taken").wait().expect("stored");
        }
        for topic in store.topics() {
            let (forwards, damaged) = everything(&store, &topic, false, ROOM);
            assert!(damaged.is_empty());
            for (n, found) in (1..).zip(&forwards) {
                let expected = record(n, None);
                assert_eq!((found.offset, &found.tail, &found.attachment), (n, &expected.tail, &expected.attachment));
            }
            assert_eq!(forwards.len() as u64, (life + 1) * 500);
            let (mut backwards, _) = everything(&store, &topic, true, Room { records: 7, bytes: 500 });
            backwards.reverse();
            assert_eq!(backwards, forwards);
        }
    }
}

#[test]
fn a_duplicate_of_a_record_on_its_way_waits_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let topic = store.topic("t", Level::Fsync, Retention::default()).expect("a topic");
    let tickets: Vec<_> = (0..50).map(|n| store.append(&topic, record(n, Some("one"))).expect("taken")).collect();
    for (n, ticket) in tickets.into_iter().enumerate() {
        let stored = ticket.wait().expect("stored");
        assert_eq!((stored.offset, stored.duplicate), (1, n > 0));
        assert_eq!(topic.head().newest, 1, "the original is stored when the duplicate says so");
    }
}

#[test]
fn committed_records_come_in_order_and_before_their_tickets() {
    type Offsets = Vec<(Arc<str>, u64)>;
    #[derive(Default, Clone)]
    struct Seen(Arc<Mutex<Offsets>>);
    impl Committed for Seen {
        fn committed(&self, topic: &Topic, records: &[Record]) {
            self.0.lock().extend(records.iter().map(|record| (topic.name().clone(), record.offset)));
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let seen = Seen::default();
    let store = Store::open(options(dir.path()), seen.clone()).expect("the store opens");
    std::thread::scope(|scope| {
        for publisher in 0..4 {
            let (store, seen) = (&store, &seen);
            scope.spawn(move || {
                let level = if publisher % 2 == 0 { Level::Os } else { Level::Fsync };
                let topic = store.topic(&format!("t{}", publisher % 3), level, Retention::default()).expect("a topic");
                for n in 0..200 {
                    let stored = append(store, &topic, n, None);
                    assert!(seen.0.lock().contains(&(topic.name().clone(), stored.offset)));
                }
            });
        }
    });
    let seen = seen.0.lock();
    for name in ["t0", "t1", "t2"] {
        let offsets: Vec<u64> = seen.iter().filter(|(topic, _)| &**topic == name).map(|(_, offset)| *offset).collect();
        assert_eq!(offsets, (1..=offsets.len() as u64).collect::<Vec<_>>());
    }
}

#[test]
fn retention_drops_the_oldest_and_gives_back_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let few = store.topic("few", Level::Os, Retention { count: 10, ..Retention::default() }).expect("a topic");
    let small = store.topic("small", Level::Os, Retention { bytes: 100_000, ..Retention::default() }).expect("a topic");
    let end = Instant::now() + Duration::from_secs(30);
    let segments = || {
        std::fs::read_dir(dir.path())
            .unwrap()
            .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().ends_with(".seg"))
            .count()
    };
    let mut n = 0;
    // 20 segments and more are written, and never more than a few are there.
    while n < 30_000 || segments() > 6 {
        n += 1;
        store.append(&few, record(n, None)).expect("taken");
        append(&store, &small, n, None);
        if n > 30_000 {
            std::thread::sleep(Duration::from_millis(20));
        }
        assert!(Instant::now() < end, "{} segments are still there", segments());
    }
    let head = few.head();
    assert_eq!((head.count, head.trimmed_through), (10, head.newest - 10));
    let head = small.head();
    assert!((50_000..=100_000).contains(&head.bytes), "{} bytes", head.bytes);
    let (records, damaged) = everything(&store, &small, false, ROOM);
    assert_eq!((records[0].offset, records.len() as u64, damaged.len()), (head.trimmed_through + 1, head.count, 0));
    drop(store);
    let store = open(dir.path());
    assert_eq!(store.find("small").expect("the topic").head().trimmed_through, head.trimmed_through);
    assert_eq!(store.find("few").expect("the topic").head().count, 10);
}

#[test]
fn records_are_found_by_their_time() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let topic = store.topic("t", Level::Os, Retention::default()).expect("a topic");
    for n in 1..=100 {
        append(&store, &topic, n, None);
    }
    // A clock that goes back does not take the topic's time with it.
    append(&store, &topic, 50, None);
    store.trim(&topic, 10);
    for (at_ms, offset) in [(0, 11), (20_000, 20), (20_001, 21), (100_000, 100), (100_001, 102)] {
        assert_eq!(store.seek(&topic, at_ms).expect("found"), offset, "at {at_ms}");
    }
}

#[test]
fn a_forgotten_topic_is_another_one_when_it_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let first = store.topic("t", Level::Fsync, Retention::default()).expect("a topic");
    append(&store, &first, 1, Some("key"));
    store.forget(&first).expect("forgotten");
    assert_eq!(store.append(&first, record(2, None)).err(), Some(Refusal::Closed));
    drop(store);
    let store = open(dir.path());
    assert!(store.find("t").is_none());
    let second = store.topic("t", Level::Fsync, Retention::default()).expect("a topic");
    assert_ne!(second.epoch(), first.epoch());
    assert!(!append(&store, &second, 1, Some("key")).duplicate);
}

#[test]
fn a_second_process_and_a_newer_format_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    assert!(matches!(Store::open(options(dir.path()), ()), Err(OpenError::InUse(_))));
    drop(store);
    let path = dir.path().join("STORE");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[8] = 99;
    let crc = crc32c::crc32c(&bytes[..12]).to_le_bytes();
    bytes[12..16].copy_from_slice(&crc);
    std::fs::write(&path, bytes).unwrap();
    let error = Store::open(options(dir.path()), ()).err().expect("refused");
    assert!(matches!(error, OpenError::NewerFormat { found: 99, known: 1, .. }), "{error}");
}

#[test]
fn topics_are_never_read_as_none_because_their_checkpoints_are_damaged() {
    let dir = tempfile::tempdir().unwrap();
    for n in 0..3 {
        let store = open(dir.path());
        let topic = store.topic("t", Level::Fsync, Retention { count: 1, ..Retention::default() }).expect("a topic");
        append(&store, &topic, n, None);
    }
    // Retention deletes the first segment sooner or later.
    let _ = std::fs::remove_file(dir.path().join("0000000001.seg"));
    for entry in std::fs::read_dir(dir.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "ckp") {
            let mut bytes = std::fs::read(&path).unwrap();
            bytes[20] ^= 1;
            std::fs::write(&path, bytes).unwrap();
        }
    }
    let error = Store::open(options(dir.path()), ()).err().expect("refused");
    assert!(matches!(error, OpenError::Damaged { .. }), "{error}");
}

#[test]
fn losing_power_is_another_epoch_for_records_that_were_not_synced() {
    let dir = tempfile::tempdir().unwrap();
    let boots = |boot| Options { boot: Some(boot), ..options(dir.path()) };
    let epochs = |store: &Store| ["os", "fsync"].map(|name| store.find(name).expect("the topic").epoch());
    let store = Store::open(boots(1), ()).expect("the store opens");
    for (name, level) in [("os", Level::Os), ("fsync", Level::Fsync)] {
        let topic = store.topic(name, level, Retention::default()).expect("a topic");
        append(&store, &topic, 1, None);
    }
    let before = epochs(&store);
    drop(store);
    let store = Store::open(boots(2), ()).expect("the store opens");
    assert_eq!(epochs(&store), before, "it was closed, so nothing can be lost");
    // As a process that ends without closing leaves it.
    let image = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(dir.path()).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, image.path().join(path.file_name().unwrap())).unwrap();
    }
    let other = |boot| Options { boot: Some(boot), ..options(image.path()) };
    let killed = Store::open(other(2), ()).expect("the store opens");
    assert_eq!(epochs(&killed), before, "the same run of the machine");
    std::mem::forget(killed);
    let image2 = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(image.path()).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, image2.path().join(path.file_name().unwrap())).unwrap();
    }
    let lost = Store::open(Options { boot: Some(3), ..options(image2.path()) }, ()).expect("the store opens");
    let after = epochs(&lost);
    assert_ne!(after[0], before[0]);
    assert_eq!(after[1], before[1]);
}

#[test]
fn too_much_that_waits_is_refused_and_ends_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(Options { pending_bytes: 10_000, ..options(dir.path()) }, ()).expect("the store opens");
    let topic = store.topic("t", Level::Fsync, Retention::default()).expect("a topic");
    let (mut tickets, mut refused) = (Vec::new(), 0);
    for n in 0..2000 {
        match store.append(&topic, record(n, None)) {
            Ok(ticket) => tickets.push(ticket),
            Err(Refusal::Busy) => refused += 1,
            Err(other) => panic!("{other}"),
        }
    }
    assert!(refused > 0);
    let taken = tickets.len() as u64;
    tickets.into_iter().for_each(|ticket| assert!(ticket.wait().is_ok()));
    assert_eq!(append(&store, &topic, 1, None).offset, taken + 1, "a refused record has no offset");
    assert_eq!(store.health(), Health::Ok);
}

#[test]
fn the_level_of_a_topic_changes_without_losing_its_history() {
    let dir = tempfile::tempdir().unwrap();
    let boots = |boot| Options { boot: Some(boot), ..options(dir.path()) };
    let topic = |store: &Store, level| store.topic("t", level, Retention::default()).expect("a topic");
    let store = Store::open(boots(1), ()).expect("the store opens");
    let first = topic(&store, Level::Os).epoch();
    for (n, level) in [(1, Level::Os), (2, Level::Fsync), (3, Level::Os), (4, Level::Os), (5, Level::Fsync)] {
        let changed = topic(&store, level);
        assert_eq!((changed.level(), changed.epoch()), (level, first), "power was never lost");
        assert_eq!(append(&store, &changed, n, None).offset, n);
    }
    // Many at once, while the level changes to and fro.
    let seen: Vec<_> = (6..200)
        .map(|n| {
            let level = if n % 7 < 3 { Level::Os } else { Level::Fsync };
            store.append(&topic(&store, level), record(n, None)).expect("taken")
        })
        .collect();
    for (n, ticket) in (6..).zip(seen) {
        assert_eq!(ticket.wait().expect("stored").offset, n);
    }
    topic(&store, Level::Os);
    drop(store);
    let store = Store::open(boots(1), ()).expect("the store opens");
    let found = store.find("t").expect("the topic");
    assert_eq!((found.level(), found.epoch(), found.head().newest), (Level::Os, first, 199));
    std::mem::forget(store);
    // Power is lost, and the next store is the same directory as far as it is on the disk.
    let image = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(dir.path()).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, image.path().join(path.file_name().unwrap())).unwrap();
    }
    let store = Store::open(Options { boot: Some(2), ..options(image.path()) }, ()).expect("the store opens");
    let lost = store.find("t").expect("the topic").epoch();
    assert_eq!((lost.made, lost.generation), (first.made, 1));
    let safe = topic(&store, Level::Fsync);
    assert_ne!(safe.epoch().made, first.made, "an epoch without generation would be the one from before");
    assert_eq!((safe.epoch().generation, safe.head().newest), (0, 199));
    let (epoch, stored) = (safe.epoch(), append(&store, &safe, 200, None));
    assert_eq!((stored.offset, stored.epoch), (200, epoch));
    drop(store);
    let store = Store::open(Options { boot: Some(3), ..options(image.path()) }, ()).expect("the store opens");
    let found = store.find("t").expect("the topic");
    assert_eq!((found.level(), found.epoch()), (Level::Fsync, epoch));
    assert_eq!(topic(&store, Level::Os).epoch().generation, 1);
}

#[test]
fn figures_count_what_happened() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(Options { pending_bytes: 10_000, ..options(dir.path()) }, ()).expect("the store opens");
    let [os, fsync] = [("os", Level::Os), ("fsync", Level::Fsync)]
        .map(|(name, level)| store.topic(name, level, Retention::default()).expect("a topic"));
    for n in 1..=20 {
        append(&store, &os, n, None);
        append(&store, &fsync, n, None);
    }
    let busy = (0..500).filter(|n| store.append(&fsync, record(*n, None)).is_err()).count() as u64;
    let taken = append(&store, &fsync, 1, None).offset;
    let stats = store.stats();
    assert_eq!((stats.health, stats.topics, stats.appended), (Health::Ok, 2, [20, taken]));
    assert_eq!((stats.refused.busy, stats.refused.full, stats.refused.failed), (busy, 0, 0));
    assert_eq!(stats.live_bytes, os.head().bytes + fsync.head().bytes);
    assert_eq!((stats.commit_micros[0].count, stats.commit_micros[1].count), (20, taken));
    assert!(stats.group_records.count <= stats.group_records.sum && stats.sync_micros.count > 0);
    assert!(stats.sync_micros.quantile(0.5) <= stats.sync_micros.quantile(0.99));
    assert!(stats.segments >= 1 && stats.bytes >= stats.written_bytes && stats.free_bytes.is_some());
    assert_eq!((stats.damaged_ranges, stats.torn_bytes, stats.clock_holds), (0, 0, 0));
}
