//! The best transport that works: both are tried, one with a head start.

use super::discover::{Endpoints, discover};
use super::{Address, Haste, Link, LinkError, Opening, Trust, quic, websocket, webtransport};
use crate::{Transport, TransportKind};
use std::future::Future;
use std::pin::{Pin, pin};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

/// How long the favourite may take before the other is tried too.
const HEAD_START: Duration = Duration::from_millis(200);

/// While a server is tried where it was, it is asked after this time where it is, and then after twice as long each time: it may have come
/// back somewhere else.
const ASK_AFTER: Duration = Duration::from_secs(2);

/// An attempt to connect.
#[derive(Clone)]
pub(crate) struct Attempt {
    pub server: Address,
    pub trust: Trust,
    pub transport: Transport,
    pub favourite: TransportKind,
    /// The second is for a second connection, should the first get stuck.
    pub openings: [Opening; 2],
    /// The one before failed, and nothing has changed since.
    pub repeated: bool,
    pub haste: Haste,
    /// Since when there is no connection.
    pub since: Instant,
    /// How long the network took when it was measured last.
    pub round_trip: Option<Duration>,
    /// Raw QUIC only: a socket that others use too. Such a connection does not move, and repeats nothing by itself.
    pub shared: Option<quinn::Endpoint>,
}

/// Where a server is, as it said.
#[derive(Clone)]
pub(crate) struct Known {
    pub endpoints: Endpoints,
    /// The last attempt to reach it there failed: either nobody could be reached, or it is somewhere else now.
    pub doubtful: bool,
}

/// A link, and what was learned on the way.
pub(crate) struct Established {
    pub link: Link,
    pub endpoints: Endpoints,
}

/// Finds out where the server is, unless that is known, and opens a link to it. Of the links that are tried only raw QUIC sends anything
/// before it is the one (see [`Opening`]).
pub(crate) async fn connect(attempt: Attempt, known: Option<Known>) -> Result<Established, LinkError> {
    let Some(Known { endpoints, doubtful }) = known else {
        return attempt.open(discover(&attempt.server, &attempt.trust).await?).await;
    };
    // To ask takes longer than to come back: both at once. Elsewhere nothing is said early, for it may be the same server, and the `Hello`
    // the same.
    let reserved = Attempt { openings: Default::default(), ..attempt.clone() };
    let elsewhere = || async {
        let found = discover(&attempt.server, &attempt.trust).await?;
        if found == endpoints { Ok(None) } else { reserved.open(found).await.map(Some) }
    };
    let ask_after = if doubtful { Duration::ZERO } else { ASK_AFTER };
    either(pin!(attempt.open(endpoints.clone())), elsewhere, ask_after).await
}

/// The first that succeeds; `other` begins after a while. It may have nothing to add, or fail: then it is tried again, as long as the first
/// is under way.
async fn either<T, F: Future<Output = Result<Option<T>, LinkError>>>(
    mut first: Pin<&mut impl Future<Output = Result<T, LinkError>>>,
    mut other: impl FnMut() -> F,
    mut after: Duration,
) -> Result<T, LinkError> {
    let mut refused = None;
    // Why it is not elsewhere, as far as that is known.
    let failed = |why, refused| Err(if let Some(refused) = refused { both(why, refused) } else { why });
    loop {
        if let Ok(result) = timeout(after, first.as_mut()).await {
            return result.or_else(|why| failed(why, refused));
        }
        after = (2 * after).max(ASK_AFTER);
        let mut other = pin!(other());
        tokio::select! {
            biased;
            result = &mut first => return match result {
                Ok(link) => Ok(link),
                // It has had time to answer; the next attempt begins with asking.
                Err(why) => match timeout(ASK_AFTER, other).await {
                    Ok(Ok(Some(link))) => Ok(link),
                    Ok(Ok(None)) => Err(why),
                    Ok(Err(refused)) => Err(both(why, refused)),
                    Err(_) => failed(why, refused),
                },
            },
            result = &mut other => match result {
                Ok(Some(link)) => return Ok(link),
                Ok(None) => refused = None,
                Err(why) => refused = Some(why),
            },
        }
    }
}

fn both(one: LinkError, other: LinkError) -> LinkError {
    let why = format!("{one}; {other}");
    match (one, other) {
        (LinkError::Mismatch(_), _) | (_, LinkError::Mismatch(_)) => LinkError::Mismatch(why),
        _ => LinkError::Unreachable(why),
    }
}

impl Attempt {
    /// One that says nothing, and is in no hurry.
    pub fn bare(server: Address, trust: Trust, transport: Transport) -> Self {
        let (openings, haste) = (Default::default(), Haste::default());
        let (favourite, since) = (TransportKind::Quic, Instant::now());
        Self { server, trust, transport, favourite, openings, repeated: false, haste, since, round_trip: None, shared: None }
    }

    async fn open(&self, endpoints: Endpoints) -> Result<Established, LinkError> {
        let link = self.link(&endpoints).await?;
        Ok(Established { link, endpoints })
    }

    async fn link(&self, endpoints: &Endpoints) -> Result<Link, LinkError> {
        let Self { server, trust, .. } = self;
        let websocket = |kind| websocket::connect(&endpoints.websocket, trust, kind);
        let quic = async {
            match &endpoints.quic {
                Some(endpoint) => quic::connect(endpoint, self).await,
                None => Err(not_offered(server, "QUIC")),
            }
        };
        let webtransport = async {
            match &endpoints.webtransport {
                Some(endpoint) => webtransport::connect(endpoint, trust).await,
                None => Err(not_offered(server, "WebTransport")),
            }
        };
        match self.transport {
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
                } else if self.favourite == TransportKind::WebSocket {
                    race(pin!(tcp), pin!(udp)).await
                } else {
                    race(pin!(udp), pin!(tcp)).await
                }
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

    async fn after(ms: u64, result: Result<u8, LinkError>) -> Result<u8, LinkError> {
        sleep(Duration::from_millis(ms)).await;
        result
    }

    async fn maybe(ms: u64, result: Result<Option<u8>, LinkError>) -> Result<Option<u8>, LinkError> {
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

    #[tokio::test(start_paused = true)]
    async fn where_a_server_was_is_tried_beside_asking_where_it_is() {
        let now = Duration::ZERO;
        assert_eq!(either(pin!(after(10, Ok(1))), || maybe(5, Ok(None)), now).await, Ok(1));
        assert_eq!(either(pin!(after(10, Ok(1))), || maybe(20, Ok(Some(2))), now).await, Ok(1));
        assert_eq!(either(pin!(after(900, Ok(1))), || maybe(20, Ok(Some(2))), now).await, Ok(2));
        assert_eq!(either(pin!(after(900, Ok(1))), || maybe(20, Err(down("two").unwrap_err())), now).await, Ok(1));
        assert_eq!(either(pin!(after(5, down("one"))), || maybe(20, Ok(Some(2))), now).await, Ok(2));
        assert_eq!(either(pin!(after(5, down("one"))), || maybe(20, Ok(None)), now).await, down("one"));
        let neither = either(pin!(after(20, down("one"))), || maybe(50, Err(down("two").unwrap_err())), now).await;
        assert_eq!(neither, down("one; two"));
        let neither = either(pin!(after(50, down("one"))), || maybe(20, Err(down("two").unwrap_err())), now).await;
        assert_eq!(neither, down("one; two"));
        let begun = Instant::now();
        assert_eq!(either(pin!(after(20, down("one"))), || maybe(60_000, Ok(None)), now).await, down("one"));
        assert_eq!(begun.elapsed(), Duration::from_millis(20) + ASK_AFTER, "who does not answer is not waited for");
        // It was asked a moment ago.
        assert_eq!(either(pin!(after(50, down("one"))), || maybe(20, Ok(None)), now).await, down("one"));
        // Who is not in doubt asks later.
        assert_eq!(either(pin!(after(900, Ok(1))), || maybe(20, Ok(Some(2))), ASK_AFTER).await, Ok(1));
        assert_eq!(either(pin!(after(900, down("one"))), || maybe(20, Ok(Some(2))), ASK_AFTER).await, down("one"));
    }

    #[tokio::test(start_paused = true)]
    async fn where_a_server_is_is_asked_again_as_long_as_it_is_not_where_it_was() {
        for first in [Duration::ZERO, ASK_AFTER] {
            let begun = Instant::now();
            let mut answers = [Err(down("gone").unwrap_err()), Ok(None), Ok(Some(2))].into_iter();
            let asked = || maybe(20, answers.next().unwrap());
            assert_eq!(either(pin!(after(20_000, down("one"))), asked, first).await, Ok(2));
            let waits = if first.is_zero() { [0, 1, 2] } else { [1, 2, 4] };
            assert_eq!(begun.elapsed(), waits.iter().sum::<u32>() * ASK_AFTER + Duration::from_millis(60));
        }
    }
}
