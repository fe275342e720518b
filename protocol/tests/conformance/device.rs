//! A device: a durable store, and a process that may die between any two things it does.

use crate::fault::Fault;
use crate::store::{CommandId, DeviceNo, command_id, user_id, user_of};
use std::collections::BTreeMap;
use std::time::Duration;
use whimbrel_protocol::frame::*;
use whimbrel_protocol::*;

/// What the application was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    Reset(ResetReason),
    Disagreement(Disagreement),
}

/// A stretch of a mailbox without a reset in it.
#[derive(Debug, Clone)]
pub struct Segment {
    /// The life of the server that it was last continued in.
    pub life: usize,
    /// The cursor at its beginning.
    pub begin: MailboxSeq,
    pub snapshot: Option<Vec<(u64, String)>>,
    /// Each with the outbox of the session that it came in: the view depends on it.
    pub events: Vec<(Event, Incarnation)>,
}

/// What is durable on a device. Backups and clones are copies of this.
#[derive(Debug, Clone, Default)]
pub struct Store {
    outbox: OutboxState,
    pub commands: Vec<Command>,
    pub position: DownlinkState,
    pages: Vec<(u64, String)>,
    pub segments: Vec<Segment>,
    /// Every command this store ever held.
    pub enqueued: Vec<CommandId>,
    /// Commands known to be applied, each with the life of the server that said so.
    pub known: BTreeMap<CommandId, usize>,
    /// What the application was told, each with the life of the server that it was about.
    pub told: Vec<(usize, Told)>,
    /// A disagreement that was told of, and no new outbox agreed on since: it still stands for whatever happens to the server.
    standing: Option<Disagreement>,
}

struct Process {
    uplink: Uplink,
    downlink: Downlink,
    /// The outbox of the session.
    incarnation: Incarnation,
}

pub struct Device {
    pub no: DeviceNo,
    pub store: Store,
    process: Option<Process>,
    /// The link of the session that the process takes for its own.
    pub link: Option<usize>,
    /// The process dies after so many more things.
    pub fuse: Option<u8>,
    pub fault: Option<Fault>,
}

/// What a device works with, and what comes of it.
pub struct Work<'a> {
    pub now: Duration,
    /// The life of the server at the other end.
    pub life: usize,
    pub out: &'a mut Vec<ClientFrame>,
    /// Commands that the device has just heard to be applied.
    pub applied: Vec<CommandId>,
    pub reconnect: bool,
    pub violations: Vec<String>,
}

/// The process has died.
pub struct Dead;
type Alive = Result<(), Dead>;

impl Device {
    pub fn new(no: DeviceNo, store: Store, fault: Option<Fault>) -> Self {
        Self { no, store, process: None, link: None, fuse: None, fault }
    }

    pub fn kill(&mut self) {
        (self.process, self.link, self.fuse) = (None, None, None);
    }

    pub fn disconnect(&mut self) {
        self.link = None;
        if let Some(process) = &mut self.process {
            process.uplink.on_disconnect();
            process.downlink.on_disconnect();
        }
    }

    /// Starts the process if it does not run, and says what it opens a session with.
    pub fn hello(&mut self) -> Hello {
        let process = self.process.get_or_insert_with(|| Process {
            uplink: Uplink::restore(self.store.outbox, self.store.commands.clone()),
            downlink: Downlink::restore(self.store.position),
            incarnation: Incarnation(0),
        });
        Hello {
            min_version: VERSION_MIN,
            max_version: VERSION_MAX,
            user: user_id(user_of(self.no)),
            device: DeviceId::new(&self.no.to_string()).unwrap(),
            token: String::new(),
            agent: String::new(),
            instance: Default::default(),
            attempt: 0,
            incarnation: process.uplink.incarnation(),
            position: process.downlink.position(),
            origin: [Origin::Snapshot, Origin::Oldest, Origin::Now][self.no],
            extensions: Vec::new(),
        }
    }

    /// Nothing is left to do: every command applied, every event up to this one stored.
    pub fn done(&self, head: u64) -> bool {
        let cursor = self.store.position.position.map(|position| position.cursor.0);
        self.process.as_ref().is_some_and(|process| process.uplink.waiting() == 0) && cursor == Some(head)
    }

    /// One of the things between which a process may die.
    fn step(&mut self) -> Alive {
        match &mut self.fuse {
            Some(0) => {
                self.kill();
                Err(Dead)
            }
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// A transaction on the store: the process may die before it, or after it.
    fn write(&mut self, change: impl FnOnce(&mut Store)) -> Alive {
        self.step()?;
        change(&mut self.store);
        self.step()
    }

    fn process(&mut self) -> Result<&mut Process, Dead> {
        self.process.as_mut().ok_or(Dead)
    }

    pub fn enqueue(&mut self, nonce: Nonce, body: CommandBody, work: &mut Work<'_>) -> Alive {
        let command = self.process()?.uplink.enqueue(nonce, body);
        if self.fault == Some(Fault::SendsBeforeStoring) {
            self.transmit(work)?;
        }
        self.write(|store| {
            store.enqueued.push(command_id(nonce));
            store.commands.push(command);
        })?;
        self.transmit(work)
    }

    /// Sends what may be sent now.
    pub fn transmit(&mut self, work: &mut Work<'_>) -> Alive {
        while let Some(command) = self.process()?.uplink.poll_transmit(work.now).cloned() {
            self.step()?;
            work.out.push(ClientFrame::Command(command));
        }
        if let Some(ack) = self.process()?.downlink.poll_ack(work.now) {
            self.ack(ack, work)?;
        }
        Ok(())
    }

    fn ack(&mut self, ack: Ack, work: &mut Work<'_>) -> Alive {
        if self.store.position.position.is_none_or(|stored| ack.seq > stored.cursor) {
            work.violations.push(format!("{ack:?} covers what is not stored"));
        }
        self.step()?;
        work.out.push(ClientFrame::Ack(ack));
        Ok(())
    }

    pub fn on_frame(&mut self, frame: ServerFrame, work: &mut Work<'_>) -> Alive {
        match frame {
            ServerFrame::Welcome(welcome) => self.on_welcome(&welcome, work)?,
            ServerFrame::Applied(applied) => {
                _ = self.on_agreement(work, |uplink| {
                    uplink.on_applied(applied.cseq);
                    Agreement::Agreed
                })?
            }
            ServerFrame::Event(event) => self.on_event(event, work)?,
            ServerFrame::Snapshot(page) => self.on_snapshot(page, work)?,
            ServerFrame::Busy(Busy { cseq, retry_after_ms }) => {
                let retry_after = Duration::from_millis(retry_after_ms.into());
                self.process()?.uplink.on_busy(cseq, retry_after, work.now);
            }
            ServerFrame::Error(Error { code: ErrorCode::Replaced, .. }) => self.disconnect(),
            other => work.violations.push(format!("{other:?} is not expected")),
        }
        self.transmit(work)
    }

    fn on_welcome(&mut self, welcome: &Welcome, work: &mut Work<'_>) -> Alive {
        let life = work.life;
        let process = self.process()?;
        process.incarnation = welcome.incarnation;
        let resumed = process.downlink.on_welcome(welcome);
        self.write(|store| {
            store.pages.clear();
            store.told.extend(resumed.reset.map(|reason| (life, Told::Reset(reason))));
            if let Some(position) = resumed.position {
                store.begin(life, position, None);
            } else if let Some(segment) = store.segments.last_mut().filter(|_| !welcome.begin.snapshot) {
                segment.life = life;
            }
        })?;
        let agreement = self.on_agreement(work, |uplink| uplink.on_welcome(welcome))?;
        work.reconnect = matches!(agreement, Agreement::Disagreed(_));
        if agreement == Agreement::Renumbered && self.fault == Some(Fault::ChangesNonces) {
            self.change_nonces(welcome)?;
        }
        Ok(())
    }

    /// Does something that may forget commands, and stores in one transaction what is left and what the application is to be told.
    fn on_agreement(&mut self, work: &mut Work<'_>, change: impl FnOnce(&mut Uplink) -> Agreement) -> Result<Agreement, Dead> {
        let (life, silent) = (work.life, self.fault == Some(Fault::KeepsSilent));
        let uplink = &mut self.process()?.uplink;
        let before: Vec<_> = uplink.pending().map(|command| command_id(command.nonce)).collect();
        let agreement = change(uplink);
        let (outbox, commands): (_, Vec<_>) = (uplink.state(), uplink.pending().cloned().collect());
        let applied = &before[..before.len() - commands.len()];
        work.applied.extend(applied);
        self.write(|store| {
            store.known.extend(applied.iter().map(|id| (*id, life)));
            (store.outbox, store.commands) = (outbox, commands);
            let told = match &agreement {
                Agreement::Agreed => None,
                Agreement::Disagreed(Disagreement::AnotherOutbox { .. }) if silent => None,
                Agreement::Disagreed(disagreement) => Some(*store.standing.insert(*disagreement)),
                Agreement::Renumbered => store.standing.take(),
            };
            store.told.extend(told.map(|told| (life, Told::Disagreement(told))));
        })?;
        Ok(agreement)
    }

    fn change_nonces(&mut self, welcome: &Welcome) -> Alive {
        let mut commands = self.store.commands.clone();
        for command in &mut commands {
            command.nonce.0[0] = command.nonce.0[0].wrapping_add(1);
        }
        let uplink = &mut self.process()?.uplink;
        *uplink = Uplink::restore(uplink.state(), commands.clone());
        uplink.on_welcome(welcome);
        self.write(|store| store.commands = commands)
    }

    fn on_event(&mut self, event: Event, work: &mut Work<'_>) -> Alive {
        let fault = self.fault;
        let process = self.process()?;
        let incarnation = process.incarnation;
        let events = match process.downlink.on_event(event.clone()) {
            Taken::Next(events) => events,
            Taken::Early if fault == Some(Fault::TakesEarly) => vec![event],
            Taken::Dropped if fault == Some(Fault::TakesDoubles) && !self.store.segments.is_empty() => vec![event],
            Taken::Early | Taken::Dropped => return Ok(()),
        };
        let Some(position) = events.last().map(|last| process_position(self.process.as_ref(), last)) else { return Ok(()) };
        if fault == Some(Fault::AcksBeforeStoring) {
            let downlink = &mut self.process()?.downlink;
            downlink.on_stored(position, work.now);
            if let Some(ack) = downlink.flush_ack() {
                self.ack(ack, work)?;
            }
        }
        if fault == Some(Fault::StoresPositionFirst) {
            self.write(|store| store.position.position = Some(position))?;
        }
        self.write(|store| {
            store.position.position = Some(position);
            if let Some(segment) = store.segments.last_mut() {
                segment.events.extend(events.into_iter().map(|event| (event, incarnation)));
            }
        })?;
        self.process()?.downlink.on_stored(position, work.now);
        Ok(())
    }

    fn on_snapshot(&mut self, page: Snapshot, work: &mut Work<'_>) -> Alive {
        let messages = page.conversations.into_iter().flat_map(|conversation| conversation.messages);
        let position = if page.last { self.process()?.downlink.on_snapshot_stored() } else { None };
        let life = work.life;
        self.write(|store| {
            store.pages.extend(messages.map(|message| (message.seq.0, message.content.text)));
            if let Some(position) = position {
                let pages = std::mem::take(&mut store.pages);
                store.begin(life, position, Some(pages));
            }
        })
    }
}

fn process_position(process: Option<&Process>, event: &Event) -> Position {
    process.map(|process| process.downlink.position_at(event)).unwrap()
}

impl Store {
    fn begin(&mut self, life: usize, position: Position, snapshot: Option<Vec<(u64, String)>>) {
        self.position.position = Some(position);
        self.segments.push(Segment { life, begin: position.cursor, snapshot, events: Vec::new() });
    }
}
