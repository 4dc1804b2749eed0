//! Tokens that are revoked: refused at once, on open connections too, and after a restart.

#![allow(clippy::expect_used, clippy::panic)] // A test fails by panicking.

use crate::common::admin::{self, get, post};
use crate::common::over::{Over, Party};
use crate::common::tokens::{asking, bearer, handshake, now, refused, token};
use crate::common::{TestServer, now_ms};
use serde_json::{Value, json};

async fn server(more: &str) -> TestServer {
    let auth = asking(more);
    admin::server(|config| config.auth = auth).await
}

/// Posts a change that has to be made.
async fn change(server: &TestServer, path: &str, body: Value) -> Value {
    let answer = post(server, path, &[], &body).await;
    assert_eq!(answer.status, 200, "{body}: {answer:?}");
    answer.json()
}

async fn revoke(server: &TestServer, body: Value) {
    assert_eq!(change(server, "/api/revoke", body).await["kept"], false);
}

/// Waits for a client's end by revocation.
async fn expect_revoked(client: &mut Party) {
    let close = client.expect_close(4401).await;
    assert!(close["reason"].as_str().is_some_and(|reason| reason.contains("the token was revoked")), "{close}");
}

/// Checks that a token is refused because it is revoked.
async fn expect_refused(over: Over, server: &TestServer, claims: Value) {
    let (reason, code) = refused(over, server, handshake(&token(claims))).await;
    assert!(reason.contains("it was revoked"), "{reason}");
    assert_eq!(code, 4401);
}

#[tokio::test]
async fn a_revoked_token_ends_its_connections_at_once_and_is_refused() {
    for over in Over::ALL {
        let server = server("").await;
        let (stolen, other) = (json!({"jti": "stolen"}), json!({"jti": "other"}));
        let mut first = bearer(over, &server, stolen.clone()).await;
        let mut second = bearer(Over::Native, &server, stolen.clone()).await;
        let mut own = bearer(over, &server, other).await;
        revoke(&server, json!({"jti": "stolen"})).await;
        expect_revoked(&mut first).await;
        expect_revoked(&mut second).await;
        own.control.lives("the same user with another token").await;
        expect_refused(over, &server, stolen.clone()).await;
        own.control.say(json!({"type": "refresh", "token": token(stolen.clone())})).await;
        let why = own.control.expect_error(401).await;
        assert!(why.contains("it was revoked"), "{why}");
        own.control.lives("a client whose refresh was refused").await;
        let shown = admin::bearer(&token(json!({"jti": "stolen", "signal": true})));
        let ice_servers = async || {
            let headers = ["host: localhost", &shown];
            admin::send(admin::plain(&server).await, "GET /ice-servers", &headers, "").await.status
        };
        assert_eq!(ice_servers().await, 401);
        change(&server, "/api/unrevoke", json!({"jti": "stolen"})).await;
        assert_eq!(ice_servers().await, 200);
        bearer(over, &server, stolen).await;
        server.stop().await;
    }
}

#[tokio::test]
async fn all_tokens_of_a_user_are_revoked_and_those_issued_later_are_accepted() {
    for over in Over::ALL {
        let server = server("").await;
        let issued = |seconds: u64| json!({"iat": now() - 1000 + seconds});
        let mut old = bearer(over, &server, issued(0)).await;
        let mut without_time = bearer(over, &server, json!({})).await;
        let mut new = bearer(over, &server, issued(500)).await;
        let mut bob = bearer(over, &server, json!({"sub": "bob"})).await;
        let before = (now() - 700) * 1000;
        revoke(&server, json!({"user": "ada", "before": before})).await;
        expect_revoked(&mut old).await;
        expect_revoked(&mut without_time).await;
        new.control.lives("a newer token").await;
        expect_refused(over, &server, issued(0)).await;
        expect_refused(over, &server, json!({})).await;
        bearer(over, &server, issued(400)).await;
        // Without a time, that of the request.
        revoke(&server, json!({"user": "ada"})).await;
        expect_revoked(&mut new).await;
        bearer(over, &server, json!({"iat": now() + 1000})).await;
        bob.control.lives("another user").await;
        server.stop().await;
    }
}

#[tokio::test]
async fn all_tokens_issued_before_a_time_are_revoked() {
    for over in Over::ALL {
        let server = server("[anonymous]\nsubscribe = 'news'").await;
        let mut guest = over.party(&server, "guest").await;
        let mut old = bearer(over, &server, json!({"iat": now() - 1000})).await;
        let mut new = bearer(over, &server, json!({"sub": "bob", "iat": now() - 10})).await;
        let before = (now() - 100) * 1000;
        revoke(&server, json!({"before": before})).await;
        expect_revoked(&mut old).await;
        new.control.lives("a newer token").await;
        guest.control.lives("a client without a token").await;
        expect_refused(over, &server, json!({})).await;
        assert_eq!(get(&server, "/api/revocations", &[]).await.json()["before"], before);
        change(&server, "/api/unrevoke", json!({"before": before})).await;
        bearer(over, &server, json!({})).await;
        server.stop().await;
    }
}

#[tokio::test]
async fn a_refresh_with_a_good_token_outlives_the_revocation_of_the_old_one() {
    for over in Over::ALL {
        let server = server("").await;
        let mut client = bearer(over, &server, json!({"jti": "one"})).await;
        client.control.say(json!({"type": "refresh", "token": token(json!({"jti": "two"}))})).await;
        client.control.expect("refreshed").await;
        revoke(&server, json!({"jti": "one"})).await;
        client.control.lives("it has another token").await;
        revoke(&server, json!({"jti": "two"})).await;
        expect_revoked(&mut client).await;
        server.stop().await;
    }
}

#[tokio::test]
async fn revocations_in_a_file_outlive_the_server() {
    let folder = tempfile::tempdir().expect("a folder");
    let more = format!("revocations_file = '{}'", folder.path().join("revoked.json").display());
    let first = server(&more).await;
    assert_eq!(change(&first, "/api/revoke", json!({"jti": "a"})).await, json!({"kept": true}));
    change(&first, "/api/revoke", json!({"jti": "b"})).await;
    change(&first, "/api/revoke", json!({"user": "bob", "before": 5000, "until": now_ms() + 600_000})).await;
    change(&first, "/api/unrevoke", json!({"jti": "b"})).await;
    let list = get(&first, "/api/revocations", &[]).await.json();
    assert_eq!((&list["total"], &list["kept"]), (&json!(2), &json!(true)), "{list}");
    first.stop().await;
    let second = server(&more).await;
    assert_eq!(get(&second, "/api/revocations", &[]).await.json(), list);
    expect_refused(Over::Native, &second, json!({"jti": "a"})).await;
    expect_refused(Over::Native, &second, json!({"sub": "bob", "iat": 4})).await;
    bearer(Over::Native, &second, json!({"jti": "b"})).await;
    bearer(Over::Native, &second, json!({"sub": "bob", "iat": 5})).await;
    second.stop().await;
}

#[tokio::test]
async fn the_list_has_pages_and_every_wrong_request_says_what_is_expected() {
    let server = server("max_revocations = 5").await;
    for id in ["a", "b", "c"] {
        revoke(&server, json!({"jti": id})).await;
    }
    let until = now_ms() + 600_000;
    revoke(&server, json!({"user": "a:b c", "before": 7, "until": until})).await;
    let page = async |query: &str| {
        let answer = get(&server, &format!("/api/revocations{query}"), &[]).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    };
    let first = page("?limit=3").await;
    assert_eq!(first["revocations"], json!([{"jti": "a"}, {"jti": "b"}, {"jti": "c"}]));
    assert_eq!((&first["total"], &first["next"]), (&json!(4), &json!("jti:c")));
    let second = page("?limit=3&after=jti:c").await;
    assert_eq!(second["revocations"], json!([{"user": "a:b c", "before": 7, "until": until}]));
    assert_eq!(second.get("next"), None);
    assert_eq!(page("?after=user:a%3Ab%20c").await["revocations"], json!([]));
    revoke(&server, json!({"jti": "d"})).await;
    let full = post(&server, "/api/revoke", &[], &json!({"jti": "e"})).await.refusal(503);
    assert!(full.contains("auth.max_revocations"), "{full}");
    revoke(&server, json!({"jti": "a"})).await;
    for (path, body, status, says) in [
        ("/api/revoke", json!({}), 400, "is expected"),
        ("/api/revoke", json!({"jti": ""}), 400, "jti: 1 to 128 bytes"),
        ("/api/revoke", json!({"jti": "x".repeat(129)}), 400, "jti: 1 to 128 bytes"),
        ("/api/revoke", json!({"user": ""}), 400, "user: 1 to 128 bytes"),
        ("/api/revoke", json!({"jti": "x", "user": "x"}), 400, "only one of jti and user"),
        ("/api/revoke", json!({"jti": "x", "before": 5}), 400, "before: a single token has none"),
        ("/api/revoke", json!({"before": 5, "until": until}), 400, "until: "),
        ("/api/revoke", json!({"user": "x", "until": 5}), 400, "in the future"),
        ("/api/revoke", json!({"user": "x", "before": 1_u64 << 53}), 400, "before: a time"),
        ("/api/revoke", json!({"sub": "x"}), 400, "sub"),
        ("/api/unrevoke", json!({}), 400, "with one field"),
        ("/api/unrevoke", json!({"user": "x", "before": 5}), 400, "with one field"),
        ("/api/unrevoke", json!({"jti": "x"}), 404, "it is not revoked"),
        ("/api/unrevoke", json!({"before": 5}), 404, "it is not revoked"),
    ] {
        let why = post(&server, path, &[], &body).await.refusal(status);
        assert!(why.contains(says), "{body}: {why}");
    }
    for query in ["?limit=0", "?limit=10001", "?limit=x", "?after=x", "?after=x:y", "?page=1"] {
        let why = get(&server, &format!("/api/revocations{query}"), &[]).await.refusal(400);
        assert!(why.contains("limit: 1 to 10000"), "{why}");
    }
    server.stop().await;
    let open = admin::server(|_| {}).await;
    let why = post(&open, "/api/revoke", &[], &json!({"jti": "a"})).await.refusal(409);
    assert!(why.contains("accepts no tokens"), "{why}");
    open.stop().await;
}
