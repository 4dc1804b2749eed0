//! The newest state: a topic that keeps one message is a retained value, which each new subscriber gets first.

#![allow(clippy::expect_used, clippy::panic)] // A test fails by panicking.

use serde_json::json;

use crate::common::TestServer;
use crate::common::over::Over;
use crate::common::topics::{Subscriber, rule};

#[tokio::test]
async fn a_topic_that_keeps_one_message_shows_it_to_each_new_subscriber() {
    let dir = tempfile::tempdir().expect("a directory");
    for durability in ["memory", "fsync"] {
        let start = || {
            TestServer::start_with(|config| {
                config.store.dir = Some(dir.path().to_owned());
                config.store.min_free_bytes = 0;
                config.topics =
                    vec![rule(&format!("pattern = '*.state'\nhistory_messages = 1\ndurability = '{durability}'"))];
            })
        };
        let topic = format!("{durability}.state");
        let mut server = start().await;
        let mut publisher = Over::Native.party(&server, "publisher").await;
        for value in ["off", "on", "dimmed"] {
            publisher.control.say(json!({"type": "publish", "topic": topic, "content": value, "id": 1})).await;
            publisher.control.expect("published").await;
        }
        if durability == "fsync" {
            server.stop().await;
            server = start().await;
        }
        for over in Over::ALL {
            let mut subscriber = Subscriber::over(over, &server, "subscriber").await;
            let subscribed = subscriber.subscribe(json!({"topic": topic, "recent": 1})).await;
            assert_eq!(subscribed["offset"], 3);
            let state = subscriber.hear(&topic).await;
            assert_eq!((&state["offset"], &state["content"]), (&json!(3), &json!("dimmed")));
            let mut page = subscriber.ask(json!({"type": "history", "topic": topic, "id": 1}), "history").await;
            assert_eq!(page["messages"].take().as_array().map(Vec::len), Some(1), "the only one");
        }
        server.stop().await;
    }
}
