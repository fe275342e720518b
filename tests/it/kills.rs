//! Durable means it: `kill -9` at random moments under load, and every message that anybody saw acknowledged is there, once, in order,
//! on every device.

use crate::checker::{Got, Sent, check};
use crate::harness::{PATIENCE, ServerProcess, binary, run};
use rand::RngExt;
use std::io::BufRead;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::task::JoinSet;
use whimbrel_client::protocol::frame::{EventBody, Origin, Target};
use whimbrel_client::{Builder, Client, Events, Incoming, State, Transport, text};

const SENDERS: [(&str, Transport); 3] =
    [("ann", Transport::WebTransport), ("abe", Transport::WebSocket), ("ada", Transport::WebSocketJson)];
const RECIPIENTS: [&str; 2] = ["bob", "bea"];
const DEVICES: [(&str, Transport); 2] = [("phone", Transport::WebTransport), ("laptop", Transport::WebSocket)];
/// Messages on their way at once, a sender.
const UNDER_WAY: usize = 32;

/// How often the server is killed; more by an environment variable.
fn kills() -> u32 {
    std::env::var("WHIMBREL_KILLS").ok().and_then(|number| number.parse().ok()).unwrap_or(50)
}

fn client(server: &ServerProcess, user: &str, device: &str, transport: Transport) -> Builder {
    Client::builder(server.url(), user).device(device).transport(transport).origin(Origin::Oldest)
}

#[test]
fn nothing_acknowledged_is_lost_when_the_server_is_killed() {
    run(async {
        let mut server = ServerProcess::start();
        let states = tempfile::tempdir().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let acknowledged = Arc::new(AtomicU64::new(0));

        let mut senders = JoinSet::new();
        for (user, transport) in SENDERS {
            let state = State::Folder(states.path().join(user));
            let (client, events) = client(&server, user, "phone", transport).state(state).connect().await.unwrap();
            events.store_only();
            senders.spawn(talk(client, user, stop.clone(), acknowledged.clone()));
        }
        let mut devices = Vec::new();
        for user in RECIPIENTS {
            for (device, transport) in DEVICES {
                let state = State::Folder(states.path().join(format!("{user}-{device}")));
                let (client, events) = client(&server, user, device, transport).state(state).connect().await.unwrap();
                devices.push((user, device, tokio::spawn(take(client, events))));
            }
        }

        for _ in 0..kills() {
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
        }

        stop.store(true, Ordering::Relaxed);
        let mut sent = Vec::new();
        while let Some(messages) = senders.join_next().await {
            sent.extend(messages.unwrap());
        }
        assert!(sent.iter().all(|message| message.place.is_some()), "every message has an outcome in the end");
        let count = |user: &str| sent.iter().filter(|message| message.to == user).count();
        // A device that was never here reads what the store really holds.
        for user in RECIPIENTS {
            let (client, events) = client(&server, user, "new", Transport::WebSocket).connect().await.unwrap();
            devices.push((user, "new", tokio::spawn(take(client, events))));
        }
        for (user, device, taking) in devices {
            let got = finish(taking, count(user)).await;
            assert_eq!(check(user, &sent, &got), Ok(()), "{user}'s {device}");
        }
        assert!(sent.len() as u64 >= u64::from(kills()), "{} messages are no load", sent.len());
    });
}

/// Sends until told to stop, then waits for every outcome.
async fn talk(client: Client, user: &'static str, stop: Arc<AtomicBool>, acknowledged: Arc<AtomicU64>) -> Vec<Sent> {
    let mut sent = Vec::new();
    let mut waiting = std::collections::VecDeque::new();
    loop {
        let stopping = stop.load(Ordering::Relaxed);
        if !stopping && waiting.len() < UNDER_WAY {
            let to = RECIPIENTS[sent.len() % RECIPIENTS.len()];
            let words = format!("{user} {}", sent.len());
            let ticket = client.send(Target::User(to.parse().unwrap()), text(words.clone())).await.unwrap();
            waiting.push_back((sent.len(), ticket));
            sent.push(Sent { from: user.into(), to: to.into(), text: words, place: None });
            continue;
        }
        let Some((at, ticket)) = waiting.pop_front() else { break };
        let outcome = tokio::time::timeout(PATIENCE, ticket.outcome()).await.expect("no outcome").unwrap();
        sent[at].place = Some((outcome.conversation.0, outcome.seq.0));
        acknowledged.fetch_add(1, Ordering::Relaxed);
    }
    client.close().await;
    sent
}

type Taken = Arc<std::sync::Mutex<Vec<Got>>>;

/// Takes messages for as long as it is let.
async fn take(client: Client, mut events: Events) -> (Client, Events, Taken) {
    let taken = Taken::default();
    // One after the other until `finish` has them all; the events stay with the device.
    while let Ok(Some(incoming)) = tokio::time::timeout(Duration::from_secs(3), events.next()).await {
        note(&taken, incoming);
    }
    (client, events, taken)
}

fn note(taken: &Taken, incoming: Incoming) {
    if let Incoming::Event { event, .. } = incoming
        && let EventBody::Message(message) = event.body
    {
        let from = message.from.expect("the client knows who").to_string();
        let place = (message.conversation.0, message.seq.0);
        taken.lock().unwrap().push(Got { mailbox: event.seq.0, place, from, text: message.content.text });
    }
}

async fn finish(taking: tokio::task::JoinHandle<(Client, Events, Taken)>, count: usize) -> Vec<Got> {
    let (client, mut events, taken) = taking.await.unwrap();
    while taken.lock().unwrap().len() < count {
        match tokio::time::timeout(PATIENCE, events.next()).await {
            Ok(Some(incoming)) => note(&taken, incoming),
            // Let the checker say what is missing.
            Ok(None) | Err(_) => break,
        }
    }
    events.done();
    client.close().await;
    std::mem::take(&mut *taken.lock().unwrap())
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
