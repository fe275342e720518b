//! The best transport that works: both are tried, one with a head start.

use super::discover::{Endpoints, discover};
use super::{Address, Link, LinkError, Trust, websocket, webtransport};
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
    let websocket = |kind| websocket::connect(&endpoints.websocket, &trust, kind);
    let link = match (transport, &endpoints.webtransport) {
        (Transport::WebSocket, _) => websocket(TransportKind::WebSocket).await?,
        (Transport::WebSocketJson, _) => websocket(TransportKind::WebSocketJson).await?,
        (Transport::Auto, None) => websocket(TransportKind::WebSocket).await?,
        (Transport::WebTransport, None) => {
            let reason = format!(
                "{} offers no WebTransport that could be verified: give its CA or a hash to pin, or choose websocket",
                server.authority()
            );
            return Err(LinkError::Unreachable(reason));
        }
        (Transport::WebTransport, Some(endpoint)) => webtransport::connect(endpoint, &trust).await?,
        (Transport::Auto, Some(endpoint)) => {
            let quic = pin!(webtransport::connect(endpoint, &trust));
            let tcp = pin!(websocket(TransportKind::WebSocket));
            if favourite == TransportKind::WebTransport { race(quic, tcp).await? } else { race(tcp, quic).await? }
        }
    };
    Ok(Established { link, endpoints })
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
