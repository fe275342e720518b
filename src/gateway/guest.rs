//! One socket: what its client says, from the first event to the last. What it says as a user becomes a session's; before that it can log in,
//! or speak in the lobby.

use super::Gateway;
use super::contract::{Beside, GetHistory, Given, Line, Login, OwnStatus, Sending, TypingTo, User, event};
use super::port::Port;
use super::session::{self, Asked, Wish};
use serde_json::Value as Json;
use socketioxide::adapter::LocalAdapter;
use socketioxide::extract::AckSender;
use socketioxide::handler::MessageHandler;
use socketioxide::handler::message::FromMessageParts;
use socketioxide::socket::Socket;
use socketioxide_core::Value;
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
}

#[derive(Debug, Clone)]
struct Member {
    user: UserId,
    wishes: mpsc::Sender<Wish>,
}

impl Guest {
    pub fn new(gateway: Arc<Gateway>, port: Arc<Port>) -> Self {
        Self { gateway, port, member: Mutex::new(None) }
    }

    fn member(&self) -> MutexGuard<'_, Option<Member>> {
        self.member.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether nobody knows yet who it is.
    pub fn is_stranger(&self) -> bool {
        self.member().is_none()
    }

    /// Waits until it has logged in, or is gone.
    pub async fn known_or_gone(&self) {
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
        self.port.leave();
    }

    /// Takes an event. `answer` is there if the client wants to be called back.
    fn take(&self, name: &str, given: &Given, answer: Option<AckSender>) {
        if let Err(why) = self.try_take(name, given, answer) {
            metrics::counter!("whimbrel_socketio_refused_total").increment(1);
            self.port.say(event::ERROR, why);
        }
    }

    fn try_take(&self, name: &str, given: &Given, answer: Option<AckSender>) -> Result<(), String> {
        if name == event::LOGIN {
            return self.login(given.read(name)?);
        }
        let Some(member) = self.member().clone() else {
            if name == event::MESSAGE && given.text("toId").is_none() {
                let line: Line = given.read(name)?;
                self.gateway.say_in_lobby(&line);
                return Ok(());
            }
            return Err(format!("{name}: log in first, with {}", event::LOGIN));
        };
        let is_own = |said: &Option<String>| said.as_deref().is_none_or(|said| said == member.user.as_str());
        let own = |said: &Option<String>| match is_own(said) {
            true => Ok(()),
            false => Err(format!("{name}: fromId is not who you logged in as, {}", member.user)),
        };
        let user = |id: &str| UserId::new(id).map_err(|why| format!("{name}: {id:?} is no user: {why}"));
        let wish = match name {
            event::MESSAGE => {
                let Sending { id, to_id, from_id, content, beside } = given.read(name)?;
                own(&from_id)?;
                Wish::Message { to: user(&to_id)?, text: content, beside: Beside { message_id: Some(id), ..beside } }
            }
            event::TYPING => {
                let TypingTo { to_id, from_id, is_typing } = given.read(name)?;
                own(&from_id)?;
                Wish::Typing { to: user(&to_id)?, active: is_typing }
            }
            event::STATUS => {
                let OwnStatus { status } = given.read(name)?;
                Wish::Status { background: status != "online" }
            }
            event::GET_HISTORY => {
                let GetHistory { friend_id, topic } = given.read(name)?;
                Wish::History { with: user(&friend_id)?, asked: Asked { friend_id, topic, answer } }
            }
            event::FILE => {
                let to = given.text("toId").ok_or_else(|| format!("{name}: missing field `toId`"))?;
                own(&given.text("fromId").map(str::to_owned))?;
                return self.gateway.pass_file(&user(to)?, given);
            }
            _ => return Err(format!("{name}: there is no such event")),
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
            Err(mpsc::error::TrySendError::Full(_)) => {
                Err(format!("{name}: more than {WISHES_MAX} events in one request: some were not taken"))
            }
        }
    }

    fn login(&self, login: Login) -> Result<(), String> {
        let mut member = self.member();
        if let Some(member) = &*member {
            return Err(format!("{}: you are logged in as {}: disconnect first", event::LOGIN, member.user));
        }
        let user = UserId::new(&login.id).map_err(|why| format!("{}: id: {why}", event::LOGIN))?;
        let (wishes, inbox) = mpsc::channel(WISHES_MAX);
        *member = Some(Member { user: user.clone(), wishes });
        let name = if login.name.is_empty() { login.id.clone() } else { login.name };
        let profile = User { id: login.id, name, avatar: login.avatar, status: "online" };
        tokio::spawn(session::run(self.gateway.clone(), self.port.clone(), user, profile, inbox));
        Ok(())
    }

    /// Lets more be read once little waits.
    pub(super) fn worked_off(port: &Port, waiting: usize) {
        if waiting < WISHES_HIGH / 2 {
            port.wire.pause(false);
        }
    }
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
