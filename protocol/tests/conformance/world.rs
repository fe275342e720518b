//! Devices, a server and the network between them, under a clock that only steps move.

use crate::check;
use crate::device::{Dead, Device, Store, Work};
use crate::fault::Fault;
use crate::script::Step;
use crate::server::{Commit, Out, Server};
use crate::store::{self, CommandId, DEVICES, DeviceNo, Mailbox, user_of};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;
use whimbrel_protocol::codec::Form;
use whimbrel_protocol::frame::*;
use whimbrel_protocol::*;

/// Frames that the server lets wait for a link before it stops pushing events.
const ROOM: usize = 6;
/// The most processes there are, clones among them.
const PROCESSES: usize = 6;

struct Link {
    device: usize,
    form: Form,
    up: VecDeque<Vec<u8>>,
    down: VecDeque<Vec<u8>>,
    /// The server has closed it: once it is drained the device notices.
    closed: bool,
    /// The life of the server at its other end.
    life: usize,
}

/// A store that was rolled back, as it was at that moment, and the effects that each life began with.
#[derive(Default)]
pub struct Life {
    pub mailboxes: [Mailbox; 2],
    pub effects_at_start: BTreeMap<CommandId, u32>,
}

pub struct World {
    now: Duration,
    pub server: Server,
    pub devices: Vec<Device>,
    links: Vec<Link>,
    up_copies: Vec<(usize, Vec<u8>)>,
    down_copies: Vec<(usize, Vec<u8>)>,
    /// Every life of the server's store; the last is the present one.
    pub lives: Vec<Life>,
    server_backup: Option<store::Store>,
    backups: BTreeMap<usize, Store>,
    nonces: u64,
    /// Devices whose wish for a new outbox came late, over a link that they had given up: the outbox that they got meanwhile is void.
    pub overtaken: BTreeSet<DeviceNo>,
    pub violations: Vec<String>,
}

impl World {
    pub fn new(fault: Option<Fault>) -> Self {
        let mut server = Server::default();
        server.fault = fault;
        server.store.epoch = LogEpoch(1);
        let mut world = Self {
            now: Duration::ZERO,
            server,
            devices: (0..DEVICES).map(|no| Device::new(no, Store::default(), fault)).collect(),
            links: Vec::new(),
            up_copies: Vec::new(),
            down_copies: Vec::new(),
            lives: vec![Life::default()],
            server_backup: None,
            backups: BTreeMap::new(),
            nonces: 0,
            overtaken: BTreeSet::new(),
            violations: Vec::new(),
        };
        for device in 0..DEVICES {
            world.connect(device, Form::Postcard);
        }
        world
    }

    /// Carries out a script, lets everything come to rest, and checks what came of it.
    pub fn run(script: &[Step], world: crate::script::World, fault: Option<Fault>) -> Result<(), String> {
        let mut this = Self::new(fault);
        for step in script {
            this.now += Duration::from_millis(1);
            this.step(*step);
            this.violations.drain(..).next().map_or(Ok(()), Err)?;
        }
        this.heal()?;
        this.violations.drain(..).next().map_or(Ok(()), Err)?;
        check::all(&this, world)
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Enqueue { device, kind } => self.enqueue(device % self.devices.len(), kind),
            Step::Connect { device, json } => {
                self.connect(device % self.devices.len(), if json { Form::Json } else { Form::Postcard });
            }
            Step::Disconnect { device, arrives } => {
                let device = device % self.devices.len();
                if let Some(link) = self.devices[device].link.filter(|_| !arrives) {
                    self.links[link].up.clear();
                }
                self.devices[device].disconnect();
            }
            Step::Up { link, count } => self.up(link, count),
            Step::Down { link, count } => self.down(link, count),
            Step::UpCopy { pick, again } => {
                if let Some((link, bytes)) = take(&mut self.up_copies, pick, again) {
                    self.arrive_at_server(link, &bytes, true);
                }
            }
            Step::DownCopy { pick, again } => {
                if let Some((link, bytes)) = take(&mut self.down_copies, pick, again) {
                    self.arrive_at_device(link, &bytes);
                }
            }
            Step::Commit(outcome) => self.with_server(|server, now, out| server.commit(outcome, now, out)),
            Step::Overload(overloaded) => self.server.overloaded = overloaded,
            Step::Wait { ms } => {
                self.now += Duration::from_millis(ms);
                for device in 0..self.devices.len() {
                    self.with_device(device, |device, work| device.transmit(work));
                }
            }
            Step::Crash { device, after } => {
                let count = self.devices.len();
                self.devices[device % count].fuse = Some(after);
            }
            Step::ServerCrash => self.with_server(|server, _, out| server.crash(out)),
            Step::Trim { user, keep } => {
                let mailbox = &mut self.server.store.mailboxes[user];
                mailbox.floor = mailbox.floor.max(mailbox.head().saturating_sub(keep));
            }
            Step::Backup { device } => {
                let device = device % self.devices.len();
                self.backups.insert(device, self.devices[device].store.clone());
            }
            Step::Restore { device } => {
                let device = device % self.devices.len();
                if let Some(backup) = self.backups.get(&device).cloned() {
                    self.devices[device].kill();
                    self.devices[device].store = backup;
                }
            }
            Step::Clone { device } => {
                if self.devices.len() < PROCESSES {
                    let Device { no, store, fault, .. } = &self.devices[device % self.devices.len()];
                    let clone = Device::new(*no, store.clone(), *fault);
                    self.devices.push(clone);
                }
            }
            Step::ServerBackup => self.server_backup = Some(self.server.store.clone()),
            Step::ServerRestore { raise } => self.restore_server(raise),
        }
        self.with_server(|_, _, _| {});
    }

    fn enqueue(&mut self, device: usize, kind: u8) {
        self.nonces += 1;
        let nonce = Nonce(self.nonces.to_be_bytes());
        let body = match kind {
            0 | 1 => {
                let text = format!("message {}", self.nonces);
                Send { to: Target::Conversation(ConversationId(1)), content: Content::text(text) }.into()
            }
            2 => MarkRead { conversation: ConversationId(1), seq: ConversationSeq(self.nonces) }.into(),
            _ => CommandBody::Unknown(Unknown { kind: 99, reason: String::new() }),
        };
        self.with_device(device, |device, work| device.enqueue(nonce, body, work));
    }

    fn connect(&mut self, device: usize, form: Form) {
        self.devices[device].disconnect();
        let hello = self.devices[device].hello();
        let up = VecDeque::from([form.encode(&ClientFrame::Hello(hello)).unwrap()]);
        let life = self.lives.len() - 1;
        self.links.push(Link { device, form, up, down: VecDeque::new(), closed: false, life });
        self.devices[device].link = Some(self.links.len() - 1);
    }

    fn up(&mut self, pick: usize, count: usize) {
        let Some(link) = nth(&self.links, pick, |_, link| !link.up.is_empty()) else { return };
        for _ in 0..count {
            let Some(bytes) = self.links[link].up.pop_front() else { return };
            self.arrive_at_server(link, &bytes, false);
        }
    }

    fn down(&mut self, pick: usize, count: usize) {
        let devices = &self.devices;
        let current = |no: usize, link: &Link| devices[link.device].link == Some(no) && (link.closed || !link.down.is_empty());
        let Some(no) = nth(&self.links, pick, current) else { return };
        for _ in 0..count {
            let Some(bytes) = self.links[no].down.pop_front() else { break };
            self.arrive_at_device(no, &bytes);
        }
        let link = &self.links[no];
        if link.closed && link.down.is_empty() && self.devices[link.device].link == Some(no) {
            self.devices[link.device].disconnect();
        }
    }

    fn arrive_at_server(&mut self, link: usize, bytes: &[u8], copy: bool) {
        if self.links[link].closed || self.links[link].life + 1 < self.lives.len() {
            return;
        }
        let frame: ClientFrame = self.links[link].form.decode(bytes).unwrap();
        let device = &self.devices[self.links[link].device];
        if matches!(&frame, ClientFrame::Hello(hello) if hello.incarnation == Incarnation(0)) && device.link != Some(link) {
            self.overtaken.insert(device.no);
        }
        self.with_server(|server, now, out| server.on_frame(link, frame, copy, now, out));
    }

    /// Frames of links that the device has given up are lost.
    fn arrive_at_device(&mut self, link: usize, bytes: &[u8]) {
        let Link { device, form, .. } = self.links[link];
        if self.devices[device].link == Some(link) {
            let frame: ServerFrame = form.decode(bytes).unwrap();
            self.with_device(device, |device, work| device.on_frame(frame, work));
        }
    }

    /// Lets the server do something, then push what it can.
    fn with_server(&mut self, work: impl FnOnce(&mut Server, Time, &mut Out)) {
        let mut out = Out::default();
        work(&mut self.server, Time(1_000_000 + self.now.as_millis() as u64), &mut out);
        self.carry(out);
        for link in 0..self.links.len() {
            let mut out = Out::default();
            self.server.pump(link, ROOM.saturating_sub(self.links[link].down.len()), &mut out);
            self.carry(out);
        }
    }

    fn carry(&mut self, out: Out) {
        for (no, frame) in out.frames {
            let link = &mut self.links[no];
            let bytes = link.form.encode(&frame).unwrap();
            if matches!(frame, ServerFrame::Event(_)) {
                self.down_copies.push((no, bytes.clone()));
            }
            link.down.push_back(bytes);
        }
        for link in out.closed {
            self.links[link].closed = true;
        }
        self.violations.extend(out.violations);
    }

    /// Lets a device do something, over the link that it has then.
    fn with_device(&mut self, no: usize, action: impl FnOnce(&mut Device, &mut Work<'_>) -> Result<(), Dead>) {
        let (device, present) = (&mut self.devices[no], self.lives.len() - 1);
        let link = device.link;
        let life = link.map_or(present, |link| self.links[link].life);
        let mut out = Vec::new();
        let mut work = Work { now: self.now, life, out: &mut out, applied: Vec::new(), reconnect: false, violations: Vec::new() };
        // A process that died is started again by the next step that connects it.
        let _ = action(device, &mut work);
        let Work { applied, reconnect, violations, .. } = work;
        self.violations.extend(violations);
        for id in applied {
            if life == present && !self.server.store.effects.contains_key(&id) {
                self.violations.push(format!("command {id} is said to be applied and is not durable"));
            }
        }
        if let Some(link) = link {
            for frame in out {
                let bytes = self.links[link].form.encode(&frame).unwrap();
                if matches!(frame, ClientFrame::Command(_)) {
                    self.up_copies.push((link, bytes.clone()));
                }
                self.links[link].up.push_back(bytes);
            }
            if reconnect && self.devices[no].link.is_some() {
                let form = self.links[link].form;
                self.connect(no, form);
            }
        }
    }

    fn restore_server(&mut self, raise: bool) {
        let Some(mut store) = self.server_backup.clone() else { return };
        self.with_server(|server, _, out| server.crash(out));
        for link in &mut self.links {
            link.closed = true;
        }
        let epoch = self.server.store.epoch;
        if let Some(life) = self.lives.last_mut() {
            life.mailboxes = self.server.store.mailboxes.clone();
        }
        store.epoch = if raise { epoch.next() } else { store.epoch };
        self.lives.push(Life { mailboxes: Default::default(), effects_at_start: store.effects.clone() });
        self.server.store = store;
    }

    /// From here on nothing goes wrong. First sessions go on as they are; then every process connects in its turn (clones throw each
    /// other out), and comes to rest.
    fn heal(&mut self) -> Result<(), String> {
        self.server.overloaded = false;
        for device in 0..self.devices.len() {
            self.devices[device].fuse = None;
            self.settle(device)?;
        }
        // Three rounds: in the second a process sees what later ones did in the first; in the third nothing is new.
        for _ in 0..3 {
            for device in 0..self.devices.len() {
                self.connect(device, Form::Postcard);
                self.settle(device)?;
                self.devices[device].disconnect();
            }
        }
        Ok(())
    }

    fn settle(&mut self, device: usize) -> Result<(), String> {
        let user = user_of(self.devices[device].no);
        for _ in 0..400 {
            self.now += Duration::from_millis(5);
            let Some(link) = self.devices[device].link else {
                self.connect(device, Form::Postcard);
                continue;
            };
            while let Some(bytes) = self.links[link].up.pop_front() {
                self.arrive_at_server(link, &bytes, false);
            }
            self.with_server(|server, now, out| server.commit(Commit::Good, now, out));
            while let Some(bytes) = self.links[link].down.pop_front() {
                self.arrive_at_device(link, &bytes);
            }
            if self.links[link].closed {
                self.devices[device].disconnect();
            }
            self.with_device(device, |device, work| device.transmit(work));
            if self.devices[device].done(self.server.store.mailboxes[user].head()) && self.server.idle() {
                return Ok(());
            }
        }
        Err(format!("process {device} does not come to rest"))
    }
}

fn nth<T>(items: &[T], pick: usize, filter: impl Fn(usize, &T) -> bool) -> Option<usize> {
    let matching: Vec<_> = (0..items.len()).rev().filter(|&no| filter(no, &items[no])).collect();
    matching.get(pick % matching.len().max(1)).copied()
}

fn take<T: Clone>(items: &mut Vec<T>, pick: usize, again: bool) -> Option<T> {
    if items.is_empty() {
        return None;
    }
    let at = items.len() - 1 - pick % items.len();
    Some(if again { items[at].clone() } else { items.remove(at) })
}
