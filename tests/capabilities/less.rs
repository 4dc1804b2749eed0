//! Less than all messages: `filter` by `meta`, `echo: false`, and `max_rate`, which brings the newest of each interval.
//! What a subscription leaves out is no gap.

#![allow(clippy::expect_used, clippy::panic)] // A test fails by panicking.

use serde_json::{Value, json};

use crate::common::over::{Over, Party};
use crate::common::topics::{Subscriber, rule};
use crate::common::{On, TestServer, until};

/// Rules under which a narrowed subscription must work alike.
const RULES: [&str; 5] =
    ["", "overflow = 'drop_oldest'", "overflow = 'latest'", "overflow = 'block'", "durability = 'os'"];

async fn server(fields: &str) -> (TestServer, tempfile::TempDir) {
    let dir = tempfile::tempdir().expect("a directory");
    let server = TestServer::start_with(|config| {
        config.store.dir = Some(dir.path().to_owned());
        config.store.min_free_bytes = 0;
        config.topics = vec![rule(&format!("pattern = '>'\n{fields}"))];
    })
    .await;
    (server, dir)
}

/// Publishes a message with `meta`, and gives its offset.
async fn publish(client: &mut Party, topic: &str, meta: Value) -> u64 {
    client.control.say(json!({"type": "publish", "id": 1, "topic": topic, "content": "", "meta": meta})).await;
    client.control.expect("published").await["offset"].as_u64().expect("an offset")
}

fn offset(message: &Value) -> u64 {
    assert_eq!(message["type"], "message", "{message}");
    message["offset"].as_u64().expect("an offset")
}

async fn hear(subscriber: &mut Subscriber, topic: &str, expected: &[u64]) {
    for &expected in expected {
        let message = subscriber.hear(topic).await;
        assert_eq!(offset(&message), expected, "{message}");
    }
}

async fn hears_no_more(subscriber: &mut Subscriber) {
    subscriber.lives("nothing more").await;
    subscriber.nothing_more().await;
}

#[tokio::test]
async fn a_filter_brings_the_messages_whose_meta_meets_it() {
    for rules in RULES {
        let (server, _dir) = server(rules).await;
        let mut publisher = Over::Native.party(&server, "publisher").await;
        let moves = json!({"event": "move", "path": {"prefix": "a/"}});
        let metas = [
            json!({"event": "move", "path": "a/b"}),
            json!({"event": "move", "path": "b"}),
            json!({"event": "stop", "path": "a/b", "level": 3}),
            json!({"level": 3.0}),
            json!({"path": "a/", "more": [1, {"event": "no"}], "event": "move"}),
        ];
        let mut early = Vec::new();
        for over in Over::ALL {
            let mut by_name = Subscriber::over(over, &server, "by name").await;
            by_name.subscribe(json!({"topic": "a.b", "filter": moves})).await;
            let mut by_pattern = Subscriber::over(over, &server, "by pattern").await;
            by_pattern.subscribe(json!({"topic": "a.*", "filter": {"level": 3}})).await;
            let mut all = Subscriber::over(over, &server, "all").await;
            all.subscribe(json!({"topic": "a.b"})).await;
            early.push((by_name, by_pattern, all));
        }
        for meta in &metas {
            publish(&mut publisher, "a.b", meta.clone()).await;
        }
        publisher.control.say(json!({"type": "publish", "id": 1, "topic": "a.b", "content": "no meta"})).await;
        publisher.control.expect("published").await;
        publish(&mut publisher, "a.b", json!({"event": "move", "path": "a/c", "level": 3})).await;
        for (by_name, by_pattern, all) in &mut early {
            hear(by_name, "a.b", &[1, 5, 7]).await;
            hear(by_pattern, "a.b", &[3, 4, 7]).await;
            hear(all, "a.b", &[1, 2, 3, 4, 5, 6, 7]).await;
            for subscriber in [by_name, by_pattern, all] {
                hears_no_more(subscriber).await;
            }
        }
        // A replay is filtered as well, and goes on with what is published then.
        for (over, next) in Over::ALL.into_iter().zip([8, 10, 12]) {
            let mut late = Subscriber::over(over, &server, "late").await;
            let since = json!({"epoch": early[0].2.subscribed[0]["epoch"], "offset": 1});
            let subscribed = late.subscribe(json!({"topic": "a.b", "since": since, "filter": moves})).await;
            assert_eq!(subscribed["recovered"], true, "{subscribed}");
            publish(&mut publisher, "a.b", json!({"event": "other"})).await;
            publish(&mut publisher, "a.b", json!({"event": "move", "path": "a/"})).await;
            let before: Vec<u64> = (9..next).step_by(2).collect();
            hear(&mut late, "a.b", &[&[5, 7], &before[..], &[next + 1]].concat()).await;
            hears_no_more(&mut late).await;
        }
        server.stop().await;
    }
}

#[tokio::test]
async fn without_echo_a_client_gets_what_others_publish() {
    for rules in RULES {
        let (server, _dir) = server(rules).await;
        let mut other = Over::Native.party(&server, "other").await;
        let mut offsets = 0;
        for (over, text) in Over::ALL.into_iter().zip(["room", "*", "room"]) {
            let mut quiet = Subscriber::over(over, &server, "quiet").await;
            quiet.subscribe(json!({"topic": text, "echo": false})).await;
            let mut expected = Vec::new();
            for n in 0..6 {
                offsets += 1;
                if n % 3 == 1 {
                    expected.push(offsets);
                    publish(&mut other, "room", json!({})).await;
                } else {
                    let own = json!({"type": "publish", "id": "own", "topic": "room", "content": "mine"});
                    quiet.ask(own, "published").await;
                }
            }
            hear(&mut quiet, "room", &expected).await;
            hears_no_more(&mut quiet).await;
            // Of what is replayed, only the client's own messages are left out.
            quiet.unsubscribe(text).await;
            quiet.subscribe(json!({"topic": "room", "recent": 7, "echo": false})).await;
            let replayed: Vec<u64> = (offsets.saturating_sub(6).max(1)..=offsets)
                .filter(|at| *at + 6 <= offsets || expected.contains(at))
                .collect();
            hear(&mut quiet, "room", &replayed).await;
            quiet.unsubscribe("room").await;
            quiet.subscribe(json!({"topic": "room", "recent": 1, "echo": true})).await;
            hear(&mut quiet, "room", &[offsets]).await;
            hears_no_more(&mut quiet).await;
        }
        server.stop().await;
    }
}

/// A client that resumes a session, and its own session.
async fn connect(over: Over, server: &TestServer, resume: Option<Value>) -> (Subscriber, Value) {
    let mut party = over.newcomer(server).await;
    let mut greeting = json!({"type": "handshake", "protocol_version": "1.0", "client_name": "quiet"});
    if let Some(resume) = resume {
        greeting["resume"] = resume;
    }
    party.control.say(greeting).await;
    let accepted = party.control.expect("handshake_response").await;
    (Subscriber::new(party), accepted["session"].clone())
}

#[tokio::test]
async fn a_client_that_resumes_its_session_gets_no_echo_of_the_one_before() {
    for (from, to) in Over::pairs() {
        let (server, _dir) = server("").await;
        let (mut quiet, session) = connect(from, &server, None).await;
        let mut other = Over::Native.party(&server, "other").await;
        for n in 0..4 {
            if n % 2 == 0 {
                quiet.ask(json!({"type": "publish", "id": 1, "topic": "room", "content": ""}), "published").await;
            } else {
                publish(&mut other, "room", json!({})).await;
            }
        }
        for (resume, expected) in [(Some(session), &[2, 4][..]), (None, &[1, 2, 3, 4])] {
            let (mut again, _) = connect(to, &server, resume).await;
            again.subscribe(json!({"topic": "room", "recent": 4, "echo": false})).await;
            hear(&mut again, "room", expected).await;
            hears_no_more(&mut again).await;
        }
        server.stop().await;
    }
}

/// Takes messages of a topic up to one, and checks that they are in order and without a gap. Gives their number.
async fn hear_up_to(subscriber: &mut Subscriber, topic: &str, last: u64) -> u64 {
    let (mut count, mut before) = (0, 0);
    while before < last {
        let at = offset(&subscriber.hear(topic).await);
        assert!(at > before, "{at} after {before}");
        (count, before) = (count + 1, at);
    }
    count
}

#[tokio::test]
async fn a_rate_brings_the_first_at_once_and_the_last_always() {
    // More than can go within the minute that the test has.
    const MESSAGES: u64 = 200;
    for rules in RULES {
        let (server, _dir) = server(rules).await;
        let mut publisher = Over::Native.party(&server, "publisher").await;
        let mut subscribers = Vec::new();
        for over in Over::ALL {
            let mut by_name = Subscriber::over(over, &server, "by name").await;
            by_name.subscribe(json!({"topic": "one", "max_rate": 4})).await;
            let mut by_pattern = Subscriber::over(over, &server, "by pattern").await;
            by_pattern.subscribe(json!({"topic": "*", "max_rate": 4})).await;
            let mut filtered = Subscriber::over(over, &server, "filtered").await;
            filtered.subscribe(json!({"topic": "one", "max_rate": 4, "filter": {"is": "even"}})).await;
            subscribers.push((by_name, by_pattern, filtered));
        }
        publish(&mut publisher, "one", json!({"is": "even"})).await;
        for (by_name, by_pattern, filtered) in &mut subscribers {
            for subscriber in [by_name, by_pattern, filtered] {
                hear(subscriber, "one", &[1]).await;
            }
        }
        for topic in ["one", "other"] {
            let publication = |n: u64| {
                let is = if n.is_multiple_of(2) { "even" } else { "odd" };
                json!({"type": "publish", "topic": topic, "content": "", "meta": {"is": is}}).to_string().into_bytes()
            };
            let publications: Vec<_> = (2..=MESSAGES + 1).map(publication).collect();
            publisher.control.bodies(&publications).await;
        }
        for (by_name, by_pattern, filtered) in &mut subscribers {
            let heard = hear_up_to(by_name, "one", MESSAGES + 1).await;
            assert!(heard < MESSAGES, "{heard} of {MESSAGES}");
            assert!(hear_up_to(by_pattern, "one", MESSAGES + 1).await < MESSAGES);
            assert!(hear_up_to(by_pattern, "other", MESSAGES).await < MESSAGES);
            assert!(hear_up_to(filtered, "one", MESSAGES).await < MESSAGES / 2);
            for subscriber in [by_name, by_pattern, filtered] {
                hears_no_more(subscriber).await;
            }
        }
        let conflated = server.status.stats(0).totals.conflated;
        assert!(conflated >= 3 * 2 * (MESSAGES - 100), "{conflated} were replaced by newer ones");
        server.stop().await;
    }
}

#[tokio::test]
async fn a_replay_with_a_rate_is_the_newest_message() {
    for rules in RULES {
        let (server, _dir) = server(rules).await;
        let mut publisher = Over::Native.party(&server, "publisher").await;
        for n in 1..=150 {
            publish(&mut publisher, "a", json!({"n": n, "is": if n <= 100 { "old" } else { "new" }})).await;
        }
        let mut before = 150;
        for over in Over::ALL {
            let mut all = Subscriber::over(over, &server, "all").await;
            let epoch = all.subscribe(json!({"topic": "a", "max_rate": 4, "recent": 100})).await["epoch"].clone();
            let mut old = Subscriber::over(over, &server, "old").await;
            let since = json!({"epoch": epoch, "offset": 10});
            old.subscribe(json!({"topic": "a", "max_rate": 4, "since": since, "filter": {"is": "old"}})).await;
            let mut none = Subscriber::over(over, &server, "none").await;
            none.subscribe(json!({"topic": "a", "max_rate": 4, "recent": 100, "filter": {"is": "no"}})).await;
            let mut own = Subscriber::over(over, &server, "own").await;
            own.subscribe(json!({"topic": "a", "max_rate": 4, "recent": 100, "echo": false})).await;
            hear(&mut all, "a", &[before]).await;
            hear(&mut old, "a", &[100]).await;
            hear(&mut own, "a", &[before]).await;
            before = publish(&mut publisher, "a", json!({"is": "new"})).await;
            hear(&mut all, "a", &[before]).await;
            for subscriber in [&mut all, &mut old, &mut none] {
                hears_no_more(subscriber).await;
            }
            // With a position that it has seen, nothing is replayed.
            let since = json!({"epoch": epoch, "offset": before});
            let mut seen = Subscriber::over(over, &server, "seen").await;
            seen.subscribe(json!({"topic": "a", "max_rate": 4, "since": since})).await;
            hears_no_more(&mut seen).await;
        }
        server.stop().await;
    }
}

#[tokio::test]
async fn a_replay_with_a_rate_is_the_newest_message_whose_time_is_not_over() {
    for rules in ["", "durability = 'os'"] {
        let (server, _dir) = server(rules).await;
        let mut publisher = Over::Native.party(&server, "publisher").await;
        let expected = publish(&mut publisher, "a", json!({})).await;
        let short = json!({"type": "publish", "id": 1, "topic": "a", "content": "", "ttl_ms": 1});
        publisher.control.say(short).await;
        publisher.control.expect("published").await;
        loop {
            publisher.control.say(json!({"type": "history", "id": 1, "topic": "a"})).await;
            let history = publisher.control.expect("history").await;
            if history["messages"].as_array().expect("messages").len() == 1 {
                break;
            }
        }
        for over in Over::ALL {
            let mut late = Subscriber::over(over, &server, "late").await;
            late.subscribe(json!({"topic": "a", "max_rate": 4, "recent": 10})).await;
            hear(&mut late, "a", &[expected]).await;
            hears_no_more(&mut late).await;
        }
        server.stop().await;
    }
}

#[tokio::test]
async fn datagrams_can_be_less_as_well() {
    let (server, _dir) = server("").await;
    for over in Over::QUIC {
        let topic = format!("fast.{}", over.name());
        let mut publisher = over.party(&server, "publisher").await;
        let mut client = over.party(&server, "datagrams").await;
        let subscribe = json!({"type": "subscribe", "id": 1, "topic": topic, "delivery": "datagram",
            "max_rate": 4, "echo": false, "filter": {"n": {"prefix": "x"}}});
        client.control.say(subscribe).await;
        client.control.expect("subscribed").await;
        publish(&mut client, &topic, json!({"n": "x own"})).await;
        for n in 0..50 {
            publish(&mut publisher, &topic, json!({"n": if n % 2 == 0 { "x" } else { "y" }})).await;
        }
        let (connection, session) = client.quic();
        let (mut count, mut last) = (0, 0);
        while last < 50 {
            let body = crate::common::read_datagram(connection, session).await;
            let message: Value = serde_json::from_slice(&body).expect("JSON");
            assert_eq!(message["meta"]["n"], "x", "{message}");
            (count, last) = (count + 1, offset(&message));
        }
        assert!(count < 25, "{count} of 25 that pass");
    }
    server.stop().await;
}

#[tokio::test]
async fn the_subscription_that_brings_a_message_decides_alone() {
    let (server, _dir) = server("").await;
    let mut publisher = Over::Native.party(&server, "publisher").await;
    for over in Over::ALL {
        let topic = format!("a.{}", over.name());
        let mut client = Subscriber::over(over, &server, "client").await;
        client.subscribe(json!({"topic": "a.*", "filter": {"n": 1}})).await;
        client.subscribe(json!({"topic": ">"})).await;
        for n in 1..=3 {
            publish(&mut publisher, &topic, json!({"n": n})).await;
        }
        hear(&mut client, &topic, &[1]).await;
        client.subscribe(json!({"topic": topic, "filter": {"n": 2}})).await;
        for n in 1..=3 {
            publish(&mut publisher, &topic, json!({"n": n})).await;
        }
        hear(&mut client, &topic, &[5]).await;
        client.unsubscribe(&topic).await;
        client.unsubscribe("a.*").await;
        publish(&mut publisher, &topic, json!({"n": 3})).await;
        hear(&mut client, &topic, &[7]).await;
        hears_no_more(&mut client).await;
    }
    server.stop().await;
}

#[tokio::test]
async fn a_subscription_that_ends_takes_along_what_it_holds_back() {
    let (server, _dir) = server("").await;
    let mut publisher = Over::Native.party(&server, "publisher").await;
    for (over, from) in Over::ALL.into_iter().zip([0, 4, 8]) {
        let mut client = Subscriber::over(over, &server, "client").await;
        client.subscribe(json!({"topic": "a", "max_rate": 1})).await;
        publish(&mut publisher, "a", json!({})).await;
        hear(&mut client, "a", &[from + 1]).await;
        publish(&mut publisher, "a", json!({})).await;
        publish(&mut publisher, "a", json!({})).await;
        client.unsubscribe("a").await;
        client.subscribe(json!({"topic": "a"})).await;
        publish(&mut publisher, "a", json!({})).await;
        // If more than a second has passed, one that was held back came before that; none comes now.
        let mut heard = Vec::new();
        while heard.last() != Some(&(from + 4)) {
            heard.push(offset(&client.hear("a").await));
        }
        assert!(heard.is_sorted() && heard.len() <= 3, "{heard:?}");
        hears_no_more(&mut client).await;
    }
    server.stop().await;
}

#[tokio::test]
async fn what_cannot_be_applied_is_refused_with_a_reason() {
    let (server, _dir) = server("durability = 'os'").await;
    for over in Over::ALL {
        let mut client = over.party(&server, "client").await;
        for (fields, reason) in [
            (json!({"max_rate": 0}), "max_rate: "),
            (json!({"max_rate": 1001}), "max_rate: "),
            (json!({"max_rate": 1.5}), "max_rate: "),
            (json!({"echo": "no"}), "echo: "),
            (json!({"filter": []}), "filter: "),
            (json!({"filter": {}}), "filter: it has no condition"),
            (json!({"filter": {"a": null}}), "filter: \"a\" must be a string"),
            (json!({"filter": {"a": {"suffix": "x"}}}), "filter: \"a\" must be a string"),
            (json!({"filter": {"a": "x".repeat(1020)}}), "filter: "),
            (
                json!({"filter": {"1": 1, "2": 1, "3": 1, "4": 1, "5": 1, "6": 1, "7": 1, "8": 1, "9": 1}}),
                "filter: it has more than 8",
            ),
            (json!({"max_rate": 1, "share": true}), "max_rate: not with"),
            (json!({"echo": false, "durable": "d"}), "echo: not with"),
            (json!({"filter": {"a": 1}, "durable": "d"}), "filter: not with"),
        ] {
            let mut request = json!({"type": "subscribe", "id": 1, "topic": "a"});
            request.as_object_mut().expect("an object").extend(fields.as_object().expect("an object").clone());
            client.control.say(request).await;
            let error = client.control.expect("error").await;
            assert_eq!(error["code"], 400, "{fields}: {error}");
            let message = error["message"].as_str().expect("a text");
            assert!(message.starts_with(reason), "{fields}: {message}");
        }
        client.control.lives("a client that was refused").await;
    }
    server.stop().await;
}

/// A subscription of the crowd, and whether it wants a message of a publisher.
struct Member {
    subscriber: Subscriber,
    echo: bool,
    level: Option<u64>,
}

#[tokio::test]
async fn each_of_a_crowd_gets_exactly_what_it_wants() {
    const EACH: u64 = 60;
    let (server, _dir) = server("").await;
    let seed = fastrand::u64(..);
    let mut random = fastrand::Rng::with_seed(seed);
    let mut crowd = Vec::new();
    for (n, over) in (0..30).zip(Over::in_turn()) {
        let mut subscriber = Subscriber::over(over, &server, &format!("member {n}")).await;
        let (echo, level) = (random.bool(), random.bool().then(|| random.u64(0..4)));
        let mut fields = json!({"topic": if random.bool() { "crowd" } else { ">" }, "echo": echo});
        if let Some(level) = level {
            fields["filter"] = json!({"level": level});
        }
        subscriber.subscribe(fields).await;
        crowd.push(Member { subscriber, echo, level });
    }
    // The first few publish as well, all at once.
    let mut levels = std::collections::HashMap::new();
    for (n, member) in crowd.iter_mut().enumerate().take(5) {
        let bodies: Vec<_> = (0..EACH)
            .map(|m| {
                let level = random.u64(0..4);
                levels.insert((n, m), level);
                let meta = json!({"level": level, "by": n, "n": m});
                json!({"type": "publish", "topic": "crowd", "content": "", "meta": meta}).to_string().into_bytes()
            })
            .collect();
        member.subscriber.client.tell(On::Control, &bodies).await;
    }
    let mut skipped = 0;
    for (n, member) in crowd.iter_mut().enumerate() {
        let wanted =
            |by: usize, m: u64| (member.echo || by != n) && member.level.is_none_or(|level| level == levels[&(by, m)]);
        let mut expected: Vec<Vec<u64>> = (0..5).map(|by| (0..EACH).filter(|&m| wanted(by, m)).collect()).collect();
        let count = expected.iter().map(Vec::len).sum::<usize>();
        skipped += 5 * EACH - count as u64;
        let mut before = 0;
        for _ in 0..count {
            let message = member.subscriber.hear("crowd").await;
            let at = offset(&message);
            assert!(at > before, "seed {seed}: {at} after {before}");
            before = at;
            let by = usize::try_from(message["meta"]["by"].as_u64().expect("a number")).expect("small");
            assert_eq!(json!(expected[by].remove(0)), message["meta"]["n"], "seed {seed}, member {n}: {message}");
        }
        hears_no_more(&mut member.subscriber).await;
    }
    until("all are counted", || server.status.stats(0).totals.filtered == skipped).await;
    server.stop().await;
}

/// The offsets of a topic's messages on the control lane up to a reply of another kind.
async fn offsets_up_to(client: &mut Party, topic: &str, kind: &str) -> Vec<u64> {
    let mut offsets = Vec::new();
    loop {
        let next = client.control.hear().await;
        if next["type"] == kind {
            return offsets;
        }
        assert_eq!(next["type"], "message", "{next}");
        if next["topic"] == topic {
            offsets.push(offset(&next));
        }
    }
}

#[tokio::test]
async fn what_a_pattern_holds_back_comes_before_a_subscription_by_name_or_by_its_replay() {
    let (server, _dir) = server("").await;
    let mut publisher = Over::Native.party(&server, "publisher").await;
    for over in Over::ALL {
        for replays in [false, true] {
            let topic = format!("a.{}-{replays}", over.name());
            let mut client = over.party(&server, "client").await;
            client.control.say(json!({"type": "subscribe", "topic": "a.*", "max_rate": 1, "lane": "control"})).await;
            client.control.expect("subscribed").await;
            publisher.control.say(json!({"type": "publish", "id": 1, "topic": topic, "content": ""})).await;
            let first = publisher.control.expect("published").await;
            client.control.expect("message").await;
            publish(&mut publisher, &topic, json!({})).await;
            let mut by_name = json!({"type": "subscribe", "topic": topic, "lane": "control"});
            if replays {
                by_name["since"] = json!({"epoch": first["epoch"], "offset": 1});
            }
            client.control.say(by_name).await;
            let before = offsets_up_to(&mut client, &topic, "subscribed").await;
            publish(&mut publisher, &topic, json!({})).await;
            // Its interval ends after that of the other topic.
            let mut after = Vec::new();
            for _ in 0..2 {
                publish(&mut publisher, "a.clock", json!({})).await;
                loop {
                    let next = client.control.expect("message").await;
                    if next["topic"] == "a.clock" {
                        break;
                    }
                    after.push(offset(&next));
                }
            }
            if replays {
                assert!(before.len() <= 1 && after == [2, 3], "{before:?}, {after:?}");
            } else {
                assert!(before == [2] && after == [3], "{before:?}, {after:?}");
            }
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn what_a_subscription_held_back_comes_by_another_one_when_it_ends() {
    let (server, _dir) = server("").await;
    let mut publisher = Over::Native.party(&server, "publisher").await;
    for over in Over::ALL {
        let topic = format!("a.{}", over.name());
        let mut client = over.party(&server, "client").await;
        for subscribe in [json!({"topic": "a.*"}), json!({"topic": topic, "max_rate": 1})] {
            let mut request = json!({"type": "subscribe", "lane": "control"});
            request.as_object_mut().expect("an object").extend(subscribe.as_object().expect("an object").clone());
            client.control.say(request).await;
            client.control.expect("subscribed").await;
        }
        publish(&mut publisher, &topic, json!({})).await;
        assert_eq!(offset(&client.control.expect("message").await), 1);
        publish(&mut publisher, &topic, json!({})).await;
        client.control.say(json!({"type": "unsubscribe", "id": "u", "topic": topic})).await;
        assert_eq!(offsets_up_to(&mut client, &topic, "ok").await, [2]);
        publish(&mut publisher, &topic, json!({})).await;
        assert_eq!(offset(&client.control.expect("message").await), 3);
    }
    server.stop().await;
}

#[tokio::test]
async fn a_replayed_message_begins_an_interval() {
    for rules in ["", "durability = 'os'"] {
        let (server, _dir) = server(rules).await;
        let mut publisher = Over::Native.party(&server, "publisher").await;
        let mut newest = publish(&mut publisher, "a", json!({})).await;
        // A machine that stands still for a second lets a message through.
        for attempt in 1.. {
            let mut client = Subscriber::over(Over::Native, &server, "client").await;
            client.subscribe(json!({"topic": "a", "max_rate": 1, "recent": 1})).await;
            hear(&mut client, "a", &[newest]).await;
            publish(&mut publisher, "a", json!({})).await;
            newest = publish(&mut publisher, "a", json!({})).await;
            if offset(&client.hear("a").await) == newest {
                break;
            }
            assert!(attempt < 20, "the message behind the replay always comes at once");
        }
        server.stop().await;
    }
}
