//! Streams that are opened, cut off, reset and stopped in every way and in great numbers.

use quinn::VarInt;
use serde_json::json;
use tokio::task::JoinSet;

use super::common::{RawClient, RawLane, framed, soon};
use super::neighbour::TOPIC;
use super::scene::{Scene, Target};

const WHY: VarInt = VarInt::from_u32(7);

/// Ends a stream on one side or both.
#[derive(Debug, Clone, Copy)]
enum Cut {
    Finish,
    Reset,
    /// STOP_SENDING for the replies.
    Stop,
    ResetAndStop,
    FinishAndStop,
}

impl Cut {
    const EACH: [Self; 5] = [Self::Finish, Self::Reset, Self::Stop, Self::ResetAndStop, Self::FinishAndStop];

    fn apply(self, lane: &mut RawLane) {
        // Each fails if the server was faster, which is fine.
        if matches!(self, Self::Finish | Self::FinishAndStop) {
            let _ = lane.send.finish();
        }
        if matches!(self, Self::Reset | Self::ResetAndStop) {
            let _ = lane.send.reset(WHY);
        }
        if matches!(self, Self::Stop | Self::ResetAndStop | Self::FinishAndStop) {
            let _ = lane.receive.stop(WHY);
        }
    }
}

/// Very many lanes on many connections, each with a message that arrives one byte at a time; returns the clients and
/// lanes.
pub(crate) async fn trickle(target: &Target, connections: usize, lanes: usize) {
    let endpoints: Vec<_> = (0..8).map(|_| target.endpoint()).collect();
    let mut trickling = JoinSet::new();
    for n in 0..connections {
        let (endpoint, addr) = (endpoints[n % endpoints.len()].clone(), target.addr);
        trickling.spawn(async move {
            let mut client = RawClient::connect(&endpoint, addr).await;
            client.handshake("drop by drop").await;
            let mut open = Vec::new();
            for _ in 0..lanes {
                open.push(client.lane().await);
            }
            for byte in framed(br#"{"type":"ping"}"#) {
                for lane in &mut open {
                    lane.raw(&[byte]).await;
                }
                // So that each byte is sent separately: those of the other lanes have left before.
                tokio::task::yield_now().await;
            }
            for lane in &mut open {
                lane.expect("pong").await;
                // One that claims a megabyte, and is never finished.
                lane.raw(&[0, 0x10, 0, 0, b'{']).await;
            }
            client.control.lives("a client with very slow lanes").await;
        });
    }
    while let Some(ended) = trickling.join_next().await {
        ended.expect("every message is answered in the end");
    }
}

#[tokio::test]
async fn messages_sent_byte_by_byte_on_thousands_of_lanes_delay_no_client() {
    let scene = Scene::start("").await;
    trickle(&scene.target, 70, 32).await;
    scene.end().await;
}

/// Opens this many lanes, writes a little on each, and ends it at once, in all ways in turn.
pub(crate) async fn storm(target: &Target, clients: usize, each: usize) {
    let mut storming = JoinSet::new();
    for _ in 0..clients {
        let mut client = target.client("stormy").await;
        storming.spawn(async move {
            let ping = framed(br#"{"type":"ping"}"#);
            let text = framed(json!({"type": "text", "content": "x".repeat(10_000)}).to_string().as_bytes());
            let much = [&ping[..], &text, &ping, &text[..5000]].concat();
            let starts = [&ping[..2], &ping[..9], &ping, &much];
            for n in 0..each {
                let mut lane = client.lane().await;
                // The server may have stopped it meanwhile.
                let _ = soon("room on the stream", lane.send.write_all(starts[n % starts.len()])).await;
                Cut::EACH[n % Cut::EACH.len()].apply(&mut lane);
            }
            client.control.lives("a client after the storm").await;
            client.lane().await.lives("a client after the storm").await;
        });
    }
    while let Some(ended) = storming.join_next().await {
        ended.expect("its connection lives on");
    }
}

#[tokio::test]
async fn storms_of_reset_and_stopped_lanes_end_only_these_lanes() {
    let scene = Scene::start("").await;
    storm(&scene.target, 4, 3000).await;
    scene.end().await;
}

#[tokio::test]
async fn a_lane_that_ends_at_any_moment_of_a_message_ends_alone() {
    let scene = Scene::start("").await;
    let mut client = scene.target.client("Eve").await;
    let message =
        framed(json!({"type": "direct", "to": client.id, "content": "whole", "id": 1}).to_string().as_bytes());
    let mut whole = 0;
    for cut in Cut::EACH {
        for at in 0..=message.len() {
            let mut lane = client.lane().await;
            lane.raw(&message[..at]).await;
            cut.apply(&mut lane);
            // A reset may overtake the message.
            whole += usize::from(at == message.len() && !matches!(cut, Cut::Reset | Cut::ResetAndStop));
        }
    }
    let ping = json!({"type": "ping", "id": "end"});
    // Complete messages are executed, incomplete ones are not: only complete messages arrive.
    for _ in 0..whole {
        assert_eq!(client.control.expect("direct").await["content"], "whole");
    }
    client.control.say(ping).await;
    loop {
        let message = client.control.hear().await;
        if message["re"] == "end" {
            break;
        }
        assert_eq!(message["content"], "whole", "{message}");
    }
    drop(client);
    scene.end().await;
}

#[tokio::test]
async fn a_control_lane_that_ends_at_any_moment_of_a_message_ends_only_its_connection() {
    let scene = Scene::start("").await;
    let handshake = framed(br#"{"type":"handshake","protocol_version":"1.0"}"#);
    let mut cutting = JoinSet::new();
    for cut in Cut::EACH {
        for at in (0..=handshake.len()).step_by(7).chain([handshake.len()]) {
            let (target, start) = (scene.target.clone(), handshake[..at].to_vec());
            cutting.spawn(async move {
                let mut client = target.stranger().await;
                client.control.raw(&start).await;
                cut.apply(&mut client.control);
                // A client that only stopped reading can still complete its handshake, and is detected at the next
                // message to it.
                if matches!(cut, Cut::Stop) {
                    client.connection.close(WHY, b"");
                    return;
                }
                let (code, _) = client.closed().await;
                let expected: &[u64] = if at == 0 || at == handshake_length() { &[1000, 1002] } else { &[1002] };
                assert!(expected.contains(&code), "{code} for {cut:?} at {at}");
            });
        }
    }
    while let Some(ended) = cutting.join_next().await {
        ended.expect("as expected");
    }
    scene.end().await;
}

fn handshake_length() -> usize {
    framed(br#"{"type":"handshake","protocol_version":"1.0"}"#).len()
}

#[tokio::test]
async fn repeatedly_stopped_topic_lanes_affect_only_their_client() {
    let scene = Scene::start("").await;
    for _ in 0..30 {
        let mut client = scene.target.client("Eve").await;
        // Also to the neighbour's topic.
        client.control.say(json!({"type": "subscribe", "topic": TOPIC, "id": 1})).await;
        client.control.expect("subscribed").await;
        let mut lane = soon("a topic lane", client.connection.accept_uni()).await.expect("a topic lane");
        lane.stop(WHY).expect("it was open");
        assert_eq!(client.closed().await.0, 1002);
    }
    scene.end().await;
}

#[tokio::test]
async fn lanes_beyond_the_limit_wait() {
    let scene = Scene::start("").await;
    let mut client = scene.target.client("Eve").await;
    let mut lanes = Vec::new();
    for _ in 0..32 {
        let mut lane = client.lane().await;
        lane.raw(&[0, 0]).await;
        lanes.push(lane);
    }
    let mut waits = client.lane().await;
    waits.say(json!({"type": "ping"})).await;
    client.control.lives("a client with all lanes in use").await;
    Cut::Reset.apply(&mut lanes[0]);
    waits.expect("pong").await;
    drop((client, lanes, waits));
    scene.end().await;
}

/// Opens unidirectional streams in every way, each time as many as are granted; returns how the connection ended.
async fn trespass(client: &RawClient, way: usize) -> u64 {
    for _ in 0..3 {
        let Ok(mut stream) = soon("a stream", client.connection.open_uni()).await else { break };
        // Each fails if the server was faster, which is fine.
        match way {
            0 => drop(stream.reset(WHY)),
            1 => drop(stream.finish()),
            2 => drop(stream.write_all(&framed(br#"{"type":"broadcast","content":"x"}"#)).await),
            // As much as QUIC accepts.
            _ => drop(soon("the end", stream.write_all(&vec![0; 4 << 20])).await),
        }
    }
    client.closed().await.0
}

#[tokio::test]
async fn unidirectional_streams_end_only_their_own_connection() {
    let scene = Scene::start("").await;
    for _ in 0..5 {
        for way in 0..4 {
            let client = scene.target.client("Eve").await;
            assert_eq!(trespass(&client, way).await, 1002, "{way}");
            let stranger = scene.target.stranger().await;
            assert_eq!(trespass(&stranger, way).await, 1002, "{way}, without a handshake");
        }
    }
    scene.end().await;
}
