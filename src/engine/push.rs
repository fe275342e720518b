//! Handing devices over to push: whom to wake about a message, because a device of theirs may not get it over a session in time.
//!
//! One rule: a device that has not acknowledged a message is handed over. At once if it is suspended or gone, for then nobody can be waited
//! for; after [`PATIENCE`] if it is connected, or was a moment ago, for it may only look so. What was asked of the log and the hub is asked
//! again each time: nothing is remembered but which messages are on somebody's mind right now, and a hint may be late, doubled or lost.

use super::Engine;
use super::committer::Work;
use super::queue::Lane;
use crate::store::{Device, DeviceKey, Record, RecordBody, StoreError, UserNo};
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use whimbrel_protocol::{ConversationId, ConversationSeq, DeviceId, MailboxSeq, Time, UserId};

/// How long a device that is connected, or was a moment ago, has to acknowledge a message before it is handed over.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// The devices of a user are looked at this often at most; what comes meanwhile is told together.
const SPACING: Duration = Duration::from_secs(1);
/// Users on whose mind messages may be at a time. Those of others are not hinted at.
const USERS_MAX: usize = 16_384;
/// Users whose devices are asked for at once.
const LOOKS_MAX: usize = 256;
/// Bytes of a message's text that a hint tells.
const PREVIEW_MAX: usize = 1_024;

/// Who brings hints to devices.
///
/// # Guarantees
/// None that delivery rests on: a hint may be dropped, and what it hints at is in the mailbox anyway.
pub trait Push: Send + Sync + 'static {
    /// Takes a hint. Never blocks.
    fn hint(&self, hint: Hint);
}

/// A user has a message that some of their devices have not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hint {
    /// Whose devices.
    pub user: UserId,
    /// Which, at least one, and at most all they have.
    pub devices: Vec<(DeviceId, Standing)>,
    /// Who wrote the newest message.
    pub from: UserId,
    /// Where.
    pub conversation: ConversationId,
    /// Its number there.
    pub message: ConversationSeq,
    /// When it was committed.
    pub time: Time,
    /// How it begins, at most 1 KiB.
    pub text: String,
}

/// How a device stands that has not taken a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Its application is in the foreground, as far as is known; or it was connected a moment ago.
    Here,
    /// Its application says that it is suspended.
    Suspended,
    /// It is not connected.
    Away,
}

/// What a hint tells of a message.
#[derive(Debug)]
struct News {
    from: UserNo,
    conversation: ConversationId,
    message: ConversationSeq,
    time: Time,
    text: String,
}

impl News {
    fn of(record: &Record) -> Option<Arc<Self>> {
        let RecordBody::Message { conversation, seq, origin, content } = &record.body else { return None };
        let text = content.text[..content.text.floor_char_boundary(PREVIEW_MAX)].to_owned();
        Some(Arc::new(Self { from: origin.device.user, conversation: *conversation, message: *seq, time: record.time, text }))
    }
}

/// A user on whose mind a message is.
struct Mind {
    /// The newest one, and its number in their mailbox.
    newest: (MailboxSeq, Arc<News>),
    /// A message that connected devices have to acknowledge until then.
    awaited: Option<(MailboxSeq, Instant)>,
    /// When their devices are looked at.
    look_at: Instant,
    looked: Option<Instant>,
    /// Devices that were handed over, and up to which message.
    told: HashMap<DeviceKey, MailboxSeq>,
}

/// Which users have messages on their minds. No clock, and no store.
#[derive(Default)]
struct Minds {
    users: HashMap<UserNo, Mind>,
    agenda: BTreeSet<(Instant, UserNo)>,
    stopped: bool,
}

/// A device, and how it stands.
struct Stands {
    key: DeviceKey,
    name: DeviceId,
    cursor: MailboxSeq,
    standing: Standing,
}

impl Minds {
    /// A message came for a user. Says whether there was room for it.
    fn on_message(&mut self, now: Instant, user: UserNo, seq: MailboxSeq, news: &Arc<News>) -> bool {
        let full = self.users.len() >= USERS_MAX;
        let Some(mind) = self.users.get_mut(&user) else {
            if !full {
                let awaited = Some((seq, now + PATIENCE));
                let mind = Mind { newest: (seq, news.clone()), awaited, look_at: now, looked: None, told: HashMap::new() };
                self.users.insert(user, mind);
                self.agenda.insert((now, user));
            }
            return !full;
        };
        mind.newest = (seq, news.clone());
        mind.awaited.get_or_insert((seq, now + PATIENCE));
        self.hurry(now, user);
        true
    }

    /// A device of the user may stand otherwise than before: looks soon.
    fn hurry(&mut self, now: Instant, user: UserNo) {
        let Some(mind) = self.users.get_mut(&user) else { return };
        let at = mind.looked.map_or(now, |looked| now.max(looked + SPACING));
        if at < mind.look_at {
            self.agenda.remove(&(mind.look_at, user));
            mind.look_at = at;
            self.agenda.insert((at, user));
        }
    }

    /// When to look next.
    fn next(&self) -> Option<Instant> {
        self.agenda.first().map(|(at, _)| *at)
    }

    /// Whose devices to look at now. Each is looked at, or put off.
    fn due(&self, now: Instant) -> Vec<UserNo> {
        self.agenda.iter().take_while(|(at, _)| *at <= now).take(LOOKS_MAX).map(|(_, user)| *user).collect()
    }

    /// Their devices cannot be looked at now.
    fn put_off(&mut self, now: Instant, user: UserNo) {
        let Some(mind) = self.users.get_mut(&user) else { return };
        self.agenda.remove(&(mind.look_at, user));
        mind.look_at = now + SPACING;
        self.agenda.insert((mind.look_at, user));
    }

    /// Which of a user's devices are handed over now, and about what.
    fn look(&mut self, now: Instant, user: UserNo, devices: Vec<Stands>) -> (Vec<(DeviceId, Standing)>, Option<Arc<News>>) {
        let Some(mind) = self.users.get_mut(&user) else { return (Vec::new(), None) };
        let newest = mind.newest.0;
        let overdue = mind.awaited.take_if(|(_, until)| *until <= now).map(|(seq, _)| seq);
        let mut handed = Vec::new();
        for Stands { key, name, cursor, standing } in devices {
            let told = mind.told.get(&key).copied().unwrap_or_default();
            let waits = standing == Standing::Here && overdue.is_none_or(|overdue| cursor >= overdue);
            if cursor < newest && told < newest && !waits {
                mind.told.insert(key, newest);
                handed.push((name, standing));
            }
        }
        let news = mind.newest.1.clone();
        if overdue.is_some_and(|overdue| overdue < newest) {
            mind.awaited = Some((newest, now + PATIENCE));
        }
        self.agenda.remove(&(mind.look_at, user));
        mind.looked = Some(now);
        match mind.awaited {
            Some((_, until)) => {
                mind.look_at = until;
                self.agenda.insert((until, user));
            }
            // All of it was told, or taken, or is as good as told: it is off their mind.
            None => drop(self.users.remove(&user)),
        }
        (handed, Some(news))
    }
}

/// Hands devices over to push.
pub(super) struct Handover {
    push: Arc<dyn Push>,
    minds: Mutex<Minds>,
    changed: Condvar,
}

impl Handover {
    pub fn new(push: Arc<dyn Push>) -> Self {
        Self { push, minds: Mutex::default(), changed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Minds> {
        // Nothing under this lock panics between two consistent states.
        self.minds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// These records were committed.
    pub fn on_committed(&self, records: &[Arc<Record>]) {
        let now = Instant::now();
        let mut dropped = 0;
        for record in records {
            let Some(news) = News::of(record) else { continue };
            let mut minds = self.lock();
            for (user, seq) in record.recipients.iter().filter(|(user, _)| *user != news.from) {
                dropped += u64::from(!minds.on_message(now, *user, *seq, &news));
            }
        }
        if dropped > 0 {
            metrics::counter!("whimbrel_push_hints_total", "outcome" => "dropped").increment(dropped);
        }
        self.changed.notify_one();
    }

    /// A device of the user stands otherwise than before.
    pub fn on_standing(&self, user: UserNo) {
        self.lock().hurry(Instant::now(), user);
        self.changed.notify_one();
    }

    /// Ends [`run`].
    pub fn stop(&self) {
        self.lock().stopped = true;
        self.changed.notify_one();
    }

    /// Waits until the devices of somebody are to be looked at. `None` once stopped.
    fn due(&self) -> Option<Vec<UserNo>> {
        let mut minds = self.lock();
        loop {
            let now = Instant::now();
            let due = minds.due(now);
            if minds.stopped {
                return None;
            }
            if !due.is_empty() {
                return Some(due);
            }
            let wait = minds.next().map_or(Duration::from_secs(3600), |at| at.saturating_duration_since(now));
            minds = self.changed.wait_timeout(minds, wait).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// The thread that hands devices over, until it is stopped.
pub(super) fn run(engine: &Engine, handover: &Handover) {
    while let Some(users) = handover.due() {
        let asked: Vec<_> = users.into_iter().map(|user| (user, ask(engine, user))).collect();
        for (user, devices) in asked {
            let devices = devices.and_then(|devices| devices.blocking_recv().ok());
            let hinted = devices.map(|devices| hint(engine, handover, user, &devices));
            if !matches!(hinted, Some(Ok(()))) {
                if let Some(Err(error)) = hinted {
                    tracing::warn!(%error, "nobody can be handed over to push; trying again");
                }
                handover.lock().put_off(Instant::now(), user);
            }
        }
    }
}

/// Asks the committer for a user's devices. `None` if it has no room for the question.
fn ask(engine: &Engine, user: UserNo) -> Option<oneshot::Receiver<Vec<Arc<Device>>>> {
    let (answer, answered) = oneshot::channel();
    engine.queue.push(Lane::User(user), 0, Work::Devices { user, answer }).ok().map(|()| answered)
}

fn hint(engine: &Engine, handover: &Handover, user: UserNo, devices: &[Arc<Device>]) -> Result<(), StoreError> {
    let id = engine.name(user)?;
    let stands = |device: &Arc<Device>| Stands {
        key: device.key,
        name: device.name.clone(),
        cursor: engine.cursors.acked(device.key).max(device.cursor),
        standing: engine.hub.standing(device.key),
    };
    let devices = devices.iter().map(stands).collect();
    let (devices, Some(news)) = handover.lock().look(Instant::now(), user, devices) else { return Ok(()) };
    if !devices.is_empty() {
        let News { from, conversation, message, time, text } = &*news;
        let from = engine.name(*from)?;
        handover.push.hint(Hint {
            user: id,
            devices,
            from,
            conversation: *conversation,
            message: *message,
            time: *time,
            text: text.clone(),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
