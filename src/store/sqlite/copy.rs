//! Copies and housekeeping, for the command line.

use super::super::{Store, StoreError};
use super::check::{Report, check};
use super::schema::{self, Access, Lock, beside, failed, set_meta};
use super::{SqliteOptions, SqliteStore};
use rusqlite::backup::{Backup, StepResult};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};
use std::fs::File;
use std::path::Path;

/// Copies the store at `path` to the new file `to`, as it is at one moment, while a server may go on writing. The copy is marked:
/// when it is opened it raises its epoch. It is complete once it has its name; until then it lies beside it as `….part`. It is checked
/// like any store: damage is copied too, and a copy that holds some is kept, for it may be the best there is. The report is about the copy,
/// which nobody but its owner can read.
///
/// # Errors
/// If `to` is there already, or something cannot be read or written.
pub fn backup(path: &Path, to: &Path) -> Result<Report, StoreError> {
    let options = SqliteOptions::default();
    let part = beside(to, ".part");
    for (taken, advice) in [
        (to, "give the copy another name, or move that file away"),
        (&part, "another backup is being made, or one was broken off: then remove that file"),
    ] {
        if std::fs::symlink_metadata(taken).is_ok() {
            return Err(StoreError::Unavailable(format!("{} is there already, and is not overwritten: {advice}", taken.display())));
        }
    }
    let source = reader(path, &options)?;
    unless_damaged(schema::known_version(&source))?;
    // There may be nothing to remove; and if something stays, an error that matters comes first.
    let remove = |suffix| drop(std::fs::remove_file(beside(&part, suffix)));
    let copied = copy(&source, &part).and_then(|()| {
        let io = |error: std::io::Error| StoreError::Unavailable(format!("{}: {error}", to.display()));
        File::open(&part).and_then(|file| file.sync_all()).map_err(io)?;
        let report = check(&part)?;
        // The check wrote nothing, so that what SQLite left beside the copy is empty.
        ["-wal", "-shm"].into_iter().for_each(remove);
        std::fs::rename(&part, to).map_err(io)?;
        schema::sync_directory(to)?;
        Ok(report)
    });
    if copied.is_err() {
        ["", "-wal", "-shm"].into_iter().for_each(remove);
    }
    copied
}

fn copy(source: &Connection, part: &Path) -> Result<(), StoreError> {
    schema::private_file(part)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut copy = Connection::open_with_flags(part, flags).map_err(|error| failed(&error))?;
    copy.execute_batch("PRAGMA synchronous=FULL").map_err(|error| failed(&error))?;
    // All pages in one step: in several, each commit of a running server would make it begin anew.
    let step = Backup::new(source, &mut copy).and_then(|backup| backup.step(-1)).map_err(|error| failed(&error))?;
    if step != StepResult::Done {
        return Err(StoreError::Unavailable("the store is being changed in another way; try again".to_owned()));
    }
    unless_damaged(set_meta(&copy, "copy", 1))?;
    copy.close().map_err(|(_, error)| failed(&error))
}

/// Lets damage pass: the check of the copy finds it.
fn unless_damaged<T>(result: Result<T, StoreError>) -> Result<(), StoreError> {
    match result {
        Ok(_) | Err(StoreError::Damaged(_)) => Ok(()),
        Err(other) => Err(other),
    }
}

/// A connection that leaves everything as it is.
pub(super) fn reader(path: &Path, options: &SqliteOptions) -> Result<Connection, StoreError> {
    let reader = schema::connect(path, Access::Read, options)?;
    // Or the last connection to close would tidy up after a server that crashed.
    reader.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map_err(|error| failed(&error))?;
    Ok(reader)
}

/// What [`compact`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compacted {
    /// Bytes of the file before.
    pub bytes_before: u64,
    /// Bytes of the file after.
    pub bytes_after: u64,
}

/// Writes the whole file anew, without the room that trimming left, and each table in one piece. (There are no small chunks to merge:
/// an index goes on in its open chunk until that is full.) Needs as much room again for as long as it takes.
///
/// # Errors
/// If there is no store, it is open in another process, there is not enough room, or it is damaged: then nothing is changed, for what
/// cannot be read might not be in the new file.
pub fn compact(path: &Path) -> Result<Compacted, StoreError> {
    let bytes = || std::fs::metadata(path).map(|meta| meta.len());
    let unavailable = |error: std::io::Error| StoreError::Unavailable(format!("{}: {error}", path.display()));
    let bytes_before = bytes().map_err(unavailable)?;
    // Whether a server has it is known at once, and a check takes a while.
    drop(Lock::take(&schema::canonical(path)?)?);
    if let Some(problem) = check(path)?.problems.first() {
        return Err(StoreError::Damaged(format!("{problem}; nothing was changed")));
    }
    let store = SqliteStore::open(path, SqliteOptions::default())?;
    store.flush()?;
    let writer = store.writer();
    let done = writer.connection.execute_batch("VACUUM; PRAGMA wal_checkpoint(TRUNCATE)");
    done.map_err(|error| failed(&error))?;
    Ok(Compacted { bytes_before, bytes_after: bytes().map_err(unavailable)? })
}
