//! From the directory of keys to what is in use: reads, makes what is missing, rotates what is due. All of it blocks.

use super::cert::{Ca, Cert, Pair};
use super::error::{TlsError, day};
use super::files::{self, Stamp};
use super::plan::{Action, Life, plan};
use super::{CertInfo, Role, mint};
use std::path::Path;
use time::macros::datetime;
use time::{Duration, OffsetDateTime};

/// No clock that is right says less.
const SANE: OffsetDateTime = datetime!(2025-01-01 0:00 UTC);
/// People are told this long before a certificate of theirs runs out.
const OWN_WARNING: Duration = Duration::days(21);

const OWN_ADVICE: &str = "Put certificate (with its chain) and key, both in PEM, into own.pem and own.key; or remove both files, and whimbrel \
                          uses keys of its own";
const SERVER_ADVICE: &str = "Remove server.pem and server.key: whimbrel makes new ones, and no device has to be told. If they are a certificate \
                             of your own, name them own.pem and own.key";
const QUIC_ADVICE: &str = "Remove it: whimbrel makes a new one, and web pages fetch its hash by themselves";

/// Everything in use, read at one moment.
#[derive(Debug, Clone)]
pub(super) struct Held {
    pub tcp: Pair,
    pub quic: Pair,
    /// What web pages may pin; none where the certificate is publicly trusted.
    pub hashes: Vec<[u8; 32]>,
    pub infos: Vec<CertInfo>,
    /// What the files looked like before they were read: what is changed meanwhile is read again.
    pub stamp: Stamp,
    /// When there is something to do next.
    pub wake: OffsetDateTime,
}

/// On whose behalf the files are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Occasion {
    /// A server starts: certificates that lack a name of its are made anew.
    Start,
    /// A server runs: it takes what it finds, or two servers with different names would replace each other's certificates for ever.
    Watch,
    /// Someone wants everything anew that no device was told to trust.
    Renew,
}

/// Reads what is there and makes it right.
pub(super) fn settle(dir: &Path, names: &[String], now: OffsetDateTime, occasion: Occasion) -> Result<Held, TlsError> {
    if now < SANE {
        return Err(TlsError::Clock(now));
    }
    let before = files::stamp(dir);
    // First, and without the lock: a directory that holds only these may be read-only.
    if let Some(own) = read_own(dir)? {
        return if occasion == Occasion::Renew { Err(TlsError::Own(own.cert.path)) } else { use_own(own, now, before) };
    }
    files::prepare(dir)?;
    let _lock = files::lock(dir)?;
    let stamp = files::stamp(dir);
    let ca = match Ca::read(dir, now)? {
        Some(ca) => ca,
        None => make_ca(dir, now)?,
    };
    let tcp = settle_tcp(dir, &ca, names, now, occasion)?;
    let (quic, next, turn) = settle_quic(dir, &ca, names, now, occasion)?;
    let previous = read_previous(dir)?.filter(|previous| now < previous.life.not_after);

    let mut wake = turn.min(tcp.cert.life.not_after - mint::LEAF_RENEW);
    let mut hashes = vec![quic.cert.sha256, next.cert.sha256];
    let mut infos = vec![
        info(Role::Ca, &ca.cert, &[files::CA_KEY], true),
        info(Role::Tcp, &tcp.cert, &[files::SERVER_KEY], true),
        info(Role::Quic, &quic.cert, &[], true),
        info(Role::QuicNext, &next.cert, &[], false),
    ];
    if let Some(previous) = previous {
        // Another server on the same files may be a moment behind.
        wake = wake.min(previous.life.not_after);
        hashes.push(previous.sha256);
        infos.push(info(Role::QuicPrevious, &previous, &[], false));
    }
    Ok(Held { tcp, quic, hashes, infos, stamp, wake })
}

/// Reads what is there and changes nothing.
pub(super) fn inspect(dir: &Path) -> Result<Vec<CertInfo>, TlsError> {
    let own = read_own(dir)?;
    let ours = own.is_none();
    let mut infos: Vec<_> = own.iter().map(|own| info(Role::Own, &own.cert, &[files::OWN_KEY], true)).collect();
    let certificate = |name: &str, advice: &str| -> Result<Option<Cert>, TlsError> {
        let path = dir.join(name);
        files::read(&path)?.map(|pem| Cert::parse(&path, &pem, advice)).transpose()
    };
    let rows: [(Role, &str, &str, &[&str]); 5] = [
        (Role::Ca, files::CA_CERTIFICATE, "Restore it from a backup", &[files::CA_KEY]),
        (Role::Tcp, files::SERVER_CERTIFICATE, SERVER_ADVICE, &[files::SERVER_KEY]),
        (Role::Quic, files::QUIC, QUIC_ADVICE, &[]),
        (Role::QuicNext, files::QUIC_NEXT, QUIC_ADVICE, &[]),
        (Role::QuicPrevious, files::QUIC_PREVIOUS, QUIC_ADVICE, &[]),
    ];
    for (role, name, advice, more) in rows {
        let in_use = ours && matches!(role, Role::Ca | Role::Tcp | Role::Quic);
        infos.extend(certificate(name, advice)?.map(|cert| info(role, &cert, more, in_use)));
    }
    if infos.is_empty() { Err(TlsError::Empty(dir.into())) } else { Ok(infos) }
}

/// The names that the leaf there has now: what `renew` keeps.
pub(super) fn present_names(dir: &Path) -> Result<Vec<String>, TlsError> {
    let path = dir.join(files::SERVER_CERTIFICATE);
    let pem = files::read(&path)?;
    pem.map_or_else(|| mint::names(&[]), |pem| Cert::parse(&path, &pem, SERVER_ADVICE).map(|cert| cert.names))
}

fn read_own(dir: &Path) -> Result<Option<Pair>, TlsError> {
    Pair::read(&dir.join(files::OWN_CERTIFICATE), &dir.join(files::OWN_KEY), OWN_ADVICE)
}

fn use_own(own: Pair, now: OffsetDateTime, stamp: Stamp) -> Result<Held, TlsError> {
    own.must_be_valid(now, OWN_ADVICE)?;
    let ends = own.cert.life.not_after;
    if ends - now < OWN_WARNING {
        tracing::warn!(file = %own.cert.path.display(), ends = %day(ends), "your certificate ends soon: put a new one in its place");
    }
    let infos = vec![info(Role::Own, &own.cert, &[files::OWN_KEY], true)];
    // Looked at once a day, so that the warning comes again.
    let wake = (now + Duration::DAY).min(ends);
    Ok(Held { tcp: own.clone(), quic: own, hashes: Vec::new(), infos, stamp, wake })
}

fn make_ca(dir: &Path, now: OffsetDateTime) -> Result<Ca, TlsError> {
    let minted = mint::ca(now)?;
    files::write_pair(dir, (files::CA_CERTIFICATE, &minted.certificate), (files::CA_KEY, &minted.key))?;
    let path = dir.join(files::CA_CERTIFICATE);
    tracing::info!(file = %path.display(), "made a local CA: tell devices to trust this file");
    Ok(Ca { cert: Cert::parse(&path, &minted.certificate, "")?, key_pem: minted.key })
}

/// A certificate that this CA did not sign is only replaced if an earlier CA of ours did.
fn must_be_ours(cert: &Cert, ca: &Ca, advice: &str) -> Result<bool, TlsError> {
    let signed = cert.is_signed_by(&ca.cert);
    if !signed && !cert.is_ours() {
        let why = format!("it was not signed by the CA in {}", ca.cert.path.display());
        return Err(TlsError::Corrupt { path: cert.path.clone(), why, advice: advice.into() });
    }
    Ok(signed)
}

fn suits(cert: &Cert, names: &[String], occasion: Occasion) -> bool {
    match occasion {
        Occasion::Start => cert.covers(names),
        Occasion::Watch => true,
        Occasion::Renew => false,
    }
}

fn settle_tcp(dir: &Path, ca: &Ca, names: &[String], now: OffsetDateTime, occasion: Occasion) -> Result<Pair, TlsError> {
    let (certificate, key) = (dir.join(files::SERVER_CERTIFICATE), dir.join(files::SERVER_KEY));
    // A key alone is what a crash leaves behind in the middle of a renewal.
    let there = if files::read(&certificate)?.is_some() { Pair::read(&certificate, &key, SERVER_ADVICE)? } else { None };
    if let Some(pair) = there {
        let Life { not_before, not_after } = pair.cert.life;
        let fresh = not_before <= now && now < not_after - mint::LEAF_RENEW;
        if must_be_ours(&pair.cert, ca, SERVER_ADVICE)? && fresh && suits(&pair.cert, names, occasion) {
            files::keep_private(&key);
            return Ok(pair);
        }
    }
    let minted = mint::leaf(first(&ca.cert)?, &ca.key_pem, names, mint::leaf_life(now))?;
    files::write_pair(dir, (files::SERVER_CERTIFICATE, &minted.certificate), (files::SERVER_KEY, &minted.key))?;
    tracing::info!(file = %certificate.display(), ?names, "made a certificate for TCP");
    Pair::read(&certificate, &key, SERVER_ADVICE)?.ok_or_else(|| vanished(&certificate, SERVER_ADVICE))
}

/// Current, next, and when the next one takes over.
fn settle_quic(
    dir: &Path,
    ca: &Ca,
    names: &[String],
    now: OffsetDateTime,
    occasion: Occasion,
) -> Result<(Pair, Pair, OffsetDateTime), TlsError> {
    let usable = |name: &str| -> Result<Option<Pair>, TlsError> {
        let path = dir.join(name);
        let Some(pair) = Pair::read_one(&path, QUIC_ADVICE)? else { return Ok(None) };
        files::keep_private(&path);
        let signed = must_be_ours(&pair.cert, ca, QUIC_ADVICE)?;
        Ok(Some(pair).filter(|pair| signed && suits(&pair.cert, names, occasion)))
    };
    let make = |name: &str, life: Life| -> Result<Option<Pair>, TlsError> {
        let minted = mint::leaf(first(&ca.cert)?, &ca.key_pem, names, life)?;
        files::write(dir, name, &(minted.certificate + &minted.key))?;
        Pair::read_one(&dir.join(name), QUIC_ADVICE)
    };
    let (mut current, mut next) = (usable(files::QUIC)?, usable(files::QUIC_NEXT)?);
    loop {
        let life = |pair: &Option<Pair>| pair.as_ref().map(|pair| pair.cert.life);
        match (plan(now, life(&current), life(&next)), current, next) {
            (Action::Wait(turn), Some(current), Some(next)) => return Ok((current, next, turn)),
            (Action::MakeNext(turn), kept, _) => {
                next = make(files::QUIC_NEXT, Life::used_from(turn))?;
                current = kept;
            }
            (Action::Rotate, old, Some(new)) => {
                if let Some(old) = old {
                    files::write(dir, files::QUIC_PREVIOUS, &pem_of(&old.cert))?;
                }
                files::rename(dir, files::QUIC_NEXT, files::QUIC)?;
                tracing::info!(valid_to = %day(new.cert.life.not_after), "the next certificate is in use on QUIC now");
                let mut new = new;
                new.cert.path = dir.join(files::QUIC);
                (current, next) = (Some(new), None);
            }
            // Also where the plan speaks of one that is not there, which it does not.
            _ => {
                // The old ones may be known to a thief, or be long over: they are listed no more.
                files::remove(dir, files::QUIC_NEXT)?;
                files::remove(dir, files::QUIC_PREVIOUS)?;
                current = make(files::QUIC, Life::used_from(now))?;
                next = None;
            }
        }
    }
}

fn read_previous(dir: &Path) -> Result<Option<Cert>, TlsError> {
    let path = dir.join(files::QUIC_PREVIOUS);
    files::read(&path)?.map(|pem| Cert::parse(&path, &pem, QUIC_ADVICE)).transpose()
}

fn first(cert: &Cert) -> Result<&rustls::pki_types::CertificateDer<'static>, TlsError> {
    cert.chain.first().ok_or_else(|| vanished(&cert.path, "Restore it from a backup"))
}

fn vanished(path: &Path, advice: &str) -> TlsError {
    TlsError::Corrupt { path: path.into(), why: "it went away while it was being used".into(), advice: advice.into() }
}

fn pem_of(cert: &Cert) -> String {
    use base64::Engine;
    let mut pem = String::new();
    for der in &cert.chain {
        let text = base64::engine::general_purpose::STANDARD.encode(der);
        pem.push_str("-----BEGIN CERTIFICATE-----\n");
        for line in text.as_bytes().chunks(64) {
            pem.extend(line.iter().map(|&byte| char::from(byte)));
            pem.push('\n');
        }
        pem.push_str("-----END CERTIFICATE-----\n");
    }
    pem
}

fn info(role: Role, cert: &Cert, more: &[&str], in_use: bool) -> CertInfo {
    let mut files = vec![cert.path.clone()];
    files.extend(more.iter().map(|name| cert.path.with_file_name(name)));
    CertInfo {
        role,
        files,
        names: cert.names.clone(),
        sha256: cert.sha256,
        not_before: cert.life.not_before,
        not_after: cert.life.not_after,
        in_use,
    }
}
