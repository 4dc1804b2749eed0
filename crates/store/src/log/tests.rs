//! The log on a simulated disk, against a model. Deterministic: a failing seed says its number, and repeats.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::Arc;

use bytes::Bytes;

use super::*;
use crate::engine::Recovered;
use crate::error::OpenError;
use crate::record::Level;
use crate::simulated::{Faults, SimDisk};

const SEGMENT: u64 = 8 << 10;

fn options(boot: u64) -> LogOptions {
    LogOptions { segment_bytes: SEGMENT, min_free_bytes: 0, max_bytes: 0, boot }
}

fn message(topic: u64, offset: u64, size: usize, key: bool) -> Entry {
    let mut tail = format!("{topic}/{offset}/").into_bytes();
    tail.resize(tail.len() + size, b'a' + u8::try_from(offset % 26).unwrap());
    let key = key.then(|| Arc::<str>::from(format!("k{offset}")));
    let attachment = offset.is_multiple_of(5).then(|| Bytes::from(tail.clone()));
    Entry::Message { topic, record: Record { offset, at_ms: offset * 10, tail: tail.into(), attachment, key } }
}

/// What is known of a topic outside the log.
#[derive(Debug, Clone, Default)]
struct Known {
    records: BTreeMap<u64, Entry>,
    /// Written, and synced: the newest offsets.
    written: u64,
    synced: u64,
    /// Trims that were written, and synced.
    trim_written: u64,
    trim_synced: u64,
    consumers: HashMap<Arc<str>, Bytes>,
}

#[derive(Debug, Clone, Default)]
struct Model {
    topics: BTreeMap<u64, Known>,
    made_synced: BTreeSet<u64>,
}

fn snapshot(model: &Model, put: &mut dyn FnMut(Entry)) {
    for (id, known) in &model.topics {
        put(made(*id));
        put(Entry::Newest { topic: *id, offset: known.written, at_ms: 0 });
        put(Entry::Trim { topic: *id, through: known.trim_written });
        for (name, state) in &known.consumers {
            put(Entry::Consumer { topic: *id, name: name.clone(), state: Some(state.clone()) });
        }
    }
}

fn made(topic: u64) -> Entry {
    Entry::TopicMade { topic, name: format!("t{topic}").into(), level: Level::Fsync, epoch: topic * 7 }
}

/// Uses the log until the disk fails or the steps are done. Returns the error, if any.
fn live(log: &Log<SimDisk>, model: &mut Model, random: &mut fastrand::Rng, steps: u32) -> Result<(), EngineError> {
    for _ in 0..steps {
        match random.u32(..20) {
            0..12 => {
                // A group. Its effects count as written once the call has returned.
                let mut next = model.clone();
                let mut group = Vec::new();
                for _ in 0..random.u32(1..6) {
                    let topic = random.u64(1..5);
                    let is_new = !next.topics.contains_key(&topic);
                    let known = next.topics.entry(topic).or_default();
                    if is_new {
                        group.push(made(topic));
                    }
                    match random.u32(..12) {
                        0 if known.written > 2 => {
                            known.trim_written = known.trim_written.max(random.u64(1..known.written));
                            group.push(Entry::Trim { topic, through: known.trim_written });
                        }
                        1 => {
                            let state = Bytes::from(known.written.to_le_bytes().to_vec());
                            known.consumers.insert("c".into(), state.clone());
                            group.push(Entry::Consumer { topic, name: "c".into(), state: Some(state) });
                        }
                        _ => {
                            known.written += 1;
                            let size = [0, 20, 200, 1500][random.usize(..4)];
                            let entry = message(topic, known.written, size, random.bool());
                            known.records.insert(known.written, entry.clone());
                            group.push(entry);
                        }
                    }
                }
                log.write(&mut group.iter(), true)?;
                *model = next;
            }
            12..17 => {
                let before = model.clone();
                log.sync()?;
                for (topic, known) in &mut model.topics {
                    if let Some(before) = before.topics.get(topic) {
                        known.synced = before.written;
                        known.trim_synced = before.trim_written;
                        model.made_synced.insert(*topic);
                    }
                }
            }
            17 => log.tend(&|put| snapshot(model, put))?,
            _ => check_reads(log, model, random),
        }
    }
    Ok(())
}

fn all(log: &Log<SimDisk>, topic: u64, range: (u64, u64), reverse: bool, records: usize) -> Vec<Record> {
    let mut all = Vec::new();
    log.read(topic, range, reverse, Room { records, bytes: usize::MAX }, &mut |record| all.push(record))
        .expect("readable");
    all
}

fn check_reads(log: &Log<SimDisk>, model: &Model, random: &mut fastrand::Rng) {
    for (topic, known) in &model.topics {
        if known.written <= known.trim_written {
            continue;
        }
        let first = random.u64(known.trim_written + 1..=known.written);
        let last = random.u64(first..=known.written);
        let reverse = random.bool();
        let most = random.usize(1..40);
        let found = all(log, *topic, (first, last), reverse, most);
        let mut expected: Vec<u64> = (first..=last).collect();
        if reverse {
            expected.reverse();
        }
        expected.truncate(most);
        let offsets: Vec<u64> = found.iter().map(|record| record.offset).collect();
        assert_eq!(offsets, expected, "topic {topic}, {first} to {last}, reverse {reverse}");
        for record in found {
            let entry = Entry::Message { topic: *topic, record };
            let Entry::Message { record: Record { offset, .. }, .. } = &entry else { unreachable!() };
            assert_eq!(Some(&entry), known.records.get(offset), "another content");
        }
    }
}

/// Compares a log that was opened again with the model, and makes the model what was found. Says what is wrong.
fn judge(log: &Log<SimDisk>, recovered: &Recovered, model: &mut Model, power: bool) -> Result<bool, String> {
    let mut is_lossy = false;
    let mut found_topics = BTreeMap::new();
    for found in &recovered.topics {
        found_topics.insert(found.id, found);
    }
    for (topic, known) in std::mem::take(&mut model.topics) {
        let least = if power { known.synced } else { known.written };
        let Some(found) = found_topics.get(&topic) else {
            if power && !model.made_synced.contains(&topic) {
                is_lossy |= known.written > 0;
                continue;
            }
            return Err(format!("topic {topic} is gone"));
        };
        if found.newest < least || found.newest > known.records.last_key_value().map_or(0, |(last, _)| *last) {
            return Err(format!("topic {topic}: newest {} of {least} to {}", found.newest, known.written));
        }
        let trim = if power { known.trim_synced } else { known.trim_written };
        if found.trimmed_through < trim {
            return Err(format!("topic {topic}: trimmed {} instead of {trim}", found.trimmed_through));
        }
        if found.newest > found.trimmed_through {
            let records = all(log, topic, (found.trimmed_through + 1, found.newest), false, usize::MAX);
            let mut offset = found.trimmed_through;
            for record in records {
                offset += 1;
                let entry = Entry::Message { topic, record };
                if known.records.get(&offset) != Some(&entry) {
                    let (damage, runs) = (log.damage(), log.index.read().topics.get(&topic).cloned());
                    return Err(format!("topic {topic}: {offset} is {entry:?}; {damage:?}, {runs:?}"));
                }
            }
            if offset != found.newest {
                return Err(format!("topic {topic}: ends at {offset} and not at {}", found.newest));
            }
        }
        is_lossy |= found.newest < known.written;
        let mut next = known;
        next.records.retain(|offset, _| *offset <= found.newest);
        next.written = found.newest;
        next.synced = found.newest;
        next.trim_written = found.trimmed_through;
        next.trim_synced = found.trimmed_through;
        next.consumers = found.consumers.iter().cloned().collect();
        for state in next.consumers.values() {
            let floor = u64::from_le_bytes(*state.first_chunk().expect("eight bytes"));
            if floor > next.written {
                return Err(format!("topic {topic}: a consumer is at {floor}, the log at {}", next.written));
            }
        }
        model.made_synced.insert(topic);
        model.topics.insert(topic, next);
    }
    Ok(is_lossy)
}

/// Several lives of one log, each ended by a kill, a loss of power or a close; power is lost in recoveries as well.
fn run(seed: u64, faults: Faults, lies: bool) -> Result<(), String> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut disk = SimDisk::faulty(faults);
    let mut model = Model::default();
    let mut boot = 1;
    let mut power = false;
    let mut generation = 0;
    for _life in 0..random.u32(2..7) {
        if random.u32(..4) == 0 {
            disk.lose_power_after(random.u64(..30));
        }
        let (log, recovered) = match open(disk.clone(), options(boot)) {
            Ok(opened) => opened,
            Err(error) if error.to_string().contains("the power is lost") => {
                boot += 1;
                power = true;
                disk = disk.after_power_loss(&mut random);
                continue;
            }
            Err(error) => return Err(format!("did not open: {error}")),
        };
        let is_lossy = judge(&log, &recovered, &mut model, power)?;
        if is_lossy && recovered.generation <= generation {
            return Err("records of the level `os` were lost under the same epoch".to_owned());
        }
        if !power && recovered.generation != generation {
            return Err("another epoch, though the power was not lost".to_owned());
        }
        generation = recovered.generation;
        let damage = log.damage();
        if !damage.is_empty() || recovered.damages > 0 {
            return Err(format!("a false alarm: {damage:?}"));
        }
        if random.u32(..3) > 0 {
            disk.lose_power_after(random.u64(..120));
        }
        let steps = random.u32(..120);
        let result = live(&log, &mut model, &mut random, steps);
        let is_looked_at = seed.is_multiple_of(4) && !lies && faults == Faults::default();
        if is_looked_at && result.is_ok() {
            inspect::tests::must_be_good(&disk, boot)?;
        }
        // A group during whose write the power was lost may be there, so the model has to know its records. They are
        // those that `live` would write next; their contents follow from topic and offset, but for the size. Such a
        // group is torn by the simulated disk, so it never is there as a whole.
        if lies {
            for known in model.topics.values_mut() {
                known.synced = known.written;
            }
            model.made_synced.extend(model.topics.keys().copied());
        }
        match (result, random.u32(..3)) {
            (Ok(()), 0) => {
                disk.lose_power_after(u64::MAX);
                log.close(&|put| snapshot(&model, put));
                power = random.bool();
                if power {
                    for known in model.topics.values_mut() {
                        known.synced = known.written;
                        known.trim_synced = known.trim_written;
                    }
                    model.made_synced.extend(model.topics.keys().copied());
                }
            }
            (Ok(()), 1) => power = false,
            _ => power = true,
        }
        drop(log);
        if power {
            boot += 1;
            disk = disk.after_power_loss(&mut random);
        } else {
            disk = disk.after_kill();
        }
        if is_looked_at {
            inspect::tests::must_be_good(&disk, boot)?;
        }
    }
    Ok(())
}

fn seeds() -> u64 {
    std::env::var("SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(2000)
}

#[test]
fn nothing_is_lost_by_kills_and_power_losses() {
    for seed in 0..seeds() {
        if let Err(wrong) = run(seed, Faults::default(), false) {
            panic!("seed {seed}: {wrong}");
        }
    }
}

#[test]
fn planted_faults_are_found() {
    let failing = |faults, lies| (0..300).filter(|seed| run(*seed, faults, lies).is_err()).count();
    assert!(failing(Faults { ignores_sync: true, ..Faults::default() }, false) > 10, "no sync");
    assert!(failing(Faults { ignores_names: true, ..Faults::default() }, false) > 10, "no sync of names");
    assert!(failing(Faults::default(), true) > 10, "acknowledged before the sync");
}

#[test]
fn a_full_disk_refuses_and_ends_by_itself() {
    let disk = SimDisk::default();
    let (log, _) = open(disk.clone(), options(1)).expect("a log");
    log.write(&mut [made(1)].iter(), true).expect("written");
    disk.set_room(Some(disk.used() + SEGMENT / 2));
    let mut offset = 0;
    let refused = loop {
        match log.write(&mut [message(1, offset + 1, 500, false)].iter(), true) {
            Ok(_) => offset += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, EngineError::Full) && offset > 5);
    assert!(!log.has_room(), "there is no room yet");
    // A start with a full disk serves what is there.
    let (again, recovered) = open(disk.after_kill(), options(1)).expect("a log");
    assert_eq!(recovered.topics[0].newest, offset);
    assert_eq!(all(&again, 1, (1, offset), false, 1000).len() as u64, offset);
    disk.set_room(None);
    assert!(log.has_room());
    log.write(&mut [message(1, offset + 1, 500, false)].iter(), true).expect("there is room");
    assert_eq!(all(&log, 1, (1, offset + 1), false, 1000).len() as u64, offset + 1);
}

#[test]
fn a_write_that_failed_for_lack_of_room_never_comes_back() {
    let disk = SimDisk::default();
    let (log, _) = open(disk.clone(), options(1)).expect("a log");
    log.write(&mut [made(1), message(1, 1, 10, false)].iter(), true).expect("written");
    disk.fail_after(0, io::ErrorKind::StorageFull);
    assert!(matches!(log.write(&mut [message(1, 2, 900, false)].iter(), true), Err(EngineError::Full)));
    log.write(&mut [message(1, 2, 20, true)].iter(), true).expect("the next one is written");
    let (log, recovered) = open(disk.after_kill(), options(1)).expect("a log");
    assert_eq!(recovered.topics[0].newest, 2);
    let records = all(&log, 1, (1, 2), false, 10);
    assert_eq!(records[1].key.as_deref(), Some("k2"), "the record that was acknowledged");
    assert!(log.damage().is_empty());
}

/// Damages one file of a log. Says whether that was told, or what was shown that is wrong.
fn rot(seed: u64) -> Result<bool, String> {
    let mut random = fastrand::Rng::with_seed(seed);
    let disk = SimDisk::default();
    let mut model = Model::default();
    let (log, _) = open(disk.clone(), options(1)).expect("a log");
    live(&log, &mut model, &mut random, 200).expect("written");
    log.sync().expect("synced");
    log.tend(&|put| snapshot(&model, put)).expect("tended");
    drop(log);
    let disk = disk.after_kill();
    let names = disk.list().expect("names");
    let name = &names[random.usize(..names.len())];
    let how = random.u32(..3);
    disk.damage(name, |bytes| {
        let used = bytes.len() - bytes.iter().rev().take_while(|byte| **byte == 0).count();
        let at = random.usize(..used.max(1));
        match how {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.u32(..8),
            1 => {
                let to = ((at & !4095) + 4096).min(bytes.len());
                bytes[at & !4095..to].fill(0);
            }
            _ => {
                bytes.truncate(used.saturating_sub(1));
            }
        }
    });
    let is_noticed = inspect::tests::notices_damage(&disk, 1);
    let (log, recovered) = match open(disk, options(1)) {
        Ok(opened) => opened,
        Err(OpenError::Damaged { .. } | OpenError::NewerFormat { .. }) => {
            return Ok(true);
        }
        Err(error) => return Err(format!("did not open: {error}")),
    };
    let mut is_whole = true;
    for (topic, known) in &model.topics {
        let Some(found) = recovered.topics.iter().find(|found| found.id == *topic) else {
            is_whole = false;
            continue;
        };
        let range = (known.trim_written + 1, found.newest);
        let mut expected = known.trim_written;
        if range.0 <= range.1 {
            for record in all(&log, *topic, range, false, usize::MAX) {
                // A hole is told by the missing offsets.
                if record.offset <= expected {
                    return Err(format!("offset {} behind {expected}", record.offset));
                }
                expected = record.offset;
                let entry = Entry::Message { topic: *topic, record };
                if Some(&entry) != known.records.get(&expected) {
                    return Err(format!("another content: {entry:?}"));
                }
            }
        }
        is_whole &= found.newest == known.written;
    }
    if !is_whole && recovered.damages == 0 {
        return Err(format!("{name} {how}: the newest records are gone, and nothing is told"));
    }
    let is_told = !is_whole || !log.damage().is_empty();
    if is_told && !is_noticed {
        return Err(format!("{name} {how}: a start tells damage, and verify finds none"));
    }
    Ok(is_told)
}

#[test]
fn damage_is_told_and_never_served() {
    let mut told = 0;
    for seed in 0..seeds() / 4 {
        match rot(seed) {
            Ok(is_told) => told += usize::from(is_told),
            Err(wrong) => panic!("seed {seed}: {wrong}"),
        }
    }
    assert!(told > 0);
}

#[test]
fn a_log_without_checksums_shows_wrong_contents() {
    crate::codec::IGNORES_CHECKSUMS.set(true);
    let wrong = (0..200).filter(|seed| rot(*seed).is_err()).count();
    assert!(wrong > 10, "the planted fault is found only {wrong} times");
}
