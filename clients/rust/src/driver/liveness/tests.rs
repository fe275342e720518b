use super::*;
use whimbrel_protocol::frame::ClientState;

const LIVENESS: Liveness =
    Liveness { active: Duration::from_secs(4), idle: Duration::from_secs(25), give_up_after: Duration::from_secs(3) };

struct Test {
    now: Instant,
    watchfulness: Watchfulness,
    pulse: Pulse,
    asked: Option<Ping>,
}

fn pulse(now: Instant, round_trip_ms: u64, steady: bool) -> Pulse {
    // The server is to ask after 15 s; its question is missed 10 s later.
    let quiet = Quiet::new(now, ClientState { background: false, ask_after_s: 15 });
    Pulse::new(now, Duration::from_millis(round_trip_ms), steady, u32::MAX, quiet)
}

impl Test {
    fn new(round_trip_ms: u64) -> Self {
        let now = Instant::now();
        Self { now, watchfulness: Watchfulness::new(LIVENESS, now), pulse: pulse(now, round_trip_ms, false), asked: None }
    }

    fn steady() -> Self {
        let mut test = Self::new(20);
        test.pulse = pulse(test.now, 20, true);
        test
    }

    /// Lets time pass up to the next thing to do; returns what it is, and how many milliseconds that took.
    fn next(&mut self) -> (Verdict, u128) {
        let due = self.pulse.due(&self.watchfulness).expect("there is nothing to do any more");
        let before = self.now;
        self.now = due.max(before);
        if due > before {
            let just_before = due - Duration::from_millis(1);
            assert_eq!(self.pulse.check(just_before, &self.watchfulness), Verdict::Fine, "too early");
        }
        let verdict = self.pulse.check(self.now, &self.watchfulness);
        if matches!(verdict, Verdict::Probe(_)) {
            self.pulse.quiet.on_said(self.now);
        }
        (verdict, (self.now - before).as_millis())
    }

    /// The next thing to do is to ask, after so many milliseconds.
    fn asks(&mut self, after_ms: u128) {
        let (verdict, took) = self.next();
        let Verdict::Probe(ping) = verdict else { panic!("{verdict:?} after {took} ms") };
        assert_eq!(took, after_ms);
        self.asked = Some(ping);
    }

    /// The next thing to do is to doubt, after so many milliseconds.
    fn doubts(&mut self, after_ms: u128) {
        let (verdict, took) = self.next();
        assert!(matches!(verdict, Verdict::Doubt(_)), "{verdict:?} after {took} ms");
        assert_eq!(took, after_ms);
        assert!(self.pulse.is_doubted());
    }

    fn later(&mut self, ms: u64) {
        self.now += Duration::from_millis(ms);
    }

    /// The server answers the last probe after so many milliseconds.
    fn pong(&mut self, ms: u64) {
        self.later(ms);
        let ping = self.asked.take().unwrap();
        self.pulse.on_pong(&ping, self.now, &mut self.watchfulness);
        assert!(!self.pulse.is_doubted());
    }

    fn welcomed_again(&mut self) {
        self.pulse = pulse(self.now, 20, false);
    }
}

#[test]
fn a_dead_server_is_noticed_within_seconds_while_the_application_is_active() {
    let mut test = Test::new(20);
    test.asks(4_000);
    test.pong(20);
    test.asks(4_000);
    assert_eq!(test.next(), (Verdict::Doubt(Duration::from_secs(7)), 3_000));
    assert_eq!(test.pulse.due(&test.watchfulness), None, "there is nothing more to say until it answers");
    test.pong(10_000);
    test.asks(4_000);
}

#[test]
fn who_is_idle_is_woken_seldom_until_there_is_something_to_do() {
    let mut test = Test::new(20);
    let mut probes = 0;
    while test.now < test.watchfulness.active_until {
        test.asks(if probes < 14 { 4_000 } else { 24_980 });
        test.pong(20);
        probes += 1;
    }
    assert!((13..=16).contains(&probes), "{probes} probes in the first minute");
    test.asks(24_980);
    test.pong(20);
    // Somebody comes back after a while: whether the server is there is asked at once.
    test.later(10_000);
    test.watchfulness.on_active(true);
    test.asks(0);
    test.pong(20);
    test.asks(4_000);
    test.pong(20);
    test.watchfulness.on_active(false);
    test.asks(24_980);
    test.pong(20);
    test.later(10_000);
    test.watchfulness.on_wish(test.now);
    test.asks(0);
}

#[test]
fn what_stays_unanswered_for_a_few_round_trips_is_probed() {
    for (round_trip_ms, after_ms) in [(1, 500), (200, 800), (3_000, 4_000)] {
        let mut test = Test::new(round_trip_ms);
        test.pulse.on_owing(test.now);
        test.asks(after_ms);
    }
    // Also where the application was idle, and not for the second thing anew.
    let mut test = Test::new(20);
    test.later(100_000);
    test.pulse.on_answer(test.now);
    test.pulse.on_owing(test.now);
    test.pulse.quiet.on_said(test.now);
    test.later(400);
    test.pulse.on_owing(test.now);
    test.asks(100);
    assert_eq!(test.next(), (Verdict::Doubt(Duration::from_millis(3_500)), 3_000));
    // What was answered is owed no longer.
    let mut test = Test::new(20);
    test.pulse.on_owing(test.now);
    test.pulse.on_answer(test.now);
    test.asks(4_000);
}

#[test]
fn a_network_that_needs_longer_gets_more_time() {
    let mut test = Test::new(20);
    for patience in [3_000, 6_000, 12_000, 24_000, 48_000, 48_000] {
        assert!(matches!(test.next().0, Verdict::Probe(_)));
        test.doubts(patience);
        test.watchfulness.on_silence();
        test.welcomed_again();
        test.watchfulness.on_active(true);
    }
    // An answer that comes late is no reason to be impatient again, one in time is.
    for (takes_ms, patience) in [(40_000, 48_000), (100, 3_000)] {
        assert!(matches!(test.next().0, Verdict::Probe(_)));
        test.asked = Some(Ping { id: test.pulse.next.wrapping_sub(1) });
        test.pong(takes_ms);
        assert!(matches!(test.next().0, Verdict::Probe(_)));
        test.doubts(patience);
        test.pulse.on_answer(test.now);
    }
}

#[test]
fn the_answer_to_a_command_shows_as_much_as_one_to_a_probe() {
    let mut test = Test::new(20);
    for _ in 0..3 {
        test.watchfulness.on_silence();
    }
    let applied = |test: &mut Test, cseq| test.pulse.on_applied(CommandSeq(cseq), test.now, &mut test.watchfulness);
    // On a busy way answers follow each other closely, however long each took.
    test.pulse.on_command(CommandSeq(4), test.now);
    test.later(5_000);
    test.pulse.on_command(CommandSeq(5), test.now);
    applied(&mut test, 3);
    assert_eq!(test.watchfulness.silences, 3, "an answer to what another session sent");
    applied(&mut test, 4);
    assert_eq!(test.watchfulness.silences, 3);
    test.pulse.on_command(CommandSeq(6), test.now);
    test.pulse.on_command(CommandSeq(7), test.now);
    test.later(2_000);
    applied(&mut test, 7);
    assert_eq!(test.watchfulness.silences, 0);
}

#[test]
fn quic_is_given_something_to_send_until_an_answer_comes() {
    let mut test = Test::steady();
    test.pulse.on_owing(test.now);
    assert!(!test.pulse.is_full());
    test.asks(500);
    assert!(!test.pulse.is_full(), "the answer may be on its way");
    for _ in 0..11 {
        test.asks(250);
        assert!(test.pulse.is_full());
    }
    test.doubts(250);
    test.asks(0);
    for _ in 0..20 {
        test.asks(250);
    }
    // The oldest of those that are remembered, a late one: an answer, but no measure of the way.
    let newest = test.asked.unwrap().id;
    test.pulse.on_pong(&Ping { id: newest.wrapping_sub(31) }, test.now, &mut test.watchfulness);
    assert!(!test.pulse.is_doubted() && !test.pulse.is_full());
    assert_eq!(test.pulse.round_trip(), Duration::from_millis(20));
    test.pong(28);
    assert_eq!(test.pulse.round_trip(), Duration::from_millis(21));
    test.asks(4_000);
    // A phone in a pocket sends less.
    let mut test = Test::steady();
    test.later(70_000);
    assert!(matches!(test.next().0, Verdict::Probe(_)));
    test.asks(1_000);
}

#[test]
fn nobody_is_doubted_while_nobody_listens() {
    let mut test = Test::new(20);
    test.pulse.on_owing(test.now);
    test.asks(500);
    test.later(100_000);
    test.pulse.on_deaf(test.now);
    assert_eq!(test.pulse.check(test.now, &test.watchfulness), Verdict::Fine);
    test.watchfulness.on_active(true);
    test.asks(4_000);
}

#[test]
fn a_move_that_fails_is_a_reason_to_doubt_until_something_answers() {
    let mut test = Test::steady();
    test.pulse.doubt(test.now);
    assert!(test.pulse.is_doubted());
    test.asks(250);
    test.pong(20);
    test.asks(4_000);
}
