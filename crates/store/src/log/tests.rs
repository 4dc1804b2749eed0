//! The log on a simulated disk, against a model. Deterministic: a failing seed says its number and the shortest list of
//! operations that still fails.

use std::io;

use super::model::{Model, Op, Run, SEGMENT, all, made, message, operations, options, run, step};
use super::shrink::shortest;
use super::*;
use crate::error::OpenError;
use crate::simulated::{Faults, SimDisk};

fn seeds() -> u64 {
    std::env::var("SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(2000)
}

#[test]
fn nothing_is_lost_by_kills_and_power_losses() {
    let first = std::env::var("FIRST").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0);
    for seed in first..first + seeds() {
        let (ops, with) = (operations(seed), Run { looks: seed.is_multiple_of(4), ..Run::default() });
        if let Err(wrong) = run(&ops, with) {
            let (short, why) = shortest(&ops, with);
            let lines: Vec<_> = short.iter().map(|op| format!("    {op:?}")).collect();
            panic!("seed {seed}: {wrong}\n{} of {} operations: {why}\n{}", short.len(), ops.len(), lines.join("\n"));
        }
    }
}

#[test]
fn planted_faults_are_found() {
    let failing = |with| (0..300).filter(|seed| run(&operations(*seed), with).is_err()).count();
    let faulty = |faults| Run { faults, ..Run::default() };
    assert!(failing(faulty(Faults { ignores_sync: true, ..Faults::default() })) > 10, "no sync");
    assert!(failing(faulty(Faults { ignores_names: true, ..Faults::default() })) > 10, "no sync of names");
    assert!(failing(Run { lies: true, ..Run::default() }) > 10, "acknowledged before the sync");
}

#[test]
fn a_failing_seed_shrinks() {
    let with = Run { lies: true, ..Run::default() };
    let seed = (0..300).find(|seed| run(&operations(*seed), with).is_err()).expect("a seed that fails");
    let (short, why) = shortest(&operations(seed), with);
    assert!(short.len() <= 3, "seed {seed}: {why}\n{short:#?}");
    // Acknowledged before the sync: one write and one loss of power show it.
    assert!(run(&short, with).is_err() && run(&short, Run::default()).is_ok(), "{short:#?}");
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
    for op in operations(seed).into_iter().filter(|op| matches!(op, Op::Write(_) | Op::Sync | Op::Tend)).take(200) {
        step(&log, &mut model, &op)?;
    }
    log.sync().expect("synced");
    log.tend(log.due().unwrap_or(0), &|put| model.snapshot(put)).expect("tended");
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
    for (topic, written, trimmed, known) in model.topics() {
        let Some(found) = recovered.topics.iter().find(|found| found.id == topic) else {
            is_whole = false;
            continue;
        };
        let range = (trimmed + 1, found.newest);
        let mut expected = trimmed;
        if range.0 <= range.1 {
            for record in all(&log, topic, range, false, usize::MAX) {
                // A hole is told by the missing offsets.
                if record.offset <= expected {
                    return Err(format!("offset {} behind {expected}", record.offset));
                }
                expected = record.offset;
                let entry = Entry::Message { topic, record };
                if Some(&entry) != known.get(&expected) {
                    return Err(format!("another content: {entry:?}"));
                }
            }
        }
        is_whole &= found.newest == written;
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

#[test]
fn a_record_that_is_kept_for_long_does_not_keep_its_segment() {
    let disk = SimDisk::default();
    let (log, _) = open(disk.clone(), options(1)).expect("a log");
    let kept = [(1, 1), (1, 2), (3, 1)].map(|(topic, offset)| message(topic, offset, 200, true));
    log.write(&mut [1, 2, 3].map(made).iter().chain(&kept), true).expect("written");
    let mut most = 0;
    for offset in 1..=2000 {
        let trim = Entry::Trim { topic: 2, through: offset - 1 };
        log.write(&mut [message(2, offset, 300, false), trim].iter(), true).expect("written");
        if offset.is_multiple_of(10) {
            log.sync().expect("synced");
            let snapshot = |put: &mut dyn FnMut(Entry)| {
                for (topic, offset) in [(1, 2), (2, offset), (3, 1)] {
                    put(made(topic));
                    put(Entry::Newest { topic, offset, at_ms: 0 });
                }
                put(Entry::Trim { topic: 2, through: offset - 1 });
            };
            log.tend(log.due().unwrap_or(0), &snapshot).expect("tended");
            most = most.max(log.segments.read().len());
        }
    }
    assert!(most <= 6, "{most} segments");
    let copied = log.copied.load(Ordering::Relaxed);
    assert!(copied > 1000 && copied < log.appended.load(Ordering::Relaxed) / 2, "{copied} bytes");
    let check = |log: &Log<SimDisk>| {
        for entry in &kept {
            let Entry::Message { topic, record } = entry else { continue };
            let found = all(log, *topic, (record.offset, record.offset), false, 1);
            assert_eq!(found.first(), Some(record));
        }
        assert!(log.damage().is_empty());
    };
    check(&log);
    drop(log);
    let (log, recovered) = open(disk.after_kill(), options(1)).expect("a log");
    check(&log);
    assert_eq!(recovered.topics.iter().map(|found| found.newest).collect::<Vec<_>>(), [2, 2000, 1]);
}

#[test]
fn copying_is_a_part_of_the_random_runs() {
    let copied = (0..100).filter(|seed| {
        let ops = operations(*seed);
        let (log, _) = open(SimDisk::default(), options(1)).expect("a log");
        let mut model = Model::default();
        ops.iter().for_each(|op| drop(step(&log, &mut model, op)));
        log.copied.load(Ordering::Relaxed) > 0
    });
    assert!(copied.count() > 20);
}
