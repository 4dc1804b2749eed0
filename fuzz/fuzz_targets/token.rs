//! Any text as a token, and any header and claims under a valid signature: no panic, no client is accepted without a
//! valid signature and valid claims, and messages about a token are short and cannot affect a terminal. Input: see
//! fuzz/README.md.
#![no_main]
#![forbid(unsafe_code)]

use std::sync::OnceLock;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use libfuzzer_sys::fuzz_target;
use quic_websocket::Config;
use quic_websocket::auth::{Explained, explain};
use quic_websocket::message::{MAX_USER_BYTES, Token};
use serde_json::{Map, Value};
use tokio::runtime::Runtime;

const SECRET: &str = "a secret of more than 32 bytes, for fuzzing alone";

// A first byte `s`: header and claims, separated by a byte 0, are signed. Any other: the text is the token.
fuzz_target!(|data: &[u8]| {
    match data.split_first() {
        Some((b's', rest)) => {
            let (header, claims) = rest.iter().position(|&b| b == 0).map_or((rest, &rest[..0]), |at| {
                let (header, claims) = rest.split_at(at);
                (header, &claims[1..])
            });
            signed(header, claims);
        }
        Some((_, text)) => {
            let Ok(text) = std::str::from_utf8(text) else { return };
            if let Ok(token) = Token::new(text) {
                let explained = ask(&token);
                assert_ne!(explained.is_accepted(), Some(true), "an unsigned token");
            }
        }
        None => {}
    }
});

fn signed(header: &[u8], claims: &[u8]) {
    let head = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    let signature = URL_SAFE_NO_PAD.encode(hmac::sign(&key, head.as_bytes()));
    let Ok(token) = Token::new(&format!("{head}.{signature}")) else { return };
    if ask(&token).is_accepted() != Some(true) {
        return;
    }
    // Lone surrogates in meaningless claims, or in their names, are ignored.
    if let Ok(claims) = serde_json::from_slice::<Map<String, Value>>(claims) {
        let user = claims["sub"].as_str().expect("a user");
        assert!((1..=MAX_USER_BYTES).contains(&user.len()) && !user.chars().any(char::is_control), "user {user:?}");
        assert!(claims["exp"].as_f64().expect("an end") > 1.7e9, "a token of long ago");
    }
    let header: Map<String, Value> = serde_json::from_slice(header).expect("an object");
    assert_eq!(header["alg"], "HS256");
    assert!(header.get("crit").is_none_or(Value::is_null), "critical extensions");
}

fn ask(token: &Token) -> Explained {
    static RUNTIME: OnceLock<(Runtime, Config)> = OnceLock::new();
    let (runtime, config) = RUNTIME.get_or_init(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let key = format!("QWS_AUTH__KEYS=[{{ algorithm = 'HS256', secret = '{SECRET}' }}]");
        let (name, value) = key.split_once('=').expect("a variable");
        (runtime, Config::load(None, [(name.to_owned(), value.to_owned())]).expect("a configuration"))
    });
    let explained = runtime.block_on(explain(token, Some(config.clone()))).expect("the keys are good");
    let text = explained.to_string();
    assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "something that acts on a terminal");
    explained
}
