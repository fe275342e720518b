//! Handing devices over to push: whom to wake about a message, because a device of theirs may not get it over a session in time.
//!
//! One rule: a device that has not acknowledged a message is handed over. At once if it is suspended or gone, for then nobody can be waited
//! for; after a while if it is connected, or was a moment ago, for it may only look so. What was asked of the log and the hub is asked
//! again each time: nothing is remembered but which messages are on somebody's mind right now, and a hint may be late, doubled or lost.

use super::Engine;
use super::committer::{Known, Work};
use super::queue::Lane;
use crate::store::{DeviceKey, Record, RecordBody, StoreError, UserNo};
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use whimbrel_protocol::{ConversationId, ConversationSeq, DOCTOR, DeviceId, MailboxSeq, Time, UserId};

/// The devices of a user are looked at this often at most; what comes meanwhile is told together. And most have acknowledged by then.
const SPACING: Duration = Duration::from_secs(1);
/// Users on whose mind messages may be at a time. Those of others are not hinted at.
const USERS_MAX: usize = 65_536;
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

/// Whom to tell, and when.
#[derive(Clone)]
pub struct Pushing {
    /// Who brings hints.
    pub push: Arc<dyn Push>,
    /// How long a device that is connected, or was a moment ago, has to acknowledge a message before it is handed over.
    pub patience: Duration,
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
    /// When it came.
    came: Instant,
    /// Messages that connected devices have to acknowledge, and until when: one each [`SPACING`], the oldest first.
    awaited: VecDeque<(MailboxSeq, Instant)>,
    /// When their devices are looked at.
    look_at: Instant,
    looked: Option<Instant>,
    /// Devices that were handed over, and up to which message.
    told: HashMap<DeviceKey, MailboxSeq>,
}

/// Which users have messages on their minds. No clock, and no store.
struct Minds {
    patience: Duration,
    users: HashMap<UserNo, Mind>,
    agenda: BTreeSet<(Instant, UserNo)>,
    stopped: bool,
}

/// What came of a look at a user's devices: which are handed over, and about what.
type Handed = (Vec<(DeviceId, Standing)>, Option<Arc<News>>);

/// A device, and how it stands.
struct Stands {
    key: DeviceKey,
    name: DeviceId,
    cursor: MailboxSeq,
    standing: Standing,
}

impl Minds {
    fn new(patience: Duration) -> Self {
        Self { patience, users: HashMap::new(), agenda: BTreeSet::new(), stopped: false }
    }

    /// A message came for a user. Says whether there was room for it.
    fn on_message(&mut self, now: Instant, user: UserNo, seq: MailboxSeq, news: &Arc<News>) -> bool {
        let until = now + self.patience;
        let full = self.users.len() >= USERS_MAX;
        let Some(mind) = self.users.get_mut(&user) else {
            if !full {
                let newest = (seq, news.clone());
                let awaited = VecDeque::from([(seq, until)]);
                let mind = Mind { newest, came: now, awaited, look_at: now, looked: None, told: HashMap::new() };
                self.users.insert(user, mind);
                self.agenda.insert((now, user));
            }
            return !full;
        };
        mind.newest = (seq, news.clone());
        mind.came = now;
        match mind.awaited.back_mut() {
            // A moment sooner than it would be by itself.
            Some((awaited, last)) if until < *last + SPACING => *awaited = seq,
            _ => mind.awaited.push_back((seq, until)),
        }
        self.hurry(now, user);
        true
    }

    /// A device of the user may stand otherwise than before: looks soon.
    fn hurry(&mut self, now: Instant, user: UserNo) {
        let Some(mind) = self.users.get(&user) else { return };
        let at = mind.looked.map_or(now, |looked| now.max(looked + SPACING));
        if at < mind.look_at {
            self.look_at(user, at);
        }
    }

    fn look_at(&mut self, user: UserNo, at: Instant) {
        let Some(mind) = self.users.get_mut(&user) else { return };
        self.agenda.remove(&(mind.look_at, user));
        mind.look_at = at;
        self.agenda.insert((at, user));
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
        self.look_at(user, now + SPACING);
    }

    /// The server leaves, and with it everybody's session: nobody is waited for any more.
    fn on_leaving(&mut self, now: Instant) {
        let users: Vec<UserNo> = self.users.keys().copied().collect();
        for user in users {
            if let Some(mind) = self.users.get_mut(&user) {
                mind.awaited = VecDeque::from([(mind.newest.0, now)]);
            }
            self.look_at(user, now);
        }
    }

    /// Which of a user's devices are handed over now, and about what.
    fn look(&mut self, now: Instant, user: UserNo, devices: Vec<Stands>) -> Handed {
        let Some(mind) = self.users.get_mut(&user) else { return (Vec::new(), None) };
        let newest = mind.newest.0;
        let mut overdue = MailboxSeq(0);
        while let Some((seq, _)) = mind.awaited.front().copied().filter(|(_, until)| *until <= now) {
            mind.awaited.pop_front();
            overdue = seq;
        }
        let (mut handed, mut waits) = (Vec::new(), false);
        for Stands { key, name, cursor, standing } in devices {
            if cursor >= newest || mind.told.get(&key).is_some_and(|told| *told >= newest) {
                continue;
            }
            if standing == Standing::Here && cursor >= overdue {
                waits = true;
                continue;
            }
            mind.told.insert(key, newest);
            handed.push((name, standing));
        }
        let news = mind.newest.1.clone();
        // Who did not have it at once has it soon, as a rule; else it is awaited.
        let again = (now < mind.came + SPACING).then(|| now + SPACING);
        mind.looked = Some(now);
        let next = mind.awaited.front().map(|(_, until)| *until).into_iter().chain(again).min().filter(|_| waits);
        // Remembered for a moment, so that what comes then is told together.
        match next.or_else(|| (!handed.is_empty()).then(|| now + SPACING)) {
            Some(at) => self.look_at(user, at),
            // It was taken, or told a moment ago: it is off their mind.
            None => {
                self.agenda.remove(&(mind.look_at, user));
                self.users.remove(&user);
            }
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
    pub fn new(pushing: Pushing) -> Self {
        Self { push: pushing.push, minds: Mutex::new(Minds::new(pushing.patience)), changed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Minds> {
        // Nothing under this lock panics between two consistent states.
        self.minds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// These records were committed.
    pub fn on_committed(&self, records: &[Arc<Record>]) {
        let news: Vec<_> = records.iter().filter_map(|record| Some((record, News::of(record)?))).collect();
        let mut dropped = 0;
        self.change(|minds, now| {
            for (record, news) in news {
                for (user, seq) in record.recipients.iter().filter(|(user, _)| *user != news.from) {
                    dropped += u64::from(!minds.on_message(now, *user, *seq, &news));
                }
            }
        });
        if dropped > 0 {
            metrics::counter!("whimbrel_push_hints_total", "outcome" => "dropped").increment(dropped);
        }
    }

    /// A device of the user stands otherwise than before.
    pub fn on_standing(&self, user: UserNo) {
        self.change(|minds, now| minds.hurry(now, user));
    }

    /// Has [`run`] hand over whoever has not acknowledged everything, and end.
    pub fn stop(&self) {
        self.change(|minds, now| {
            minds.on_leaving(now);
            minds.stopped = true;
        });
        self.changed.notify_one();
    }

    /// Changes what is on minds, and wakes the thread if it has to look sooner for it.
    fn change(&self, change: impl FnOnce(&mut Minds, Instant)) {
        let mut minds = self.lock();
        let before = minds.next();
        change(&mut minds, Instant::now());
        let sooner = minds.next().is_some_and(|at| before.is_none_or(|before| at < before));
        drop(minds);
        if sooner {
            self.changed.notify_one();
        }
    }

    /// Waits until the devices of somebody are to be looked at. `None` once stopped, and nobody's are.
    fn due(&self) -> Option<Vec<UserNo>> {
        let mut minds = self.lock();
        loop {
            let now = Instant::now();
            let due = minds.due(now);
            if !due.is_empty() {
                return Some(due);
            }
            if minds.stopped {
                return None;
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
            let hinted = devices.map(|devices| hint(engine, handover, user, devices));
            if !matches!(hinted, Some(Ok(()))) {
                if let Some(Err(error)) = hinted {
                    tracing::warn!(%error, "somebody cannot be handed over to push; trying again");
                }
                handover.lock().put_off(Instant::now(), user);
            }
        }
    }
}

/// Asks the committer for a user's devices. `None` if it has no room for the question.
fn ask(engine: &Engine, user: UserNo) -> Option<oneshot::Receiver<Vec<Known>>> {
    let (answer, answered) = oneshot::channel();
    engine.queue.push(Lane::User(user), 0, Work::Devices { user, answer }).ok().map(|()| answered)
}

fn hint(engine: &Engine, handover: &Handover, user: UserNo, devices: Vec<Known>) -> Result<(), StoreError> {
    let id = engine.name(user)?;
    let stands = |Known { key, name, cursor }| Stands {
        cursor: engine.cursors.acked(key).max(cursor),
        standing: engine.hub.standing(key),
        key,
        name,
    };
    let devices = devices.into_iter().filter(|known| known.name.as_str() != DOCTOR).map(stands).collect();
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
