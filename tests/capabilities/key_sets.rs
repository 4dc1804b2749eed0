//! Keys that change while the server runs: in files, and in sets (RFC 7517) fetched from an address.

#![allow(clippy::expect_used, clippy::panic)] // A test fails by panicking.

use std::sync::{Arc, Mutex};

use crate::common::TestServer;
use crate::common::over::Over;
use crate::common::process::Process;
use crate::common::tokens::{auth, claims, handshake, refused, signed};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rcgen::KeyPair;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// A key with a name, as its issuer holds it.
struct Signer {
    id: &'static str,
    key: EncodingKey,
}

impl Signer {
    fn new(id: &'static str) -> Self {
        let pair = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("a key pair");
        Self { id, key: EncodingKey::from_ec_pem(pair.serialize_pem().as_bytes()).expect("a key") }
    }

    fn token(&self) -> String {
        let mut header = Header::new(Algorithm::ES256);
        header.kid = Some(self.id.into());
        signed(&header, &self.key, &claims(&json!({})))
    }

    /// The public key as represented in a set.
    fn public(&self) -> Value {
        let mut jwk = Jwk::from_encoding_key(&self.key, Algorithm::ES256).expect("a public key");
        jwk.common.key_id = Some(self.id.into());
        serde_json::to_value(jwk).expect("JSON")
    }
}

fn set(signers: &[&Signer]) -> String {
    json!({"keys": signers.iter().map(|signer| signer.public()).collect::<Vec<_>>()}).to_string()
}

/// Serves a text over HTTP, in its current version.
struct Served {
    url: String,
    answer: Arc<Mutex<(&'static str, String)>>,
    asked: Arc<Mutex<usize>>,
    request: Arc<Mutex<String>>,
    task: JoinHandle<()>,
}

impl Served {
    async fn start(text: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/keys.json", listener.local_addr().expect("its address"));
        let (answer, asked) = (Arc::new(Mutex::new(("200 OK", text))), Arc::<Mutex<usize>>::default());
        let request = Arc::<Mutex<String>>::default();
        let (now, count, last) = (Arc::clone(&answer), Arc::clone(&asked), Arc::clone(&request));
        let task = tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.expect("a request");
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    request.push(stream.read_u8().await.expect("a request"));
                }
                *last.lock().expect("a request") = String::from_utf8_lossy(&request).to_lowercase();
                *count.lock().expect("a count") += 1;
                let (status, text) = now.lock().expect("an answer").clone();
                let length = text.len();
                let answer =
                    format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{text}");
                // A client that is sent too much may disconnect before the end.
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        Self { url, answer, asked, request, task }
    }

    fn answers(&self, status: &'static str, text: String) {
        *self.answer.lock().expect("an answer") = (status, text);
    }

    fn times_asked(&self) -> usize {
        *self.asked.lock().expect("a count")
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Whether a server accepts a client with this token.
async fn takes(server: &TestServer, token: &str) -> bool {
    let mut client = server.stranger().await;
    client.control.say(handshake(token)).await;
    client.control.expect("handshake_response").await["accepted"] == true
}

#[tokio::test]
async fn a_set_in_a_file_is_reloaded_when_it_changes_and_a_broken_one_is_ignored() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("keys.json");
    let (old, new) = (Signer::new("old"), Signer::new("new"));
    std::fs::write(&path, set(&[&old])).expect("written");
    let settings = auth(&format!("[jwks]\nfile = '{}'", path.display()));
    let server = TestServer::start_with(|config| config.auth = settings).await;
    assert!(takes(&server, &old.token()).await && !takes(&server, &new.token()).await);

    std::fs::write(&path, "{\"keys\": [").expect("written");
    std::fs::write(folder.path().join("next"), set(&[&new])).expect("written");
    assert!(takes(&server, &old.token()).await, "the last readable version is kept");
    std::fs::rename(folder.path().join("next"), &path).expect("replaced");
    crate::common::soon("the new key", async { while !takes(&server, &new.token()).await {} }).await;
    assert!(!takes(&server, &old.token()).await, "the old key is gone");
    server.stop().await;
}

#[tokio::test]
async fn a_set_at_an_address_is_fetched_and_fetched_again_for_an_unknown_key() {
    let (old, new, never) = (Signer::new("old"), Signer::new("new"), Signer::new("never"));
    let served = Served::start(set(&[&old])).await;
    let settings = auth(&format!("[jwks]\nurl = '{}'\ncooldown_ms = 10", served.url));
    let server = TestServer::start_with(|config| config.auth = settings).await;
    assert!(takes(&server, &old.token()).await, "the first client waits for the keys");
    let request = served.request.lock().expect("a request").clone();
    let own = concat!("user-agent: quic-websocket/", env!("CARGO_PKG_VERSION"), "\r\n");
    assert!(request.contains(own) && request.contains("accept: application/jwk-set+json"), "{request}");

    served.answers("200 OK", set(&[&old, &new]));
    // At once, except for the cooldown, which may not be over yet.
    crate::common::soon("the new key", async { while !takes(&server, &new.token()).await {} }).await;
    for (status, text) in [
        ("500 Internal Server Error", String::new()),
        ("200 OK", "no JSON".into()),
        ("200 OK", format!("{{\"keys\": [], \"x\": \"{}\"}}", "x".repeat(300_000))),
    ] {
        let before = served.times_asked();
        served.answers(status, text);
        let asking = async {
            while served.times_asked() == before {
                assert!(!takes(&server, &never.token()).await);
            }
        };
        crate::common::soon("it to be asked again", asking).await;
        assert!(takes(&server, &old.token()).await && takes(&server, &new.token()).await, "the last good set is kept");
    }
    server.stop().await;
}

#[tokio::test]
async fn clients_with_unknown_keys_do_not_cause_constant_fetching() {
    let known = Signer::new("known");
    let served = Served::start(set(&[&known])).await;
    let settings = auth(&format!("[jwks]\nurl = '{}'\ncooldown_ms = 3600000", served.url));
    let server = TestServer::start_with(|config| config.auth = settings).await;
    assert!(takes(&server, &known.token()).await);
    for _ in 0..20 {
        assert!(!takes(&server, &Signer::new("unknown").token()).await);
    }
    assert_eq!(served.times_asked(), 1);
    server.stop().await;
}

#[tokio::test]
async fn if_no_keys_could_be_fetched_a_client_is_told_to_come_back() {
    let served = Served::start(String::new()).await;
    served.answers("503 Service Unavailable", String::new());
    let settings = auth(&format!("[jwks]\nurl = '{}'", served.url));
    let server = TestServer::start_with(|config| config.auth = settings).await;
    let (reason, code) = refused(Over::Native, &server, handshake(&Signer::new("any").token())).await;
    assert!(reason.contains("try again later"), "{reason}");
    assert_eq!(code, 1013);
    server.stop().await;
}

#[tokio::test]
async fn unusable_keys_of_a_set_are_skipped() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("keys.json");
    let (good, encrypts) = (Signer::new("good"), Signer::new("encrypts"));
    let mut for_encryption = encrypts.public();
    for_encryption["use"] = "enc".into();
    let secret = "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3JldC1zZWNyZXQ";
    let keys = json!({"keys": [
        for_encryption,
        {"kty": "oct", "kid": "no-alg", "k": secret},
        {"kty": "oct", "kid": "short", "alg": "HS256", "k": "c2VjcmV0"},
        {"kty": "oct", "kid": "fine", "alg": "HS256", "k": secret},
        good.public(),
    ]});
    std::fs::write(&path, keys.to_string()).expect("written");
    let settings = auth(&format!("[jwks]\nfile = '{}'", path.display()));
    let server = TestServer::start_with(|config| config.auth = settings).await;
    let by_secret = |id: &str, secret: &str| {
        let mut header = Header::new(Algorithm::HS256);
        header.kid = Some(id.into());
        let secret = URL_SAFE_NO_PAD.decode(secret).expect("base64");
        signed(&header, &EncodingKey::from_secret(&secret), &claims(&json!({})))
    };
    assert!(takes(&server, &good.token()).await);
    assert!(takes(&server, &by_secret("fine", secret)).await);
    assert!(!takes(&server, &encrypts.token()).await, "a key for encryption");
    assert!(!takes(&server, &by_secret("no-alg", secret)).await, "a secret without an algorithm");
    assert!(!takes(&server, &by_secret("short", "c2VjcmV0")).await, "a secret that can be guessed");
    server.stop().await;
}

/// A server's log once it contains a text, and the server.
async fn log_of(settings: &str, says: &str) -> (String, Process, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("qws.toml"), settings).expect("written");
    let args = ["--config", "qws.toml", "--addr", "127.0.0.1:0", "--workers", "1"];
    let process = Process::start(folder.path(), &args, &[]);
    crate::common::until(says, || process.stderr().contains(says)).await;
    (process.stderr(), process, folder)
}

#[tokio::test]
async fn the_log_names_the_source_of_keys_and_how_many_are_kept() {
    let (good, odd) =
        (Signer::new("good"), json!({"kty": "EC", "kid": "odd", "crv": "P-256", "x": "AQAB", "y": "AQAB"}));
    let served = Served::start(String::new()).await;
    served.answers("403 Forbidden", String::new());
    let settings = format!("[auth.jwks]\nurl = '{}'\nrefresh_ms = 1000\ncooldown_ms = 10", served.url);
    let (log, process, _folder) = log_of(&settings, "Cannot fetch keys").await;
    let told = format!("Cannot fetch keys from {}: the answer is 403 Forbidden; until a fetch", served.url);
    assert!(log.contains(&told) && !log.contains("the last ones"), "{told:?} is not in\n{log}");

    served.answers("200 OK", json!({"keys": [good.public(), odd]}).to_string());
    let fetched = format!("Fetched 1 keys from {}", served.url);
    crate::common::until("the keys", || process.stderr().contains(&fetched)).await;
    let skipped = format!("WARN Skipped an unusable key of {}, \"odd\": its point is not on", served.url);
    crate::common::until("the skipped keys", || process.stderr().contains(&skipped)).await;

    let before = served.times_asked();
    crate::common::until("the same again", || served.times_asked() > before).await;
    served.answers("200 OK", json!({"keys": []}).to_string());
    let withdrawn = format!("Fetched 0 keys from {}", served.url);
    crate::common::until("that all are withdrawn", || process.stderr().contains(&withdrawn)).await;

    served.answers("302 Found", String::new());
    crate::common::until("the failure", || process.stderr().contains("the last ones stay in use")).await;
    let log = process.stderr();
    assert_eq!(log.matches(&fetched).count(), 1, "the number of keys is logged once: {log}");
    assert!(log.contains("the answer is 302 Found, and redirects are not followed"), "{log}");
    assert_eq!(log.matches("Skipped").count(), 1, "the message is logged once: {log}");
}

#[tokio::test]
async fn skipped_keys_of_a_file_are_reported_at_startup() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("keys.json");
    let good = Signer::new("good");
    let mut for_encryption = Signer::new("enc").public();
    for_encryption["use"] = "enc".into();
    std::fs::write(&path, json!({"keys": [5, good.public(), for_encryption]}).to_string()).expect("written");
    let settings = format!("[auth.jwks]\nfile = '{}'", path.display());
    let (log, _process, _folder) = log_of(&settings, "Listening on").await;
    for told in [
        format!("WARN Skipped an unusable key of {}, number 1: it is not a JSON object", path.display()),
        format!("INFO Skipped a key of {}, \"enc\": it is not for signatures (use)", path.display()),
    ] {
        assert!(log.contains(&told), "{told:?} is not in\n{log}");
    }
}
