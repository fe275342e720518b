//! What comes before a handshake is over (0-RTT): by a device that comes back, and by somebody who recorded it and plays it again.

use crate::harness::{Frames, Link, ServerProcess, hello, http_get, quic_config, quic_to, run, text, within};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use whimbrel_client::protocol::codec::{Form, write_frame};
use whimbrel_client::protocol::frame::{
    ClientFrame, Command, Hello, PresenceState, Send, ServerFrame, ServerSignal, Signal, Target, Watch,
};
use whimbrel_client::protocol::{CommandSeq, Incarnation, Nonce, UserId};
use whimbrel_client::{Client, Incoming, Transport};

/// Stands between a client and a server, and keeps what the client says before it can have heard anything.
struct Recorder {
    address: SocketAddr,
    flight: Arc<Mutex<Vec<Vec<u8>>>>,
    released: Arc<Notify>,
    passing: JoinHandle<()>,
}

impl Recorder {
    async fn start(server: SocketAddr) -> Self {
        let front = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let back = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        back.connect(server).await.unwrap();
        let address = front.local_addr().unwrap();
        let (flight, released) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Notify::new()));
        let (kept, release) = (flight.clone(), released.clone());
        let passing = tokio::spawn(async move {
            let (mut out, mut home) = ([0; 2048], [0; 2048]);
            let mut client = None;
            let mut passes = false;
            loop {
                tokio::select! {
                    Ok((len, from)) = front.recv_from(&mut out) => {
                        client = Some(from);
                        if passes {
                            let _ = back.send(&out[..len]).await;
                        } else {
                            kept.lock().unwrap().push(out[..len].to_vec());
                        }
                    }
                    Ok(len) = back.recv(&mut home) => {
                        let _ = front.send_to(&home[..len], client.unwrap()).await;
                    }
                    () = release.notified() => {
                        passes = true;
                        let flight = kept.lock().unwrap().clone();
                        for packet in flight {
                            let _ = back.send(&packet).await;
                        }
                    }
                }
            }
        });
        Self { address, flight, released, passing }
    }

    /// Passes on what was kept, and from now on everything.
    fn release(&self) {
        self.released.notify_one();
    }

    fn flight(&self) -> Vec<Vec<u8>> {
        self.flight.lock().unwrap().clone()
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.passing.abort();
    }
}

/// Sends what was recorded from another socket.
async fn play(flight: &[Vec<u8>], server: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for packet in flight {
        socket.send_to(packet, server).await.unwrap();
    }
    socket
}

/// How many sessions have begun before the end of their handshake.
async fn early_sessions(server: &ServerProcess) -> u64 {
    hellos(server, "at_once").await
}

/// How many hellos came before the end of their handshakes, by when their sessions begin: "" for whenever.
async fn hellos(server: &ServerProcess, begins: &str) -> u64 {
    let page = http_get(server.http, "/metrics", &[]).await;
    let page = String::from_utf8(page.body().to_vec()).unwrap();
    let name = format!("whimbrel_early_sessions_total{{begins=\"{begins}");
    let lines = page.lines().filter(|line| line.starts_with(&name));
    lines.map(|line| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap()).sum()
}

/// Waits until there is one that begins then.
async fn hello_came(server: &ServerProcess, begins: &str) {
    let came = async {
        while hellos(server, begins).await == 0 {
            sleep(Duration::from_millis(5)).await;
        }
    };
    within("a hello before the end of its handshake", came).await;
}

/// Waits until a session has begun before the end of its handshake.
async fn begun_early(server: &ServerProcess) {
    hello_came(server, "at_once").await;
}

/// Ann's phone: it was here, has an outbox, and a ticket to come back with.
struct Phone {
    config: quinn::ClientConfig,
    incarnation: Incarnation,
}

impl Phone {
    async fn new(server: &ServerProcess) -> Self {
        let config = quic_config(server.http).await;
        let (connecting, endpoint) = quic_to(server.secure, &config);
        let connection = connecting.await.unwrap();
        let (mut send, recv) = connection.open_bi().await.unwrap();
        let mut bytes = Vec::new();
        write_frame(&ClientFrame::Hello(hello("ann", "phone")), &mut bytes).unwrap();
        send.write_all(&bytes).await.unwrap();
        let mut frames = Frames::welcomed(Link::on(send, recv, (connection, endpoint.clone()))).await;
        // An answer comes after the tickets.
        let cseq = frames.say("bob", "hello").await;
        frames.applied(cseq).await;
        let incarnation = frames.welcome.incarnation;
        drop(frames);
        endpoint.wait_idle().await;
        Self { config, incarnation }
    }

    fn hello(&self, attempt: u32) -> Hello {
        Hello { incarnation: self.incarnation, attempt, ..hello("ann", "phone") }
    }

    fn command(&self) -> ClientFrame {
        let to = Target::User(UserId::new("bob").unwrap());
        let body = Send { to, content: text("said early") }.into();
        ClientFrame::Command(Command { incarnation: self.incarnation, cseq: CommandSeq(2), nonce: Nonce([7; 8]), body })
    }

    fn opening(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        write_frame(&ClientFrame::Hello(self.hello(1)), &mut bytes).unwrap();
        write_frame(&self.command(), &mut bytes).unwrap();
        bytes
    }

    /// Comes back through `relay`, and says the opening before it hears anything.
    async fn come(&self, relay: &Recorder) -> Early {
        let (connecting, endpoint) = quic_to(relay.address, &self.config);
        let Ok((connection, accepted)) = connecting.into_0rtt() else { panic!("it has no ticket") };
        let (mut send, recv) = connection.open_bi().await.unwrap();
        send.write_all(&self.opening()).await.unwrap();
        let sent = async {
            while connection.stats().frame_tx.stream == 0 || relay.flight().len() as u64 != connection.stats().udp_tx.datagrams {
                sleep(Duration::from_millis(1)).await;
            }
        };
        within("the first packets", sent).await;
        Early { accepted, link: Link::on(send, recv, (connection, endpoint)) }
    }
}

struct Early {
    accepted: quinn::ZeroRttAccepted,
    link: Link,
}

/// What Bob gets, up to a last message that a friend writes to him, and only once.
async fn received(server: &ServerProcess, last: &str) -> Vec<String> {
    let mut friend = Frames::enter(server.http, Form::Postcard, "cem", "phone").await;
    let mut bob = Frames::enter(server.http, Form::Postcard, "bob", "phone").await;
    friend.say("bob", last).await;
    let mut all = Vec::new();
    loop {
        match bob.message().await {
            end if end == last => return all,
            text => all.push(text),
        }
    }
}

/// The tickets as they were before the phone came back, so that its early data is taken twice: as after a crash.
async fn forget_that_it_was_used(server: &mut ServerProcess, tickets: &[u8]) {
    server.kill();
    for end in ["-wal", "-shm"] {
        let _ = std::fs::remove_file(server.certs().join(format!("tickets.db{end}")));
    }
    std::fs::write(server.certs().join("tickets.db"), tickets).unwrap();
    server.restart();
}

#[test]
fn what_a_device_said_early_has_no_second_effect_when_it_is_played_again() {
    run(async {
        let mut server = ServerProcess::start();
        let phone = Phone::new(&server).await;
        assert!(server.terminate().success());
        let tickets = std::fs::read(server.certs().join("tickets.db")).unwrap();
        server.restart();

        let relay = Recorder::start(server.secure).await;
        let early = phone.come(&relay).await;
        relay.release();
        assert!(early.accepted.await, "it was taken in 0-RTT");
        let mut original = Frames::welcomed(early.link).await;
        original.applied(CommandSeq(2)).await;
        let flight = relay.flight();
        // Whether the end of its handshake came before anybody looked is chance.
        let before = early_sessions(&server).await;

        // While the session that it began is there.
        let _player = play(&flight, server.secure).await;
        original.cseq = CommandSeq(2);
        let cseq = original.say("bob", "goes on").await;
        original.applied(cseq).await;
        // When it is gone. The ticket is used up: the server answers, and takes nothing early.
        drop(original);
        let answered = async {
            loop {
                let player = play(&flight, server.secure).await;
                if tokio::time::timeout(Duration::from_millis(200), player.recv(&mut [0; 2048])).await.is_ok() {
                    break;
                }
            }
        };
        within("an answer to who plays it", answered).await;
        assert_eq!(early_sessions(&server).await, before);

        // The same where a newer session has taken over, and the ticket is good again.
        forget_that_it_was_used(&mut server, &tickets).await;
        let run = Hello { instance: Nonce([9; 8]), ..phone.hello(0) };
        let mut newer = Frames::enter_with(server.http, Form::Postcard, run).await;
        assert_eq!((newer.welcome.incarnation, newer.welcome.applied), (phone.incarnation, CommandSeq(3)));
        let _player = play(&flight, server.secure).await;
        hello_came(&server, "after_the_handshake").await;
        assert_eq!(early_sessions(&server).await, 0);
        newer.cseq = CommandSeq(3);
        let cseq = newer.say("bob", "writes still").await;
        newer.applied(cseq).await;

        // Where that is of the same run, which is why what comes early may begin at once.
        forget_that_it_was_used(&mut server, &tickets).await;
        let mut later = Frames::enter_with(server.http, Form::Postcard, phone.hello(2)).await;
        assert_eq!(later.welcome.applied, CommandSeq(4));
        let _player = play(&flight, server.secure).await;
        hello_came(&server, "").await;
        later.cseq = CommandSeq(4);
        let cseq = later.say("bob", "is still there").await;
        later.applied(cseq).await;
        drop(later);

        // And where the device is not there at all: nobody sees Ann come.
        forget_that_it_was_used(&mut server, &tickets).await;
        let mut watcher = Frames::enter(server.http, Form::Postcard, "dora", "phone").await;
        let users: Vec<UserId> = ["ann", "edi"].map(|name| UserId::new(name).unwrap()).into();
        watcher.link.send(&ClientFrame::Signal(Signal::Watch(Watch { users, everyone: false, lobby: false }))).await;
        let _player = play(&flight, server.secure).await;
        begun_early(&server).await;
        let _edi = Frames::enter(server.http, Form::Postcard, "edi", "phone").await;
        let mut edi_came = false;
        while !edi_came {
            let presence = watcher.wait("presence", |frame| match frame {
                ServerFrame::Signal(ServerSignal::Presence(presence)) => Some(presence.clone()),
                _ => None,
            });
            for told in presence.await {
                assert!(told.user.as_str() != "ann" || told.state == PresenceState::Offline, "Ann was seen");
                edi_came |= told.user.as_str() == "edi" && told.state == PresenceState::Online;
            }
        }
        assert_eq!(received(&server, "the end").await, ["hello", "said early", "goes on", "writes still", "is still there"]);
    });
}

#[test]
fn what_only_who_recorded_it_delivers_is_done_once_whoever_says_it_again() {
    run(async {
        let server = ServerProcess::start();
        let phone = Phone::new(&server).await;
        // The phone hears nothing, and nobody hears it.
        let relay = Recorder::start(server.secure).await;
        let early = phone.come(&relay).await;
        let _player = play(&relay.flight(), server.secure).await;
        begun_early(&server).await;
        assert_eq!(received(&server, "the end").await, ["hello", "said early"]);

        // It gives up, and comes another way.
        drop(early);
        let mut again = Frames::enter_with(server.http, Form::Postcard, phone.hello(2)).await;
        assert_eq!(again.welcome.applied, CommandSeq(2));
        assert_eq!(again.welcome.applied_nonce, Nonce([7; 8]));
        again.link.send(&phone.command()).await;
        again.cseq = CommandSeq(2);
        let cseq = again.say("bob", "afterwards").await;
        again.applied(cseq).await;
        assert_eq!(received(&server, "the very end").await, ["hello", "said early", "the end", "afterwards"]);
    });
}

#[test]
fn a_client_comes_back_early_with_what_it_has_to_say_and_says_it_once() {
    run(async {
        let mut server = ServerProcess::start();
        let (ann, events) = Client::builder(server.url(), "ann").transport(Transport::Quic).connect().await.unwrap();
        let (seen, mut seeing) = tokio::sync::mpsc::unbounded_channel();
        let reading = tokio::spawn(async move {
            let mut events = events;
            while let Some(incoming) = events.next().await {
                if let Incoming::Signal(ServerSignal::Presence(presence)) = incoming {
                    presence.into_iter().for_each(|told| drop(seen.send(told)));
                }
            }
        });
        ann.watch(Watch { users: vec![UserId::new("edi").unwrap()], everyone: false, lobby: false }).await.unwrap();
        let bob = || Target::User(UserId::new("bob").unwrap());
        let mut expected = vec!["before".to_owned()];
        ann.send(bob(), text("before")).await.unwrap().outcome().await.unwrap();
        // Whether the server looks at what came before the end of the handshake is chance, mostly it does.
        let mut early = 0;
        for round in 0..10 {
            // In good order, so that the tickets are there again.
            assert!(server.terminate().success());
            // More than one opening holds.
            let texts: Vec<String> = (0..40).map(|number| format!("{round} {number}")).collect();
            let mut tickets = Vec::new();
            for words in &texts {
                tickets.push(ann.send(bob(), text(words)).await.unwrap());
            }
            server.restart();
            for ticket in tickets {
                within("an outcome", ticket.outcome()).await.unwrap();
            }
            expected.extend(texts);
            early = early_sessions(&server).await;
            if early > 0 && round > 1 {
                break;
            }
        }
        assert!(early > 0, "it never came early");
        // Whom it watches it said early too, and once.
        let _edi = Frames::enter(server.http, Form::Postcard, "edi", "phone").await;
        let came = async { while seeing.recv().await.unwrap().state != PresenceState::Online {} };
        within("word of Edi", came).await;
        assert_eq!(received(&server, "the end").await, expected);
        ann.close().await;
        reading.await.unwrap();
    });
}
