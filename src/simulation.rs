//! The core, both ends, under every accident: the devices' real outbox and cursor against the real rules and a store that fails, in one
//! thread, seeded.
//!
//! Sessions may begin before the end of their handshake, with commands behind the hello, and what was said then may be played again at
//! any time. Between any two steps a device or the server may die, a connection break, a frame come twice, a commit fail or leave its outcome
//! open, a device be restored from a backup. At the end everything is let run, and then: each command took effect once, and each
//! device has taken what its user's mailbox holds, in order, once.

mod device;

use crate::engine::{Engine, Provisional, Viewer};
use crate::session::commands::Commands;
use crate::store::{FailPoint, MemoryStore, Store};
use device::{Device, Disk, Session, numbers};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use whimbrel_protocol::frame::{Ack, Applied, ClientFrame, Command, Content, EventBody, Hello, Origin, Send, ServerFrame, Target, Welcome};
use whimbrel_protocol::{
    Agreement, CommandSeq, ConversationId, ConversationSeq, DeviceId, Downlink, DownlinkState, MailboxSeq, Nonce, SessionEpoch, Taken,
    Time, Uplink, UserId, VERSION_MAX, VERSION_MIN,
};

const USERS: [&str; 3] = ["ann", "bob", "cem"];
const DEVICES: [&str; 2] = ["phone", "laptop"];
/// What somebody keeps who records.
const RECORDED_MAX: usize = 32;

/// A fault of the implementation under test, planted to see that it is found.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Planted {
    Nothing,
    /// The server tells a device that everything it took in is applied, before it is.
    AppliedTooEarly,
    /// A device does not keep what it has taken.
    ForgetsTaken,
    /// A device takes events whatever its cursor says.
    TakesTwice,
}

struct World {
    random: StdRng,
    store: Arc<MemoryStore>,
    engine: Arc<Engine>,
    devices: Vec<Device>,
    texts: u32,
    /// What was said before the end of a handshake, for who recorded it.
    recorded: VecDeque<(Hello, Vec<Command>)>,
    /// Texts by nonce, of everything that was ever durable on a device.
    said: HashMap<Nonce, String>,
    now: Duration,
    planted: Planted,
}

impl World {
    fn new(seed: u64, planted: Planted) -> Self {
        let store = Arc::new(MemoryStore::new());
        let device = |user: &str, name: &str| Device {
            user: UserId::new(user).unwrap(),
            name: DeviceId::new(name).unwrap(),
            disk: Disk::default(),
            backup: Disk::default(),
            instance: Nonce::default(),
            attempt: 0,
            uplink: Uplink::default(),
            downlink: Downlink::default(),
            session: None,
        };
        let devices = USERS.iter().flat_map(|user| DEVICES.map(|name| device(user, name))).collect();
        let engine = Engine::stepped(store.clone());
        let (random, recorded) = (StdRng::seed_from_u64(seed), VecDeque::new());
        Self { random, store, engine, devices, texts: 0, recorded, said: HashMap::new(), now: Duration::ZERO, planted }
    }

    fn step(&mut self, accidents: bool) {
        self.now += Duration::from_millis(7);
        let at = self.random.random_range(0..self.devices.len());
        match self.random.random_range(0..if accidents { 120 } else { 100 }) {
            0..9 => self.connect(at),
            9..12 => self.confirm(at),
            12..30 if accidents => self.say(at),
            12..42 => self.transmit(at),
            42..57 => self.server_takes(at),
            57..65 => {
                let max = self.random.random_range(1..20);
                self.engine.step_commit(max);
            }
            65..80 => self.server_sends(at),
            80..100 => self.device_takes(at),
            100..106 => self.devices[at].session = None,
            106..109 => self.restart(at),
            109..110 => self.play(),
            110..112 => self.server_dies(),
            112..116 => {
                let points = [FailPoint::BeforeCommit, FailPoint::AfterCommit, FailPoint::UnknownNotCommitted];
                self.store.fail_next(points[self.random.random_range(0..points.len())]);
                self.engine.step_commit(usize::MAX);
            }
            116..118 => self.devices[at].backup = self.devices[at].disk.clone(),
            _ => {
                // The backup may be of any age; what was said since is gone from the device, though perhaps not from the server.
                self.devices[at].disk = self.devices[at].backup.clone();
                self.restart(at);
            }
        }
    }

    fn say(&mut self, at: usize) {
        let device = &mut self.devices[at];
        self.texts += 1;
        let text = format!("{} {}", device.user, self.texts);
        let nonce = Nonce(self.random.random());
        let to = Target::User(UserId::new(USERS[self.random.random_range(0..USERS.len())]).unwrap());
        let content = Content::text(text.clone());
        let command = device.uplink.enqueue(nonce, Send { to, content }.into());
        device.disk.commands.push(command);
        device.disk.said.insert(nonce, text.clone());
        self.said.insert(nonce, text);
    }

    fn connect(&mut self, at: usize) {
        if self.devices[at].session.as_ref().is_some_and(|session| session.handle.end().is_none()) {
            return;
        }
        let device = &mut self.devices[at];
        device.attempt += 1;
        let hello = Hello {
            min_version: VERSION_MIN,
            max_version: VERSION_MAX,
            user: device.user.clone(),
            device: device.name.clone(),
            token: String::new(),
            agent: String::new(),
            instance: device.instance,
            attempt: device.attempt,
            incarnation: device.uplink.incarnation(),
            position: device.downlink.position(),
            origin: Origin::Oldest,
            extensions: Vec::new(),
        };
        // Only where the server knows it just as it says; else the handshake ends first.
        let early = self.random.random_bool(0.5);
        let early = if early { self.engine.step_provisional(&device.user, &hello).unwrap_or_default() } else { None };
        let mut up = VecDeque::new();
        let (entered, provisional) = match early {
            Some(entered) => {
                let opening: Vec<Command> = device.uplink.pending().take(self.random.random_range(0..6)).cloned().collect();
                up.extend(opening.iter().cloned().map(ClientFrame::Command));
                if let Some(last) = opening.last() {
                    device.uplink.on_opened(last.incarnation, last.cseq);
                }
                self.recorded.push_back((hello.clone(), opening));
                self.recorded.drain(..self.recorded.len().saturating_sub(RECORDED_MAX));
                let provisional = Provisional::new(device.user.clone(), hello, &entered);
                (entered, Some(provisional))
            }
            None => match self.engine.step_hello(&device.user, &hello) {
                Ok(entered) => (entered, None),
                Err(_) => return,
            },
        };
        let welcome = Welcome {
            version: VERSION_MAX,
            user: device.user.clone(),
            session_epoch: SessionEpoch(0),
            epoch: self.store.epoch(),
            incarnation: entered.arrival.incarnation,
            applied: entered.arrival.applied,
            applied_nonce: entered.arrival.applied_nonce,
            head: entered.head,
            begin: entered.begin,
            window: crate::engine::WINDOW,
            max_text: 0,
            time: Time(0),
            endpoints: Vec::new(),
            extensions: Vec::new(),
        };
        assert!(entered.begin.reset.is_none(), "nothing was trimmed or restored at the server");
        let before: Vec<(u64, u64, Nonce)> = numbers(&device.uplink);
        match device.uplink.on_welcome(&welcome) {
            Agreement::Agreed | Agreement::Renumbered => {}
            Agreement::Disagreed(_) => {
                device.disk.outbox = device.uplink.state();
                device.session = None;
                return;
            }
        }
        device.store_outbox(&before);
        let resumed = device.downlink.on_welcome(&welcome);
        device.disk.position = resumed.position.or(device.disk.position);
        device.session = Some(Session {
            commands: Commands::new(entered.arrival.incarnation, entered.arrival.applied),
            viewer: Viewer {
                device: entered.arrival.device,
                user: device.user.clone(),
                incarnation: entered.arrival.incarnation,
                full_names: self.random.random(),
            },
            sent: entered.begin.cursor,
            answered: entered.arrival.applied,
            handle: entered.session,
            provisional,
            up,
            down: VecDeque::new(),
            copies_up: Vec::new(),
            copies_down: Vec::new(),
        });
    }

    /// The end of a handshake.
    fn confirm(&mut self, at: usize) {
        let device = &mut self.devices[at];
        let Some(provisional) = device.session.as_mut().and_then(|session| session.provisional.take()) else { return };
        if self.engine.step_confirm(&provisional).is_err() {
            device.session = None;
        }
    }

    /// Somebody plays what they recorded.
    fn play(&mut self) {
        if self.recorded.is_empty() {
            return;
        }
        let (hello, opening) = self.recorded[self.random.random_range(0..self.recorded.len())].clone();
        let Ok(Some(entered)) = self.engine.step_provisional(&hello.user, &hello) else { return };
        let mut commands = Commands::new(entered.arrival.incarnation, entered.arrival.applied);
        for command in opening {
            // It may be in error: what it plays is old.
            let _ = commands.take(command, entered.session.applied(), &mut |command| self.engine.submit(&entered.session, command));
        }
    }

    fn transmit(&mut self, at: usize) {
        let device = &mut self.devices[at];
        let Some(session) = &mut device.session else { return };
        while let Some(command) = device.uplink.poll_transmit(self.now) {
            session.up.push_back(ClientFrame::Command(command.clone()));
            if self.random.random_bool(0.1) {
                session.up.push_back(ClientFrame::Command(command.clone()));
            }
            if self.random.random_bool(0.3) {
                session.copies_up.push(command.clone());
            }
        }
        if let Some(ack) = device.downlink.poll_ack(self.now) {
            session.up.push_back(ClientFrame::Ack(ack));
        }
    }

    fn server_takes(&mut self, at: usize) {
        let Some(session) = &mut self.devices[at].session else { return };
        let (engine, handle) = (&self.engine, &session.handle);
        let mut submit = |command| engine.submit(handle, command);
        if !session.copies_up.is_empty() && self.random.random_bool(0.5) {
            // Datagrams come whenever they like.
            let copy = session.copies_up[self.random.random_range(0..session.copies_up.len())].clone();
            assert_eq!(session.commands.take_copy(copy, handle.applied(), &mut submit), Ok(()), "a copy is never in error");
        }
        match session.up.pop_front() {
            Some(ClientFrame::Command(command)) => {
                let taken = session.commands.take(command, handle.applied(), &mut submit);
                assert_eq!(taken, Ok(()), "an honest device is never in error");
            }
            Some(ClientFrame::Ack(Ack { seq })) => assert!(seq <= session.sent, "nobody acknowledges what was not sent"),
            _ => {}
        }
        if self.planted == Planted::AppliedTooEarly && session.up.is_empty() {
            let cseq = CommandSeq(session.answered.0 + 1);
            session.down.push_back(ServerFrame::Applied(Applied { cseq }));
        }
    }

    fn server_sends(&mut self, at: usize) {
        let Some(session) = &mut self.devices[at].session else { return };
        if session.handle.applied() > session.answered {
            session.answered = session.handle.applied();
            session.down.push_back(ServerFrame::Applied(Applied { cseq: session.answered }));
        }
        let limit = if session.sent < session.handle.head() { self.random.random_range(1..6) } else { 0 };
        for event in self.engine.step_events(&session.viewer, session.sent, limit) {
            assert_eq!(event.seq, session.sent.next(), "the mailbox has a gap");
            session.sent = event.through();
            if self.random.random_bool(0.1) {
                session.down.push_back(ServerFrame::Event(event.clone()));
            }
            if self.random.random_bool(0.3) {
                session.copies_down.push(event.clone());
            }
            session.down.push_back(ServerFrame::Event(event));
        }
    }

    fn device_takes(&mut self, at: usize) {
        let device = &mut self.devices[at];
        let Some(session) = &mut device.session else { return };
        let copied = !session.copies_down.is_empty() && self.random.random_bool(0.3);
        let next = if copied {
            let copy = session.copies_down[self.random.random_range(0..session.copies_down.len())].clone();
            Some(ServerFrame::Event(copy))
        } else {
            session.down.pop_front()
        };
        match next {
            Some(ServerFrame::Applied(applied)) => {
                let before = numbers(&device.uplink);
                device.uplink.on_applied(applied.cseq);
                device.store_outbox(&before);
            }
            Some(ServerFrame::Event(event)) if self.planted == Planted::TakesTwice => device.store_event(&event),
            Some(ServerFrame::Event(event)) => {
                let Taken::Next(events) = device.downlink.on_event(event) else { return };
                for event in events {
                    let position = device.downlink.position_at(&event);
                    if self.planted != Planted::ForgetsTaken || !self.random.random_bool(0.05) {
                        device.store_event(&event);
                    }
                    device.disk.position = Some(position);
                    device.downlink.on_stored(position, self.now);
                }
            }
            _ => {}
        }
    }

    fn restart(&mut self, at: usize) {
        let device = &mut self.devices[at];
        device.session = None;
        device.instance = Nonce(self.random.random());
        device.uplink = Uplink::restore(device.disk.outbox, device.disk.commands.clone());
        device.downlink = Downlink::restore(DownlinkState { position: device.disk.position });
    }

    fn server_dies(&mut self) {
        self.engine.step_crash();
        self.engine = Engine::stepped(self.store.clone());
        for device in &mut self.devices {
            device.session = None;
        }
    }

    /// Lets everything run until nothing changes any more.
    fn settle(&mut self) {
        for _ in 0..6 {
            for at in 0..self.devices.len() {
                for _ in 0..3 {
                    self.connect(at);
                    self.confirm(at);
                }
                self.transmit(at);
                while self.devices[at].session.as_ref().is_some_and(|session| !session.up.is_empty()) {
                    self.server_takes(at);
                }
            }
            while self.engine.step_commit(usize::MAX) {}
            for at in 0..self.devices.len() {
                for _ in 0..200 {
                    self.server_sends(at);
                    while self.devices[at].session.as_ref().is_some_and(|session| !session.down.is_empty()) {
                        self.device_takes(at);
                    }
                }
            }
            self.now += Duration::from_secs(1);
        }
    }

    /// What is wrong, if anything.
    fn verdict(&self) -> Result<(), String> {
        let mut effects: HashMap<&str, u32> = HashMap::new();
        for device in &self.devices {
            if device.uplink.waiting() > 0 {
                return Err(format!("{}'s {} still has commands that are not applied", device.user, device.name));
            }
            let all = self.mailbox(&device.user);
            if device.name.as_str() == DEVICES[0] {
                for (_, _, text) in all.iter().filter(|(_, _, text)| text.starts_with(device.user.as_str())) {
                    *effects.entry(self.said.values().find(|said| *said == text).ok_or("a text out of nowhere")?).or_default() += 1;
                }
            }
            // In order of the mailbox; the sender's own come at their place too.
            if device.disk.taken != all {
                let (user, name) = (&device.user, &device.name);
                let (taken, held) = (device.disk.taken.len(), all.len());
                let first = device.disk.taken.iter().zip(&all).find(|(took, holds)| took != holds);
                return Err(format!(
                    "{user}'s {name} has taken {taken} messages, the mailbox holds {held}; they differ first at {first:?}"
                ));
            }
        }
        if let Some((text, count)) = effects.iter().find(|(_, count)| **count != 1) {
            return Err(format!("{text:?} took effect {count} times"));
        }
        // What a device still remembers to have said has taken effect: nothing was lost in silence.
        let remembered = self.devices.iter().flat_map(|device| device.disk.said.values());
        match remembered.into_iter().find(|said| !effects.contains_key(said.as_str())) {
            Some(lost) => Err(format!("{lost:?} was said and never took effect")),
            None => Ok(()),
        }
    }

    /// The messages in a user's mailbox.
    fn mailbox(&self, user: &UserId) -> Vec<(ConversationId, ConversationSeq, String)> {
        let Ok(Some(number)) = self.store.user(user) else { return Vec::new() };
        let nobody = crate::store::DeviceKey { user: number, slot: 99 };
        let viewer = Viewer { device: nobody, user: user.clone(), incarnation: Default::default(), full_names: true };
        let events = self.engine.step_events(&viewer, MailboxSeq(0), usize::MAX);
        let messages = events.into_iter().filter_map(|event| match event.body {
            EventBody::Message(message) => Some((message.conversation, message.seq, message.content.text)),
            _ => None,
        });
        messages.collect()
    }
}

fn run(seed: u64, planted: Planted) -> Result<(), String> {
    let mut world = World::new(seed, planted);
    for _ in 0..world.random.random_range(200..1500) {
        world.step(true);
    }
    world.settle();
    world.verdict()
}

/// How many worlds are tried; more by an environment variable.
fn worlds() -> u64 {
    std::env::var("WHIMBREL_WORLDS").ok().and_then(|number| number.parse().ok()).unwrap_or(300)
}

#[test]
fn each_command_takes_effect_once_and_each_device_takes_each_message_once() {
    for seed in 0..worlds() {
        if let Err(fault) = run(seed, Planted::Nothing) {
            panic!("seed {seed}: {fault}");
        }
    }
}

#[test]
fn planted_faults_are_found() {
    for (name, planted) in
        [("applied too early", Planted::AppliedTooEarly), ("forgets", Planted::ForgetsTaken), ("takes twice", Planted::TakesTwice)]
    {
        let found = (0..50).any(|seed| std::panic::catch_unwind(|| run(seed, planted)).map_or(true, |verdict| verdict.is_err()));
        assert!(found, "{name} was not found");
    }
}
