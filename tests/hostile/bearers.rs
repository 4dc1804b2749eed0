//! Tokens that are forged, stolen, used up or expensive to check, in great numbers.

use serde_json::json;
use tokio::task::JoinSet;

use super::common::tokens::{SECRET, claims, handshake, now, part, token};
use super::scene::{Scene, Target};

/// A server that requires tokens, with a neighbour that has the permissions of clients without one.
fn settings(more: &str) -> String {
    format!(
        "{more}\nauth.keys = [{{ algorithm = 'HS256', secret = '{SECRET}' }}]\n\
         auth.anonymous = {{ publish = '>', subscribe = '>' }}"
    )
}

/// Repeats handshakes with each of these tokens, from this many clients at once; all must be refused.
async fn knock(target: &Target, tokens: &[String], clients: usize, rounds: usize) {
    let mut knocking = JoinSet::new();
    for _ in 0..clients {
        let (target, tokens) = (target.clone(), tokens.to_vec());
        knocking.spawn(async move {
            for token in tokens.iter().cycle().take(rounds * tokens.len()) {
                let mut client = target.stranger().await;
                client.control.say(handshake(token)).await;
                let response = client.control.expect("handshake_response").await;
                assert_eq!(response["accepted"], false, "{token} got {response}");
                assert_eq!(client.closed().await.0, 4401);
            }
        });
    }
    while let Some(ended) = knocking.join_next().await {
        ended.expect("each is answered");
    }
}

#[tokio::test]
async fn invalid_tokens_are_refused_however_often_they_are_presented() {
    let scene = Scene::start(&settings("")).await;
    let good = token(json!({}));
    let (head, signature) = good.rsplit_once('.').expect("a token");
    let none = part(&json!({"alg": "none"}));
    let body = part(&claims(&json!({"publish": ">"})));
    let deep = format!("{}.{}.{signature}", part(&json!({"alg": "HS256"})), {
        let nested = format!("{}1{}", "[".repeat(1500), "]".repeat(1500));
        base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, nested)
    });
    let tokens = [
        token(json!({"exp": now() - 3600})),
        token(json!({"exp": 0})),
        token(json!({"nbf": now() + 3600})),
        token(json!({"sub": null})),
        format!("{head}.{}", "A".repeat(43)),
        format!("{none}.{body}."),
        format!("{}.{body}.{signature}", head.split_once('.').expect("a token").0),
        deep,
        ".".repeat(8192),
        "A".repeat(8192),
    ];
    knock(&scene.target, &tokens, 4, 10).await;
    scene.end().await;
}

#[tokio::test]
async fn a_single_use_token_admits_one_of_many_clients() {
    let scene = Scene::start(&settings("auth.single_use = true")).await;
    let stolen = token(json!({"jti": "once"}));
    let mut racing = JoinSet::new();
    for _ in 0..40 {
        let (target, stolen) = (scene.target.clone(), stolen.clone());
        racing.spawn(async move {
            let mut client = target.stranger().await;
            client.control.say(handshake(&stolen)).await;
            client.control.expect("handshake_response").await["accepted"] == true
        });
    }
    let mut admitted = 0;
    while let Some(was) = racing.join_next().await {
        admitted += usize::from(was.expect("an answer"));
    }
    assert_eq!(admitted, 1);
    scene.end().await;
}

#[tokio::test]
async fn a_flood_of_refreshes_with_bad_tokens_changes_nothing_and_affects_no_other_client() {
    let scene = Scene::start(&settings("")).await;
    let mut client = scene.target.stranger().await;
    client.control.say(handshake(&token(json!({"subscribe": "t"})))).await;
    client.control.expect("handshake_response").await;
    let bad = [token(json!({"exp": 0})), token(json!({"sub": "eve"})), "rubbish".to_owned()];
    for n in 0..600 {
        client.control.say(json!({"type": "refresh", "id": n, "token": bad[n % bad.len()]})).await;
    }
    for n in 0..600 {
        let error = client.control.expect("error").await;
        let code = if n % bad.len() == 1 { 403 } else { 401 };
        assert_eq!((&error["re"], &error["code"]), (&json!(n), &json!(code)));
    }
    client.control.say(json!({"type": "subscribe", "topic": "t", "lane": "control"})).await;
    client.control.expect("subscribed").await;
    client.control.say(json!({"type": "close"})).await;
    client.closed().await;
    scene.end().await;
}

#[tokio::test]
async fn a_client_without_permissions_reaches_no_other_whatever_it_sends() {
    let scene = Scene::start(&settings("")).await;
    let mut eve = scene.target.stranger().await;
    eve.control.say(handshake(&token(json!({"sub": "eve"})))).await;
    let to = eve.control.expect("handshake_response").await["client_id"].clone();
    let sent = [
        json!({"type": "publish", "topic": "neighbour", "content": "x"}),
        json!({"type": "broadcast", "content": "x"}),
        json!({"type": "direct", "to": to, "content": "x"}),
        json!({"type": "signal", "to": to, "data": {}}),
        json!({"type": "subscribe", "topic": ">"}),
        json!({"type": "history", "topic": "neighbour"}),
        json!({"type": "presence", "topic": "neighbour"}),
        json!({"type": "list_clients"}),
    ];
    for n in 0..400 {
        eve.control.say(sent[n % sent.len()].clone()).await;
    }
    for _ in 0..400 {
        eve.control.expect_error(403).await;
    }
    eve.control.say(json!({"type": "close"})).await;
    eve.closed().await;
    scene.end().await;
}
