//! One device's stay, as the rest of the server sees it.

use super::{AWAY_MS, lock};
use crate::store::{DeviceKey, UserNo};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use tokio::sync::Notify;
use whimbrel_protocol::frame::{Error, GoAway, ServerFrame, ServerSignal};
use whimbrel_protocol::{CommandSeq, DeviceId, ErrorCode, Incarnation, MailboxSeq, Nonce, SessionEpoch, UserId};

/// Signals that wait for a session beyond this are dropped, the oldest first.
pub(super) const SIGNALS_MAX: usize = 64;
/// Lines of the lobby among them, at most: they may be long.
const LINES_MAX: usize = 8;

/// One device's stay, as the rest of the server sees it.
#[derive(Debug)]
pub struct SessionHandle {
    /// Whose.
    pub user: UserNo,
    /// Whose, by name.
    pub user_id: UserId,
    /// Which device.
    pub device: DeviceKey,
    /// Which device, by name.
    pub device_id: DeviceId,
    /// The device's outbox.
    pub incarnation: Incarnation,
    /// Which run of the client, and which of its attempts to connect.
    pub attempt: Attempt,
    /// 0 until the session is entered.
    pub(super) epoch: AtomicU64,
    head: AtomicU64,
    applied: AtomicU64,
    pub(super) replaced: AtomicBool,
    pub(super) background: AtomicBool,
    end: OnceLock<End>,
    signals: Mutex<VecDeque<ServerSignal>>,
    wake: Notify,
}

/// Why the server ends a session.
#[derive(Debug, Clone)]
pub enum End {
    /// Something was wrong.
    Error(Error),
    /// The server leaves.
    GoAway(GoAway),
}

impl End {
    /// The server leaves, and the client is to come back after so many milliseconds.
    pub(crate) fn going_away(retry_after_ms: u32) -> Self {
        Self::GoAway(GoAway { retry_after_ms, message: "the server is going down; it will be back".into() })
    }
}

impl From<End> for ServerFrame {
    fn from(end: End) -> Self {
        match end {
            End::Error(error) => Self::Error(error),
            End::GoAway(away) => Self::GoAway(away),
        }
    }
}

impl SessionHandle {
    /// Rises with every session of the device; 0 while it is provisional.
    pub fn epoch(&self) -> SessionEpoch {
        SessionEpoch(self.epoch.load(Ordering::Acquire))
    }

    /// Whether it is not entered: nobody is told of it, it takes nothing over, and nothing wakes it.
    pub fn is_provisional(&self) -> bool {
        self.epoch() == SessionEpoch(0)
    }

    /// Highest entry of the mailbox, as far as was heard.
    pub fn head(&self) -> MailboxSeq {
        MailboxSeq(self.head.load(Ordering::Acquire))
    }

    /// Highest applied command.
    pub fn applied(&self) -> CommandSeq {
        CommandSeq(self.applied.load(Ordering::Acquire))
    }

    /// Whether a newer session of the device took over: this one may no longer write.
    pub fn is_replaced(&self) -> bool {
        self.replaced.load(Ordering::Acquire)
    }

    /// Whether its application is suspended: its user does not look online for it.
    pub fn is_background(&self) -> bool {
        self.background.load(Ordering::Acquire)
    }

    /// Why the session is to end, if it is.
    pub fn end(&self) -> Option<&End> {
        self.end.get()
    }

    /// Whether it ends because its outbox contradicts the device's.
    pub(in crate::engine) fn is_contradicted(&self) -> bool {
        matches!(self.end(), Some(End::Error(error)) if error.code == ErrorCode::OutboxConflict)
    }

    /// Asks the session to leave, and its client to come back after so many milliseconds, but not before a server can be there again.
    pub fn leave(&self, retry_after_ms: u32) {
        self.finish(End::going_away(retry_after_ms.max(AWAY_MS)));
    }

    /// Asks the session to end. The first reason counts.
    pub fn finish(&self, end: End) {
        if self.end.set(end).is_ok() {
            self.wake.notify_one();
        }
    }

    /// A signal to pass on.
    pub fn take_signal(&self) -> Option<ServerSignal> {
        lock(&self.signals).pop_front()
    }

    /// Waits until something of the above may have changed.
    pub async fn woken(&self) {
        self.wake.notified().await;
    }

    pub(in crate::engine) fn raise_head(&self, head: MailboxSeq) {
        if self.head.fetch_max(head.0, Ordering::AcqRel) < head.0 {
            self.wake.notify_one();
        }
    }

    pub(in crate::engine) fn raise_applied(&self, applied: CommandSeq) {
        if self.applied.fetch_max(applied.0, Ordering::AcqRel) < applied.0 {
            self.wake.notify_one();
        }
    }

    pub(in crate::engine) fn signal(&self, signal: ServerSignal) {
        let mut signals = lock(&self.signals);
        // The new one is lost: so many bytes for somebody who does not read them are enough.
        let is_line = |signal: &ServerSignal| matches!(signal, ServerSignal::Lobby(_));
        if is_line(&signal) && signals.iter().filter(|signal| is_line(signal)).count() >= LINES_MAX {
            metrics::counter!("whimbrel_lobby_lines_missed_total").increment(1);
            return;
        }
        if signals.len() >= SIGNALS_MAX {
            signals.pop_front();
        }
        signals.push_back(signal);
        drop(signals);
        self.wake.notify_one();
    }
}

/// Which run of a client says hello, and for which time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempt {
    /// Random for each run.
    pub instance: Nonce,
    /// Rises with each hello of a run.
    pub number: u32,
}

impl Attempt {
    /// Whether this hello was said before that one: it comes late, over a connection that the client gave up on.
    pub(super) fn is_before(self, other: Self) -> bool {
        self.instance == other.instance && self.number < other.number
    }
}

/// What a new session begins with.
#[derive(Debug)]
pub(in crate::engine) struct NewSession {
    pub attempt: Attempt,
    pub user: UserNo,
    pub user_id: UserId,
    pub device: DeviceKey,
    pub device_id: DeviceId,
    pub incarnation: Incarnation,
    pub applied: CommandSeq,
    pub background: bool,
}

impl NewSession {
    /// A session that is provisional until it is [entered](Hub::enter).
    pub fn begin(self) -> Arc<SessionHandle> {
        Arc::new(SessionHandle {
            user: self.user,
            user_id: self.user_id,
            device: self.device,
            device_id: self.device_id,
            incarnation: self.incarnation,
            attempt: self.attempt,
            epoch: AtomicU64::new(0),
            head: AtomicU64::new(0),
            applied: AtomicU64::new(self.applied.0),
            replaced: AtomicBool::new(false),
            background: AtomicBool::new(self.background),
            end: OnceLock::new(),
            signals: Mutex::default(),
            wake: Notify::new(),
        })
    }
}
