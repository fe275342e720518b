//! Which transport a client may use.

use std::str::FromStr;
use whimbrel_protocol::TransportKind;

/// Which transport a client uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Transport {
    /// The best that works, found by racing them.
    #[default]
    Auto,
    /// Only QUIC, without HTTP around it.
    Quic,
    /// Only WebTransport.
    WebTransport,
    /// Only WebSocket, frames in postcard.
    WebSocket,
    /// Only WebSocket, frames in JSON.
    WebSocketJson,
}

/// A transport's name was not one that is known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no transport: choose auto, quic, webtransport, websocket or websocket-json")]
pub struct UnknownTransport(pub String);

impl FromStr for Transport {
    type Err = UnknownTransport;

    fn from_str(name: &str) -> Result<Self, UnknownTransport> {
        if name == "auto" {
            return Ok(Self::Auto);
        }
        let kind = TransportKind::ALL.into_iter().find(|kind| kind.name() == name);
        kind.map(Self::from).ok_or_else(|| UnknownTransport(name.into()))
    }
}

impl From<TransportKind> for Transport {
    fn from(kind: TransportKind) -> Self {
        match kind {
            TransportKind::Quic => Self::Quic,
            TransportKind::WebTransport => Self::WebTransport,
            TransportKind::WebSocket => Self::WebSocket,
            // Clients of ours do not speak Socket.IO, whose events a server makes of the frames in JSON.
            TransportKind::WebSocketJson | TransportKind::SocketIo => Self::WebSocketJson,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_transport_can_be_chosen_by_its_name() {
        for kind in TransportKind::ALL {
            assert_eq!(kind.name().parse(), Ok(Transport::from(kind)));
            assert!(UnknownTransport(String::new()).to_string().contains(kind.name()), "the advice names {kind}");
        }
        assert_eq!("auto".parse(), Ok(Transport::Auto));
        assert_eq!("pigeon".parse::<Transport>(), Err(UnknownTransport("pigeon".into())));
    }
}
