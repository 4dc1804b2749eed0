//! The `pubsub` example, as used in pipes: through its binary, against a real server.

#![allow(clippy::expect_used, clippy::panic)] // A test fails by panicking.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use crate::common::library::client;
use crate::common::topics::rule;
use crate::common::{TestServer, soon};
use quic_websocket::Client;
use quic_websocket::message::{Json, Payload};
use serde_json::Value;

fn start(server: &TestServer, args: &[&str]) -> Child {
    // Cargo builds the examples beside the tests.
    let path = Path::new(env!("CARGO_BIN_EXE_quic-websocket")).with_file_name("examples").join("pubsub");
    Command::new(path)
        .args(args)
        .args(["--server", &server.addr.to_string()])
        .arg("--ca")
        .arg(&server.files.ca)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the example starts")
}

/// Runs it with some input until it ends.
async fn run(server: &TestServer, args: &[&str], input: &str) -> Output {
    let mut child = start(server, args);
    child.stdin.take().expect("its input").write_all(input.as_bytes()).expect("it reads");
    ended(child).await
}

async fn ended(child: Child) -> Output {
    let output = tokio::task::spawn_blocking(|| child.wait_with_output());
    soon("the end of the example", output).await.expect("no panic").expect("its output")
}

/// Its output, if it succeeded.
fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("UTF-8")
}

/// Waits until a topic has a subscriber.
async fn until_subscribed(client: &Client, topic: &str) {
    soon("a subscriber", async {
        while client.presence(topic).await.expect("members").clients.is_empty() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_are_published_and_printed_unchanged() {
    let server = TestServer::start().await;
    let lines = "first\nzweite Zeile: Grüße\n\n{\"json\": 1}\ttab\n";
    let reader = start(&server, &["sub", "sensors.a", "--count", "4"]);
    until_subscribed(&client(&server, "Ada").await, "sensors.a").await;
    let published = run(&server, &["pub", "sensors.a"], lines).await;
    assert_eq!(stdout(&published), "");
    assert_eq!(stderr(&published), "4 published to sensors.a\n");
    let read = ended(reader).await;
    assert_eq!(stdout(&read), lines);
    assert!(stderr(&read).contains("--since ") && stderr(&read).ends_with(":4\n"), "{}", stderr(&read));

    assert_eq!(stdout(&run(&server, &["history", "sensors.a"], "").await), lines);
    assert_eq!(stdout(&run(&server, &["history", "sensors.a", "--recent", "1"], "").await), "{\"json\": 1}\ttab\n");
    let recent = run(&server, &["sub", "sensors.a", "--recent", "3", "--count", "1"], "").await;
    assert_eq!(stdout(&recent), "zweite Zeile: Grüße\n");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn json_output_is_complete_and_has_the_position_to_resume_from() {
    let server = TestServer::start().await;
    let published = run(&server, &["--json", "pub", "sensors.a"], "1\n2\n").await;
    let published: Vec<Value> =
        stdout(&published).lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(published.len(), 2);
    assert_eq!((&published[0]["topic"], &published[0]["offset"]), (&"sensors.a".into(), &1.into()));
    assert_eq!(published[0]["duplicate"], false);
    client(&server, "Ada").await.publish("sensors.a", Payload::binary("\u{1}bytes")).await.expect("published");

    let since = format!("{}:1", published[0]["epoch"].as_str().expect("text"));
    for command in [&["sub", "sensors.a", "--count", "2"][..], &["history", "sensors.a"]] {
        let output = run(&server, &[command, &["--json", "--since", &since]].concat(), "").await;
        let lines: Vec<Value> = stdout(&output).lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert_eq!((&lines[0]["type"], &lines[0]["content"]), (&"message".into(), &"2".into()));
        assert_eq!((&lines[0]["epoch"], &lines[0]["offset"]), (&published[1]["epoch"], &2.into()));
        assert_eq!(lines[1]["data"], "AWJ5dGVz");
    }
    let lost = run(&server, &["sub", "sensors.a", "--json", "--since", "another:1", "--count", "1"], "").await;
    let first: Value = serde_json::from_str(stdout(&lost).lines().next().expect("a line")).expect("JSON");
    assert_eq!((&first["type"], &first["first"]), (&"missed".into(), &Value::Null));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn json_output_has_values_as_they_were_sent() {
    let server = TestServer::start().await;
    let value = Json::parse("{\n \"n\":18446744073709551616}").expect("JSON");
    let payload = Payload::json(value).with_meta(&serde_json::json!({"event": "x"}));
    client(&server, "Ada").await.publish("sensors.v", payload).await.expect("published");
    let output = run(&server, &["--json", "history", "sensors.v"], "").await;
    let text = stdout(&output);
    let line = text.lines().next().expect("a line");
    let has = |text: &str| assert!(line.contains(text), "{text} is not in {line}");
    has("\"data\":{  \"n\":18446744073709551616}");
    has("\"meta\":{\"event\":\"x\"}");
    serde_json::from_str::<Value>(line).expect("JSON");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_pattern_each_line_begins_with_its_topic() {
    let server = TestServer::start().await;
    let reader = start(&server, &["sub", "sensors.>", "--count", "2"]);
    let client = client(&server, "Ada").await;
    // Subscriptions to patterns are not visible from here: the first messages may be too early.
    let published = async {
        loop {
            client.publish("sensors.b.c", Payload::text("x y")).await.expect("published");
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    let read = tokio::select! {
        read = ended(reader) => read,
        () = published => panic!("it never ends"),
    };
    assert_eq!(stdout(&read), "sensors.b.c x y\nsensors.b.c x y\n");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unpublished_line_fails_loudly() {
    let closed = rule("pattern = 'closed'\npublish = 'nobody'");
    let server = TestServer::start_with(|config| config.topics = vec![closed]).await;
    let refused = run(&server, &["pub", "closed"], "one\ntwo\n").await;
    assert_eq!(refused.status.code(), Some(1));
    for said in ["Line 1 was not published", "error 403", "0 published to closed", "2 of 2 lines were not published"] {
        assert!(stderr(&refused).contains(said), "{}", stderr(&refused));
    }
    let empty = run(&server, &["history", "nothing"], "").await;
    assert!(empty.status.success() && stdout(&empty).is_empty(), "{}", stderr(&empty));
    let bad = run(&server, &["sub", "a", "--since", "nonsense"], "").await;
    assert!(!bad.status.success() && stderr(&bad).contains("EPOCH:OFFSET"), "{}", stderr(&bad));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_exits_quietly_when_its_output_is_closed() {
    let server = TestServer::start().await;
    let mut reader = start(&server, &["sub", "t"]);
    let client = client(&server, "Ada").await;
    until_subscribed(&client, "t").await;
    client.publish("t", Payload::text("seen at once")).await.expect("published");
    let mut out = BufReader::new(reader.stdout.take().expect("its output"));
    let (line, out) = tokio::task::block_in_place(|| {
        let mut line = String::new();
        out.read_line(&mut line).expect("a line");
        (line, out)
    });
    assert_eq!(line, "seen at once\n");
    drop(out);
    let published = async {
        loop {
            client.publish("t", Payload::text("into nothing")).await.expect("published");
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    let ended = tokio::select! {
        ended = ended(reader) => ended,
        () = published => panic!("it never ends"),
    };
    assert!(ended.status.success(), "{ended:?}");
    assert_eq!(stderr(&ended), "");
    server.stop().await;
}
