//! The binary's log output: the filter, and text or JSON. Each event stays on one line, and nothing in it acts on a
//! terminal, whatever its source: the library escapes text from peers, and this module escapes the lines of all other
//! crates.

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

/// Starts logging to standard error.
///
/// # Errors
/// The filter in `RUST_LOG` or `log.level` is invalid.
pub(crate) fn start(log: &Log) -> anyhow::Result<()> {
    let filter = filter(log)?;
    // Both text layers need this: without it, every level would count as enabled until each event is checked.
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
    .context("cannot start logging")
}

fn filter(log: &Log) -> anyhow::Result<EnvFilter> {
    let (origin, filter) = match std::env::var("RUST_LOG") {
        Ok(filter) if !filter.is_empty() => ("RUST_LOG", filter),
        _ => ("log.level", log.level.clone()),
    };
    let usage = || format!("{origin} = {filter:?}: use error, warn, info, debug, trace, or target=level,...");
    // A filter takes any other word as a target, and would then hide everything else.
    if origin != "RUST_LOG" && !filter.contains(['=', ',', ':']) && filter.parse::<LevelFilter>().is_err() {
        anyhow::bail!(usage());
    }
    // At lower levels these log whole messages and requests, with the tokens in them, so no filter may enable them.
    let asked = filter.split(',').filter(|part| !QUIET.iter().any(|quiet| part.trim_start().starts_with(quiet)));
    let asked = asked.collect::<Vec<_>>().join(",");
    let quiet = QUIET.map(|quiet| format!("{quiet}=warn")).join(",");
    EnvFilter::try_new(format!("{asked},{quiet}")).with_context(usage)
}

/// Libraries that log the content they carry.
const QUIET: [&str; 2] = ["tungstenite", "tokio_tungstenite"];

fn text<S: Subscriber + for<'a> LookupSpan<'a>>(fields: Fields) -> impl Layer<S> {
    lines::layer()
        .fmt_fields(fields)
        .with_target(false)
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr)
        // An error report would panic if stderr is a closed terminal or pipe.
        .log_internal_errors(false)
}

fn is_ours(metadata: &Metadata<'_>) -> bool {
    let (of_crate, _) = metadata.target().split_once("::").unwrap_or((metadata.target(), ""));
    of_crate == "quic_websocket"
}

/// Formats a line of text. Our own messages contain the values of all their fields.
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
            // Fields added for events of the `log` crate.
            name if !self.fields.beside_message || name.starts_with("log.") => return,
            name => write!(self.writer, "{separator}{name}={value}"),
        };
        self.separator = " ";
        self.written = self.written.and(written);
    }
}

/// Standard error for lines of JSON. Characters that JSON leaves as they are but that act on a terminal are escaped as
/// JSON does it, so parsing a line gives the original text.
struct EscapedJson;

impl Write for EscapedJson {
    /// Receives a whole line at once, as the formatter writes it.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        io::stderr().write_all(escape_json(&String::from_utf8_lossy(line)).as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// Such characters occur only in strings, except for the end of the line.
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
    fn terminal_controls_are_escaped_and_parse_back() {
        let text = "Grüße 🚀 \u{7f}\u{9b}31m \u{202e}x\u{2028} \u{feff} \u{1b}\r\n\t\"\\";
        let line = serde_json::json!({ "message": text }).to_string() + "\n";
        let escaped = escape_json(&line);
        assert!(escaped.strip_suffix('\n').is_some_and(|line| line.chars().all(Printable::shows)), "{escaped}");
        assert!(escaped.contains("Grüße 🚀") && escaped.contains("\\u202ex\\u2028"), "{escaped}");
        let read: serde_json::Value = serde_json::from_str(&escaped).expect("JSON");
        assert_eq!(read["message"], text);
    }
}
