//! The best transport that works: both are tried, one with a head start.

use super::discover::{Endpoints, discover};
use super::{Address, Link, LinkError, Trust, quic, websocket, webtransport};
use crate::{Transport, TransportKind};
use std::future::Future;
use std::pin::{Pin, pin};
use std::time::Duration;
use tokio::time::sleep;

/// How long the favourite may take before the other is tried too.
const HEAD_START: Duration = Duration::from_millis(200);

/// A link, and what was learned on the way.
pub(crate) struct Established {
    pub link: Link,
    pub endpoints: Endpoints,
}

/// Finds out where the server is (unless `known` says) and opens a link to it. Only the link that is returned ever carries a frame:
/// two `Hello`s of one device would replace each other.
pub(crate) async fn connect(
    server: Address,
    trust: Trust,
    transport: Transport,
    favourite: TransportKind,
    known: Option<Endpoints>,
) -> Result<Established, LinkError> {
    let endpoints = match known {
        Some(endpoints) => endpoints,
        None => discover(&server, &trust).await?,
    };
    let link = open(&server, &trust, transport, favourite, &endpoints).await?;
    Ok(Established { link, endpoints })
}

async fn open(
    server: &Address,
    trust: &Trust,
    transport: Transport,
    favourite: TransportKind,
    endpoints: &Endpoints,
) -> Result<Link, LinkError> {
    let websocket = |kind| websocket::connect(&endpoints.websocket, trust, kind);
    let quic = async {
        match &endpoints.quic {
            Some(endpoint) => quic::connect(endpoint, trust).await,
            None => Err(not_offered(server, "QUIC")),
        }
    };
    let webtransport = async {
        match &endpoints.webtransport {
            Some(endpoint) => webtransport::connect(endpoint, trust).await,
            None => Err(not_offered(server, "WebTransport")),
        }
    };
    match transport {
        Transport::Quic => quic.await,
        Transport::WebTransport => webtransport.await,
        Transport::WebSocket => websocket(TransportKind::WebSocket).await,
        Transport::WebSocketJson => websocket(TransportKind::WebSocketJson).await,
        Transport::Auto => {
            // They share a port: what keeps one from getting through keeps the other too.
            let udp = async { if endpoints.quic.is_some() { quic.await } else { webtransport.await } };
            let tcp = websocket(TransportKind::WebSocket);
            if endpoints.quic.is_none() && endpoints.webtransport.is_none() {
                tcp.await
            } else if favourite == TransportKind::WebSocket {
                race(pin!(tcp), pin!(udp)).await
            } else {
                race(pin!(udp), pin!(tcp)).await
            }
        }
    }
}

fn not_offered(server: &Address, what: &str) -> LinkError {
    let server = server.authority();
    LinkError::Unreachable(format!("{server} offers no {what} that could be verified: give its CA or a hash to pin, or choose websocket"))
}

/// The first of two that succeeds; the second begins when the first has failed or had its head start. The loser is dropped, and with
/// it its connection.
async fn race<T>(
    mut first: Pin<&mut impl Future<Output = Result<T, LinkError>>>,
    mut second: Pin<&mut impl Future<Output = Result<T, LinkError>>>,
) -> Result<T, LinkError> {
    let both = |one: LinkError, other: LinkError| LinkError::Unreachable(format!("{one}; {other}"));
    let early = tokio::select! {
        biased;
        result = &mut first => Some(result),
        () = sleep(HEAD_START) => None,
    };
    match early {
        Some(Ok(link)) => Ok(link),
        Some(Err(why)) => second.await.map_err(|other| both(why, other)),
        None => tokio::select! {
            biased;
            result = &mut first => match result {
                Ok(link) => Ok(link),
                Err(why) => second.await.map_err(|other| both(why, other)),
            },
            result = &mut second => match result {
                Ok(link) => Ok(link),
                Err(why) => first.await.map_err(|other| both(other, why)),
            },
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::Instant;

    async fn after(ms: u64, result: Result<u8, LinkError>) -> Result<u8, LinkError> {
        sleep(Duration::from_millis(ms)).await;
        result
    }

    fn down(who: &str) -> Result<u8, LinkError> {
        Err(LinkError::Unreachable(who.into()))
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_that_works_wins_and_the_favourite_has_a_head_start() {
        assert_eq!(race(pin!(after(150, Ok(1))), pin!(after(0, Ok(2)))).await, Ok(1));
        assert_eq!(race(pin!(after(900, Ok(1))), pin!(after(100, Ok(2)))).await, Ok(2));
        assert_eq!(race(pin!(after(250, Ok(1))), pin!(after(100, Ok(2)))).await, Ok(1));
        let begun = Instant::now();
        assert_eq!(race(pin!(after(10, down("one"))), pin!(after(5, Ok(2)))).await, Ok(2));
        assert_eq!(begun.elapsed(), Duration::from_millis(15), "a failure ends the head start");
        assert_eq!(race(pin!(after(900, Ok(1))), pin!(after(1, down("two")))).await, Ok(1));
        assert_eq!(race(pin!(after(900, down("one"))), pin!(after(1, down("two")))).await, Err(LinkError::Unreachable("one; two".into())));
    }
}
