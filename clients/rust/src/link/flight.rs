//! The first packets of a connection, sent again and again until something comes back.
//!
//! QUIC repeats what stays unanswered after 1, 2, 4 … seconds. Who begins to connect where nothing gets through is then still waiting
//! when the network has been back for seconds. Sending the very same packets again is always allowed (a network may double any): the
//! first to get through counts, the others are dropped by their numbers. It needs no second connection, and no second ticket.

use quinn::udp::{EcnCodepoint, RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

/// The most that is kept, in bytes: an opening of the longest kind, the handshake, and some room.
const KEPT_MAX: usize = 16 * 1024;

/// A socket that keeps what is sent first.
pub(super) struct FirstFlight {
    socket: Arc<dyn AsyncUdpSocket>,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    packets: Vec<Packet>,
    bytes: usize,
    /// The flight is complete, or something came back.
    closed: bool,
}

struct Packet {
    to: SocketAddr,
    ecn: Option<EcnCodepoint>,
    contents: Vec<u8>,
    segment_size: Option<usize>,
}

impl FirstFlight {
    pub(super) fn new(socket: Arc<dyn AsyncUdpSocket>) -> Arc<Self> {
        Arc::new(Self { socket, kept: Mutex::default() })
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends it again, unless something came back. What QUIC sends from now on by itself is a repeat, and not kept.
    pub(super) fn send_again(&self) {
        let mut kept = self.kept();
        kept.closed = true;
        for packet in &kept.packets {
            let Packet { to, ecn, contents, segment_size } = packet;
            // What cannot be sent now is as good as lost on the way.
            let _ = self.socket.try_send(&Transmit { destination: *to, ecn: *ecn, contents, segment_size: *segment_size, src_ip: None });
        }
    }
}

impl AsyncUdpSocket for FirstFlight {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Arc::clone(&self.socket).create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.socket.try_send(transmit)?;
        let mut kept = self.kept();
        if !kept.closed && kept.bytes + transmit.contents.len() <= KEPT_MAX {
            kept.bytes += transmit.contents.len();
            let Transmit { destination: to, ecn, contents, segment_size, .. } = *transmit;
            kept.packets.push(Packet { to, ecn, contents: contents.to_vec(), segment_size });
        }
        Ok(())
    }

    fn poll_recv(&self, cx: &mut Context<'_>, bufs: &mut [IoSliceMut<'_>], meta: &mut [RecvMeta]) -> Poll<io::Result<usize>> {
        let received = ready!(self.socket.poll_recv(cx, bufs, meta));
        if received.is_ok() {
            // What QUIC has heard of it repeats by itself, as fast as the network is.
            *self.kept() = Kept { closed: true, ..Kept::default() };
        }
        Poll::Ready(received)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.socket.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.socket.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.socket.may_fragment()
    }
}

impl fmt::Debug for FirstFlight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FirstFlight").field("socket", &self.socket).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quinn::{Runtime, TokioRuntime};
    use std::future::poll_fn;
    use std::net::UdpSocket;

    async fn send(flight: &Arc<FirstFlight>, to: SocketAddr, contents: &[u8]) {
        let mut poller = Arc::clone(flight).create_io_poller();
        poll_fn(|cx| poller.as_mut().poll_writable(cx)).await.unwrap();
        flight.try_send(&Transmit { destination: to, ecn: None, contents, segment_size: None, src_ip: None }).unwrap();
    }

    /// The lengths of what has come.
    fn came(peer: &UdpSocket) -> Vec<usize> {
        std::iter::from_fn(|| peer.recv(&mut [0; 2048]).ok()).collect()
    }

    #[tokio::test]
    async fn the_first_packets_go_again_until_something_comes_back() {
        let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
        peer.set_read_timeout(Some(std::time::Duration::from_millis(100))).unwrap();
        let to = peer.local_addr().unwrap();
        let flight = FirstFlight::new(TokioRuntime.wrap_udp_socket(UdpSocket::bind("127.0.0.1:0").unwrap()).unwrap());
        send(&flight, to, &[1; 1200]).await;
        send(&flight, to, &[2; 300]).await;
        assert_eq!(came(&peer), [1200, 300]);
        flight.send_again();
        send(&flight, to, &[3; 50]).await;
        assert_eq!(came(&peer), [1200, 300, 50]);
        flight.send_again();
        assert_eq!(came(&peer), [1200, 300], "what QUIC repeats by itself is not kept");

        peer.send_to(b"!", flight.local_addr().unwrap()).unwrap();
        let (mut bytes, mut meta) = ([0; 2048], [RecvMeta::default()]);
        let received = poll_fn(|cx| flight.poll_recv(cx, &mut [IoSliceMut::new(&mut bytes)], &mut meta)).await;
        assert_eq!(received.unwrap(), 1);
        flight.send_again();
        assert!(came(&peer).is_empty());
    }

    #[tokio::test]
    async fn what_is_kept_is_bounded() {
        let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
        let flight = FirstFlight::new(TokioRuntime.wrap_udp_socket(UdpSocket::bind("127.0.0.1:0").unwrap()).unwrap());
        for _ in 0..100 {
            send(&flight, peer.local_addr().unwrap(), &[1; 1000]).await;
        }
        assert_eq!(flight.kept().packets.len(), KEPT_MAX / 1000);
    }
}
