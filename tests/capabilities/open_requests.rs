//! A `request` always ends: with its reply, when it is cancelled or its time is over, when either client leaves; and no
//! client has more of them open than it may.

#![allow(clippy::expect_used, clippy::panic)] // A test fails by panicking.

use crate::common::admin;
use crate::common::over::Over;
use crate::common::requests::{addressed, answer, ask, offer, responder, settled};
use crate::common::tokens::{asking, bearer, token};
use crate::common::{TestServer, soon, until};
use serde_json::json;

#[tokio::test]
async fn a_cancelled_request_ends_at_once_and_its_responder_is_told() {
    let server = TestServer::start().await;
    for (from, to) in Over::pairs() {
        let (mut asking, mut answering) = (from.party(&server, "Ada").await, addressed(to, &server).await);
        asking.control.say(json!({"type": "request", "id": "q", "to": answering.id, "content": "x"})).await;
        let request = answering.control.expect("request").await;
        asking.control.say(json!({"type": "cancel", "re": "q", "id": "c"})).await;
        let error = asking.control.expect("error").await;
        assert_eq!((&error["re"], &error["code"]), (&json!("q"), &json!(499)), "{error}");
        assert_eq!(asking.control.expect("ok").await["re"], "c");
        let cancel = answering.control.expect("cancel").await;
        assert_eq!(cancel["request"], request["request"]);
        assert!(cancel["reason"].as_str().is_some_and(|why| why.contains("cancelled")), "{cancel}");
        // It is over: for a late reply, for another cancel, and for the id.
        answer(&mut answering, &request, json!("late")).await;
        answering.control.expect_error(404).await;
        asking.control.say(json!({"type": "cancel", "re": "q", "id": "again"})).await;
        assert!(asking.control.expect_error(404).await.starts_with("re: "));
        asking.control.say(json!({"type": "request", "id": "q", "to": answering.id, "content": "x"})).await;
        let request = answering.control.expect("request").await;
        answer(&mut answering, &request, json!(1)).await;
        assert_eq!(asking.control.expect("reply").await["re"], "q");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_request_on_a_lane_is_cancelled_there_from_anywhere() {
    let server = TestServer::start().await;
    for over in Over::QUIC {
        let (mut asking, mut answering) = (over.party(&server, "Ada").await, addressed(over, &server).await);
        let mut lane = asking.lane().await;
        lane.say(json!({"type": "request", "id": 1, "to": answering.id, "content": "x"})).await;
        lane.send.finish().expect("the lane is open");
        answering.control.expect("request").await;
        asking.control.say(json!({"type": "cancel", "re": 1})).await;
        lane.expect_error(499).await;
        assert!(lane.try_hear_body().await.is_err(), "the lane ends after its last reply");
        answering.control.expect("cancel").await;
        asking.control.lives("Ada").await;
    }
    server.stop().await;
}

#[tokio::test]
async fn a_request_without_a_reply_ends_when_its_time_is_over() {
    let server = TestServer::start().await;
    for (from, to) in Over::pairs() {
        let (mut asking, mut answering) = (from.party(&server, "Ada").await, addressed(to, &server).await);
        for (id, timeout_ms) in [("long", 60_000), ("short", 100), ("middle", 150)] {
            let request = json!({
                "type": "request", "id": id, "to": answering.id, "content": id, "timeout_ms": timeout_ms,
            });
            asking.control.say(request).await;
            assert_eq!(answering.control.expect("request").await["timeout_ms"], timeout_ms);
        }
        for (id, timeout_ms) in [("short", 100), ("middle", 150)] {
            let error = asking.control.expect("error").await;
            assert_eq!((&error["re"], &error["code"]), (&json!(id), &json!(504)), "{error}");
            let text = error["message"].as_str().expect("a text");
            assert!(text.contains(&format!("{timeout_ms} ms")), "{text}");
            assert!(answering.control.expect("cancel").await["reason"].as_str().is_some_and(|why| why.contains("ms")));
        }
        asking.vanish();
        answering.control.expect("cancel").await;
    }
    settled(&server).await;
    server.stop().await;
}

#[tokio::test]
async fn a_requester_that_leaves_cancels_its_requests() {
    let server = TestServer::start().await;
    for (from, to) in Over::pairs() {
        let mut answering = addressed(to, &server).await;
        for says_so in [false, true] {
            let mut asking = from.party(&server, "Ada").await;
            for n in 0..5 {
                asking.control.say(json!({"type": "request", "id": n, "to": answering.id, "content": "x"})).await;
            }
            let mut open = Vec::new();
            for _ in 0..5 {
                open.push(answering.control.expect("request").await["request"].clone());
            }
            if says_so {
                asking.control.say(json!({"type": "close"})).await;
                asking.closed().await;
            } else {
                asking.vanish();
            }
            for _ in 0..5 {
                let cancel = answering.control.expect("cancel").await;
                assert!(cancel["reason"].as_str().is_some_and(|why| why.contains("left")), "{cancel}");
                open.retain(|request| *request != cancel["request"]);
            }
            assert!(open.is_empty(), "each is cancelled once: {open:?}");
        }
    }
    settled(&server).await;
    server.stop().await;
}

#[tokio::test]
async fn a_responder_that_leaves_fails_its_requests_at_once() {
    let server = TestServer::start().await;
    for (from, to) in Over::pairs() {
        let mut asking = from.party(&server, "Ada").await;
        for ends in ["vanish", "close", "unsubscribe"] {
            let mut answering = responder(to, &server, "sum").await;
            for n in 0..3 {
                asking.control.say(ask(n, n)).await;
                answering.control.expect("request").await;
            }
            match ends {
                "vanish" => answering.vanish(),
                "close" => {
                    answering.control.say(json!({"type": "close"})).await;
                    answering.closed().await;
                }
                _ => {
                    answering.control.say(json!({"type": "unsubscribe", "id": 1, "topic": "sum"})).await;
                    // Its requests are cancelled, before or behind the reply.
                    let mut kinds = Vec::new();
                    for _ in 0..4 {
                        kinds.push(answering.control.hear().await["type"].as_str().expect("a type").to_owned());
                    }
                    kinds.sort_unstable();
                    assert_eq!(kinds, ["cancel", "cancel", "cancel", "ok"]);
                }
            }
            let mut failed = Vec::new();
            for _ in 0..3 {
                let error = asking.control.expect("error").await;
                assert_eq!(error["code"], 502, "{ends}: {error}");
                failed.push(error["re"].as_u64().expect("an id"));
            }
            failed.sort_unstable();
            assert_eq!(failed, [0, 1, 2]);
            // Now none is there.
            asking.control.say(ask("next", 1)).await;
            assert!(asking.control.expect_error(404).await.starts_with("topic: "), "{ends}");
        }
    }
    assert_eq!(server.status.stats(0).requests.open, 0);
    server.stop().await;
}

#[tokio::test]
async fn without_anyone_who_answers_the_error_is_immediate() {
    let server = TestServer::start().await;
    for over in Over::ALL {
        let (mut asking, mut silent) = (over.party(&server, "Ada").await, over.party(&server, "Bob").await);
        silent.control.say(json!({"type": "subscribe", "id": 1, "topic": "sum", "lane": "control"})).await;
        silent.control.expect("subscribed").await;
        for (mut request, field) in [
            (json!({"topic": "sum"}), "topic"),
            (json!({"topic": "never.used"}), "topic"),
            (json!({"to": silent.id}), "to"),
            (json!({"to": "00000000-0000-4000-8000-000000000000"}), "to"),
            (json!({"user": "bob"}), "user"),
        ] {
            request["type"] = json!("request");
            request["id"] = json!(field);
            request["content"] = json!("x");
            asking.control.say(request).await;
            let error = asking.control.expect("error").await;
            assert_eq!((&error["code"], &error["re"]), (&json!(404), &json!(field)), "{error}");
            assert!(error["message"].as_str().is_some_and(|text| text.starts_with(&format!("{field}: "))), "{error}");
        }
        silent.control.lives("Bob").await;
    }
    assert_eq!(server.status.topics(), 1, "a request makes no topic");
    server.stop().await;
}

#[tokio::test]
async fn open_requests_are_bounded_for_each_client_and_each_responder() {
    let server = TestServer::start_with(|config| {
        (config.limits.client_requests, config.limits.responder_requests) = (4, 6);
    })
    .await;
    for over in Over::ALL {
        let mut first = responder(over, &server, "sum").await;
        let mut asking = over.newcomer(&server).await;
        let hello = json!({"type": "handshake", "protocol_version": "1.0"});
        assert_eq!(asking.handshake_with(hello).await["limits"]["max_open_requests"], 4);
        for n in 0..4 {
            asking.control.say(ask(n, n)).await;
        }
        // An open id is in use, whatever the bound.
        asking.control.say(ask(3, 0)).await;
        asking.control.expect_error(409).await;
        asking.control.say(ask("more", 0)).await;
        let error = asking.control.expect("error").await;
        assert_eq!((&error["code"], &error["re"]), (&json!(429), &json!("more")), "{error}");
        // Two more are the last of the only responder.
        let mut others = over.party(&server, "Bob").await;
        for n in 0..3 {
            others.control.say(ask(n, n)).await;
        }
        let error = others.control.expect("error").await;
        assert_eq!((&error["code"], error["retry_after_ms"].is_u64()), (&json!(503), true), "{error}");
        // Another one has room.
        let mut second = responder(over, &server, "sum").await;
        others.control.say(ask("second", 5)).await;
        assert_eq!(second.control.expect("request").await["data"], 5);
        // And one that is answered makes room, on both sides.
        let request = first.control.expect("request").await;
        answer(&mut first, &request, json!(0)).await;
        assert_eq!(asking.control.expect("reply").await["re"], 0);
        asking.control.say(ask("more", 0)).await;
        asking.vanish();
        others.vanish();
        first.vanish();
        second.vanish();
        until("they have left", || server.status.clients() == 0).await;
        settled(&server).await;
    }
    server.stop().await;
}

#[tokio::test]
async fn only_the_client_that_has_a_request_may_answer_it_and_once() {
    let server = TestServer::start().await;
    for over in Over::ALL {
        let (mut asking, mut answering) = (over.party(&server, "Ada").await, addressed(over, &server).await);
        let mut thief = addressed(over, &server).await;
        asking.control.say(json!({"type": "request", "id": 1, "to": answering.id, "content": "x"})).await;
        let request = answering.control.expect("request").await;
        for id in [&request["request"], &json!("0"), &json!("unheard of"), &json!(u64::MAX.to_string())] {
            thief.control.say(json!({"type": "reply", "request": id, "data": "stolen"})).await;
            assert!(thief.control.expect_error(404).await.starts_with("request: "));
        }
        // Nor may another client cancel it.
        thief.control.say(json!({"type": "cancel", "re": 1, "id": 5})).await;
        thief.control.expect_error(404).await;
        answer(&mut answering, &request, json!("own")).await;
        assert_eq!(asking.control.expect("reply").await["data"], "own");
        answer(&mut answering, &request, json!("twice")).await;
        answering.control.expect_error(404).await;
        asking.control.lives("Ada").await;
    }
    server.stop().await;
}

#[tokio::test]
async fn a_responder_whose_new_token_takes_its_subscription_fails_its_requests() {
    let auth = asking("");
    let server = TestServer::start_with(|config| config.auth = auth).await;
    for over in Over::ALL {
        let mut asking = bearer(over, &server, json!({"sub": "ada", "publish": "sum"})).await;
        let mut answering = bearer(over, &server, json!({"sub": "bob", "subscribe": "sum"})).await;
        offer(&mut answering, "sum").await;
        asking.control.say(ask(1, 1)).await;
        answering.control.expect("request").await;
        answering.control.say(json!({"type": "refresh", "token": token(json!({"sub": "bob"})), "id": 2})).await;
        asking.control.expect_error(502).await;
    }
    server.stop().await;
}

#[tokio::test]
async fn replies_are_not_counted_as_messages_of_the_responder_but_stray_ones_are() {
    let server = TestServer::start_with(|config| {
        config.rates.loopback = true;
        (config.rates.client_messages, config.rates.client_messages_burst) = (1, 20);
    })
    .await;
    for over in Over::ALL {
        let mut answering = addressed(over, &server).await;
        for _ in 0..5 {
            let mut asking = over.party(&server, "Ada").await;
            for n in 0..15 {
                asking.control.say(json!({"type": "request", "id": n, "to": answering.id, "content": "x"})).await;
            }
            for _ in 0..15 {
                let request = answering.control.expect("request").await;
                answer(&mut answering, &request, json!(1)).await;
                asking.control.expect("reply").await;
            }
        }
        for n in 0..30 {
            answering.control.say(json!({"type": "reply", "request": "1", "data": 1, "id": n})).await;
        }
        let mut codes = Vec::new();
        for _ in 0..30 {
            codes.push(answering.control.expect("error").await["code"].as_u64().expect("a code"));
        }
        assert!(codes.contains(&404) && codes.last() == Some(&429), "{codes:?}");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_reply_that_is_refused_counts_as_a_message() {
    let server = TestServer::start_with(|config| {
        config.rates.loopback = true;
        (config.rates.client_messages, config.rates.client_messages_burst) = (1, 20);
    })
    .await;
    for over in Over::ALL {
        let (mut asking, mut answering) = (over.party(&server, "Ada").await, addressed(over, &server).await);
        asking.control.say(json!({"type": "request", "id": 1, "to": answering.id, "content": "x"})).await;
        let request = answering.control.expect("request").await["request"].clone();
        let mut codes = Vec::new();
        for n in 0..30 {
            let meta = json!({"a": "x".repeat(1024)});
            answering.control.say(json!({"type": "reply", "request": request, "data": 1, "id": n, "meta": meta})).await;
            codes.push(answering.control.expect("error").await["code"].as_u64().expect("a code"));
        }
        assert!(codes[0] == 400 && codes.contains(&429), "{codes:?}");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_client_that_the_operator_disconnects_learns_first_that_its_requests_end() {
    for over in Over::ALL {
        let server = admin::server(|_| {}).await;
        let (mut asking, mut answering) = (over.party(&server, "Ada").await, addressed(over, &server).await);
        asking.control.say(json!({"type": "request", "id": 1, "to": answering.id, "content": "x"})).await;
        answering.control.expect("request").await;
        let answer = admin::post(&server, "/api/disconnect", &[], &json!({"client": asking.id})).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let error = asking.control.expect("error").await;
        assert_eq!((&error["re"], &error["code"]), (&json!(1), &json!(503)), "{error}");
        asking.expect_close(4403).await;
        answering.control.expect("cancel").await;
        server.stop().await;
    }
}

#[tokio::test]
async fn a_drain_ends_open_requests_with_an_error_before_the_close() {
    for over in Over::ALL {
        let server = TestServer::start().await;
        let (mut asking, mut answering) = (over.party(&server, "Ada").await, addressed(over, &server).await);
        for n in 0..3 {
            asking.control.say(json!({"type": "request", "id": n, "to": answering.id, "content": "x"})).await;
            answering.control.expect("request").await;
        }
        server.drain();
        let mut ended = Vec::new();
        for _ in 0..3 {
            let error = asking.control.expect("error").await;
            // Its responder may be first to go.
            assert!(error["code"] == 503 || error["code"] == 502, "{error}");
            ended.push(error["re"].as_u64().expect("an id"));
        }
        ended.sort_unstable();
        assert_eq!(ended, [0, 1, 2]);
        asking.expect_close(1001).await;
        soon("the end", server.stop()).await;
    }
}

#[tokio::test]
async fn metrics_count_requests_replies_and_failures() {
    let server = TestServer::start().await;
    let (mut asking, mut answering) =
        (Over::Native.party(&server, "Ada").await, responder(Over::WebSocket, &server, "sum").await);
    for n in 0..3 {
        asking.control.say(ask(n, n)).await;
    }
    for _ in 0..2 {
        let request = answering.control.expect("request").await;
        answer(&mut answering, &request, json!(1)).await;
        asking.control.expect("reply").await;
    }
    asking.control.say(json!({"type": "request", "id": 9, "topic": "none", "data": 1})).await;
    asking.control.expect_error(404).await;
    let stats = server.status.stats(0);
    assert_eq!((stats.requests.open, stats.requests.responders), (1, 1));
    assert_eq!((stats.totals.requests, stats.totals.request_replies), (3, 2));
    let failures: Vec<_> = stats.totals.request_failures.iter().filter(|(_, count)| *count > 0).collect();
    assert_eq!(failures, [("404".to_owned(), 1)]);
    let text = stats.prometheus();
    for line in ["qws_open_requests 1", "qws_requests_total 3", r#"qws_request_failures_total{code="404"} 1"#] {
        assert!(text.lines().any(|written| written == line), "{line} is missing in\n{text}");
    }
    server.stop().await;
}
