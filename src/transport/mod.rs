//! What a client needs of a carrier: whole bodies in ([`LaneReader`]), frames out without waiting ([`LaneWriter`]), and
//! a close with a code ([`Carrier`]). Used by the server's clients and by the client library alike; knows frames, not messages.

mod backlog;
mod carrier;
pub(crate) mod cid;
mod lane_reader;
mod lane_writer;
mod layer;
pub(crate) mod native;
mod send_scheduler;
pub(crate) mod socket;
mod stream;
pub(crate) mod websocket;
pub(crate) mod webtransport;

pub(crate) use self::backlog::{Bounds, DropNotice, Gap, Overflow};
pub(crate) use self::carrier::{Carrier, Disconnected, Path, Protocol};
pub(crate) use self::lane_reader::{LaneReader, ReadFailure};
pub(crate) use self::lane_writer::{FrameBatch, LaneWriter, SendFailure, Way};
pub(crate) use self::layer::Layer;
pub(crate) use self::send_scheduler::SendScheduler;
pub(crate) use self::stream::{ReceiveHalf, SendHalf};
