//! A request with an invalid field is answered with an error that names the field, wherever it was sent, and has no
//! other effect.

#![allow(clippy::expect_used)] // A test fails by panicking.

use crate::common::over::Over;
use crate::common::{On, TestServer};
use serde_json::{Value, json};

/// An id that belongs to no client.
const TO: &str = r#""eab95712-f81a-4916-a1a4-ee1bdbd0d292""#;

/// A valid request of each type, its values as JSON text. The id of each is `"i"`.
const REQUESTS: [(&str, &[(&str, &str)]); 16] = [
    ("text", &[("content", r#""c""#)]),
    ("broadcast", &[("content", r#""c""#)]),
    ("direct", &[("to", TO), ("content", r#""c""#)]),
    ("signal", &[("to", TO), ("data", "{}")]),
    ("ping", &[("timestamp", "1")]),
    ("list_clients", &[("limit", "1"), ("after", TO)]),
    (
        "subscribe",
        &[
            ("topic", r#""a""#),
            ("since", r#"{"epoch":"e","offset":1}"#),
            ("recent", "1"),
            ("delivery", r#""datagram""#),
            ("lane", r#""control""#),
            ("presence", "true"),
        ],
    ),
    ("unsubscribe", &[("topic", r#""a""#), ("forget", "true")]),
    (
        "ack",
        &[("topic", r#""a""#), ("durable", r#""w""#), ("offset", "1"), ("outcome", r#""retry""#), ("delay_ms", "0")],
    ),
    ("publish", &[("topic", r#""a""#), ("content", r#""c""#), ("key", r#""k""#)]),
    ("history", &[("topic", r#""a""#), ("since", r#"{"epoch":"e","offset":1}"#), ("limit", "1"), ("reverse", "true")]),
    ("presence", &[("topic", r#""a""#)]),
    ("request", &[("topic", r#""a""#), ("content", r#""c""#), ("timeout_ms", "100")]),
    ("reply", &[("request", r#""1""#), ("content", r#""c""#)]),
    ("cancel", &[("re", "1")]),
    ("close", &[("code", "1000"), ("reason", r#""r""#)]),
];

/// Removes a field.
const ABSENT: &str = "";
const NO_STRING: &[&str] = &["5", "true", "[]", "{}", r#"["c"]"#];
const NO_INTEGER: &[&str] =
    &["-1", "-0", "1.0", "1e2", "9007199254740992", "99999999999999999999", r#""1""#, "true", "[1]"];
const NO_BOOLEAN: &[&str] = &["0", r#""true""#, "[]"];
const NO_CLIENT_ID: &[&str] = &[
    r#""""#,
    r#""ada""#,
    r#""eab95712f81a4916a1a4ee1bdbd0d292""#,
    r#""{eab95712-f81a-4916-a1a4-ee1bdbd0d292}""#,
    r#""eab95712-f81a-4916-a1a4-ee1bdbd0d29g""#,
];
const NO_PATTERN: &[&str] =
    &[r#""""#, r#"".a""#, r#""a.""#, r#""a..b""#, r#""a b""#, r#""ü""#, r#""a*""#, r#""a.>.b""#, r#"">.a""#, r#""a>""#];
const NO_TOPIC: &[&str] = &[r#""*""#, r#""a.>""#, r#""a.*.b""#];
const NO_CONSUMER: &[&str] = &[r#""""#, r#""a.b""#, r#""*""#, r#""a b""#, r#""ü""#];
const NO_POSITION: &[&str] = &[
    "5",
    r#""e""#,
    r#"["e",1]"#,
    r#"{"epoch":"e"}"#,
    r#"{"offset":1}"#,
    r#"{"epoch":5,"offset":1}"#,
    r#"{"epoch":"e","offset":-1}"#,
    r#"{"epoch":"e","offset":1.5}"#,
    r#"{"epoch":"e","offset":9007199254740992}"#,
    r#"{"epoch":"e","epoch":"e","offset":1}"#,
];

/// Invalid values, by request and field.
const WRONG: [(&str, &str, &[&[&str]]); 56] = [
    ("text", "content", &[&[ABSENT, "null"], NO_STRING]),
    ("broadcast", "content", &[&[ABSENT, "null"], NO_STRING]),
    ("direct", "to", &[&[ABSENT, "null"], NO_STRING, NO_CLIENT_ID]),
    ("direct", "content", &[&[ABSENT, "null"], NO_STRING]),
    ("signal", "to", &[&[ABSENT, "null"], NO_STRING, NO_CLIENT_ID]),
    ("signal", "data", &[&[ABSENT]]),
    ("ping", "timestamp", &[NO_INTEGER]),
    ("list_clients", "limit", &[NO_INTEGER, &["0", "1001"]]),
    ("list_clients", "after", &[NO_STRING, NO_CLIENT_ID]),
    ("subscribe", "topic", &[&[ABSENT, "null"], NO_STRING, NO_PATTERN]),
    ("subscribe", "since", &[NO_POSITION]),
    ("subscribe", "recent", &[NO_INTEGER]),
    ("subscribe", "delivery", &[NO_STRING, &[r#""""#, r#""own""#]]),
    ("subscribe", "lane", &[NO_STRING, &[r#""""#, r#""stream""#]]),
    ("subscribe", "presence", &[NO_BOOLEAN]),
    ("subscribe", "since_time", &[NO_INTEGER, &["1"]]),
    ("subscribe", "durable", &[NO_STRING, NO_CONSUMER, &[r#""w""#]]),
    ("subscribe", "share", &[NO_BOOLEAN, &["true"]]),
    ("subscribe", "ack", &[NO_STRING, &[r#""""#, r#""all""#, r#""each""#]]),
    ("subscribe", "ack_wait_ms", &[NO_INTEGER, &["999", "3600001", "1000"]]),
    ("subscribe", "max_in_flight", &[NO_INTEGER, &["0", "1001", "1"]]),
    ("subscribe", "max_deliver", &[NO_INTEGER, &["1001", "0"]]),
    ("unsubscribe", "forget", &[NO_BOOLEAN]),
    ("ack", "topic", &[&[ABSENT, "null"], NO_STRING, NO_PATTERN, NO_TOPIC]),
    ("ack", "durable", &[&[ABSENT, "null"], NO_STRING, NO_CONSUMER]),
    ("ack", "offset", &[&[ABSENT, "null"], NO_INTEGER]),
    ("ack", "offsets", &[&["[1]", "[]", "1", r#"["1"]"#, "[-1]", "[9007199254740992]"]]),
    ("ack", "outcome", &[NO_STRING, &[r#""""#, r#""failed""#]]),
    ("ack", "delay_ms", &[NO_INTEGER, &["86400001"]]),
    ("unsubscribe", "topic", &[&[ABSENT, "null"], NO_STRING, NO_PATTERN]),
    ("publish", "topic", &[&[ABSENT, "null"], NO_STRING, NO_PATTERN, NO_TOPIC]),
    ("publish", "content", &[&[ABSENT, "null"], NO_STRING]),
    ("publish", "key", &[NO_STRING, &[r#""""#]]),
    ("history", "topic", &[&[ABSENT, "null"], NO_STRING, NO_PATTERN, NO_TOPIC]),
    ("history", "since", &[NO_POSITION]),
    ("history", "since_time", &[NO_INTEGER, &["1"]]),
    ("history", "limit", &[NO_INTEGER, &["0", "1001"]]),
    ("history", "reverse", &[NO_BOOLEAN]),
    ("presence", "topic", &[&[ABSENT, "null"], NO_STRING, NO_PATTERN, NO_TOPIC]),
    ("request", "id", &[&[ABSENT, "null"]]),
    ("request", "topic", &[&[ABSENT, "null"], NO_STRING, NO_PATTERN, NO_TOPIC]),
    ("request", "content", &[&[ABSENT, "null"], NO_STRING]),
    ("request", "timeout_ms", &[NO_INTEGER, &["0", "99", "300001"]]),
    ("reply", "request", &[&[ABSENT, "null", r#""""#], NO_STRING]),
    ("reply", "content", &[&[ABSENT, "null"], NO_STRING]),
    ("cancel", "re", &[&[ABSENT, "null", r#""""#, "true", "[]", "-1", "1.5"]]),
    ("close", "code", &[NO_INTEGER, &["0", "999", "1004", "1005", "1006", "1015", "2999", "5000", "66536"]]),
    ("close", "reason", &[NO_STRING]),
    ("text", "id", &[&[r#""""#, "true", "[]", "{}", "-1", "1.5", "9007199254740992"]]),
    ("close", "id", &[&[r#""""#, "true"]]),
    ("subscribe", "id", &[&[r#""""#, "true"]]),
    ("text", "type", &[&[ABSENT, "null", r#""""#, r#""Text""#, r#""handshake_response""#], NO_STRING]),
    ("close", "type", &[&[ABSENT]]),
    ("publish", "type", &[&[r#""unheard of""#]]),
    ("signal", "type", &[&[r#""\u0000""#]]),
    ("presence", "type", &[NO_INTEGER]),
];

/// The JSON text of a valid request in which one field has another value.
fn request(kind: &str, field: &str, value: &str) -> String {
    let (_, fields) = REQUESTS.iter().find(|(name, _)| *name == kind).expect("one of them");
    let kind = format!("\"{kind}\"");
    let fields = [("type", &*kind), ("id", r#""i""#)].into_iter().chain(fields.iter().copied());
    let changed =
        fields.filter(|(name, _)| *name != field).chain([(field, value)]).filter(|(_, value)| *value != ABSENT);
    let fields: Vec<String> = changed.map(|(name, value)| format!("\"{name}\":{value}")).collect();
    format!("{{{}}}", fields.join(","))
}

fn assert_names(reply: &Value, field: &str, re: Option<&str>, what: &str) {
    assert_eq!((&reply["type"], &reply["code"]), (&json!("error"), &json!(400)), "{what}: {reply}");
    let named = reply["message"].as_str().is_some_and(|message| message.starts_with(&format!("{field}:")));
    assert!(named, "{what}: expected {field} to be named: {reply}");
    assert_eq!(reply.get("re").and_then(Value::as_str), re, "{what}: {reply}");
}

#[tokio::test]
async fn a_missing_mistyped_or_out_of_bounds_field_is_named() {
    let server = TestServer::start().await;
    for over in Over::ALL {
        let mut client = over.party(&server, "Eve").await;
        for (kind, field, values) in WRONG {
            for value in values.concat() {
                let request = request(kind, field, value);
                for &on in over.ways() {
                    let reply = client.ask(on, request.as_bytes()).await;
                    let re = (field != "id").then_some("i");
                    assert_names(&reply, field, re, &format!("{request} on {on:?} of {over:?}"));
                }
            }
        }
        client.control.lives("a served client").await;
    }
    server.stop().await;
}

#[tokio::test]
async fn a_field_that_is_one_too_long_is_named_and_the_longest_allowed_is_served() {
    for over in Over::ALL {
        let server = TestServer::start().await;
        let mut client = over.party(&server, "Ada").await;
        let text = |letter: &str, bytes: usize| format!("\"{}\"", letter.repeat(bytes / letter.len()));
        for (kind, field, most, letter) in [
            ("text", "id", 64, "ü"),
            ("subscribe", "topic", 255, "a"),
            ("unsubscribe", "topic", 255, "a"),
            ("publish", "topic", 255, "a"),
            ("history", "topic", 255, "a"),
            ("presence", "topic", 255, "a"),
            ("publish", "key", 128, "ü"),
            ("ack", "durable", 64, "w"),
            ("close", "reason", 123, "c"),
        ] {
            let one_more = request(kind, field, &text(letter, most + letter.len()));
            let reply = client.ask(On::Control, one_more.as_bytes()).await;
            assert_names(&reply, field, (field != "id").then_some("i"), &one_more);
            if kind != "close" {
                let longest = client.ask(On::Control, request(kind, field, &text(letter, most)).as_bytes()).await;
                assert_ne!(longest["code"], 400, "{kind} with {most} bytes of {field}: {longest}");
            }
        }
        let most = "9007199254740991";
        for (kind, field, value) in [
            ("text", "id", most),
            ("ping", "timestamp", most),
            ("list_clients", "limit", "1000"),
            ("subscribe", "recent", most),
            ("subscribe", "topic", r#"">""#),
            ("unsubscribe", "topic", r#""*.a.>""#),
            ("history", "since", r#"{"epoch":"","offset":9007199254740991,"more":[]}"#),
            ("direct", "to", r#""EAB95712-F81A-4916-A1A4-EE1BDBD0D292""#),
            ("signal", "data", "null"),
        ] {
            let request = match field {
                // A pattern has no position.
                "topic" => request(kind, field, value).replace(r#""since""#, r#""ignored""#),
                _ => request(kind, field, value),
            };
            let reply = client.ask(On::Control, request.as_bytes()).await;
            assert_ne!(reply["code"], 400, "{request}: {reply}");
        }
        server.stop().await;
    }
}

#[tokio::test]
async fn null_means_absent_and_fields_of_other_messages_may_hold_anything() {
    for over in Over::ALL {
        let server = TestServer::start().await;
        let mut client = over.party(&server, "Ada").await;
        for (kind, field) in [
            ("ping", "timestamp"),
            ("ping", "id"),
            ("list_clients", "limit"),
            ("list_clients", "after"),
            ("subscribe", "since"),
            ("subscribe", "delivery"),
            ("publish", "key"),
            ("history", "reverse"),
            ("history", "since_time"),
            ("subscribe", "durable"),
            ("subscribe", "share"),
            ("ack", "delay_ms"),
            ("unsubscribe", "forget"),
        ] {
            let reply = client.ask(On::Control, request(kind, field, "null").as_bytes()).await;
            assert_ne!(reply["code"], 400, "{kind} without {field}: {reply}");
        }
        let others = r#"{"type":"ping","id":1,"content":5,"to":[],"limit":0,"after":"x","topic":{},"since":1,"key":"",
        "recent":1e99,"code":-1,"reason":{"a":[1,{}]},"compression":"zstd","client_name":"","data":null,"new":1,
        "new":2}"#;
        let mut client = over.party(&server, "Bob").await;
        for &on in over.ways() {
            assert_eq!(client.ask(on, others.as_bytes()).await["type"], "pong", "on {on:?}");
        }
        server.stop().await;
    }
}

#[tokio::test]
async fn unrepresentable_values_are_errors_of_a_well_formed_body() {
    let server = TestServer::start().await;
    for over in Over::ALL {
        let mut client = over.party(&server, "Ada").await;
        for value in [r#""\ud800""#, "1e400", "-1e400", r#""\udc00\ud800""#] {
            for &on in over.ways() {
                let reply = client.ask(on, request("text", "content", value).as_bytes()).await;
                assert_eq!(
                    (&reply["type"], &reply["code"]),
                    (&json!("error"), &json!(400)),
                    "{value} on {on:?}: {reply}"
                );
            }
        }
        // Three of them in a row did not close the connection.
        client.control.lives("a served client").await;
    }
    server.stop().await;
}

#[tokio::test]
async fn a_duplicate_field_is_named() {
    let server = TestServer::start().await;
    for over in Over::ALL {
        let mut client = over.party(&server, "Ada").await;
        for (kind, fields) in REQUESTS {
            for (field, value) in [("type", &*format!("\"{kind}\"")), ("id", "1")].iter().chain(fields) {
                let request = request(kind, field, &format!("{value},\"{field}\":{value}"));
                let reply = client.ask(On::Control, request.as_bytes()).await;
                assert_eq!((&reply["type"], &reply["code"]), (&json!("error"), &json!(400)), "{request}: {reply}");
                assert!(reply["message"].as_str().is_some_and(|message| message.contains(field)), "{request}: {reply}");
                let expected = if *field == "id" { Value::Null } else { json!("i") };
                assert_eq!(reply["re"], expected, "of two ids neither counts, {request}: {reply}");
            }
        }
        client.control.lives("a served client").await;
    }
    server.stop().await;
}

#[tokio::test]
async fn an_error_about_an_unreadable_value_names_the_request() {
    let server = TestServer::start().await;
    for over in Over::ALL {
        let mut client = over.party(&server, "Ada").await;
        for (body, says) in [
            (r#"{"type":"publish","id":"x","topic":"a","content":"cut inside a pair \ud83d"}"#, "content: half of a"),
            (r#"{"id":"x","type":"text","content":"\udc00"}"#, "content: half of a surrogate pair"),
            (r#"{"id":"x","type":"history","topic":"a\ud83d"}"#, "topic: half of a surrogate pair"),
            (r#"{"id":"x","type":"history","topic":"a","since":{"epoch":"\ud83d","offset":0}}"#, "since: half of a"),
            (r#"{"id":"x","type":"ping","\ud83d":1,"key":"\ud83d"}"#, "key: half of a surrogate pair"),
            (r#"{"type":"ping","id":"x","timestamp":1e999}"#, "timestamp: the number is out of range"),
        ] {
            let reply = client.ask(On::Control, body.as_bytes()).await;
            assert_eq!((&reply["code"], &reply["re"]), (&json!(400), &json!("x")), "{body}: {reply}");
            assert!(reply["message"].as_str().is_some_and(|message| message.starts_with(says)), "{body}: {reply}");
        }
        for (body, answer) in [
            (r#"{"type":"ping","id":"x","\ud83d":"\ud83d","a":{"\udc00":["\udc00"]}}"#, "pong"),
            (r#"{"type":"subscribe","id":"x","topic":"t","since":{"epoch":"e","offset":0,"\ud83d":1}}"#, "subscribed"),
        ] {
            let reply = client.ask(On::Control, body.as_bytes()).await;
            assert_eq!((&reply["type"], &reply["re"]), (&json!(answer), &json!("x")), "{body}: {reply}");
        }
        let reply = client.ask(On::Control, br#"{"type":"ping","id":"\ud83d"}"#).await;
        assert_eq!((&reply["code"], &reply["re"]), (&json!(400), &Value::Null), "{reply}");
    }
    server.stop().await;
}

#[tokio::test]
async fn an_unexpected_or_missing_attachment_is_refused() {
    let server = TestServer::start().await;
    for over in Over::ALL {
        let mut client = over.party(&server, "Ada").await;
        for kind in [
            "handshake",
            "text",
            "signal",
            "ping",
            "pong",
            "list_clients",
            "subscribe",
            "unsubscribe",
            "ack",
            "history",
            "presence",
            "close",
        ] {
            let body = crate::common::with_attachment(
                &json!({"type": kind, "id": "i", "content": "c", "topic": "a"}),
                b"bytes",
            );
            for &on in over.ways() {
                assert_names(&client.ask(on, &body).await, "attachment", Some("i"), &format!("{kind} on {on:?}"));
            }
        }
        let reply = client.ask(On::Control, br#"{"type":"binary","id":"i"}"#).await;
        assert_names(&reply, "attachment", Some("i"), "binary without one");
        for kind in ["broadcast", "direct", "publish"] {
            let message = json!({"type": kind, "id": "i", "to": client.id, "topic": "a", "content": 5});
            let reply = client.ask(On::Control, &crate::common::with_attachment(&message, b"bytes")).await;
            assert_names(&reply, "content", Some("i"), kind);
        }
    }
    server.stop().await;
}
