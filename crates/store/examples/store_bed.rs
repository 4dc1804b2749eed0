//! A publisher for tests from outside: kills, power cuts, damaged files. `tests/store_bed.py` drives and judges it.
//!
//! * `store_bed publish DIR SECONDS [FAULT]` publishes on both levels and prints a line for each acknowledgement,
//!   only once its ticket has resolved.
//! * `store_bed dump DIR` prints all that the store has.
//! * `store_bed measure DIR ...` prints figures.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, missing_docs)] // A tool for tests.

use std::collections::VecDeque;
use std::io::Write;
use std::process::exit;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use quic_websocket_store::{Level, NewRecord, Options, Record, Refusal, Retention, Room, Store, Stored, Ticket, Topic};

const ROOM: Room = Room { records: 1000, bytes: 1 << 20 };

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["publish", dir, seconds, ref rest @ ..] => {
            publish(dir, seconds.parse().expect("seconds"), rest.first().copied().unwrap_or_default());
        }
        ["dump", dir] => dump(dir),
        ["measure", dir, level, topics, window, seconds] => {
            let [topics, window, seconds] = [topics, window, seconds].map(|n| n.parse().expect("a number"));
            measure(dir, level, topics, window, seconds);
        }
        ["replay", dir, count] => replay(dir, count.parse().expect("a number")),
        ["fill", dir, topics, count, size] => {
            let [topics, count, size] = [topics, count, size].map(|n| n.parse().expect("a number"));
            fill(dir, topics, count, size);
        }
        ["open", dir] => {
            let start = Instant::now();
            let store = open(dir);
            println!(
                "opened in {:.3} s, {} topics, {} KiB resident",
                start.elapsed().as_secs_f64(),
                store.topics().len(),
                rss()
            );
        }
        _ => panic!("see the head of the source for the arguments"),
    }
}

fn rss() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).unwrap_or(0)
}

fn open(dir: &str) -> Store {
    let mut options = Options::new(dir);
    let setting = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    options.segment_bytes = setting("SEGMENT").unwrap_or(options.segment_bytes);
    options.min_free_bytes = setting("MIN_FREE").unwrap_or(0);
    options.boot = setting("BOOT");
    let ratio = std::env::var("GC").ok().and_then(|text| text.parse().ok());
    options.gc_live_ratio = ratio.unwrap_or(options.gc_live_ratio);
    Store::open(options, ()).unwrap_or_else(|error| {
        println!("refused {error}");
        exit(3)
    })
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_millis().try_into().expect("a time")
}

/// A content that shows when a single byte of it is wrong.
fn content(publisher: usize, n: u64, size: usize) -> Bytes {
    let head = format!("{publisher}-{}-{n}:", std::process::id());
    let mut bytes = head.clone().into_bytes();
    let sum = head.bytes().fold(7_u8, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte));
    while bytes.len() < size {
        let place = u8::try_from(bytes.len() % 251).expect("below 251");
        bytes.push(b'a' + sum.wrapping_add(place.wrapping_mul(7)) % 26);
    }
    bytes.into()
}

fn is_whole(content: &[u8]) -> bool {
    let Some(end) = content.iter().position(|byte| *byte == b':') else { return false };
    let sum = content[..=end].iter().fold(7_u8, |sum, byte| sum.wrapping_mul(31).wrapping_add(*byte));
    content.iter().enumerate().skip(end + 1).all(|(place, byte)| {
        let place = u8::try_from(place % 251).expect("below 251");
        *byte == b'a' + sum.wrapping_add(place.wrapping_mul(7)) % 26
    })
}

fn name(content: &[u8]) -> String {
    let end = content.iter().position(|byte| *byte == b':').unwrap_or(content.len().min(40));
    String::from_utf8_lossy(&content[..end]).into_owned()
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    out.write_all(line.as_bytes()).and_then(|()| out.flush()).unwrap_or_else(|_| exit(0));
}

/// What a publisher waits for.
struct Sent {
    ticket: Ticket,
    topic: Topic,
    label: String,
}

fn report(sent: Sent) {
    let Sent { ticket, topic, label } = sent;
    match ticket.wait() {
        Ok(Stored { epoch, offset, duplicate }) => {
            let what = if label.starts_with('@') {
                "consumer"
            } else if duplicate {
                "dup"
            } else {
                "ok"
            };
            say(&format!("{what} {} {epoch} {offset} {label}\n", topic.name()));
        }
        Err(error) => say(&format!("error {} {label} {error}\n", topic.name())),
    }
}

fn publish(dir: &str, seconds: f64, fault: &str) {
    let store = Arc::new(open(dir));
    let end = Instant::now() + Duration::from_secs_f64(seconds);
    let window = 8;
    let publishers = (0..6).map(|publisher| {
        let (store, fault) = (store.clone(), fault.to_owned());
        std::thread::spawn(move || {
            let mut waiting: VecDeque<Sent> = VecDeque::new();
            let mut n = 0_u64;
            while Instant::now() < end {
                n += 1;
                let level = if fastrand::bool() && fault != "only-fsync" { Level::Os } else { Level::Fsync };
                let number = fastrand::u8(..3);
                let retention = match number {
                    2 => Retention { count: 40, ..Retention::default() },
                    _ => Retention::default(),
                };
                let name = format!("{}.{number}", if level == Level::Os { "os" } else { "fsync" });
                let level = if fault == "no-fsync" { Level::Os } else { level };
                let Ok(topic) = store.topic(&name, level, retention) else { continue };
                if n.is_multiple_of(17) {
                    let head = topic.head();
                    let state = Bytes::from(format!("{}:{n}", head.newest));
                    if let Ok(ticket) = store.consumer(&topic, &format!("c{publisher}"), Some(state)) {
                        waiting.push_back(Sent { ticket, topic, label: format!("@c{publisher}={}:{n}", head.newest) });
                    }
                    continue;
                }
                let size = [30, 100, 300, 3000][usize::from(fastrand::u8(..4))];
                let content = content(publisher, n, size);
                let label = self::name(&content);
                let key: Option<Arc<str>> = n.is_multiple_of(5).then(|| label.as_str().into());
                let attachment = n.is_multiple_of(7).then(|| content.clone());
                let record = NewRecord { at_ms: now_ms(), tail: content, attachment, key: key.clone() };
                match store.append(&topic, record.clone()) {
                    Ok(ticket) if fault == "early-ack" => {
                        say(&format!("ok {} {} 0 {label}\n", topic.name(), topic.epoch()));
                        drop(ticket);
                    }
                    Ok(ticket) => waiting.push_back(Sent { ticket, topic: topic.clone(), label: label.clone() }),
                    Err(Refusal::Full) => {
                        say(&format!("full {}\n", topic.name()));
                        std::thread::sleep(Duration::from_millis(50))
                    }
                    Err(refusal) => {
                        say(&format!("refused {} {refusal}\n", topic.name()));
                        std::thread::sleep(Duration::from_millis(50))
                    }
                }
                if key.is_some()
                    && let Ok(ticket) = store.append(&topic, record)
                {
                    waiting.push_back(Sent { ticket, topic, label });
                }
                while waiting.len() > window {
                    report(waiting.pop_front().expect("a ticket"));
                }
                if fastrand::u8(..16) == 0 {
                    std::thread::sleep(Duration::from_millis(fastrand::u64(..15)))
                }
            }
            waiting.into_iter().for_each(report);
        })
    });
    let publishers: Vec<_> = publishers.collect();
    publishers.into_iter().for_each(|publisher| publisher.join().expect("a publisher"));
    if let Some(why) = store.failure() {
        say(&format!("failed {why}\n"))
    }
}

fn all(store: &Store, topic: &Topic, reverse: bool) -> (Vec<Record>, Vec<(u64, u64)>) {
    let (mut records, mut damaged) = (Vec::new(), Vec::new());
    let mut next = Some(if reverse { u64::MAX } else { 0 });
    while let Some(from) = next {
        match store.read(topic, from, reverse, Room { records: 50, bytes: 100_000 }) {
            Ok(page) => {
                records.extend(page.records);
                damaged.extend(page.damaged);
                next = page.next;
            }
            Err(error) => {
                say(&format!("unreadable {} {from} {error}\n", topic.name()));
                break;
            }
        }
    }
    (records, damaged)
}

fn dump(dir: &str) {
    let store = open(dir);
    let mut topics = store.topics();
    topics.sort_by_key(|topic| topic.name().clone());
    let mut out = String::new();
    for topic in topics {
        let head = topic.head();
        let name = topic.name();
        out += &format!("topic {name} {} {} {}\n", head.epoch, head.trimmed_through, head.newest);
        let (records, damaged) = all(&store, &topic, false);
        for record in &records {
            let is_whole =
                is_whole(&record.tail) && record.attachment.as_ref().is_none_or(|other| *other == record.tail);
            let label = if is_whole { self::name(&record.tail) } else { format!("WRONG{:?}", record.tail) };
            out += &format!("rec {name} {} {label}\n", record.offset);
        }
        for (first, last) in &damaged {
            out += &format!("damaged {name} {first} {last}\n");
        }
        for (consumer, state) in topic.consumers() {
            out += &format!("consumer {name} {consumer} {}\n", String::from_utf8_lossy(&state));
        }
        let (mut backwards, _) = all(&store, &topic, true);
        backwards.reverse();
        if backwards != records {
            out += &format!("mismatch {name} {} {}\n", records.len(), backwards.len());
        }
        // A key of one of the last records is still known, and leads to its offset.
        if let Some(record) = records.iter().rev().take(100).find(|record| record.key.is_some()) {
            let again = NewRecord { at_ms: 0, tail: record.tail.clone(), attachment: None, key: record.key.clone() };
            match store.append(&topic, again).map(Ticket::wait) {
                Ok(Ok(Stored { offset, duplicate: true, .. })) if offset == record.offset => {}
                other => out += &format!("forgot {name} {} {other:?}\n", record.offset),
            }
        }
    }
    for damage in store.damage() {
        out += &format!("damage {} {} {}\n", damage.file, damage.from, damage.to);
    }
    out += "end\n";
    say(&out);
}

fn topics(store: &Store, level: Level, count: usize) -> Vec<Topic> {
    let make = |n| store.topic(&format!("topic.{n}"), level, Retention::default()).expect("a topic");
    (0..count).map(make).collect()
}

fn io() -> (u64, u64) {
    let text = std::fs::read_to_string("/proc/self/io").unwrap_or_default();
    let field = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).unwrap_or(0)
    };
    (field("wchar:"), field("write_bytes:"))
}

fn measure(dir: &str, level: &str, count: usize, window: usize, seconds: usize) {
    let store = open(dir);
    let level = if level == "os" { Level::Os } else { Level::Fsync };
    let topics = topics(&store, level, count);
    let tail = Bytes::from(vec![b'x'; 200]);
    store
        .append(&topics[0], NewRecord { at_ms: 1, tail: tail.clone(), attachment: None, key: None })
        .expect("taken")
        .wait()
        .expect("stored");
    let before = io();
    let cpu = cpu_seconds();
    let (mut waiting, mut times) = (VecDeque::with_capacity(window), Vec::new());
    let start = Instant::now();
    let mut n = 0_u64;
    let mut settle = |(ticket, at): (Ticket, Instant)| {
        ticket.wait().expect("stored");
        times.push(at.elapsed());
    };
    while start.elapsed().as_secs() < seconds as u64 {
        for _ in 0..window.min(64) {
            while waiting.len() >= window {
                settle(waiting.pop_front().expect("one"))
            }
            let topic = &topics[fastrand::usize(..topics.len())];
            let record = NewRecord { at_ms: now_ms(), tail: tail.clone(), attachment: None, key: None };
            waiting.push_back((store.append(topic, record).expect("taken"), Instant::now()));
            n += 1;
        }
    }
    waiting.into_iter().for_each(&mut settle);
    let elapsed = start.elapsed().as_secs_f64();
    let cpu = cpu_seconds() - cpu;
    drop(store);
    let after = io();
    times.sort_unstable();
    let at = |share: f64| {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
        let place = (times.len() as f64 * share) as usize;
        times[place.min(times.len() - 1)].as_secs_f64() * 1e6
    };
    #[allow(clippy::cast_precision_loss)]
    let (n, bytes) = (n as f64, n as f64 * 200.0);
    #[allow(clippy::cast_precision_loss)]
    let (passed, disk) = ((after.0 - before.0) as f64, (after.1 - before.1) as f64);
    println!(
        "{level:?} topics {count} window {window}: {:.0}/s p50 {:.0} us p99 {:.0} us p99.9 {:.0} us cpu {:.1} us each, \
         written {:.1}, to disk {:.1} bytes per byte, {} KiB resident",
        n / elapsed,
        at(0.5),
        at(0.99),
        at(0.999),
        cpu * 1e6 / n,
        passed / bytes,
        disk / bytes,
        rss()
    );
}

fn cpu_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<f64> = text
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|n| n.parse().ok())
        .collect();
    fields.iter().sum::<f64>() / 100.0
}

fn fill(dir: &str, count: usize, records: usize, size: usize) {
    let start = Instant::now();
    let store = open(dir);
    let topics = topics(&store, Level::Os, count);
    let tail = Bytes::from(vec![b'x'; size]);
    let mut waiting = VecDeque::new();
    for n in 0..records {
        if waiting.len() >= 4096 {
            let ticket: Ticket = waiting.pop_front().expect("one");
            ticket.wait().expect("stored");
        }
        let record = NewRecord { at_ms: now_ms(), tail: tail.clone(), attachment: None, key: None };
        waiting.push_back(store.append(&topics[n % count], record).expect("taken"));
    }
    waiting.into_iter().for_each(|ticket| drop(ticket.wait()));
    println!(
        "filled {records} records of {size} in {count} topics in {:.1} s, {} KiB resident",
        start.elapsed().as_secs_f64(),
        rss()
    );
    // The end of a process that was killed: nothing is closed.
    exit(0)
}

fn replay(dir: &str, most: u64) {
    let store = open(dir);
    let (start, mut count, mut next) = (Instant::now(), 0_u64, 0);
    let topics = store.topics();
    let topic = &topics[fastrand::usize(..topics.len())];
    while count < most {
        let page = store.read(topic, next, false, Room { records: 64, bytes: 65536 }).expect("a page");
        count += page.records.len() as u64;
        match page.next {
            Some(offset) => next = offset,
            None => break,
        }
    }
    let one = (count, start.elapsed().as_secs_f64());
    let (start, mut count) = (Instant::now(), 0);
    'all: for topic in &topics {
        let mut next = Some(0);
        while let Some(from) = next {
            let page = store.read(topic, from, false, ROOM).expect("a page");
            count += page.records.len() as u64;
            next = page.next;
            if count >= most {
                break 'all;
            }
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    #[allow(clippy::cast_precision_loss)]
    let (first, second) = (one.0 as f64 / one.1, count as f64 / seconds);
    println!(
        "replay: one topic {} records, {first:.0}/s; topic after topic {count} records, {second:.0}/s, {} KiB resident",
        one.0,
        rss()
    );
}
