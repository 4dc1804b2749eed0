//! Requests of the client library: asking, answering, giving up, and what goes wrong, on every pair of carriers.

#![allow(clippy::expect_used, clippy::panic)] // A test fails by panicking.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::common::library::{builder, client, publish};
use crate::common::tokens::{asking, token};
use crate::common::{TestServer, soon, until};
use futures_util::future::join_all;
use quic_websocket::message::{Json, Payload};
use quic_websocket::{Asked, Carrier, Client, ClientBuilder, ClientError, Ended, Refusal, Target};
use serde_json::json;
use tokio::sync::Semaphore;

/// Settings of a client that uses this carrier.
fn over(server: &TestServer, carrier: Carrier) -> ClientBuilder {
    let url = format!("wss://{}/ws", server.http.expect("it serves HTTP"));
    builder(server).carriers([carrier]).websocket_url(&url).expect("an address")
}

async fn connected(server: &TestServer, carrier: Carrier, name: &str) -> Client {
    over(server, carrier).name(name).expect("a name").connect().await.expect("it connects").0
}

const CARRIERS: [Carrier; 2] = [Carrier::Quic, Carrier::WebSocket];

async fn sum(asked: Asked) -> Result<Payload, Refusal> {
    let numbers: Vec<u64> = asked.data()?.ok_or_else(|| Refusal::new(400, "send numbers"))?;
    Ok(Payload::from(json!(numbers.iter().sum::<u64>())).with_meta(&json!({"by": "sum"})))
}

fn code(error: &ClientError) -> u16 {
    match error {
        ClientError::Server(error) => error.code,
        ClientError::Failed(failed) => failed.failure.code,
        other => panic!("expected an error with a code, got {other:?}"),
    }
}

#[tokio::test]
async fn a_request_is_answered_with_its_sender_and_value_on_every_pair_of_carriers() {
    let server = TestServer::start().await;
    for (from, to) in CARRIERS.into_iter().flat_map(|from| CARRIERS.map(|to| (from, to))) {
        let (ada, bob) = (connected(&server, from, "Ada").await, connected(&server, to, "Bob").await);
        let service = bob.serve("rpc.sum", sum).await.expect("it answers");
        let answer = ada.request("rpc.sum", json!([1, 2, 9007199254740990_u64])).meta(&json!({"n": 1})).await;
        let answer = answer.expect("an answer");
        assert_eq!(answer.payload.data.as_ref().map(Json::as_str), Some("9007199254740993"), "{from:?} {to:?}");
        assert_eq!(answer.payload.meta.as_ref().map(Json::as_str), Some(r#"{"by":"sum"}"#));
        let by = answer.from.expect("a sender");
        assert_eq!((Some(by.id), by.name.as_deref()), (bob.id(), None), "a name that is not proved is not shown");
        let failed = ada.request("rpc.sum", "no numbers").await.expect_err("it fails");
        assert_eq!((code(&failed), failed.to_string()), (400, "the request failed: send numbers (400)".to_owned()));
        assert_eq!(code(&ada.request("rpc.sum", json!({})).await.expect_err("not a list")), 500);
        service.stop().await.expect("it ends");
        assert_eq!(code(&ada.request("rpc.sum", json!([])).await.expect_err("nobody answers")), 404);
    }
    server.stop().await;
}

#[tokio::test]
async fn slow_answers_hold_up_nothing_and_come_in_any_order() {
    let server = TestServer::start().await;
    let (ada, bob) = (client(&server, "Ada").await, client(&server, "Bob").await);
    let gate = Arc::new(Semaphore::new(0));
    let closed = Arc::clone(&gate);
    let _service = bob
        .serve("slow", move |asked: Asked| {
            let gate = Arc::clone(&closed);
            async move {
                let n: u64 = asked.data()?.unwrap_or_default();
                if n.is_multiple_of(2) {
                    gate.acquire().await.expect("it is open").forget();
                }
                Ok(json!(n))
            }
        })
        .concurrency(1000)
        .await
        .expect("it answers");
    // More than the client may have without a sign that the server has read them.
    let slow = join_all((0..200).map(|n| ada.request("slow", json!(2 * n)).timeout(Duration::from_secs(60)).send()));
    let quick = async {
        for n in 0..20_u64 {
            publish(&ada, "t", n.to_string()).await;
            let answer = ada.request("slow", json!(2 * n + 1)).await.expect("an answer");
            assert_eq!(answer.data::<u64>().expect("a number"), Some(2 * n + 1));
        }
        gate.add_permits(200);
    };
    let (answers, ()) = soon("all answers", async { tokio::join!(slow, quick) }).await;
    for (n, answer) in (0_u64..).zip(answers) {
        assert_eq!(answer.expect("an answer").data::<u64>().expect("a number"), Some(2 * n));
    }
    server.stop().await;
}

/// Counts the handlers that were dropped before they were done.
struct Dropped(Arc<AtomicUsize>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn a_request_that_is_given_up_or_too_late_stops_its_handler() {
    let server = TestServer::start().await;
    for (from, to) in [(Carrier::Quic, Carrier::WebSocket), (Carrier::WebSocket, Carrier::Quic)] {
        let (ada, bob) = (connected(&server, from, "Ada").await, connected(&server, to, "Bob").await);
        let (told, mut begun) = tokio::sync::mpsc::unbounded_channel();
        let dropped = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&dropped);
        let _service = bob
            .serve("never", move |_| {
                let (begun, dropped) = (told.clone(), Dropped(Arc::clone(&counted)));
                async move {
                    begun.send(()).expect("the test waits");
                    std::future::pending::<()>().await;
                    drop(dropped);
                    Ok("never")
                }
            })
            .await
            .expect("it answers");
        let given_up = ada.request("never", "x").send();
        tokio::select! {
            answer = given_up => panic!("nothing answers: {answer:?}"),
            _ = begun.recv() => {}
        }
        until("the handler is dropped", || dropped.load(Ordering::SeqCst) == 1).await;
        let late = ada.request("never", "x").timeout(Duration::from_millis(100)).await.expect_err("it is too late");
        assert_eq!(code(&late), 504);
        until("the handler is dropped", || dropped.load(Ordering::SeqCst) == 2).await;
        let open = ada.request("never", "x").send();
        let leave = async {
            // Of the one before, and of this one.
            begun.recv().await.expect("it begins");
            begun.recv().await.expect("it begins");
            bob.close(quic_websocket::message::CloseCode::NORMAL, "bye").await.expect("it closes");
        };
        let (left, ()) = soon("the end", async { tokio::join!(open, leave) }).await;
        assert_eq!(code(&left.expect_err("it left")), 502);
    }
    server.stop().await;
}

#[tokio::test]
async fn a_service_answers_so_many_at_once_and_says_when_it_has_ended() {
    let server = TestServer::start().await;
    let (ada, bob) = (client(&server, "Ada").await, client(&server, "Bob").await);
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (at_once, highest) = (Arc::clone(&now), Arc::clone(&most));
    let service = bob
        .serve("few", move |_| {
            let (now, most) = (Arc::clone(&at_once), Arc::clone(&highest));
            async move {
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(5)).await;
                now.fetch_sub(1, Ordering::SeqCst);
                Ok("done")
            }
        })
        .concurrency(3)
        .share()
        .await
        .expect("it answers");
    let answers = join_all((0..30).map(|_| ada.request("few", "x").send())).await;
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    assert_eq!(most.load(Ordering::SeqCst), 3);
    let taken = bob.serve("few", |_| async { Ok("other") }).await.map(drop).expect_err("it is taken");
    assert!(matches!(taken, ClientError::AlreadySubscribed { .. }), "{taken}");
    assert!(ada.request("few", "x").await.is_ok(), "the first one goes on");
    bob.close(quic_websocket::message::CloseCode::NORMAL, "bye").await.expect("it closes");
    let ended = soon("the end", service.ended()).await;
    assert!(matches!(ended, Ended::Closed(_)), "{ended}");
    server.stop().await;
}

#[tokio::test]
async fn a_client_and_a_user_answer_for_themselves_and_a_panic_is_a_failure() {
    let server = TestServer::start_with(|config| config.auth = asking("")).await;
    let of = |user: &str| token(json!({"sub": user, "direct": true}));
    for carrier in CARRIERS {
        let asking = over(&server, carrier).token(&of("ada")).expect("a token").connect().await.expect("it connects").0;
        let answering = over(&server, carrier).token(&of("bob")).expect("a token").on_request(|asked| async move {
            assert!(asked.text() != Some("panic"), "as it was asked to");
            Ok(format!(
                "{}: {}",
                asked.from.map(|from| from.user.unwrap_or_default()).unwrap_or_default(),
                asked.timestamp > 0
            ))
        });
        let (bob, _events) = answering.connect().await.expect("it connects");
        let targets = [Target::Client(bob.id().expect("it is connected")), Target::User("bob".into())];
        for target in targets {
            let answer = asking.request(target.clone(), "hello").await.expect("an answer");
            assert_eq!(answer.text(), Some("ada: true"));
            assert_eq!(answer.from.and_then(|from| from.user).as_deref(), Some("bob"));
            assert_eq!(code(&asking.request(target, "panic").await.expect_err("it panics")), 500);
        }
        assert_eq!(code(&asking.request(Target::User("eve".into()), "x").await.expect_err("unknown")), 404);
        let itself = asking.request(Target::Client(asking.id().expect("it is connected")), "x").await;
        assert_eq!(code(&itself.expect_err("it answers nothing")), 404);
    }
    server.stop().await;
}

#[tokio::test]
async fn an_answer_that_is_too_large_fails_and_invalid_requests_are_not_sent() {
    let server = TestServer::start_with(|config| config.limits.max_message_bytes = 10_000).await;
    let (ada, bob) = (client(&server, "Ada").await, client(&server, "Bob").await);
    let _service = bob.serve("large", |_| async { Ok("x".repeat(20_000)) }).await.expect("it answers");
    let failed = ada.request("large", "x").await.expect_err("too large");
    assert!(matches!(&failed, ClientError::Failed(failed) if failed.failure.message.contains("bytes")), "{failed}");
    for wrong in [ada.request("a.*", "x"), ada.request("a", "x").timeout(Duration::from_millis(1))] {
        let wrong = wrong.await.expect_err("it is invalid");
        assert!(matches!(&wrong, ClientError::Invalid(_) | ClientError::Server(_)), "{wrong}");
    }
    server.stop().await;
}
