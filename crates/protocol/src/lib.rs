//! The quic-websocket protocol as Rust types: the messages of clients and servers ([`message`]) and the frames that
//! carry them ([`frame`]). The crate does no I/O and needs no runtime.
//!
//! A stream may split its bytes anywhere. [`FrameDecoder`](frame::FrameDecoder) reassembles them into bodies,
//! [`Body::parse`](frame::Body::parse) decompresses a body and separates its attachment, and
//! [`Request::parse`](message::Request::parse) or [`Reply::parse`](message::Reply::parse) decodes the message:
//!
//! ```
//! use bytes::BytesMut;
//! use quic_websocket_protocol::frame::{Body, Compression, FrameDecoder};
//! use quic_websocket_protocol::message::{ClientMessage, Request, RequestId};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut out = BytesMut::new();
//! ClientMessage::Text { content: "hello".into() }.encode(Some(&RequestId::Number(1)), &mut out);
//! assert_eq!(&out[4..], br#"{"type":"text","id":1,"content":"hello"}"#);
//!
//! let max_bytes = 1 << 20;
//! let mut decoder = FrameDecoder::new(max_bytes);
//! decoder.push(out.freeze());
//! let body = decoder.next_body()?.ok_or("the frame is whole")?;
//! let request = Request::parse(&Body::parse(body, Compression::None, max_bytes)?)?;
//! assert_eq!(request.id, Some(RequestId::Number(1)));
//! assert!(matches!(request.message, ClientMessage::Text { content } if content == "hello"));
//! # Ok(()) }
//! ```
//!
//! Every parsed value is within the bounds of the protocol, so code after the parser need not check them again.
//! The specification is docs/PROTOCOL.md in the project's repository.

pub mod frame;
pub mod message;
mod printable;

pub use self::printable::{Printable, is_ignorable};

// Tests the example of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
