//! `request` and `reply`: one client asks, another one answers, in any order, and no one waits for others.

#![allow(clippy::expect_used, clippy::panic)] // A test fails by panicking.

use crate::common::over::Over;
use crate::common::requests::{addressed, answer, ask, offer, responder};
use crate::common::tokens::{asking, bearer, token};
use crate::common::topics::{Subscriber, rule};
use crate::common::{On, TestServer, until};
use serde_json::json;

#[tokio::test]
async fn a_request_to_a_topic_and_its_reply_carry_everything_on_every_pair_of_carriers() {
    let server = TestServer::start().await;
    for (from, to) in Over::pairs() {
        let (mut asking, mut answering) = (from.party(&server, "Ada").await, responder(to, &server, "sum").await);
        let request = json!({
            "type": "request", "id": "q", "topic": "sum", "content": "Grüße", "data": [1, 2.50, null], "meta": {"a": 1},
            "timeout_ms": 60_000,
        });
        asking.control.say(request.clone()).await;
        let got = answering.control.expect("request").await;
        for field in ["topic", "content", "data", "meta", "timeout_ms"] {
            assert_eq!(got[field], request[field], "{field} of {got}");
        }
        assert_eq!((&got["from"], got.get("name"), got.get("id")), (&json!(asking.id), None, None), "{got}");
        assert!(got["timestamp"].is_u64() && got["request"].as_str().is_some_and(|id| !id.is_empty()), "{got}");
        answering
            .control
            .say(json!({"type": "reply", "id": 7, "request": got["request"], "data": 3, "meta": {"b": 2}}))
            .await;
        let reply = asking.control.expect("reply").await;
        assert_eq!((&reply["re"], &reply["data"], &reply["meta"]), (&json!("q"), &json!(3), &json!({"b": 2})));
        assert_eq!((&reply["from"], reply.get("name")), (&json!(answering.id), None), "{reply}");
        assert!(reply["timestamp"].is_u64() && reply.get("request").is_none(), "{reply}");
        assert_eq!(answering.control.expect("ok").await["re"], 7);
        answering.vanish();
        until("it has left", || server.status.stats(0).requests.responders == 0).await;
    }
    let totals = server.status.stats(0).totals;
    assert_eq!((totals.requests, totals.request_replies), (9, 9));
    server.stop().await;
}

#[tokio::test]
async fn a_meta_that_is_too_long_is_refused_and_the_request_stays_open() {
    let server = TestServer::start().await;
    for over in Over::ALL {
        let (mut asking, mut answering) = (over.party(&server, "Ada").await, addressed(over, &server).await);
        let long = json!({"a": "x".repeat(1024)});
        let request = json!({"type": "request", "id": 1, "to": answering.id, "data": 1});
        let mut refused = request.clone();
        refused["meta"] = long.clone();
        asking.control.say(refused).await;
        assert!(asking.control.expect_error(400).await.starts_with("meta: "));
        asking.control.say(request).await;
        let request = answering.control.expect("request").await;
        answering.control.say(json!({"type": "reply", "request": request["request"], "data": 1, "meta": long})).await;
        assert!(answering.control.expect_error(400).await.starts_with("meta: "));
        answer(&mut answering, &request, json!(2)).await;
        assert_eq!(asking.control.expect("reply").await["data"], 2);
    }
    server.stop().await;
}

#[tokio::test]
async fn attachments_go_both_ways() {
    let server = TestServer::start().await;
    for (from, to) in Over::pairs() {
        let (mut asking, mut answering) = (from.party(&server, "Ada").await, addressed(to, &server).await);
        let bytes: Vec<u8> = (0..200_000).map(|n| u8::try_from(n % 251).expect("below 251")).collect();
        asking.control.say_with(json!({"type": "request", "id": 1, "to": answering.id}), &bytes).await;
        let (got, attachment) = answering.control.hear_with().await;
        assert_eq!((&got["type"], got.get("topic")), (&json!("request"), None));
        assert!(attachment == bytes, "the request's attachment came changed");
        answering.control.say_with(json!({"type": "reply", "request": got["request"]}), &bytes[1..]).await;
        let (reply, attachment) = asking.control.hear_with().await;
        assert_eq!((&reply["type"], &reply["re"]), (&json!("reply"), &json!(1)));
        assert!(attachment == bytes[1..], "the reply's attachment came changed");
    }
    server.stop().await;
}

#[tokio::test]
async fn those_that_answer_a_topic_do_so_in_turn() {
    let server = TestServer::start().await;
    let mut responders = Vec::new();
    for over in Over::ALL.into_iter().chain(Over::ALL) {
        responders.push(responder(over, &server, "sum").await);
    }
    // Subscribers without `requests`, by name or by pattern, get none.
    let mut others = Vec::new();
    for topic in ["sum", ">"] {
        let mut other = Over::Native.party(&server, "other").await;
        other.control.say(json!({"type": "subscribe", "id": 1, "topic": topic, "lane": "control"})).await;
        other.control.expect("subscribed").await;
        others.push(other);
    }
    let mut asking = Over::Native.party(&server, "Ada").await;
    for n in 0..12 {
        asking.control.say(ask(n, n)).await;
    }
    for round in 0..2 {
        for (place, responder) in responders.iter_mut().enumerate() {
            let request = responder.control.expect("request").await;
            assert_eq!(request["data"], 6 * round + place, "in turn, and across workers");
            answer(responder, &request, json!(0)).await;
        }
    }
    for _ in 0..12 {
        asking.control.expect("reply").await;
    }
    for other in &mut others {
        other.control.lives("other").await;
    }
    server.stop().await;
}

#[tokio::test]
async fn a_request_to_a_user_goes_to_one_of_its_clients_that_answer() {
    let auth = asking("");
    let server = TestServer::start_with(|config| config.auth = auth).await;
    for over in Over::ALL {
        let mut asking = bearer(over, &server, json!({"sub": "ada", "name": "Ada L", "direct": true})).await;
        let _silent = bearer(over, &server, json!({"sub": "bob"})).await;
        asking.control.say(json!({"type": "request", "id": 0, "user": "bob", "data": 1})).await;
        assert!(asking.control.expect_error(404).await.starts_with("user: "));
        let mut answering = Vec::new();
        for _ in 0..2 {
            let mut client = over.newcomer(&server).await;
            let token = token(json!({"sub": "bob"}));
            let handshake = json!({"type": "handshake", "protocol_version": "1.0", "token": token, "requests": true});
            client.handshake_with(handshake).await;
            answering.push(client);
        }
        for n in 1..5 {
            asking.control.say(json!({"type": "request", "id": n, "user": "bob", "data": n})).await;
        }
        for n in 1..5 {
            let client = &mut answering[(n - 1) % 2];
            let request = client.control.expect("request").await;
            let from = (&request["user"], &request["name"]);
            assert_eq!((&request["data"], from), (&json!(n), (&json!("ada"), &json!("Ada L"))), "{request}");
            answer(client, &request, json!(null)).await;
            let reply = asking.control.expect("reply").await;
            assert_eq!((&reply["re"], &reply["user"], &reply["data"]), (&json!(n), &json!("bob"), &json!(null)));
        }
        for client in answering {
            client.vanish();
        }
        until("they have left", || server.status.stats(0).requests.responders == 0).await;
    }
    server.stop().await;
}

#[tokio::test]
async fn many_in_flight_are_answered_in_any_order_while_the_lane_goes_on() {
    let server = TestServer::start().await;
    for (from, to) in Over::pairs() {
        let (mut asking, mut answering) = (from.party(&server, "Ada").await, addressed(to, &server).await);
        let requests: Vec<_> = (0..200)
            .map(|n| json!({"type": "request", "id": n, "to": answering.id, "data": n}).to_string().into_bytes())
            .collect();
        asking.control.bodies(&requests).await;
        let mut got = Vec::new();
        for n in 0..200 {
            let request = answering.control.expect("request").await;
            assert_eq!(request["data"], n, "they come in the order in which they were sent");
            got.push(request);
        }
        // None is answered yet, and nothing waits for them.
        asking.control.lives("Ada").await;
        let order: Vec<usize> = (0..200).map(|n| n * 77 % 200).collect();
        let replies: Vec<_> = order
            .iter()
            .map(|&n| {
                let id = &got[n]["request"];
                json!({"type": "reply", "request": id, "data": n}).to_string().into_bytes()
            })
            .collect();
        answering.control.bodies(&replies).await;
        for n in order {
            let reply = asking.control.expect("reply").await;
            assert_eq!((&reply["re"], &reply["data"]), (&json!(n), &json!(n)));
        }
        answering.vanish();
    }
    server.stop().await;
}

#[tokio::test]
async fn a_slow_responder_holds_up_no_one() {
    let server = TestServer::start().await;
    for over in Over::ALL {
        let (mut asking, mut slow) = (over.party(&server, "Ada").await, addressed(over, &server).await);
        let mut fast = addressed(over, &server).await;
        asking.control.say(json!({"type": "request", "id": "slow", "to": slow.id, "content": "x"})).await;
        let held = slow.control.expect("request").await;
        for n in 0..100 {
            asking.control.say(json!({"type": "request", "id": n, "to": fast.id, "content": "x"})).await;
            let request = fast.control.expect("request").await;
            answer(&mut fast, &request, json!(n)).await;
            assert_eq!(asking.control.expect("reply").await["re"], n);
            asking.control.say(json!({"type": "text", "id": "echo", "content": "x"})).await;
            assert_eq!(asking.control.expect("text").await["re"], "echo");
        }
        answer(&mut slow, &held, json!("at last")).await;
        assert_eq!(asking.control.expect("reply").await["re"], "slow");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_reply_comes_on_the_lane_of_its_request_which_stays_open_for_it() {
    let server = TestServer::start().await;
    for over in Over::QUIC {
        let (mut asking, mut answering) = (over.party(&server, "Ada").await, responder(over, &server, "sum").await);
        let mut lanes = Vec::new();
        for n in 0..3 {
            let mut lane = asking.lane().await;
            lane.say(ask(n, n)).await;
            // Finished before the reply.
            lane.send.finish().expect("the lane is open");
            lanes.push((lane, answering.control.expect("request").await));
        }
        // The same id may be in use by one request of the client only, whatever its lane.
        asking.control.say(ask(1, 0)).await;
        asking.control.expect_error(409).await;
        for (n, (mut lane, request)) in lanes.into_iter().enumerate().rev() {
            answer(&mut answering, &request, json!(n)).await;
            let reply = lane.expect("reply").await;
            assert_eq!((&reply["re"], &reply["data"]), (&json!(n), &json!(n)));
            assert!(lane.try_hear_body().await.is_err(), "the lane ends after its last reply");
        }
        asking.control.lives("Ada").await;
        answering.vanish();
        until("it has left", || server.status.stats(0).requests.responders == 0).await;
    }
    server.stop().await;
}

#[tokio::test]
async fn requests_come_on_the_topic_lane_of_the_subscription() {
    let server = TestServer::start().await;
    for over in Over::ALL {
        let mut answering = Subscriber::over(over, &server, "responder").await;
        answering.subscribe(json!({"topic": "sum", "requests": true})).await;
        let mut asking = over.party(&server, "Ada").await;
        asking.control.say(ask(1, 5)).await;
        let (lane, request) = answering.any().await;
        assert_eq!((&request["type"], &request["data"]), (&json!("request"), &json!(5)));
        assert_eq!(lane > 0, over != Over::WebSocket, "lane {lane} on {over:?}");
        // The cancel comes behind its request, so on the same lane.
        asking.control.say(json!({"type": "cancel", "re": 1})).await;
        assert!(asking.control.expect_error(499).await.starts_with("request: "));
        let (told, cancel) = answering.any().await;
        assert_eq!((told, &cancel["type"], &cancel["request"]), (lane, &json!("cancel"), &request["request"]));
        answering.client.vanish();
        until("it has left", || server.status.stats(0).requests.responders == 0).await;
    }
    server.stop().await;
}

#[tokio::test]
async fn a_reply_may_say_that_the_request_failed() {
    let server = TestServer::start().await;
    for (from, to) in Over::pairs() {
        let (mut asking, mut answering) = (from.party(&server, "Ada").await, addressed(to, &server).await);
        for (code, expected) in [(None, 500), (Some(422), 422)] {
            asking.control.say(json!({"type": "request", "id": 1, "to": answering.id, "content": "x"})).await;
            let request = answering.control.expect("request").await;
            let mut failed = json!({"type": "reply", "request": request["request"], "error": "no such sum"});
            if let Some(code) = code {
                failed["code"] = json!(code);
                failed["data"] = json!({"hint": "add"});
            }
            answering.control.say(failed).await;
            let reply = asking.control.expect("reply").await;
            assert_eq!(
                (&reply["error"], &reply["code"], &reply["re"]),
                (&json!("no such sum"), &json!(expected), &json!(1))
            );
            assert_eq!(reply["data"].is_null(), code.is_none(), "{reply}");
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn a_request_needs_the_right_to_publish_or_to_send_directly() {
    let auth = asking("");
    let server = TestServer::start_with(|config| config.auth = auth).await;
    for over in Over::ALL {
        let grants = json!({"sub": "bob", "subscribe": "sum"});
        let mut answering = bearer(over, &server, grants).await;
        offer(&mut answering, "sum").await;
        answering.control.say(json!({"type": "subscribe", "id": 1, "topic": "other", "requests": true})).await;
        answering.control.expect_error(403).await;
        for (grants, may) in [
            (json!({"sub": "ada"}), [403, 403, 403]),
            (json!({"sub": "ada", "publish": "sum"}), [200, 403, 403]),
            (json!({"sub": "ada", "direct": true}), [403, 404, 404]),
        ] {
            let mut client = bearer(over, &server, grants).await;
            for (to, code) in
                [json!({"topic": "sum"}), json!({"to": answering.id}), json!({"user": "bob"})].iter().zip(may)
            {
                let mut request = to.clone();
                request["type"] = json!("request");
                request["id"] = json!(1);
                request["data"] = json!(1);
                client.control.say(request).await;
                if code == 200 {
                    let request = answering.control.expect("request").await;
                    answer(&mut answering, &request, json!(1)).await;
                    client.control.expect("reply").await;
                } else {
                    client.control.expect_error(code).await;
                }
            }
        }
        answering.vanish();
        until("it has left", || server.status.stats(0).requests.responders == 0).await;
    }
    server.stop().await;
}

#[tokio::test]
async fn a_datagram_cannot_ask_but_can_answer() {
    let server = TestServer::start().await;
    for over in Over::QUIC {
        let mut asking = over.party(&server, "Ada").await;
        let mut answering = addressed(over, &server).await;
        let request = json!({"type": "request", "id": 1, "to": answering.id, "content": "x"});
        let refused = asking.ask(On::Datagram, request.to_string().as_bytes()).await;
        assert_eq!((&refused["type"], &refused["code"]), (&json!("error"), &json!(400)), "{refused}");
        asking.control.say(request).await;
        let request = answering.control.expect("request").await;
        let reply = json!({"type": "reply", "request": request["request"], "data": 1, "id": "r"});
        let ok = answering.ask(On::Datagram, reply.to_string().as_bytes()).await;
        assert_eq!(ok["type"], "ok", "{ok}");
        assert_eq!(asking.control.expect("reply").await["re"], 1);
    }
    server.stop().await;
}

#[tokio::test]
async fn requests_are_kept_nowhere() {
    let server = TestServer::start_with(|config| {
        config.topics = vec![rule("pattern = \"sum\"\nhistory_messages = 10")];
    })
    .await;
    let (mut asking, mut answering) =
        (Over::Native.party(&server, "Ada").await, responder(Over::Native, &server, "sum").await);
    asking.control.say(ask(1, 1)).await;
    let request = answering.control.expect("request").await;
    answer(&mut answering, &request, json!(1)).await;
    asking.control.expect("reply").await;
    asking.control.say(json!({"type": "history", "id": 2, "topic": "sum"})).await;
    assert_eq!(asking.control.expect("history").await["messages"], json!([]));
    server.stop().await;
}
