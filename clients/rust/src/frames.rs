//! Frames without promises: for load generators and conformance tests.
//!
//! A [`Dialer`] opens links to one server over one transport; a link takes and gives the protocol's own frames and keeps none of its
//! promises: no outbox, no cursor, no reconnecting. Applications want [`Client`](crate::Client) instead.

use crate::link::{self, Address, Endpoints, LinkError, Received, Trust};
use crate::{StartError, Transport};
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use whimbrel_protocol::codec::CodecError;
use whimbrel_protocol::frame::{ClientFrame, Hello, ServerFrame};

/// One client needs no more buffer than the system gives, in bytes; hundreds who are told something at once do.
const SHARED_BUFFER: usize = 4 << 20;

/// Why there is no link, or no longer one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FramesError {
    /// What was asked for cannot be used.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The server cannot be reached, the connection broke, or something came that is no frame.
    #[error("{0}")]
    Link(String),
}

impl From<LinkError> for FramesError {
    fn from(why: LinkError) -> Self {
        Self::Link(why.to_string())
    }
}

impl From<CodecError> for FramesError {
    fn from(why: CodecError) -> Self {
        LinkError::from(why).into()
    }
}

/// Opens links to one server.
#[derive(Debug, Clone)]
pub struct Dialer {
    address: Address,
    trust: Trust,
    transport: Transport,
    endpoints: Endpoints,
    shared: Option<quinn::Endpoint>,
}

impl Dialer {
    /// Asks the server at `url` once where it can be reached. Over loopback the keys that it announces are believed; elsewhere `ca`
    /// names a PEM file or a certs directory.
    ///
    /// # Errors
    /// If the URL or the CA cannot be used, or the server does not answer.
    pub async fn new(url: &str, transport: Transport, ca: Option<&Path>) -> Result<Self, FramesError> {
        let address = Address::of_server(url).map_err(|why| StartError::Url(why.to_string()))?;
        let trust = Trust::load(ca, Vec::new()).map_err(StartError::from)?;
        let endpoints = link::discover(&address, &trust).await?;
        Ok(Self { address, trust, transport, endpoints, shared: None })
    }

    /// Whether the URL names this machine by its loopback name or address.
    #[must_use]
    pub fn is_loopback(url: &str) -> bool {
        Address::parse(url).is_ok_and(|address| address.is_loopback())
    }

    /// Opens a link. The first frame on it has to be `Hello`.
    ///
    /// # Errors
    /// If the server cannot be reached over this transport.
    pub async fn dial(&self) -> Result<(Source, Sink), FramesError> {
        // Each is a stranger to the server: none resumes what another began.
        let bare = link::Attempt::bare(self.address.clone(), self.trust.afresh(), self.transport);
        let attempt = link::Attempt { shared: self.shared.clone(), ..bare };
        let known = link::Known { endpoints: self.endpoints.clone(), doubtful: false };
        let established = link::connect(attempt, Some(known)).await?;
        Ok((Source(established.link.source), Sink(established.link.sink)))
    }

    /// The same with one UDP socket for all links over raw QUIC: thousands of sockets take gigabytes. Must run inside a Tokio runtime.
    ///
    /// # Errors
    /// If there is no socket to be had.
    pub fn with_one_socket(self) -> Result<Self, FramesError> {
        let any = if self.address.is_loopback() { Ipv4Addr::LOCALHOST } else { Ipv4Addr::UNSPECIFIED };
        let open = || {
            let socket = std::net::UdpSocket::bind((any, 0))?;
            socket2::SockRef::from(&socket).set_recv_buffer_size(SHARED_BUFFER)?;
            quinn::Endpoint::new(quinn::EndpointConfig::default(), None, socket, Arc::new(quinn::TokioRuntime))
        };
        let endpoint = open().map_err(|why| FramesError::Link(format!("cannot open a UDP socket: {why}")))?;
        Ok(Self { shared: Some(endpoint), ..self })
    }

    /// Somebody who comes back: what was got from the server on one link is used for the next.
    #[must_use]
    pub fn returning(&self) -> Returning {
        Returning(Self { trust: self.trust.afresh(), ..self.clone() })
    }
}

/// Opens links as one client does that comes back.
#[derive(Debug, Clone)]
pub struct Returning(Dialer);

impl Returning {
    /// Opens a link and says `hello` on it, in the first packets if the transport can do that and the server was here before.
    ///
    /// # Errors
    /// If the server cannot be reached over this transport, or the hello is longer than a frame may be.
    pub async fn dial(&self, hello: Hello) -> Result<(Source, Sink), FramesError> {
        let Dialer { address, trust, transport, endpoints, shared } = self.0.clone();
        let hello = ClientFrame::Hello(hello);
        let mut opening = link::Opening::default();
        opening.push(&hello, usize::MAX)?;
        let openings = [opening, link::Opening::default()];
        let attempt = link::Attempt { openings, shared, ..link::Attempt::bare(address, trust, transport) };
        let link = link::connect(attempt, Some(link::Known { endpoints, doubtful: false })).await?.link;
        let (source, mut sink) = (Source(link.source), Sink(link.sink));
        if link.opened.is_none() {
            sink.push(&hello)?;
            sink.flush().await?;
        }
        Ok((source, sink))
    }
}

/// Where server frames come from.
pub struct Source(link::Source);

impl Source {
    /// The next frame; `None` when the server closed in an orderly way. A future that is dropped loses nothing.
    ///
    /// # Errors
    /// If the connection broke, or something came that is no frame.
    pub async fn next(&mut self) -> Result<Option<ServerFrame>, FramesError> {
        loop {
            match self.0.next().await? {
                Some(Received::Frame(frame)) => return Ok(Some(frame)),
                None => return Ok(None),
                // Copies of what comes on the stream; and no query has a stream of its own here.
                Some(Received::Hint(_) | Received::Unanswered(_)) => {}
            }
        }
    }
}

/// Where client frames go.
pub struct Sink(link::Sink);

impl Sink {
    /// Bytes that were pushed and not yet taken by the network.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.0.queued()
    }

    /// Encodes a frame and queues it; sends nothing.
    ///
    /// # Errors
    /// If the frame is longer than the form allows.
    pub fn push(&mut self, frame: &ClientFrame) -> Result<(), FramesError> {
        Ok(self.0.push(frame)?)
    }

    /// Sends what is queued. A future that is dropped leaves queued what it had not sent.
    ///
    /// # Errors
    /// If the connection broke.
    pub async fn flush(&mut self) -> Result<(), FramesError> {
        Ok(self.0.flush().await?)
    }

    /// Sends what is queued, as far as the server takes it in a short while, and closes.
    pub async fn close(self) {
        self.0.close().await;
    }
}
