use super::Standing::{Away, Here, Suspended};
use super::*;
use whimbrel_protocol::ConversationId;

const ANN: UserNo = UserNo(1);
const BOB: UserNo = UserNo(2);
const PATIENCE: Duration = Duration::from_secs(10);

/// Bob's devices, and what is on his mind.
struct Test {
    minds: Minds,
    begun: Instant,
    now: Instant,
    devices: Vec<(&'static str, u64, Standing)>,
    head: u64,
}

impl Test {
    fn new(devices: &[(&'static str, u64, Standing)]) -> Self {
        let now = Instant::now();
        Self { minds: Minds::new(PATIENCE), begun: now, now, devices: devices.to_vec(), head: 0 }
    }

    /// Ann writes to Bob after so many milliseconds.
    fn message(&mut self, after_ms: u64) {
        self.now += Duration::from_millis(after_ms);
        self.head += 1;
        let news = News {
            from: ANN,
            conversation: ConversationId(1),
            message: ConversationSeq(self.head),
            time: Time(self.head),
            text: format!("message {}", self.head),
        };
        assert!(self.minds.on_message(self.now, BOB, MailboxSeq(self.head), &Arc::new(news)));
    }

    /// A device has taken everything up to here, or stands otherwise.
    fn set(&mut self, device: &str, cursor: u64, standing: Standing) {
        let found = self.devices.iter_mut().find(|(name, ..)| *name == device).unwrap();
        (found.1, found.2) = (cursor, standing);
    }

    /// Bob's devices are looked at whenever they are due, up to so many milliseconds from now. Returns which were handed over: when, since
    /// the beginning, about which message, and which.
    fn passes(&mut self, ms: u64) -> Vec<(u128, u64, Vec<&'static str>)> {
        let end = self.now + Duration::from_millis(ms);
        let mut handed = Vec::new();
        while let Some(at) = self.minds.next().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            assert_eq!(self.minds.due(self.now), [BOB]);
            let stands = |(slot, (name, cursor, standing)): (usize, &(&str, u64, Standing))| Stands {
                key: DeviceKey { user: BOB, slot: u8::try_from(slot).unwrap() },
                name: DeviceId::new(name).unwrap(),
                cursor: MailboxSeq(*cursor),
                standing: *standing,
            };
            let (devices, news) = self.minds.look(self.now, BOB, self.devices.iter().enumerate().map(stands).collect());
            let known = |id: &DeviceId| self.devices.iter().find(|(name, ..)| *name == id.as_str()).unwrap().0;
            if !devices.is_empty() {
                let names = devices.iter().map(|(id, _)| known(id)).collect();
                handed.push(((self.now - self.begun).as_millis(), news.unwrap().message.0, names));
            }
        }
        self.now = end;
        handed
    }
}

#[test]
fn who_is_suspended_or_away_is_handed_over_at_once_and_once() {
    let mut test = Test::new(&[("phone", 0, Suspended), ("tablet", 0, Away), ("desk", 0, Here)]);
    test.message(0);
    assert_eq!(test.passes(0), [(0, 1, vec!["phone", "tablet"])]);
    assert_eq!(test.minds.users.len(), 1, "the desk may still take it");
    test.set("desk", 1, Here);
    assert_eq!(test.passes(1_000), []);
    assert!(test.minds.users.is_empty() && test.minds.agenda.is_empty(), "what was told, or taken, is off their mind soon");
    assert_eq!(test.passes(59_000), []);
    test.message(0);
    assert_eq!(test.passes(0), [(60_000, 2, vec!["phone", "tablet"])], "the next message is another matter");
}

#[test]
fn who_is_connected_and_does_not_take_it_is_handed_over_after_a_while() {
    let mut test = Test::new(&[("phone", 0, Here), ("desk", 0, Here)]);
    test.message(0);
    assert_eq!(test.passes(9_999), []);
    test.set("desk", 1, Here);
    assert_eq!(test.passes(1), [(10_000, 1, vec!["phone"])]);
    assert_eq!(test.passes(60_000), []);
}

#[test]
fn a_message_after_one_that_was_taken_has_its_own_time() {
    let mut test = Test::new(&[("phone", 0, Here)]);
    test.message(0);
    test.message(300);
    test.set("phone", 1, Here);
    assert_eq!(test.passes(60_000), [(10_000, 2, vec!["phone"])], "with the first, which came within the second before");
    let mut test = Test::new(&[("phone", 0, Here)]);
    test.message(0);
    test.message(3_000);
    test.set("phone", 1, Here);
    assert_eq!(test.passes(60_000), [(13_000, 2, vec!["phone"])]);
}

#[test]
fn a_stream_of_messages_does_not_put_off_who_is_silent_and_does_not_touch_who_takes_them() {
    let mut test = Test::new(&[("phone", 0, Here), ("desk", 0, Here)]);
    let mut handed = Vec::new();
    for second in 0..13 {
        // A message behind, always, as one under way is.
        test.set("desk", second, Here);
        test.message(0);
        handed.extend(test.passes(1_000));
    }
    // From the first that was due on, at each look; the message of the moment of a look comes after it.
    let phone = |second: u64| (u128::from(second) * 1_000, second, vec!["phone"]);
    assert_eq!(handed, [phone(10), phone(11), phone(12), phone(13)]);
}

#[test]
fn users_who_take_everything_or_have_no_device_leave_room_for_others() {
    let mut test = Test::new(&[("desk", 0, Here)]);
    test.message(0);
    test.set("desk", 1, Here);
    assert_eq!(test.passes(0), []);
    assert!(test.minds.users.is_empty(), "taken before anybody looked");
    let mut test = Test::new(&[]);
    test.message(0);
    assert_eq!(test.passes(0), []);
    assert!(test.minds.users.is_empty());
}

#[test]
fn when_the_server_leaves_nobody_is_waited_for() {
    let mut test = Test::new(&[("phone", 0, Here), ("desk", 0, Here), ("tablet", 0, Suspended)]);
    test.message(0);
    assert_eq!(test.passes(2_000), [(0, 1, vec!["tablet"])]);
    test.set("desk", 1, Here);
    test.minds.on_leaving(test.now);
    assert_eq!(test.passes(0), [(2_000, 1, vec!["phone"])]);
    assert_eq!(test.minds.due(test.now), []);
}

#[test]
fn a_burst_is_told_together() {
    let mut test = Test::new(&[("phone", 0, Suspended)]);
    let mut handed = Vec::new();
    for _ in 0..100 {
        test.message(0);
        handed.extend(test.passes(20));
    }
    assert_eq!(handed.iter().map(|(at, message, _)| (*at, *message)).collect::<Vec<_>>(), [(0, 1), (1_000, 50), (2_000, 100)]);
    assert_eq!(test.passes(60_000), [], "that was the last one");
}

#[test]
fn who_is_suspended_before_it_took_a_message_is_handed_over_at_once() {
    let mut test = Test::new(&[("phone", 0, Here)]);
    test.message(0);
    assert_eq!(test.passes(3_000), []);
    test.set("phone", 0, Suspended);
    test.minds.hurry(test.now, BOB);
    assert_eq!(test.passes(0), [(3_000, 1, vec!["phone"])]);
    assert_eq!(test.passes(60_000), []);
    test.minds.hurry(test.now, BOB);
    assert_eq!(test.passes(60_000), [], "there is nothing on his mind");
}

#[test]
fn what_cannot_be_looked_at_is_looked_at_later() {
    let mut test = Test::new(&[("phone", 0, Away)]);
    test.message(0);
    assert_eq!(test.minds.due(test.now), [BOB]);
    test.minds.put_off(test.now, BOB);
    assert_eq!(test.minds.due(test.now), []);
    assert_eq!(test.passes(60_000), [(1_000, 1, vec!["phone"])]);
}

#[test]
fn what_is_on_minds_is_bounded() {
    let mut test = Test::new(&[]);
    test.message(0);
    let news = test.minds.users[&BOB].newest.1.clone();
    let rest = (USERS_MAX as u32..).take(USERS_MAX - 1);
    assert!(rest.into_iter().all(|user| test.minds.on_message(test.now, UserNo(user), MailboxSeq(1), &news)));
    assert!(!test.minds.on_message(test.now, ANN, MailboxSeq(1), &news));
    assert!(test.minds.on_message(test.now, BOB, MailboxSeq(2), &news), "who has one may have another");
    assert_eq!(test.minds.due(test.now).len(), LOOKS_MAX);
}
