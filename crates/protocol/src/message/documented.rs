//! docs/PROTOCOL.md and this module speak of the same messages, and the examples there can be read here.

use std::collections::BTreeSet;

use bytes::Bytes;
use proptest::strategy::{BoxedStrategy, Strategy, ValueTree};
use proptest::test_runner::TestRunner;

use super::proptests::{client_messages, server_messages};
use super::{ClientMessage, Reply, Request, ServerMessage};
use crate::frame::Body;

const PROTOCOL: &str = include_str!("../../../../docs/PROTOCOL.md");

/// The messages of one section, each with the JSON of its example.
fn documented(section: &str) -> Vec<(&'static str, &'static str)> {
    let (_, text) = PROTOCOL.split_once(section).expect("the section is there");
    let text = text.split_once("\n## ").map_or(text, |(text, _)| text);
    let example = |message: &'static str| -> Option<(&str, &str)> {
        let (name, text) = message.split_once('\n')?;
        let (_, json) = text.split_once("```json\n")?;
        Some((name, json.split_once("\n```")?.0))
    };
    text.split("\n### ").skip(1).map(|message| example(message).expect("an example for each message")).collect()
}

fn body((name, json): (&str, &'static str)) -> Body {
    Body {
        json: Bytes::from_static(json.as_bytes()),
        attachment: (name == "binary").then(|| Bytes::from_static(b"\xde")),
    }
}

fn names<T: std::fmt::Debug>(strategies: &[BoxedStrategy<T>], name: fn(&T) -> &'static str) -> BTreeSet<&'static str> {
    let mut runner = TestRunner::deterministic();
    strategies.iter().map(|strategy| name(&strategy.new_tree(&mut runner).expect("a value").current())).collect()
}

#[test]
fn each_documented_message_of_the_client_is_tested_and_its_example_is_read() {
    let documented = documented("\n## 6. ");
    let tested = names(&client_messages(), ClientMessage::type_name);
    assert_eq!(documented.iter().map(|(name, _)| *name).collect::<BTreeSet<_>>(), tested);
    for example in documented {
        let request = Request::parse(&body(example)).unwrap_or_else(|e| panic!("{example:?}: {e}"));
        assert_eq!(request.message.type_name(), example.0);
    }
}

#[test]
fn each_documented_message_of_the_server_is_tested_and_its_example_is_read() {
    let documented = documented("\n## 7. ");
    let tested = names(&server_messages(), ServerMessage::type_name);
    assert_eq!(documented.iter().map(|(name, _)| *name).collect::<BTreeSet<_>>(), tested);
    for example in documented {
        let reply = Reply::parse(&body(example)).unwrap_or_else(|e| panic!("{example:?}: {e}"));
        assert_eq!(reply.message.type_name(), example.0);
    }
}
