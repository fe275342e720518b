//! The directory of keys: names, modes, atomic writes, one writer at a time.

use super::error::TlsError;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// The local CA's certificate: what clients trust.
pub const CA_CERTIFICATE: &str = "ca.pem";
/// The local CA's key: never leaves this machine.
pub const CA_KEY: &str = "ca.key";
/// The certificate for TCP.
pub const SERVER_CERTIFICATE: &str = "server.pem";
/// Its key.
pub const SERVER_KEY: &str = "server.key";
/// Certificate and key in use on QUIC, in one file, so that a rotation is one rename.
pub const QUIC: &str = "quic.pem";
/// Certificate and key that are next on QUIC.
pub const QUIC_NEXT: &str = "quic-next.pem";
/// The certificate that was in use on QUIC before, without its key.
pub const QUIC_PREVIOUS: &str = "quic-previous.pem";
/// Your own certificate, with its chain, for TCP and QUIC.
pub const OWN_CERTIFICATE: &str = "own.pem";
/// Its key.
pub const OWN_KEY: &str = "own.key";
/// The secret by which QUIC clients of an earlier run learn at once that their connection is gone.
pub const RESET_SECRET: &str = "reset.key";
/// What QUIC clients resume with, an SQLite database.
pub const TICKETS: &str = "tickets.db";

const LOCK: &str = ".lock";
const WATCHED: [&str; 9] =
    [CA_CERTIFICATE, CA_KEY, SERVER_CERTIFICATE, SERVER_KEY, QUIC, QUIC_NEXT, QUIC_PREVIOUS, OWN_CERTIFICATE, OWN_KEY];

/// Larger is no certificate and no key.
const MAX_FILE: u64 = 1 << 20;

/// By which a change of the files is noticed: time, size and inode of each.
pub(super) type Stamp = Vec<Option<(SystemTime, u64, u64)>>;

/// Looks at the files without reading them.
pub(super) fn stamp(dir: &Path) -> Stamp {
    let look = |name| fs::metadata(dir.join(name)).ok().and_then(|meta| Some((meta.modified().ok()?, meta.len(), inode(&meta))));
    WATCHED.into_iter().map(look).collect()
}

#[cfg(unix)]
fn inode(meta: &fs::Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::ino(meta)
}

#[cfg(not(unix))]
fn inode(_: &fs::Metadata) -> u64 {
    0
}

/// Makes the directory if it is not there, and keeps others out of it.
pub(super) fn prepare(dir: &Path) -> Result<(), TlsError> {
    fs::create_dir_all(dir).map_err(TlsError::io("make the directory", dir))?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = fs::metadata(dir).map_err(TlsError::io("look at", dir))?.permissions().mode();
        if mode & 0o077 != 0 {
            // A mounted volume may belong to someone else: the keys themselves are still 0600.
            if let Err(error) = fs::set_permissions(dir, fs::Permissions::from_mode(0o700)) {
                tracing::warn!(dir = %dir.display(), %error, "others may look into the directory of keys");
            }
        }
    }
    Ok(())
}

/// Held while files are made or replaced: a second server, or `whimbrel certs renew` beside a running one, waits.
pub(super) struct Lock {
    _file: File,
}

/// Waits for the lock of the directory.
pub(super) fn lock(dir: &Path) -> Result<Lock, TlsError> {
    let path = dir.join(LOCK);
    let file = open_private(OpenOptions::new().create(true).truncate(false), &path).map_err(TlsError::io("open", &path))?;
    file.lock().map_err(TlsError::io("lock", &path))?;
    Ok(Lock { _file: file })
}

/// A file's text; `None` if there is no such file.
pub(super) fn read(path: &Path) -> Result<Option<String>, TlsError> {
    let meta = match fs::metadata(path) {
        Ok(meta) => meta,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(TlsError::io("look at", path)(error)),
    };
    let corrupt = |why: &str| TlsError::Corrupt { path: path.into(), why: why.into(), advice: "Put the right file in its place".into() };
    if !meta.is_file() || meta.len() > MAX_FILE {
        return Err(corrupt("it is not a file of a sensible size"));
    }
    let bytes = fs::read(path).map_err(TlsError::io("read", path))?;
    String::from_utf8(bytes).map(Some).map_err(|_| corrupt("it is not PEM text"))
}

/// Takes from others the right to read a key of ours.
pub(super) fn keep_private(path: &Path) {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let Ok(meta) = fs::metadata(path) else { return };
        if meta.permissions().mode() & 0o077 != 0 {
            tracing::warn!(file = %path.display(), "others could read this key; its mode is 0600 now");
            if let Err(error) = fs::set_permissions(path, fs::Permissions::from_mode(0o600)) {
                tracing::warn!(file = %path.display(), %error, "cannot change its mode");
            }
        }
    }
    #[cfg(not(unix))]
    let _ = path;
}

/// Makes an empty file that only its owner may read, if there is none.
pub(super) fn create_private(path: &Path) -> std::io::Result<()> {
    let mut options = fs::OpenOptions::new();
    options.create(true).append(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map(drop)
}

/// Writes a file that is either wholly there or not, whatever happens, and that only its owner may read.
pub(super) fn write(dir: &Path, name: &str, text: &str) -> Result<(), TlsError> {
    let staged = stage(dir, name, text)?;
    commit(dir, name, &staged)
}

/// Replaces a pair so that at no time a certificate stands beside a key that is not its own: what a crash leaves behind is a key
/// without a certificate. Of a leaf that is made good at the next start; of a CA it is an error, for a key that someone restored looks
/// the same.
pub(super) fn write_pair(dir: &Path, certificate: (&str, &str), key: (&str, &str)) -> Result<(), TlsError> {
    let staged_key = stage(dir, key.0, key.1)?;
    let staged_certificate = stage(dir, certificate.0, certificate.1)?;
    remove(dir, certificate.0)?;
    commit(dir, key.0, &staged_key)?;
    commit(dir, certificate.0, &staged_certificate)
}

/// Renames within the directory.
pub(super) fn rename(dir: &Path, from: &str, to: &str) -> Result<(), TlsError> {
    commit(dir, to, &dir.join(from))
}

/// Removes a file, if it is there.
pub(super) fn remove(dir: &Path, name: &str) -> Result<(), TlsError> {
    let path = dir.join(name);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(TlsError::io("remove", path)(error)),
        _ => sync(dir),
    }
}

fn stage(dir: &Path, name: &str, text: &str) -> Result<PathBuf, TlsError> {
    let path = dir.join(format!(".{name}.new"));
    // What a crash left behind may have another mode.
    remove(dir, &format!(".{name}.new"))?;
    let write = || {
        let mut file = open_private(OpenOptions::new().create_new(true), &path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    write().map_err(TlsError::io("write", &path))?;
    Ok(path)
}

fn commit(dir: &Path, name: &str, staged: &Path) -> Result<(), TlsError> {
    let path = dir.join(name);
    fs::rename(staged, &path).map_err(TlsError::io("replace", path))?;
    sync(dir)
}

fn sync(dir: &Path) -> Result<(), TlsError> {
    // A rename is durable when its directory is. Only Unix lets one open a directory.
    #[cfg(unix)]
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(TlsError::io("sync", dir))?;
    #[cfg(not(unix))]
    let _ = dir;
    Ok(())
}

fn open_private(options: &mut OpenOptions, path: &Path) -> std::io::Result<File> {
    options.write(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600);
    }
    options.open(path)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn a_write_is_whole_private_and_leaves_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(".a.key.new"), "left by a crash").unwrap();
        write(dir.path(), "a.key", "one").unwrap();
        write(dir.path(), "a.key", "two").unwrap();
        assert_eq!(read(&dir.path().join("a.key")).unwrap().unwrap(), "two");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(fs::metadata(dir.path().join("a.key")).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn what_is_not_there_is_none_and_what_is_no_file_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        assert!(read(&dir.path().join("a.pem")).unwrap().is_none());
        assert!(matches!(read(dir.path()), Err(TlsError::Corrupt { .. })));
    }
}
