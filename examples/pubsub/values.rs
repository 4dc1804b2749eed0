//! Values of the command line.

use std::time::Duration;

use quic_websocket::message::{Json, Position, now_ms};

/// Values of `--ack`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Ack {
    Each,
    Upto,
    None,
}

/// A position, as `--json` and the end of `sub` print it.
pub(crate) fn position(text: &str) -> Result<Position, String> {
    let parsed = text.rsplit_once(':').and_then(|(epoch, offset)| Some((epoch, offset.parse().ok()?)));
    let (epoch, offset) = parsed.ok_or("expected EPOCH:OFFSET, as in the output of --json")?;
    Ok(Position { epoch: epoch.to_owned(), offset })
}

/// A time in Unix milliseconds: as such, or so long ago.
pub(crate) fn time(text: &str) -> Result<u64, String> {
    match (text.parse(), milliseconds(text)) {
        (Ok(unix_ms), _) => Ok(unix_ms),
        (Err(_), Some(ago)) => Ok(now_ms().saturating_sub(ago)),
        (Err(_), None) => Err("expected Unix milliseconds, or so long ago, such as 90s, 15m, 2h or 7d".to_owned()),
    }
}

/// A length of time.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    milliseconds(text)
        .map(Duration::from_millis)
        .ok_or_else(|| "expected a time, such as 90s, 15m, 2h or 7d".to_owned())
}

fn milliseconds(text: &str) -> Option<u64> {
    const UNITS: [(char, u64); 4] = [('s', 1_000), ('m', 60_000), ('h', 3_600_000), ('d', 86_400_000)];
    let count = |unit: char| text.strip_suffix(unit)?.parse::<u64>().ok();
    UNITS.iter().find_map(|(unit, ms)| Some(count(*unit)?.saturating_mul(*ms)))
}

/// A JSON object.
pub(crate) fn object(text: &str) -> Result<Json, String> {
    let json = Json::parse(text.to_owned()).map_err(|e| e.to_string())?;
    if json.is_object() { Ok(json) } else { Err("expected a JSON object".to_owned()) }
}
