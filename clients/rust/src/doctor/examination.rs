//! The steps, one after the other.

use super::mends::{self, Wrong};
use super::{Diagnosis, Finding, Outcome, Step};
use crate::link::{self, Address, Attempt, Endpoints, Fault, Link, LinkError, QuicEndpoint, Received, Told, Trust, WebTransportEndpoint};
use crate::{Transport, TransportKind};
use std::future::Future;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use whimbrel_protocol::frame::{ClientFrame, Hello, ServerFrame};

/// How long each step may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Clocks that differ by more than this are worth a word: certificates begin and end, and messages have times.
const SKEW: Duration = Duration::from_secs(60);

/// Why a step was not taken.
const NO_ADDRESS: &str = "the server has no address";
const NO_TCP: &str = "there is no TCP connection";
const NO_TLS: &str = "without TLS";
const NOT_SAID: &str = "the server did not say where it is";

pub(super) struct Examination<T> {
    address: Address,
    trust: Trust,
    hello: Option<Hello>,
    tell: T,
    diagnosis: Diagnosis,
}

impl<T: FnMut(Finding)> Examination<T> {
    pub fn new(address: Address, trust: Trust, hello: Option<Hello>, tell: T) -> Self {
        Self { address, trust, hello, tell, diagnosis: Diagnosis::default() }
    }

    pub async fn run(mut self) -> Diagnosis {
        let (found, took) = timed(resolve(&self.address)).await;
        let words = |found: &Vec<SocketAddr>| found.iter().map(|address| address.ip().to_string()).collect::<Vec<_>>().join(", ");
        let Some(addresses) = self.told(Step::Name, took, found, words) else {
            for step in [Step::Tcp, Step::Tls, Step::Discovery, Step::Clock, Step::Quic, Step::WebTransport, Step::WebSocket, Step::Session]
            {
                self.skipped(step, NO_ADDRESS);
            }
            return self.diagnosis;
        };
        let reached = self.reach(&addresses).await;
        let told = match reached {
            Ok(()) => self.discover().await,
            Err(why) => {
                self.skipped(Step::Discovery, why);
                None
            }
        };
        match &told {
            Some(told) => self.clock(told.date),
            None => self.skipped(Step::Clock, "the server did not say what time it is"),
        }
        let (said, endpoints) = match told {
            Some(told) => (true, told.endpoints),
            None => (false, self.usual()),
        };
        let links = self.open(endpoints, reached, said).await;
        // Clients ask first, too.
        self.diagnosis.usable = links.iter().filter(|_| said).map(|link| link.transport).collect();
        self.session(links.into_iter().next().filter(|_| said)).await;
        self.diagnosis
    }

    /// TCP and TLS. If not, why what needs them is not tried.
    async fn reach(&mut self, addresses: &[SocketAddr]) -> Result<(), &'static str> {
        let (connected, took) = timed(connect(&self.address, addresses)).await;
        let words = |tcp: &TcpStream| tcp.peer_addr().map_or_else(|_| "connected".into(), |peer| peer.to_string());
        let Some(tcp) = self.told(Step::Tcp, took, connected, words) else {
            self.skipped(Step::Tls, NO_TCP);
            return Err(NO_TCP);
        };
        if !self.address.secure {
            self.skipped(Step::Tls, "this is http://: nothing proves who answers, and nothing is encrypted");
            return Ok(());
        }
        let shaking = timeout(PATIENCE, link::shake(&self.trust, &self.address, tcp));
        let (shaken, took) = timed(shaking).await;
        let shaken = match shaken {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(Fault { why, mend })) => Err(Wrong { why, mend: mend.unwrap_or_else(|| mends::tls(&self.address)) }),
            Err(_) => Err(Wrong::new(no_answer(), mends::tls(&self.address))),
        };
        self.told(Step::Tls, took, shaken, |()| "its certificate is believed".into()).ok_or(NO_TLS)
    }

    async fn discover(&mut self) -> Option<Told> {
        let asking = timeout(PATIENCE, link::ask(&self.address, &self.trust));
        let (asked, took) = timed(asking).await;
        let asked = match asked {
            Ok(asked) => asked.map_err(|why| Wrong::new(why.to_string(), mends::discovery(&self.address, &why))),
            Err(_) => Err(Wrong::new(no_answer(), mends::discovery(&self.address, &LinkError::Unreachable(String::new())))),
        };
        self.told(Step::Discovery, took, asked, |told| offers(&told.endpoints))
    }

    fn clock(&mut self, date: Option<SystemTime>) {
        let Some(date) = date else { return self.skipped(Step::Clock, "the server does not say what time it is") };
        let now = SystemTime::now();
        let skew = now.duration_since(date).unwrap_or_else(|before| before.duration());
        let outcome = if skew <= SKEW {
            Outcome::Works("this machine's and the server's agree to the minute".into())
        } else {
            let words = if now > date { "ahead of" } else { "behind" };
            Outcome::Fails { why: format!("this machine's clock is {} {words} the server's", span(skew)), mend: mends::CLOCK.into() }
        };
        (self.tell)(Finding { step: Step::Clock, outcome, took: Duration::ZERO });
    }

    /// Where a server is that does not say so: QUIC has the number of the port for TLS.
    fn usual(&self) -> Endpoints {
        let address = self.address.with_path("/");
        let quic = address.secure.then(|| QuicEndpoint { address: address.clone(), hashes: Vec::new() });
        let url = address.with_path("/wt").url("https", "https");
        let webtransport = address.secure.then(|| WebTransportEndpoint { url, hashes: Vec::new() });
        Endpoints { quic, webtransport, websocket: address.with_path("/ws") }
    }

    /// Opens what can be opened, all at once, the best first.
    async fn open(&mut self, endpoints: Endpoints, reached: Result<(), &'static str>, said: bool) -> Vec<Link> {
        let Endpoints { quic, webtransport, websocket } = endpoints;
        let attempt = Attempt::bare(self.address.clone(), self.trust.clone(), Transport::Auto);
        let (over_quic, over_webtransport, over_websocket) = tokio::join!(
            timed(async { Some(udp(quic.as_ref()?.address.port, link::quic(quic.as_ref()?, &attempt)).await) }),
            timed(async {
                let endpoint = webtransport.as_ref()?;
                let port = Address::parse(&endpoint.url).map_or(0, |address| address.port);
                Some(udp(port, link::webtransport(endpoint, &attempt.trust)).await)
            }),
            timed(async {
                reached.ok()?;
                let opened = patient(link::websocket(&websocket, &attempt.trust, TransportKind::WebSocket)).await;
                Some(opened.map_err(|why| Wrong::new(why.unwrap_or_else(no_answer), mends::WEBSOCKET)))
            }),
        );
        let unoffered = match (said, self.address.secure || self.address.is_loopback()) {
            (false, _) => NOT_SAID,
            (true, true) => "the server does not offer it",
            (true, false) => "over http:// nobody's keys can be believed: use https:// with --ca or --pin",
        };
        let mut links = Vec::new();
        for (step, (opened, took), words, absent) in [
            (Step::Quic, over_quic, quic.map_or_else(String::new, |endpoint| endpoint.address.authority()), unoffered),
            (Step::WebTransport, over_webtransport, webtransport.map_or_else(String::new, |endpoint| endpoint.url), unoffered),
            (Step::WebSocket, over_websocket, websocket.url("wss", "ws"), reached.err().unwrap_or(NOT_SAID)),
        ] {
            match opened {
                Some(opened) => links.extend(self.told(step, took, opened, |_| words)),
                None => self.skipped(step, absent),
            }
        }
        links
    }

    async fn session(&mut self, link: Option<Link>) {
        let Some(hello) = self.hello.take() else {
            return self.skipped(Step::Session, "no user was named (--as USER, with --token where the server wants one)");
        };
        let Some(mut link) = link else { return self.skipped(Step::Session, "there is no connection for it") };
        let (user, token) = (hello.user.clone(), hello.token.clone());
        let (answer, took) = timed(timeout(PATIENCE, welcomed(&mut link, hello))).await;
        let refused = matches!(&answer, Ok(Ok(Some(ServerFrame::Error(_)))));
        self.diagnosis.refused = refused;
        let look = "connections come about, and then nothing: the server's log says more";
        let entered = match answer {
            Ok(Ok(Some(ServerFrame::Welcome(welcome)))) => Ok(welcome.head),
            Ok(Ok(Some(ServerFrame::Error(error)))) => {
                Err(Wrong::new(format!("refused: {} ({})", error.message, error.code), mends::refused(&error, &user, &token)))
            }
            Ok(Ok(Some(other))) => {
                Err(Wrong::new(format!("instead of a welcome came {other:?}"), "is the server going down? Its log says more"))
            }
            Ok(Ok(None)) => Err(Wrong::new("the server closed the connection", look)),
            Ok(Err(why)) => Err(Wrong::new(why.to_string(), look)),
            Err(_) => Err(Wrong::new(no_answer(), look)),
        };
        self.told(Step::Session, took, entered, |head| format!("{user} is let in over {}, and has {head} entries", link.transport));
        link.sink.close().await;
    }

    fn skipped(&mut self, step: Step, why: &str) {
        (self.tell)(Finding { step, outcome: Outcome::Skipped(why.into()), took: Duration::ZERO });
    }

    /// Tells of a step, and goes on with what it brought.
    fn told<R>(&mut self, step: Step, took: Duration, result: Result<R, Wrong>, words: impl FnOnce(&R) -> String) -> Option<R> {
        let (outcome, result) = match result {
            Ok(result) => (Outcome::Works(words(&result)), Some(result)),
            Err(Wrong { why, mend }) => (Outcome::Fails { why, mend }, None),
        };
        (self.tell)(Finding { step, outcome, took });
        result
    }
}

async fn timed<R>(step: impl Future<Output = R>) -> (R, Duration) {
    let begun = Instant::now();
    (step.await, begun.elapsed())
}

fn no_answer() -> String {
    format!("no answer within {} s", PATIENCE.as_secs())
}

/// Opens a link, or says why not; nothing where nothing came back.
async fn patient(opening: impl Future<Output = Result<Link, LinkError>>) -> Result<Link, Option<String>> {
    match timeout(PATIENCE, opening).await {
        Ok(opened) => opened.map_err(|why| Some(why.to_string())),
        Err(_) => Err(None),
    }
}

async fn udp(port: u16, opening: impl Future<Output = Result<Link, LinkError>>) -> Result<Link, Wrong> {
    patient(opening).await.map_err(|why| match why {
        Some(why) => Wrong { mend: mends::answered(&why), why },
        None => Wrong::new(no_answer(), mends::silent(port)),
    })
}

async fn resolve(address: &Address) -> Result<Vec<SocketAddr>, Wrong> {
    match timeout(PATIENCE, tokio::net::lookup_host((address.host.as_str(), address.port))).await {
        Ok(Ok(found)) => {
            let found: Vec<SocketAddr> = found.collect();
            if found.is_empty() { Err(mends::name(address, "there is none")) } else { Ok(found) }
        }
        Ok(Err(why)) => Err(mends::name(address, &why.to_string())),
        Err(_) => Err(mends::name(address, &no_answer())),
    }
}

async fn connect(server: &Address, addresses: &[SocketAddr]) -> Result<TcpStream, Wrong> {
    let mut last = None;
    for address in addresses {
        let why = match timeout(PATIENCE, TcpStream::connect(address)).await {
            Ok(Ok(tcp)) => return Ok(tcp),
            Ok(Err(why)) => why,
            Err(_) => ErrorKind::TimedOut.into(),
        };
        last = Some(Wrong::new(format!("{address}: {why}"), mends::tcp(server, &why)));
    }
    Err(last.unwrap_or_else(|| mends::name(server, "there is none")))
}

/// Says hello; what the server says to it.
async fn welcomed(link: &mut Link, hello: Hello) -> Result<Option<ServerFrame>, LinkError> {
    link.sink.push(&ClientFrame::Hello(hello))?;
    link.sink.flush().await?;
    loop {
        match link.source.next().await? {
            Some(Received::Frame(frame)) => return Ok(Some(frame)),
            Some(Received::Hint(_) | Received::Unanswered(_)) => {}
            None => return Ok(None),
        }
    }
}

fn offers(endpoints: &Endpoints) -> String {
    let quic = endpoints.quic.as_ref().map(|_| "QUIC");
    let webtransport = endpoints.webtransport.as_ref().map(|_| "WebTransport");
    let all: Vec<&str> = [quic, webtransport, Some("WebSocket")].into_iter().flatten().collect();
    format!("it offers {}", all.join(", "))
}

/// A time as people say it.
fn span(time: Duration) -> String {
    const MINUTE: u64 = 60;
    const HOUR: u64 = 60 * MINUTE;
    const DAY: u64 = 24 * HOUR;
    match time.as_secs() {
        seconds if seconds < 2 * MINUTE => format!("{seconds} s"),
        seconds if seconds < 2 * HOUR => format!("{} min", seconds / MINUTE),
        seconds if seconds < 2 * DAY => format!("{} h", seconds / HOUR),
        seconds => format!("{} days", seconds / DAY),
    }
}
