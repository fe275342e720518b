//! Random histories, compared with a model that works every answer out from all the records, each time.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;

#[derive(Debug, Clone)]
enum Step {
    Transaction { ops: Vec<Op>, fails: bool },
    Cursor(u8, u8),
    Flush,
    Reopen,
    Trim(u8),
}

#[derive(Debug, Clone)]
enum Op {
    Outbox { user: u8, slot: u8 },
    Start { members: Vec<u8> },
    Send { conversation: u8, member: u8, slot: u8, length: u8, skip: u8 },
    Receipt { conversation: u8, member: u8, delivered: u8, read: u8, slot: Option<u8> },
    Reject { user: u8, slot: u8 },
    Repeat { user: u8, slot: u8 },
    Wrong { conversation: u8, member: u8 },
}

fn op() -> impl Strategy<Value = Op> {
    let (user, slot) = (0..8_u8, 0..3_u8);
    prop_oneof![
        2 => (user.clone(), slot.clone()).prop_map(|(user, slot)| Op::Outbox { user, slot }),
        2 => prop::collection::btree_set(user.clone(), 1..6).prop_map(|members| Op::Start { members: members.into_iter().collect() }),
        8 => (any::<u8>(), any::<u8>(), slot.clone(), any::<u8>(), 0..10_u8)
            .prop_map(|(conversation, member, slot, length, skip)| Op::Send { conversation, member, slot, length, skip }),
        2 => (any::<u8>(), any::<u8>(), any::<u8>(), any::<u8>(), prop::option::of(slot.clone()))
            .prop_map(|(conversation, member, delivered, read, slot)| Op::Receipt { conversation, member, delivered, read, slot }),
        1 => (user.clone(), slot.clone()).prop_map(|(user, slot)| Op::Reject { user, slot }),
        1 => (user, slot).prop_map(|(user, slot)| Op::Repeat { user, slot }),
        1 => (any::<u8>(), any::<u8>()).prop_map(|(conversation, member)| Op::Wrong { conversation, member }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (prop::collection::vec(op(), 1..12), prop::bool::weighted(0.1)).prop_map(|(ops, fails)| Step::Transaction { ops, fails }),
        1 => (0..8_u8, any::<u8>()).prop_map(|(user, cursor)| Step::Cursor(user, cursor)),
        1 => Just(Step::Flush),
        2 => Just(Step::Reopen),
        1 => any::<u8>().prop_map(Step::Trim),
    ]
}

/// The model: the records, and the answers worked out from all of them each time.
#[derive(Debug, Clone, Default)]
struct Model {
    users: Vec<UserId>,
    records: Vec<Arc<Record>>,
    floors: BTreeMap<UserNo, u64>,
    cursors: BTreeMap<DeviceKey, MailboxSeq>,
    nonce: u64,
}

impl Model {
    fn mailbox(&self, user: UserNo) -> Vec<Arc<Record>> {
        self.records.iter().filter(|record| record.recipients.iter().any(|(recipient, _)| *recipient == user)).cloned().collect()
    }

    fn messages(&self, id: ConversationId) -> Vec<Arc<Record>> {
        let is_in = |record: &&Arc<Record>| matches!(&record.body, RecordBody::Message { conversation, .. } if *conversation == id);
        self.records.iter().filter(is_in).cloned().collect()
    }

    fn conversations(&self) -> Vec<(ConversationId, ConversationKind, Vec<UserNo>)> {
        let begun = self.records.iter().filter_map(|record| match &record.body {
            RecordBody::Started { conversation, kind, members } => Some((*conversation, *kind, members.clone())),
            _ => None,
        });
        begun.collect()
    }

    fn conversation(&self, id: ConversationId) -> Option<Conversation> {
        let (_, kind, users) = self.conversations().into_iter().find(|(found, ..)| *found == id)?;
        let began =
            self.records.iter().find(|record| matches!(record.body, RecordBody::Started { conversation, .. } if conversation == id))?;
        let messages = self.messages(id);
        let members = users.into_iter().map(|user| {
            let mut own = messages.iter().filter(|record| record.body.origin().unwrap().device.user == user);
            let receipts = self.records.iter().filter_map(|record| match record.body {
                RecordBody::Receipt { conversation, user: whose, delivered, read, .. } if conversation == id && whose == user => {
                    Some((delivered, read))
                }
                _ => None,
            });
            let (delivered, read) = receipts
                .fold(Default::default(), |(d, r): (ConversationSeq, ConversationSeq), (delivered, read)| (d.max(delivered), r.max(read)));
            let sent = own.next_back().map_or(ConversationSeq(0), |record| fold::numbered(&record.body).unwrap().1);
            Member { user, sent, delivered, read }
        });
        Some(Conversation {
            id,
            kind,
            members: members.collect(),
            head: ConversationSeq(messages.len() as u64),
            time: messages.iter().map(|record| record.time).max().map_or(began.time, |time| time.max(began.time)),
        })
    }

    fn device(&self, key: DeviceKey) -> Option<Device> {
        let outbox = self.records.iter().rfind(|record| matches!(&record.body, RecordBody::Outbox { device, .. } if *device == key))?;
        let RecordBody::Outbox { name, incarnation, .. } = &outbox.body else { unreachable!() };
        let commands: Vec<_> =
            self.records.iter().filter(|record| record.body.origin().is_some_and(|origin| origin.device == key)).collect();
        let of = |record: &&Arc<Record>| matches!(&record.body, RecordBody::Outbox { device, name: other, .. } if *device == key && other != name);
        let other = self.records.iter().rposition(|record| of(&record)).map_or(0, |at| at + 1);
        let own = |record: &&Arc<Record>| matches!(&record.body, RecordBody::Outbox { device, .. } if *device == key);
        let since = self.records[other..].iter().find(own)?.pos;
        let newest = |of: &[&Arc<Record>]| {
            let newest = of[of.len().saturating_sub(NONCES_MAX)..].iter();
            newest.map(|record| RecentCommand { nonce: record.body.origin().unwrap().nonce, pos: record.pos }).collect()
        };
        let (former, recent) = commands.split_at(commands.partition_point(|record| record.pos < since));
        let last = commands.last().filter(|record| record.pos > outbox.pos);
        Some(Device {
            key,
            name: name.clone(),
            incarnation: *incarnation,
            applied: last.map_or(CommandSeq(0), |record| record.body.origin().unwrap().cseq),
            recent: newest(recent),
            since,
            former: newest(former),
            cursor: self.cursors.get(&key).copied().unwrap_or_default(),
        })
    }

    /// Runs an operation on a transaction, and notes what it appended.
    fn run(&mut self, transaction: &mut dyn Transaction, op: &Op) {
        self.nonce += 1;
        let mut user = |model: &mut Self, name: u8| {
            let id = user_id(u32::from(name));
            let user = transaction.user(&id).unwrap();
            if user.0 as usize > model.users.len() {
                model.users.push(id);
            }
            user
        };
        let nonce = Nonce(self.nonce.to_be_bytes());
        let time = Time(1000 + (self.nonce * 7) % 50);
        let conversations = self.conversations();
        let pick = |conversation: u8, member: u8| {
            let (id, _, members) = conversations.get(usize::from(conversation) % conversations.len().max(1))?;
            Some((*id, members.clone(), members[usize::from(member) % members.len()]))
        };
        let command = |model: &Self, key: DeviceKey| {
            let device = model.device(key)?;
            Some(Origin { device: key, incarnation: device.incarnation, cseq: device.applied.next(), nonce })
        };
        let (body, recipients) = match op {
            Op::Outbox { user: name, slot } => {
                let device = DeviceKey { user: user(self, *name), slot: *slot };
                let incarnation = Incarnation(self.device(device).map_or(0, |device| device.incarnation.0) + 1 + u64::from(*name));
                // Half of them by the device that has the slot, the others by one that takes its place.
                let name = self.device(device).filter(|_| self.nonce.is_multiple_of(2)).map(|device| device.name);
                let name = name.unwrap_or_else(|| DeviceId::new(&format!("d{}", self.nonce)).unwrap());
                (RecordBody::Outbox { device, name, incarnation }, vec![])
            }
            Op::Start { members } => {
                let members: Vec<_> = members.iter().map(|name| user(self, *name)).collect();
                let is_direct = members.len() <= 2;
                if is_direct && transaction.direct(members[0], members[members.len() - 1]).unwrap().is_some() {
                    return;
                }
                let kind = if is_direct { ConversationKind::Direct } else { ConversationKind::Other(9) };
                (RecordBody::Started { conversation: transaction.next_conversation().unwrap(), kind, members: members.clone() }, members)
            }
            Op::Send { conversation, member, slot, length, skip } => {
                let Some((id, mut members, from)) = pick(*conversation, *member) else { return };
                let Some(origin) = command(self, DeviceKey { user: from, slot: *slot }) else { return };
                if usize::from(*skip) < members.len() {
                    members.remove(usize::from(*skip));
                }
                let seq = self.conversation(id).unwrap().head.next();
                (RecordBody::Message { conversation: id, seq, origin, content: text(&"x".repeat(usize::from(*length))) }, members)
            }
            Op::Receipt { conversation, member, delivered, read, slot } => {
                let Some((id, members, user)) = pick(*conversation, *member) else { return };
                let origin = slot.and_then(|slot| command(self, DeviceKey { user, slot }));
                let (delivered, read) = (ConversationSeq(u64::from(*delivered)), ConversationSeq(u64::from(*read)));
                (RecordBody::Receipt { conversation: id, user, delivered, read, origin }, members)
            }
            Op::Reject { user: name, slot } => {
                let user = user(self, *name);
                let Some(origin) = command(self, DeviceKey { user, slot: *slot }) else { return };
                (RecordBody::Rejected { origin, code: ErrorCode::NotFound, message: "no".to_owned() }, vec![user])
            }
            Op::Repeat { user: name, slot } => {
                let user = user(self, *name);
                let Some(origin) = command(self, DeviceKey { user, slot: *slot }) else { return };
                (RecordBody::Repeat { origin, message: None }, vec![user])
            }
            Op::Wrong { conversation, member } => {
                let Some((id, members, from)) = pick(*conversation, *member) else { return };
                let Some(origin) = command(self, DeviceKey { user: from, slot: 0 }) else { return };
                let seq = self.conversation(id).unwrap().head;
                let body = RecordBody::Message { conversation: id, seq, origin, content: text("wrong") };
                assert!(matches!(transaction.append(time, body, &members), Err(StoreError::Refused(_))));
                return;
            }
        };
        let record = transaction.append(time, body.clone(), &recipients).unwrap();
        let expected: Vec<_> = recipients.iter().map(|user| (*user, MailboxSeq(self.mailbox(*user).len() as u64 + 1))).collect();
        assert_eq!((&record.body, record.time, &record.recipients), (&body, time, &expected));
        assert!(self.records.last().is_none_or(|last| last.pos < record.pos));
        self.records.push(record.clone());
        assert_eq!(transaction.record(record.pos).unwrap(), record);
        if let Some(key) = fold::device_of(&record.body) {
            assert_eq!(transaction.device(key).unwrap().as_deref(), self.device(key).as_ref());
        }
        if let Some(id) = fold::conversation_of(&record.body) {
            assert_eq!(transaction.conversation(id).unwrap().as_deref(), self.conversation(id).as_ref());
        }
    }

    /// Compares everything that a store can be asked with the records.
    fn compare(&self, store: &impl Store) {
        let mut devices = Vec::new();
        for (number, id) in (1..).zip(&self.users) {
            let user = UserNo(number);
            assert_eq!(store.user(id).unwrap(), Some(user));
            assert_eq!(store.user_id(user).unwrap(), *id);
            let records = self.mailbox(user);
            let floor = self.floors.get(&user).copied().unwrap_or(0);
            assert_eq!(store.mailbox(user).unwrap(), MailboxBounds { floor: MailboxSeq(floor), head: MailboxSeq(records.len() as u64) });
            let expected: Vec<_> = (1..).zip(records).skip(floor as usize).collect();
            for (after, limit) in [(0, usize::MAX), (floor + 3, 4), (floor.saturating_sub(1), 2), (expected.len() as u64 / 2 + floor, 50)] {
                let page = store.mailbox_entries(user, MailboxSeq(after), limit, usize::MAX).unwrap();
                let page: Vec<_> = page.into_iter().map(|entry| (entry.seq.0, entry.record)).collect();
                let expected: Vec<_> = expected.iter().filter(|(seq, _)| *seq > after).take(limit).cloned().collect();
                assert_eq!(page, expected);
                if let Some(recent) = store.recent_entries(user, MailboxSeq(after), limit, usize::MAX) {
                    assert_eq!(recent.into_iter().map(|entry| (entry.seq.0, entry.record)).collect::<Vec<_>>(), expected);
                }
            }
            let of_user: Vec<_> =
                self.conversations().into_iter().filter(|(.., members)| members.contains(&user)).map(|(id, ..)| id).collect();
            let found: Vec<_> = store.conversations_of(user, ConversationId(0), 99).unwrap().into_iter().map(|found| found.id).collect();
            assert_eq!(found, of_user);
            devices.extend((0..3).map(|slot| self.device(DeviceKey { user, slot })));
        }
        let mut found = Vec::new();
        commit(store, |transaction| {
            for number in 1..=self.users.len() as u32 {
                found.extend(
                    (0..3).map(|slot| transaction.device(DeviceKey { user: UserNo(number), slot }).unwrap().map(Arc::unwrap_or_clone)),
                );
            }
        });
        assert_eq!(found, devices);
        for (id, kind, members) in self.conversations() {
            assert_eq!(store.conversation(id).unwrap(), self.conversation(id));
            let messages = self.messages(id);
            let page =
                |from: u64, direction, limit| store.conversation_entries(id, ConversationSeq(from), direction, limit, usize::MAX).unwrap();
            assert_eq!(page(0, Direction::Forwards, usize::MAX), messages);
            assert_eq!(page(0, Direction::Backwards, usize::MAX), messages);
            let half = messages.len() / 2;
            assert_eq!(page(half as u64, Direction::Forwards, usize::MAX), messages[half..]);
            assert_eq!(page(half as u64 + 1, Direction::Backwards, 3), messages[half.saturating_sub(3)..half]);
            if let Some((one, other)) = fold::direct_pair(kind, &members) {
                assert_eq!(store.direct(other, one).unwrap(), Some(id));
            }
        }
    }
}

/// Random transactions, flushes, trims and restarts: the store answers as the model does.
pub(in super::super) fn random_histories<G: Ground>() {
    let config = ProptestConfig { cases: 48, max_shrink_iters: 200, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(steps in prop::collection::vec(step(), 1..40))| {
        let (ground, mut store) = G::new(true);
        let mut model = Model::default();
        for step in steps {
            match step {
                Step::Transaction { ops, fails } => {
                    let mut after = model.clone();
                    let done = store.transact(&mut |transaction| {
                        for op in &ops {
                            after.run(transaction, op);
                        }
                        if fails { Err(StoreError::Refused(String::new())) } else { Ok(()) }
                    });
                    prop_assert_eq!(done.is_err(), fails);
                    if fails {
                        model.nonce = after.nonce;
                    } else {
                        model = after;
                    }
                }
                Step::Cursor(user, cursor) => {
                    let key = DeviceKey { user: UserNo(u32::from(user) + 1), slot: 0 };
                    let cursor = MailboxSeq(u64::from(cursor));
                    store.save_cursors(&[(key, cursor)]).unwrap();
                    if model.device(key).is_some() {
                        let noted = model.cursors.entry(key).or_default();
                        *noted = cursor.max(*noted);
                    }
                }
                Step::Flush => store.flush().unwrap(),
                Step::Reopen => {
                    // Cursors may become durable later: here they do now, so that the model need not guess.
                    if !model.cursors.is_empty() {
                        store.flush().unwrap();
                    }
                    store = ground.reopen(store);
                }
                Step::Trim(keep) => {
                    let keep = Retention { entries: u64::from(keep), age: Duration::from_secs(1_000_000) };
                    let removed = store.trim(keep, Time(2000)).unwrap();
                    let mut expected = 0;
                    for user in (1..=model.users.len() as u32).map(UserNo) {
                        let (bounds, was) = (store.mailbox(user).unwrap(), model.floors.get(&user).copied().unwrap_or(0));
                        prop_assert!(bounds.floor.0 >= was && bounds.floor.0 <= was.max(bounds.head.0.saturating_sub(keep.entries)));
                        expected += bounds.floor.0 - was;
                        model.floors.insert(user, bounds.floor.0);
                    }
                    prop_assert_eq!(removed, expected);
                }
            }
            model.compare(&store);
        }
    });
}
