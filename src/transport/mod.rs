//! Carriers from the server's side: connections ([`Carrier`]), endpoint settings ([`native`]), HTTP/3 sessions
//! ([`webtransport`]), and one UDP port for all workers ([`socket`]). Lanes belong to `quic_websocket_lane`. Knows no
//! message. Used by `session`, `worker` and `outbound`.

mod carrier;
pub(crate) mod cid;
pub(crate) mod native;
pub(crate) mod socket;
pub(crate) mod webtransport;

pub(crate) use self::carrier::{Carrier, Path, Protocol};
