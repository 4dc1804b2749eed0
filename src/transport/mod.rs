//! What the server needs of a carrier: its connections ([`Carrier`]), the settings of its endpoints ([`native`]), sessions
//! on HTTP/3 ([`webtransport`]), and one port for all workers ([`socket`]). Lanes are `quic_websocket_lane`'s; knows no message.

mod carrier;
pub(crate) mod cid;
pub(crate) mod native;
pub(crate) mod socket;
pub(crate) mod webtransport;

pub(crate) use self::carrier::{Carrier, Path, Protocol};
