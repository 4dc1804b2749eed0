//! Servers whose rates apply to this machine as well, and their responses to one request too many.

use std::time::Duration;

use quic_websocket::config::Rates;
use serde_json::{Value, json};

use super::TestServer;

/// A server whose limits apply to everyone, as set by the test.
pub async fn limited(change: impl FnOnce(&mut Rates)) -> TestServer {
    TestServer::start_with(|config| {
        let rates = &mut config.rates;
        rates.loopback = true;
        rates.client_refusals_burst = 1000;
        change(rates);
    })
    .await
}

/// Checks that this is a refusal of that request, and returns the time to wait.
pub fn refusal(answer: &Value, re: u64) -> Duration {
    assert_eq!((&answer["type"], &answer["code"]), (&json!("error"), &json!(429)), "expected a refusal, got {answer}");
    assert_eq!(answer["re"], re, "{answer}");
    let wait = answer["retry_after_ms"].as_u64().expect("a time to go on");
    assert!(wait >= 1, "{answer}");
    Duration::from_millis(wait)
}
