//! Durable means it: `kill -9` at random moments under load, and every message that anybody saw acknowledged is there, once, in order,
//! on every device.

use crate::harness::{PATIENCE, ServerProcess, binary, run};
use rand::RngExt;
use std::io::BufRead;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use whimbrel_client::protocol::frame::{EventBody, Origin, Target};
use whimbrel_client::{Builder, Client, Connection, Events, Incoming, Liveness, State, Transport, text};
use whimbrel_lab::checker::{Fault, Got, Sent, check};

const SENDERS: [(&str, Transport); 4] =
    [("ann", Transport::WebTransport), ("abe", Transport::WebSocket), ("ada", Transport::WebSocketJson), ("amy", Transport::Quic)];
const RECIPIENTS: [&str; 2] = ["bob", "bea"];
const DEVICES: [(&str, Transport); 3] = [("phone", Transport::Quic), ("tablet", Transport::WebTransport), ("laptop", Transport::WebSocket)];
/// Messages on their way at once, a sender.
const UNDER_WAY: usize = 32;

/// How often the server is killed; more by an environment variable.
fn kills() -> u32 {
    std::env::var("WHIMBREL_KILLS").ok().and_then(|number| number.parse().ok()).unwrap_or(50)
}

fn client(server: &ServerProcess, user: &str, device: &str, transport: Transport) -> Builder {
    Client::builder(server.url(), user).device(device).transport(transport).origin(Origin::Oldest)
}

/// A device of a recipient, what its application took, and the fault that was planted there.
struct Device {
    user: &'static str,
    name: &'static str,
    plant: Option<Plant>,
    /// Lines that came.
    lines: usize,
    got: Vec<Got>,
}

/// A fault between the client and the checker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Plant {
    /// The third line is dropped.
    Drop,
    /// The third line comes a second time after the next.
    Double,
    /// The third line and the one after it change places.
    Swap,
    /// The last line before the first farewell comes a second time after it: at a moment when all that is expected is there.
    DoubleLast,
}

#[test]
fn nothing_acknowledged_is_lost_when_the_server_is_killed() {
    run(async {
        let kills = kills();
        let (sent, devices) = run_with_kills(kills, [None; 4]).await;
        for device in devices {
            assert_eq!(check(device.user, &sent, &device.got), Ok(()), "{}'s {}", device.user, device.name);
        }
        assert!(sent.len() as u64 >= u64::from(kills), "{} messages are no load", sent.len());
    });
}

#[test]
fn a_fault_planted_into_a_run_with_kills_is_found() {
    run(async {
        let plants = [Plant::Drop, Plant::Double, Plant::Swap, Plant::DoubleLast].map(Some);
        let (sent, devices) = run_with_kills(2, plants).await;
        for Device { user, name, plant, got, .. } in devices {
            let found = check(user, &sent, &got);
            let as_planted = match plant {
                None => found.is_ok(),
                Some(Plant::Drop) => matches!(found, Err(Fault::Lost(_))),
                Some(Plant::Double | Plant::DoubleLast) => matches!(found, Err(Fault::Doubled(_))),
                Some(Plant::Swap) => matches!(found, Err(Fault::MailboxBackwards { .. })),
            };
            assert!(as_planted, "{user}'s {name} with {plant:?}: {found:?}");
        }
    });
}

/// Tells when the server was started last. A client whose server dies each second, before a session is stable, waits longer and longer (up to
/// 10 s), and may begin to connect while there is no server again: how long it takes says something only from a moment on at which the
/// server stays.
#[derive(Clone)]
struct Started(watch::Receiver<Instant>);

impl Started {
    /// Waits for something that must come once the server has been there for [`PATIENCE`].
    async fn within<F: Future>(&mut self, future: F) -> Result<F::Output, ()> {
        let mut future = std::pin::pin!(future);
        let begun = Instant::now();
        loop {
            let since = begun.max(*self.0.borrow_and_update());
            if let Ok(output) = timeout_at(since + PATIENCE, future.as_mut()).await {
                return Ok(output);
            }
            if !self.0.has_changed().unwrap_or(false) {
                return Err(());
            }
        }
    }
}

#[test]
fn who_waits_in_vain_is_found_once_the_server_stays() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let begun = Instant::now();
        let (starts, started) = watch::channel(begun);
        let started = Started(started);
        let mut waiting = started.clone();
        let waiting = tokio::spawn(async move { waiting.within(std::future::pending::<()>()).await });
        for _ in 0..10 {
            tokio::time::sleep(PATIENCE / 2).await;
            starts.send_replace(Instant::now());
        }
        assert_eq!(waiting.await.unwrap(), Err(()));
        assert_eq!(begun.elapsed(), PATIENCE * 6);
        let mut calm = started.clone();
        assert_eq!(calm.within(tokio::time::sleep(PATIENCE * 9 / 10)).await, Ok(()));
        drop(starts);
        assert_eq!(calm.within(std::future::pending::<()>()).await, Err(()));
        assert_eq!(begun.elapsed(), PATIENCE * 6 + PATIENCE * 19 / 10);
    });
}

/// Talks while the server is killed again and again. Returns what was sent, each sender's farewells at the end, and what every device took:
/// those that were there all the time, with faults planted, and one of each recipient that was never there before.
async fn run_with_kills(kills: u32, plants: [Option<Plant>; 4]) -> (Vec<Sent>, Vec<Device>) {
    let mut server = ServerProcess::start();
    let states = tempfile::tempdir().unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let acknowledged = Arc::new(AtomicU64::new(0));
    let (starts, started) = watch::channel(Instant::now());
    let started = Started(started);

    let mut senders = JoinSet::new();
    for (user, transport) in SENDERS {
        let state = State::Folder(states.path().join(user));
        let (client, events) = client(&server, user, "phone", transport).state(state).connect().await.unwrap();
        events.store_only();
        senders.spawn(talk(client, user, stop.clone(), acknowledged.clone(), started.clone()));
    }
    let mut devices = Vec::new();
    let mut plants = plants.into_iter();
    for user in RECIPIENTS {
        for (name, transport) in DEVICES {
            let state = State::Folder(states.path().join(format!("{user}-{name}")));
            let opened = client(&server, user, name, transport).state(state).connect().await.unwrap();
            let device = Device { user, name, plant: plants.next().flatten(), lines: 0, got: Vec::new() };
            devices.push(tokio::spawn(take(opened, device, started.clone())));
        }
    }

    for _ in 0..kills {
        // Under load: something got through since the last time.
        let before = acknowledged.load(Ordering::Relaxed);
        let progress = async {
            while acknowledged.load(Ordering::Relaxed) == before {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, progress).await.expect("nothing gets through any more");
        let moment = rand::rng().random_range(0..100);
        tokio::time::sleep(Duration::from_millis(moment)).await;
        server.kill();
        server.restart();
        starts.send_replace(Instant::now());
    }

    stop.store(true, Ordering::Relaxed);
    let mut sent = Vec::new();
    while let Some(messages) = senders.join_next().await {
        sent.extend(messages.unwrap());
    }
    assert!(sent.iter().all(|message| message.place.is_some()), "every message has an outcome in the end");
    // A device that was never here reads what the store really holds.
    for user in RECIPIENTS {
        let opened = client(&server, user, "new", Transport::WebSocket).connect().await.unwrap();
        let device = Device { user, name: "new", plant: None, lines: 0, got: Vec::new() };
        devices.push(tokio::spawn(take(opened, device, started.clone())));
    }
    let mut taken = Vec::new();
    for device in devices {
        taken.push(device.await.unwrap());
    }
    (sent, taken)
}

/// What a sender says last to each recipient, once everything else has its outcome.
const FAREWELL: &str = "farewell of";

/// Sends until told to stop, waits for every outcome, and says farewell.
async fn talk(client: Client, user: &'static str, stop: Arc<AtomicBool>, acknowledged: Arc<AtomicU64>, mut started: Started) -> Vec<Sent> {
    let mut sent = Vec::new();
    let mut waiting = std::collections::VecDeque::new();
    let mut farewells = RECIPIENTS.iter();
    loop {
        let talking = !stop.load(Ordering::Relaxed);
        let next = if talking && waiting.len() < UNDER_WAY {
            Some((RECIPIENTS[sent.len() % RECIPIENTS.len()], format!("{user} {}", sent.len())))
        } else if !talking && waiting.is_empty() {
            farewells.next().map(|to| (*to, format!("{FAREWELL} {user} to {to}")))
        } else {
            None
        };
        if let Some((to, words)) = next {
            let ticket = client.send(Target::User(to.parse().unwrap()), text(words.clone())).await.unwrap();
            waiting.push_back((sent.len(), ticket));
            sent.push(Sent { from: user.into(), to: to.into(), text: words, place: None });
            continue;
        }
        let Some((at, ticket)) = waiting.pop_front() else { break };
        let Ok(outcome) = started.within(ticket.outcome()).await else {
            let state = client.connection().borrow().clone();
            panic!("{user} waits for the outcome of {:?} for {PATIENCE:?}, {state:?}; {} wait behind it", sent[at].text, waiting.len());
        };
        let outcome = outcome.unwrap();
        sent[at].place = Some((outcome.conversation.0, outcome.seq.0));
        acknowledged.fetch_add(1, Ordering::Relaxed);
    }
    client.close().await;
    sent
}

/// Takes messages until every sender has said farewell: whatever was doubled or late has come before that, in the same conversation.
async fn take((client, mut events): (Client, Events), mut device: Device, mut started: Started) -> Device {
    // Where nobody looks, a client whose server dies each second waits for up to a minute, and notices later that it has.
    client.active(true);
    let mut farewells = 0;
    while farewells < SENDERS.len() {
        let Ok(incoming) = started.within(events.next()).await else {
            let (state, Device { user, name, got, .. }) = (client.connection().borrow().clone(), &device);
            let last: Vec<_> = got.iter().rev().take(3).map(|line| (line.mailbox, &line.text)).collect();
            panic!(
                "{user}'s {name} waits for {PATIENCE:?}, {state:?}; {} lines and {farewells} farewells came, the last {last:?}",
                got.len()
            );
        };
        // Let the checker say what is missing, if nothing comes any more.
        let Some(incoming) = incoming else { break };
        if let Incoming::Event { event, .. } = incoming
            && let EventBody::Message(message) = event.body
        {
            let from = message.from.expect("the client knows who").to_string();
            let place = (message.conversation.0, message.seq.0);
            farewells += usize::from(message.content.text.starts_with(FAREWELL));
            device.note(Got { mailbox: event.seq.0, place, from, text: message.content.text });
        }
    }
    events.done();
    client.close().await;
    device
}

impl Device {
    /// Notes a line for the checker, or what the planted fault makes of it.
    fn note(&mut self, line: Got) {
        let is_farewell = |line: &Got| line.text.starts_with(FAREWELL);
        let first_farewell = is_farewell(&line) && !self.got.iter().any(is_farewell);
        self.lines += 1;
        self.got.push(line);
        let last = self.got.len() - 1;
        match (self.plant, self.lines) {
            (Some(Plant::Drop), 3) => drop(self.got.pop()),
            (Some(Plant::Double), 4) => self.got.push(self.got[last - 1].clone()),
            (Some(Plant::Swap), 4) => self.got.swap(last - 1, last),
            (Some(Plant::DoubleLast), _) if first_farewell => self.got.push(self.got[last - 1].clone()),
            _ => {}
        }
    }
}

#[test]
fn a_listener_that_is_killed_prints_every_message_and_in_order() {
    run(async {
        const MESSAGES: usize = 400;
        let server = ServerProcess::start();
        let (client, events) = client(&server, "ann", "phone", Transport::WebSocket).connect().await.unwrap();
        events.store_only();
        let sending = tokio::spawn(async move {
            for number in 0..MESSAGES {
                let ticket = client.send(Target::User("bob".parse().unwrap()), text(number.to_string())).await.unwrap();
                ticket.outcome().await.unwrap();
            }
            client.close().await;
        });
        let url = server.url();
        let state = server.folder().join("state");
        let printed = tokio::task::spawn_blocking(move || {
            let mut printed: Vec<(u64, String)> = Vec::new();
            while printed.last().is_none_or(|(_, text)| *text != (MESSAGES - 1).to_string()) {
                let mut listen = Command::new(binary())
                    .args(["listen", "--as", "bob", "--url", &url, "--timeout", "20", "--state"])
                    .arg(&state)
                    .stdout(Stdio::piped())
                    .spawn()
                    .unwrap();
                let moment = rand::rng().random_range(1..80);
                // What it had written when it was killed was printed, and is read to the end.
                for (at, line) in std::io::BufReader::new(listen.stdout.take().unwrap()).lines().enumerate() {
                    let line = line.unwrap();
                    // The kill may have cut the last line; it was not acknowledged then.
                    let Ok(line) = serde_json::from_str::<serde_json::Value>(&line) else { break };
                    printed.push((line["seq"].as_u64().unwrap(), line["text"].as_str().unwrap().to_owned()));
                    let last = printed.last().is_some_and(|(_, text)| *text == (MESSAGES - 1).to_string());
                    if at == moment || last {
                        listen.kill().unwrap();
                    }
                }
                listen.wait().unwrap();
            }
            printed
        });
        let printed = printed.await.unwrap();
        sending.await.unwrap();
        // Standard output is at least once: after a kill it may go back, never ahead.
        let mut next = 0;
        for (seq, text) in &printed {
            let number: usize = text.parse().unwrap();
            assert!(number <= next, "message {next} is missing before {number} (entry {seq})");
            next = next.max(number + 1);
        }
        assert_eq!(next, MESSAGES);
    });
}

#[test]
fn a_server_that_falls_silent_is_noticed_over_every_transport() {
    run(async {
        let server = ServerProcess::start();
        // Silence alone would be a reason to ask in an hour: it is the send without an answer that is.
        let hour = Duration::from_secs(3_600);
        let liveness = Liveness { active: hour, idle: hour, give_up_after: Duration::from_millis(500) };
        let mut clients = Vec::new();
        for (user, transport) in SENDERS {
            let opened = client(&server, user, "phone", transport).liveness(liveness).connect().await.unwrap();
            clients.push((transport, opened));
        }
        // Stopped, it says nothing more, not even that it is gone; what is sent to it goes nowhere.
        server.signal("STOP");
        for (transport, (client, _events)) in &clients {
            let ticket = client.send(Target::User("bob".parse().unwrap()), text("are you there?")).await.unwrap();
            let mut connection = client.connection();
            let noticed = connection.wait_for(|state| !matches!(state, Connection::Connected { .. }));
            let noticed = tokio::time::timeout(PATIENCE, noticed).await;
            assert!(noticed.is_ok(), "{transport:?}: it still shows as connected");
            drop(ticket);
        }
        server.signal("CONT");
        for (_, (client, _events)) in &clients {
            let connected = async {
                let mut connection = client.connection();
                connection.wait_for(|state| matches!(state, Connection::Connected { .. })).await.map(drop)
            };
            tokio::time::timeout(PATIENCE, connected).await.expect("it does not come back").unwrap();
        }
    });
}

#[test]
fn what_was_delivered_is_told_whenever_the_server_stops() {
    run(async {
        let mut server = ServerProcess::start();
        for (round, orderly) in [true, false, true, false].into_iter().enumerate() {
            let (ann, bob) = (format!("ann{round}"), format!("bob{round}"));
            let (sender, mut told) = client(&server, &ann, "phone", Transport::WebSocket).connect().await.unwrap();
            let state = server.folder().join(&bob);
            let listen = || client(&server, &bob, "phone", Transport::WebSocket).state(State::Folder(state.clone()));
            // Two, so that the receipt of the second waits for its turn when the server goes.
            for number in 1..=2 {
                sender.send(Target::User(bob.parse().unwrap()), text(number.to_string())).await.unwrap().outcome().await.unwrap();
                let (listener, mut events) = listen().connect().await.unwrap();
                let heard = async {
                    loop {
                        if let Some(Incoming::Event { event, .. }) = events.next().await
                            && let EventBody::Message(message) = event.body
                        {
                            break assert_eq!(message.content.text, number.to_string());
                        }
                    }
                };
                tokio::time::timeout(PATIENCE, heard).await.expect("no message");
                events.done();
                listener.close().await;
            }
            if orderly {
                assert!(server.terminate().success());
            } else {
                server.kill();
            }
            server.restart();
            // The device comes back, and has nothing new to say.
            let (listener, _events) =
                client(&server, &bob, "phone", Transport::WebSocket).state(State::Folder(state)).connect().await.unwrap();
            let delivered = async {
                loop {
                    if let Some(Incoming::Event { event, .. }) = told.next().await
                        && let EventBody::Receipt(receipt) = event.body
                        && receipt.delivered.0 == 2
                    {
                        break;
                    }
                }
            };
            tokio::time::timeout(PATIENCE, delivered).await.unwrap_or_else(|_| panic!("round {round}: the receipt never came"));
            listener.close().await;
            sender.close().await;
        }
    });
}
