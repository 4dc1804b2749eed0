//! One UDP port for all workers. Each worker has its own socket on it (SO_REUSEPORT: the kernel distributes clients by
//! their address). A packet that arrives at the wrong worker, because its client's address changed, is passed to the
//! owner of its connection id through a bounded queue.

use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use parking_lot::Mutex;
use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::sync::mpsc;
use tracing::{debug, warn};

use super::cid::CidScheme;

/// Binds one socket for each worker to the same address. Port 0 becomes the same free port for all.
pub(crate) fn bind_group(addr: SocketAddr, workers: usize, buffer_bytes: usize) -> io::Result<Vec<UdpSocket>> {
    if workers == 1 {
        return Ok(vec![bind(addr, false, buffer_bytes)?]);
    }
    // Sockets that may share a port would share it with another server too, even if the system chooses the port. This
    // first one does not, so it detects that server, or gets a free port.
    let addr = bind(addr, false, buffer_bytes)?.local_addr()?;
    (0..workers).map(|_| bind(addr, true, buffer_bytes)).collect()
}

fn bind(addr: SocketAddr, shared: bool, buffer_bytes: usize) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
    #[cfg(unix)]
    if shared {
        socket.set_reuse_port(true)?;
    }
    #[cfg(not(unix))]
    if shared {
        return Err(io::Error::new(io::ErrorKind::Unsupported, "several workers need SO_REUSEPORT; set --workers 1"));
    }
    // The system may refuse or reduce this; `report_buffers` reports the result once.
    let _ = socket.set_send_buffer_size(buffer_bytes);
    let _ = socket.set_recv_buffer_size(buffer_bytes);
    socket.bind(&addr.into())?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Logs it if the system granted smaller buffers than requested.
pub(crate) fn report_buffers(socket: &UdpSocket, asked: usize) {
    let socket = socket2::SockRef::from(socket);
    let (Ok(send), Ok(receive)) = (socket.send_buffer_size(), socket.recv_buffer_size()) else { return };
    if send < asked || receive < asked {
        debug!(
            "UDP socket buffers: {send} bytes to send, {receive} to receive; {asked} requested \
             (quic.socket_buffer_bytes); raise net.core.wmem_max and net.core.rmem_max for more"
        );
    }
}

/// A packet on its way to the worker that owns its connection.
#[derive(Debug)]
pub(crate) struct MisroutedPacket {
    packet: Box<[u8]>,
    meta: RecvMeta,
}

/// A worker's socket: passes other workers' packets on, and receives those passed to it.
#[derive(Debug)]
pub(crate) struct WorkerSocket {
    inner: Arc<dyn AsyncUdpSocket>,
    worker: usize,
    cids: CidScheme,
    /// Queues to the other workers' sockets, by worker.
    outgoing: Vec<mpsc::Sender<MisroutedPacket>>,
    /// This worker's own queue. Only this thread locks it, because `poll_recv` takes `&self`.
    incoming: Mutex<mpsc::Receiver<MisroutedPacket>>,
}

impl WorkerSocket {
    pub(crate) fn new(
        inner: Arc<dyn AsyncUdpSocket>,
        worker: usize,
        cids: CidScheme,
        outgoing: Vec<mpsc::Sender<MisroutedPacket>>,
        incoming: mpsc::Receiver<MisroutedPacket>,
    ) -> Self {
        Self { inner, worker, cids, outgoing, incoming: Mutex::new(incoming) }
    }

    /// Keeps this worker's packets of a received buffer, moved together, and passes the others on. If the system
    /// coalesced packets (GRO), a buffer holds several of `stride` bytes, from one sender but not always one
    /// connection.
    fn sort(&self, buffer: &mut [u8], meta: &mut RecvMeta) {
        let (mut kept, mut at) = (0, 0);
        while at < meta.len {
            let end = meta.len.min(at + meta.stride.max(1));
            match self.cids.packet_owner(&buffer[at..end]) {
                Some(owner) if owner != self.worker => self.pass_on(owner, &buffer[at..end], meta),
                _ => {
                    if kept != at {
                        buffer.copy_within(at..end, kept);
                    }
                    kept += end - at;
                }
            }
            at = end;
        }
        meta.len = kept;
    }

    fn pass_on(&self, owner: usize, packet: &[u8], meta: &RecvMeta) {
        let meta = RecvMeta { len: packet.len(), stride: packet.len(), ..*meta };
        let stray = MisroutedPacket { packet: packet.into(), meta };
        // A full queue drops the packet, as a full socket buffer would; QUIC retransmits it.
        if self.outgoing.get(owner).is_none_or(|queue| queue.try_send(stray).is_err()) {
            let (worker, from) = (self.worker, meta.addr);
            debug!(worker, peer = %from, "A packet from {from} dropped: the handover queue to worker {owner} is full");
        }
    }
}

impl AsyncUdpSocket for WorkerSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Arc::clone(&self.inner).create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.inner.try_send(transmit)
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut filled = 0;
        {
            let mut incoming = self.incoming.lock();
            // At most half of the buffers, so that misrouted packets do not block the socket itself.
            let limit = (buffers.len().min(metas.len()) / 2).max(1);
            while filled < limit {
                let Poll::Ready(Some(stray)) = incoming.poll_recv(cx) else { break };
                let Some(buffer) = buffers[filled].get_mut(..stray.packet.len()) else {
                    let (worker, bytes) = (self.worker, stray.packet.len());
                    warn!(worker, bytes, "A packet of {bytes} bytes does not fit into a receive buffer");
                    continue;
                };
                buffer.copy_from_slice(&stray.packet);
                metas[filled] = stray.meta;
                filled += 1;
            }
        }
        if filled == buffers.len() {
            return Poll::Ready(Ok(filled));
        }
        match self.inner.poll_recv(cx, &mut buffers[filled..], &mut metas[filled..]) {
            Poll::Ready(Ok(received)) => {
                let end = filled + received;
                for (buffer, meta) in buffers[filled..end].iter_mut().zip(&mut metas[filled..end]) {
                    self.sort(buffer, meta);
                }
                Poll::Ready(Ok(end))
            }
            Poll::Ready(Err(e)) if filled == 0 => Poll::Ready(Err(e)),
            Poll::Pending if filled == 0 => Poll::Pending,
            _ => Poll::Ready(Ok(filled)),
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.inner.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.inner.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.inner.may_fragment()
    }
}

#[cfg(test)]
mod tests {
    use quinn::{ConnectionIdGenerator, Runtime, TokioRuntime};

    use super::*;
    use crate::transport::cid::WorkerCids;

    const STRIDE: usize = 40;

    /// The socket of worker 0 of three, and the queues from it.
    fn socket(queue: usize) -> (WorkerSocket, CidScheme, Vec<mpsc::Receiver<MisroutedPacket>>) {
        let inner = TokioRuntime.wrap_udp_socket(UdpSocket::bind("127.0.0.1:0").expect("a socket")).expect("wrapped");
        let scheme = CidScheme::hashed(3);
        let (outgoing, ends) = (0..3).map(|_| mpsc::channel(queue)).unzip();
        (WorkerSocket::new(inner, 0, scheme.clone(), outgoing, mpsc::channel(1).1), scheme, ends)
    }

    /// A unique packet with a short header, for a connection of a worker.
    fn packet(scheme: &CidScheme, worker: usize, length: usize) -> Vec<u8> {
        let cid = WorkerCids { scheme: scheme.clone(), worker }.generate_cid();
        let mut packet = [&[0x40], &cid[..], &cid[..]].concat();
        packet.resize(length, u8::try_from(worker).expect("a small number"));
        packet
    }

    /// The packets that worker 0 keeps of a coalesced buffer.
    fn kept(socket: &WorkerSocket, packets: &[Vec<u8>]) -> Vec<u8> {
        let mut buffer = packets.concat();
        let mut meta = RecvMeta { len: buffer.len(), stride: STRIDE, ..RecvMeta::default() };
        buffer.resize(buffer.len() + 100, 0xff);
        socket.sort(&mut buffer, &mut meta);
        assert_eq!(meta.stride, STRIDE, "the stride is unchanged");
        buffer.truncate(meta.len);
        buffer
    }

    fn queued(end: &mut mpsc::Receiver<MisroutedPacket>) -> Vec<Vec<u8>> {
        std::iter::from_fn(|| end.try_recv().ok())
            .map(|stray| {
                assert_eq!((stray.meta.len, stray.meta.stride), (stray.packet.len(), stray.packet.len()));
                stray.packet.into_vec()
            })
            .collect()
    }

    #[test]
    fn a_free_port_is_given_to_one_server_only() {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let groups: Vec<_> = (0..500).map(|_| bind_group(any, 2, 65_536).expect("sockets").remove(0)).collect();
        let ports: std::collections::HashSet<_> =
            groups.iter().map(|socket| socket.local_addr().expect("its address").port()).collect();
        assert_eq!(ports.len(), groups.len(), "two servers were given one port");
    }

    #[tokio::test]
    async fn a_coalesced_buffer_is_distributed_packet_by_packet_in_order() {
        // Owner of each packet; the last one of each buffer is shorter.
        for workers in [
            vec![0, 1, 0, 2, 1, 0],
            vec![1, 0, 0, 1],
            vec![0, 0, 2],
            vec![2, 2, 0],
            vec![0, 0, 0],
            vec![1, 2, 1],
            vec![0],
            vec![2],
            vec![],
        ] {
            let (socket, scheme, mut ends) = socket(16);
            let last = workers.len().saturating_sub(1);
            let length = |at| if at == last { STRIDE - 11 } else { STRIDE };
            let packets: Vec<_> =
                workers.iter().enumerate().map(|(at, &worker)| packet(&scheme, worker, length(at))).collect();
            let of = |worker| {
                workers
                    .iter()
                    .zip(&packets)
                    .filter(move |&(&owner, _)| owner == worker)
                    .map(|(_, packet)| packet.clone())
            };
            assert_eq!(kept(&socket, &packets), of(0).collect::<Vec<_>>().concat(), "kept of {workers:?}");
            for worker in [1, 2] {
                assert_eq!(queued(&mut ends[worker]), of(worker).collect::<Vec<_>>(), "to {worker} of {workers:?}");
            }
            assert!(queued(&mut ends[0]).is_empty(), "nothing is passed to itself");
        }
    }

    #[tokio::test]
    async fn handshakes_stay_and_a_full_queue_drops_only_packets_for_its_worker() {
        let (socket, scheme, mut ends) = socket(2);
        let foreign: Vec<_> = (0..4).map(|_| packet(&scheme, 1, STRIDE)).collect();
        let mut handshake = packet(&scheme, 1, STRIDE);
        handshake[0] = 0xc0;
        let [own, last] = [STRIDE, 5].map(|length| packet(&scheme, 0, length));
        let mut packets = foreign.clone();
        packets.splice(2..2, [handshake.clone(), own.clone()]);
        packets.push(last.clone());
        assert_eq!(kept(&socket, &packets), [handshake, own, last].concat());
        assert_eq!(queued(&mut ends[1]), foreign[..2], "the queue has room for two");
    }
}
