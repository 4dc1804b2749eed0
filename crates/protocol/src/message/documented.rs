//! Checks docs/PROTOCOL.md and docs/transcripts against this module: the same messages are documented, shown and
//! tested, and those in transcripts can be decoded. `tests/capabilities/conformance.rs` checks that the document's
//! examples are in the transcripts.

use std::collections::BTreeSet;
use std::path::Path;

use bytes::Bytes;
use proptest::strategy::{BoxedStrategy, Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::proptests::{client_messages, server_messages};
use super::{ClientMessage, Reply, Request, ServerMessage};
use crate::frame::Body;

const PROTOCOL: &str = include_str!("../../../../docs/PROTOCOL.md");

/// Unknown types that transcripts use to show how they are handled.
const UNKNOWN: [&str; 2] = ["teleport", "weather"];

/// The messages that one section describes.
fn documented(section: &str) -> BTreeSet<&'static str> {
    let (_, text) = PROTOCOL.split_once(section).expect("the section is there");
    let text = text.split_once("\n## ").map_or(text, |(text, _)| text);
    text.split("\n### ").skip(1).map(|message| message.lines().next().expect("a heading")).collect()
}

fn names<T: std::fmt::Debug>(strategies: &[BoxedStrategy<T>], name: fn(&T) -> &'static str) -> BTreeSet<&'static str> {
    let mut runner = TestRunner::deterministic();
    strategies.iter().map(|strategy| name(&strategy.new_tree(&mut runner).expect("a value").current())).collect()
}

/// A line of a transcript that may have a message.
#[derive(Deserialize)]
struct Step {
    sends: Option<Box<RawValue>>,
    receives: Option<Box<RawValue>>,
    attachment: Option<String>,
}

/// The message of a step as JSON, and its attachment.
type Shown = (Option<Box<RawValue>>, Option<String>);

/// The messages that clients send in transcripts, or receive, with their file and line.
fn shown(message: fn(Step) -> Shown) -> Vec<(String, Body)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/transcripts");
    let mut shown = Vec::new();
    for file in std::fs::read_dir(folder).expect("the folder") {
        let path = file.expect("a file").path();
        if path.extension().is_none_or(|ending| ending != "jsonl") {
            continue;
        }
        let text = std::fs::read_to_string(&path).expect("its text");
        for (number, line) in text.lines().enumerate().skip(1) {
            let step = serde_json::from_str(line).expect("a step");
            let (Some(json), attachment) = message(step) else { continue };
            let json = Bytes::from(String::from(Box::<str>::from(json)));
            let attachment = attachment.map(|_| Bytes::from_static(b"\xde\xad\xbe\xef"));
            shown.push((format!("{}:{}", path.display(), number + 1), Body { json, attachment }));
        }
    }
    shown
}

fn type_of(body: &Body) -> String {
    let message: Value = serde_json::from_slice(&body.json).expect("JSON");
    message["type"].as_str().expect("a type").to_owned()
}

#[test]
fn each_documented_client_message_is_tested_shown_and_decodable() {
    let documented = documented("\n## 6. ");
    assert_eq!(documented, names(&client_messages(), ClientMessage::type_name));
    let mut read = BTreeSet::new();
    for (place, body) in shown(|step| (step.sends, step.attachment)) {
        // Some are invalid on purpose; the server's tests check those.
        if let Ok(request) = Request::parse(&body) {
            assert_eq!(request.message.type_name(), type_of(&body), "{place}");
            read.insert(request.message.type_name());
        }
    }
    assert_eq!(read, documented, "what the transcripts show");
}

#[test]
fn each_documented_server_message_is_tested_shown_and_decodable() {
    let documented = documented("\n## 7. ");
    assert_eq!(documented, names(&server_messages(), ServerMessage::type_name));
    let mut read = BTreeSet::new();
    for (place, body) in shown(|step| (step.receives, step.attachment)) {
        match Reply::parse(&body) {
            Ok(reply) => {
                assert_eq!(reply.message.type_name(), type_of(&body), "{place}");
                read.insert(reply.message.type_name());
            }
            Err(invalid) => assert!(UNKNOWN.contains(&type_of(&body).as_str()), "{place}: {invalid}"),
        }
    }
    assert_eq!(read, documented, "what the transcripts show");
}
