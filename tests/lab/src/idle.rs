//! Phones that lie in pockets: connected, suspended, with nothing to do; and what that costs.

use crate::network::{CELL, LinkCounts, Settings};
use crate::server::Process;
use crate::{Lab, LabError, LinkName, Namespace, Phone, Server};
use serde::Serialize;
use std::path::Path;
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use whimbrel_client::protocol::UserId;
use whimbrel_client::protocol::frame::{EventBody, Origin, Target};
use whimbrel_client::{Client, Connection, Events, Incoming, Transport, text};

/// How long a message to a phone that was silent may take.
const REACH_MAX: Duration = Duration::from_secs(60);
/// Who writes to them at the end.
const DESK: &str = "desk";

/// A network for a phone in a pocket.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Pocket {
    /// What it is called.
    pub name: &'static str,
    /// How it is.
    pub settings: Settings,
}

/// Cellular networks (40 ms, 1 % lost each way) that forget connections after a while, or do not.
pub const POCKETS: [Pocket; 4] = [
    Pocket { name: "forgets nothing", settings: CELL },
    // What Linux forgets UDP after by default, which is what most routers at home run.
    Pocket { name: "forgets UDP after 180 s", settings: CELL.forgets(180, 0) },
    Pocket { name: "forgets UDP after 60 s, TCP after 30 min", settings: CELL.forgets(60, 1_800) },
    Pocket { name: "forgets UDP after 30 s, TCP after 4 min", settings: CELL.forgets(30, 240) },
];

/// What an idle phone cost.
#[derive(Debug, Clone, Serialize)]
pub struct Cost {
    /// What it ran.
    pub client: String,
    /// Where.
    pub network: &'static str,
    /// What went through its link.
    pub counts: LinkCounts,
    /// How often its processor was woken for the client.
    pub processor: u64,
    /// How often it was connected anew.
    pub sessions: u64,
    /// How long a message to it took at the end, in milliseconds; `None` if it did not come within a minute, or nobody sent one.
    pub reached_ms: Option<f64>,
}

/// What a phone's thread tells.
#[derive(Debug, Default)]
struct Told {
    sessions: u64,
    got: Option<Instant>,
}

enum Runs {
    Client { told: Arc<Mutex<Told>>, stop: Option<oneshot::Sender<()>>, thread: std::thread::JoinHandle<std::io::Result<()>> },
    Process { _process: Process },
}

/// A phone in a pocket.
pub struct Idle {
    client: String,
    network: &'static str,
    phone: Phone,
    /// The system's numbers of the process and the thread that live on the phone.
    task: String,
    runs: Runs,
    before: (LinkCounts, u64),
}

fn on_wifi(lab: &mut Lab, pocket: &Pocket) -> Result<Phone, LabError> {
    let phone = lab.phone()?;
    phone.link(LinkName::Wifi).set(pocket.settings);
    Ok(phone)
}

fn user(client: &str, number: usize) -> String {
    format!("{client}-{number}")
}

impl Idle {
    /// A client of ours, whose application says that it is suspended once it is connected.
    ///
    /// # Errors
    /// If it cannot connect.
    pub fn whimbrel(lab: &mut Lab, server: &Server, transport: Transport, number: usize, pocket: &Pocket) -> Result<Self, LabError> {
        let phone = on_wifi(lab, pocket)?;
        let client = crate::run::transport_name(transport).to_owned();
        let who = user(&client, number);
        let failed = |why: String| LabError::Client { who: who.clone(), why };
        let builder = Client::builder(server.url(), &who).device("lab").transport(transport).origin(Origin::Oldest).ca(server.certs());
        let told = Arc::new(Mutex::new(Told::default()));
        let (stop, stopped) = oneshot::channel();
        let (ready, wait) = mpsc::channel();
        let there = Arc::clone(&told);
        let live = move || {
            let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(why) => return drop(ready.send(Err(why.to_string()))),
            };
            runtime.block_on(async {
                match builder.connect().await {
                    Ok((client, events)) => {
                        client.background().await;
                        // Who started this is there: it waits for the answer.
                        let _ = ready.send(Ok(rustix::thread::gettid()));
                        lie(client, events, &there, stopped).await;
                    }
                    Err(why) => drop(ready.send(Err(why.to_string()))),
                }
            });
        };
        let thread = phone.space().spawn(&format!("idle {who}"), live).map_err(|why| failed(why.to_string()))?;
        let task = match wait.recv() {
            Ok(Ok(task)) => format!("{}/task/{task}", std::process::id()),
            Ok(Err(why)) => return Err(failed(why)),
            Err(_) => return Err(failed("its thread ended".into())),
        };
        let runs = Runs::Client { told, stop: Some(stop), thread };
        Ok(Self::begin(client, pocket, phone, task, runs))
    }

    /// Another one: a program of Node that says `ready` when it is connected to `url`.
    ///
    /// # Errors
    /// If it does not.
    pub fn peer(lab: &mut Lab, client: &str, script: &Path, url: &str, number: usize, pocket: &Pocket) -> Result<Self, LabError> {
        let phone = on_wifi(lab, pocket)?;
        let log = lab.folder().join(format!("{}.log", user(client, number).replace(' ', "-")));
        let process = node(phone.space(), script, url, &log)?;
        let task = format!("{0}/task/{0}", process.id());
        Ok(Self::begin(client.into(), pocket, phone, task, Runs::Process { _process: process }))
    }

    fn begin(client: String, pocket: &Pocket, phone: Phone, task: String, runs: Runs) -> Self {
        let mut idle = Self { client, network: pocket.name, phone, task, runs, before: (LinkCounts::default(), 0) };
        idle.reset();
        idle
    }

    /// Counts from now on.
    pub fn reset(&mut self) {
        self.before = self.counts();
        if let Runs::Client { told, .. } = &self.runs {
            lock(told).sessions = 0;
        }
    }

    fn counts(&self) -> (LinkCounts, u64) {
        (self.phone.counts(LinkName::Wifi), switches(&self.task))
    }

    /// What it cost since then.
    #[must_use]
    pub fn cost(&self) -> Cost {
        let (counts, processor) = self.counts();
        let sessions = if let Runs::Client { told, .. } = &self.runs { lock(told).sessions } else { 0 };
        Cost {
            client: self.client.clone(),
            network: self.network,
            counts: counts - self.before.0,
            processor: processor - self.before.1,
            sessions,
            reached_ms: None,
        }
    }

    /// Writes to it, and says in how many milliseconds that was there, if it was.
    pub fn reach(&self, desk: &Desk, number: usize) -> Option<f64> {
        let Runs::Client { told, .. } = &self.runs else { return None };
        let begun = Instant::now();
        desk.write_to(user(&self.client, number));
        while begun.elapsed() < REACH_MAX {
            if let Some(at) = lock(told).got {
                return Some(at.duration_since(begun).as_secs_f64() * 1_000.0);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        None
    }

    /// Takes it out of the pocket and turns it off.
    pub fn end(self) {
        if let Runs::Client { stop, thread, .. } = self.runs {
            drop(stop);
            // It has printed its panic, if it had one.
            let _ = thread.join();
        }
    }
}

fn lock(told: &Mutex<Told>) -> std::sync::MutexGuard<'_, Told> {
    // Plain values, right after each statement.
    told.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Lies there until the other end is dropped.
async fn lie(client: Client, mut events: Events, told: &Mutex<Told>, mut stopped: oneshot::Receiver<()>) {
    let mut connection = client.connection();
    loop {
        tokio::select! {
            _ = &mut stopped => break,
            Ok(()) = connection.changed() => {
                let is_connected = matches!(*connection.borrow_and_update(), Connection::Connected { .. });
                lock(told).sessions += u64::from(is_connected);
            }
            Some(incoming) = events.next() => {
                if let Incoming::Event { event, .. } = incoming
                    && matches!(event.body, EventBody::Message(_))
                {
                    lock(told).got = Some(Instant::now());
                }
                events.done();
            }
        }
    }
    client.close().await;
}

/// How often a thread has waited for something and was woken.
fn switches(task: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{task}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    line.and_then(|count| count.trim().parse().ok()).unwrap_or_default()
}

/// Starts a program of Node that says `ready`.
///
/// # Errors
/// If it does not.
pub fn node(space: &Namespace, script: &Path, argument: &str, log: &Path) -> Result<Process, LabError> {
    let setup = |command: &mut std::process::Command| {
        command.arg(script).arg(argument);
    };
    Process::start(space, Path::new("node"), setup, log, "ready").map_err(|why| LabError::Server { binary: script.into(), why })
}

/// Somebody at the server's side who writes to the phones.
pub struct Desk {
    write: Option<tokio::sync::mpsc::UnboundedSender<String>>,
    thread: Option<std::thread::JoinHandle<std::io::Result<()>>>,
}

impl Desk {
    /// Connects.
    ///
    /// # Errors
    /// If there is no thread for it.
    pub fn start(lab: &Lab, server: &Server) -> Result<Self, LabError> {
        let builder = Client::builder(server.url(), DESK).transport(Transport::WebSocket).ca(server.certs());
        let (write, mut writes) = tokio::sync::mpsc::unbounded_channel::<String>();
        let live = move || {
            let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
            runtime.block_on(async {
                let Ok((client, events)) = builder.start().await else { return };
                events.store_only();
                while let Some(to) = writes.recv().await {
                    let Ok(to) = UserId::new(&to) else { continue };
                    // If it does not get there the phone shows it.
                    let _ = client.send(Target::User(to), text("are you there?")).await;
                }
                client.close().await;
            });
        };
        let thread = lab.server().spawn("desk", live).map_err(|why| LabError::Client { who: DESK.into(), why: why.to_string() })?;
        Ok(Self { write: Some(write), thread: Some(thread) })
    }

    fn write_to(&self, user: String) {
        if let Some(write) = &self.write {
            // Its thread ends last.
            let _ = write.send(user);
        }
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        self.write = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
