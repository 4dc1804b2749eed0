//! `store import`: adds the messages of an export to a store. The whole file is checked before anything is written.

use std::collections::{HashSet, VecDeque};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Seek};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, anyhow, bail};
use clap::Args;
use quic_websocket::message::TopicName;
use quic_websocket_store::{Level, NewRecord, Options, Refusal, Retention, Store, Ticket, Topic};

use super::line::{self, FORMAT, Line, Message, Parsed};
use super::{Directory, Durability, level_name, topic_name, warn};
use crate::command::say;

/// Longest line. A message with the longest content that a store takes fits, even if each byte of it is escaped.
const MAX_LINE: u64 = 256 << 20;
/// Messages that are on their way to the store at once.
const PENDING: usize = 4096;

/// Flags of `store import`.
#[derive(Debug, Args)]
pub(crate) struct Import {
    #[command(flatten)]
    directory: Directory,
    /// File of `store export`; - reads standard input
    file: PathBuf,
    /// Keep the offsets and consumers. The topics must not exist, or never have had a message. Without it the messages
    /// get new offsets, behind those that the topics have
    #[arg(long)]
    keep: bool,
    /// Import the only topic of the file under this name
    #[arg(long = "as", value_name = "TOPIC", value_parser = topic_name)]
    name: Option<String>,
    /// Level of topics that are made [default: that of the export]
    #[arg(long, value_enum, value_name = "LEVEL")]
    level: Option<Durability>,
}

/// A file that is read twice.
struct Source {
    file: File,
    /// For errors.
    name: String,
    /// A copy of standard input, to be removed.
    copy: Option<PathBuf>,
}

impl Drop for Source {
    fn drop(&mut self) {
        if let Some(copy) = &self.copy {
            // If it cannot be removed, it is in the way of nothing.
            let _ = fs::remove_file(copy);
        }
    }
}

impl Source {
    /// Opens the file. Standard input is copied beside the store, because it cannot be read twice.
    fn open(path: &Path, dir: &Path) -> anyhow::Result<Self> {
        if path.as_os_str() != "-" {
            let file = File::open(path).with_context(|| path.display().to_string())?;
            return Ok(Self { file, name: path.display().to_string(), copy: None });
        }
        let mut name: OsString = dir.as_os_str().to_owned();
        name.push(".import");
        let copy = PathBuf::from(name);
        let file = File::options().read(true).write(true).create(true).truncate(true).open(&copy);
        let mut file = file.with_context(|| format!("cannot keep standard input in {}", copy.display()))?;
        let source = Self { file: file.try_clone()?, name: "standard input".to_owned(), copy: Some(copy) };
        io::copy(&mut io::stdin().lock(), &mut file).context("cannot read standard input")?;
        Ok(source)
    }

    /// Reads all lines, and passes on those that are in order.
    fn read(&mut self, checks: Checks, take: &mut dyn FnMut(Parsed) -> anyhow::Result<()>) -> anyhow::Result<Checks> {
        self.file.rewind()?;
        let mut reader = BufReader::new(&self.file);
        let (mut checks, mut bytes, mut number) = (checks, Vec::new(), 0_u64);
        loop {
            bytes.clear();
            number += 1;
            let at = |e: anyhow::Error| e.context(format!("{}, line {number}", self.name));
            if reader.by_ref().take(MAX_LINE).read_until(b'\n', &mut bytes)? == 0 {
                checks.end().map_err(|e| at(anyhow!(e)))?;
                return Ok(checks);
            }
            let parsed = parse(&bytes).and_then(|parsed| checks.accept(&parsed).map(|()| parsed));
            take(parsed.map_err(|e| at(anyhow!(e)))?).map_err(at)?;
        }
    }
}

fn parse(bytes: &[u8]) -> Result<Parsed, String> {
    if bytes.len() as u64 == MAX_LINE {
        return Err(format!("it is longer than {MAX_LINE} bytes"));
    }
    let text = str::from_utf8(bytes).map_err(|_| "it is not UTF-8")?;
    line::parse(text.trim_end_matches(['\n', '\r']))
}

/// What an export's lines have to be. Pure.
#[derive(Default)]
struct Checks {
    keep: bool,
    begun: bool,
    ended: bool,
    topics: HashSet<String>,
    current: Option<Current>,
    messages: u64,
    missing: u64,
    consumers: u64,
}

/// The topic whose messages come.
struct Current {
    name: String,
    last: u64,
    /// The next offset, or a later one.
    next: u64,
}

impl Checks {
    fn accept(&mut self, parsed: &Parsed) -> Result<(), String> {
        let is_begin = matches!(parsed, Parsed::Line(Line::Export { .. }));
        if self.ended {
            return Err("it comes behind the line of type end".to_owned());
        }
        if self.begun == is_begin {
            return Err("the first line, and no other, has to be of type export".to_owned());
        }
        match parsed {
            Parsed::Line(Line::Export { format, .. }) if *format > FORMAT => {
                return Err(format!("this release reads exports up to format {FORMAT}, and this one has {format}"));
            }
            Parsed::Line(Line::Export { .. }) => self.begun = true,
            Parsed::Line(Line::Topic { topic, first, last, .. }) => {
                TopicName::new(topic).map_err(|e| e.to_string())?;
                self.end_topic()?;
                if !self.topics.insert(topic.clone()) {
                    return Err(format!("the topic {topic} is there twice"));
                }
                if *first == 0 || first.checked_sub(1).is_none_or(|before| before > *last) {
                    return Err(format!("the topic's offsets cannot be {first} to {last}"));
                }
                self.current = Some(Current { name: topic.clone(), last: *last, next: *first });
            }
            Parsed::Message(message) => {
                self.of(&message.topic)?.cover(message.offset, message.offset)?;
                if !message.record.fits() {
                    return Err("the message is longer than a store takes".to_owned());
                }
                self.messages += 1;
            }
            Parsed::Line(Line::Gap { topic, first, last, .. }) => {
                self.of(topic)?.cover(*first, *last)?;
                if self.keep {
                    return Err(format!(
                        "messages {first} to {last} were damaged, so offsets cannot be kept; import without --keep"
                    ));
                }
                self.missing += last - first + 1;
            }
            Parsed::Line(Line::Consumer { topic, name, state }) => {
                self.of(topic)?;
                line::decode(state)?;
                if name.is_empty() || name.len() > 255 {
                    return Err("the name of the consumer is empty or longer than 255 bytes".to_owned());
                }
                self.consumers += 1;
            }
            Parsed::Line(Line::End { messages }) => {
                self.end_topic()?;
                if *messages != self.messages {
                    return Err(format!("there should be {messages} messages, and there are {}", self.messages));
                }
                self.ended = true;
            }
        }
        Ok(())
    }

    fn of(&mut self, topic: &str) -> Result<&mut Current, String> {
        let current = self.current.as_mut().filter(|current| current.name == topic);
        current.ok_or_else(|| format!("it belongs to {topic}, and its line of type topic is not the last one before"))
    }

    fn end_topic(&mut self) -> Result<(), String> {
        match self.current.take() {
            Some(current) if current.next <= current.last => {
                let Current { name, last, next } = current;
                Err(format!("the messages {next} to {last} of {name} are missing before it"))
            }
            _ => Ok(()),
        }
    }

    fn end(&self) -> Result<(), String> {
        if self.ended { Ok(()) } else { Err("the export is cut off: a line of type end is expected".to_owned()) }
    }
}

impl Current {
    fn cover(&mut self, first: u64, last: u64) -> Result<(), String> {
        if first != self.next || last < first || last > self.last {
            let (name, next) = (&self.name, self.next);
            return Err(format!(
                "the next offset of {name} has to be {next}, of at most {}, and not {first}",
                self.last
            ));
        }
        self.next = last + 1;
        Ok(())
    }
}

impl Import {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let dir = &self.directory.dir;
        let mut source = Source::open(&self.file, dir)?;
        let checks = || Checks { keep: self.keep, ..Checks::default() };
        let checked = source.read(checks(), &mut |_| Ok(()))?;
        if self.name.is_some() && checked.topics.len() != 1 {
            bail!("{} has {} topics; --as needs a file with one", source.name, checked.topics.len());
        }
        let mut options = Options::new(dir);
        // Each segment takes its room at once, and a small file needs little.
        options.segment_bytes = source.file.metadata()?.len().clamp(1 << 20, options.segment_bytes);
        let store = self.directory.open(options)?;
        let names = checked.topics.iter().map(|name| self.name.as_ref().unwrap_or(name));
        for topic in names.filter_map(|name| store.find(name)) {
            self.check_existing(&topic)?;
        }
        let mut writer = Writer { import: &self, store: &store, topic: None, pending: VecDeque::new(), stored: 0 };
        let result = source.read(checks(), &mut |parsed| writer.take(parsed)).and_then(|_| writer.finish());
        let stored = writer.stored;
        drop(store);
        result.with_context(|| format!("{stored} messages are imported, and the others are not"))?;
        if checked.missing > 0 {
            warn(format_args!("{} messages were damaged before the export, and are missing", checked.missing));
        }
        if checked.consumers > 0 && !self.keep {
            warn(format_args!("{} consumers are left out, because the offsets are new", checked.consumers));
        }
        say(format_args!("Imported {stored} messages of {} topics", checked.topics.len()))?;
        Ok(ExitCode::SUCCESS)
    }

    /// Whether a topic that is there already can take the messages.
    fn check_existing(&self, topic: &Topic) -> anyhow::Result<()> {
        let (name, newest) = (topic.name(), topic.head().newest);
        if self.keep && newest > 0 {
            bail!("{name} has had {newest} messages; --keep needs a topic without any, or another name with --as");
        }
        if self.level.is_some_and(|level| Level::from(level) != topic.level()) {
            bail!("{name} is there already with the level {}; leave out --level", level_name(topic.level()));
        }
        Ok(())
    }
}

/// Writes what an export's lines say.
struct Writer<'a> {
    import: &'a Import,
    store: &'a Store,
    topic: Option<Topic>,
    /// Tickets of messages, with the offset that each has to get.
    pending: VecDeque<(Ticket, Option<u64>)>,
    stored: u64,
}

impl Writer<'_> {
    fn take(&mut self, parsed: Parsed) -> anyhow::Result<()> {
        match parsed {
            Parsed::Line(Line::Topic { topic, level, first, .. }) => {
                let name = self.import.name.as_ref().unwrap_or(&topic);
                // Nothing is dropped here, and keys decide nothing: what the file holds is what was stored.
                let retention = Retention { keys: 0, ..Retention::default() };
                let level = self.import.level.map_or_else(|| level.into(), Level::from);
                let topic = match self.store.find(name) {
                    Some(topic) => {
                        self.store.retain(&topic, retention);
                        topic
                    }
                    None => self.store.topic(name, level, retention)?,
                };
                if self.import.keep {
                    let ticket = self.store.skip(&topic, first - 1)?;
                    ticket.with_context(|| format!("{name} is not empty"))?.wait()?;
                }
                self.topic = Some(topic);
            }
            Parsed::Message(Message { offset, record, .. }) => self.append(offset, record)?,
            Parsed::Line(Line::Consumer { name, state, .. }) if self.import.keep => {
                let topic = self.topic.as_ref().context("a consumer without a topic")?;
                let state = line::decode(&state).map_err(|e| anyhow!(e))?;
                self.store.consumer(topic, &name, Some(state))?.wait()?;
            }
            Parsed::Line(_) => {}
        }
        Ok(())
    }

    fn append(&mut self, offset: u64, record: NewRecord) -> anyhow::Result<()> {
        let topic = self.topic.clone().context("a message without a topic")?;
        while self.pending.len() >= PENDING {
            self.wait()?;
        }
        loop {
            match self.store.append(&topic, record.clone()) {
                Ok(ticket) => {
                    self.pending.push_back((ticket, self.import.keep.then_some(offset)));
                    return Ok(());
                }
                Err(Refusal::Busy) if !self.pending.is_empty() => self.wait()?,
                Err(refusal) => return Err(refusal.into()),
            }
        }
    }

    /// Waits for the oldest message.
    fn wait(&mut self) -> anyhow::Result<()> {
        let Some((ticket, offset)) = self.pending.pop_front() else { return Ok(()) };
        let stored = ticket.wait()?;
        if offset.is_some_and(|offset| offset != stored.offset) {
            bail!("the message got the offset {}", stored.offset);
        }
        self.stored += 1;
        Ok(())
    }

    fn finish(&mut self) -> anyhow::Result<()> {
        while !self.pending.is_empty() {
            self.wait()?;
        }
        Ok(())
    }
}
