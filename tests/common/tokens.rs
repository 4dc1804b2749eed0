//! Tokens as an issuer creates them (RFC 7519), and settings for a server that requires them.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use quic_websocket::config::Auth;
use serde_json::{Value, json};

use super::TestServer;
use super::over::{Over, Party};

/// The secret of servers from [`asking`].
pub const SECRET: &str = "a secret of more than 32 bytes, for tests alone";

/// The table `auth` of a configuration file.
pub fn auth(toml: &str) -> Auth {
    toml::from_str(toml).expect("the table auth")
}

/// The same for a server with one secret.
pub fn asking(more: &str) -> Auth {
    auth(&format!("{more}\n[[keys]]\nalgorithm = 'HS256'\nsecret = '{SECRET}'"))
}

/// The time in Unix seconds.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a time after 1970").as_secs()
}

/// Claims valid for an hour, with changes: `null` removes one.
pub fn claims(changes: &Value) -> Value {
    let mut claims = json!({"sub": "ada", "exp": now() + 3600});
    let fields = claims.as_object_mut().expect("an object");
    fields.extend(changes.as_object().expect("an object").clone());
    fields.retain(|_, value| !value.is_null());
    claims
}

/// A token with such claims, signed with [`SECRET`].
pub fn token(changes: Value) -> String {
    signed(&Header::new(Algorithm::HS256), &EncodingKey::from_secret(SECRET.as_bytes()), &claims(&changes))
}

/// A token signed with any key.
pub fn signed(header: &Header, key: &EncodingKey, claims: &Value) -> String {
    jsonwebtoken::encode(header, claims, key).expect("a token")
}

/// A part of a token in its encoded form.
pub fn part(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

/// The same for literal JSON.
pub fn encoded(json: &str) -> String {
    URL_SAFE_NO_PAD.encode(json)
}

/// The signature of a token's first two parts with [`SECRET`].
pub fn signature(head: &str) -> String {
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    jsonwebtoken::crypto::sign(head.as_bytes(), &key, Algorithm::HS256).expect("a signature")
}

/// A client that was accepted with a token.
pub async fn bearer(over: Over, server: &TestServer, changes: Value) -> Party {
    let mut client = over.newcomer(server).await;
    client.handshake_with(handshake(&token(changes))).await;
    client
}

/// A handshake with a token.
pub fn handshake(token: &str) -> Value {
    json!({"type": "handshake", "protocol_version": "1.0", "token": token})
}

/// Attempts a handshake that must fail; returns the reason, and the close code.
pub async fn refused(over: Over, server: &TestServer, handshake: Value) -> (String, u64) {
    let mut client = over.newcomer(server).await;
    client.control.say(handshake).await;
    let response = client.control.expect("handshake_response").await;
    assert_eq!(response["accepted"], false, "expected to be refused, got {response}");
    assert_eq!(response["client_id"], Value::Null);
    let reason = response["reason"].as_str().expect("why").to_owned();
    (reason, client.closed().await.0)
}
