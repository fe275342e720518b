//! The clients that exist already: Socket.IO 4, with the events of their contract (`docs/socketio.md`), over WebSocket, polling, and from
//! one to the other. `socketioxide` speaks their protocol; what is here makes each of them a device like any other, whose session reads the
//! log and is acknowledged by what its client has taken.
//!
//! - `entry` takes requests, and looks at what passes on the way: `line` over WebSocket, bodies when polling. `wire` counts it.
//!   `moving` is for clients that go from one to the other.
//! - `guest` is a socket and takes its events, one after the other. Once it has logged in, `session` is its client within the server:
//!   each `wish` of it becomes frames, and `outgoing` makes events of the frames that come, which wait in a `queue` (`receipts` of those that say what became of messages). `seat` says which device it is.

mod contract;
mod entry;
mod guest;
mod line;
mod moving;
mod outgoing;
mod people;
mod port;
mod queue;
mod receipts;
mod seat;
mod session;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests;
mod wire;
mod wish;

pub use entry::serve;

use crate::lobby::{Listener, Lobby};
use crate::session::{Admitted, Context};
use contract::{Given, Line, User, event};
use guest::{Events, Gone, Guest};
use people::People;
use port::Port;
use seat::Seats;
use socketioxide::adapter::LocalAdapter;
use socketioxide::extract::SocketRef;
use socketioxide::handler::ConnectHandler;
use socketioxide::service::SocketIoService;
use socketioxide::socket::Socket;
use socketioxide::{ParserConfig, SocketIo};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use whimbrel_protocol::{TransportKind, UserId};
use wire::Wire;

/// The largest request and the largest event: what the old server took by default.
const BYTES_MAX: usize = 1_000_000;
/// Attachments of an event: `socket.io-client` takes no more, and would end the connection of whoever is sent more.
const ATTACHMENTS_MAX: usize = 10;
/// Counts the events that should not have been sent.
const REFUSED: &str = "whimbrel_socketio_refused_total";
/// Packets that wait for the network.
const PACKETS_MAX: usize = 128;
/// From so many events that have not left on a client gets no files.
const FILES_BEHIND: u64 = 8;
/// Read buffer of a WebSocket.
const BUFFER_BYTES: usize = 4 * 1024;
/// Users that are named in `online_users`; and up to so many each change is told by itself.
const LISTED_MAX: usize = 1_000;
/// Bytes of such a list from which on pictures are left out, and of an entry without its words.
const LIST_BYTES: usize = 256 * 1024;
const ENTRY_BYTES: usize = 50;
/// Bytes of such lists that are told in a second, to all sockets together.
const LISTED_A_SECOND: usize = 20_000_000;
/// What clients are told when the server leaves.
const GOING_DOWN: &str = "the server is going down: it will be back";
/// What clients are told when there is no room.
const FULL: &str = "the server is full: come again in a minute";
/// A connection stays so long without a socket.
const EMPTY_TIME: Duration = Duration::from_secs(5);
/// How often it is looked whether a client has said anything, and how often in vain until it is gone: after a minute. It would have been asked and given up
/// before that, but the library cannot always tell: who reads nothing keeps it from it.
const LOOK_EVERY: Duration = Duration::from_secs(15);
const SILENT_LOOKS: u32 = 4;
/// How often it is written how far clients have got: what was told since then is told again after a crash.
const SAVE_EVERY: Duration = Duration::from_millis(500);
/// A list is told to a socket this often at most.
const LIST_EVERY: Duration = Duration::from_secs(1);

/// What all sockets share.
pub struct Gateway {
    context: Arc<Context>,
    lobby: Arc<Lobby>,
    service: SocketIoService<entry::Elsewhere>,
    wires: entry::Wires,
    seats: Seats,
    people: People,
    leaving: watch::Sender<bool>,
    closed: watch::Sender<bool>,
}

impl Gateway {
    /// Before the first request.
    #[must_use]
    pub fn new(context: Arc<Context>, lobby: Arc<Lobby>) -> Arc<Self> {
        let (service, io) = SocketIo::builder()
            .with_parser(ParserConfig::common().max_incoming_binary_buf_size(BYTES_MAX).max_incoming_binaries(ATTACHMENTS_MAX))
            .req_path("/socket.io")
            .max_payload(BYTES_MAX as u64)
            .ws_max_message_size(BYTES_MAX)
            .ws_max_frame_size(BYTES_MAX)
            .ws_read_buffer_size(BUFFER_BYTES)
            .max_buffer_size(PACKETS_MAX)
            .build_with_inner_svc(entry::Elsewhere);
        // There from the beginning, for whoever watches them.
        metrics::counter!(REFUSED).increment(0);
        metrics::gauge!("whimbrel_sessions", "transport" => TransportKind::SocketIo.to_string()).increment(0.0);
        Arc::new_cyclic(|gateway: &Weak<Self>| {
            io.ns("/", Door(gateway.clone()));
            Self {
                context,
                lobby,
                service,
                wires: Default::default(),
                seats: Seats::default(),
                people: People::default(),
                leaving: watch::Sender::new(false),
                closed: watch::Sender::new(false),
            }
        })
    }

    /// Writes how far clients have got, again and again: they do not know it themselves. And forgets who has left. Runs until dropped; then
    /// [`save`](Self::save) does the rest.
    pub async fn tend(self: Arc<Self>) {
        loop {
            sleep(SAVE_EVERY).await;
            self.save().await;
            self.people.forget(|user| !self.context.engine.hub().is_online(user));
        }
    }

    /// Writes how far clients have got.
    pub async fn save(&self) {
        let positions = self.seats.to_save();
        if positions.is_empty() {
            return;
        }
        match self.context.engine.save_positions(positions.clone()).await {
            Ok(()) => self.seats.on_saved(&positions),
            Err(error) => tracing::warn!(%error, "cannot save how far clients of Socket.IO have got; trying again"),
        }
    }

    /// From now on the end of a session is the server's: its client is told so, and who has none too.
    pub fn leave(&self) {
        self.leaving.send_replace(true);
    }

    /// Ends what is still open, as if the network had. The clients connect again by themselves.
    pub fn close(&self) {
        self.closed.send_replace(true);
        self.wires.cut();
    }

    fn is_leaving(&self) -> bool {
        *self.leaving.borrow()
    }

    /// Who is online, for a list: the first by name; and how many bytes that is, about. Pictures that are no addresses may be long: once the list is
    /// long too, they are left out.
    fn online(&self) -> (Arc<Vec<User>>, usize) {
        let (users, bytes) = self.listed(&self.context.engine.hub().online("", LISTED_MAX).0);
        (Arc::new(users), bytes)
    }

    fn listed(&self, users: &[UserId]) -> (Vec<User>, usize) {
        let mut bytes = 0;
        let users = users.iter().map(|user| {
            let mut user = self.people.user(user);
            if bytes > LIST_BYTES {
                user.avatar.clear();
            }
            bytes += ENTRY_BYTES + 2 * user.id.len() + user.name.len() + user.avatar.len();
            user
        });
        (users.collect(), bytes)
    }

    /// Users as the clients of this kind know them, with pictures as in their lists.
    pub fn users(&self, users: &[UserId]) -> serde_json::Value {
        // They are text and no keys.
        serde_json::to_value(self.listed(users).0).unwrap_or_default()
    }

    /// How long after a list the next is told at the earliest: so that what all of them cost does not grow with the square of the users.
    fn list_every(&self, bytes: usize) -> Duration {
        LIST_EVERY.max(Duration::from_secs_f64((self.people.ports() * bytes) as f64 / LISTED_A_SECOND as f64))
    }

    /// Somebody who has not said who they are says something to all such.
    fn say_in_lobby(&self, line: &Line) {
        self.lobby.say(None, line.content.clone().into());
    }

    /// Passes a file on, to the sockets of a user.
    fn pass_file(&self, to: &UserId, given: &Given) -> Result<(), String> {
        let ports = self.people.of(to);
        let (mut passed, mut behind) = (false, false);
        for port in &ports {
            // They may be large, and are not to be in the way of what is.
            if port.waiting() >= FILES_BEHIND {
                behind = true;
                continue;
            }
            match port.emit(event::FILE, given) {
                Ok(_) => passed = true,
                Err(why) => tracing::debug!(%why, "a file was not passed on"),
            }
        }
        if behind && !passed {
            return Err(format!("{to} takes no files for now: try again later"));
        }
        if passed { Ok(()) } else { Err(format!("{to} is not connected over Socket.IO, and files are not kept")) }
    }

    fn welcome(self: &Arc<Self>, socket: &Arc<Socket<LocalAdapter>>, place: Arc<Admitted>) {
        let Some(wire) = socket.req_parts().extensions.get::<Arc<Wire>>().cloned() else {
            // Every way in puts one there.
            tracing::error!("a socket came in past the door");
            return;
        };
        let port = Arc::new(Port::new(SocketRef::from(socket.clone()), wire));
        let guest = Arc::new(Guest::new(self.clone(), port, place));
        // The library keeps what a socket is given for as long as the socket, which a guest keeps.
        let weak = Arc::downgrade(&guest);
        socket.on_fallback(Events(weak.clone()));
        socket.on_disconnect(Gone(weak));
        tokio::spawn(listen(self.lobby.listen(), self.leaving.subscribe(), guest));
    }
}

impl std::fmt::Debug for Gateway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gateway").finish_non_exhaustive()
    }
}

/// What a socket needs for as long as it is there: who does not say who they are hears what is said in the lobby.
async fn listen(mut lines: Listener, mut leaving: watch::Receiver<bool>, guest: Arc<Guest>) {
    let made = Instant::now();
    let (mut sure, mut told) = (false, false);
    let wire = guest.port().wire.clone();
    let heard = || wire.progress().borrow().heard;
    let (mut last, mut silent, mut look_at) = (heard(), 0, made + LOOK_EVERY);
    loop {
        tokio::select! {
            () = guest.port().tell_later() => return,
            // The library says nothing of sockets whose connection ends while they are made.
            () = sleep_until(made + EMPTY_TIME), if !sure => {
                sure = true;
                if !guest.port().socket.connected() {
                    return guest.leave();
                }
            }
            () = sleep_until(look_at) => {
                silent = if heard() == last { silent + 1 } else { 0 };
                if silent >= SILENT_LOOKS {
                    wire.give_up();
                    return guest.leave();
                }
                (last, look_at) = (heard(), Instant::now() + LOOK_EVERY);
            }
            text = lines.next() => {
                let Some(text) = text else { return };
                if guest.is_stranger() {
                    guest.tell(event::MESSAGE, &Line { content: text.as_str().to_owned() });
                }
            }
            // It fails only when the server is gone.
            _ = leaving.wait_for(|leaving| *leaving), if !told => {
                told = true;
                guest.bid_farewell();
            }
            () = guest.gone() => return,
        }
    }
}

/// Meets sockets before they are told that they are connected, so that nothing they say is missed.
#[derive(Clone)]
struct Door(Weak<Gateway>);

impl ConnectHandler<LocalAdapter, ()> for Door {
    fn call(&self, _: Arc<Socket<LocalAdapter>>, _: Option<socketioxide_core::Value>) {}

    fn call_middleware<'a>(
        &'a self,
        socket: Arc<Socket<LocalAdapter>>,
        _: &'a Option<socketioxide_core::Value>,
    ) -> Pin<Box<dyn Future<Output = Result<(), Box<dyn std::fmt::Display + Send>>> + Send + 'a>> {
        Box::pin(async move {
            match self.0.upgrade() {
                Some(gateway) if !gateway.is_leaving() => match gateway.context.admission.place() {
                    Some(place) => {
                        gateway.welcome(&socket, place);
                        Ok(())
                    }
                    None => Err(Box::new(FULL) as Box<dyn std::fmt::Display + Send>),
                },
                _ => Err(Box::new(GOING_DOWN) as Box<dyn std::fmt::Display + Send>),
            }
        })
    }
}
