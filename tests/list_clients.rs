//! `list_clients`: everybody who is connected, in pages.

#![allow(clippy::expect_used, clippy::panic)] // A test fails by panicking.

mod common;

use std::collections::BTreeMap;

use common::{RawClient, TestServer, now_ms, until};
use serde_json::{Value, json};

async fn page(client: &mut RawClient, limit: u64, after: &Value) -> Value {
    client.control.say(json!({"type": "list_clients", "limit": limit, "after": after, "id": 1})).await;
    let list = client.control.expect("client_list").await;
    assert_eq!(list["re"], 1);
    list
}

#[tokio::test]
async fn pages_show_everybody_once_in_the_order_of_their_ids() {
    let server = TestServer::start().await;
    let mut clients = Vec::new();
    for n in 0..25 {
        clients.push(server.client(&format!("client {n}")).await);
    }
    let names: BTreeMap<String, String> =
        clients.iter().enumerate().map(|(n, client)| (client.id.clone(), format!("client {n}"))).collect();
    let asker = &mut clients[0];
    let (mut seen, mut after, mut sizes) = (Vec::new(), Value::Null, Vec::new());
    loop {
        let list = page(asker, 10, &after).await;
        assert_eq!(list["total"], 25);
        let entries = list["clients"].as_array().expect("a list");
        sizes.push(entries.len());
        for entry in entries {
            assert_eq!(entry["transport"], "quic");
            assert!(now_ms().abs_diff(entry["connected_at"].as_u64().unwrap_or_default()) < 60_000, "{entry}");
            let text = |field: &str| entry[field].as_str().unwrap_or_default().to_owned();
            seen.push((text("id"), text("name")));
        }
        after = list["next"].clone();
        if after.is_null() {
            break;
        }
    }
    assert_eq!(sizes, [10, 10, 5]);
    assert_eq!(seen, names.into_iter().collect::<Vec<_>>());
    server.stop().await;
}

#[tokio::test]
async fn who_leaves_is_listed_no_more_and_a_page_may_begin_behind_it() {
    let server = TestServer::start().await;
    let mut asker = server.client("asker").await;
    let mut others = Vec::new();
    for _ in 0..5 {
        others.push(server.client("other").await);
    }
    let gone = others.pop().expect("one of them");
    gone.connection.close(1000_u32.into(), b"");
    until("its place", || server.status.clients() == 5).await;
    let everybody = page(&mut asker, 1000, &Value::Null).await;
    let ids: Vec<&str> =
        everybody["clients"].as_array().expect("a list").iter().filter_map(|c| c["id"].as_str()).collect();
    assert_eq!((ids.len(), everybody["total"].as_u64()), (5, Some(5)));
    assert!(!ids.contains(&gone.id.as_str()), "who left is not listed");
    let behind = page(&mut asker, 1000, &json!(gone.id)).await;
    let expected = ids.iter().filter(|id| **id > gone.id.as_str()).count();
    assert_eq!(behind["clients"].as_array().map(Vec::len), Some(expected));
    server.stop().await;
}
