//! A store in memory: for tests, and for trying things out. Nothing of it outlives the process.

use super::fold::{self, Budget};
use super::staged::{Base, Next, Staged};
use super::{
    Conversation, Device, DeviceKey, Entry, MailboxBounds, Pos, Record, RecordBody, Retention, Store, StoreError, Transaction, UserNo,
};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};
use whimbrel_protocol::frame::Direction;
use whimbrel_protocol::{ConversationId, ConversationSeq, LogEpoch, MailboxSeq, Time, UserId};

/// What goes wrong in the next transaction of a [`MemoryStore`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailPoint {
    /// Before the commit: [`StoreError::Unavailable`], and nothing is committed.
    BeforeCommit,
    /// After the commit: [`StoreError::Unknown`], although it is committed.
    AfterCommit,
    /// [`StoreError::Unknown`], and it is not committed.
    UnknownNotCommitted,
    /// A panic, and it is not committed: as if deciding had met a fault of the program.
    Panic,
}

/// A store in memory. Reads do not wait for a transaction under way, as in the other stores.
#[derive(Debug)]
pub struct MemoryStore {
    /// Held for the whole of a transaction: transactions are serial.
    writer: Mutex<VecDeque<FailPoint>>,
    state: Mutex<State>,
    fail_conversations: AtomicBool,
}

#[derive(Debug, Clone, Default)]
struct State {
    epoch: LogEpoch,
    next: Next,
    log: Vec<Arc<Record>>,
    ids: HashMap<UserId, UserNo>,
    users: HashMap<UserNo, UserId>,
    mailboxes: HashMap<UserNo, Mailbox>,
    devices: BTreeMap<DeviceKey, Arc<Device>>,
    positions: HashMap<UserNo, MailboxSeq>,
    conversations: BTreeMap<ConversationId, Arc<Conversation>>,
    numbered: HashMap<ConversationId, Vec<Arc<Record>>>,
    directs: HashMap<(UserNo, UserNo), ConversationId>,
    memberships: BTreeSet<(UserNo, ConversationId)>,
}

/// The entries after `floor`, without a gap.
#[derive(Debug, Clone, Default)]
struct Mailbox {
    floor: MailboxSeq,
    entries: VecDeque<Arc<Record>>,
}

impl Mailbox {
    fn head(&self) -> MailboxSeq {
        MailboxSeq(self.floor.0 + self.entries.len() as u64)
    }
}

impl State {
    fn apply(&mut self, record: &Arc<Record>) {
        if let Some(key) = fold::device_of(&record.body) {
            let mut device = self.devices.remove(&key);
            fold::apply_device(&mut device, record.pos, &record.body);
            self.devices.extend(device.map(|device| (key, device)));
        }
        if let Some(id) = fold::conversation_of(&record.body) {
            let mut conversation = self.conversations.remove(&id);
            fold::apply_conversation(&mut conversation, record.time, &record.body);
            self.conversations.extend(conversation.map(|conversation| (id, conversation)));
        }
        if let Some((id, _)) = fold::numbered(&record.body) {
            self.numbered.entry(id).or_default().push(record.clone());
        }
        if let RecordBody::Started { conversation, kind, members } = &record.body {
            self.directs.extend(fold::direct_pair(*kind, members).map(|pair| (pair, *conversation)));
            self.memberships.extend(members.iter().map(|user| (*user, *conversation)));
        }
        for (user, _) in &record.recipients {
            self.mailboxes.entry(*user).or_default().entries.push_back(record.clone());
        }
        self.log.push(record.clone());
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryStore {
    /// An empty store with an epoch of its own.
    #[must_use]
    pub fn new() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |since| since.as_millis() as u64);
        Self::of(State { epoch: LogEpoch(now), ..State::default() })
    }

    fn of(state: State) -> Self {
        Self { writer: Mutex::new(VecDeque::new()), state: Mutex::new(state), fail_conversations: AtomicBool::new(false) }
    }

    /// Makes the next transaction fail in this way. Several calls: several transactions, in order.
    pub fn fail_next(&self, point: FailPoint) {
        self.writer().push_back(point);
    }

    /// From now on conversations cannot be read, or can again.
    pub fn fail_conversations(&self, fail: bool) {
        self.fail_conversations.store(fail, Ordering::Relaxed);
    }

    fn may_read(&self) -> Result<(), StoreError> {
        match self.fail_conversations.load(Ordering::Relaxed) {
            true => Err(StoreError::Unavailable("as the test asked".to_owned())),
            false => Ok(()),
        }
    }

    /// A copy as it stands, with the same epoch: what a restart of the same store would find.
    #[must_use]
    pub fn snapshot(&self) -> Self {
        Self::of(self.state().clone())
    }

    /// A copy as it stands, with a higher epoch: a store restored from a backup.
    #[must_use]
    pub fn restored_from(backup: &Self) -> Self {
        let mut state = backup.state().clone();
        state.epoch = LogEpoch(state.epoch.0 + 1);
        Self::of(state)
    }

    // A panic while one of these is held is the caller's `work`, which changes nothing here: what is inside is sound.
    fn writer(&self) -> MutexGuard<'_, VecDeque<FailPoint>> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Base for &MemoryStore {
    fn user(&mut self, id: &UserId) -> Result<Option<UserNo>, StoreError> {
        Ok(self.state().ids.get(id).copied())
    }

    fn devices(&mut self, user: UserNo) -> Result<Vec<Arc<Device>>, StoreError> {
        let slots = DeviceKey { user, slot: 0 }..=DeviceKey { user, slot: u8::MAX };
        Ok(self.state().devices.range(slots).map(|(_, device)| device.clone()).collect())
    }

    fn device(&mut self, key: DeviceKey) -> Result<Option<Arc<Device>>, StoreError> {
        Ok(self.state().devices.get(&key).cloned())
    }

    fn conversation(&mut self, id: ConversationId) -> Result<Option<Arc<Conversation>>, StoreError> {
        Ok(self.state().conversations.get(&id).cloned())
    }

    fn direct(&mut self, pair: (UserNo, UserNo)) -> Result<Option<ConversationId>, StoreError> {
        Ok(self.state().directs.get(&pair).copied())
    }

    fn record(&mut self, pos: Pos) -> Result<Arc<Record>, StoreError> {
        let state = self.state();
        let record = pos.checked_sub(1).and_then(|index| state.log.get(usize::try_from(index).ok()?)).cloned();
        record.ok_or_else(|| StoreError::Refused(format!("there is no record {pos}")))
    }

    fn mailbox_head(&mut self, user: UserNo) -> Result<MailboxSeq, StoreError> {
        Ok(self.state().mailboxes.get(&user).map_or(MailboxSeq(0), Mailbox::head))
    }
}

impl Store for MemoryStore {
    fn epoch(&self) -> LogEpoch {
        self.state().epoch
    }

    fn transact(&self, work: &mut dyn FnMut(&mut dyn Transaction) -> Result<(), StoreError>) -> Result<(), StoreError> {
        let mut writer = self.writer();
        let next = self.state().next;
        let mut staged = Staged::new(self, next);
        let done = work(&mut staged);
        let Staged { next, users, records, .. } = staged;
        let mut state = self.state();
        state.next.conversation = next.conversation;
        done?;
        let fail = writer.pop_front();
        match fail {
            Some(FailPoint::BeforeCommit) => return Err(StoreError::Unavailable("as the test asked".to_owned())),
            Some(FailPoint::UnknownNotCommitted) => return Err(StoreError::Unknown("as the test asked".to_owned())),
            #[expect(clippy::panic, reason = "that is what was asked for")]
            Some(FailPoint::Panic) => panic!("as the test asked"),
            Some(FailPoint::AfterCommit) | None => {}
        }
        state.next = next;
        for (user, id) in users {
            state.ids.insert(id.clone(), user);
            state.users.insert(user, id);
        }
        for record in &records {
            state.apply(record);
        }
        if fail.is_some() { Err(StoreError::Unknown("as the test asked".to_owned())) } else { Ok(()) }
    }

    fn user(&self, id: &UserId) -> Result<Option<UserNo>, StoreError> {
        Ok(self.state().ids.get(id).copied())
    }

    fn user_id(&self, user: UserNo) -> Result<UserId, StoreError> {
        self.state().users.get(&user).cloned().ok_or_else(|| StoreError::Refused(format!("there is no user {}", user.0)))
    }

    fn mailbox(&self, user: UserNo) -> Result<MailboxBounds, StoreError> {
        Ok(self
            .state()
            .mailboxes
            .get(&user)
            .map_or_else(MailboxBounds::default, |mailbox| MailboxBounds { floor: mailbox.floor, head: mailbox.head() }))
    }

    fn mailbox_entries(&self, user: UserNo, after: MailboxSeq, limit: usize, max_bytes: usize) -> Result<Vec<Entry>, StoreError> {
        let state = self.state();
        let Some(mailbox) = state.mailboxes.get(&user) else { return Ok(Vec::new()) };
        let skip = usize::try_from(after.0.saturating_sub(mailbox.floor.0)).unwrap_or(usize::MAX);
        let mut budget = Budget::new(limit, max_bytes);
        let entries = mailbox.entries.iter().enumerate().skip(skip);
        let entries = entries.map(|(index, record)| Entry { seq: MailboxSeq(mailbox.floor.0 + index as u64 + 1), record: record.clone() });
        Ok(entries.take_while(|entry| budget.take(&entry.record)).collect())
    }

    fn recent_entries(&self, user: UserNo, after: MailboxSeq, limit: usize, max_bytes: usize) -> Option<Vec<Entry>> {
        self.mailbox_entries(user, after, limit, max_bytes).ok()
    }

    fn conversation(&self, id: ConversationId) -> Result<Option<Conversation>, StoreError> {
        self.may_read()?;
        Ok(self.state().conversations.get(&id).map(|conversation| (**conversation).clone()))
    }

    fn direct(&self, one: UserNo, other: UserNo) -> Result<Option<ConversationId>, StoreError> {
        Ok(self.state().directs.get(&fold::pair(one, other)).copied())
    }

    fn conversation_entries(
        &self,
        id: ConversationId,
        from: ConversationSeq,
        direction: Direction,
        limit: usize,
        max_bytes: usize,
    ) -> Result<Vec<Arc<Record>>, StoreError> {
        self.may_read()?;
        let state = self.state();
        let Some(records) = state.numbered.get(&id) else { return Ok(Vec::new()) };
        let from = usize::try_from(from.0).unwrap_or(usize::MAX);
        let mut budget = Budget::new(limit, max_bytes);
        Ok(match direction {
            Direction::Forwards => records.iter().skip(from).take_while(|record| budget.take(record)).cloned().collect(),
            Direction::Backwards => {
                let below = if from == 0 { records.len() } else { records.len().min(from - 1) };
                let mut page: Vec<_> = records[..below].iter().rev().take_while(|record| budget.take(record)).cloned().collect();
                page.reverse();
                page
            }
        })
    }

    fn conversations_of(&self, user: UserNo, after: ConversationId, limit: usize) -> Result<Vec<Conversation>, StoreError> {
        let state = self.state();
        let range = (Bound::Excluded((user, after)), Bound::Included((user, ConversationId(u64::MAX))));
        let ids = state.memberships.range(range).take(limit);
        Ok(ids.filter_map(|(_, id)| state.conversations.get(id)).map(|conversation| (**conversation).clone()).collect())
    }

    fn save_positions(&self, positions: &[(UserNo, MailboxSeq)]) -> Result<(), StoreError> {
        let mut state = self.state();
        for (user, seq) in positions {
            let noted = state.positions.entry(*user).or_default();
            *noted = (*noted).max(*seq);
        }
        Ok(())
    }

    fn position(&self, user: UserNo) -> Result<Option<MailboxSeq>, StoreError> {
        Ok(self.state().positions.get(&user).copied())
    }

    fn save_cursors(&self, cursors: &[(DeviceKey, MailboxSeq)]) -> Result<(), StoreError> {
        let mut state = self.state();
        for (key, cursor) in cursors {
            if let Some(device) = state.devices.get_mut(key)
                && device.cursor < *cursor
            {
                Arc::make_mut(device).cursor = *cursor;
            }
        }
        Ok(())
    }

    fn trim(&self, keep: Retention, now: Time) -> Result<u64, StoreError> {
        let oldest = Time(now.0.saturating_sub(u64::try_from(keep.age.as_millis()).unwrap_or(u64::MAX)));
        let mut removed = 0;
        for mailbox in self.state().mailboxes.values_mut() {
            while let Some(first) = mailbox.entries.front()
                && (mailbox.entries.len() as u64 > keep.entries || first.time < oldest)
            {
                mailbox.entries.pop_front();
                mailbox.floor = mailbox.floor.next();
                removed += 1;
            }
        }
        Ok(removed)
    }

    fn probe(&self, _bytes: usize) -> Result<(), StoreError> {
        self.transact(&mut |_| Ok(()))
    }

    fn flush(&self) -> Result<(), StoreError> {
        Ok(())
    }
}
