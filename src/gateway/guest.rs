//! One socket: what its client says, from the first event to the last. What it says as a user becomes a session's; before that it can log in,
//! or speak in the lobby.

use super::contract::{Beside, Done, Given, Line, User, Words, brief, event};
use super::port::Port;
use super::session;
use super::wire::Paused;
use super::wish::{Asked, Wish};
use super::{EMPTY_TIME, GOING_DOWN, Gateway, REFUSED};
use crate::session::Admitted;
use serde_json::Value as Json;
use socketioxide::adapter::LocalAdapter;
use socketioxide::extract::AckSender;
use socketioxide::handler::message::FromMessageParts;
use socketioxide::handler::{DisconnectHandler, MessageHandler};
use socketioxide::socket::{DisconnectReason, Socket};
use socketioxide_core::Value;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::sleep;
use whimbrel_protocol::UserId;
use whimbrel_protocol::codec::{MAX_EXTENSIONS, MAX_TEXT};

/// What a client asked for and no session has taken yet: from so many on nothing is read …
const WISHES_HIGH: usize = 64;
/// … and beyond so many, which can only have come in one request, it is too much.
const WISHES_MAX: usize = 4096;
/// … as are more bytes than these, which only who waits for a session can want.
const WISHES_BYTES: usize = 8 << 20;

/// What a client may want before it logs in, at most, with so many bytes together …
const EARLY_MAX: usize = 256;
const EARLY_BYTES: usize = 256 * 1024;
/// … and how long it may take for that.
const EARLY_TIME: Duration = Duration::from_secs(5);
/// What a client calls itself, and its picture, in bytes together.
const PROFILE_BYTES: usize = 16 * 1024;
/// … and its name alone.
const NAME_BYTES: usize = 256;
/// As much of an event's name, of a message's, and of what was wrong is said of what should not have been sent.
const EVENT_WORDS: usize = 128;
const ID_WORDS: usize = 256;
const WHY_WORDS: usize = 1_024;

/// Why an event was not carried out.
enum Refusal {
    /// It should not have been sent.
    Wrong(String),
    /// Nothing was wrong with it.
    InVain(String),
}

impl From<String> for Refusal {
    fn from(why: String) -> Self {
        Self::Wrong(why)
    }
}

/// A socket.
pub(super) struct Guest {
    gateway: Arc<Gateway>,
    port: Arc<Port>,
    /// Where what it wants goes, once it has logged in.
    member: Mutex<Option<Member>>,
    /// Its place among the sessions, until it has one.
    place: Mutex<Option<Arc<Admitted>>>,
    /// What it wanted before it logged in: libraries send what waited while there was no connection before the application hears that there is one.
    early: Mutex<Vec<(String, Given, Option<AckSender>)>>,
}

#[derive(Debug, Clone)]
struct Member {
    user: UserId,
    wishes: mpsc::Sender<Wish>,
}

impl Guest {
    pub fn new(gateway: Arc<Gateway>, port: Arc<Port>, place: Arc<Admitted>) -> Self {
        port.wire.on_socket(true);
        Self { gateway, port, member: Mutex::new(None), place: Mutex::new(Some(place)), early: Mutex::default() }
    }

    fn take_place(&self) -> Option<Arc<Admitted>> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// The server leaves: who has a session is told by it.
    pub fn bid_farewell(&self) {
        // Not by who knows it now: its session may be over already, and has told it.
        let place = self.take_place();
        if place.is_some() {
            self.port.say(event::SHUTDOWN, GOING_DOWN);
        }
    }

    fn member(&self) -> MutexGuard<'_, Option<Member>> {
        self.member.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn port(&self) -> &Port {
        &self.port
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
        if !self.port.leave() {
            return;
        }
        // Nobody sends wishes any more, which ends the session.
        *self.member() = None;
        drop(self.take_place());
        self.port.wire.on_socket(false);
        // Only its socket may be gone. A connection without one counts nowhere, so it does not stay.
        let wire = Arc::downgrade(&self.port.wire);
        tokio::spawn(async move {
            sleep(EMPTY_TIME).await;
            if let Some(wire) = wire.upgrade().filter(|wire| !wire.has_socket()) {
                wire.give_up();
            }
        });
    }

    /// Takes an event. `answer` is there if the client wants to be called back.
    fn take(self: &Arc<Self>, name: &str, given: Given, mut answer: Option<AckSender>) {
        if self.gateway.is_leaving() && self.is_stranger() {
            // It has been told, and will be told of nothing else.
            return;
        }
        if !(self.is_stranger() && self.keep_early(name, &given, &mut answer)) {
            self.carry_out(name, given, answer);
        }
    }

    /// Does what an event asks for, or says why not.
    fn carry_out(self: &Arc<Self>, name: &str, mut given: Given, mut answer: Option<AckSender>) {
        let outcome = self.try_take(name, &mut given, &mut answer).map_err(|refusal| {
            // Which of many messages it was, if it says so.
            let id = given.value.get("id").and_then(Json::as_str).filter(|_| name == event::MESSAGE);
            let id = id.map(|id| format!("{}: ", brief(id, ID_WORDS))).unwrap_or_default();
            let why = match refusal {
                Refusal::Wrong(why) => {
                    metrics::counter!(REFUSED).increment(1);
                    why
                }
                Refusal::InVain(why) => why,
            };
            let why = format!("{id}{}", brief(&why, WHY_WORDS));
            self.port.say(event::ERROR, format!("{}: {why}", brief(name, EVENT_WORDS)));
            why
        });
        // Whoever knows more answers later, and has taken it.
        if let Some(answer) = answer {
            self.port.done(answer, Done::of(outcome));
        }
    }

    /// Keeps what somebody wants who has not logged in yet, but will have to.
    fn keep_early(self: &Arc<Self>, name: &str, given: &Given, answer: &mut Option<AckSender>) -> bool {
        let of_a_user = match name {
            event::LOGIN => false,
            event::STATUS => given.value.get("status").is_some(),
            _ => ["toId", "friendId"].iter().any(|field| given.value.get(field).is_some()),
        };
        let mut early = self.early.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes: usize = early.iter().map(|(_, given, _)| given.bytes()).sum();
        if !of_a_user || early.len() >= EARLY_MAX || bytes + given.bytes() > EARLY_BYTES {
            return false;
        }
        early.push((name.to_owned(), given.clone(), answer.take()));
        if early.len() == 1 {
            let guest = self.clone();
            tokio::spawn(async move {
                tokio::select! {
                    () = sleep(EARLY_TIME) => {}
                    () = guest.gone() => {}
                }
                // If it has not logged in meanwhile, it is told so of each.
                guest.take_early();
            });
        }
        true
    }

    /// Takes what was kept.
    fn take_early(self: &Arc<Self>) {
        let early = std::mem::take(&mut *self.early.lock().unwrap_or_else(PoisonError::into_inner));
        early.into_iter().for_each(|(name, given, answer)| self.carry_out(&name, given, answer));
    }

    fn try_take(self: &Arc<Self>, name: &str, given: &mut Given, answer: &mut Option<AckSender>) -> Result<(), Refusal> {
        if name == event::LOGIN {
            return Ok(self.login(given)?);
        }
        let Some(member) = self.member().clone() else {
            if name == event::MESSAGE && given.may::<Json>("toId")?.is_none() {
                let content: String = given.need("content")?;
                if content.len() > MAX_TEXT {
                    return Err(format!("content has {} bytes, at most {MAX_TEXT} are passed on", content.len()).into());
                }
                self.gateway.say_in_lobby(&Line { content });
                return Ok(());
            }
            return Err(format!("log in first, with {}", event::LOGIN).into());
        };
        match given.may::<String>("fromId")? {
            Some(said) if said != member.user.as_str() => return Err(format!("fromId is not who you logged in as, {}", member.user).into()),
            Some(_) => {}
            // Whoever gets a file is told of whom, whatever the sender says.
            None => _ = given.value.as_object_mut().map(|fields| fields.insert("fromId".into(), member.user.as_str().into())),
        }
        let wish = match name {
            event::MESSAGE => {
                let (to, text, beside) = (user(given, "toId")?, given.need::<String>("content")?, beside(given)?);
                // As the log would, but before it waits, and in words that its client knows.
                if text.is_empty() {
                    return Err("a message needs a text".to_owned().into());
                }
                if text.len() > MAX_TEXT {
                    return Err(format!("a text of {} bytes is longer than the {MAX_TEXT} allowed: send it as a file", text.len()).into());
                }
                let id = beside.message_id.clone();
                let beside = serde_json::to_vec(&beside).map_err(|why| why.to_string())?;
                if beside.len() > MAX_EXTENSIONS {
                    let (fields, bytes) = ("id, topic, fromName, fileUrl, fileName, type and timestamp", beside.len());
                    return Err(format!("{fields} have {bytes} bytes together, at most {MAX_EXTENSIONS} are kept").into());
                }
                Wish::Message { to, id, text, beside, answer: answer.take() }
            }
            event::TYPING => Wish::Typing { to: user(given, "toId")?, active: given.need("isTyping")? },
            event::STATUS => match given.need::<String>("status")?.as_str() {
                "online" => Wish::Status { background: false },
                "offline" => Wish::Status { background: true },
                other => return Err(format!("status is online or offline, not {other:?}").into()),
            },
            event::GET_HISTORY => {
                let (friend_id, topic) = (given.need("friendId")?, given.may::<String>("topic")?);
                let bytes = topic.as_ref().map_or(0, String::len);
                if bytes > MAX_EXTENSIONS {
                    return Err(format!("topic has {bytes} bytes, and no message has one of more than {MAX_EXTENSIONS}").into());
                }
                Wish::History { with: user(given, "friendId")?, asked: Asked { friend_id, topic, answer: answer.take() } }
            }
            event::FILE => return self.gateway.pass_file(&user(given, "toId")?, given).map_err(Refusal::InVain),
            _ => return Err("there is no such event".to_owned().into()),
        };
        let bytes = wish.bytes();
        let sent = if self.port.wished.load(Ordering::Relaxed) + bytes > WISHES_BYTES {
            Err(mpsc::error::TrySendError::Full(wish))
        } else {
            // Before it is taken, which subtracts them.
            self.port.wished.fetch_add(bytes, Ordering::Relaxed);
            member.wishes.try_send(wish).inspect_err(|_| _ = self.port.wished.fetch_sub(bytes, Ordering::Relaxed))
        };
        let many = || member.wishes.max_capacity() - member.wishes.capacity() >= WISHES_HIGH;
        let waits = || many() && !self.port.put_off.load(Ordering::Relaxed);
        if waits() {
            self.port.wire.pause(Paused::Wishes, true);
            // It may have been worked off meanwhile, by somebody who found nothing to let go on.
            if !waits() {
                self.port.wire.pause(Paused::Wishes, false);
            }
        }
        match sent {
            Ok(()) => Ok(()),
            // It has been told that the server leaves.
            Err(mpsc::error::TrySendError::Closed(_)) if self.gateway.is_leaving() => {
                drop(answer.take());
                Ok(())
            }
            // It has ended, and the client is told why by what ended it.
            Err(mpsc::error::TrySendError::Closed(_)) => Err("the session is over: connect again".to_owned().into()),
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
        let (name, avatar): (Option<String>, Option<String>) = (given.may("name")?, given.may("avatar")?);
        let bytes = [&name, &avatar].into_iter().flatten().map(String::len).sum::<usize>();
        let long = name.as_ref().map_or(0, String::len);
        if long > NAME_BYTES {
            return Err(format!("name has {long} bytes, at most {NAME_BYTES} are told to others"));
        }
        if bytes > PROFILE_BYTES {
            return Err(format!("name and avatar have {bytes} bytes, at most {PROFILE_BYTES} are told to others: give the picture's URL"));
        }
        // It had one, and a session.
        let place = self.take_place().ok_or("the session is over: connect again")?;
        let (wishes, inbox) = mpsc::channel(WISHES_MAX);
        *member = Some(Member { user: user.clone(), wishes });
        let profile = User { name: name.unwrap_or_else(|| id.clone()), id, avatar: avatar.unwrap_or_default(), status: "online" };
        let guest = self.clone();
        tokio::spawn(async move {
            session::run(guest.gateway.clone(), guest.port.clone(), place, user, profile, inbox).await;
            // It has been told why.
            *guest.member() = None;
            guest.port.wire.pause(Paused::Wishes, false);
        });
        drop(member);
        self.take_early();
        Ok(())
    }

    /// Lets more be read once little waits, of which a wish was taken.
    pub(super) fn worked_off(port: &Port, wish: &Wish, waiting: usize) {
        port.wished.fetch_sub(wish.bytes(), Ordering::Relaxed);
        if waiting < WISHES_HIGH / 2 {
            port.wire.pause(Paused::Wishes, false);
        }
    }

    /// Says how many events did not fit, as soon as the client takes that.
    pub(super) fn tell_refused(port: &Port) {
        let refused = port.refused.swap(0, Ordering::Relaxed);
        if refused == 0 {
            return;
        }
        let message = format!("{refused} events were not taken: more than {WISHES_MAX}, or {} MiB, came at once", WISHES_BYTES >> 20);
        match port.emit(event::ERROR, &Words { message }) {
            Ok(_) => metrics::counter!(REFUSED).increment(refused),
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
pub(super) struct Events(pub Weak<Guest>);

impl MessageHandler<LocalAdapter, ()> for Events {
    fn call(&self, socket: Arc<Socket<LocalAdapter>>, mut value: Value, ack_id: Option<i64>) {
        let Some(guest) = self.0.upgrade() else { return };
        let Ok(answer) = AckSender::from_message_parts(&socket, &mut value, &ack_id);
        let answer = ack_id.is_some().then_some(answer);
        match parse(value) {
            Ok((name, given)) => guest.take(&name, given, answer),
            Err(why) => guest.port.say(event::ERROR, why),
        }
    }
}

/// Hears that a socket has gone, at once: a handler of the library's own kind runs later, and then the library forgets the socket by its connection's
/// name, which may be another one's by then. That one would never be heard of again.
pub(super) struct Gone(pub Weak<Guest>);

impl DisconnectHandler<LocalAdapter, ()> for Gone {
    fn call_with_defer(&self, socket: Arc<Socket<LocalAdapter>>, _: DisconnectReason, forget: fn(Arc<Socket<LocalAdapter>>)) {
        if let Some(guest) = self.0.upgrade() {
            guest.leave();
        }
        forget(socket);
    }
}

/// An event's name, and what came with it.
fn parse(value: Value) -> Result<(String, Given), String> {
    let Value::Str(text, attachments) = value else { return Err("this server takes events in JSON".into()) };
    let parts: Vec<Json> = serde_json::from_str(&text).map_err(|why| format!("an event that is not JSON: {why}"))?;
    let mut parts = parts.into_iter();
    let Some(Json::String(name)) = parts.next() else { return Err("an event without a name".into()) };
    let value = parts.next().unwrap_or(Json::Null);
    let given = Given { value, attachments: attachments.unwrap_or_default().into(), text_bytes: text.len() };
    if !given.is_sound() {
        return Err(format!("{}: an attachment is missing, or stands in it more than once", brief(&name, EVENT_WORDS)));
    }
    Ok((name, given))
}
