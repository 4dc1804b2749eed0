//! `quic-websocket store` lists, prints, exports, imports, checks and deletes what a store holds. What only reads works
//! beside a running server.

#![allow(clippy::expect_used, clippy::panic)] // A test fails by panicking.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use bytes::Bytes;
use quic_websocket::message::{Payload, TopicMessage, encode_tail};
use quic_websocket_store::{Level, NewRecord, Options, Retention, Store, Topic};
use serde_json::{Value, json};
use tempfile::TempDir;
use uuid::Uuid;

use crate::common::over::Over;
use crate::common::topics::rule;
use crate::common::{TestServer, with_attachment};

fn store(dir: &Path) -> Store {
    let mut options = Options::new(dir);
    options.segment_bytes = 64 << 10;
    options.min_free_bytes = 0;
    Store::open(options, ()).expect("the store opens")
}

/// What a server stores for the `n`th message: text with and without a publisher, bytes, and keys.
fn record(n: u64) -> NewRecord {
    let payload = match n % 3 {
        0 => Payload::binary(vec![0xff; usize::try_from(n).expect("small")]),
        _ => Payload::text(format!("message \"{n}\"\n{}", "x".repeat(100))),
    };
    let mut message = TopicMessage::new("", 0, payload.clone(), 1_755_992_190_000 + n);
    message.from = n.is_multiple_of(2).then(|| Uuid::from_u128(u128::from(n)).into());
    let key = n.is_multiple_of(5).then(|| Arc::from(format!("key {n}")));
    NewRecord { at_ms: message.timestamp, tail: encode_tail(&message), attachment: payload.attachment, key }
}

fn append(store: &Store, topic: &Topic, numbers: std::ops::RangeInclusive<u64>) {
    let tickets: Vec<_> = numbers.map(|n| store.append(topic, record(n)).expect("taken")).collect();
    for ticket in tickets {
        ticket.wait().expect("stored");
    }
}

/// A store with a topic of each level, one of which was trimmed, and a consumer.
fn filled(dir: &Path) {
    let store = store(dir);
    let [lobby, feed] = [("chat.lobby", Level::Fsync), ("feed", Level::Os)].map(|(name, level)| {
        let topic = store.topic(name, level, Retention::default()).expect("a topic");
        append(&store, &topic, 1..=300);
        topic
    });
    store.trim(&feed, 100);
    store.consumer(&lobby, "mailer", Some(Bytes::from_static(b"at 17"))).expect("taken").wait().expect("stored");
}

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_quic-websocket"));
    command.arg("store").args(args);
    command
}

fn run(dir: &Path, args: &[&str]) -> Output {
    command(args).arg("--dir").arg(dir).stdin(Stdio::null()).output().expect("it runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

/// What it prints, if it succeeds.
fn good(dir: &Path, args: &[&str]) -> String {
    let output = run(dir, args);
    assert!(output.status.success(), "{args:?}: {}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

/// Its exit code and everything that it prints, if it fails.
fn bad(dir: &Path, args: &[&str]) -> (Option<i32>, String) {
    let output = run(dir, args);
    assert!(!output.status.success(), "{args:?} succeeds: {}", text(&output.stdout));
    (output.status.code(), text(&output.stdout) + &text(&output.stderr))
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// The lines of an export without the epochs, which an import makes.
fn exported(dir: &Path) -> Vec<Value> {
    let mut lines = lines(&good(dir, &["export"]));
    for line in &mut lines {
        line.as_object_mut().expect("an object").remove("epoch");
    }
    lines
}

fn folders() -> (TempDir, TempDir) {
    (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"))
}

fn path(folder: &TempDir, name: &str) -> String {
    folder.path().join(name).to_str().expect("UTF-8").to_owned()
}

#[test]
fn an_export_is_imported_as_it_was() {
    let (from, scratch) = folders();
    filled(from.path());
    let file = path(&scratch, "export.ndjson");
    good(from.path(), &["export", "-o", &file]);
    let text = fs::read_to_string(&file).expect("written");
    assert_eq!(text, good(from.path(), &["export"]), "the file is what standard output has");
    let all = lines(&text);
    assert_eq!(all[0], json!({"type": "export", "format": 1, "topics": 2}));
    let topic = &all[1];
    assert_eq!((&topic["topic"], &topic["level"]), (&json!("chat.lobby"), &json!("fsync")));
    assert_eq!((&topic["first"], &topic["last"]), (&json!(1), &json!(300)));
    let bytes = json!({
        "type": "message", "topic": "chat.lobby", "offset": 3, "timestamp": 1_755_992_190_003_u64, "data": "////",
    });
    assert_eq!(all[4], bytes, "a message has the fields that it has on the wire, and its attachment as base64");
    assert_eq!(all[6]["key"], "key 5");
    assert_eq!(all.last().expect("lines"), &json!({"type": "end", "messages": 500}));

    // With the offsets, into a new directory: everything but the epochs is the same.
    let kept = scratch.path().join("kept");
    let said = good(&kept, &["import", &file, "--keep"]);
    assert_eq!(said, "Imported 500 messages of 2 topics\n");
    assert_eq!(exported(&kept), exported(from.path()));
    assert!(good(&kept, &["verify"]).starts_with("good: 2 topics, 500 messages, "));
    let (_, refused) = bad(&kept, &["import", &file, "--keep"]);
    assert!(refused.contains("chat.lobby has had 300 messages") || refused.contains("feed has had 300"), "{refused}");

    // With new offsets, twice, from standard input.
    let fresh = scratch.path().join("fresh");
    for _ in 0..2 {
        let file = fs::File::open(&file).expect("readable");
        let output = command(&["import", "-", "--dir"]).arg(&fresh).stdin(file).output().expect("it runs");
        assert!(output.status.success(), "{}", self::text(&output.stderr));
        assert!(self::text(&output.stderr).contains("1 consumers are left out"));
    }
    let heads = lines(&good(&fresh, &["ls", "--json"]));
    assert_eq!([&heads[0]["newest"], &heads[1]["newest"]], [&json!(600), &json!(400)]);
    let contents = |dir: &Path, count: &str| {
        let mut lines = lines(&good(dir, &["tail", "feed", "-n", count]));
        lines.iter_mut().for_each(|line| drop(line.as_object_mut().expect("an object").remove("offset")));
        lines
    };
    assert_eq!(contents(&fresh, "200"), contents(from.path(), "200"));

    // One topic under another name and level.
    good(from.path(), &["export", "chat.lobby", "-o", &file]);
    good(&fresh, &["import", &file, "--as", "old.lobby", "--level", "os", "--keep"]);
    let heads = lines(&good(&fresh, &["ls", "--json"]));
    let old = json!({
        "topic": "old.lobby", "level": "os", "epoch": heads[2]["epoch"], "newest": 300, "trimmed_through": 0,
        "messages": 300, "bytes": heads[2]["bytes"], "consumers": ["mailer"],
    });
    assert_eq!(heads[2], old);
    let (_, refused) = bad(&fresh, &["import", &file, "--as", "feed", "--level", "fsync"]);
    assert!(refused.contains("feed is there already with the level os"), "{refused}");
    let names: Vec<_> = fs::read_dir(scratch.path()).expect("names").map(|entry| entry.expect("an entry")).collect();
    assert_eq!(names.len(), 3, "nothing else is left behind: {names:?}");
}

#[test]
fn a_flipped_bit_is_found_and_the_rest_is_saved() {
    let (dir, scratch) = folders();
    filled(dir.path());
    let whole = exported(dir.path());
    // In the content of a message.
    let needle = br#"message \"17\""#;
    let names = fs::read_dir(dir.path()).expect("names").map(|entry| entry.expect("an entry").path());
    let (segment, mut bytes, at) = names
        .filter_map(|path| {
            let bytes = fs::read(&path).expect("readable");
            let at = bytes.windows(needle.len()).position(|window| window == needle)?;
            Some((path, bytes, at))
        })
        .min()
        .expect("the message");
    bytes[at] ^= 1;
    fs::write(&segment, bytes).expect("written");
    let segment = segment.file_name().and_then(|name| name.to_str()).expect("a name");
    let (code, said) = bad(dir.path(), &["verify"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains(&format!("damaged: {segment} bytes ")), "{said}");
    assert!(said.contains("lost: chat.lobby offset 17\n"), "{said}");
    assert!(said.ends_with(" bytes\n") && said.contains("\ndamaged: 2 topics, 499 messages, "), "{said}");
    let (_, said) = bad(dir.path(), &["verify", "--json"]);
    assert_eq!(lines(&said)[1], json!({"type": "lost", "topic": "chat.lobby", "first": 17, "last": 17}));

    let file = path(&scratch, "export.ndjson");
    let output = run(dir.path(), &["export", "-o", &file]);
    assert!(output.status.success() && text(&output.stderr).contains("1 messages are damaged"), "{output:?}");
    let gap = json!({"type": "gap", "topic": "chat.lobby", "first": 17, "last": 17, "reason": "damaged on disk"});
    let saved = exported(dir.path());
    assert!(saved.contains(&gap));
    assert!(whole.iter().filter(|line| !saved.contains(line)).count() == 2, "the 17th, and the sum at the end");
    let fresh = scratch.path().join("fresh");
    let (_, refused) = bad(&fresh, &["import", &file, "--keep"]);
    assert!(refused.contains("import without --keep"), "{refused}");
    assert!(!fresh.exists(), "nothing is made for a file that is refused");
    let output = run(&fresh, &["import", &file]);
    assert!(text(&output.stderr).contains("1 messages were damaged before the export"), "{output:?}");
    assert!(good(&fresh, &["verify"]).starts_with("good: 2 topics, 499 messages, "));
}

#[test]
fn a_store_in_use_is_looked_at_and_not_changed() {
    let (dir, scratch) = folders();
    filled(dir.path());
    let store = store(dir.path());
    let feed = store.find("feed").expect("the topic");
    append(&store, &feed, 301..=320);

    let table = good(dir.path(), &["ls"]);
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0][..7], ["TOPIC", "LEVEL", "OLDEST", "NEWEST", "MESSAGES", "BYTES", "CONSUMERS"]);
    assert_eq!(rows[1][..5], ["chat.lobby", "fsync", "1", "300", "300"]);
    assert_eq!(rows[2][..5], ["feed", "os", "101", "320", "220"]);
    assert_eq!((rows[1][6], rows[2][7]), ("1", &*feed.epoch().to_string()));

    let tail = lines(&good(dir.path(), &["tail", "feed", "-n", "2"]));
    assert_eq!([&tail[0]["offset"], &tail[1]["offset"]], [&json!(319), &json!(320)]);
    assert_eq!(lines(&good(dir.path(), &["tail", "chat.lobby"])).len(), 10);
    assert_eq!(lines(&good(dir.path(), &["export", "feed"])).len(), 223);
    assert!(good(dir.path(), &["verify"]).starts_with("good: 2 topics, 520 messages, "));

    let mut follow =
        command(&["tail", "feed", "-f", "-n", "1", "--dir"]).arg(dir.path()).stdout(Stdio::piped()).spawn();
    let follow = follow.as_mut().expect("it runs");
    let mut printed = BufReader::new(follow.stdout.take().expect("its output")).lines();
    let mut next = || {
        let line: Value = serde_json::from_str(&printed.next().expect("a line").expect("readable")).expect("JSON");
        line["offset"].as_u64().expect("an offset")
    };
    assert_eq!(next(), 320);
    append(&store, &feed, 321..=322);
    assert_eq!([next(), next()], [321, 322]);
    // Through many segments.
    append(&store, &feed, 323..=2000);
    assert!((323..=2000).all(|offset| next() == offset));
    follow.kill().expect("it runs");
    follow.wait().expect("it has ended");

    let file = path(&scratch, "export.ndjson");
    good(dir.path(), &["export", "feed", "-o", &file]);
    for args in [&["import", &file][..], &["forget", "feed", "--yes"]] {
        let (_, refused) = bad(dir.path(), args);
        assert!(refused.contains("is in use; stop the server first"), "{refused}");
    }
    assert_eq!(feed.head().newest, 2000);
    append(&store, &feed, 2001..=2001);
}

/// A server whose topics below `d` are on a disk in this directory.
async fn server_on(dir: &Path) -> TestServer {
    TestServer::start_with(|config| {
        config.store.dir = Some(dir.to_owned());
        config.store.min_free_bytes = 0;
        config.store.segment_bytes = 1 << 20;
        config.topics = vec![rule("pattern = 'd.>'\ndurability = 'fsync'")];
    })
    .await
}

async fn history(server: &TestServer, topic: &str) -> Vec<Value> {
    let mut client = Over::Native.party(server, "reader").await;
    client.control.say(json!({"type": "history", "id": 1, "topic": topic})).await;
    client.control.expect("history").await["messages"].as_array().expect("messages").clone()
}

#[tokio::test]
async fn what_a_server_stores_is_exported_as_it_delivers_it_and_served_after_an_import() {
    let (dir, scratch) = folders();
    let server = server_on(dir.path()).await;
    let mut client = Over::Native.party(&server, "publisher").await;
    let file = path(&scratch, "export.ndjson");
    for n in 0..20 {
        let mut publish =
            json!({"type": "publish", "id": n, "topic": "d.a", "content": format!("\u{1f600} \"{n}\"\n")});
        if n % 2 == 0 {
            publish["key"] = json!(format!("key {n}"));
        }
        let body = with_attachment(&publish, &[0, 1, 2, 255][..n % 5]);
        client.control.body(&body).await;
        client.control.expect("published").await;
    }
    let delivered = history(&server, "d.a").await;
    assert_eq!(delivered.len(), 20);

    // Beside the server.
    good(dir.path(), &["export", "d.a", "-o", &file]);
    let mut messages = lines(&fs::read_to_string(&file).expect("written"));
    messages.retain(|line| line["type"] == "message");
    for (n, message) in messages.iter_mut().enumerate() {
        let key = message.as_object_mut().expect("an object").remove("key");
        assert_eq!(key, n.is_multiple_of(2).then(|| json!(format!("key {n}"))));
    }
    assert_eq!(messages, delivered);
    assert_eq!(lines(&good(dir.path(), &["tail", "d.a", "-n", "1"]))[0]["offset"], 20);
    assert!(good(dir.path(), &["verify"]).starts_with("good: 1 topics, 20 messages, "));
    let heads = lines(&good(dir.path(), &["ls", "--json"]));
    let (_, refused) = bad(dir.path(), &["import", &file]);
    assert!(refused.contains("is in use; stop the server first"), "{refused}");
    server.stop().await;

    // A server on what was imported: the same messages at the same offsets, under another epoch.
    let restored = scratch.path().join("restored");
    good(&restored, &["import", &file, "--keep"]);
    let server = server_on(&restored).await;
    assert_eq!(history(&server, "d.a").await, delivered);
    let mut client = Over::Native.party(&server, "publisher").await;
    client.control.say(json!({"type": "publish", "id": 1, "topic": "d.a", "content": "", "key": "key 18"})).await;
    let again = client.control.expect("published").await;
    assert_eq!((&again["offset"], &again["duplicate"]), (&json!(19), &json!(true)), "keys are known again");
    assert_ne!(again["epoch"], heads[0]["epoch"], "a client that had messages behind the backup is told");
    client.control.say(json!({"type": "publish", "id": 2, "topic": "d.a", "content": "next"})).await;
    assert_eq!(client.control.expect("published").await["offset"], 21);
    server.stop().await;
}

/// The commands of a section of docs/DURABILITY.md.
fn documented(section: &str) -> Vec<String> {
    let text = include_str!("../../docs/DURABILITY.md");
    let (_, section) = text.split_once(section).expect("the section");
    let section = section.split("\n## ").next().unwrap_or(section);
    let blocks = section.split("```sh\n").skip(1);
    blocks.map(|block| block.split("```").next().expect("its end").to_owned()).collect()
}

/// Runs commands in a shell that finds the binary.
fn shell(folder: &Path, commands: &str) -> Result<String, String> {
    let binary = Path::new(env!("CARGO_BIN_EXE_quic-websocket")).parent().expect("a folder");
    let path = format!("{}:{}", binary.display(), std::env::var("PATH").expect("a path"));
    let output = Command::new("sh").arg("-c").arg(commands).current_dir(folder).env("PATH", path).output();
    let output = output.expect("a shell");
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr) + &text(&output.stdout)) }
}

#[test]
fn the_documented_backups_work_beside_a_server_and_are_restored() {
    let (scratch, _) = folders();
    let data = scratch.path().join("data");
    filled(&data);
    let store = store(&data);
    let feed = store.find("feed").expect("the topic");
    let backups = documented("\n## Backup\n");
    let restores: Vec<String> =
        documented("\n## Restore\n").iter().flat_map(|block| block.lines()).map(str::to_owned).collect();
    assert_eq!((backups.len(), restores.len()), (2, 2), "both ways of each");
    for (n, (backup, restore)) in (0..).zip(backups.iter().zip(restores)) {
        let stored = 300 + n * 2000;
        std::thread::scope(|scope| {
            scope.spawn(|| append(&store, &feed, stored + 1..=stored + 2000));
            let mut tries = (0..5).map(|_| shell(scratch.path(), backup)).skip_while(Result::is_err);
            tries.next().expect("one of five succeeds").expect("a backup");
        });
        shell(scratch.path(), &restore).expect("restored");
        let restored = scratch.path().join("restored");
        assert!(good(&restored, &["verify"]).starts_with("good: 2 topics, "));
        let heads = lines(&good(&restored, &["ls", "--json"]));
        assert_eq!((&heads[0]["newest"], &heads[0]["consumers"]), (&json!(300), &json!(["mailer"])));
        assert_ne!(heads[1]["epoch"], feed.epoch().to_string());
        assert!(
            heads[1]["newest"].as_u64().expect("an offset") >= stored,
            "what was stored before is in it: {heads:?}"
        );
        let original = lines(&good(&data, &["export", "chat.lobby"]))[2..].to_vec();
        assert_eq!(lines(&good(&restored, &["export", "chat.lobby"]))[2..], original);
        fs::remove_dir_all(restored).expect("removed");
    }
    // A server can go on with the copy itself.
    let copy = self::store(&scratch.path().join("backup"));
    assert!(copy.damage().is_empty());
    assert_eq!(copy.find("feed").expect("the topic").epoch(), feed.epoch());
}

#[test]
fn a_bad_file_is_refused_with_the_line_and_changes_nothing() {
    let (dir, scratch) = folders();
    filled(dir.path());
    let before = good(dir.path(), &["export"]);
    let file = path(&scratch, "bad.ndjson");
    let small = [
        r#"{"type":"export","format":1,"topics":1}"#,
        r#"{"type":"topic","topic":"new","level":"os","epoch":"1","first":1,"last":2}"#,
        r#"{"type":"message","topic":"new","offset":1,"content":"a","timestamp":1}"#,
        r#"{"type":"message","topic":"new","offset":2,"content":"b","timestamp":2}"#,
        r#"{"type":"end","messages":2}"#,
    ];
    let with = |at: usize, line: &'static str| {
        let mut lines = small.to_vec();
        lines[at] = line;
        lines
    };
    for (lines, at, reason) in [
        (small[..4].to_vec(), 5, "cut off"),
        (small[1..].to_vec(), 1, "has to be of type export"),
        (vec![], 1, "cut off"),
        (with(0, r#"{"type":"export","format":2,"topics":1}"#), 1, "up to format 1"),
        (with(2, r#"{"type":"message","topic":"new","offset":1,"content":"a","timest"#), 3, "not a JSON object"),
        (with(2, r#"{"type":"message","topic":"old","offset":1,"content":"a","timestamp":1}"#), 3, "belongs to old"),
        (with(2, r#"{"type":"message","topic":"new","offset":2,"content":"a","timestamp":1}"#), 3, "next offset"),
        (with(3, r#"{"type":"message","topic":"new","offset":1,"content":"b","timestamp":2}"#), 4, "next offset"),
        (with(3, r#"{"type":"end","messages":1}"#), 4, "2 to 2 of new are missing"),
        (with(4, r#"{"type":"end","messages":3}"#), 5, "there should be 3 messages"),
        (with(1, r#"{"type":"topic","topic":"a b","level":"os","epoch":"1","first":1,"last":2}"#), 2, "topic"),
        (with(1, r#"{"type":"topic","topic":"new","level":"none","epoch":"1","first":1,"last":2}"#), 2, "none"),
        (with(1, r#"{"type":"topic","topic":"new","level":"os","epoch":"1","first":9,"last":2}"#), 2, "9 to 2"),
    ] {
        fs::write(&file, lines.iter().flat_map(|line| [line, "\n"]).collect::<String>()).expect("written");
        let (code, said) = bad(dir.path(), &["import", &file]);
        assert_eq!(code, Some(1));
        assert!(said.contains(&format!("bad.ndjson, line {at}: ")) && said.contains(reason), "{reason}: {said}");
    }
    let mut import = command(&["import", "-", "--dir"]);
    let mut import = import.arg(dir.path()).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
    import.stdin.take().expect("its input").write_all(b"what is this?\n").expect("written");
    let output = import.wait_with_output().expect("it ends");
    assert!(text(&output.stderr).contains("standard input, line 1: "), "{output:?}");
    assert_eq!(good(dir.path(), &["export"]), before);
    fs::write(&file, small.map(|line| line.to_owned() + "\n").concat()).expect("written");
    good(dir.path(), &["import", &file]);
}

#[test]
fn what_is_no_store_or_a_newer_one_is_told() {
    let (dir, scratch) = folders();
    let nowhere = scratch.path().join("nowhere");
    for args in [&["ls"][..], &["tail", "t"], &["export"], &["verify"], &["forget", "t", "--yes"]] {
        let code = if args == ["verify"] { 2 } else { 1 };
        let (found, said) = bad(&nowhere, args);
        assert!(found == Some(code) && said.contains("nowhere is not a directory"), "{args:?}: {said}");
        let (found, said) = bad(dir.path(), args);
        assert!(found == Some(code) && said.contains("holds no store"), "{args:?}: {said}");
    }
    assert!(!nowhere.exists() && fs::read_dir(dir.path()).expect("names").next().is_none(), "nothing is made");
    filled(dir.path());
    let (_, said) = bad(dir.path(), &["tail", "feeds"]);
    assert!(said.contains("no topic feeds"), "{said}");

    let format = dir.path().join("STORE");
    let mut bytes = fs::read(&format).expect("the format");
    // Format 2, with its CRC32C.
    bytes[8..12].copy_from_slice(&2_u32.to_le_bytes());
    bytes[12..].copy_from_slice(&0x1898_7903_u32.to_le_bytes());
    fs::write(&format, bytes).expect("written");
    for args in [&["ls"][..], &["verify"], &["forget", "feed", "--yes"]] {
        let (code, said) = bad(dir.path(), args);
        assert_eq!(code, Some(if args == ["verify"] { 2 } else { 1 }));
        assert!(said.contains("has store format 2, and this release reads up to 1"), "{said}");
    }
}

#[test]
fn a_topic_and_a_consumer_are_forgotten_if_asked_twice() {
    let (dir, _) = folders();
    filled(dir.path());
    let (_, said) = bad(dir.path(), &["forget", "feed"]);
    assert!(said.contains("this deletes the topic feed with 200 messages; add --yes"), "{said}");
    assert_eq!(lines(&good(dir.path(), &["ls", "--json"])).len(), 2, "nothing was deleted");
    let (_, said) = bad(dir.path(), &["forget", "chat.lobby", "--consumer", "mail", "--yes"]);
    assert!(said.contains("has no consumer mail"), "{said}");
    good(dir.path(), &["forget", "chat.lobby", "--consumer", "mailer", "--yes"]);
    assert_eq!(good(dir.path(), &["forget", "feed", "--yes"]), "Deleted the topic feed with 200 messages\n");
    let left = lines(&good(dir.path(), &["ls", "--json"]));
    assert_eq!((left.len(), &left[0]["topic"], &left[0]["consumers"]), (1, &json!("chat.lobby"), &json!([])));
    assert!(good(dir.path(), &["verify"]).starts_with("good: 1 topics, 300 messages, "));
    let store = store(dir.path());
    assert!(store.find("feed").is_none());
    let feed = store.topic("feed", Level::Os, Retention::default()).expect("a topic");
    assert_eq!(feed.head().newest, 0, "made again, it begins again");
}
