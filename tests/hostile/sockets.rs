//! WebSockets used in unintended ways. `tests/websocket/` tests violations of the standard; these tests check the cost,
//! and that nothing remains.

use serde_json::json;
use tokio::io::AsyncWriteExt;

use super::common::bare::{BINARY, Bare, CLOSE, CONTINUATION, FIN, HELLO, PING, TEXT, frame, head};
use super::common::{tls_trusting, web_socket};
use super::scene::{Scene, Target};

/// A client with the smallest receive buffer of the system.
async fn socket(target: &Target) -> Bare {
    let mut socket = stranger(target).await;
    socket.send(&frame(FIN | TEXT, HELLO)).await;
    assert_eq!(socket.hear().await["accepted"], true);
    socket
}

/// The same before its handshake.
async fn stranger(target: &Target) -> Bare {
    let stream = web_socket::narrow(target.addr).await;
    let tls = tls_trusting(&target.ca).with_no_client_auth();
    let mut socket = Bare { stream: Box::new(web_socket::tls_over(stream, tls).await.expect("TLS")) };
    socket.upgrade("/ws").await;
    socket
}

/// This many messages, each of almost a mebibyte, which never end; half of them in fragments.
pub(crate) async fn never_finished(target: &Target, count: usize) {
    let mut sockets = Vec::new();
    for n in 0..count {
        let mut socket = socket(target).await;
        if n % 2 == 0 {
            socket.send(&head(FIN | BINARY, 0x80, 1 << 20)).await;
            socket.send(&vec![0; (1 << 20) - 1]).await;
        } else {
            socket.send(&frame(TEXT, b"{")).await;
            for _ in 0..10 {
                socket.send(&frame(CONTINUATION, &[b'x'; 100_000])).await;
            }
        }
        sockets.push(socket);
    }
}

/// Claimed lengths, of which nothing arrives.
pub(crate) async fn claims(target: &Target, count: usize) {
    let mut sockets = Vec::new();
    for _ in 0..count {
        let mut socket = socket(target).await;
        socket.send(&[&head(FIN | BINARY, 0x80, 1 << 20)[..], &[0; 8]].concat()).await;
        sockets.push(socket);
    }
}

/// A topic without history.
pub(crate) const UNREAD: &str = "topics = [{ pattern = 'unread', history_messages = 0 }]";

/// This many clients that read nothing of the four megabytes of a topic, [`UNREAD`].
pub(crate) async fn unread(target: &Target, count: usize) {
    let mut sockets = Vec::new();
    for _ in 0..count {
        let mut socket = socket(target).await;
        socket.send(&frame(FIN | TEXT, br#"{"type":"subscribe","topic":"unread"}"#)).await;
        socket.hear().await;
        sockets.push(socket);
    }
    let mut sender = target.client("sender").await;
    for n in 0..80 {
        sender.control.say(json!({"type": "publish", "topic": "unread", "id": n, "content": "x".repeat(50_000)})).await;
        sender.control.expect("published").await;
    }
}

/// Pings whose answers are never read.
pub(crate) async fn pings(target: &Target, count: usize) {
    let mut socket = socket(target).await;
    let many = frame(PING, &[7; 125]).repeat(100);
    for _ in 0..count {
        // The server may stop reading at the end.
        let sending = socket.try_send(&many);
        if tokio::time::timeout(std::time::Duration::from_millis(100), sending).await.is_err() {
            return;
        }
    }
}

#[tokio::test]
async fn sockets_leave_nothing_behind_however_they_end() {
    let settings = format!("limits.lane_backlog_messages = 50\ntiming.close_timeout_ms = 100\n{UNREAD}");
    let scene = Scene::start(&settings).await;
    let target = &scene.target;
    never_finished(target, 4).await;
    claims(target, 4).await;
    unread(target, 4).await;
    pings(target, 200).await;
    let endings: [&[u8]; 6] = [
        &frame(CLOSE, b""),
        &frame(CLOSE, &1000_u16.to_be_bytes()),
        &frame(FIN | TEXT, b"{\"type\":\"close\"}"),
        &frame(FIN | TEXT, b"\xff"),
        &frame(FIN | TEXT, b"")[..3],
        b"",
    ];
    for bytes in endings {
        // Dropped directly, or its sending half first; and before its handshake as well as after it.
        for ends_in_order in [false, true] {
            for mut socket in [socket(target).await, stranger(target).await] {
                socket.send(bytes).await;
                if ends_in_order {
                    let _ = socket.stream.shutdown().await;
                    while socket.frame().await.is_some() {}
                }
            }
        }
    }
    scene.end().await;
}
