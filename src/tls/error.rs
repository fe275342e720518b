//! What can be wrong with keys, each with the file and the mend.

use std::io;
use std::path::{Path, PathBuf};
use time::OffsetDateTime;

/// Why there are no usable keys. Every text names the file and says what to do.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file system said no.
    #[error("cannot {doing} {}: {source}. {}", path.display(), io_advice(source))]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file is not what its name says.
    #[error("{} is not usable: {why}. {advice}", path.display())]
    Corrupt {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
        /// What to do.
        advice: String,
    },
    /// One file of a pair is there and the other is not.
    #[error("{} is there, but {} is not. {advice}", present.display(), missing.display())]
    Missing {
        /// The one that is there.
        present: PathBuf,
        /// The one that is not.
        missing: PathBuf,
        /// What to do.
        advice: String,
    },
    /// A certificate and a key that do not belong together.
    #[error("the key in {} does not belong to the certificate in {}. {advice}", key.display(), certificate.display())]
    Mismatch {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// What to do.
        advice: String,
    },
    /// A certificate that we must not replace is not valid at this time.
    #[error("{}", not_valid(path, *not_before, *not_after, *now, advice))]
    NotValid {
        /// Which file.
        path: PathBuf,
        /// Start of its validity.
        not_before: OffsetDateTime,
        /// End of its validity.
        not_after: OffsetDateTime,
        /// The clock.
        now: OffsetDateTime,
        /// What to do.
        advice: String,
    },
    /// A name that cannot stand in a certificate.
    #[error("`{0}` is neither an IP address nor a DNS name that can stand in a certificate")]
    Name(String),
    /// The clock is too far off to make or judge certificates.
    #[error("the clock says {}: set it first, certificates are good for certain days only", day(*.0))]
    Clock(OffsetDateTime),
    /// Nothing to show.
    #[error("no keys in {}: `whimbrel serve` makes them on its first start, `whimbrel certs renew` makes them now", .0.display())]
    Empty(PathBuf),
    /// Asked to renew what was given to us.
    #[error(
        "{} is your own: renew it with whoever issued it and put the new files in its place; a running server notices by itself",
        .0.display()
    )]
    Own(PathBuf),
    /// The library that makes certificates failed.
    #[error("cannot make a certificate: {0}")]
    Make(#[from] rcgen::Error),
    /// The TLS library failed.
    #[error("cannot set up TLS: {0}")]
    Rustls(#[from] rustls::Error),
    /// The system's random numbers failed.
    #[error("the system gives no random numbers")]
    Random,
}

impl TlsError {
    pub(super) fn io(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { doing, path, source }
    }
}

fn io_advice(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            "The user that runs whimbrel must own this directory; choose another one with --certs"
        }
        io::ErrorKind::StorageFull => "The disk is full",
        io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => "Choose another directory with --certs",
        _ => "Nothing was changed",
    }
}

/// Before its first day a certificate is hardly ever at fault: whoever replaced it would only lose the trust that devices have in it.
fn not_valid(path: &Path, not_before: OffsetDateTime, not_after: OffsetDateTime, now: OffsetDateTime, advice: &str) -> String {
    let (path, from, to, now_is) = (path.display(), day(not_before), day(not_after), day(now));
    if now < not_before {
        return format!(
            "the clock of this machine says {now_is}, which is before {path} becomes valid ({from}): set the clock first. Only if it is right: {advice}"
        );
    }
    format!("{path} is valid from {from} to {to}, and the clock says {now_is}. {advice}")
}

/// A point in time, for people.
pub(crate) fn day(at: OffsetDateTime) -> String {
    let (date, time) = (at.date(), at.time());
    format!("{date} {:02}:{:02} UTC", time.hour(), time.minute())
}
