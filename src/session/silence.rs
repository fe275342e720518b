//! How long a client may be silent: when it is asked whether it is there, and when it is given up.

use std::time::Duration;
use tokio::time::Instant;
use whimbrel_protocol::TransportKind;
use whimbrel_protocol::frame::ClientState;

/// A client that was silent for this long is asked whether it is there, unless it says otherwise …
const ASK_AFTER: Duration = Duration::from_secs(30);
/// … sooner over UDP: a NAT forgets an idle mapping after 30 s, or before, and browsers give up a connection …
const ASK_AFTER_UDP: Duration = Duration::from_secs(15);
/// … from this on …
const ASK_AFTER_MIN: Duration = Duration::from_secs(10);
/// … up to this: for so long it may look as if somebody were there who is not.
const ASK_AFTER_MAX: Duration = Duration::from_secs(300);
/// … and given up this long after that.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// What to do about it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Silent {
    /// Nothing, yet.
    Wait,
    /// Ask by the transport's own means, if it has any.
    Ask,
    /// Ask so that the client's program hears it.
    AskAloud,
    /// Give it up.
    Dead,
}

/// What was heard of a client, and how it wants to be asked.
#[derive(Debug)]
pub(super) struct Silence {
    kind: TransportKind,
    state: ClientState,
    heard: Instant,
    asked: bool,
}

impl Silence {
    pub fn new(kind: TransportKind, state: ClientState, now: Instant) -> Self {
        Self { kind, state, heard: now, asked: false }
    }

    /// The client says how it is.
    pub fn set(&mut self, state: ClientState) {
        self.state = state;
    }

    /// How it is.
    pub fn state(&self) -> ClientState {
        self.state
    }

    /// Something came.
    pub fn on_heard(&mut self, now: Instant) {
        self.heard = now;
        self.asked = false;
    }

    /// When [`check`](Self::check) has something to say.
    pub fn due(&self) -> Instant {
        let ask_after = match (self.state.ask_after_s, self.kind) {
            (0, TransportKind::Quic | TransportKind::WebTransport) => ASK_AFTER_UDP,
            (0, _) => ASK_AFTER,
            (seconds, _) => Duration::from_secs(seconds.into()).clamp(ASK_AFTER_MIN, ASK_AFTER_MAX),
        };
        self.heard + ask_after + if self.asked { ANSWER_TIMEOUT } else { Duration::ZERO }
    }

    /// What to do now.
    pub fn check(&mut self, now: Instant) -> Silent {
        if now < self.due() {
            return Silent::Wait;
        }
        match (std::mem::replace(&mut self.asked, true), self.state.ask_after_s) {
            (true, _) => Silent::Dead,
            (false, 0) => Silent::Ask,
            // Who says when to ask wants to hear the question.
            (false, _) => Silent::AskAloud,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Test(Silence, Instant);

    impl Test {
        fn new(kind: TransportKind, ask_after_s: u16) -> Self {
            let now = Instant::now();
            Self(Silence::new(kind, ClientState { background: false, ask_after_s }, now), now)
        }

        fn passes(&mut self, seconds: u64, then: &Silent) {
            let Self(silence, now) = self;
            *now += Duration::from_secs(seconds);
            assert_eq!(silence.check(*now - Duration::from_millis(1)), Silent::Wait);
            assert_eq!(silence.check(*now), *then);
        }
    }

    #[test]
    fn who_says_nothing_is_asked_as_the_transport_needs_it_and_given_up() {
        for (kind, seconds) in [(TransportKind::WebSocket, 30), (TransportKind::WebSocketJson, 30), (TransportKind::Quic, 15)] {
            let mut test = Test::new(kind, 0);
            test.passes(seconds, &Silent::Ask);
            test.1 += Duration::from_secs(19);
            test.0.on_heard(test.1);
            test.passes(seconds, &Silent::Ask);
            test.passes(20, &Silent::Dead);
        }
    }

    #[test]
    fn who_says_when_is_asked_then_within_bounds() {
        for (said, seconds) in [(1, 10), (10, 10), (240, 240), (300, 300), (u16::MAX, 300)] {
            let mut test = Test::new(TransportKind::WebTransport, said);
            test.passes(seconds, &Silent::AskAloud);
            test.passes(20, &Silent::Dead);
        }
        let mut test = Test::new(TransportKind::Quic, 0);
        test.0.set(ClientState { background: true, ask_after_s: 60 });
        test.passes(60, &Silent::AskAloud);
    }
}
