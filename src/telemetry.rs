//! How the binary logs: which lines, and how one looks. In either format a line stays one line and nothing in it acts on
//! a terminal, whoever wrote it: the library escapes what peers say, and here that is done once more for the lines of all
//! other crates.

use std::fmt;
use std::io::{self, IsTerminal, Write};

use anyhow::Context;
use quic_websocket::Printable;
use quic_websocket::config::{Log, LogFormat};
use tracing::field::{Field, Visit};
use tracing::{Metadata, Subscriber};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::filter::{LevelFilter, filter_fn};
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::prelude::*;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{EnvFilter, Layer, fmt as lines};

/// Starts to log to standard error.
///
/// # Errors
/// A filter, from `RUST_LOG` or `log.level`, that is none.
pub(crate) fn start(log: &Log) -> anyhow::Result<()> {
    let filter = filter(log)?;
    // Told to both layers of text: without it every level would count as wanted until a line is looked at.
    let most = filter.max_level_hint().unwrap_or(LevelFilter::TRACE);
    let filtered = tracing_subscriber::registry().with(filter);
    match log.format {
        LogFormat::Json => {
            let json = lines::layer().json().flatten_event(true).with_span_list(false).log_internal_errors(false);
            filtered.with(json.with_writer(|| EscapedJson)).try_init()
        }
        LogFormat::Text => {
            let only = |ours: bool| {
                filter_fn(move |line| *line.level() <= most && is_ours(line) == ours).with_max_level_hint(most)
            };
            let ours = text(Fields { beside_message: false }).with_filter(only(true));
            let others = text(Fields { beside_message: true }).with_filter(only(false));
            filtered.with(ours).with(others).try_init()
        }
    }
    .context("cannot start to log")
}

fn filter(log: &Log) -> anyhow::Result<EnvFilter> {
    let (origin, filter) = match std::env::var("RUST_LOG") {
        Ok(filter) if !filter.is_empty() => ("RUST_LOG", filter),
        _ => ("log.level", log.level.clone()),
    };
    let usage = || format!("{origin} = {filter:?}: use error, warn, info, debug, trace, or target=level,...");
    // A filter takes any other word for a target, and would be silent about everything else.
    if origin != "RUST_LOG" && !filter.contains(['=', ',', ':']) && filter.parse::<LevelFilter>().is_err() {
        anyhow::bail!(usage());
    }
    // These write whole messages and requests, with the tokens in them, at the lower levels: whatever the user says.
    let asked = filter.split(',').filter(|part| !QUIET.iter().any(|quiet| part.trim_start().starts_with(quiet)));
    let asked = asked.collect::<Vec<_>>().join(",");
    let quiet = QUIET.map(|quiet| format!("{quiet}=warn")).join(",");
    EnvFilter::try_new(format!("{asked},{quiet}")).with_context(usage)
}

/// Libraries that log what they carry.
const QUIET: [&str; 2] = ["tungstenite", "tokio_tungstenite"];

fn text<S: Subscriber + for<'a> LookupSpan<'a>>(fields: Fields) -> impl Layer<S> {
    lines::layer()
        .fmt_fields(fields)
        .with_target(false)
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr)
        // Telling of lines that cannot be written would panic, where stderr is a terminal or a pipe that is gone.
        .log_internal_errors(false)
}

fn is_ours(metadata: &Metadata<'_>) -> bool {
    let (of_crate, _) = metadata.target().split_once("::").unwrap_or((metadata.target(), ""));
    of_crate == "quic_websocket"
}

/// The message and the fields of a line of text. Our own messages tell all that their fields do.
#[derive(Debug, Clone, Copy)]
struct Fields {
    beside_message: bool,
}

impl<'a> FormatFields<'a> for Fields {
    fn format_fields<R: RecordFields>(&self, mut writer: Writer<'a>, fields: R) -> fmt::Result {
        let mut text = TextOfFields { fields: *self, writer: &mut writer, separator: "", written: Ok(()) };
        fields.record(&mut text);
        text.written
    }
}

struct TextOfFields<'a, 'w> {
    fields: Fields,
    writer: &'a mut Writer<'w>,
    separator: &'static str,
    written: fmt::Result,
}

impl Visit for TextOfFields<'_, '_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let (name, value) = (field.name(), format!("{value:?}"));
        let (separator, value) = (self.separator, Printable::new(&value));
        let written = match name {
            "message" => write!(self.writer, "{separator}{value}"),
            // Where a line of the `log` crate came from.
            name if !self.fields.beside_message || name.starts_with("log.") => return,
            name => write!(self.writer, "{separator}{name}={value}"),
        };
        self.separator = " ";
        self.written = self.written.and(written);
    }
}

/// Standard error for lines of JSON. What JSON need not escape and a terminal acts on is escaped on the way, as JSON does
/// it, so that whoever parses a line gets what was written.
struct EscapedJson;

impl Write for EscapedJson {
    /// Takes what the formatter writes in one go: a whole line.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        io::stderr().write_all(escape_json(&String::from_utf8_lossy(line)).as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// Such characters stand in strings alone, but for the line's end.
fn escape_json(line: &str) -> String {
    let mut escaped = String::with_capacity(line.len());
    for c in line.chars() {
        if c == '\n' || Printable::shows(c) {
            escaped.push(c);
        } else {
            let mut units = [0; 2];
            escaped.extend(c.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04x}")));
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_acts_on_is_escaped_and_reads_the_same() {
        let text = "Grüße 🚀 \u{7f}\u{9b}31m \u{202e}x\u{2028} \u{feff} \u{1b}\r\n\t\"\\";
        let line = serde_json::json!({ "message": text }).to_string() + "\n";
        let escaped = escape_json(&line);
        assert!(escaped.strip_suffix('\n').is_some_and(|line| line.chars().all(Printable::shows)), "{escaped}");
        assert!(escaped.contains("Grüße 🚀") && escaped.contains("\\u202ex\\u2028"), "{escaped}");
        let read: serde_json::Value = serde_json::from_str(&escaped).expect("JSON");
        assert_eq!(read["message"], text);
    }
}
