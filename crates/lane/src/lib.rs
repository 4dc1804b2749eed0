//! Lanes of the quic-websocket protocol: ordered streams of messages over a QUIC stream, a stream in a WebTransport
//! session, or a whole WebSocket. Shared by the server and the client library.
//!
//! **This crate has no stable API**: any release may change it. Use `quic-websocket-client` to connect to a server, and
//! `quic-websocket-protocol` to read and write messages.
//!
//! * [`LaneReader`] splits the received bytes into message bodies.
//! * [`LaneWriter`] writes frames for any number of senders and never blocks them. Frames that the stream does not
//!   accept at once wait in a bounded backlog; [`Overflow`] decides what happens when it is full.
//! * [`SendScheduler`] is shared by all lanes of a client: their common budget and their sending order.
//! * [`websocket`] turns a WebSocket into one lane.
//!
//! ```
//! # use std::{sync::Arc, time::Duration};
//! use futures_util::StreamExt;
//! use quic_websocket_lane::{Bounds, LaneWriter, Layer, Overflow, SendScheduler, websocket};
//! use quic_websocket_protocol::frame::put_frame;
//! use tokio_tungstenite::{WebSocketStream, tungstenite::protocol::Role};
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let (peer, linger) = ("127.0.0.1:1".parse()?, Duration::from_secs(1));
//!
//! let (ours, theirs) = tokio::io::duplex(4096);
//! let (socket, pump) = websocket::open(theirs, peer, None, 1 << 20, linger).await;
//! tokio::spawn(pump);
//! let (send, _receive) = socket.lane().ok_or("the lane was taken")?;
//! let bounds = Bounds { messages: 64, bytes: 1 << 20 };
//! let writer = LaneWriter::new(send, Layer::Native, 0, &SendScheduler::new(bounds, bounds, 0, Arc::new(())));
//! let mut frame = bytes::BytesMut::new();
//! put_frame(&mut frame, None, |json| json.extend_from_slice(br#"{"type":"pong"}"#));
//! writer.try_send(&frame.freeze().into(), Overflow::Refuse).map_err(|(_, failure)| failure)?;
//!
//! let mut client = WebSocketStream::from_raw_socket(ours, Role::Client, None).await;
//! assert_eq!(client.next().await.ok_or("the socket ended")??.to_text()?, r#"{"type":"pong"}"#);
//! # Ok(()) }
//! ```

mod backlog;
mod counters;
mod failure;
mod layer;
mod reader;
mod send_scheduler;
mod stream;
pub mod websocket;
mod writer;

pub use self::backlog::{Bounds, DropNotice, Gap, Overflow};
pub use self::counters::{Sent, TrafficCounters};
pub use self::failure::{Disconnected, ReadFailure, SendFailure};
pub use self::layer::Layer;
pub use self::reader::LaneReader;
pub use self::send_scheduler::{SendScheduler, WaitingReplies};
pub use self::stream::{ReceiveHalf, SendHalf};
pub use self::writer::{FrameBatch, LaneWriter, SendOptions};
