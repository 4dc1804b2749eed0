//! The sockets and listeners of a server, bound before anything else is created.

use std::io;
use std::net::{SocketAddr, UdpSocket};

use super::size;
use crate::config::Config;
use crate::error::ServerError;
use crate::http;
use crate::transport::socket;

/// The bound ports of a server.
pub(super) struct Ports {
    /// UDP sockets, one for each worker.
    pub(super) sockets: Vec<UdpSocket>,
    pub(super) local_addr: SocketAddr,
    /// TCP listeners with TLS, one for each worker, or none.
    pub(super) secure: Vec<http::Listener>,
    pub(super) http_addr: Option<SocketAddr>,
    /// TCP listeners without TLS, one for each worker, or none.
    pub(super) plain: Vec<http::Listener>,
    pub(super) plain_http_addr: Option<SocketAddr>,
    /// Listener of the admin API's separate address.
    pub(super) admin: Option<http::Listener>,
    pub(super) admin_addr: Option<SocketAddr>,
}

/// Attempts to find a port that is free for all workers, and for both UDP and TCP, if the system chooses it.
const PORT_TRIES: usize = 16;

impl Ports {
    pub(super) fn bind(config: &Config, workers: usize) -> Result<Self, ServerError> {
        let mut tries = if config.addr.port() == 0 { PORT_TRIES } else { 1 };
        loop {
            tries -= 1;
            match Self::try_bind(config, workers) {
                Err(ServerError::Bind { cause, .. } | ServerError::BindTcp { cause, .. })
                    if tries > 0 && cause.kind() == io::ErrorKind::AddrInUse => {}
                bound => return bound,
            }
        }
    }

    fn try_bind(config: &Config, workers: usize) -> Result<Self, ServerError> {
        let bind = |cause| ServerError::Bind { addr: config.addr, cause };
        let buffers = size(config.quic.socket_buffer_bytes);
        let sockets = socket::bind_group(config.addr, workers, buffers).map_err(bind)?;
        let local_addr = sockets[0].local_addr().map_err(bind)?;
        let open = |addr: Option<SocketAddr>, setting| {
            let Some(addr) = addr.filter(|_| config.http.enabled) else { return Ok((None, Vec::new())) };
            let (addr, listeners) =
                http::bind(addr, workers).map_err(|cause| ServerError::BindTcp { addr, setting, cause })?;
            Ok::<_, ServerError>((Some(addr), listeners))
        };
        let (http_addr, secure) = open(Some(config.http.addr.unwrap_or(local_addr)), "http.addr")?;
        let (plain_http_addr, plain) = open(config.http.plain_addr, "http.plain_addr")?;
        let admin = config.http.admin_addr.map(|addr| {
            let setting = "http.admin_addr";
            http::bind_admin(addr).map_err(|cause| ServerError::BindTcp { addr, setting, cause })
        });
        let (admin_addr, admin) = admin.transpose()?.unzip();
        Ok(Self { sockets, local_addr, secure, http_addr, plain, plain_http_addr, admin, admin_addr })
    }
}
