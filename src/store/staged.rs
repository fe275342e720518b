//! A transaction that is under way: what it appended lies here, over what is published, until it is committed. One implementation for
//! every store; the stores differ in where they read from ([`Base`]) and in how they commit.

use super::{Conversation, Device, DeviceKey, Pos, Record, RecordBody, StoreError, Transaction, UserNo, fold};
use std::collections::HashMap;
use std::sync::Arc;
use whimbrel_protocol::{ConversationId, MailboxSeq, Time, UserId};

/// What is published, as a transaction reads it.
pub(super) trait Base {
    /// The number of a user.
    fn user(&mut self, id: &UserId) -> Result<Option<UserNo>, StoreError>;
    /// A user's devices, by slot.
    fn devices(&mut self, user: UserNo) -> Result<Vec<Arc<Device>>, StoreError>;
    /// One device.
    fn device(&mut self, key: DeviceKey) -> Result<Option<Arc<Device>>, StoreError>;
    /// A conversation.
    fn conversation(&mut self, id: ConversationId) -> Result<Option<Arc<Conversation>>, StoreError>;
    /// The direct conversation of a [`fold::pair`].
    fn direct(&mut self, pair: (UserNo, UserNo)) -> Result<Option<ConversationId>, StoreError>;
    /// A record.
    fn record(&mut self, pos: Pos) -> Result<Arc<Record>, StoreError>;
    /// The highest entry of a mailbox.
    fn mailbox_head(&mut self, user: UserNo) -> Result<MailboxSeq, StoreError>;
}

/// What is next to be numbered. Conversation ids are not given back when a transaction fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Next {
    /// Position of the next record.
    pub(super) pos: Pos,
    /// Number of the next user.
    pub(super) user: UserNo,
    /// Id of the next conversation.
    pub(super) conversation: ConversationId,
}

impl Default for Next {
    fn default() -> Self {
        Self { pos: 1, user: UserNo(1), conversation: ConversationId(1) }
    }
}

/// A transaction under way.
pub(super) struct Staged<B> {
    base: B,
    /// What is next, after what is staged here.
    pub(super) next: Next,
    /// Users who are new, in the order of their numbers.
    pub(super) users: Vec<(UserNo, UserId)>,
    /// Records, in the order of their positions.
    pub(super) records: Vec<Arc<Record>>,
    ids: HashMap<UserId, UserNo>,
    first_pos: Pos,
    devices: HashMap<DeviceKey, Arc<Device>>,
    conversations: HashMap<ConversationId, Arc<Conversation>>,
    directs: HashMap<(UserNo, UserNo), ConversationId>,
    heads: HashMap<UserNo, MailboxSeq>,
}

impl<B: Base> Staged<B> {
    pub(super) fn new(base: B, next: Next) -> Self {
        Self {
            base,
            next,
            first_pos: next.pos,
            users: Vec::new(),
            records: Vec::new(),
            ids: HashMap::new(),
            devices: HashMap::new(),
            conversations: HashMap::new(),
            directs: HashMap::new(),
            heads: HashMap::new(),
        }
    }

    fn staged_device(&mut self, key: DeviceKey) -> Result<Option<Arc<Device>>, StoreError> {
        match self.devices.get(&key) {
            Some(device) => Ok(Some(device.clone())),
            None => self.base.device(key),
        }
    }

    fn staged_conversation(&mut self, id: ConversationId) -> Result<Option<Arc<Conversation>>, StoreError> {
        match self.conversations.get(&id) {
            Some(conversation) => Ok(Some(conversation.clone())),
            None => self.base.conversation(id),
        }
    }

    /// The next number in each recipient's mailbox.
    fn number(&mut self, recipients: &[UserNo]) -> Result<Vec<(UserNo, MailboxSeq)>, StoreError> {
        let mut numbered = Vec::with_capacity(recipients.len());
        for user in recipients {
            if *user >= self.next.user || user.0 == 0 {
                return Err(StoreError::Refused(format!("there is no user {}", user.0)));
            }
            let head = match self.heads.get(user) {
                Some(head) => *head,
                None => self.base.mailbox_head(*user)?,
            };
            numbered.push((*user, head.next()));
        }
        let twice = match recipients {
            [] | [_] => false,
            [one, other] => one == other,
            more => {
                let mut sorted = more.to_vec();
                sorted.sort_unstable();
                sorted.windows(2).any(|two| two[0] == two[1])
            }
        };
        if twice { Err(StoreError::Refused("a recipient is named twice".to_owned())) } else { Ok(numbered) }
    }
}

impl<B: Base> Transaction for Staged<B> {
    fn user(&mut self, id: &UserId) -> Result<UserNo, StoreError> {
        if let Some(user) = self.ids.get(id) {
            return Ok(*user);
        }
        if let Some(user) = self.base.user(id)? {
            return Ok(user);
        }
        let user = self.next.user;
        self.next.user =
            UserNo(user.0.checked_add(1).ok_or_else(|| StoreError::Refused("there are no more numbers for users".to_owned()))?);
        self.users.push((user, id.clone()));
        self.ids.insert(id.clone(), user);
        Ok(user)
    }

    fn devices(&mut self, user: UserNo) -> Result<Vec<Arc<Device>>, StoreError> {
        let mut devices: Vec<_> = self.base.devices(user)?.into_iter().filter(|device| !self.devices.contains_key(&device.key)).collect();
        devices.extend(self.devices.values().filter(|device| device.key.user == user).cloned());
        devices.sort_unstable_by_key(|device| device.key);
        Ok(devices)
    }

    fn device(&mut self, key: DeviceKey) -> Result<Option<Arc<Device>>, StoreError> {
        self.staged_device(key)
    }

    fn conversation(&mut self, id: ConversationId) -> Result<Option<Arc<Conversation>>, StoreError> {
        self.staged_conversation(id)
    }

    fn direct(&mut self, one: UserNo, other: UserNo) -> Result<Option<ConversationId>, StoreError> {
        let pair = fold::pair(one, other);
        match self.directs.get(&pair) {
            Some(id) => Ok(Some(*id)),
            None => self.base.direct(pair),
        }
    }

    fn next_conversation(&mut self) -> Result<ConversationId, StoreError> {
        let id = self.next.conversation;
        self.next.conversation = id.next();
        Ok(id)
    }

    fn record(&mut self, pos: Pos) -> Result<Arc<Record>, StoreError> {
        if pos < self.first_pos {
            return self.base.record(pos);
        }
        let staged = usize::try_from(pos - self.first_pos).ok().and_then(|index| self.records.get(index));
        staged.cloned().ok_or_else(|| StoreError::Refused(format!("there is no record {pos}")))
    }

    fn append(&mut self, time: Time, body: RecordBody, recipients: &[UserNo]) -> Result<Arc<Record>, StoreError> {
        // Everything is checked before anything changes: a caller may go on after a refusal.
        let device_key = fold::device_of(&body);
        let conversation_id = fold::conversation_of(&body);
        let mut device = match device_key {
            Some(key) => self.staged_device(key)?,
            None => None,
        };
        let mut conversation = match conversation_id {
            Some(id) => self.staged_conversation(id)?,
            None => None,
        };
        fold::check_device(device.as_deref(), &body).map_err(StoreError::Refused)?;
        fold::check_conversation(conversation.as_deref(), &body).map_err(StoreError::Refused)?;
        let mut new_direct = None;
        match &body {
            RecordBody::Started { conversation: id, kind, members } => {
                if *id >= self.next.conversation {
                    return Err(StoreError::Refused(format!("conversation {id} was not given out")));
                }
                if let Some(member) = members.iter().find(|user| **user >= self.next.user || user.0 == 0) {
                    return Err(StoreError::Refused(format!("there is no user {}", member.0)));
                }
                new_direct = fold::direct_pair(*kind, members);
                if let Some((one, other)) = new_direct
                    && self.direct(one, other)?.is_some()
                {
                    return Err(StoreError::Refused(format!("users {} and {} have a direct conversation", one.0, other.0)));
                }
            }
            RecordBody::Outbox { device, .. } if device.user >= self.next.user || device.user.0 == 0 => {
                return Err(StoreError::Refused(format!("there is no user {}", device.user.0)));
            }
            _ => {}
        }
        let recipients = self.number(recipients)?;

        let pos = self.next.pos;
        self.next.pos += 1;
        // Out of the map while it changes: otherwise there are two owners, and each change would copy the whole.
        if let Some(key) = device_key {
            self.devices.remove(&key);
            fold::apply_device(&mut device, pos, &body);
            if let Some(device) = device {
                self.devices.insert(key, device);
            }
        }
        if let Some(id) = conversation_id {
            self.conversations.remove(&id);
            fold::apply_conversation(&mut conversation, time, &body);
            if let Some(conversation) = conversation {
                self.conversations.insert(id, conversation);
            }
        }
        if let (Some(pair), Some(id)) = (new_direct, conversation_id) {
            self.directs.insert(pair, id);
        }
        self.heads.extend(recipients.iter().copied());
        let record = Arc::new(Record { pos, time, recipients, body });
        self.records.push(record.clone());
        Ok(record)
    }
}
