//! What each compression saves and costs, for bodies as a server sends them: in this process, on one core.

use std::fmt::Write as _;
use std::hint::black_box;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use bytes::{BufMut as _, Bytes, BytesMut};
use quic_websocket::frame::{Body, Compression, PREFIX_BYTES, compress, put_frame};
use serde_json::json;

/// How long each of the measurements takes.
const WITHIN: Duration = Duration::from_millis(500);

/// Measures the compressions, and returns the table.
pub(crate) fn run() -> Result<String> {
    let mut table = String::from(
        "| body | bytes | zstd | compress, µs | inflate, µs | deflate | compress, µs | inflate, µs |\n\
         |---|---|---|---|---|---|---|---|\n",
    );
    for (name, body) in bodies() {
        write!(table, "| {name} | {}", body.len())?;
        let mut frame = BytesMut::new();
        put_frame(&mut frame, None, |out| out.put_slice(&body));
        for form in [Compression::Zstd, Compression::Deflate] {
            let packed = compress(&frame, form).with_context(|| format!("{name} does not shrink"))?;
            let packed = packed.slice(PREFIX_BYTES..);
            ensure!(inflate(&packed, form)?.json == body, "{name} came back changed");
            let compressing = each(|| drop(black_box(compress(black_box(&frame), form))));
            let inflating = each(|| drop(black_box(inflate(black_box(&packed), form))));
            write!(table, " | {} | {compressing:.1} | {inflating:.1}", packed.len())?;
        }
        table.push_str(" |\n");
    }
    Ok(table)
}

fn inflate(packed: &Bytes, form: Compression) -> Result<Body> {
    Ok(Body::parse(packed.clone(), form, 16 << 20)?)
}

/// The time of a call in microseconds: the median of many batches.
fn each(mut call: impl FnMut()) -> f64 {
    const BATCH: u32 = 20;
    let (mut times, started) = (Vec::new(), Instant::now());
    while started.elapsed() < WITHIN {
        let began = Instant::now();
        (0..BATCH).for_each(|_| call());
        times.push(began.elapsed().as_secs_f64() * 1e6 / f64::from(BATCH));
    }
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// Bodies of several lengths, which are as repetitive as real ones.
fn bodies() -> Vec<(&'static str, Vec<u8>)> {
    const PROSE: &str = include_str!("../docs/PROTOCOL.md");
    let message = |number: usize, content: &str| {
        json!({
            "type": "message", "topic": "chat.lobby", "offset": 4000 + number, "timestamp": 1_755_992_177_000_u64 + 731,
            "from": format!("{:08x}-6e1c-4b4e-9d2f-{:012x}", number * 2_654_435_761 % 4_294_967_291, number * 7919),
            "content": content,
        })
    };
    let prose =
        |length: usize| PROSE[PROSE.len() / 3..].chars().filter(char::is_ascii).take(length).collect::<String>();
    let lines: Vec<_> = prose(8000).split(". ").map(str::to_owned).collect();
    let page: Vec<_> = lines.iter().take(60).enumerate().map(|(number, line)| message(number, line)).collect();
    let reading =
        |number: usize| json!({"sensor": number % 40, "value": number * 7919 % 10_000, "unit": "mV", "ok": true});
    let readings: Vec<_> = (0..100).map(reading).collect();
    vec![
        ("a message of 1 KiB of prose", message(1, &prose(1024)).to_string().into_bytes()),
        ("a message of 4 KiB of JSON", message(2, &json!(readings[..80]).to_string()).to_string().into_bytes()),
        ("a page of history", json!({"type": "history", "re": 1, "messages": page}).to_string().into_bytes()),
        ("a message of 64 KiB of prose", message(3, &prose(64 << 10)).to_string().into_bytes()),
    ]
}
