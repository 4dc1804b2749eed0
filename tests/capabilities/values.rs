//! JSON values and data about messages pass through exactly as they were sent, to every receiver and reader; and each
//! message says who sent it.

#![allow(clippy::expect_used, clippy::panic)] // A test fails by panicking.

use std::collections::BTreeMap;

use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::common::over::{Over, Party};
use crate::common::tokens::{asking, bearer};
use crate::common::topics::rule;
use crate::common::{TestServer, soon};

/// Values that a program that reads and writes them again changes.
const HARD: [&str; 9] = [
    "null",
    "9007199254740993",
    "-1.50E+400",
    "0.1000000000000000055511151231257827",
    "\"\\u00e9\\/\"",
    "\"plain\"",
    "{\"b\" : 1,\n  \"a\":[ ],\"b\":2}",
    "[18446744073709551616]",
    "false",
];

/// The fields of a message as they are written.
type Raw = BTreeMap<String, Box<RawValue>>;

/// The next message on the control lane that is of this type.
async fn raw(client: &mut Party, kind: &str) -> Raw {
    let body = soon("a message", client.control.try_hear_body()).await.expect("a message");
    let json = if body[0] == 0x01 {
        let length = u32::from_be_bytes(body[1..5].try_into().expect("four bytes")) as usize;
        body[5..5 + length].to_vec()
    } else {
        body
    };
    let fields: Raw = serde_json::from_slice(&json).expect("a JSON object");
    assert_eq!(fields["type"].get(), format!("\"{kind}\""), "{fields:?}");
    fields
}

fn text<'a>(fields: &'a Raw, name: &str) -> Option<&'a str> {
    fields.get(name).map(|value| value.get())
}

async fn say(client: &mut Party, message: String) {
    client.control.body(message.as_bytes()).await;
}

#[tokio::test]
async fn each_value_reaches_each_receiver_as_it_was_written() {
    let server = TestServer::start().await;
    for (from, to) in Over::pairs() {
        let (mut sender, mut receiver) = (from.party(&server, "sender").await, to.party(&server, "receiver").await);
        let topic = format!("{}.{}", from.name(), to.name()).replace(' ', "-");
        receiver.control.say(json!({"type": "subscribe", "id": 1, "topic": topic, "lane": "control"})).await;
        receiver.control.expect("subscribed").await;
        let id = receiver.id.clone();
        for value in HARD {
            let meta = format!("{{ \"event\":\"x\", \"n\":{} }}", "1e999");
            let content = format!("\"data\":{value},\"meta\":{meta}");
            for (kind, place) in [("direct", format!("\"to\":\"{id}\"")), ("publish", format!("\"topic\":\"{topic}\""))]
            {
                say(&mut sender, format!("{{\"type\":\"{kind}\",\"id\":1,{place},{content}}}")).await;
                let kind = if kind == "publish" { "message" } else { kind };
                let heard = raw(&mut receiver, kind).await;
                assert_eq!((text(&heard, "data"), text(&heard, "meta")), (Some(value), Some(&*meta)), "{kind}");
                assert_eq!(text(&heard, "content"), None, "{heard:?}");
                sender.control.hear().await;
            }
            say(&mut sender, format!("{{\"type\":\"broadcast\",{content}}}")).await;
            for client in [&mut sender, &mut receiver] {
                let heard = raw(client, "broadcast").await;
                assert_eq!((text(&heard, "data"), text(&heard, "meta")), (Some(value), Some(&*meta)));
            }
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn text_a_value_and_an_attachment_go_together() {
    let server = TestServer::start().await;
    for over in Over::ALL {
        let mut client = over.party(&server, "both").await;
        let message = json!({"type": "broadcast", "content": "text", "data": [1], "meta": {"a": 1}});
        client.control.say_with(message, b"bytes").await;
        let (heard, attachment) = client.control.hear_with().await;
        assert_eq!(
            (&heard["content"], &heard["data"], &heard["meta"]),
            (&json!("text"), &json!([1]), &json!({"a": 1}))
        );
        assert_eq!(attachment, b"bytes");
    }
    server.stop().await;
}

#[tokio::test]
async fn history_and_replay_have_the_same_value_in_memory_and_on_disk_and_after_a_restart() {
    let dir = tempfile::tempdir().expect("a directory");
    for durability in ["memory", "fsync"] {
        let start = || {
            TestServer::start_with(|config| {
                config.store.dir = Some(dir.path().to_owned());
                config.store.min_free_bytes = 0;
                config.topics = vec![rule(&format!("pattern = '>'\ndurability = '{durability}'"))];
            })
        };
        let mut server = start().await;
        let mut publisher = Over::Native.party(&server, "publisher").await;
        for value in HARD {
            let message = format!("{{\"type\":\"publish\",\"id\":1,\"topic\":\"values\",\"data\":{value}}}");
            say(&mut publisher, message).await;
            publisher.control.expect("published").await;
        }
        publisher.control.say_with(json!({"type": "publish", "id": 1, "topic": "values", "data": 7}), b"both").await;
        publisher.control.expect("published").await;
        publisher.control.say_with(json!({"type": "publish", "id": 1, "topic": "values"}), b"bytes").await;
        publisher.control.expect("published").await;
        if durability == "fsync" {
            server.stop().await;
            server = start().await;
        }
        for over in Over::ALL {
            let mut reader = over.party(&server, "reader").await;
            reader.control.say(json!({"type": "history", "id": 1, "topic": "values"})).await;
            let page = raw(&mut reader, "history").await;
            let messages: Vec<Raw> = serde_json::from_str(page["messages"].get()).expect("messages");
            assert_eq!(messages.len(), HARD.len() + 2);
            for (message, value) in messages.iter().zip(HARD) {
                assert_eq!((text(message, "data"), text(message, "encoding")), (Some(value), Some("\"json\"")));
            }
            let [.., both, bytes] = &messages[..] else { panic!("two more") };
            let fields =
                |message: &Raw| ["data", "encoding", "attachment"].map(|name| text(message, name).map(str::to_owned));
            let some = |text: &str| Some(text.to_owned());
            assert_eq!(fields(both), [some("7"), some("\"json\""), some("\"Ym90aA==\"")]);
            assert_eq!(fields(bytes), [some("\"Ynl0ZXM=\""), None, None], "as it was before there were values");

            let subscribe = json!({"type": "subscribe", "id": 2, "topic": "values", "lane": "control", "recent": 100});
            reader.control.say(subscribe).await;
            reader.control.expect("subscribed").await;
            for value in HARD {
                assert_eq!(text(&raw(&mut reader, "message").await, "data"), Some(value));
            }
        }
        server.stop().await;
    }
}

#[tokio::test]
async fn a_wrong_value_or_meta_is_refused_with_the_field_that_has_to_change() {
    let server = TestServer::start_with(|config| config.limits.meta_bytes = 20).await;
    for over in Over::ALL {
        let mut client = over.party(&server, "wrong").await;
        for (fields, field) in [
            ("\"meta\":{}", "content"),
            ("\"data\":1,\"meta\":[]", "meta"),
            ("\"data\":1,\"meta\":\"text\"", "meta"),
            ("\"data\":1,\"meta\":{\"a\":\"0123456789abcdef\"}", "meta"),
            ("\"content\":\"x\",\"ttl_ms\":0", "ttl_ms"),
        ] {
            say(&mut client, format!("{{\"type\":\"publish\",\"id\":5,\"topic\":\"a\",{fields}}}")).await;
            let error = client.control.expect("error").await;
            let message = error["message"].as_str().expect("text");
            assert!(error["code"] == 400 && error["re"] == 5 && message.starts_with(field), "{fields}: {error}");
        }
        let deepest = format!("{}{}", "[".repeat(63), "]".repeat(63));
        say(&mut client, format!("{{\"type\":\"publish\",\"id\":6,\"topic\":\"deep\",\"data\":{deepest}}}")).await;
        client.control.expect("published").await;
        say(&mut client, format!("{{\"type\":\"publish\",\"id\":7,\"topic\":\"deep\",\"data\":[{deepest}]}}")).await;
        assert_eq!(client.control.expect("error").await["code"], 400);
    }
    server.stop().await;
}

/// The sender's fields of a message.
fn sender(message: &Value) -> [Option<&Value>; 3] {
    ["from", "user", "name"].map(|field| message.get(field))
}

#[tokio::test]
async fn a_message_names_the_verified_user_that_sent_it_and_nothing_of_an_anonymous_client() {
    let server = TestServer::start_with(|config| {
        let open = "publish = '>'\nsubscribe = '>'\ndirect = true\nbroadcast = true";
        config.auth = asking(&format!("[anonymous]\n{open}\n[token]\n{open}"));
    })
    .await;
    for over in Over::ALL {
        let mut ada = bearer(over, &server, json!({"sub": "ada@example.org", "name": "Ada \"L\""})).await;
        let mut nameless = bearer(over, &server, json!({"sub": "bob"})).await;
        let mut anonymous = over.party(&server, "Called Ada").await;
        let mut hearer = over.party(&server, "hearer").await;
        hearer.control.say(json!({"type": "subscribe", "id": 1, "topic": "who", "lane": "control"})).await;
        hearer.control.expect("subscribed").await;
        let id = hearer.id.clone();
        let (user, name, bob) = (json!("ada@example.org"), json!("Ada \"L\""), json!("bob"));
        for (client, user, name) in
            [(&mut ada, Some(&user), Some(&name)), (&mut nameless, Some(&bob), None), (&mut anonymous, None, None)]
        {
            let from = json!(client.id);
            for (message, kind) in [
                (json!({"type": "publish", "topic": "who", "content": "x"}), "message"),
                (json!({"type": "direct", "to": id, "data": 1}), "direct"),
                (json!({"type": "signal", "to": id, "data": 1}), "signal"),
            ] {
                client.control.say(message).await;
                let heard = hearer.control.expect(kind).await;
                assert_eq!(sender(&heard), [Some(&from), user, name], "{heard}");
            }
        }
        for client in [ada, nameless, anonymous] {
            client.vanish();
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn a_message_whose_time_is_over_is_neither_replayed_nor_in_history() {
    let dir = tempfile::tempdir().expect("a directory");
    for durability in ["memory", "os"] {
        let server = TestServer::start_with(|config| {
            config.store.dir = Some(dir.path().to_owned());
            config.store.min_free_bytes = 0;
            // Read from the disk, so that both ways are tested.
            config.store.cache_messages = 1;
            config.topics = vec![rule(&format!("pattern = '>'\ndurability = '{durability}'"))];
        })
        .await;
        let mut publisher = Over::Native.party(&server, "publisher").await;
        publisher.control.say(json!({"type": "subscribe", "id": 1, "topic": "live", "lane": "control"})).await;
        publisher.control.expect("subscribed").await;
        let day = 86_400_000;
        for (n, ttl_ms) in [None, Some(1), Some(day), Some(1), Some(9_007_199_254_740_991_u64)].into_iter().enumerate()
        {
            let message = json!({"type": "publish", "topic": "live", "data": n, "ttl_ms": ttl_ms});
            publisher.control.say(message).await;
            let heard = publisher.control.expect("message").await;
            let accepted = heard["timestamp"].as_u64().expect("a time");
            let expires_at = ttl_ms.map(|ttl_ms| (accepted + ttl_ms).min(9_007_199_254_740_991));
            assert_eq!((&heard["data"], heard.get("expires_at").and_then(Value::as_u64)), (&json!(n), expires_at));
        }
        let start = crate::common::now_ms();
        crate::common::until("the time of two is over", || crate::common::now_ms() > start + 2).await;
        for over in Over::ALL {
            let mut reader = over.party(&server, "reader").await;
            for (reverse, expected) in [(false, [0, 2, 4]), (true, [4, 2, 0])] {
                reader.control.say(json!({"type": "history", "id": 1, "topic": "live", "reverse": reverse})).await;
                let page = reader.control.expect("history").await;
                let found: Vec<_> =
                    page["messages"].as_array().expect("messages").iter().map(|it| &it["data"]).collect();
                assert_eq!(found, expected.map(|n| json!(n)).iter().collect::<Vec<_>>(), "{page}");
            }
            // Pages of one message leave none out, and end.
            let (mut since, mut seen) = (Value::Null, Vec::new());
            loop {
                let ask = json!({"type": "history", "id": 1, "topic": "live", "limit": 1, "since": since});
                reader.control.say(ask).await;
                let page = reader.control.expect("history").await;
                let Some(message) = page["messages"].get(0) else { break };
                seen.push(message["data"].clone());
                since = json!({"epoch": page["epoch"], "offset": message["offset"]});
            }
            assert_eq!(seen, [0, 2, 4]);
            let subscribe = json!({"type": "subscribe", "id": 2, "topic": "live", "lane": "control", "recent": 10});
            reader.control.say(subscribe).await;
            reader.control.expect("subscribed").await;
            for n in [0, 2, 4] {
                assert_eq!(reader.control.expect("message").await["data"], n);
            }
            if durability == "os" {
                let name = over.name().replace(' ', "-");
                let subscribe = json!({"type": "subscribe", "id": 3, "topic": "live", "durable": name, "recent": 10});
                reader.control.say(json!({"type": "unsubscribe", "topic": "live", "id": 4})).await;
                reader.control.expect("ok").await;
                reader
                    .control
                    .say({
                        let mut it = subscribe;
                        it["lane"] = json!("control");
                        it
                    })
                    .await;
                reader.control.expect("subscribed").await;
                for n in [0, 2, 4] {
                    let message = reader.control.expect("message").await;
                    assert_eq!((&message["data"], message.get("durable").is_some()), (&json!(n), true));
                }
            }
        }
        server.stop().await;
    }
}
