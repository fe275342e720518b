//! Keys and certificates: made on the first start, renewed in time, swapped without dropping anyone.
//!
//! What lies in the directory is described for people in `certs/README.md`. In short: a local CA that people may tell their devices
//! to trust; a leaf for TCP; for QUIC a certificate of less than 14 days whose hash web pages pin
//! (`serverCertificateHashes`), with the next one made and listed a period ahead ([`plan`]). Both leaves are signed by the CA, so
//! that programs need only `--ca`. A certificate of one's own (`own.pem`, `own.key`) takes the place of all of that.
//!
//! TLS configurations given out by [`Keys`] ask it for the certificate at each handshake: a rotation needs no new configuration, and
//! connections that stand are not touched.
//!
//! This module never replaces a CA, never writes into `own.*`, and talks to nobody.

mod cert;
mod error;
pub mod files;
mod held;
mod mint;
pub mod plan;
mod resolver;
mod resumption;
#[cfg(test)]
mod tests;

pub use error::TlsError;

use held::{Held, Occasion};
use resolver::Resolver;
use resumption::Tickets;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::{Ticketer, default_provider};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;
use time::OffsetDateTime;

pub(crate) use error::day;

/// How often a running server looks whether someone changed the files.
pub const POLL: Duration = Duration::from_secs(2);
/// After a failure, when to try again though nobody changed a file.
const RETRY: time::Duration = time::Duration::minutes(10);

/// What a certificate is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// The local CA that devices may trust.
    Ca,
    /// In use on TCP.
    Tcp,
    /// In use on QUIC.
    Quic,
    /// The next one on QUIC.
    QuicNext,
    /// The one before on QUIC.
    QuicPrevious,
    /// One's own, on both.
    Own,
}

impl Role {
    /// Its name, as the command line shows it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ca => "ca",
            Self::Tcp => "tcp",
            Self::Quic => "quic",
            Self::QuicNext => "quic-next",
            Self::QuicPrevious => "quic-previous",
            Self::Own => "own",
        }
    }
}

/// A certificate, for people to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertInfo {
    /// What it is for.
    pub role: Role,
    /// The files that it and its key lie in.
    pub files: Vec<PathBuf>,
    /// The names it covers.
    pub names: Vec<String>,
    /// SHA-256 of the certificate: what web pages pin and `--pin` takes.
    pub sha256: [u8; 32],
    /// Valid from here.
    pub not_before: OffsetDateTime,
    /// Valid to here.
    pub not_after: OffsetDateTime,
    /// Whether clients get it now.
    pub in_use: bool,
}

/// The keys of a running server. Cheap to clone; all clones see a rotation at once.
#[derive(Clone)]
pub struct Keys {
    inner: Arc<Inner>,
}

struct Inner {
    dir: PathBuf,
    names: Vec<String>,
    held: RwLock<Arc<Held>>,
    tcp: Arc<Resolver>,
    quic: Arc<Resolver>,
    tickets: Mutex<Option<Arc<Tickets>>>,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").field("dir", &self.inner.dir).field("names", &self.inner.names).finish_non_exhaustive()
    }
}

impl Keys {
    /// Opens the directory, and makes in it what is missing. `names` are the DNS names and IP addresses by which clients call this
    /// server; `localhost`, `127.0.0.1` and `::1` are always among them. Blocks for a moment: call it before serving.
    ///
    /// # Errors
    /// If a file is unreadable, corrupt, over, or does not fit the others. A CA is never replaced.
    pub fn open(dir: &Path, names: &[String]) -> Result<Self, TlsError> {
        Self::open_at(dir, names, OffsetDateTime::now_utc())
    }

    /// [`Keys::open`] at a time of the caller's choice.
    ///
    /// # Errors
    /// As [`Keys::open`].
    pub fn open_at(dir: &Path, names: &[String], now: OffsetDateTime) -> Result<Self, TlsError> {
        let names = mint::names(names)?;
        let held = held::settle(dir, &names, now, Occasion::Start)?;
        let (tcp, quic) = (Resolver::new(&held.tcp), Resolver::new(&held.quic));
        Ok(Self {
            inner: Arc::new(Inner { dir: dir.into(), names, held: RwLock::new(Arc::new(held)), tcp, quic, tickets: Mutex::default() }),
        })
    }

    /// The hashes that web pages may pin: the current one first, then the next, and for a while the previous. None where the
    /// certificate is one's own, for that is publicly trusted.
    #[must_use]
    pub fn hashes(&self) -> Vec<[u8; 32]> {
        self.held().hashes.clone()
    }

    /// What is in use and what is next.
    #[must_use]
    pub fn certificates(&self) -> Vec<CertInfo> {
        self.held().infos.clone()
    }

    /// The file with the local CA, where there is one.
    #[must_use]
    pub fn ca_file(&self) -> Option<PathBuf> {
        self.held().infos.iter().find(|info| info.role == Role::Ca).and_then(|info| info.files.first().cloned())
    }

    /// TLS for TCP: 1.2 and 1.3.
    #[must_use]
    pub fn tcp_config(&self, alpn: &[&[u8]]) -> Arc<ServerConfig> {
        let mut config = resolver::config(&self.inner.tcp, alpn, rustls::DEFAULT_VERSIONS);
        // What is remembered of a client lies with the client. One ticket is enough.
        config.send_tls13_tickets = 1;
        match Ticketer::new() {
            Ok(ticketer) => config.ticketer = ticketer,
            Err(error) => tracing::warn!(%error, "no session tickets: every connection over TLS does the whole handshake"),
        }
        Arc::new(config)
    }

    /// TLS for QUIC: 1.3, with early data for those who resume. Their tickets are good once and outlive a restart of the server. Blocks
    /// for a moment.
    #[must_use]
    pub fn quic_config(&self, alpn: &[&[u8]]) -> Arc<ServerConfig> {
        let mut config = resolver::config(&self.inner.quic, alpn, &[&rustls::version::TLS13]);
        let tickets = Arc::new(Tickets::open(&self.inner.dir.join(files::TICKETS)));
        *self.inner.tickets.lock().unwrap_or_else(PoisonError::into_inner) = Some(tickets.clone());
        config.session_storage = tickets;
        // QUIC has its own limit of early data, and rustls takes early data only where tickets are good once.
        config.max_early_data_size = u32::MAX;
        // A client that is cut off before it has the next one must not be left without.
        config.send_tls13_tickets = 2;
        Arc::new(config)
    }

    /// Writes what clients may resume with after a restart: from now on nothing of that is kept. Blocks until it is done.
    pub fn close(&self) {
        let tickets = self.inner.tickets.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(tickets) = tickets {
            tickets.close();
        }
    }

    /// A secret that outlives restarts: with it a QUIC client of an earlier run learns at once that its connection is gone, instead
    /// of waiting for its idle timeout. Where it cannot be kept, it is good for this run only. Blocks for a moment.
    ///
    /// # Errors
    /// If the system gives no random numbers.
    pub fn reset_secret(&self) -> Result<[u8; 64], TlsError> {
        resolver::reset_secret(&self.inner.dir)
    }

    /// When there is something to do next, if nobody touches the files.
    #[must_use]
    pub fn next_wake(&self) -> OffsetDateTime {
        self.held().wake
    }

    /// Reads the files again if they were touched, and renews what is due; new connections get the result. `true` if that made a
    /// difference. After an error everything stays as it was. Blocks.
    ///
    /// # Errors
    /// As [`Keys::open`].
    pub fn refresh(&self, now: OffsetDateTime) -> Result<bool, TlsError> {
        let held = self.held();
        if now < held.wake && files::stamp(&self.inner.dir) == held.stamp {
            return Ok(false);
        }
        let new = held::settle(&self.inner.dir, &self.inner.names, now, Occasion::Watch)?;
        let differs = new.infos != held.infos;
        // Not at one instant, but whatever a handshake gets in between was listed before.
        self.inner.tcp.set(&new.tcp);
        self.inner.quic.set(&new.quic);
        *self.inner.held.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(new);
        Ok(differs)
    }

    /// Renews and rotates in time, and notices files that were changed beside it. Never ends: drop it to stop.
    pub async fn run_renewal(self) {
        self.run_renewal_with(POLL, OffsetDateTime::now_utc).await;
    }

    async fn run_renewal_with(self, every: Duration, clock: fn() -> OffsetDateTime) {
        let mut failed: Option<(files::Stamp, OffsetDateTime)> = None;
        loop {
            tokio::time::sleep(every).await;
            let (keys, before) = (self.clone(), failed.take());
            let work = move || {
                let (now, stamp) = (clock(), files::stamp(&keys.inner.dir));
                // Half-copied files fail once, and are tried again when the other half is there.
                if let Some((seen, at)) = before
                    && seen == stamp
                    && (at..at + RETRY).contains(&now)
                {
                    return Some((seen, at));
                }
                match keys.refresh(now) {
                    Ok(true) => tracing::info!(dir = %keys.inner.dir.display(), "new connections get other keys from now on"),
                    Ok(false) => {}
                    Err(error) => {
                        tracing::error!(%error, "cannot renew the keys; those in use stay in use");
                        return Some((stamp, now));
                    }
                }
                None
            };
            match tokio::task::spawn_blocking(work).await {
                Ok(outcome) => failed = outcome,
                Err(error) => tracing::error!(%error, "the renewal of keys broke off"),
            }
        }
    }

    fn held(&self) -> Arc<Held> {
        self.inner.held.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What lies in a directory of keys. Changes nothing. Blocks.
///
/// # Errors
/// If there is nothing, or a file is unreadable or corrupt.
pub fn inspect(dir: &Path) -> Result<Vec<CertInfo>, TlsError> {
    held::inspect(dir)
}

/// Makes everything anew that no device was told to trust: the leaf for TCP, and both certificates for QUIC. For when a key may have
/// been seen; rotation needs no help. Beside a running server it is enough: the server notices. Web pages that pinned the old hashes
/// fetch the new ones on their next connection. Blocks.
///
/// # Errors
/// As [`Keys::open`], and if the certificate there is one's own.
pub fn renew(dir: &Path) -> Result<Vec<CertInfo>, TlsError> {
    let names = held::present_names(dir)?;
    Ok(held::settle(dir, &names, OffsetDateTime::now_utc(), Occasion::Renew)?.infos)
}
