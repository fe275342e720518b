//! How long a path bears silence.
//!
//! Address translations and proxies forget a connection on which nothing passes, after half a minute or after hours. A device that nobody
//! looks at wants to say as little as it can: each packet wakes its radio. So the server is told to ask after a while of silence, and its
//! question is the probe: it comes, and the next silence may be twice as long; it does not, and that was too long. A question of ours would
//! show nothing, as it opens a way for itself. What was found out is remembered for each network, for UDP and TCP apart ([`super::networks`]).

use super::Driver;
use super::networks::unix_seconds;
use super::phase::Phase;
use super::session::Session;
use crate::TransportKind;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tokio::time::Instant;
use whimbrel_protocol::frame::ClientState;

/// The silence that a network is believed to bear of which nothing is known …
const FIRST_S: u16 = 30;
/// … and the shortest that is tried on one that bears less.
const LEAST_S: u16 = 15;
/// The longest that a server asks after.
const MOST_S: u16 = 300;
/// A silence that was too long is not tried again for so long. Networks change.
const TOO_LONG_FOR_S: u64 = 24 * 3_600;
/// The server's question may come this much later than it was asked for: networks are slow, and lose.
const GRACE: Duration = Duration::from_secs(10);
/// When a question did not come and this much later still nobody answers, the network is away, of which nothing follows.
const SOON: Duration = Duration::from_secs(10);
/// A clock that goes off so late was stopped, and what came meanwhile was not heard.
const LATE: Duration = Duration::from_secs(5);

/// What is known of the silences that a network bears.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Bearing {
    udp: Path,
    tcp: Path,
}

impl Bearing {
    /// The way that sessions over this transport take.
    pub fn of(&self, transport: TransportKind) -> &Path {
        if is_udp(transport) { &self.udp } else { &self.tcp }
    }

    /// The same, to be changed.
    pub fn of_mut(&mut self, transport: TransportKind) -> &mut Path {
        if is_udp(transport) { &mut self.udp } else { &mut self.tcp }
    }
}

fn is_udp(transport: TransportKind) -> bool {
    matches!(transport, TransportKind::Quic | TransportKind::WebTransport)
}

/// What is known of one way through a network. Times are seconds, points in time of Unix time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Path {
    /// The silence to try, or to keep to.
    silence: u16,
    /// The longest that it bore.
    borne: u16,
    /// The last silence that was too long, and when that was.
    #[serde(skip_serializing_if = "Option::is_none")]
    too_long: Option<(u16, u64)>,
    /// After how much silence the connection was closed last, by somebody on the way or by the server's end.
    #[serde(skip_serializing_if = "Option::is_none")]
    closed: Option<u16>,
}

impl Default for Path {
    fn default() -> Self {
        Self { silence: FIRST_S, borne: 0, too_long: None, closed: None }
    }
}

impl Path {
    /// How long silence may last. `most` is what the application allows at most.
    pub fn silence(&self, most: Duration) -> Duration {
        Duration::from_secs(self.silence.into()).min(most)
    }

    /// It bears this silence: the next may be longer, up to a distance from what was too long, if that is worth a failure.
    pub fn on_borne(mut self, silence: u16, now: u64) -> Self {
        self.too_long.take_if(|(_, when)| now.saturating_sub(*when) >= TOO_LONG_FOR_S);
        // Nobody closes what is silent for as long as that.
        self.closed.take_if(|closed| *closed <= silence);
        self.borne = self.borne.max(silence);
        let most = self.too_long.map_or(MOST_S, |(too_long, _)| too_long - too_long / 4);
        let next = silence.saturating_mul(2).min(most);
        self.silence = if next >= silence.saturating_add(silence / 8) { next } else { silence }.clamp(LEAST_S, MOST_S);
        self
    }

    /// This silence was too long: back to the longest that was not.
    fn on_too_long(mut self, silence: u16, now: u64) -> Self {
        self.too_long = Some((silence, now));
        if self.borne >= silence {
            // It was before, so it is another path now.
            self.borne = 0;
        }
        self.silence = if self.borne > 0 { self.borne } else { silence / 2 }.max(LEAST_S);
        self
    }

    /// The connection was closed after this silence, though the network is there. Once it may have been the server that was started anew;
    /// twice in a row after the same time is a habit.
    fn on_closed(self, silence: u16, now: u64) -> Self {
        let is_habit = self.closed.is_some_and(|before| before.abs_diff(silence) <= silence / 10);
        if is_habit { Self { closed: None, ..self }.on_too_long(silence, now) } else { Self { closed: Some(silence), ..self } }
    }
}

/// Why a silence may have been too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sign {
    /// The server's question did not come.
    Missed,
    /// The connection was closed.
    Closed,
}

/// A silence that may have been too long.
#[derive(Debug, Clone)]
pub(super) struct Suspicion {
    since: Instant,
    sign: Sign,
    silence: u16,
    transport: TransportKind,
    /// On which network.
    network: String,
}

impl Suspicion {
    /// Whether it is true, now that the server answers: in the session that was silent, or in the next one.
    ///
    /// Over UDP a connection outlives its way: what it says opens a new one. If it does not, the server was away, and not the way. Over TCP
    /// another connection is needed, and a server that goes away says so.
    fn is_confirmed(&self, same_session: bool, now: Instant) -> bool {
        now < self.since + SOON && (self.sign == Sign::Closed || same_session == is_udp(self.transport))
    }
}

/// The silence of one session.
#[derive(Debug)]
pub(super) struct Quiet {
    /// When we said something last.
    said: Instant,
    /// When the server did.
    heard: Instant,
    /// How the server was told that we are.
    pub told: ClientState,
}

impl Quiet {
    pub fn new(now: Instant, told: ClientState) -> Self {
        Self { said: now, heard: now, told }
    }

    pub fn on_said(&mut self, now: Instant) {
        self.said = now;
    }

    /// Something came. A question of the server's that comes after the silence that it was told shows that the path bears it: says which.
    pub fn on_heard(&mut self, question: bool, now: Instant) -> Option<u16> {
        let silence = self.lasts(now);
        self.heard = now;
        (question && self.is_told() && silence >= self.agreed().mul_f64(0.9)).then_some(self.told.ask_after_s)
    }

    /// Whether the server was told when to ask.
    pub fn is_told(&self) -> bool {
        self.told.ask_after_s > 0
    }

    fn agreed(&self) -> Duration {
        Duration::from_secs(self.told.ask_after_s.into())
    }

    /// How long nothing was said or heard.
    fn lasts(&self, now: Instant) -> Duration {
        now.duration_since(self.said.max(self.heard))
    }

    /// When a question that the server was told to ask has not come.
    pub fn missed_at(&self) -> Option<Instant> {
        self.is_told().then(|| self.said + self.agreed() + GRACE)
    }

    /// Whether the question has just not come, and nothing else has.
    fn is_missed(&self, now: Instant) -> bool {
        self.missed_at().is_some_and(|at| now >= at && now < at + LATE) && self.lasts(now) >= self.agreed()
    }
}

impl Driver {
    /// How the server should know us to be, in this session.
    pub(super) fn wanted_state(&self, session: &Session) -> ClientState {
        self.state(session.transport, self.watchfulness.asks_often(session.pulse.answered()))
    }

    /// How a hello says that we are: it is not known then which transport gets through first.
    pub(super) fn first_state(&self) -> ClientState {
        self.state(self.networks.favourite(), self.watchfulness.asks_often(Instant::now()))
    }

    /// Where we ask often the server need not.
    fn state(&self, transport: TransportKind, often: bool) -> ClientState {
        let silence = self.networks.path(transport).silence(self.config.liveness.idle);
        // At most 300.
        let seconds = u16::try_from(silence.as_secs()).unwrap_or(MOST_S).max(1);
        ClientState { background: self.watchfulness.is_background(), ask_after_s: if often { 0 } else { seconds } }
    }

    /// Something came in a session.
    pub(super) fn on_heard(&mut self, session: &mut Session, question: bool, now: Instant) {
        if let Some(silence) = session.pulse.quiet.on_heard(question, now) {
            let path = self.networks.path(session.transport);
            self.networks.learn(session.transport, path.on_borne(silence, unix_seconds()));
            self.save_networks();
        }
    }

    /// The server is about to be asked. If that is because its own question did not come, the silence may have been too long.
    pub(super) fn on_asking(&mut self, session: &Session, now: Instant) {
        let quiet = &session.pulse.quiet;
        if quiet.is_missed(now) && !session.pulse.is_asked() {
            self.suspect(Sign::Missed, quiet.told.ask_after_s, session.transport, now);
        }
    }

    /// A session's connection ended without a word of the server's.
    pub(super) fn on_closed(&mut self) {
        let Phase::Session(session) = &self.phase else { return };
        let now = Instant::now();
        let silence = session.pulse.quiet.lasts(now).as_secs();
        if session.greeted.is_some() && silence >= LEAST_S.into() {
            // Nobody is silent for longer than the server lets them.
            self.suspect(Sign::Closed, u16::try_from(silence).unwrap_or(MOST_S), session.transport, now);
        }
    }

    fn suspect(&mut self, sign: Sign, silence: u16, transport: TransportKind, now: Instant) {
        self.suspicion = Some(Suspicion { since: now, sign, silence, transport, network: self.networks.name().to_owned() });
    }

    /// The server answers, in the session that was there before or in a new one: so the network was not away.
    pub(super) fn on_server_answers(&mut self, same_session: bool, now: Instant) {
        let here = self.networks.name();
        let is_true = |suspicion: &Suspicion| suspicion.network == here && suspicion.is_confirmed(same_session, now);
        let Some(suspicion) = self.suspicion.take().filter(is_true) else { return };
        let path = self.networks.path(suspicion.transport);
        let path = match suspicion.sign {
            Sign::Missed => path.on_too_long(suspicion.silence, unix_seconds()),
            Sign::Closed => path.on_closed(suspicion.silence, unix_seconds()),
        };
        self.networks.learn(suspicion.transport, path);
        tracing::debug!(?suspicion, ?path, "a silence was too long");
        self.save_networks();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = TOO_LONG_FOR_S;

    /// A network on which a silence of `bears` seconds passes, and which is asked to bear what it is believed to, so many times. Returns the
    /// silences that were tried.
    fn tries(path: &mut Path, bears: u16, from: u64, times: usize) -> Vec<u16> {
        let mut now = from;
        let mut tried = Vec::new();
        for _ in 0..times {
            let silence = path.silence;
            now += u64::from(silence);
            tried.push(silence);
            *path = if silence <= bears { path.on_borne(silence, now) } else { path.on_too_long(silence, now) };
        }
        tried
    }

    #[test]
    fn the_longest_silence_that_a_path_bears_is_found_from_below_and_kept_to() {
        assert_eq!(tries(&mut Path::default(), u16::MAX, 0, 6), [30, 60, 120, 240, 300, 300]);
        assert_eq!(tries(&mut Path::default(), 200, 0, 7), [30, 60, 120, 240, 120, 180, 180]);
        assert_eq!(tries(&mut Path::default(), 60, 0, 9), [30, 60, 120, 60, 90, 60, 68, 60, 60]);
        assert_eq!(tries(&mut Path::default(), 29, 0, 5), [30, 15, 23, 23, 23]);
        assert_eq!(tries(&mut Path::default(), 1, 0, 4), [30, 15, 15, 15], "less is not tried");
    }

    #[test]
    fn a_network_that_changes_is_found_out_anew() {
        let mut path = Path::default();
        tries(&mut path, 200, 0, 10);
        assert_eq!(path.silence, 180);
        // It bears less now.
        assert_eq!(tries(&mut path, 55, 5_000, 7), [180, 90, 45, 68, 45, 51, 51]);
        // It bears more, which is tried a day later, and not before.
        assert_eq!(tries(&mut path, 300, 6_000, 3), [51, 51, 51]);
        assert_eq!(tries(&mut path, 300, 6_000 + DAY, 5), [51, 102, 204, 300, 300]);
    }

    #[test]
    fn the_application_sets_a_limit_and_one_bad_moment_does_not_count_for_ever() {
        let mut path = Path::default();
        tries(&mut path, 300, 0, 10);
        assert_eq!(path.silence(Duration::from_secs(60)), Duration::from_secs(60));
        assert_eq!(path.silence(Duration::from_secs(600)), Duration::from_secs(300));
        path = path.on_too_long(300, 10_000);
        assert_eq!(tries(&mut path, 300, 10_000, 3), [150, 225, 225]);
        assert_eq!(tries(&mut path, 300, 10_000 + DAY, 2), [225, 300]);
    }

    #[test]
    fn somebody_on_the_way_who_closes_what_is_silent_is_noticed_by_doing_it_twice() {
        let mut path = Path::default();
        tries(&mut path, 300, 0, 10);
        // A server that is started anew, now and then.
        for silence in [12, 200, 100, 30] {
            path = path.on_closed(silence, 0);
            assert_eq!(path.silence, 300);
        }
        // One that was closed at about the same time as another long before, with longer silences in between, is no habit.
        path = path.on_closed(60, 0).on_borne(300, 0).on_closed(61, 0);
        assert_eq!(path.silence, 300);
        path = path.on_closed(61, 0);
        assert_eq!(path.too_long, Some((61, 0)));
        assert_eq!(tries(&mut path, 59, 0, 5), [30, 46, 46, 46, 46]);
    }

    struct Test {
        begun: Instant,
        quiet: Quiet,
    }

    impl Test {
        /// The server was told so a moment ago.
        fn new(ask_after_s: u16) -> Self {
            let begun = Instant::now();
            Self { begun, quiet: Quiet::new(begun, ClientState { background: false, ask_after_s }) }
        }

        fn at(&self, seconds: f64) -> Instant {
            self.begun + Duration::from_secs_f64(seconds)
        }
    }

    #[test]
    fn a_question_shows_that_the_path_bears_the_silence_before_it() {
        let mut test = Test::new(60);
        assert_eq!(test.quiet.on_heard(true, test.at(60.5)), Some(60));
        // Too soon after that, whatever the reason.
        assert_eq!(test.quiet.on_heard(true, test.at(70.0)), None);
        test.quiet.on_said(test.at(71.0));
        assert_eq!(test.quiet.on_heard(false, test.at(131.0)), None, "not a question");
        assert_eq!(test.quiet.on_heard(true, test.at(132.0)), None, "there was no silence before it");
        let mut untold = Test::new(0);
        assert_eq!(untold.quiet.on_heard(true, untold.at(60.0)), None, "not as it was told");
    }

    #[test]
    fn a_question_that_does_not_come_is_missed_unless_the_clock_or_the_silence_is_broken() {
        let mut test = Test::new(60);
        assert_eq!(test.quiet.missed_at(), Some(test.at(70.0)));
        assert!(!test.quiet.is_missed(test.at(69.9)));
        assert!(test.quiet.is_missed(test.at(70.0)));
        assert!(!test.quiet.is_missed(test.at(75.0)), "we were not there");
        // Something came, so the way was open later than the silence began.
        test.quiet.on_heard(false, test.at(50.0));
        assert!(!test.quiet.is_missed(test.at(70.0)));
        test.quiet.on_said(test.at(80.0));
        assert_eq!(test.quiet.missed_at(), Some(test.at(150.0)));
        assert_eq!(Test::new(0).quiet.missed_at(), None);
    }

    #[test]
    fn only_an_answer_that_comes_soon_and_where_it_must_confirms() {
        let since = Instant::now();
        let confirmed = |sign, transport, same_session, seconds| {
            let suspicion = Suspicion { since, sign, silence: 60, transport, network: String::new() };
            suspicion.is_confirmed(same_session, since + Duration::from_secs(seconds))
        };
        assert!(confirmed(Sign::Missed, TransportKind::Quic, true, 1));
        assert!(!confirmed(Sign::Missed, TransportKind::Quic, true, 10), "the network was away");
        assert!(!confirmed(Sign::Missed, TransportKind::WebTransport, false, 1), "the server was away");
        assert!(confirmed(Sign::Missed, TransportKind::WebSocket, false, 1));
        assert!(!confirmed(Sign::Missed, TransportKind::WebSocket, true, 1), "the connection is alive, so nobody forgot it");
        assert!(confirmed(Sign::Closed, TransportKind::WebSocket, false, 1));
    }
}
