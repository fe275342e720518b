//! What clients of QUIC resume with: one-time tickets, kept over restarts, so that a phone that comes back needs fewer round trips,
//! and may send its first words in its first packet.
//!
//! A ticket is good once, because [`take`](StoresServerSessions::take) removes it: that is what keeps early data from being played twice.
//! Handshakes run on async threads, so they see memory only; a thread of its own writes to the file behind them. What a crash keeps from
//! the file costs a client a round trip (a new ticket), or lets a ticket be used a second time (a taken one); for the latter sessions have
//! rules of their own. The file holds secrets, and lies with the keys.

use rusqlite::Connection;
use rustls::server::StoresServerSessions;
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

/// Tickets that are remembered: two for each connection, some 300 bytes each. The oldest go first.
pub const TICKETS_MAX: usize = 65_536;
/// The longest state of a ticket, in bytes. Ours are a fraction of it.
pub const TICKET_BYTES_MAX: usize = 4096;
/// How long one is good for; rustls tells clients the same.
const LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);
/// How long changes are gathered before they are written: a transaction for each would cost more than the handshakes it saves.
const GATHER: Duration = Duration::from_millis(50);
/// Changes that wait to be written; what does not fit is not written.
const CHANGES_MAX: usize = 8192;

/// The tickets that were given out and not used.
pub struct Tickets {
    known: Mutex<Known>,
    most: usize,
    /// `None` where they are good for this run only.
    writer: Mutex<Option<Writer>>,
}

/// The thread that writes them to the file.
struct Writer {
    changes: SyncSender<Change>,
    thread: JoinHandle<()>,
}

#[derive(Default)]
struct Known {
    sessions: HashMap<Vec<u8>, Arc<Ticket>>,
    /// In the order in which they came; also those that were taken meanwhile.
    order: VecDeque<(Vec<u8>, u64)>,
    /// The number of the last one.
    last: i64,
}

struct Ticket {
    /// Its place in the file, where the newest are last: keys are random, and a row for each somewhere else would rewrite the whole file.
    number: i64,
    state: Vec<u8>,
    /// When it was given out, in seconds since 1970.
    time: u64,
}

enum Change {
    Put(Vec<u8>, Arc<Ticket>),
    Gone(i64),
}

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tickets").field("most", &self.most).finish_non_exhaustive()
    }
}

fn seconds() -> u64 {
    SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs())
}

impl Tickets {
    /// Opens the file, or makes it. Where that cannot be, they are good for this run only, and the log says so. Blocks for a moment.
    pub fn open(path: &Path) -> Self {
        Self::with(path, TICKETS_MAX, seconds())
    }

    fn with(path: &Path, most: usize, now: u64) -> Self {
        let opened = load(path, most, now).or_else(|_| {
            // Nothing in it is worth more than a round trip: a damaged one is made anew.
            let _ = std::fs::remove_file(path);
            load(path, most, now)
        });
        let started = opened.map_err(|why| why.to_string()).and_then(|(connection, known)| {
            let (sender, changes) = sync_channel(CHANGES_MAX);
            let thread = std::thread::Builder::new().name("tickets".into());
            let thread = thread.spawn(move || write(connection, &changes)).map_err(|why| why.to_string())?;
            Ok((known, Writer { changes: sender, thread }))
        });
        match started {
            Ok((known, writer)) => Self { known: Mutex::new(known), most, writer: Mutex::new(Some(writer)) },
            Err(why) => {
                tracing::warn!(path = %path.display(), why, "after a restart every QUIC client does the whole handshake");
                Self { known: Mutex::default(), most, writer: Mutex::default() }
            }
        }
    }

    fn change(&self, change: Change) {
        // What does not fit, or has nowhere to go, is as good as lost in a crash.
        if let Some(writer) = &*self.writer() {
            let _ = writer.changes.try_send(change);
        }
    }

    fn writer(&self) -> std::sync::MutexGuard<'_, Option<Writer>> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes what is not written; what changes from now on is not. Blocks until that is done.
    pub fn close(&self) {
        let Some(Writer { changes, thread }) = self.writer().take() else { return };
        drop(changes);
        if thread.join().is_err() {
            tracing::warn!("the thread that writes tickets had panicked");
        }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Tickets {
    fn drop(&mut self) {
        self.close();
    }
}

impl StoresServerSessions for Tickets {
    fn put(&self, key: Vec<u8>, value: Vec<u8>) -> bool {
        if value.len() > TICKET_BYTES_MAX {
            return false;
        }
        let mut gone = Vec::new();
        let mut known = self.known();
        known.last += 1;
        let ticket = Arc::new(Ticket { number: known.last, state: value, time: seconds() });
        known.order.push_back((key.clone(), ticket.time));
        known.sessions.insert(key.clone(), ticket.clone());
        // The order also has those that were taken: it is cut at the same length, so neither grows beyond it.
        while known.order.len() > self.most {
            let Some((oldest, _)) = known.order.pop_front() else { break };
            gone.extend(known.sessions.remove(&oldest).map(|ticket| ticket.number));
        }
        drop(known);
        self.change(Change::Put(key, ticket));
        gone.into_iter().for_each(|number| self.change(Change::Gone(number)));
        true
    }

    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        let ticket = self.known().sessions.get(key).cloned()?;
        ticket.is_good(seconds()).then(|| ticket.state.clone())
    }

    fn take(&self, key: &[u8]) -> Option<Vec<u8>> {
        let ticket = self.known().sessions.remove(key)?;
        self.change(Change::Gone(ticket.number));
        ticket.is_good(seconds()).then(|| ticket.state.clone())
    }

    fn can_cache(&self) -> bool {
        true
    }
}

impl Ticket {
    fn is_good(&self, now: u64) -> bool {
        now.saturating_sub(self.time) < LIFETIME.as_secs()
    }
}

/// Opens the file, and reads the tickets that are still good, the newest `most` of them.
fn load(path: &Path, most: usize, now: u64) -> rusqlite::Result<(Connection, Known)> {
    if let Err(why) = super::files::create_private(path) {
        tracing::debug!(path = %path.display(), %why, "the file for tickets cannot be made");
    }
    let connection = Connection::open(path)?;
    // Nothing here is worth waiting for the disk.
    connection.execute_batch(
        "PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF; PRAGMA journal_size_limit=1048576;
         CREATE TABLE IF NOT EXISTS ticket (number INTEGER PRIMARY KEY, id BLOB NOT NULL, state BLOB NOT NULL, time INTEGER NOT NULL) STRICT;",
    )?;
    connection.execute("DELETE FROM ticket WHERE time <= ?1", [now.saturating_sub(LIFETIME.as_secs()) as i64])?;
    let (mut known, mut oldest) = (Known::default(), 0);
    {
        let mut read = connection.prepare("SELECT number, id, state, time FROM ticket ORDER BY number DESC LIMIT ?1")?;
        let mut rows = read.query([i64::try_from(most).unwrap_or(i64::MAX)])?;
        while let Some(row) = rows.next()? {
            let (number, key, time) = (row.get(0)?, row.get::<_, Vec<u8>>(1)?, row.get::<_, i64>(3)? as u64);
            (oldest, known.last) = (number, known.last.max(number));
            known.order.push_front((key.clone(), time));
            known.sessions.insert(key, Arc::new(Ticket { number, state: row.get(2)?, time }));
        }
    }
    connection.execute("DELETE FROM ticket WHERE number < ?1", [oldest])?;
    Ok((connection, known))
}

/// Writes what changes, all that came within a moment in one transaction, until nobody can change anything any more.
fn write(mut connection: Connection, changes: &Receiver<Change>) {
    while let Ok(first) = changes.recv() {
        std::thread::sleep(GATHER);
        let transaction = |connection: &mut Connection| {
            let transaction = connection.transaction()?;
            for change in std::iter::once(first).chain(changes.try_iter().take(CHANGES_MAX)) {
                match change {
                    Change::Put(key, ticket) => transaction
                        .prepare_cached("INSERT OR REPLACE INTO ticket (number, id, state, time) VALUES (?1, ?2, ?3, ?4)")?
                        .execute((ticket.number, key, &ticket.state, ticket.time as i64))?,
                    Change::Gone(number) => transaction.prepare_cached("DELETE FROM ticket WHERE number = ?1")?.execute([number])?,
                };
            }
            transaction.commit()
        };
        if let Err(why) = transaction(&mut connection) {
            tracing::debug!(%why, "tickets could not be written");
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn key(number: u32) -> Vec<u8> {
        number.to_be_bytes().repeat(8)
    }

    #[test]
    fn a_ticket_is_good_once_also_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tickets.db");
        let tickets = Tickets::open(&path);
        for number in 0..3 {
            assert!(tickets.put(key(number), vec![u8::try_from(number).unwrap(); 300]));
        }
        assert_eq!(tickets.get(&key(1)).unwrap(), [1; 300]);
        assert_eq!(tickets.take(&key(1)).unwrap(), [1; 300]);
        assert_eq!((tickets.take(&key(1)), tickets.get(&key(1))), (None, None));
        assert!(!tickets.put(key(9), vec![0; TICKET_BYTES_MAX + 1]) && tickets.get(&key(9)).is_none());
        drop(tickets);
        let tickets = Tickets::open(&path);
        assert_eq!(tickets.take(&key(1)), None, "used in the run before");
        assert_eq!(tickets.take(&key(2)).unwrap(), [2; 300]);
        drop(tickets);
        let tickets = Tickets::open(&path);
        assert_eq!(tickets.take(&key(2)), None);
        // What comes after a restart is kept beside what was there before.
        assert!(tickets.put(key(3), vec![3; 300]));
        drop(tickets);
        let tickets = Tickets::open(&path);
        assert_eq!((tickets.take(&key(0)).unwrap(), tickets.take(&key(3)).unwrap()), (vec![0; 300], vec![3; 300]));
        drop(tickets);
        let tickets = Tickets::open(&path);
        assert_eq!((tickets.take(&key(0)), tickets.take(&key(3))), (None, None));
    }

    #[test]
    fn they_are_bounded_and_grow_old() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tickets.db");
        let tickets = Tickets::with(&path, 100, seconds());
        for number in 0..1000 {
            tickets.put(key(number), vec![1]);
            if number % 2 == 0 {
                tickets.take(&key(number));
            }
        }
        assert!(tickets.get(&key(801)).is_none() && tickets.get(&key(901)).is_some() && tickets.get(&key(999)).is_some());
        assert_eq!(tickets.known().sessions.len(), 50);
        assert_eq!(tickets.known().order.len(), 100);
        drop(tickets);
        let rows = |path: &Path| -> u32 {
            Connection::open(path).unwrap().query_row("SELECT count(*) FROM ticket", [], |row| row.get(0)).unwrap()
        };
        assert_eq!(rows(&path), 50, "the file is bounded by the same");
        assert_eq!(Tickets::with(&path, 10, seconds()).known().sessions.len(), 10);
        drop(Tickets::with(&path, 100, seconds() + LIFETIME.as_secs() + 1));
        assert_eq!(rows(&path), 0);
    }

    #[test]
    fn a_damaged_file_is_made_anew_and_where_there_is_none_this_run_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tickets.db");
        std::fs::write(&path, vec![b'x'; 10_000]).unwrap();
        let tickets = Tickets::open(&path);
        tickets.put(key(1), vec![1]);
        drop(tickets);
        assert!(Tickets::open(&path).take(&key(1)).is_some());
        let nowhere = Tickets::open(&folder.path().join("not there").join("tickets.db"));
        nowhere.put(key(1), vec![1]);
        assert_eq!(nowhere.take(&key(1)), Some(vec![1]));
    }
}
