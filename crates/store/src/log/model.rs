//! Operations on a log with a simulated disk, and a model of what the log has to have afterwards. For tests.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::Arc;

use bytes::Bytes;

use super::*;
use crate::engine::Recovered;
use crate::record::Level;
use crate::simulated::{Faults, SimDisk};

pub(super) const SEGMENT: u64 = 8 << 10;
/// Topics that exist at the same time.
const SLOTS: u64 = 5;

pub(super) fn options(boot: u64) -> LogOptions {
    LogOptions { segment_bytes: SEGMENT, min_free_bytes: 0, max_bytes: 0, gc_live_ratio: 0.5, gc_rounds: 1, boot }
}

pub(super) fn message(topic: u64, offset: u64, size: usize, key: bool) -> Entry {
    let mut tail = format!("{topic}/{offset}/").into_bytes();
    tail.resize(tail.len() + size, b'a' + u8::try_from(offset % 26).unwrap());
    let key = key.then(|| Arc::<str>::from(format!("k{offset}")));
    let attachment = offset.is_multiple_of(5).then(|| Bytes::from(tail.clone()));
    Entry::Message { topic, record: Record { offset, at_ms: offset * 10, tail: tail.into(), attachment, key } }
}

pub(super) fn made(topic: u64) -> Entry {
    Entry::TopicMade { topic, name: format!("t{topic}").into(), level: Level::Fsync, epoch: topic * 7 }
}

/// One entry of a group, or two that belong together.
#[derive(Debug, Clone, Copy)]
pub(super) enum Part {
    Message { slot: u64, size: usize, key: bool },
    Trim { slot: u64, percent: u64 },
    Consumer { slot: u64, name: u8, ends: bool },
    DeadLetter { from: u64, to: u64 },
    Level { slot: u64 },
    Forget { slot: u64 },
}

/// How a life of the log ends.
#[derive(Debug, Clone, Copy)]
pub(super) enum End {
    Kill,
    Close,
    Power,
}

#[derive(Debug, Clone)]
pub(super) enum Op {
    Write(Vec<Part>),
    Sync,
    Tend,
    Read(u64),
    /// The power is lost at a later call to the disk.
    LosePower(u64),
    /// A later call to the disk fails.
    Fail(u64, io::ErrorKind),
    /// The log is opened again; the power may be lost during that as well.
    Reopen {
        end: End,
        cut: Option<u64>,
        seed: u64,
    },
}

/// The operations of a seed.
pub(super) fn operations(seed: u64) -> Vec<Op> {
    let random = &mut fastrand::Rng::with_seed(seed);
    let mut all = Vec::new();
    for _life in 0..random.u32(1..7) {
        match random.u32(..9) {
            0..5 => all.push(Op::LosePower(random.u64(..150))),
            5 => {
                let kind = if random.bool() { io::ErrorKind::StorageFull } else { io::ErrorKind::Other };
                all.push(Op::Fail(random.u64(..100), kind));
            }
            _ => {}
        }
        for _ in 0..random.u32(..120) {
            all.push(match random.u32(..20) {
                0..12 => Op::Write((0..random.u32(1..6)).map(|_| part(random)).collect()),
                12..16 => Op::Sync,
                16..18 => Op::Tend,
                _ => Op::Read(random.u64(..)),
            });
        }
        let end = [End::Close, End::Kill, End::Power, End::Power][random.usize(..4)];
        let cut = (random.u32(..4) == 0).then(|| random.u64(..30));
        all.push(Op::Reopen { end, cut, seed: random.u64(..) });
    }
    all
}

fn part(random: &mut fastrand::Rng) -> Part {
    let slot = random.u64(..SLOTS);
    match random.u32(..40) {
        0..5 => Part::Trim { slot, percent: random.u64(50..=100) },
        5..8 => Part::Consumer { slot, name: random.u8(..2), ends: random.u32(..8) == 0 },
        8..10 => Part::DeadLetter { from: slot, to: (slot + random.u64(1..SLOTS)) % SLOTS },
        10 if random.bool() => Part::Level { slot },
        11 if random.u32(..4) == 0 => Part::Forget { slot },
        _ => Part::Message { slot, size: [0, 20, 200, 1500][random.usize(..4)], key: random.bool() },
    }
}

/// All values that something had, and from which on they are on the disk.
#[derive(Debug, Clone)]
struct History<T> {
    values: Vec<T>,
    synced: usize,
}

impl<T: PartialEq> History<T> {
    fn new(first: T) -> Self {
        Self { values: vec![first], synced: 0 }
    }

    /// Whether this may be found after a crash; from now on it is what was written.
    fn settle(&mut self, found: &T, power: bool) -> bool {
        let least = if power { self.synced } else { self.values.len() - 1 };
        let place = self.values[least..].iter().rposition(|value| value == found);
        if let Some(place) = place {
            self.values.truncate(least + place + 1);
            self.synced = least + place;
        }
        place.is_some()
    }

    fn last(&self) -> &T {
        &self.values[self.values.len() - 1]
    }
}

/// The state of a consumer: its floor, and how many records it has given to a topic of dead letters.
type Consumed = Option<(u64, u64, u64)>;

/// What is known of a topic outside the log.
#[derive(Debug, Clone)]
struct Known {
    records: BTreeMap<u64, Entry>,
    /// Offsets of dead letters, by the topic that they come from.
    dead: BTreeMap<u64, Vec<u64>>,
    /// Written, and synced: the newest offsets.
    written: u64,
    synced: u64,
    trim_written: u64,
    trim_synced: u64,
    consumers: HashMap<Arc<str>, History<Consumed>>,
    level: History<(Level, u64)>,
    /// It is forgotten: written, and synced.
    gone: (bool, bool),
}

#[derive(Debug, Clone, Default)]
pub(super) struct Model {
    topics: BTreeMap<u64, Known>,
    slots: HashMap<u64, u64>,
    next: u64,
    made_synced: BTreeSet<u64>,
    states: u64,
}

fn bytes(state: (u64, u64, u64)) -> Bytes {
    [state.0, state.1, state.2].iter().flat_map(|number| number.to_le_bytes()).collect()
}

fn consumed(bytes: &Bytes) -> (u64, u64, u64) {
    let number = |at: usize| u64::from_le_bytes(*bytes[at..].first_chunk().expect("eight bytes"));
    (number(0), number(8), number(16))
}

impl Known {
    fn entries(&self, topic: u64, put: &mut dyn FnMut(Entry)) {
        let (level, epoch) = *self.level.last();
        put(Entry::TopicMade { topic, name: format!("t{topic}").into(), level, epoch });
        put(Entry::Newest { topic, offset: self.written, at_ms: 0 });
        put(Entry::Trim { topic, through: self.trim_written });
        for (name, state) in &self.consumers {
            if let Some(state) = *state.last() {
                put(Entry::Consumer { topic, name: name.clone(), state: Some(bytes(state)) });
            }
        }
    }
}

impl Model {
    pub(super) fn snapshot(&self, put: &mut dyn FnMut(Entry)) {
        self.topics.iter().filter(|(_, known)| !known.gone.0).for_each(|(id, known)| known.entries(*id, put));
    }

    /// Topics with the newest offset, what was trimmed, and all records.
    pub(super) fn topics(&self) -> impl Iterator<Item = (u64, u64, u64, &BTreeMap<u64, Entry>)> {
        let there = self.topics.iter().filter(|(_, known)| !known.gone.0);
        there.map(|(id, known)| (*id, known.written, known.trim_written, &known.records))
    }

    /// The topic in a slot, made if there is none.
    fn topic(&mut self, slot: u64, group: &mut Vec<Entry>) -> u64 {
        let next = self.next + 1;
        let id = *self.slots.entry(slot).or_insert(next);
        if id == next {
            self.next = next;
            group.push(made(id));
            let known = Known {
                records: BTreeMap::new(),
                dead: BTreeMap::new(),
                written: 0,
                synced: 0,
                trim_written: 0,
                trim_synced: 0,
                consumers: HashMap::new(),
                level: History::new((Level::Fsync, id * 7)),
                gone: (false, false),
            };
            self.topics.insert(id, known);
        }
        id
    }

    fn publish(&mut self, topic: u64, size: usize, key: bool, group: &mut Vec<Entry>) -> u64 {
        let known = self.topics.get_mut(&topic).expect("a topic");
        known.written += 1;
        let entry = message(topic, known.written, size, key);
        known.records.insert(known.written, entry.clone());
        group.push(entry);
        known.written
    }

    fn consumer(&mut self, topic: u64, name: &str, ends: bool, dead: u64, group: &mut Vec<Entry>) {
        self.states += 1;
        let known = self.topics.get_mut(&topic).expect("a topic");
        let state = (!ends).then_some((known.written, self.states, dead));
        let history = known.consumers.entry(name.into()).or_insert_with(|| History::new(None));
        history.values.push(state);
        group.push(Entry::Consumer { topic, name: name.into(), state: state.map(bytes) });
    }

    fn apply(&mut self, part: Part, group: &mut Vec<Entry>) {
        match part {
            Part::Message { slot, size, key } => {
                let topic = self.topic(slot, group);
                self.publish(topic, size, key, group);
            }
            Part::Trim { slot, percent } => {
                let topic = self.topic(slot, group);
                let known = self.topics.get_mut(&topic).expect("a topic");
                // One topic keeps its first records.
                let percent = if slot == 0 { percent / 10 } else { percent };
                known.trim_written = known.trim_written.max(known.written * percent / 100);
                group.push(Entry::Trim { topic, through: known.trim_written });
            }
            Part::Consumer { slot, name, ends } => {
                let topic = self.topic(slot, group);
                self.consumer(topic, &format!("c{name}"), ends, 0, group);
            }
            Part::DeadLetter { from, to } => {
                let (from, to) = (self.topic(from, group), self.topic(to, group));
                let offset = self.publish(to, 30, false, group);
                let dead = &mut self.topics.get_mut(&to).expect("a topic").dead;
                dead.entry(from).or_default().push(offset);
                let count = dead[&from].len() as u64;
                self.consumer(from, &format!("dead {to}"), false, count, group);
            }
            Part::Level { slot } => {
                let topic = self.topic(slot, group);
                let known = self.topics.get_mut(&topic).expect("a topic");
                let (level, epoch) = *known.level.last();
                let next = if level == Level::Os { (Level::Fsync, epoch + 1) } else { (Level::Os, epoch) };
                known.level.values.push(next);
                group.push(Entry::TopicLevel { topic, level: next.0, epoch: next.1 });
            }
            Part::Forget { slot } => {
                if let Some(topic) = self.slots.remove(&slot) {
                    self.topics.get_mut(&topic).expect("a topic").gone.0 = true;
                    group.push(Entry::TopicGone { topic });
                }
            }
        }
    }

    /// What was written is on the disk.
    fn sync(&mut self) {
        for (topic, known) in &mut self.topics {
            known.synced = known.written;
            known.trim_synced = known.trim_written;
            known.gone.1 = known.gone.0;
            known.level.synced = known.level.values.len() - 1;
            known.consumers.values_mut().for_each(|history| history.synced = history.values.len() - 1);
            self.made_synced.insert(*topic);
        }
    }

    /// Compares a log that was opened again, and becomes what was found. Says what is wrong, or whether records of the
    /// level `os` may be lost.
    fn judge(&mut self, log: &Log<SimDisk>, recovered: &Recovered, power: bool) -> Result<bool, String> {
        let mut is_lossy = false;
        let found_topics: BTreeMap<_, _> = recovered.topics.iter().map(|found| (found.id, found)).collect();
        for (topic, mut known) in std::mem::take(&mut self.topics) {
            let Some(found) = found_topics.get(&topic) else {
                if known.gone.0 {
                    continue;
                }
                if power && !self.made_synced.contains(&topic) {
                    is_lossy |= known.written > 0;
                    self.slots.retain(|_, id| *id != topic);
                    continue;
                }
                return Err(format!("topic {topic} is gone"));
            };
            if if power { known.gone.1 } else { known.gone.0 } {
                return Err(format!("topic {topic} is back"));
            }
            if known.gone.0 {
                // Power was lost before that was on the disk. It is forgotten again below.
                known.gone = (false, false);
            }
            known.settle(topic, found, log, power, &mut is_lossy)?;
            self.made_synced.insert(topic);
            self.topics.insert(topic, known);
        }
        for (topic, known) in &self.topics {
            for (name, history) in &known.consumers {
                let Some((floor, _, dead)) = *history.last() else { continue };
                if floor > known.written {
                    return Err(format!("topic {topic}: {name} is at {floor}, the log at {}", known.written));
                }
                let to = name.strip_prefix("dead ").and_then(|to| self.topics.get(&to.parse().ok()?));
                let letters = to.and_then(|to| to.dead.get(topic)).map(|letters| letters.len() as u64);
                if letters.is_some_and(|letters| letters != dead) {
                    return Err(format!("topic {topic}: {name} has {dead}, and {letters:?} are there"));
                }
            }
        }
        for (to, known) in &self.topics {
            for (from, letters) in &known.dead {
                let Some(from_known) = self.topics.get(from) else { continue };
                let name: Arc<str> = format!("dead {to}").into();
                if !letters.is_empty() && from_known.consumers.get(&name).is_none_or(|state| state.last().is_none()) {
                    return Err(format!("topic {from}: {} dead letters in {to} are unknown", letters.len()));
                }
            }
        }
        Ok(is_lossy)
    }
}

impl Known {
    fn settle(
        &mut self,
        topic: u64,
        found: &crate::engine::Found,
        log: &Log<SimDisk>,
        power: bool,
        is_lossy: &mut bool,
    ) -> Result<(), String> {
        let least = if power { self.synced } else { self.written };
        if found.newest < least || found.newest > self.written {
            return Err(format!("topic {topic}: newest {} of {least} to {}", found.newest, self.written));
        }
        let trim = if power { self.trim_synced } else { self.trim_written };
        if found.trimmed_through < trim {
            return Err(format!("topic {topic}: trimmed {} instead of {trim}", found.trimmed_through));
        }
        if found.newest > found.trimmed_through {
            let records = all(log, topic, (found.trimmed_through + 1, found.newest), false, usize::MAX);
            let mut offset = found.trimmed_through;
            for record in records {
                offset += 1;
                let entry = Entry::Message { topic, record };
                if self.records.get(&offset) != Some(&entry) {
                    return Err(format!("topic {topic}: {offset} is {entry:?}; {:?}", log.damage()));
                }
            }
            if offset != found.newest {
                let (damage, runs) = (log.damage(), log.index.read().topics.get(&topic).cloned());
                return Err(format!(
                    "topic {topic}: ends at {offset} and not at {}; {damage:?}; {runs:?}",
                    found.newest
                ));
            }
        }
        if !self.level.settle(&(found.level, found.epoch), power) {
            return Err(format!("topic {topic}: {:?} {} of {:?}", found.level, found.epoch, self.level));
        }
        let states: HashMap<_, _> = found.consumers.iter().cloned().collect();
        for (name, history) in &mut self.consumers {
            let state = states.get(name).map(consumed);
            if !history.settle(&state, power) {
                return Err(format!("topic {topic}: {name} is at {state:?} of {history:?}"));
            }
        }
        if let Some(name) = states.keys().find(|name| !self.consumers.contains_key(*name)) {
            return Err(format!("topic {topic}: nobody made {name}"));
        }
        *is_lossy |= found.newest < self.written;
        self.records.retain(|offset, _| *offset <= found.newest);
        for letters in self.dead.values_mut() {
            letters.retain(|offset| *offset <= found.newest);
        }
        (self.written, self.synced) = (found.newest, found.newest);
        (self.trim_written, self.trim_synced) = (found.trimmed_through, found.trimmed_through);
        Ok(())
    }
}

pub(super) fn all(log: &Log<SimDisk>, topic: u64, range: (u64, u64), reverse: bool, records: usize) -> Vec<Record> {
    let mut all = Vec::new();
    log.read(topic, range, reverse, Room { records, bytes: usize::MAX }, &mut |record| all.push(record))
        .expect("readable");
    all
}

fn check_reads(log: &Log<SimDisk>, model: &Model, random: &mut fastrand::Rng) -> Result<(), String> {
    for (topic, written, trimmed, known) in model.topics() {
        if written <= trimmed {
            continue;
        }
        let first = random.u64(trimmed + 1..=written);
        let last = random.u64(first..=written);
        let reverse = random.bool();
        let most = random.usize(1..40);
        let found = all(log, topic, (first, last), reverse, most);
        let mut expected: Vec<u64> = (first..=last).collect();
        if reverse {
            expected.reverse();
        }
        expected.truncate(most);
        let offsets: Vec<u64> = found.iter().map(|record| record.offset).collect();
        if offsets != expected {
            return Err(format!("topic {topic}, {first} to {last}, reverse {reverse}: {offsets:?} of {expected:?}"));
        }
        for record in found {
            let entry = Entry::Message { topic, record };
            let Entry::Message { record: Record { offset, .. }, .. } = &entry else { unreachable!() };
            if Some(&entry) != known.get(offset) {
                return Err(format!("topic {topic}: another content at {offset}"));
            }
        }
    }
    Ok(())
}

/// One operation of a life; says whether the log goes on. A group that was refused is not there, and never will be.
pub(super) fn step(log: &Log<SimDisk>, model: &mut Model, op: &Op) -> Result<bool, String> {
    match op {
        Op::Write(parts) => {
            let (mut next, mut group) = (model.clone(), Vec::new());
            parts.iter().for_each(|part| next.apply(*part, &mut group));
            match log.write(&mut group.iter(), false) {
                Ok(()) => *model = next,
                Err(EngineError::Full) => {}
                Err(EngineError::Failed(_)) => return Ok(false),
            }
        }
        Op::Sync => match log.sync() {
            Ok(()) => model.sync(),
            Err(_) => return Ok(false),
        },
        Op::Tend => {
            // What fails is tried again the next time.
            let _ = log.tend(log.due().unwrap_or(0), &|put| model.snapshot(put));
        }
        Op::Read(seed) => check_reads(log, model, &mut fastrand::Rng::with_seed(*seed))?,
        Op::LosePower(_) | Op::Fail(..) | Op::Reopen { .. } => {}
    }
    Ok(true)
}

/// What a log is run with.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Run {
    pub(super) faults: Faults,
    /// A planted fault: what was written counts as synced.
    pub(super) lies: bool,
    /// The folder is looked at from outside, before and after the end of each life.
    pub(super) looks: bool,
}

/// Several lives of one log. Says what is wrong.
pub(super) fn run(ops: &[Op], Run { faults, lies, looks }: Run) -> Result<(), String> {
    // Salts come from the thread's generator.
    fastrand::seed(1);
    let mut disk = SimDisk::faulty(faults);
    let mut model = Model::default();
    let (mut boot, mut generation) = (1, 0);
    let (mut log, _) = open(disk.clone(), options(boot)).map_err(|error| format!("did not open: {error}"))?;
    let mut is_alive = true;
    let has_errors = ops.iter().any(|op| matches!(op, Op::Fail(..)));
    // Files that are made from the log may be in pieces after errors, as after a loss of power.
    let look = |disk: &SimDisk, boot: u64| {
        if looks { inspect::tests::must_be_good(disk, boot + u64::from(has_errors)) } else { Ok(()) }
    };
    let last = [Op::Reopen { end: End::Power, cut: None, seed: 5 }];
    for op in ops.iter().chain(&last) {
        match op {
            Op::LosePower(calls) => disk.lose_power_after(*calls),
            Op::Fail(calls, kind) => disk.fail_after(*calls, *kind),
            Op::Reopen { end, cut, seed } => {
                let random = &mut fastrand::Rng::with_seed(*seed);
                if is_alive {
                    look(&disk, boot)?;
                }
                if lies {
                    model.sync();
                }
                let mut power = matches!(end, End::Power);
                if matches!(end, End::Close) && is_alive {
                    disk.lose_power_after(u64::MAX);
                    log.close();
                    if log.failure.lock().is_none() {
                        model.sync();
                    }
                    power = random.bool();
                }
                power |= disk.is_power_lost();
                let is_cut = log.failure.lock().is_some();
                drop(log);
                disk = if power { disk.after_power_loss(random) } else { disk.after_kill() };
                boot += u64::from(power);
                look(&disk, boot)?;
                if let Some(calls) = cut {
                    disk.lose_power_after(*calls);
                }
                let opened = match open(disk.clone(), options(boot)) {
                    Err(_) if disk.is_power_lost() => {
                        (boot, power) = (boot + 1, true);
                        disk = disk.after_power_loss(random);
                        open(disk.clone(), options(boot))
                    }
                    opened => opened,
                };
                let (opened, recovered) = opened.map_err(|error| format!("did not open: {error}"))?;
                disk.lose_power_after(u64::MAX);
                log = opened;
                is_alive = true;
                // After a sync has failed, only what was synced before is believed.
                power |= is_cut;
                let is_lossy = model.judge(&log, &recovered, power)?;
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
            }
            op if is_alive => is_alive = step(&log, &mut model, op)? && !disk.is_power_lost(),
            _ => {}
        }
    }
    Ok(())
}
