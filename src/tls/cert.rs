//! Reads certificates and keys, and judges them.

use super::error::TlsError;
use super::files;
use super::mint::CA_NAME;
use super::plan::Life;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// Before the CA ends: a year to tell all devices.
const WARNING: time::Duration = time::Duration::days(365);

/// A certificate as it lies in a file, with what we need to know of it.
#[derive(Debug, Clone)]
pub(super) struct Cert {
    pub path: PathBuf,
    pub chain: Vec<CertificateDer<'static>>,
    pub life: Life,
    pub names: Vec<String>,
    pub sha256: [u8; 32],
    pub issuer: String,
}

/// A certificate and its key, ready for TLS.
#[derive(Debug, Clone)]
pub(super) struct Pair {
    pub cert: Cert,
    pub key: Arc<CertifiedKey>,
}

/// The local CA, able to sign.
pub(super) struct Ca {
    pub cert: Cert,
    pub key_pem: String,
}

impl Cert {
    /// Reads a certificate, or a chain with the leaf first.
    pub fn parse(path: &Path, pem: &str, advice: &str) -> Result<Self, TlsError> {
        let corrupt = |why: String| TlsError::Corrupt { path: path.into(), why, advice: advice.into() };
        let chain: Vec<_> = CertificateDer::pem_slice_iter(pem.as_bytes())
            .collect::<Result<_, _>>()
            .map_err(|error| corrupt(format!("it is not a PEM certificate ({error})")))?;
        let first = chain.first().ok_or_else(|| corrupt("there is no certificate in it".into()))?;
        let (_, x509) = X509Certificate::from_der(first).map_err(|error| corrupt(format!("it is not an X.509 certificate ({error})")))?;
        let when = |at: x509_parser::time::ASN1Time| at.to_datetime();
        let life = Life { not_before: when(x509.validity().not_before), not_after: when(x509.validity().not_after) };
        let mut sha256 = [0; 32];
        sha256.copy_from_slice(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, first).as_ref());
        let (names, issuer) = (alternative_names(&x509), x509.issuer().to_string());
        Ok(Self { path: path.into(), life, names, sha256, issuer, chain })
    }

    /// Whether it covers every one of these names.
    pub fn covers(&self, names: &[String]) -> bool {
        names.iter().all(|name| self.names.contains(name))
    }

    /// Whether it was signed by this CA, with the key that the CA has now.
    pub fn is_signed_by(&self, ca: &Self) -> bool {
        let (Some(own), Some(ca)) = (self.chain.first(), ca.chain.first()) else { return false };
        let (Ok((_, own)), Ok((_, ca))) = (X509Certificate::from_der(own), X509Certificate::from_der(ca)) else { return false };
        own.issuer() == ca.subject() && own.verify_signature(Some(ca.public_key())).is_ok()
    }

    /// Whether a CA of ours signed it, this one or an earlier one: then it may be replaced.
    pub fn is_ours(&self) -> bool {
        self.issuer.contains(CA_NAME)
    }
}

impl Pair {
    /// Reads a certificate and a key from two files; `None` if neither is there.
    pub fn read(certificate: &Path, key: &Path, advice: &str) -> Result<Option<Self>, TlsError> {
        let missing = |present: &Path, missing: &Path| {
            Err(TlsError::Missing { present: present.into(), missing: missing.into(), advice: advice.into() })
        };
        match (files::read(certificate)?, files::read(key)?) {
            (None, None) => Ok(None),
            (Some(_), None) => missing(certificate, key),
            (None, Some(_)) => missing(key, certificate),
            (Some(certificate_pem), Some(key_pem)) => Self::parse((certificate, &certificate_pem), (key, &key_pem), advice).map(Some),
        }
    }

    /// Reads both from one file; `None` if it is not there.
    pub fn read_one(path: &Path, advice: &str) -> Result<Option<Self>, TlsError> {
        let Some(pem) = files::read(path)? else { return Ok(None) };
        Self::parse((path, &pem), (path, &pem), advice).map(Some)
    }

    fn parse(certificate: (&Path, &str), key: (&Path, &str), advice: &str) -> Result<Self, TlsError> {
        let cert = Cert::parse(certificate.0, certificate.1, advice)?;
        let corrupt = |why: String| TlsError::Corrupt { path: key.0.into(), why, advice: advice.into() };
        let der =
            PrivateKeyDer::from_pem_slice(key.1.as_bytes()).map_err(|error| corrupt(format!("there is no PEM key in it ({error})")))?;
        let certified = CertifiedKey::from_der(cert.chain.clone(), der, &default_provider()).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => {
                TlsError::Mismatch { certificate: certificate.0.into(), key: key.0.into(), advice: advice.into() }
            }
            error => corrupt(format!("TLS cannot use this key ({error})")),
        })?;
        Ok(Self { cert, key: Arc::new(certified) })
    }

    /// Fails unless it is valid now: for certificates that we must not replace.
    pub fn must_be_valid(&self, now: OffsetDateTime, advice: &str) -> Result<(), TlsError> {
        must_be_valid(&self.cert, now, advice)
    }
}

impl Ca {
    /// Reads the CA; `None` if there is none. Nothing is ever made in its place: people have told their devices to trust it.
    pub fn read(dir: &Path, now: OffsetDateTime) -> Result<Option<Self>, TlsError> {
        let advice = format!(
            "Restore both files from a backup; or remove {}, {} and server.pem to have a new CA made, which every device must then be told to trust again",
            files::CA_CERTIFICATE,
            files::CA_KEY
        );
        let (certificate, key) = (dir.join(files::CA_CERTIFICATE), dir.join(files::CA_KEY));
        let Some(pair) = Pair::read(&certificate, &key, &advice)? else { return Ok(None) };
        must_be_valid(&pair.cert, now, &advice)?;
        let corrupt = |why: &str| TlsError::Corrupt { path: certificate.clone(), why: why.into(), advice: advice.clone() };
        let der = pair.cert.chain.first().ok_or_else(|| corrupt("it is empty"))?;
        let (_, x509) = X509Certificate::from_der(der).map_err(|_| corrupt("it is not an X.509 certificate"))?;
        if !x509.is_ca() {
            return Err(corrupt("it is not the certificate of a CA"));
        }
        let key_pem = files::read(&key)?.ok_or_else(|| corrupt("its key went away"))?;
        files::keep_private(&key);
        if pair.cert.life.not_after - now < WARNING {
            tracing::warn!(file = %certificate.display(), "the local CA ends within a year: make a new one while devices trust both");
        }
        Ok(Some(Self { cert: pair.cert, key_pem }))
    }
}

fn must_be_valid(cert: &Cert, now: OffsetDateTime, advice: &str) -> Result<(), TlsError> {
    let Life { not_before, not_after } = cert.life;
    if not_before <= now && now < not_after {
        return Ok(());
    }
    Err(TlsError::NotValid { path: cert.path.clone(), not_before, not_after, now, advice: advice.into() })
}

fn alternative_names(x509: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(names)) = x509.subject_alternative_name() else { return Vec::new() };
    let one = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(*bytes).ok().map(|bytes| IpAddr::from(bytes).to_string()),
            _ => <[u8; 16]>::try_from(*bytes).ok().map(|bytes| IpAddr::from(bytes).to_string()),
        },
        _ => None,
    };
    names.value.general_names.iter().filter_map(one).collect()
}
