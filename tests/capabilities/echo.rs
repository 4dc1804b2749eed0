//! `text` and `binary` are echoed to their sender.

use crate::common::TestServer;
use crate::common::over::Over;
use serde_json::json;

#[tokio::test]
async fn text_is_echoed_with_a_prefix_and_the_id_of_its_request() {
    let server = TestServer::start().await;
    for over in Over::ALL {
        let mut client = over.party(&server, "Ada").await;
        client.control.say(json!({"type": "text", "content": "Grüße \"🚀\"\n", "id": "a-1"})).await;
        let echo = client.control.expect("text").await;
        assert_eq!(echo["content"], "Echo: Grüße \"🚀\"\n");
        assert_eq!(echo["re"], "a-1");
        assert!(echo["timestamp"].is_u64(), "{echo} has a time");
    }
    server.stop().await;
}

#[tokio::test]
async fn bytes_are_echoed_unchanged_whatever_their_size() {
    let server = TestServer::start().await;
    for over in Over::ALL {
        let mut client = over.party(&server, "Ada").await;
        for size in [0, 1, 100, 5000, 1_000_000] {
            let bytes: Vec<u8> = (0..size).map(|n| u8::try_from(n % 251).expect("below 251")).collect();
            client.control.say_with(json!({"type": "binary", "id": size}), &bytes).await;
            let (echo, returned) = client.control.hear_with().await;
            assert_eq!((&echo["type"], &echo["re"]), (&json!("binary"), &json!(size)));
            assert!(returned == bytes, "{size} bytes came back changed on {over:?}");
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let server = TestServer::start().await;
    for over in Over::ALL {
        let mut client = over.party(&server, "Ada").await;
        for n in 0..500 {
            client.control.say(json!({"type": "text", "content": n.to_string(), "id": n})).await;
        }
        for n in 0..500 {
            let echo = client.control.expect("text").await;
            assert_eq!((&echo["re"], &echo["content"]), (&json!(n), &json!(format!("Echo: {n}"))));
        }
    }
    server.stop().await;
}
