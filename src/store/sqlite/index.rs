//! What is published: the indexes over the log as far as they are in memory. [`Index::apply`] is how a record gets into them, after a
//! commit and at start alike.
//!
//! A slot holds what is not yet in its row (then it is *dirty*, and stays), and beyond that what was used lately (then it may be
//! dropped at any time). A slot of a user or conversation that is not here is exactly as its row says.

use super::super::staged::Next;
use super::super::{Conversation, Device, DeviceKey, Entry, Pos, Record, RecordBody, UserNo, fold};
use super::tail::{Numbers, Ring, Tail};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use whimbrel_protocol::{ConversationId, MailboxSeq};

/// What is swept: the rows of a user (mailbox and devices) or of a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    User(UserNo),
    Conversation(ConversationId),
}

/// A device, and whether its row says the same.
#[derive(Debug, Clone)]
pub(super) struct DeviceSlot {
    pub(super) device: Arc<Device>,
    /// Its row holds what records before this position did.
    pub(super) upto: Pos,
    /// Whether it differs from its row.
    pub(super) dirty: bool,
}

/// The devices of a user.
#[derive(Debug)]
pub(super) enum Devices {
    /// As the rows say, then these records, then these cursors. Where a start leaves it until they are needed.
    Behind { records: Vec<Arc<Record>>, cursors: Vec<(u8, MailboxSeq)> },
    /// All of them, by slot.
    Here(Vec<DeviceSlot>),
}

#[derive(Debug)]
pub(super) struct UserSlot {
    /// `None`: as the row says.
    pub(super) mailbox: Option<Tail>,
    pub(super) devices: Devices,
    dirty: bool,
    used: AtomicU32,
}

/// A conversation.
#[derive(Debug)]
pub(super) enum State {
    /// As the row says, then these records.
    Behind(Vec<Arc<Record>>),
    /// As it stands.
    Here(Arc<Conversation>),
}

#[derive(Debug)]
pub(super) struct ConversationSlot {
    /// `None`: as the row says.
    pub(super) tail: Option<Tail>,
    pub(super) state: State,
    dirty: bool,
    used: AtomicU32,
}

/// What is published.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// What is next to be numbered.
    pub(super) next: Next,
    users: HashMap<UserNo, UserSlot, Numbers>,
    conversations: HashMap<ConversationId, ConversationSlot, Numbers>,
    ring: Ring,
    /// Keys that became dirty since this was last taken.
    dirty: Vec<Key>,
    /// Rises with every commit: slots used in an older one go first.
    round: u32,
    /// Slots there were when they were last looked through.
    slots: usize,
    /// Why nothing may be read: what was in memory was dropped, and could not be read again yet.
    pub(super) broken: Option<String>,
}

impl Index {
    pub(super) fn new(next: Next, ring_bytes: usize) -> Self {
        Self { next, ring: Ring::new(ring_bytes), ..Self::default() }
    }

    /// Puts a committed record into the indexes. The error says what it contradicts; then the indexes are of no more use.
    pub(super) fn apply(&mut self, record: &Arc<Record>) -> Result<(), String> {
        if record.pos != self.next.pos {
            return Err(format!("record {} comes where {} is next", record.pos, self.next.pos));
        }
        self.next.pos += 1;
        if let Some(key) = fold::device_of(&record.body) {
            match &mut self.dirty_user(key.user).devices {
                Devices::Behind { records, .. } => records.push(record.clone()),
                Devices::Here(devices) => apply_to_devices(devices, record)?,
            }
        }
        if let Some(id) = fold::conversation_of(&record.body) {
            let slot = self.dirty_conversation(id);
            if let Some((_, seq)) = fold::numbered(&record.body) {
                slot.tail.get_or_insert_with(|| Tail::after(seq.0 - 1)).push(seq.0, record.pos)?;
            }
            let begins = matches!(record.body, RecordBody::Started { .. });
            match std::mem::replace(&mut slot.state, State::Behind(Vec::new())) {
                State::Behind(mut records) if !begins => {
                    records.push(record.clone());
                    slot.state = State::Behind(records);
                }
                state => {
                    let mut conversation = match state {
                        State::Here(conversation) => Some(conversation),
                        State::Behind(_) => None,
                    };
                    apply_to_conversation(&mut conversation, record)?;
                    slot.state = State::Here(conversation.ok_or("a conversation that never began")?);
                }
            }
            if begins {
                slot.tail = Some(Tail::after(0));
            }
        }
        for (user, seq) in &record.recipients {
            let slot = self.dirty_user(*user);
            slot.mailbox.get_or_insert_with(|| Tail::after(seq.0 - 1)).push(seq.0, record.pos)?;
        }
        self.ring.push(record.clone());
        Ok(())
    }

    /// Begins a round: what is used from now on is newer.
    pub(super) fn begin_round(&mut self) {
        self.round = self.round.wrapping_add(1);
    }

    pub(super) fn user(&self, user: UserNo) -> Option<&UserSlot> {
        self.users.get(&user).inspect(|slot| slot.used.store(self.round, Ordering::Relaxed))
    }

    pub(super) fn conversation(&self, id: ConversationId) -> Option<&ConversationSlot> {
        self.conversations.get(&id).inspect(|slot| slot.used.store(self.round, Ordering::Relaxed))
    }

    /// The slot of a user, made if there is none: then as the row says.
    pub(super) fn user_mut(&mut self, user: UserNo) -> &mut UserSlot {
        let slot = self.users.entry(user).or_insert_with(|| UserSlot {
            mailbox: None,
            devices: Devices::Behind { records: Vec::new(), cursors: Vec::new() },
            dirty: false,
            used: AtomicU32::new(0),
        });
        *slot.used.get_mut() = self.round;
        slot
    }

    /// The slot of a user, which will differ from its row.
    pub(super) fn dirty_user(&mut self, user: UserNo) -> &mut UserSlot {
        if !self.users.get(&user).is_some_and(|slot| slot.dirty) {
            self.dirty.push(Key::User(user));
        }
        let slot = self.user_mut(user);
        slot.dirty = true;
        slot
    }

    /// The slot of a conversation, made if there is none: then as the row says.
    pub(super) fn conversation_mut(&mut self, id: ConversationId) -> &mut ConversationSlot {
        let slot = self.conversations.entry(id).or_insert_with(|| ConversationSlot {
            tail: None,
            state: State::Behind(Vec::new()),
            dirty: false,
            used: AtomicU32::new(0),
        });
        *slot.used.get_mut() = self.round;
        slot
    }

    fn dirty_conversation(&mut self, id: ConversationId) -> &mut ConversationSlot {
        if !self.conversations.get(&id).is_some_and(|slot| slot.dirty) {
            self.dirty.push(Key::Conversation(id));
        }
        let slot = self.conversation_mut(id);
        slot.dirty = true;
        slot
    }

    /// A record, if it is recent.
    pub(super) fn record(&self, pos: Pos) -> Option<&Arc<Record>> {
        self.ring.get(pos)
    }

    /// Entries of a mailbox, all from memory. `None` if memory does not hold every one.
    pub(super) fn entries(&self, user: UserNo, after: u64, limit: usize, max_bytes: usize) -> Option<Vec<Entry>> {
        let tail = self.user(user)?.mailbox.as_ref()?;
        if after + 1 < tail.first() {
            return None;
        }
        let mut budget = fold::Budget::new(limit, max_bytes);
        let mut entries = Vec::new();
        for (seq, pos) in tail.range(after + 1, u64::MAX) {
            let record = self.record(pos)?;
            if !budget.take(record) {
                break;
            }
            entries.push(Entry { seq: MailboxSeq(seq), record: record.clone() });
        }
        Some(entries)
    }

    /// Keys that became dirty since this was last called.
    pub(super) fn take_dirty(&mut self) -> Vec<Key> {
        std::mem::take(&mut self.dirty)
    }

    /// How many keys became dirty since they were last taken.
    pub(super) fn dirty_count(&self) -> usize {
        self.dirty.len()
    }

    pub(super) fn is_dirty(&self, key: Key) -> bool {
        match key {
            Key::User(user) => self.users.get(&user).is_some_and(|slot| slot.dirty),
            Key::Conversation(id) => self.conversations.get(&id).is_some_and(|slot| slot.dirty),
        }
    }

    /// The rows of `key` say what is here, as of before the next record.
    pub(super) fn flushed(&mut self, key: Key) {
        let upto = self.next.pos;
        match key {
            Key::User(user) => {
                let Some(slot) = self.users.get_mut(&user) else { return };
                slot.dirty = false;
                if let Some(tail) = &mut slot.mailbox {
                    tail.flushed();
                }
                if let Devices::Here(devices) = &mut slot.devices {
                    for device in devices.iter_mut().filter(|device| device.dirty) {
                        device.dirty = false;
                        device.upto = upto;
                    }
                }
            }
            Key::Conversation(id) => {
                let Some(slot) = self.conversations.get_mut(&id) else { return };
                slot.dirty = false;
                if let Some(tail) = &mut slot.tail {
                    tail.flushed();
                }
            }
        }
    }

    /// Entries of a mailbox up to `floor` are gone.
    pub(super) fn trimmed(&mut self, user: UserNo, floor: u64) {
        if let Some(tail) = self.users.get_mut(&user).and_then(|slot| slot.mailbox.as_mut()) {
            tail.trim(floor);
        }
    }

    /// Notes how far a device has got.
    pub(super) fn raise_cursor(&mut self, key: DeviceKey, cursor: MailboxSeq) {
        let raised = match &mut self.user_mut(key.user).devices {
            Devices::Behind { cursors, .. } => {
                cursors.push((key.slot, cursor));
                true
            }
            Devices::Here(devices) => match devices.iter_mut().find(|slot| slot.device.key == key) {
                Some(slot) if slot.device.cursor < cursor => {
                    Arc::make_mut(&mut slot.device).cursor = cursor;
                    slot.dirty = true;
                    true
                }
                _ => false,
            },
        };
        if raised {
            self.dirty_user(key.user);
        }
    }

    /// Cursors that may not be in their rows: to be kept when the rest is dropped.
    pub(super) fn unsaved_cursors(&self) -> Vec<(UserNo, Vec<(u8, MailboxSeq)>)> {
        let dirty = self.users.iter().filter(|(_, slot)| slot.dirty);
        let cursors = dirty.map(|(user, slot)| {
            let cursors = match &slot.devices {
                Devices::Behind { cursors, .. } => cursors.clone(),
                Devices::Here(devices) => devices.iter().map(|slot| (slot.device.key.slot, slot.device.cursor)).collect(),
            };
            (*user, cursors)
        });
        cursors.filter(|(_, cursors)| !cursors.is_empty()).collect()
    }

    /// Slots there are.
    #[cfg(test)]
    pub(super) fn slots(&self) -> usize {
        self.users.len() + self.conversations.len()
    }

    /// Drops what was not used for longest, until about `bytes_max` are taken up. Looks only when a good part may be new, or `now`.
    pub(super) fn evict(&mut self, bytes_max: usize, now: bool) {
        let slots = self.users.len() + self.conversations.len();
        if !now && slots < self.slots + 1024.max(self.slots / 8) {
            return;
        }
        let round = self.round;
        let age = |used: &AtomicU32| round.wrapping_sub(used.load(Ordering::Relaxed));
        let mut clean: Vec<(u32, usize)> = Vec::new();
        let mut bytes = 0;
        for (used, dirty, size) in (self.users.values().map(|slot| (&slot.used, slot.dirty, slot.bytes())))
            .chain(self.conversations.values().map(|slot| (&slot.used, slot.dirty, slot.bytes())))
        {
            bytes += size;
            if !dirty {
                clean.push((age(used), size));
            }
        }
        if bytes > bytes_max {
            clean.sort_unstable();
            // A good part more than is needed, so that the next look is not the next commit.
            let mut excess = bytes - bytes_max / 4 * 3;
            let mut limit = 0;
            while excess > 0
                && let Some((age, size)) = clean.pop()
            {
                limit = age;
                excess = excess.saturating_sub(size);
            }
            self.users.retain(|_, slot| slot.dirty || age(&slot.used) < limit.max(1));
            self.conversations.retain(|_, slot| slot.dirty || age(&slot.used) < limit.max(1));
        }
        self.slots = self.users.len() + self.conversations.len();
    }
}

/// Brings the devices of a user up to date.
pub(super) fn apply_to_devices(devices: &mut Vec<DeviceSlot>, record: &Record) -> Result<(), String> {
    let Some(key) = fold::device_of(&record.body) else { return Ok(()) };
    let at = devices.binary_search_by_key(&key, |slot| slot.device.key);
    let (mut device, upto) = match at {
        Ok(at) => {
            let slot = devices.remove(at);
            (Some(slot.device), slot.upto)
        }
        Err(_) => (None, 0),
    };
    fold::check_device(device.as_deref(), &record.body)?;
    fold::apply_device(&mut device, record.pos, &record.body);
    if let Some(device) = device {
        let (Ok(at) | Err(at)) = at;
        devices.insert(at, DeviceSlot { device, upto, dirty: true });
    }
    Ok(())
}

/// Brings a conversation up to date.
pub(super) fn apply_to_conversation(conversation: &mut Option<Arc<Conversation>>, record: &Record) -> Result<(), String> {
    fold::check_conversation(conversation.as_deref(), &record.body)?;
    fold::apply_conversation(conversation, record.time, &record.body);
    Ok(())
}

impl UserSlot {
    fn bytes(&self) -> usize {
        let devices = match &self.devices {
            Devices::Behind { records, cursors } => records.len() * 8 + cursors.len() * 16,
            Devices::Here(devices) => {
                devices.iter().map(|slot| 220 + (slot.device.recent.capacity() + slot.device.former.capacity()) * 16).sum()
            }
        };
        160 + devices + self.mailbox.as_ref().map_or(0, |tail| tail.bytes())
    }
}

impl ConversationSlot {
    fn bytes(&self) -> usize {
        let state = match &self.state {
            State::Behind(records) => records.len() * 8,
            State::Here(conversation) => 100 + conversation.members.len() * 32,
        };
        160 + state + self.tail.as_ref().map_or(0, |tail| tail.bytes())
    }
}
