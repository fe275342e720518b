//! Adapters: each turns its own thing into a source of client frames and a sink of server frames. They know frames and bytes, and
//! nothing of conversations; nothing above knows which one it talks to.

pub mod quic;
pub mod websocket;

use std::future::Future;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use tokio::sync::oneshot;
use tokio::time::Instant;
pub use whimbrel_protocol::TransportKind;
use whimbrel_protocol::codec::CodecError;
use whimbrel_protocol::frame::{ClientFrame, ServerFrame};

/// Which pages may connect, by the `Origin` that browsers send for them. Programs send none, and are not asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pages {
    /// Pages from anywhere.
    Any,
    /// Pages of these origins, such as `https://shop.example.org`: scheme, host, and port where it is not the scheme's own.
    Of(Arc<[String]>),
    /// Pages that this machine serves. Where clients say who they are and only loopback keeps strangers out, any other page in the
    /// owner's browser would be such a stranger.
    Loopback,
}

impl Pages {
    /// With the pages that a server at these addresses serves itself. Bound to all addresses it does not know at which it is reached.
    #[must_use]
    pub fn with_own(self, http: SocketAddr, secure: SocketAddr) -> Self {
        let Self::Of(origins) = self else { return self };
        let own = [("http", http, 80), ("https", secure, 443)].into_iter().flat_map(|(scheme, at, usual)| {
            let ip = at.ip();
            let host = (!ip.is_unspecified()).then(|| if ip.is_ipv6() { format!("[{ip}]") } else { ip.to_string() });
            let is_localhost = ip == Ipv4Addr::LOCALHOST || ip == Ipv6Addr::LOCALHOST;
            let port = if at.port() == usual { String::new() } else { format!(":{}", at.port()) };
            host.into_iter().chain(is_localhost.then(|| "localhost".to_owned())).map(move |host| format!("{scheme}://{host}{port}"))
        });
        Self::Of(origins.iter().cloned().chain(own).collect())
    }

    /// Whether a page with this origin may connect.
    #[must_use]
    pub fn may_connect(&self, origin: &str) -> bool {
        let is_loopback = |host: axum::http::uri::Authority| {
            let name = host.host().trim_matches(['[', ']']);
            name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
        };
        match self {
            Self::Any => true,
            Self::Of(origins) => origins.iter().any(|known| known.eq_ignore_ascii_case(origin)),
            Self::Loopback => origin.split_once("://").and_then(|(_, host)| host.parse().ok()).is_some_and(is_loopback),
        }
    }
}

/// Why a link gave out.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The connection is gone.
    #[error("the connection is gone: {0}")]
    Gone(String),
    /// What the peer sent is not a frame.
    #[error(transparent)]
    Codec(#[from] CodecError),
}

/// A frame that came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// What came.
    pub frame: ClientFrame,
    /// Whether it came in a datagram: it may be early, doubled or late, and whatever matters comes over the stream too.
    pub hint: bool,
}

impl From<ClientFrame> for Received {
    /// A frame that came over the stream, in its order.
    fn from(frame: ClientFrame) -> Self {
        Self { frame, hint: false }
    }
}

/// A handshake that is not over. What came may be played by somebody who recorded it, and who cannot read what goes back.
#[derive(Debug)]
pub struct Early(oneshot::Receiver<()>);

impl Early {
    /// With what tells that the handshake is over; dropped, it will never be.
    #[must_use]
    pub fn new() -> (oneshot::Sender<()>, Self) {
        let (over, early) = oneshot::channel();
        (over, Self(early))
    }

    /// Waits for the end of the handshake: the client is there, and says what it says now. `false` if that will never be.
    pub async fn confirmed(self) -> bool {
        self.0.await.is_ok()
    }
}

/// Who has connected.
#[derive(Debug)]
pub struct Peer {
    /// Over what.
    pub kind: TransportKind,
    /// Where it is.
    pub remote: SocketAddr,
    /// If its handshake is not over.
    pub early: Option<Early>,
}

/// Where client frames come from.
pub trait FrameSource: Send {
    /// The next frame; `None` when the peer closed in an orderly way. Cancel-safe: a future that is dropped loses nothing.
    fn next(&mut self) -> impl Future<Output = Result<Option<Received>, LinkError>> + Send;
}

/// Where server frames go.
pub trait FrameSink: Send {
    /// Bytes that were pushed and not yet taken by the network: the caller stops pushing beyond a limit of its own. Answers are not
    /// among them where they have streams of their own.
    fn queued(&self) -> usize;

    /// The same of what an answer to a query waits behind.
    fn answers_queued(&self) -> usize {
        self.queued()
    }

    /// When [`flush`](Self::flush) has something to do although nothing was pushed.
    fn due(&self) -> Option<Instant> {
        None
    }

    /// Encodes a frame and queues it; sends nothing.
    ///
    /// # Errors
    /// If the frame is longer than the form allows.
    fn push(&mut self, frame: &ServerFrame) -> Result<(), CodecError>;

    /// Asks a silent peer, by the transport's own means, whether it is there: something is heard from the source if it is. `false` if the
    /// transport has none that are heard.
    fn probe(&mut self) -> bool;

    /// Sends what is queued. Cancel-safe: what a dropped future had not sent stays queued.
    fn flush(&mut self) -> impl Future<Output = Result<(), LinkError>> + Send;

    /// Sends what is queued, as far as the peer takes it in a short while, and closes.
    fn close(self) -> impl Future<Output = ()> + Send;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_own_pages_may_connect_and_no_others_of_their_machine() {
        let shop = || Pages::Of(Arc::new(["https://shop.example.org".into()]));
        let at = |address: &str| address.parse().unwrap();
        let pages = shop().with_own(at("127.0.0.1:8080"), at("[::1]:443"));
        for origin in ["https://shop.example.org", "http://localhost:8080", "http://127.0.0.1:8080", "https://[::1]", "https://localhost"] {
            assert!(pages.may_connect(origin), "{origin}");
        }
        for origin in
            ["http://localhost:3000", "https://127.0.0.1", "http://[::1]:8080", "http://shop.example.org", "http://192.168.1.5:8080"]
        {
            assert!(!pages.may_connect(origin), "{origin}");
        }
        let lan = shop().with_own(at("192.168.1.5:80"), at("[fd00::5]:8443"));
        assert!(lan.may_connect("http://192.168.1.5") && lan.may_connect("https://[fd00::5]:8443"));
        assert!(!lan.may_connect("http://localhost"));
        assert_eq!(shop().with_own(at("0.0.0.0:8080"), at("[::]:8443")), shop(), "whose localhost is that?");
        assert_eq!(Pages::Loopback.with_own(at("127.0.0.1:1"), at("127.0.0.1:2")), Pages::Loopback);
    }

    #[test]
    fn only_pages_of_this_machine_where_that_is_the_rule() {
        for origin in ["http://localhost:3000", "http://127.0.0.1:8080", "https://[::1]:8443", "https://127.0.0.2"] {
            assert!(Pages::Loopback.may_connect(origin), "{origin}");
        }
        for origin in ["https://evil.example", "http://localhost.evil.example", "http://127.0.0.1.evil.example", "null", "", "http://"] {
            assert!(!Pages::Loopback.may_connect(origin), "{origin}");
            assert!(Pages::Any.may_connect(origin), "{origin}");
        }
        let shop = Pages::Of(Arc::new(["https://shop.example.org".into()]));
        assert!(shop.may_connect("https://shop.example.org") && shop.may_connect("https://SHOP.example.org"));
        for origin in ["http://shop.example.org", "https://shop.example.org.evil.example", "https://shop.example.org:444", "null", ""] {
            assert!(!shop.may_connect(origin), "{origin}");
        }
    }
}
