//! The store on disk: SQLite, each commit flushed to the disk before it counts.

use super::{Device, Loaded, LocalConversation, LocalMessage, MESSAGES_KEPT, OutboxRow, StateError, Store, Told, Waiting};
mod rows;

use rows::{count, damaged, disagreement, disagreement_numbers, failed, int, list, outbox_row, reset_number, user, whose};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OptionalExtension, params};
use std::fs::{DirBuilder, File, TryLockError};
use std::path::Path;
use whimbrel_protocol::codec::Form;
use whimbrel_protocol::frame::{
    Command, CommandBody, Content, ContentKind, ConversationKind, Event, EventBody, MemberState, Message, Position, ResetReason, Snapshot,
};
use whimbrel_protocol::{
    CommandSeq, ConversationId, ConversationSeq, DeviceId, Disagreement, Incarnation, LogEpoch, MailboxSeq, Nonce, OutboxState, Time,
    UserId,
};

mod migrations {
    refinery::embed_migrations!("src/state/migrations");
}

/// Commands whose outcome will not be told, in the order in which that turned out.
const UNTOLD: &str = "SELECT *, 1 AS applied FROM untold ORDER BY rowid";

/// A device's state in a folder that one process holds at a time.
pub(crate) struct SqliteStore {
    db: Connection,
    /// Let go of when the store is dropped, or the process dies.
    _lock: File,
    /// When the process "dies", as the test has it.
    #[cfg(test)]
    pub death: Option<super::Death>,
}

impl SqliteStore {
    /// Opens the folder, or makes it. `device` is used where the folder does not say yet whose it is; `user` (and `device`, if it was
    /// asked for) must be the ones that it says.
    pub fn open(folder: &Path, user: &UserId, wanted: Option<&DeviceId>, fresh: &DeviceId) -> Result<(Self, Device), StateError> {
        let cannot = |reason: String| StateError::Open { folder: folder.into(), reason };
        let mut builder = DirBuilder::new();
        // What people say is in it: nobody else on the machine can look into it.
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.recursive(true).create(folder).map_err(|why| cannot(why.to_string()))?;
        let lock = File::create(folder.join("lock")).map_err(|why| cannot(why.to_string()))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(StateError::Locked { folder: folder.into() }),
            Err(TryLockError::Error(why)) => return Err(cannot(why.to_string())),
        }
        let mut db = Connection::open(folder.join("device.db")).map_err(|why| cannot(why.to_string()))?;
        // FULL: a commit that returned survives a power cut. That is what "stored" means here.
        db.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA journal_size_limit = 4194304;")
            .map_err(|why| cannot(why.to_string()))?;
        // Otherwise a statement with a bound `LIMIT` is planned anew for each value.
        db.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map_err(|why| cannot(why.to_string()))?;
        migrations::migrations::runner().run(&mut db).map_err(|why| cannot(why.to_string()))?;
        db.set_prepared_statement_cache_capacity(64);
        let device = whose(&db, user, wanted, fresh)?;
        let store = Self {
            db,
            _lock: lock,
            #[cfg(test)]
            death: None,
        };
        Ok((store, device))
    }

    fn delete_rows(&self, nonces: &[Nonce]) -> Result<(), StateError> {
        let mut delete = self.db.prepare_cached("DELETE FROM outbox WHERE nonce = ?")?;
        for nonce in nonces {
            delete.execute([nonce.0])?;
        }
        Ok(())
    }

    fn set_untold(&self, nonces: &[Nonce]) -> Result<(), StateError> {
        let mut keep = self.db.prepare_cached(
            "INSERT INTO untold (nonce, incarnation, cseq, command) SELECT nonce, incarnation, cseq, command FROM outbox WHERE nonce = ?",
        )?;
        for nonce in nonces {
            keep.execute([nonce.0])?;
        }
        self.delete_rows(nonces)
    }

    fn disagreements(&self) -> Result<Vec<Disagreement>, StateError> {
        let mut select = self.db.prepare_cached("SELECT kind, server, ours FROM disagreements ORDER BY kind")?;
        let rows = select.query_map([], |row| Ok(disagreement(row.get(0)?, row.get(1)?, row.get(2)?)))?;
        rows.map(|row| row?).collect()
    }

    fn save_outbox(&self, state: OutboxState) -> Result<(), StateError> {
        let mut update = self.db.prepare_cached("UPDATE device SET incarnation = ?, applied = ?, applied_nonce = ?")?;
        update.execute(params![int(state.incarnation.0), int(state.applied.0), state.applied_nonce.0])?;
        Ok(())
    }

    fn save_position(&self, position: Position) -> Result<(), StateError> {
        let mut update = self.db.prepare_cached("UPDATE device SET epoch = ?, cursor = ?, time = ?")?;
        update.execute([int(position.epoch.0), int(position.cursor.0), int(position.time.0)])?;
        Ok(())
    }

    fn save_reset(&self, reset: Option<ResetReason>) -> Result<(), StateError> {
        if let Some(reset) = reset {
            self.db.prepare_cached("UPDATE device SET reset = MAX(IFNULL(reset, 0), ?)")?.execute([reset_number(reset)])?;
        }
        Ok(())
    }

    fn forget_log(&self) -> Result<(), StateError> {
        Ok(self.db.execute_batch("DELETE FROM messages; DELETE FROM members; DELETE FROM conversations;")?)
    }

    fn add_message(
        &self,
        id: ConversationId,
        seq: ConversationSeq,
        from: &str,
        time: Time,
        content: &Content,
        touched: &mut Vec<ConversationId>,
    ) -> Result<(), StateError> {
        let mut insert = self.db.prepare_cached(
            "INSERT INTO messages (conversation, seq, sender, time, kind, text, extensions) VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        )?;
        let extensions =
            if content.extensions.is_empty() { Vec::new() } else { Form::Postcard.encode(&content.extensions).map_err(failed)? };
        insert.execute(params![int(id.0), int(seq.0), from, int(time.0), content.kind.to_number(), content.text, extensions])?;
        if !touched.contains(&id) {
            touched.push(id);
        }
        self.raise_head(id, seq)
    }

    fn raise_head(&self, id: ConversationId, head: ConversationSeq) -> Result<(), StateError> {
        let mut raise = self.db.prepare_cached("UPDATE conversations SET head = MAX(head, ?) WHERE id = ?")?;
        raise.execute([int(head.0), int(id.0)])?;
        Ok(())
    }

    fn add_conversation(&self, id: ConversationId, kind: ConversationKind) -> Result<(), StateError> {
        let mut insert = self.db.prepare_cached("INSERT INTO conversations (id, kind, head) VALUES (?, ?, 0) ON CONFLICT DO NOTHING")?;
        insert.execute(params![int(id.0), kind.to_number()])?;
        Ok(())
    }

    fn raise_member(&self, id: ConversationId, member: &MemberState) -> Result<(), StateError> {
        let mut raise = self.db.prepare_cached(
            "INSERT INTO members (conversation, user, delivered, read) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO UPDATE
             SET delivered = MAX(delivered, ?3), read = MAX(read, ?4)",
        )?;
        raise.execute(params![int(id.0), member.user.as_str(), int(member.delivered.0), int(member.read.0)])?;
        Ok(())
    }

    fn trim(&self, touched: &[ConversationId]) -> Result<(), StateError> {
        let mut trim = self.db.prepare_cached(
            "DELETE FROM messages WHERE conversation = ?1
             AND seq <= (SELECT seq FROM messages WHERE conversation = ?1 ORDER BY seq DESC LIMIT 1 OFFSET ?2)",
        )?;
        for id in touched {
            trim.execute([int(id.0), count(MESSAGES_KEPT)])?;
        }
        Ok(())
    }

    fn take_one(&self, me: &UserId, event: &Event, touched: &mut Vec<ConversationId>) -> Result<(), StateError> {
        match &event.body {
            EventBody::Started(started) => {
                self.add_conversation(started.conversation, started.kind)?;
                for user in &started.members {
                    let state = MemberState { user: user.clone(), delivered: ConversationSeq(0), read: ConversationSeq(0) };
                    self.raise_member(started.conversation, &state)?;
                }
            }
            EventBody::Message(Message { conversation, seq, from, content }) => {
                self.add_conversation(*conversation, ConversationKind::Direct)?;
                let from = from.as_ref().map_or("", UserId::as_str);
                self.add_message(*conversation, *seq, from, event.time, content, touched)?;
            }
            EventBody::Sent(sent) => {
                self.add_conversation(sent.conversation, ConversationKind::Direct)?;
                let command = self.remove_row(sent.incarnation, sent.cseq)?;
                if let Some(CommandBody::Send(send)) = command.map(|command| command.body) {
                    self.add_message(sent.conversation, sent.seq, me.as_str(), event.time, &send.content, touched)?;
                }
            }
            EventBody::Rejected(rejected) => drop(self.remove_row(rejected.incarnation, rejected.cseq)?),
            EventBody::Receipt(receipt) => {
                if let Some(user) = receipt.user.clone() {
                    let state = MemberState { user, delivered: receipt.delivered, read: receipt.read };
                    self.raise_member(receipt.conversation, &state)?;
                }
            }
            EventBody::Skip(_) | EventBody::Unknown(_) => {}
        }
        Ok(())
    }

    fn remove_row(&self, incarnation: Incarnation, cseq: CommandSeq) -> Result<Option<Command>, StateError> {
        let mut delete = self.db.prepare_cached("DELETE FROM outbox WHERE incarnation = ? AND cseq = ? RETURNING *")?;
        let row = delete.query_row([int(incarnation.0), int(cseq.0)], |row| Ok(outbox_row(row))).optional()?;
        Ok(row.transpose()?.map(|row| row.command))
    }

    fn rows(&self, sql: &str) -> Result<Vec<OutboxRow>, StateError> {
        let mut select = self.db.prepare_cached(sql)?;
        let rows = select.query_map([], |row| Ok(outbox_row(row)))?;
        rows.map(|row| row?).collect()
    }

    fn members(&self, id: ConversationId) -> Result<Vec<MemberState>, StateError> {
        let mut select = self.db.prepare_cached("SELECT user, delivered, read FROM members WHERE conversation = ? ORDER BY user")?;
        let rows = select.query_map([int(id.0)], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        let mut members = Vec::new();
        for row in rows {
            let (name, delivered, read): (String, i64, i64) = row?;
            members.push(MemberState {
                user: user(&name)?,
                delivered: ConversationSeq(delivered.cast_unsigned()),
                read: ConversationSeq(read.cast_unsigned()),
            });
        }
        Ok(members)
    }
}

impl Store for SqliteStore {
    fn load(&mut self) -> Result<Loaded, StateError> {
        self.db.execute_batch("DELETE FROM staged")?;
        let (outbox, position, reset) =
            self.db.query_row("SELECT incarnation, applied, applied_nonce, epoch, cursor, time, reset FROM device", [], |row| {
                let outbox = OutboxState {
                    incarnation: Incarnation(row.get::<_, i64>(0)?.cast_unsigned()),
                    applied: CommandSeq(row.get::<_, i64>(1)?.cast_unsigned()),
                    applied_nonce: Nonce(row.get(2)?),
                };
                let position = match (row.get::<_, Option<i64>>(3)?, row.get::<_, Option<i64>>(4)?, row.get::<_, Option<i64>>(5)?) {
                    (Some(epoch), Some(cursor), Some(time)) => Some(Position {
                        epoch: LogEpoch(epoch.cast_unsigned()),
                        cursor: MailboxSeq(cursor.cast_unsigned()),
                        time: Time(time.cast_unsigned()),
                    }),
                    _ => None,
                };
                Ok((outbox, position, row.get::<_, Option<i64>>(6)?))
            })?;
        let reset = reset.map(rows::reset).transpose()?;
        let pending = self.rows("SELECT * FROM outbox WHERE applied = 0 ORDER BY cseq")?;
        let awaiting = self.rows("SELECT * FROM outbox WHERE applied = 1 ORDER BY incarnation, cseq")?;
        let untold = self.rows(UNTOLD)?.into_iter().map(|row| row.command).collect();
        let disagreements = self.disagreements()?;
        let mut directory = Vec::new();
        for conversation in list(&self.db)? {
            let members = self.members(conversation.0)?.into_iter().map(|member| member.user).collect();
            directory.push((conversation.0, conversation.1, members));
        }
        let pending = pending.into_iter().map(|row| row.command).collect();
        Ok(Loaded { outbox, pending, awaiting, position, reset, untold, disagreements, directory })
    }

    fn enqueue(&mut self, commands: &[Command]) -> Result<(), StateError> {
        let mut insert =
            self.db.prepare_cached("INSERT INTO outbox (nonce, incarnation, cseq, applied, command) VALUES (?, ?, ?, 0, ?)")?;
        for command in commands {
            let bytes = Form::Postcard.encode(command).map_err(failed)?;
            insert.execute(params![command.nonce.0, int(command.incarnation.0), int(command.cseq.0), bytes])?;
        }
        Ok(())
    }

    fn applied(&mut self, state: OutboxState) -> Result<(), StateError> {
        self.save_outbox(state)?;
        let mut mark =
            self.db.prepare_cached("UPDATE outbox SET applied = 1 WHERE incarnation = ? AND cseq <= ? AND applied = 0 RETURNING *")?;
        let rows = mark.query_map([int(state.incarnation.0), int(state.applied.0)], |row| Ok(outbox_row(row)))?;
        let mut forget = Vec::new();
        for row in rows {
            let command = row??.command;
            if !matches!(command.body, CommandBody::Send(_)) {
                forget.push(command.nonce);
            }
        }
        self.delete_rows(&forget)
    }

    fn renumber(&mut self, state: OutboxState, numbers: &[(Nonce, CommandSeq)]) -> Result<(), StateError> {
        self.save_outbox(state)?;
        // By way of negative numbers: on the way none may meet another under its old number.
        let mut update = self.db.prepare_cached("UPDATE outbox SET incarnation = ?, cseq = -?, applied = 0 WHERE nonce = ?")?;
        for (nonce, cseq) in numbers {
            update.execute(params![int(state.incarnation.0), int(cseq.0), nonce.0])?;
        }
        self.db.prepare_cached("UPDATE outbox SET cseq = -cseq WHERE cseq < 0")?.execute([])?;
        Ok(())
    }

    fn disagree(&mut self, state: OutboxState, again: &[Nonce], untold: &[Nonce], why: Disagreement) -> Result<(), StateError> {
        self.save_outbox(state)?;
        self.set_untold(untold)?;
        let mut remember = self.db.prepare_cached("INSERT OR REPLACE INTO disagreements (kind, server, ours) VALUES (?, ?, ?)")?;
        remember.execute(disagreement_numbers(why))?;
        let mut update = self.db.prepare_cached("UPDATE outbox SET applied = 0 WHERE nonce = ?")?;
        for nonce in again {
            update.execute([nonce.0])?;
        }
        Ok(())
    }

    fn take(&mut self, me: &UserId, events: &[Event], position: Position, outbox: OutboxState) -> Result<(), StateError> {
        self.applied(outbox)?;
        let mut touched = Vec::new();
        for event in events {
            self.take_one(me, event, &mut touched)?;
        }
        self.trim(&touched)?;
        self.save_position(position)
    }

    fn restart(&mut self, position: Position, reset: Option<ResetReason>, untold: &[Nonce]) -> Result<(), StateError> {
        if reset == Some(ResetReason::OtherLog) {
            self.forget_log()?;
        }
        self.set_untold(untold)?;
        self.save_reset(reset)?;
        self.save_position(position)
    }

    fn give_up(&mut self, untold: &[Nonce]) -> Result<(), StateError> {
        self.set_untold(untold)
    }

    fn stage(&mut self, page: &Snapshot, first: bool) -> Result<(), StateError> {
        if first {
            self.db.execute_batch("DELETE FROM staged")?;
        }
        // The form with the larger limit: a page fits whichever way it came.
        let bytes = Form::Json.encode(page).map_err(failed)?;
        self.db.prepare_cached("INSERT INTO staged (body) VALUES (?)")?.execute([bytes])?;
        Ok(())
    }

    fn apply_snapshot(&mut self, position: Position, reset: Option<ResetReason>, untold: &[Nonce]) -> Result<(), StateError> {
        if reset == Some(ResetReason::OtherLog) {
            self.forget_log()?;
        }
        let mut touched = Vec::new();
        let mut pages = self.db.prepare_cached("SELECT body FROM staged ORDER BY page")?;
        let pages = pages.query_map([], |row| row.get::<_, Vec<u8>>(0))?;
        for page in pages {
            let page: Snapshot = Form::Json.decode(&page?).map_err(damaged)?;
            for state in &page.conversations {
                let id = state.conversation;
                self.add_conversation(id, state.kind)?;
                self.raise_head(id, state.head)?;
                for member in &state.members {
                    self.raise_member(id, member)?;
                }
                for message in &state.messages {
                    self.add_message(id, message.seq, message.from.as_str(), message.time, &message.content, &mut touched)?;
                }
            }
        }
        self.trim(&touched)?;
        self.db.execute_batch("DELETE FROM staged")?;
        self.set_untold(untold)?;
        self.save_reset(reset)?;
        self.save_position(position)
    }

    fn told(&mut self, told: &Told) -> Result<(), StateError> {
        if told.reset {
            self.db.prepare_cached("UPDATE device SET reset = NULL")?.execute([])?;
        }
        let mut forget = self.db.prepare_cached("DELETE FROM untold WHERE nonce = ?")?;
        for nonce in &told.untold {
            forget.execute([nonce.0])?;
        }
        let mut forget = self.db.prepare_cached("DELETE FROM disagreements WHERE kind = ? AND server = ? AND ours = ?")?;
        for why in &told.disagreements {
            forget.execute(disagreement_numbers(*why))?;
        }
        Ok(())
    }

    fn conversations(&mut self) -> Result<Vec<LocalConversation>, StateError> {
        let mut all = Vec::new();
        for (id, kind, head) in list(&self.db)? {
            let last = self.messages(id, None, 1)?.pop();
            all.push(LocalConversation { id, kind, members: self.members(id)?, head, last });
        }
        all.sort_by_key(|conversation| std::cmp::Reverse(conversation.last.as_ref().map(|message| message.time)));
        Ok(all)
    }

    fn messages(&mut self, id: ConversationId, before: Option<ConversationSeq>, limit: usize) -> Result<Vec<LocalMessage>, StateError> {
        let mut select = self.db.prepare_cached(
            "SELECT seq, sender, time, kind, text, extensions FROM messages WHERE conversation = ? AND seq < ? ORDER BY seq DESC LIMIT ?",
        )?;
        let before = before.map_or(i64::MAX, |seq| int(seq.0));
        let rows = select.query_map([int(id.0), before, count(limit)], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, ContentKind::from_number(row.get(3)?), row.get(4)?, row.get(5)?))
        })?;
        let mut messages = Vec::new();
        for row in rows {
            let (seq, sender, time, kind, text, extensions): (i64, String, i64, ContentKind, String, Vec<u8>) = row?;
            // The empty name is nobody's: it stands for a writer who is not known.
            let from = if sender.is_empty() { None } else { Some(user(&sender)?) };
            let extensions = if extensions.is_empty() { Vec::new() } else { Form::Postcard.decode(&extensions).map_err(damaged)? };
            let content = Content { kind, text, extensions };
            messages.push(LocalMessage {
                conversation: id,
                seq: ConversationSeq(seq.cast_unsigned()),
                from,
                time: Time(time.cast_unsigned()),
                content,
            });
        }
        messages.reverse();
        Ok(messages)
    }

    fn waiting(&mut self) -> Result<Vec<Waiting>, StateError> {
        let mut rows = self.rows(UNTOLD)?;
        rows.extend(self.rows("SELECT * FROM outbox ORDER BY applied DESC, incarnation, cseq")?);
        let waiting = |row: OutboxRow| Waiting { nonce: row.command.nonce, body: row.command.body, applied: row.applied };
        Ok(rows.into_iter().map(waiting).collect())
    }

    fn note(&mut self, key: &str) -> Result<Option<String>, StateError> {
        Ok(self.db.prepare_cached("SELECT value FROM notes WHERE key = ?")?.query_row([key], |row| row.get(0)).optional()?)
    }

    fn set_note(&mut self, key: &str, value: &str) -> Result<(), StateError> {
        self.db.prepare_cached("INSERT OR REPLACE INTO notes (key, value) VALUES (?, ?)")?.execute([key, value])?;
        Ok(())
    }

    fn begin(&mut self) -> Result<(), StateError> {
        #[cfg(test)]
        super::Death::check(self.death.as_ref())?;
        Ok(self.db.execute_batch("BEGIN")?)
    }

    fn savepoint(&mut self) -> Result<(), StateError> {
        Ok(self.db.execute_batch("SAVEPOINT one")?)
    }

    fn end_savepoint(&mut self, keep: bool) -> Result<(), StateError> {
        Ok(self.db.execute_batch(if keep { "RELEASE one" } else { "ROLLBACK TO one; RELEASE one" })?)
    }

    fn commit(&mut self) -> Result<(), StateError> {
        #[cfg(test)]
        super::Death::before_commit(self.death.as_ref())?;
        self.db.execute_batch("COMMIT")?;
        #[cfg(test)]
        super::Death::after_commit(self.death.as_ref())?;
        Ok(())
    }

    fn rollback(&mut self) {
        // Fails where SQLite rolled back by itself: then there is nothing to do.
        let _ = self.db.execute_batch("ROLLBACK");
    }
}
