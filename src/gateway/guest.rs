//! One socket: what its client says, from the first event to the last. What it says as a user becomes a session's; before that it can log in,
//! or speak in the lobby.

use super::contract::{Beside, Given, Line, User, Words, event};
use super::port::Port;
use super::session::{self, Asked, Wish};
use super::{GOING_DOWN, Gateway};
use crate::session::Admitted;
use serde_json::Value as Json;
use socketioxide::adapter::LocalAdapter;
use socketioxide::extract::AckSender;
use socketioxide::handler::MessageHandler;
use socketioxide::handler::message::FromMessageParts;
use socketioxide::socket::Socket;
use socketioxide_core::Value;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::mpsc;
use whimbrel_protocol::UserId;

/// What a client asked for and no session has taken yet: from so many on nothing is read …
const WISHES_HIGH: usize = 64;
/// … and beyond so many, which can only have come in one request, it is too much.
const WISHES_MAX: usize = 4096;

/// A socket.
pub(super) struct Guest {
    gateway: Arc<Gateway>,
    port: Arc<Port>,
    /// Where what it wants goes, once it has logged in.
    member: Mutex<Option<Member>>,
    /// Its place among the sessions, until it has one.
    place: Mutex<Option<Admitted>>,
}

#[derive(Debug, Clone)]
struct Member {
    user: UserId,
    wishes: mpsc::Sender<Wish>,
}

impl Guest {
    pub fn new(gateway: Arc<Gateway>, port: Arc<Port>, place: Admitted) -> Self {
        Self { gateway, port, member: Mutex::new(None), place: Mutex::new(Some(place)) }
    }

    fn give_up_place(&self) {
        *self.place.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// The server leaves: who has a session is told by it.
    pub fn bid_farewell(&self) {
        if self.is_stranger() {
            self.port.say(event::SHUTDOWN, GOING_DOWN);
        }
        self.give_up_place();
    }

    fn member(&self) -> MutexGuard<'_, Option<Member>> {
        self.member.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether nobody knows yet who it is.
    pub fn is_stranger(&self) -> bool {
        self.member().is_none()
    }

    /// Waits until the client is gone.
    pub async fn gone(&self) {
        self.port.gone().await;
    }

    /// Tells something that may get lost.
    pub fn tell<T: serde::Serialize>(&self, name: &str, data: &T) {
        if let Err(why) = self.port.emit(name, data) {
            tracing::debug!(%why, name, "not told");
        }
    }

    /// The client is gone.
    pub fn leave(&self) {
        // Nobody sends wishes any more, which ends the session.
        *self.member() = None;
        self.give_up_place();
        self.port.leave();
    }

    /// Takes an event. `answer` is there if the client wants to be called back.
    fn take(self: &Arc<Self>, name: &str, given: &Given, answer: Option<AckSender>) {
        if self.gateway.is_leaving() {
            // It has been told, and will be told of nothing else.
            return;
        }
        if let Err(why) = self.try_take(name, given, answer) {
            metrics::counter!("whimbrel_socketio_refused_total").increment(1);
            self.port.say(event::ERROR, format!("{name}: {why}"));
        }
    }

    fn try_take(self: &Arc<Self>, name: &str, given: &Given, answer: Option<AckSender>) -> Result<(), String> {
        if name == event::LOGIN {
            return self.login(given);
        }
        let Some(member) = self.member().clone() else {
            if name == event::MESSAGE && given.may::<Json>("toId")?.is_none() {
                self.gateway.say_in_lobby(&Line { content: given.need("content")? });
                return Ok(());
            }
            return Err(format!("log in first, with {}", event::LOGIN));
        };
        if given.may::<String>("fromId")?.is_some_and(|said| said != member.user.as_str()) {
            return Err(format!("fromId is not who you logged in as, {}", member.user));
        }
        let wish = match name {
            event::MESSAGE => Wish::Message { to: user(given, "toId")?, text: given.need("content")?, beside: beside(given)? },
            event::TYPING => Wish::Typing { to: user(given, "toId")?, active: given.need("isTyping")? },
            event::STATUS => match given.need::<String>("status")?.as_str() {
                "online" => Wish::Status { background: false },
                "offline" => Wish::Status { background: true },
                other => return Err(format!("status is online or offline, not {other:?}")),
            },
            event::GET_HISTORY => {
                let (friend_id, topic) = (given.need("friendId")?, given.may("topic")?);
                Wish::History { with: user(given, "friendId")?, asked: Asked { friend_id, topic, answer } }
            }
            event::FILE => return self.gateway.pass_file(&user(given, "toId")?, given),
            _ => return Err("there is no such event".into()),
        };
        match member.wishes.try_send(wish) {
            Ok(()) => {
                if member.wishes.max_capacity() - member.wishes.capacity() >= WISHES_HIGH {
                    self.port.wire.pause(true);
                }
                Ok(())
            }
            // It has ended, and the client is told why by what ended it.
            Err(mpsc::error::TrySendError::Closed(_)) => Ok(()),
            // To say so each time would not fit either.
            Err(mpsc::error::TrySendError::Full(_)) => {
                self.port.refused.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
        }
    }

    fn login(self: &Arc<Self>, given: &Given) -> Result<(), String> {
        let mut member = self.member();
        if let Some(member) = &*member {
            return Err(format!("you are logged in as {}: disconnect first", member.user));
        }
        let (user, id) = (user(given, "id")?, given.need::<String>("id")?);
        let (name, avatar) = (given.may("name")?, given.may("avatar")?);
        let (wishes, inbox) = mpsc::channel(WISHES_MAX);
        *member = Some(Member { user: user.clone(), wishes });
        self.give_up_place();
        let profile = User { name: name.unwrap_or_else(|| id.clone()), id, avatar: avatar.unwrap_or_default(), status: "online" };
        let guest = self.clone();
        tokio::spawn(async move {
            session::run(guest.gateway.clone(), guest.port.clone(), user, profile, inbox).await;
            // It has been told why; who is still there may log in again.
            *guest.member() = None;
        });
        Ok(())
    }

    /// Lets more be read once little waits.
    pub(super) fn worked_off(port: &Port, waiting: usize) {
        if waiting < WISHES_HIGH / 2 {
            port.wire.pause(false);
        }
    }

    /// Says how many events did not fit, as soon as the client takes that.
    pub(super) fn tell_refused(port: &Port) {
        let refused = port.refused.swap(0, Ordering::Relaxed);
        if refused == 0 {
            return;
        }
        let message = format!("{refused} events were not taken: more than {WISHES_MAX} came in one request");
        match port.emit(event::ERROR, &Words { message }) {
            Ok(_) => metrics::counter!("whimbrel_socketio_refused_total").increment(refused),
            Err(_) => _ = port.refused.fetch_add(refused, Ordering::Relaxed),
        }
    }
}

/// The user that a field names.
fn user(given: &Given, name: &str) -> Result<UserId, String> {
    let id: String = given.need(name)?;
    UserId::new(&id).map_err(|why| format!("{name} is no user: {why}"))
}

/// What a message says beside its text.
fn beside(given: &Given) -> Result<Beside, String> {
    Ok(Beside {
        message_id: Some(given.need("id")?),
        from_name: given.may("fromName")?,
        topic: given.may("topic")?,
        r#type: given.may("type")?,
        timestamp: given.may("timestamp")?,
        file_url: given.may("fileUrl")?,
        file_name: given.may("fileName")?,
    })
}

/// Takes the events of a socket one after the other, as they come: handlers of the library's own kind run at the same time.
pub(super) struct Events(pub Arc<Guest>);

impl MessageHandler<LocalAdapter, ()> for Events {
    fn call(&self, socket: Arc<Socket<LocalAdapter>>, mut value: Value, ack_id: Option<i64>) {
        let Ok(answer) = AckSender::from_message_parts(&socket, &mut value, &ack_id);
        let answer = ack_id.is_some().then_some(answer);
        match parse(value) {
            Ok((name, given)) => self.0.take(&name, &given, answer),
            Err(why) => self.0.port.say(event::ERROR, why),
        }
    }
}

/// An event's name, and what came with it.
fn parse(value: Value) -> Result<(String, Given), String> {
    let Value::Str(text, attachments) = value else { return Err("this server takes events in JSON".into()) };
    let parts: Vec<Json> = serde_json::from_str(&text).map_err(|why| format!("an event that is not JSON: {why}"))?;
    let mut parts = parts.into_iter();
    let Some(Json::String(name)) = parts.next() else { return Err("an event without a name".into()) };
    let value = parts.next().unwrap_or(Json::Null);
    Ok((name, Given { value, attachments: attachments.unwrap_or_default().into() }))
}
