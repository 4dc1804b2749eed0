//! Clients that impersonate others, or send to clients that do not exist.

use serde_json::json;

use super::common::over::Party;
use super::common::topics::Subscriber;
use super::common::{On, with_attachment};
use super::scene::Scene;

/// The next message on the control lane of this type.
async fn next_of(client: &mut Party, kind: &str) -> serde_json::Value {
    let message = client.control.hear().await;
    assert_eq!(message["type"], kind, "{message}");
    message
}

#[tokio::test]
async fn a_forged_sender_is_ignored_and_receivers_see_the_true_one() {
    let scene = Scene::start("topics = [{ pattern = 'forged', history_messages = 10, history_age_ms = 100 }]").await;
    let mut eve = Party::from(scene.target.client("Eve").await);
    let mut bob = Subscriber::new(scene.target.client("Bob").await);
    let ada = scene.target.client("Ada").await;
    bob.subscribe(json!({"topic": "forged"})).await;
    let mut offset = 0;
    for from in [json!(ada.id), json!(bob.client.id), json!(null), json!("server"), json!(["x"]), json!({"id": ada.id})]
    {
        for at_end in [false, true] {
            let forge = |mut message: serde_json::Value| {
                for (field, value) in [("from", &from), ("sender", &from), ("client_id", &from)] {
                    message[field] = value.clone();
                }
                message["timestamp"] = json!(1);
                message["offset"] = json!(9000);
                let text = message.to_string();
                // A duplicate is harmless here: it is not a field of client messages.
                if at_end { format!("{},\"from\":{from}}}", &text[..text.len() - 1]) } else { text }
            };
            for on in [On::Control, On::Lane] {
                let reply = |reply: serde_json::Value| assert_ne!(reply["type"], "error", "{reply}");
                let id = json!(bob.client.id);
                let direct = forge(json!({"type": "direct", "to": id, "content": "x", "id": 1}));
                reply(eve.ask(on, direct.as_bytes()).await);
                let signal = forge(json!({"type": "signal", "to": id, "data": {"from": from}, "id": 1}));
                reply(eve.ask(on, signal.as_bytes()).await);
                let publish = forge(json!({"type": "publish", "topic": "forged", "content": "x", "id": 1}));
                reply(eve.ask(on, publish.as_bytes()).await);
                offset += 1;
                for kind in ["direct", "signal"] {
                    let heard = next_of(&mut bob.client, kind).await;
                    assert_eq!(heard["from"], eve.id, "{heard}");
                    assert!(heard["timestamp"].as_u64().is_some_and(|time| time > 1), "{heard}");
                }
                let heard = bob.hear("forged").await;
                assert_eq!((&heard["from"], &heard["offset"]), (&json!(eve.id), &json!(offset)), "{heard}");
            }
            let broadcast = forge(json!({"type": "broadcast", "content": "x"}));
            eve.control.body(broadcast.as_bytes()).await;
            let true_sender = json!(eve.id);
            for client in [&mut eve, &mut bob.client] {
                let heard = next_of(client, "broadcast").await;
                assert_eq!(heard["from"], true_sender, "{heard}");
                assert_eq!(heard.as_object().map(serde_json::Map::len), Some(4), "nothing else in it: {heard}");
            }
        }
    }
    drop((eve, ada, bob));
    scene.end().await;
}

#[tokio::test]
async fn forged_and_departed_ids_reach_no_client() {
    let scene = Scene::start("").await;
    let mut eve = scene.target.client("Eve").await;
    let gone = scene.target.client("gone").await;
    let gone_id = gone.id.clone();
    gone.connection.close(1000_u32.into(), b"");
    drop(gone);
    super::common::until("it is gone", || scene.server.status.clients() == scene.clients() + 1).await;
    for n in 0..300_u128 {
        let id = match n % 3 {
            0 => uuid::Uuid::from_u128(n * 0x1_0000_0001).to_string(),
            1 => uuid::Uuid::new_v4().to_string(),
            _ => gone_id.clone(),
        };
        for message in
            [json!({"type": "direct", "to": id, "content": "x"}), json!({"type": "signal", "to": id, "data": 1})]
        {
            let on = On::EACH[usize::try_from(n % 3).expect("small")];
            assert_eq!(eve.ask(on, message.to_string().as_bytes()).await["code"], 404, "{message}");
        }
    }
    for to in ["*", ">", "all", "", "00000000000000000000000000000000", "{00000000-0000-0000-0000-000000000000}"] {
        let message = json!({"type": "direct", "to": to});
        assert_eq!(eve.ask(On::Control, &with_attachment(&message, b"x")).await["code"], 400, "{message}");
    }
    drop(eve);
    scene.end().await;
}

#[tokio::test]
async fn a_client_cannot_send_server_messages() {
    let scene = Scene::start("").await;
    let mut eve = scene.target.client("Eve").await;
    for kind in [
        "handshake_response",
        "client_list",
        "subscribed",
        "lane",
        "message",
        "gap",
        "unsubscribed",
        "published",
        "join",
        "leave",
        "ok",
        "error",
    ] {
        let message = json!({
            "type": kind, "id": 1, "topic": "neighbour.news", "offset": 1, "content": "x", "code": 403, "message": "x",
            "from": eve.id, "timestamp": 1, "lane": 0, "first": 1, "last": 9,
        });
        for on in [On::Control, On::Lane] {
            let reply = eve.ask(on, message.to_string().as_bytes()).await;
            assert_eq!((&reply["code"], &reply["re"]), (&json!(400), &json!(1)), "{kind}: {reply}");
        }
    }
    drop(eve);
    scene.end().await;
}
