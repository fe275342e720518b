//! The rules: what a command does, given what the store says. Nothing in here waits, reads a clock, or knows a connection.

use crate::store::{Conversation, DEVICES_MAX, Device, DeviceKey, NONCES_MAX, Origin, Pos, RecordBody, StoreError, Transaction, UserNo};
use std::sync::Arc;
use whimbrel_protocol::codec::{MAX_EXTENSIONS, MAX_TEXT};
use whimbrel_protocol::frame::{Command, CommandBody, Content, ContentKind, ConversationKind, MarkRead, Send, Target};
use whimbrel_protocol::{
    CommandSeq, ConversationId, ConversationSeq, DeviceId, EXTENSIONS_MAX, ErrorCode, Incarnation, Nonce, Time, UserId,
};

/// An incarnation that a client says is believed only within this distance of the server's own count.
const INCARNATION_LEAP_MAX: u64 = 1 << 32;

/// What became of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Every command of the outbox up to this one is applied.
    Applied(CommandSeq),
    /// The number was used before with another nonce.
    Conflict,
    /// There are commands before it that have not come.
    Gap,
    /// It is of another outbox than the device's present one.
    Stale,
}

/// Applies a command, unless it was applied before.
///
/// # Errors
/// If the store fails.
pub fn command(tx: &mut dyn Transaction, now: Time, device: DeviceKey, command: &Command) -> Result<Outcome, StoreError> {
    let known = known(tx, device)?;
    if let Some(outcome) = not_next(&known, command) {
        return Ok(outcome);
    }
    let origin = origin(device, command);
    let mut earlier = remembered(&known, command.nonce);
    // With its last commands it is large, and appending changes it: without a copy only if nobody else holds it.
    drop(known);
    // A device that came back after another took its place sends again what was on its way then, first of all.
    if earlier.is_none() && command.cseq.0 <= u64::from(super::WINDOW) {
        earlier = tx.devices(device.user)?.iter().find_map(|other| remembered(other, command.nonce));
    }
    if let Some(earlier) = earlier {
        repeat(tx, now, origin, earlier)?;
    } else if let Err(refusal) = execute(tx, now, origin, &command.body)? {
        reject(tx, now, origin, refusal)?;
    }
    Ok(Outcome::Applied(command.cseq))
}

/// Uses up a command's number with a refusal: for a command that made the server fail.
///
/// # Errors
/// If the store fails.
pub fn refuse(tx: &mut dyn Transaction, now: Time, device: DeviceKey, command: &Command) -> Result<Outcome, StoreError> {
    let known = known(tx, device)?;
    if let Some(outcome) = not_next(&known, command) {
        return Ok(outcome);
    }
    drop(known);
    let message = "this command made the server fail and was not carried out";
    reject(tx, now, origin(device, command), Refusal::new(ErrorCode::Failed, message))?;
    Ok(Outcome::Applied(command.cseq))
}

fn known(tx: &mut dyn Transaction, device: DeviceKey) -> Result<Arc<Device>, StoreError> {
    tx.device(device)?.ok_or_else(|| StoreError::Damaged(format!("device {device:?} has a session but no entry")))
}

fn origin(device: DeviceKey, command: &Command) -> Origin {
    Origin { device, incarnation: command.incarnation, cseq: command.cseq, nonce: command.nonce }
}

/// What becomes of a command that is not the next one of the device's outbox; `None` if it is.
fn not_next(known: &Device, command: &Command) -> Option<Outcome> {
    if command.incarnation != known.incarnation {
        return Some(Outcome::Stale);
    }
    if command.cseq <= known.applied {
        // No more than this one: what was applied after it may be of another life of the device, with other nonces.
        return Some(if used_with_another_nonce(known, command) { Outcome::Conflict } else { Outcome::Applied(command.cseq) });
    }
    (command.cseq != known.applied.next()).then_some(Outcome::Gap)
}

fn remembered(device: &Device, nonce: Nonce) -> Option<Pos> {
    device.recent.iter().rev().chain(&device.former).find(|command| command.nonce == nonce).map(|command| command.pos)
}

/// Why a command is refused.
struct Refusal {
    code: ErrorCode,
    message: String,
}

impl Refusal {
    fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

fn used_with_another_nonce(known: &Device, command: &Command) -> bool {
    // The last recent command has the number `applied`, those before it the numbers before, as far as this outbox goes.
    let back = known.applied.0 - command.cseq.0;
    let recent = usize::try_from(back).ok().and_then(|back| known.recent.iter().rev().nth(back));
    // What is too old to be remembered cannot be told apart; the window is smaller than the memory, so no honest device gets there.
    recent.is_some_and(|recent| recent.nonce != command.nonce)
}

fn repeat(tx: &mut dyn Transaction, now: Time, origin: Origin, earlier: u64) -> Result<(), StoreError> {
    let user = origin.device.user;
    let message = match &tx.record(earlier)?.body {
        RecordBody::Message { conversation, seq, .. } => Some((*conversation, *seq)),
        RecordBody::Repeat { message, .. } => *message,
        RecordBody::Rejected { code, message, .. } => {
            let refusal = Refusal { code: *code, message: message.clone() };
            return reject(tx, now, origin, refusal);
        }
        _ => None,
    };
    let recipients: &[UserNo] = if message.is_some() { &[user] } else { &[] };
    tx.append(now, RecordBody::Repeat { origin, message }, recipients)?;
    Ok(())
}

fn reject(tx: &mut dyn Transaction, now: Time, origin: Origin, refusal: Refusal) -> Result<(), StoreError> {
    let user = origin.device.user;
    tx.append(now, RecordBody::Rejected { origin, code: refusal.code, message: refusal.message }, &[user])?;
    Ok(())
}

fn execute(tx: &mut dyn Transaction, now: Time, origin: Origin, body: &CommandBody) -> Result<Result<(), Refusal>, StoreError> {
    match body {
        CommandBody::Send(Send { to, content }) => {
            if let Err(refusal) = check_content(content) {
                return Ok(Err(refusal));
            }
            let conversation = match to {
                Target::User(id) => direct_with(tx, now, origin.device.user, id)?,
                Target::Conversation(id) => match member_of(tx, *id, origin.device.user)? {
                    Ok(conversation) => conversation,
                    Err(refusal) => return Ok(Err(refusal)),
                },
            };
            write_message(tx, now, origin, conversation, content.clone())?;
            Ok(Ok(()))
        }
        CommandBody::MarkRead(MarkRead { conversation, seq }) => match member_of(tx, *conversation, origin.device.user)? {
            Ok(conversation) => {
                mark(tx, now, &conversation, origin.device.user, Watermark::Read(*seq, origin))?;
                Ok(Ok(()))
            }
            Err(refusal) => Ok(Err(refusal)),
        },
        CommandBody::Unknown(unknown) => {
            Ok(Err(Refusal::new(ErrorCode::Unsupported, format!("this server cannot do that: {}", unknown.reason))))
        }
    }
}

fn check_content(content: &Content) -> Result<(), Refusal> {
    if let ContentKind::Other(kind) = content.kind {
        return Err(Refusal::new(ErrorCode::Unsupported, format!("this server does not know content of kind {kind}")));
    }
    if content.text.len() > MAX_TEXT {
        let len = content.text.len();
        return Err(Refusal::new(
            ErrorCode::TooLong,
            format!("a text of {len} bytes is longer than the {MAX_TEXT} allowed: send it as a file"),
        ));
    }
    if content.text.is_empty() {
        return Err(Refusal::new(ErrorCode::Empty, "a message needs a text"));
    }
    let (count, beside) = (content.extensions.len(), content.size() - content.text.len());
    if count > EXTENSIONS_MAX || beside > MAX_EXTENSIONS {
        let most = format!("{EXTENSIONS_MAX} with {MAX_EXTENSIONS} bytes are allowed");
        return Err(Refusal::new(ErrorCode::TooLong, format!("{count} extensions with {beside} bytes of values are too much: {most}")));
    }
    Ok(())
}

fn direct_with(tx: &mut dyn Transaction, now: Time, user: UserNo, other: &UserId) -> Result<Arc<Conversation>, StoreError> {
    let other = tx.user(other)?;
    let id = match tx.direct(user, other)? {
        Some(id) => id,
        None => {
            let conversation = tx.next_conversation()?;
            let members = if user == other { vec![user] } else { vec![user, other] };
            let started = RecordBody::Started { conversation, kind: ConversationKind::Direct, members: members.clone() };
            tx.append(now, started, &members)?;
            conversation
        }
    };
    tx.conversation(id)?.ok_or_else(|| StoreError::Damaged(format!("direct conversation {id} is named but not there")))
}

/// The conversation, if the user is in it. Whether it exists at all is nobody else's business, so both cases look the same.
fn member_of(tx: &mut dyn Transaction, id: ConversationId, user: UserNo) -> Result<Result<Arc<Conversation>, Refusal>, StoreError> {
    Ok(match tx.conversation(id)? {
        Some(conversation) if conversation.member(user).is_some() => Ok(conversation),
        _ => Err(Refusal::new(ErrorCode::NotFound, format!("you are in no conversation {id}"))),
    })
}

fn write_message(
    tx: &mut dyn Transaction,
    now: Time,
    origin: Origin,
    conversation: Arc<Conversation>,
    content: Content,
) -> Result<(), StoreError> {
    let members: Vec<UserNo> = conversation.members.iter().map(|member| member.user).collect();
    let message = RecordBody::Message { conversation: conversation.id, seq: conversation.head.next(), origin, content };
    // Clocks may be set back; the times within a conversation never are.
    let time = now.max(conversation.time);
    drop(conversation);
    tx.append(time, message, &members)?;
    Ok(())
}

enum Watermark {
    Read(ConversationSeq, Origin),
    Delivered(ConversationSeq),
}

/// Notes that a device of `user` has durably taken a conversation up to `seq`.
///
/// # Errors
/// If the store fails.
pub fn delivered(
    tx: &mut dyn Transaction,
    now: Time,
    user: UserNo,
    conversation: ConversationId,
    seq: ConversationSeq,
) -> Result<(), StoreError> {
    match tx.conversation(conversation)? {
        Some(conversation) => mark(tx, now, &conversation, user, Watermark::Delivered(seq)),
        None => Err(StoreError::Damaged(format!("conversation {conversation} was delivered but is not there"))),
    }
}

fn mark(tx: &mut dyn Transaction, now: Time, conversation: &Conversation, user: UserNo, to: Watermark) -> Result<(), StoreError> {
    let Some(&before) = conversation.member(user) else { return Ok(()) };
    let (seq, read, origin) = match to {
        Watermark::Read(seq, origin) => (seq.min(conversation.head), seq.min(conversation.head).max(before.read), Some(origin)),
        Watermark::Delivered(seq) => (seq.min(conversation.head), before.read, None),
    };
    let delivered = seq.max(before.delivered);
    let rises = read > before.read || delivered > before.delivered;
    if !rises && origin.is_none() {
        return Ok(());
    }
    let mut recipients = Vec::new();
    if rises {
        // Only who wrote something that is newly covered hears of it …
        let from = if read > before.read { before.read } else { before.delivered };
        recipients.extend(conversation.members.iter().filter(|other| other.user != user && other.sent > from).map(|other| other.user));
        // … and the reader's own other devices, of what was read.
        if read > before.read {
            recipients.push(user);
        }
    }
    let receipt = RecordBody::Receipt { conversation: conversation.id, user, delivered, read, origin };
    tx.append(now, receipt, &recipients)?;
    Ok(())
}

/// A device as it comes in.
#[derive(Debug, Clone)]
pub struct Arrival {
    /// Which.
    pub device: DeviceKey,
    /// Its outbox from now on.
    pub incarnation: Incarnation,
    /// Highest applied command of that outbox.
    pub applied: CommandSeq,
    /// Its nonce.
    pub applied_nonce: Nonce,
    /// How far it had got when it was last heard of.
    pub cursor: whimbrel_protocol::MailboxSeq,
}

impl Arrival {
    fn of(known: &Device) -> Self {
        Self {
            device: known.key,
            incarnation: known.incarnation,
            applied: known.applied,
            applied_nonce: known.applied_nonce(),
            cursor: known.cursor,
        }
    }
}

/// How a device stands whose outbox is exactly the one that it says. Changes nothing.
///
/// # Errors
/// If the store fails.
pub fn look(tx: &mut dyn Transaction, user: UserNo, name: &DeviceId, said: Incarnation) -> Result<Option<Arrival>, StoreError> {
    let devices = tx.devices(user)?;
    Ok(devices.iter().find(|device| device.name == *name && device.incarnation == said).map(|known| Arrival::of(known)))
}

/// A device says hello: it is entered if it is new, and gets a new outbox if it asks for one or names one that is not its newest.
///
/// A new device takes a free slot, or the place of the one that has been away longest: the one with the lowest cursor of those that are
/// not `here`. What that one had sent stays remembered in the slot, so if it comes back, nothing is done twice. `None` if the user
/// has as many devices as are allowed, and all are here.
///
/// # Errors
/// If the store fails.
pub fn arrive(
    tx: &mut dyn Transaction,
    now: Time,
    user: &UserId,
    name: &DeviceId,
    said: Incarnation,
    here: &dyn Fn(DeviceKey) -> bool,
) -> Result<Option<Arrival>, StoreError> {
    let user = tx.user(user)?;
    let devices = tx.devices(user)?;
    let known = devices.iter().find(|device| device.name == *name);
    if let Some(known) = known.filter(|known| known.incarnation == said) {
        return Ok(Some(Arrival::of(known)));
    }
    let place = match known {
        Some(known) => known.key,
        None => {
            let free = (0..DEVICES_MAX as u8).find(|slot| devices.iter().all(|device| device.key.slot != *slot));
            let away = devices.iter().filter(|device| !here(device.key)).min_by_key(|device| device.cursor).map(|device| device.key);
            let Some(place) = free.map(|slot| DeviceKey { user, slot }).or(away) else { return Ok(None) };
            place
        }
    };
    let newest = devices.iter().find(|device| device.key == place).map_or(Incarnation(0), |device| device.incarnation);
    let cursor = known.map_or_else(Default::default, |known| known.cursor);
    // They are about to be changed.
    drop(devices);
    // A restored store counts from behind: what the device says may be ahead, and the new outbox must be newer than both.
    let believed = if said.0 <= newest.0.saturating_add(INCARNATION_LEAP_MAX) { said.max(newest) } else { newest };
    let incarnation = believed.next();
    tx.append(now, RecordBody::Outbox { device: place, name: name.clone(), incarnation }, &[])?;
    Ok(Some(Arrival { device: place, incarnation, applied: CommandSeq(0), applied_nonce: Nonce::default(), cursor }))
}

// A repeat is found among the remembered nonces, so an honest device must never have more on the way than are remembered.
const _: () = assert!(super::WINDOW as usize <= NONCES_MAX / 2);
