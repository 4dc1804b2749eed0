//! Topics through the client library, against a real server: publishing, subscribing, history, presence, and
//! subscribers that do not read.

#![allow(clippy::expect_used, clippy::panic)] // A test fails by panicking.

use std::time::Duration;

use crate::common::library::{client, connect, expect, next, next_message, next_missed, publish};
use crate::common::topics::rule;
use crate::common::{TestServer, soon, until};
use quic_websocket::message::{
    ClientMessage, CloseCode, ClosedBy, Payload, Position, ServerMessage, Subscribe, TopicMessage, TopicName,
};
use quic_websocket::{ClientError, Ended, Event, TopicEvent};

#[tokio::test]
async fn published_messages_arrive_in_order_and_unchanged() {
    let server = TestServer::start().await;
    let (ada, bob) = (client(&server, "Ada").await, client(&server, "Bob").await);
    let mut lobby = bob.subscribe("chat.lobby").await.expect("subscribed");
    assert_eq!(lobby.topic(), "chat.lobby");
    let begin = lobby.position().expect("a topic has one");
    assert_eq!(begin.offset, 0, "nothing was published yet");

    let first = publish(&ada, "chat.lobby", "hello").await;
    assert_eq!(first.epoch, begin.epoch);
    let both = Payload::text("a file").with_attachment(vec![7; 100_000]);
    ada.publish("chat.lobby", both.clone()).await.expect("published");
    ada.publish_unacknowledged("chat.lobby", Payload::binary("bytes")).await.expect("sent");

    let message = expect(&mut lobby, "hello").await;
    assert_eq!((message.offset, message.from.map(|from| from.id)), (first.offset, ada.id()));
    assert_eq!(lobby.position(), Some(first));
    assert!(next_message(&mut lobby).await.payload == both, "100,000 bytes came changed");
    assert_eq!(next_message(&mut lobby).await.payload, Payload::binary("bytes"));
    assert!(lobby.try_next().is_none());
    server.stop().await;
}

#[tokio::test]
async fn patterns_added_and_removed_between_messages_change_only_their_receivers() {
    let server = TestServer::start().await;
    let (ada, bob, eve) = (client(&server, "Ada").await, client(&server, "Bob").await, client(&server, "Eve").await);
    // With as many levels as allowed, and with few.
    for topic in ["news.tea".to_owned(), vec!["a"; 128].join(".")] {
        let levels = topic.split('.').count();
        let first_is_any = ["*"].into_iter().chain(topic.split('.').skip(1)).collect::<Vec<_>>().join(".");
        let mut news = bob.subscribe(vec!["*"; levels].join(".").as_str()).await.expect("subscribed");
        for round in 0..2 {
            publish(&ada, &topic, format!("{round} before")).await;
            expect(&mut news, &format!("{round} before")).await;
            // More changes than are remembered individually.
            for n in 0..40 {
                let elsewhere = eve.subscribe(format!("elsewhere.{n}.>").as_str()).await.expect("subscribed");
                elsewhere.unsubscribe().await.expect("unsubscribed");
            }
            publish(&ada, &topic, "one").await;
            expect(&mut news, "one").await;
            let mut eves = eve.subscribe(first_is_any.as_str()).await.expect("subscribed");
            publish(&ada, &topic, "both").await;
            expect(&mut news, "both").await;
            expect(&mut eves, "both").await;
            eves.unsubscribe().await.expect("unsubscribed");
            publish(&ada, &topic, "one again").await;
            expect(&mut news, "one again").await;
        }
        // The first of two matching subscriptions ends: the other one takes over.
        let mut second = bob.subscribe(first_is_any.as_str()).await.expect("subscribed");
        publish(&ada, &topic, "by the first").await;
        expect(&mut news, "by the first").await;
        news.unsubscribe().await.expect("unsubscribed");
        publish(&ada, &topic, "by the second").await;
        while next_message(&mut second).await.payload != Payload::text("by the second") {}
        second.unsubscribe().await.expect("unsubscribed");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_key_is_published_once() {
    let server = TestServer::start().await;
    let ada = client(&server, "Ada").await;
    let once = ada.publish("orders", Payload::text("tea")).key("4711").await.expect("published");
    let twice = ada.publish("orders", Payload::text("tea")).key("4711").await.expect("published");
    assert!(!once.is_duplicate && twice.is_duplicate);
    assert_eq!(once.position, twice.position);
    assert_eq!(ada.history("orders").all().await.expect("a history").messages.len(), 1);
    server.stop().await;
}

#[tokio::test]
async fn a_subscription_starts_at_the_requested_position() {
    let server = TestServer::start().await;
    let (ada, bob) = (client(&server, "Ada").await, client(&server, "Bob").await);
    let mut positions = Vec::new();
    for n in 1..=5 {
        positions.push(publish(&ada, "t", n.to_string()).await);
    }
    let mut recent = bob.subscribe("t").recent(2).await.expect("subscribed");
    expect(&mut recent, "4").await;
    expect(&mut recent, "5").await;
    recent.unsubscribe().await.expect("unsubscribed");

    let mut since = bob.subscribe("t").since(positions[1].clone()).await.expect("subscribed");
    for text in ["3", "4", "5"] {
        expect(&mut since, text).await;
    }
    assert_eq!(since.position().as_ref(), positions.last());
    drop(since);

    // From an earlier epoch of the log: the loss is reported, then the available messages follow.
    let stale = Position { epoch: "of-another-life".into(), offset: 3 };
    let mut stale = bob.subscribe("t").since(stale).recent(1).await.expect("subscribed");
    assert_eq!(next_missed(&mut stale).await.offsets, None);
    expect(&mut stale, "5").await;
    publish(&ada, "t", "6").await;
    expect(&mut stale, "6").await;
    server.stop().await;
}

#[tokio::test]
async fn history_is_read_page_by_page_and_from_both_ends() {
    let server =
        TestServer::start_with(|config| config.topics = vec![rule("pattern = 't'\nhistory_messages = 5000")]).await;
    let ada = client(&server, "Ada").await;
    for n in 1..=1200 {
        ada.publish_unacknowledged("t", Payload::text(n.to_string())).await.expect("sent");
    }
    let last = ada.publish("t", Payload::binary(vec![0xde, 0xad])).await.expect("published").position;
    let texts = |messages: &[TopicMessage]| -> Vec<String> {
        messages.iter().map(|m| m.payload.content.as_deref().unwrap_or("bytes").to_owned()).collect()
    };
    let page = ada.history("t").limit(3).await.expect("a page");
    assert_eq!((texts(&page.messages), page.more), (vec!["1".into(), "2".into(), "3".into()], true));
    let page = ada.history("t").limit(2).reverse().await.expect("a page");
    assert_eq!(texts(&page.messages), ["bytes", "1200"]);
    assert_eq!(page.messages[0].payload, Payload::binary(vec![0xde, 0xad]));

    let all = ada.history("t").all().await.expect("a history");
    assert_eq!((all.messages.len(), all.more, &all.epoch), (1201, false, &last.epoch));
    let since = Position { epoch: last.epoch.clone(), offset: all.messages[1197].offset };
    let rest = ada.history("t").since(since).all().await.expect("a history");
    assert_eq!(texts(&rest.messages), ["1199", "1200", "bytes"]);
    let mut reverse = ada.history("t").reverse().all().await.expect("a history");
    reverse.messages.reverse();
    assert!(reverse.messages == all.messages, "the same from the other end");

    let none = ada.history("nothing").await.expect("an empty page");
    assert_eq!((none.messages.len(), none.offset, none.more), (0, Some(0), false));
    server.stop().await;
}

#[tokio::test]
async fn joins_and_leaves_are_reported_to_watchers() {
    let server = TestServer::start().await;
    let (ada, bob) = (client(&server, "Ada").await, client(&server, "Bob").await);
    let mut watched = ada.subscribe("room").presence(true).await.expect("subscribed");
    let at_bob = bob.subscribe("room").await.expect("subscribed");
    match next(&mut watched).await {
        TopicEvent::Join { topic, member, .. } => {
            assert_eq!((topic.as_str(), member.name.as_deref(), Some(member.id)), ("room", Some("Bob"), bob.id()));
        }
        other => panic!("expected Join, got {other:?}"),
    }
    let mut names: Vec<_> =
        ada.presence("room").await.expect("members").clients.into_iter().filter_map(|member| member.name).collect();
    names.sort();
    assert_eq!(names, ["Ada", "Bob"]);
    // Dropping it is enough.
    drop(at_bob);
    match next(&mut watched).await {
        TopicEvent::Leave { member, .. } => assert_eq!(Some(member.id), bob.id()),
        other => panic!("expected Leave, got {other:?}"),
    }
    let present = ada.presence("room").await.expect("members");
    assert_eq!((present.clients.len(), present.total), (1, 1));
    server.stop().await;
}

#[tokio::test]
async fn a_message_goes_to_the_exact_topic_else_to_the_first_pattern() {
    let server = TestServer::start().await;
    let (ada, bob) = (client(&server, "Ada").await, client(&server, "Bob").await);
    let mut wide = bob.subscribe("s.>").await.expect("subscribed");
    let mut narrow = bob.subscribe("s.*").await.expect("subscribed");
    let mut exact = bob.subscribe("s.a").await.expect("subscribed");
    assert!(wide.position().is_none(), "a pattern has none");
    for topic in ["s.a", "s.b", "s.b.c", "s.a"] {
        publish(&ada, topic, topic).await;
    }
    expect(&mut exact, "s.a").await;
    expect(&mut exact, "s.a").await;
    assert_eq!(expect(&mut wide, "s.b").await.topic, "s.b");
    expect(&mut wide, "s.b.c").await;
    // The next in line takes over.
    wide.unsubscribe().await.expect("unsubscribed");
    exact.unsubscribe().await.expect("unsubscribed");
    publish(&ada, "s.a", "now here").await;
    expect(&mut narrow, "now here").await;
    server.stop().await;
}

#[tokio::test]
async fn an_unread_subscription_delays_nothing_and_gets_a_report_of_its_losses() {
    const COUNT: u64 = 300;
    let server =
        TestServer::start_with(|config| config.topics = vec![rule("pattern = 'bulk'\noverflow = 'drop_oldest'")]).await;
    let (ada, bob) = (client(&server, "Ada").await, client(&server, "Bob").await);
    let mut bulk = bob.subscribe("bulk").queue(1).await.expect("subscribed");
    let mut small = bob.subscribe("small").queue(1).await.expect("subscribed");
    let large = "x".repeat(50_000);
    for n in 1..=COUNT {
        publish(&ada, "bulk", large.clone()).await;
        publish(&ada, "small", n.to_string()).await;
        expect(&mut small, &n.to_string()).await;
    }
    bob.echo("replies come as well").await.expect("a reply");
    publish(&ada, "bulk", "end").await;
    let (mut next_offset, mut missed) = (1, 0);
    while next_offset <= COUNT + 1 {
        match next(&mut bulk).await {
            TopicEvent::Message(message) => {
                assert_eq!(message.offset, next_offset, "in order, and missing ones are reported");
                next_offset += 1;
            }
            TopicEvent::Missed(gap) => {
                let offsets = gap.offsets.expect("the server knows which");
                assert_eq!(*offsets.start(), next_offset);
                next_offset = offsets.end() + 1;
                missed += offsets.end() - offsets.start() + 1;
            }
            other => panic!("expected messages, got {other:?}"),
        }
    }
    assert!(missed > 0, "15 MB were held for one that does not read");
    server.stop().await;
}

#[tokio::test]
async fn on_the_control_lane_a_full_queue_drops_the_oldest_and_reports_it() {
    let server = TestServer::start().await;
    let (ada, bob) = (client(&server, "Ada").await, client(&server, "Bob").await);
    let mut t = bob.subscribe("t").on_control_lane().queue(4).await.expect("subscribed");
    for n in 1..=20 {
        publish(&ada, "t", n.to_string()).await;
    }
    // After the last message on the same lane.
    let mut last = bob.subscribe("last").on_control_lane().await.expect("subscribed");
    publish(&ada, "last", "!").await;
    expect(&mut last, "!").await;
    assert_eq!(next_missed(&mut t).await.offsets, Some(1..=17));
    for n in 18..=20 {
        expect(&mut t, &n.to_string()).await;
    }
    server.stop().await;
}

#[tokio::test]
async fn datagrams_deliver_the_newest() {
    let server = TestServer::start().await;
    let (ada, bob) = (client(&server, "Ada").await, client(&server, "Bob").await);
    let mut t = bob.subscribe("t").datagrams().queue(4).await.expect("subscribed");
    let newest = soon("a value that arrives", async {
        // Any of them may be lost.
        loop {
            let published = publish(&ada, "t", "value").await;
            while let Ok(event) = tokio::time::timeout(Duration::from_millis(50), t.next()).await {
                match event {
                    Some(TopicEvent::Message(message)) if message.offset == published.offset => return message,
                    Some(TopicEvent::Message(_)) => {}
                    other => panic!("expected messages, got {other:?}"),
                }
            }
        }
    })
    .await;
    assert_eq!(newest.payload, Payload::text("value"));
    // Messages too large for a datagram arrive anyway.
    publish(&ada, "t", "x".repeat(100_000)).await;
    soon("the large one", async {
        while next_message(&mut t).await.payload.content.is_none_or(|c| c.len() < 100_000) {}
    })
    .await;
    server.stop().await;
}

#[tokio::test]
async fn invalid_and_forbidden_calls_fail_at_once_and_others_continue() {
    let server = TestServer::start_with(|config| {
        config.topics = vec![rule(
            "pattern = 'closed'
subscribe = 'nobody'
publish = 'nobody'",
        )];
    })
    .await;
    let ada = client(&server, "Ada").await;
    let error = ada.subscribe("closed").await.expect_err("forbidden");
    assert!(matches!(&error, ClientError::Server(error) if error.code == 403), "{error}");
    let error = ada.publish("closed", Payload::text("x")).await.expect_err("forbidden");
    assert!(matches!(&error, ClientError::Server(error) if error.code == 403), "{error}");
    for bad in ["", "a..b", "a b", "a.>.b"] {
        let error = ada.subscribe(bad).await.expect_err("no topic");
        assert!(matches!(error, ClientError::Invalid(_)), "{bad:?}: {error}");
    }
    let error = ada.publish("a.*", Payload::text("x")).await.expect_err("a pattern");
    assert!(matches!(error, ClientError::Invalid(_)), "{error}");
    let position = Position { epoch: "e".into(), offset: 1 };
    let error = ada.subscribe("a.*").since(position).await.expect_err("a pattern has no position");
    assert!(matches!(error, ClientError::Invalid(_)), "{error}");

    let first = ada.subscribe("t").await.expect("subscribed");
    let error = ada.subscribe("t").await.expect_err("twice");
    assert!(matches!(&error, ClientError::AlreadySubscribed { topic, .. } if topic == "t"), "{error}");
    drop(first);
    let mut again = ada.subscribe("t").await.expect("it is free again");
    publish(&ada, "t", "x").await;
    expect(&mut again, "x").await;
    server.stop().await;
}

#[tokio::test]
async fn a_closed_client_ends_its_subscriptions() {
    let server = TestServer::start().await;
    let ada = client(&server, "Ada").await;
    let mut t = ada.subscribe("t").await.expect("subscribed");
    publish(&ada, "t", "last").await;
    expect(&mut t, "last").await;
    ada.close(CloseCode(4000), "enough").await.expect("closed");
    let ended = TopicEvent::Ended(Ended::Closed(ClosedBy::new(CloseCode(4000), "enough")));
    assert_eq!(next(&mut t).await, ended);
    assert_eq!(soon("nothing more", t.next()).await, None);
    assert!(matches!(ada.subscribe("u").await, Err(ClientError::Closed { .. })));
    server.stop().await;
}

#[tokio::test]
async fn an_unread_subscription_does_not_delay_the_close() {
    let server = TestServer::start().await;
    let (ada, (bob, mut at_bob)) = (client(&server, "Ada").await, connect(&server, "Bob").await);
    let mut bulk = bob.subscribe("bulk").queue(2).await.expect("subscribed");
    for _ in 0..20 {
        publish(&ada, "bulk", "x".repeat(100_000)).await;
    }
    let began = std::time::Instant::now();
    bob.close(CloseCode::NORMAL, "done").await.expect("closed");
    assert!(began.elapsed() < Duration::from_secs(5), "it took {:?}", began.elapsed());
    match soon("the end", at_bob.next()).await {
        Some(Event::Closed(closed)) => assert_eq!(closed.code, CloseCode::NORMAL, "{closed:?}"),
        other => panic!("expected Closed, got {other:?}"),
    }
    // Messages that had arrived are still available, without a hole.
    let mut offset = 0;
    while let Some(event) = soon("the end", bulk.next()).await {
        match event {
            TopicEvent::Message(message) => {
                offset += 1;
                assert_eq!(message.offset, offset);
            }
            TopicEvent::Ended(_) => {}
            other => panic!("expected messages and the end, got {other:?}"),
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn a_subscription_keeps_its_client_and_dropping_both_disconnects() {
    let server = TestServer::start().await;
    let ada = client(&server, "Ada").await;
    let mut t = client(&server, "Bob").await.subscribe("t").await.expect("subscribed");
    publish(&ada, "t", "still here").await;
    expect(&mut t, "still here").await;
    drop((ada, t));
    until("the server's count", || server.status.connections() == 0).await;
    server.stop().await;
}

#[tokio::test]
async fn messages_of_manual_subscriptions_arrive_as_events() {
    let server = TestServer::start().await;
    let (ada, mut events) = connect(&server, "Ada").await;
    let by_hand = Subscribe::new(TopicName::new("t").expect("a topic"));
    let subscribed = ada.call(&ClientMessage::Subscribe(by_hand)).await.expect("subscribed");
    assert!(matches!(subscribed, ServerMessage::Subscribed(_)), "{subscribed:?}");
    publish(&ada, "t", "x").await;
    match soon("an event", events.next()).await {
        Some(Event::Other(ServerMessage::Message(message))) => assert_eq!(message.topic, "t"),
        other => panic!("expected a topic's message, got {other:?}"),
    }
    server.stop().await;
}
