//! One journey, one transport: the lab, the server, both devices, and what became of the messages.

use crate::checker::check;
use crate::journey::{End, Journey};
use crate::measure::{StepGap, Stream, ms, step_gap, stream};
use crate::network::{LinkCounts, Settings, WIFI_GOOD};
use crate::reading::{self, Reading};
use crate::traffic::{Device, Notes, Plan, SETTLE_MAX, TEXT_BYTES, is_last_old};
use crate::{Lab, LabError, LinkName, Phone, Server};
use serde::Serialize;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};
use whimbrel_client::{State, Transport};

/// The user on the phone.
const PHONE: &str = "phone";
/// The other one, at the server's side.
const DESK: &str = "desk";

/// What to run.
#[derive(Debug, Clone)]
pub struct Trip<'a> {
    /// The program of the server.
    pub binary: &'a Path,
    /// Where to.
    pub journey: &'a Journey,
    /// How the phone connects; the desk always over WebSocket, so that only one thing changes.
    pub transport: Transport,
    /// Whether the phone's application tells the client of changes that its system notices.
    pub reported: bool,
    /// Between two messages, each way.
    pub pace: Duration,
    /// Whether the phone says nothing: only the desk talks.
    pub quiet: bool,
    /// Bytes of a message's text: [`TEXT_BYTES`], unless it is about that.
    pub text_bytes: usize,
    /// Bytes of old messages that the phone reads, after [`BEFORE`](crate::reading::BEFORE); the journey ends when it has. 0: none.
    pub read: usize,
    /// Of all chances.
    pub seed: u64,
    /// Whether the devices keep their state in a folder, as real ones do, or in memory.
    pub durable: bool,
}

/// A step as it happened.
#[derive(Debug, Clone)]
pub struct Happened {
    /// As in the journey.
    pub label: String,
    /// When its first act began …
    pub begun: Instant,
    /// … and when its last was done.
    pub done: Instant,
    /// Whether the network in use was in a blackout before, and not after.
    pub ends_blackout: bool,
    /// Whether the phone's system noticed.
    pub noticed: bool,
}

/// A step in numbers. Times in milliseconds.
#[derive(Debug, Clone, Serialize)]
pub struct StepReport {
    /// As in the journey.
    pub label: String,
    /// When it was done, from the start.
    pub at: f64,
    /// What it did to the way from the phone.
    pub up: StepGap,
    /// What it did to the way to the phone.
    pub down: StepGap,
    /// The round trip of the network in use afterwards, without jitter and queues.
    pub round_trip: f64,
}

/// What became of it.
#[derive(Debug, Clone, Serialize)]
pub struct Run {
    /// The journey's name.
    pub journey: String,
    /// The transport that was chosen.
    pub transport: String,
    /// See [`Trip::reported`].
    pub reported: bool,
    /// See [`Trip::quiet`].
    pub quiet: bool,
    /// See [`Trip::seed`].
    pub seed: u64,
    /// See [`Trip::pace`], in milliseconds.
    pub pace: f64,
    /// How long the traffic flowed, in milliseconds.
    pub lasted: f64,
    /// Every promise that was broken. Empty: all messages arrived once and in order, both ways.
    pub faults: Vec<String>,
    /// From the phone.
    pub up: Stream,
    /// To the phone.
    pub down: Stream,
    /// The steps.
    pub steps: Vec<StepReport>,
    /// What the phone read of old messages.
    pub reading: Option<Reading>,
    /// What went through each network while the traffic flowed.
    pub links: Vec<(LinkName, LinkCounts)>,
    /// When the phone's connection became what: milliseconds from the start (the first one is before), and a transport's name or, after
    /// `-`, why there was none.
    pub connections: Vec<(f64, String)>,
    /// What both devices know, for those who look closer.
    #[serde(skip)]
    pub notes: (Notes, Notes),
}

/// A transport's name, as the client takes it.
#[must_use]
pub fn transport_name(transport: Transport) -> &'static str {
    match transport {
        Transport::Auto => "auto",
        Transport::Quic => "quic",
        Transport::WebTransport => "webtransport",
        Transport::WebSocket => "websocket",
        Transport::WebSocketJson => "websocket-json",
    }
}

/// Every promise that two devices' notes show broken: the phone's, the desk's.
#[must_use]
pub fn faults(phone: &Notes, desk: &Notes) -> Vec<String> {
    let mut faults = [phone.faults.clone(), desk.faults.clone()].concat();
    let sent: Vec<_> = phone.sent.iter().chain(&desk.sent).map(|sent| sent.message.clone()).collect();
    for (user, notes) in [(PHONE, phone), (DESK, desk)] {
        let got: Vec<_> = notes.got.iter().map(|got| got.message.clone()).collect();
        if let Err(fault) = check(user, &sent, &got) {
            faults.push(format!("what {user} got: {fault:?}"));
        }
    }
    faults
}

impl<'a> Trip<'a> {
    /// One as most are: both talk, briefly, nobody reports changes, and the state is kept in folders.
    #[must_use]
    pub fn new(binary: &'a Path, journey: &'a Journey, transport: Transport, pace: Duration, seed: u64) -> Self {
        Self { binary, journey, transport, reported: false, pace, quiet: false, text_bytes: TEXT_BYTES, read: 0, seed, durable: true }
    }
}

impl Trip<'_> {
    /// Makes it.
    ///
    /// # Errors
    /// If the lab itself does not work. What goes wrong with messages is in [`Run::faults`].
    pub fn run(&self) -> Result<Run, LabError> {
        let name = format!("{}-{}", self.journey.name, transport_name(self.transport));
        self.journey.check().map_err(|why| LabError::Command { command: "begin".into(), why })?;
        let mut lab = Lab::new(&name, self.seed)?;
        let server = Server::start(&lab, self.binary)?;
        let phone = lab.phone()?;
        let (settings, _) = self.journey.after(0);
        // Connected while all is well: the journey begins with a conversation.
        for (link, settings) in LinkName::ALL.into_iter().zip(&settings) {
            phone.link(link).set(Settings { nat: settings.nat, ..WIFI_GOOD });
        }
        phone.select(self.journey.begin)?;
        let plan = |user: &str, peer: &str, transport| {
            let state = if self.durable { State::Folder(lab.folder().join(user)) } else { State::Memory };
            let pace = (!self.quiet || user == DESK).then_some(self.pace);
            let fill = (self.read.div_ceil(reading::TEXT_BYTES), reading::TEXT_BYTES);
            Plan { user: user.into(), peer: peer.into(), transport, pace, text_bytes: self.text_bytes, fill, state }
        };
        let desk = Device::start(lab.server(), &server, plan(DESK, PHONE, Transport::WebSocket))?;
        let device = Device::start(phone.space(), &server, plan(PHONE, DESK, self.transport))?;
        if self.read > 0 {
            desk.fill();
            let count = self.read.div_ceil(reading::TEXT_BYTES);
            if !device.wait_until_got(Instant::now() + SETTLE_MAX, |got| is_last_old(&got.message.text, count)) {
                return Err(LabError::Client { who: PHONE.into(), why: "the old messages did not come in time".into() });
            }
        }
        for (link, settings) in LinkName::ALL.into_iter().zip(settings) {
            phone.link(link).set(settings);
        }
        let before = LinkName::ALL.map(|link| phone.counts(link));
        let start = Instant::now();
        device.talk();
        desk.talk();
        let happened = self.travel(&phone, &device, start)?;
        if self.read > 0 {
            reading::read_and_wait(&device, self.read)?;
        } else {
            self.arrive(&happened, start, &device, &desk);
        }
        let lasted = start.elapsed();
        device.finish();
        desk.finish();
        let links = LinkName::ALL.into_iter().zip(before).map(|(link, before)| (link, phone.counts(link) - before)).collect();
        let notes = (device.end(), desk.end());
        Ok(self.report(start, lasted, &happened, links, notes))
    }

    /// Goes through the steps.
    fn travel(&self, phone: &Phone, device: &Device, start: Instant) -> Result<Vec<Happened>, LabError> {
        let mut happened = Vec::new();
        for (at, step) in self.journey.steps.iter().enumerate() {
            std::thread::sleep((start + step.at).saturating_duration_since(Instant::now()));
            let begun = Instant::now();
            for act in &step.acts {
                act.perform(phone)?;
            }
            let done = Instant::now();
            if self.reported && step.is_noticed() {
                device.network_changed();
            }
            let dark = |steps: usize| {
                let (settings, used) = self.journey.after(steps);
                let settings = settings[used[0] as usize];
                (settings.up.blackout || settings.down.blackout, used)
            };
            let ((was_dark, before), (is_dark, after)) = (dark(at), dark(at + 1));
            let ends_blackout = was_dark && !is_dark && before == after;
            happened.push(Happened { label: step.label.clone(), begun, done, ends_blackout, noticed: step.is_noticed() });
        }
        Ok(happened)
    }

    /// Waits for the journey's end.
    fn arrive(&self, happened: &[Happened], start: Instant, device: &Device, desk: &Device) {
        match self.journey.end {
            End::At(end) => std::thread::sleep((start + end).saturating_duration_since(Instant::now())),
            End::Recovered { settle, at_most } => {
                let last = happened.last().map_or(start, |step| step.done);
                for (sender, recipient) in [(desk, device), (device, desk)].into_iter().take(if self.quiet { 1 } else { 2 }) {
                    // What was sent after the step has arrived; if it does not in time, the report shows it.
                    let fresh = |text: &str| sender.sent_at(text).is_some_and(|at| at >= last);
                    let _ = recipient.wait_until_got(last + at_most, |got| fresh(&got.message.text));
                }
                std::thread::sleep(settle);
            }
        }
    }

    fn report(
        &self,
        start: Instant,
        lasted: Duration,
        happened: &[Happened],
        links: Vec<(LinkName, LinkCounts)>,
        (phone, desk): (Notes, Notes),
    ) -> Run {
        let steps = happened.iter().enumerate().map(|(at, step)| {
            let (settings, used) = self.journey.after(at + 1);
            StepReport {
                label: step.label.clone(),
                at: ms(step.done - start),
                up: step_gap(&phone, &desk, start, step),
                down: step_gap(&desk, &phone, start, step),
                round_trip: ms(settings[used[0] as usize].round_trip()),
            }
        });
        let connection = |(at, state): &(Instant, Result<&'static str, String>)| {
            let state = state.clone().map_or_else(|why| format!("- {why}"), str::to_owned);
            (ms(at.saturating_duration_since(start)), state)
        };
        Run {
            journey: self.journey.name.clone(),
            transport: transport_name(self.transport).into(),
            reported: self.reported,
            quiet: self.quiet,
            seed: self.seed,
            pace: ms(self.pace),
            lasted: ms(lasted),
            faults: faults(&phone, &desk),
            up: stream(&phone, &desk, start),
            down: stream(&desk, &phone, start),
            steps: steps.collect(),
            reading: Reading::of(&phone, &desk, start),
            links,
            connections: phone.connections.iter().map(connection).collect(),
            notes: (phone, desk),
        }
    }
}

/// Makes several trips, so many at once, each in a lab of its own, and hands over each result as it comes, with the trip's index. Those
/// that have not begun when `go_on` says no are not made.
pub fn all(trips: &[Trip<'_>], at_once: usize, go_on: &(dyn Fn() -> bool + Sync), mut done: impl FnMut(usize, Result<Run, LabError>)) {
    let next = AtomicUsize::new(0);
    let (sender, receiver) = mpsc::channel();
    std::thread::scope(|scope| {
        for _ in 0..at_once.clamp(1, trips.len().max(1)) {
            let (next, sender) = (&next, sender.clone());
            scope.spawn(move || {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(trip) = trips.get(index).filter(|_| go_on()) else { break };
                    // The receiver is below, for as long as any of these.
                    let _ = sender.send((index, trip.run()));
                }
            });
        }
        drop(sender);
        for (index, result) in receiver {
            done(index, result);
        }
    });
}
