//! The file: how it is opened, locked, migrated, and how it knows that it is itself and not a copy.

use super::super::StoreError;
use super::SqliteOptions;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, TransactionBehavior};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};
use whimbrel_protocol::LogEpoch;

mod embedded {
    refinery::embed_migrations!("src/store/sqlite/migrations");
}

/// "Whbl": says in the header of the file whose it is. Written by the first migration.
const APPLICATION: i64 = 0x5768_626c;
const NOT_OURS: &str = "this file is an SQLite database, but not a store of Whimbrel";

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// The one connection that writes, and the one that checkpoints.
    Write,
    /// Reads only.
    Read,
}

/// Says in the store's words what SQLite said. The text tells people what to do.
pub(super) fn failed(error: &rusqlite::Error) -> StoreError {
    use rusqlite::Error::{FromSqlConversionFailure, IntegralValueOutOfRange, InvalidColumnType, QueryReturnedNoRows};
    match error {
        FromSqlConversionFailure(..) | IntegralValueOutOfRange(..) | InvalidColumnType(..) | QueryReturnedNoRows => {
            StoreError::Damaged(format!("a row cannot be read: {error}"))
        }
        _ => match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => StoreError::Unavailable(
                "the disk is full; nothing was lost: free some space there, or move the store to a larger disk".to_owned(),
            ),
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::ConstraintViolation | ErrorCode::TypeMismatch) => {
                StoreError::Damaged(error.to_string())
            }
            _ => StoreError::Unavailable(error.to_string()),
        },
    }
}

pub(super) fn damaged(what: impl Into<String>) -> StoreError {
    StoreError::Damaged(what.into())
}

fn unavailable(what: &str, path: &Path, error: &std::io::Error) -> StoreError {
    StoreError::Unavailable(format!("{what} {}: {error}", path.display()))
}

/// Makes a file, if it is not there, that nobody but its owner can read: what people say is in it. What SQLite puts beside it is alike.
pub(super) fn private_file(path: &Path) -> Result<(), StoreError> {
    let mut options = OpenOptions::new();
    // One that is there is not even opened: closing it would let go of the locks that SQLite has on it in this process.
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    match options.open(path) {
        Err(why) if why.kind() != ErrorKind::AlreadyExists => Err(unavailable("cannot make", path, &why)),
        _ => Ok(()),
    }
}

/// Opens a connection to a file that is there (or, for writing, is made), with the settings that the measurements behind this
/// layout were made with.
pub(super) fn connect(path: &Path, access: Access, options: &SqliteOptions) -> Result<Connection, StoreError> {
    let flags = match access {
        Access::Write => OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE,
        // A reader of a WAL file must be able to write the shared memory beside it; `query_only` below keeps it from the rest.
        Access::Read => OpenFlags::SQLITE_OPEN_READ_WRITE,
    } | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let opened = match options.hooks.vfs {
        Some(vfs) => Connection::open_with_flags_and_vfs(path, flags, vfs),
        None => {
            if access == Access::Write {
                private_file(path)?;
            }
            Connection::open_with_flags(path, flags)
        }
    };
    let connection = opened.map_err(|error| match failed(&error) {
        StoreError::Unavailable(why) => StoreError::Unavailable(format!("{}: {why}", path.display())),
        other => other,
    })?;
    let synchronous = if options.hooks.synchronous_off { "OFF" } else { "FULL" };
    // page_size comes before the journal mode, which is what first writes to a new file.
    let settings = format!(
        "PRAGMA busy_timeout=5000; PRAGMA page_size=4096; PRAGMA temp_store=MEMORY; PRAGMA foreign_keys=OFF; PRAGMA trusted_schema=OFF;
         PRAGMA cache_size=-{}; PRAGMA mmap_size={};",
        if access == Access::Write { 65_536 } else { 8_192 },
        options.mmap_bytes,
    );
    let further = match access {
        Access::Write => format!("PRAGMA synchronous={synchronous}; PRAGMA wal_autocheckpoint=0; PRAGMA journal_size_limit=134217728;"),
        Access::Read => "PRAGMA query_only=ON;".to_owned(),
    };
    connection.execute_batch(&(settings + &further)).map_err(|error| failed(&error))?;
    if access == Access::Write {
        let mode: String = connection.query_row("PRAGMA journal_mode=WAL", [], |row| row.get(0)).map_err(|error| failed(&error))?;
        if mode != "wal" {
            return Err(StoreError::Unavailable(format!(
                "{}: this file system cannot hold the store (no shared memory: is it a network drive?)",
                path.display()
            )));
        }
    }
    // Otherwise a statement with a bound `LIMIT` is planned anew for each value: a fifth of what the committer did when clients came back.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map_err(|error| failed(&error))?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

/// Brings the schema up to date. Refuses a file of a newer version, and one that is not ours.
pub(super) fn migrate(connection: &mut Connection) -> Result<(), StoreError> {
    known_version(connection)?;
    let runner = embedded::migrations::runner();
    // Grouped: a power cut must not come between a migration and the note that it was made.
    let made = runner.set_grouped(true).run(connection);
    made.map(|_| ()).map_err(|error| StoreError::Unavailable(format!("the schema cannot be brought up to date: {error}")))
}

/// The version of the schema, 0 if there is none yet.
///
/// # Errors
/// If it is newer than this program, or the file is not a store.
pub(super) fn known_version(connection: &Connection) -> Result<u32, StoreError> {
    let table = "SELECT count(*) FROM sqlite_schema WHERE name = 'refinery_schema_history'";
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).map_err(|error| failed(&error))?;
    let ours: i64 = connection.query_row(table, [], |row| row.get(0)).map_err(|error| failed(&error))?;
    if ours == 0 && tables > 0 {
        return Err(StoreError::Unavailable(NOT_OURS.to_owned()));
    }
    if ours == 0 {
        return Ok(0);
    }
    let version = connection
        .query_row("SELECT coalesce(max(version), 0) FROM refinery_schema_history", [], |row| row.get::<_, u32>(0))
        .map_err(|error| failed(&error))?;
    let application: i64 = connection.query_row("PRAGMA application_id", [], |row| row.get(0)).map_err(|error| failed(&error))?;
    if version > 0 && application != APPLICATION {
        return Err(StoreError::Unavailable(NOT_OURS.to_owned()));
    }
    let known = embedded::migrations::runner().get_migrations().iter().map(|migration| migration.version()).max().unwrap_or(0);
    let known = u32::try_from(known).unwrap_or(0);
    if version > known {
        return Err(StoreError::Unavailable(format!(
            "it was written by a newer version of Whimbrel (schema {version}; this version knows up to {known}): run that version, or a newer one"
        )));
    }
    Ok(version)
}

/// A number among the facts about the file.
pub(super) fn meta(connection: &Connection, name: &str) -> Result<Option<u64>, StoreError> {
    let read = connection
        .prepare_cached("SELECT value FROM meta WHERE name = ?1")
        .and_then(|mut read| read.query_row([name], |row| row.get::<_, i64>(0)).optional());
    read.map(|value| value.map(|value| value as u64)).map_err(|error| failed(&error))
}

/// Writes a number among the facts about the file.
pub(super) fn set_meta(connection: &Connection, name: &str, value: u64) -> Result<(), StoreError> {
    let written = connection
        .prepare_cached("INSERT INTO meta (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = excluded.value")
        .and_then(|mut write| write.execute((name, value as i64)));
    written.map(|_| ()).map_err(|error| failed(&error))
}

/// What names a file as long as it is not copied.
fn identity(path: &Path) -> Result<Option<String>, StoreError> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let meta = std::fs::metadata(path).map_err(|error| unavailable("cannot look at", path, &error))?;
        Ok(Some(format!("{}:{}", meta.dev(), meta.ino())))
    }
    #[cfg(not(unix))]
    {
        let _ = path;
        Ok(None)
    }
}

/// The epoch of the log in this file: a new one if the file is new, was copied, or went back in time (`seen` is the end of the log as
/// the sidecar remembers it, `end` what it is).
pub(super) fn settle_epoch(connection: &mut Connection, path: &Path, seen: u64, end: u64) -> Result<LogEpoch, StoreError> {
    let identity = identity(path)?;
    let old = meta(connection, "epoch")?;
    let copy = meta(connection, "copy")?.is_some();
    let known: Option<String> = connection
        .query_row("SELECT value FROM meta WHERE name = 'identity'", [], |row| row.get(0))
        .optional()
        .map_err(|error| failed(&error))?;
    if let Some(epoch) = old
        && known == identity
        && !copy
        && end >= seen
    {
        return Ok(LogEpoch(epoch));
    }
    if end < seen {
        tracing::warn!(
            "the log in {} ends before record {end}, but had got to {seen} when it was last noted: taken as restored from an older backup, and all \
             devices are told so. If nobody restored anything, what is missing was lost: stop the server, keep this folder, and put a \
             backup in its place",
            path.display()
        );
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(0));
    let epoch = now.max(old.map_or(1, |old| old + 1));
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(|error| failed(&error))?;
    set_meta(&transaction, "epoch", epoch)?;
    let facts = transaction.execute("DELETE FROM meta WHERE name IN ('copy', 'identity')", []).and_then(|_| match &identity {
        Some(identity) => transaction.execute("INSERT INTO meta (name, value) VALUES ('identity', ?1)", [identity]),
        None => Ok(0),
    });
    facts.and_then(|_| transaction.commit()).map_err(|error| failed(&error))?;
    Ok(LogEpoch(epoch))
}

/// The lock of a store: a file beside it, locked for as long as this lives. It also remembers how far the log had got, which tells a
/// file that was put back in place from one that was only closed.
#[derive(Debug)]
pub(super) struct Lock {
    file: File,
    /// The end of the log when it was last noted.
    pub(super) seen: u64,
}

impl Lock {
    /// Locks the store at `path`, which is [`canonical`].
    pub(super) fn take(path: &Path) -> Result<Self, StoreError> {
        let lock = beside(path, ".lock");
        let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&lock);
        let mut file = opened.map_err(|error| unavailable("cannot open the lock file", &lock, &error))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(StoreError::Unavailable(format!(
                    "{} is open in another process (a server that runs?): a store has one writer at a time",
                    path.display()
                )));
            }
            Err(TryLockError::Error(error)) => return Err(unavailable("cannot lock", &lock, &error)),
        }
        let mut noted = String::new();
        // What cannot be read was never written whole: it tells nothing.
        let seen = file.read_to_string(&mut noted).ok().and_then(|_| noted.trim().parse().ok()).unwrap_or(0);
        Ok(Self { file, seen })
    }

    /// Notes the end of the log. A hint: if it cannot be written, less is noticed.
    pub(super) fn note(&mut self, end: u64) {
        if self.seen == end {
            return;
        }
        let noted = self.file.rewind().and_then(|()| self.file.write_all(format!("{end:>20}\n").as_bytes()));
        if noted.is_ok() {
            self.seen = end;
        }
    }
}

/// How many symlinks may lead to a file that is not there yet.
const LINKS_MAX: usize = 16;

/// The one path of a file, whatever symlinks lead to it. Its neighbours (`.lock`, and what SQLite keeps) are named after this: two ways to
/// a store must not be two locks. The file may not be there yet.
pub(super) fn canonical(path: &Path) -> Result<PathBuf, StoreError> {
    let mut path = path.to_path_buf();
    for _ in 0..LINKS_MAX {
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let folder = folder.canonicalize().map_err(|error| unavailable("cannot look into the folder", folder, &error))?;
        let name = path.file_name().ok_or_else(|| StoreError::Unavailable(format!("{} is no file", path.display())))?;
        let file = folder.join(name);
        match file.read_link() {
            Ok(target) => path = folder.join(target),
            // No link, or nothing there: this is its name.
            Err(_) => return Ok(file),
        }
    }
    Err(StoreError::Unavailable(format!("{}: too many symlinks lead to it", path.display())))
}

/// A path with something after its name.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Makes the names in the directory of `path` durable: a file's own sync does not cover its name.
pub(super) fn sync_directory(path: &Path) -> Result<(), StoreError> {
    #[cfg(unix)]
    {
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let synced = File::open(directory).and_then(|directory| directory.sync_all());
        synced.map_err(|error| unavailable("cannot sync the folder", directory, &error))?;
    }
    #[cfg(not(unix))]
    let _ = path;
    Ok(())
}
