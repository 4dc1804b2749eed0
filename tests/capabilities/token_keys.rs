//! Keys that may sign a token: its issuer's own, and one of few.

#![allow(clippy::expect_used, clippy::panic)] // A test fails by panicking.

use crate::common::TestServer;
use crate::common::over::Over;
use crate::common::tokens::{auth, claims, handshake, refused, signed};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

#[tokio::test]
async fn the_key_of_one_issuer_signs_for_no_other() {
    let secret = |n: u8| format!("the secret of issuer {n}, of more than 32 bytes");
    let key = |n| format!("[[keys]]\nalgorithm = 'HS256'\nissuer = 'issuer {n}'\nsecret = '{}'\n", secret(n));
    let settings = auth(&format!("{}{}", key(1), key(2)));
    let server = TestServer::start_with(|config| config.auth = settings).await;
    let by = |n, claimed: Value| {
        let key = EncodingKey::from_secret(secret(n).as_bytes());
        handshake(&signed(&Header::new(Algorithm::HS256), &key, &claims(&json!({"iss": claimed}))))
    };
    for n in [1, 2] {
        Over::Native.newcomer(&server).await.handshake_with(by(n, json!(format!("issuer {n}")))).await;
        for wrong in [json!(format!("issuer {}", 3 - n)), json!("another"), Value::Null, json!([format!("issuer {n}")])]
        {
            let (reason, code) = refused(Over::Native, &server, by(n, wrong.clone())).await;
            assert!(reason.contains("iss"), "{wrong} by key {n}: {reason}");
            assert_eq!(code, 4401, "{wrong} by key {n}");
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn a_token_is_tried_with_at_most_eight_keys() {
    let key = |n: u8| format!("[[keys]]\nalgorithm = 'HS256'\nid = '{n}'\nsecret = 'secret {n:030}'\n");
    let by = |n: u8, id: Option<&str>| {
        let key = EncodingKey::from_secret(format!("secret {n:030}").as_bytes());
        let header = Header { kid: id.map(str::to_owned), ..Header::new(Algorithm::HS256) };
        handshake(&signed(&header, &key, &claims(&json!({}))))
    };
    for (keys, is_taken) in [(8, true), (9, false)] {
        let settings = auth(&(1..=keys).map(key).collect::<String>());
        let server = TestServer::start_with(|config| config.auth = settings).await;
        Over::Native.newcomer(&server).await.handshake_with(by(keys, Some(&keys.to_string()))).await;
        if is_taken {
            Over::Native.newcomer(&server).await.handshake_with(by(keys, None)).await;
        } else {
            let (reason, code) = refused(Over::Native, &server, by(keys, None)).await;
            assert!(reason.contains("name one (kid)"), "{reason}");
            assert_eq!(code, 4401);
        }
        server.stop().await;
    }
}
