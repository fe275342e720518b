//! Makes certificates. All keys are ECDSA P-256: small handshakes, and the only kind that browsers take when pinned by hash.

use super::error::TlsError;
use super::plan::Life;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::pki_types::CertificateDer;
use std::net::IpAddr;
use time::{Duration, OffsetDateTime};

/// How the subject of every CA of ours begins: by this we know our own leaves.
pub(super) const CA_NAME: &str = "Whimbrel local CA";
/// Names every leaf has.
const ALWAYS: [&str; 3] = ["localhost", "127.0.0.1", "::1"];
/// Trusting a CA is work for people, on each device: once in ten years.
const CA_LIFE: Duration = Duration::days(3652);
/// Some systems refuse leaves that are good for more than 398 days.
const LEAF_LIFE: Duration = Duration::days(396);
/// A leaf is made anew when less than this is left.
pub(super) const LEAF_RENEW: Duration = Duration::days(60);
/// Clocks of clients may be behind by this much.
const BACKDATE: Duration = Duration::days(1);

/// A new certificate with its key, in PEM.
pub(super) struct Minted {
    pub certificate: String,
    pub key: String,
}

/// A CA of this server's own. It is not name-constrained, for a LAN changes its addresses and people their minds about names; it may
/// not sign further CAs, and its name says what it is.
pub(super) fn ca(now: OffsetDateTime) -> Result<Minted, TlsError> {
    let mut tag = [0; 3];
    aws_lc_rs::rand::fill(&mut tag).map_err(|_| TlsError::Random)?;
    let mut params = CertificateParams::default();
    // The tag tells two servers' CAs apart in a phone's list.
    params.distinguished_name = named(&format!("{CA_NAME} {:02x}{:02x}{:02x}", tag[0], tag[1], tag[2]));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    (params.not_before, params.not_after) = (now - BACKDATE, now + CA_LIFE);
    let key = KeyPair::generate()?;
    Ok(Minted { certificate: params.self_signed(&key)?.pem(), key: key.serialize_pem() })
}

/// The life of a leaf for TCP.
pub(super) fn leaf_life(now: OffsetDateTime) -> Life {
    Life { not_before: now - BACKDATE, not_after: now - BACKDATE + LEAF_LIFE }
}

/// A leaf that the CA signs.
pub(super) fn leaf(ca: &CertificateDer<'_>, ca_key: &str, names: &[String], life: Life) -> Result<Minted, TlsError> {
    let issuer = Issuer::from_ca_cert_der(ca, KeyPair::from_pem(ca_key)?)?;
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name = named("Whimbrel server");
    params.is_ca = IsCa::ExplicitNoCa;
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    (params.not_before, params.not_after) = (life.not_before, life.not_after);
    let key = KeyPair::generate()?;
    Ok(Minted { certificate: params.signed_by(&key, &issuer)?.pem(), key: key.serialize_pem() })
}

fn named(common: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common);
    name
}

/// The names a leaf gets: what was asked for and what every leaf has, in one spelling, once each, sorted. Addresses that mean "all
/// of them" are no names.
pub(super) fn names(asked: &[String]) -> Result<Vec<String>, TlsError> {
    let mut names = Vec::with_capacity(asked.len() + ALWAYS.len());
    for name in asked.iter().map(String::as_str).chain(ALWAYS) {
        let plain = name.trim().trim_start_matches('[').trim_end_matches(']');
        match plain.parse::<IpAddr>() {
            Ok(address) if address.is_unspecified() => {}
            Ok(address) => names.push(address.to_canonical().to_string()),
            Err(_) if is_dns_name(plain) => names.push(plain.to_ascii_lowercase()),
            Err(_) => return Err(TlsError::Name(name.to_owned())),
        }
    }
    names.sort();
    names.dedup();
    Ok(names)
}

fn is_dns_name(name: &str) -> bool {
    let plain = name.strip_prefix("*.").unwrap_or(name);
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.len() <= 253 && plain.split('.').all(label)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn names_are_spelled_one_way() {
        let asked = ["Chat.Example.ORG", "[::1]", "0.0.0.0", "::ffff:10.0.0.1", "localhost", "*.lan"].map(str::to_owned);
        assert_eq!(names(&asked).unwrap(), ["*.lan", "10.0.0.1", "127.0.0.1", "::1", "chat.example.org", "localhost"]);
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for bad in ["", "a b", "münchen.de", "-a.b", "a..b", "http://x", "10.0.0.1:80"] {
            assert!(matches!(names(&[bad.to_owned()]), Err(TlsError::Name(_))), "{bad}");
        }
    }
}
