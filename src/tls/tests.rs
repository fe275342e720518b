//! The directory of keys, through the years and through what people do to it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::*;
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use std::fs;
use tempfile::TempDir;
use time::Duration as Span;
use x509_parser::prelude::{FromDer, X509Certificate};

fn day0() -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(1_900_000_000).unwrap()
}

fn dir() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn open(dir: &TempDir, at: OffsetDateTime) -> Keys {
    Keys::open_at(dir.path(), &[], at).unwrap()
}

/// What opening says, after checking that the CA there is still the one that was.
fn refusal(dir: &TempDir, at: OffsetDateTime) -> String {
    let ca = fs::read(dir.path().join(files::CA_CERTIFICATE)).ok();
    let error = Keys::open_at(dir.path(), &[], at).unwrap_err();
    assert_eq!(fs::read(dir.path().join(files::CA_CERTIFICATE)).ok(), ca, "the CA was replaced");
    error.to_string()
}

fn info(keys: &Keys, role: Role) -> CertInfo {
    keys.certificates().into_iter().find(|info| info.role == role).unwrap()
}

fn verify(dir: &TempDir, leaf: &str, name: &str, at: OffsetDateTime) -> Result<(), rustls::Error> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(dir.path().join(files::CA_CERTIFICATE)).unwrap()).unwrap();
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::new(default_provider())).build().unwrap();
    let leaf = CertificateDer::from_pem_file(dir.path().join(leaf)).unwrap();
    let now = UnixTime::since_unix_epoch(Duration::from_secs(at.unix_timestamp() as u64));
    verifier.verify_server_cert(&leaf, &[], &ServerName::try_from(name).unwrap(), &[], now).map(drop)
}

/// A certificate of one's own, as another CA gives it.
fn put_own(dir: &TempDir, from: OffsetDateTime, to: OffsetDateTime) {
    let ca = mint::ca(from).unwrap();
    let ca_der = CertificateDer::from_pem_slice(ca.certificate.as_bytes()).unwrap();
    let life = plan::Life { not_before: from, not_after: to };
    let own = mint::leaf(&ca_der, &ca.key, &["chat.example.org".into()], life).unwrap();
    fs::write(dir.path().join(files::OWN_CERTIFICATE), own.certificate + &ca.certificate).unwrap();
    fs::write(dir.path().join(files::OWN_KEY), own.key).unwrap();
}

#[test]
fn the_first_start_makes_what_browsers_and_programs_accept() {
    let dir = dir();
    let names = ["chat.lan".to_owned(), "192.168.1.7".to_owned()];
    let keys = Keys::open_at(dir.path(), &names, day0()).unwrap();
    for leaf in [files::SERVER_CERTIFICATE, files::QUIC] {
        for name in ["chat.lan", "192.168.1.7", "localhost", "127.0.0.1", "::1"] {
            verify(&dir, leaf, name, day0()).unwrap();
        }
        assert!(verify(&dir, leaf, "elsewhere.lan", day0()).is_err());
    }
    let tcp = info(&keys, Role::Tcp);
    assert!(tcp.not_after - tcp.not_before <= Span::days(397));
    assert_eq!(keys.hashes(), [info(&keys, Role::Quic).sha256, info(&keys, Role::QuicNext).sha256]);
    for role in [Role::Quic, Role::QuicNext] {
        let info = info(&keys, role);
        assert!(info.not_after - info.not_before <= Span::days(14));
        let der = CertificateDer::from_pem_file(&info.files[0]).unwrap();
        let (_, x509) = X509Certificate::from_der(&der).unwrap();
        assert_eq!(x509.version().0, 2, "browsers want X.509v3");
        let key = x509.public_key();
        assert_eq!(key.algorithm.algorithm.to_id_string(), "1.2.840.10045.2.1");
        assert_eq!(key.algorithm.parameters.as_ref().unwrap().as_oid().unwrap().to_id_string(), "1.2.840.10045.3.1.7");
    }
    let ca = CertificateDer::from_pem_file(keys.ca_file().unwrap()).unwrap();
    let (_, ca) = X509Certificate::from_der(&ca).unwrap();
    assert!(ca.subject().to_string().starts_with("CN=Whimbrel local CA "));
    assert_eq!(ca.basic_constraints().unwrap().unwrap().value.path_len_constraint, Some(0));
}

#[cfg(unix)]
#[test]
fn nobody_else_may_read_keys() {
    use std::os::unix::fs::PermissionsExt;
    let dir = dir();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let mode = |name: &str| fs::metadata(dir.path().join(name)).unwrap().permissions().mode() & 0o777;
    let keys = open(&dir, day0());
    keys.reset_secret().unwrap();
    assert_eq!(mode("."), 0o700);
    let private = [files::CA_KEY, files::SERVER_KEY, files::QUIC, files::QUIC_NEXT, files::RESET_SECRET];
    for name in private {
        assert_eq!(mode(name), 0o600, "{name}");
        fs::set_permissions(dir.path().join(name), fs::Permissions::from_mode(0o644)).unwrap();
    }
    open(&dir, day0()).reset_secret().unwrap();
    for name in private {
        assert_eq!(mode(name), 0o600, "{name}, copied without care");
    }
}

#[test]
fn later_starts_keep_everything() {
    let dir = dir();
    let (first, secret) = (open(&dir, day0()), open(&dir, day0()).reset_secret().unwrap());
    let again = open(&dir, day0() + Span::days(3));
    assert_eq!(again.certificates(), first.certificates());
    assert_eq!(again.reset_secret().unwrap(), secret);
    assert!(fs::read_dir(dir.path()).unwrap().all(|entry| !entry.unwrap().file_name().to_string_lossy().ends_with(".new")));
}

#[test]
fn many_at_once_agree() {
    let dir = dir();
    let open = || Keys::open_at(dir.path(), &[], day0()).unwrap().certificates();
    let all: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(open)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(all.iter().all(|one| one == &all[0]));
}

#[test]
fn other_names_make_other_leaves_and_the_ca_stays() {
    let dir = dir();
    let (before, now) = (open(&dir, day0()), day0() + Span::HOUR);
    let after = Keys::open_at(dir.path(), &["chat.lan".into()], now).unwrap();
    assert_eq!(info(&after, Role::Ca), info(&before, Role::Ca));
    assert_ne!(info(&after, Role::Tcp).sha256, info(&before, Role::Tcp).sha256);
    verify(&dir, files::QUIC, "chat.lan", now).unwrap();
    // Fewer names are no reason: a laptop that comes home keeps its certificate.
    assert_eq!(open(&dir, now).certificates(), after.certificates());
}

#[test]
fn two_servers_with_different_names_do_not_chase_each_other() {
    let dir = dir();
    let one = Keys::open_at(dir.path(), &["one.lan".into()], day0()).unwrap();
    let two = Keys::open_at(dir.path(), &["two.lan".into()], day0()).unwrap();
    assert!(one.refresh(day0()).unwrap());
    assert!(!two.refresh(day0()).unwrap());
    assert_eq!(one.certificates(), two.certificates());
}

#[test]
fn a_year_and_a_half_day_by_day() {
    let dir = dir();
    let keys = open(&dir, day0());
    let first = info(&keys, Role::Tcp);
    let mut lists = vec![(day0(), keys.hashes())];
    for day in 1..550 {
        let now = day0() + Span::days(day) + Span::hours(day % 24);
        keys.refresh(now).unwrap();
        assert!(keys.next_wake() > now);
        verify(&dir, files::QUIC, "localhost", now).unwrap();
        verify(&dir, files::SERVER_CERTIFICATE, "localhost", now).unwrap();
        lists.retain(|(fetched, _)| now - *fetched < plan::PERIOD);
        for (fetched, list) in &lists {
            assert!(list.contains(&keys.hashes()[0]), "hashes of {fetched} are useless at {now}");
        }
        lists.push((now, keys.hashes()));
    }
    assert_ne!(info(&keys, Role::Tcp).sha256, first.sha256);
}

#[test]
fn the_previous_hash_is_listed_while_it_can_be_valid() {
    let dir = dir();
    let keys = open(&dir, day0());
    let first = keys.hashes();
    keys.refresh(day0() + plan::PERIOD).unwrap();
    assert_eq!((keys.hashes()[0], keys.hashes()[2]), (first[1], first[0]));
    assert!(!fs::read_to_string(dir.path().join(files::QUIC_PREVIOUS)).unwrap().contains("PRIVATE"));
    keys.refresh(day0() + plan::PERIOD + plan::LATE).unwrap();
    assert_eq!(keys.hashes().len(), 2);
}

#[test]
fn a_ca_is_never_replaced() {
    let later = day0() + Span::days(11 * 366);
    type Break = fn(&TempDir);
    let break_ca: [(&str, Break, OffsetDateTime, &str); 5] = [
        ("garbage", |dir| fs::write(dir.path().join(files::CA_CERTIFICATE), "garbage").unwrap(), day0(), "no certificate in it"),
        ("no key", |dir| fs::remove_file(dir.path().join(files::CA_KEY)).unwrap(), day0(), "ca.key is not"),
        ("no certificate", |dir| fs::remove_file(dir.path().join(files::CA_CERTIFICATE)).unwrap(), day0(), "ca.pem is not"),
        (
            "another key",
            |dir| fs::write(dir.path().join(files::CA_KEY), mint::ca(day0()).unwrap().key).unwrap(),
            day0(),
            "does not belong to",
        ),
        ("over", |_| (), later, "is valid from"),
    ];
    for (what, break_it, at, expected) in break_ca {
        let dir = dir();
        open(&dir, day0());
        break_it(&dir);
        let text = refusal(&dir, at);
        assert!(text.contains(expected) && text.contains("Restore both files"), "{what}: {text}");
    }
}

#[test]
fn a_leaf_is_not_made_a_ca() {
    let dir = dir();
    open(&dir, day0());
    fs::copy(dir.path().join(files::SERVER_CERTIFICATE), dir.path().join(files::CA_CERTIFICATE)).unwrap();
    fs::copy(dir.path().join(files::SERVER_KEY), dir.path().join(files::CA_KEY)).unwrap();
    assert!(refusal(&dir, day0()).contains("not the certificate of a CA"));
}

#[test]
fn what_a_crash_leaves_behind_is_made_good() {
    let dir = dir();
    let before = open(&dir, day0());
    fs::remove_file(dir.path().join(files::SERVER_CERTIFICATE)).unwrap();
    fs::remove_file(dir.path().join(files::QUIC_NEXT)).unwrap();
    fs::write(dir.path().join(".server.pem.new"), "half").unwrap();
    let after = open(&dir, day0());
    assert_eq!(info(&after, Role::Ca), info(&before, Role::Ca));
    assert_eq!(info(&after, Role::Quic), info(&before, Role::Quic));
    verify(&dir, files::SERVER_CERTIFICATE, "localhost", day0()).unwrap();
}

#[test]
fn broken_leaves_say_so_and_foreign_ones_are_not_overwritten() {
    let dir = dir();
    open(&dir, day0());
    // Someone put a certificate of another CA where ours lies.
    let other = rcgen::generate_simple_self_signed(["chat.example.org".to_owned()]).unwrap();
    fs::write(dir.path().join(files::SERVER_CERTIFICATE), other.cert.pem()).unwrap();
    let text = refusal(&dir, day0());
    assert!(text.contains("does not belong to") && text.contains("server.key"), "{text}");
    fs::write(dir.path().join(files::SERVER_KEY), other.signing_key.serialize_pem()).unwrap();
    let text = refusal(&dir, day0());
    assert!(text.contains("not signed by the CA") && text.contains("own.pem"), "{text}");
    fs::write(dir.path().join(files::SERVER_CERTIFICATE), [0xff, 0xfe]).unwrap();
    assert!(refusal(&dir, day0()).contains("not PEM text"));
    fs::remove_file(dir.path().join(files::SERVER_CERTIFICATE)).unwrap();
    fs::write(dir.path().join(files::QUIC), "-----BEGIN").unwrap();
    assert!(refusal(&dir, day0()).contains("quic.pem is not usable"));
}

#[test]
fn a_new_ca_signs_new_leaves() {
    let dir = dir();
    open(&dir, day0());
    fs::remove_file(dir.path().join(files::CA_CERTIFICATE)).unwrap();
    fs::remove_file(dir.path().join(files::CA_KEY)).unwrap();
    open(&dir, day0());
    verify(&dir, files::SERVER_CERTIFICATE, "localhost", day0()).unwrap();
    verify(&dir, files::QUIC, "localhost", day0()).unwrap();
}

#[test]
fn your_own_certificate_takes_the_place_of_all() {
    let dir = dir();
    put_own(&dir, day0(), day0() + Span::days(90));
    let keys = open(&dir, day0());
    assert!(keys.hashes().is_empty() && keys.ca_file().is_none());
    assert_eq!(keys.certificates().len(), 1);
    assert_eq!(info(&keys, Role::Own).names, ["chat.example.org"]);
    assert!(!dir.path().join(files::CA_KEY).exists());
    assert!(matches!(renew(dir.path()), Err(TlsError::Own(_))));

    let over = Keys::open_at(dir.path(), &[], day0() + Span::days(91)).unwrap_err().to_string();
    assert!(over.contains("own.pem is valid from"), "{over}");
    fs::write(dir.path().join(files::OWN_KEY), mint::ca(day0()).unwrap().key).unwrap();
    assert!(matches!(Keys::open_at(dir.path(), &[], day0()), Err(TlsError::Mismatch { .. })));
    fs::remove_file(dir.path().join(files::OWN_KEY)).unwrap();
    assert!(matches!(Keys::open_at(dir.path(), &[], day0()), Err(TlsError::Missing { .. })));
}

#[test]
fn files_that_change_under_a_running_server_are_taken_up_or_left_alone() {
    let (dir, now) = (dir(), day0());
    let keys = open(&dir, now);
    let before = keys.certificates();
    assert!(!keys.refresh(now).unwrap());
    put_own(&dir, now, now + Span::days(90));
    let key = fs::read(dir.path().join(files::OWN_KEY)).unwrap();
    fs::remove_file(dir.path().join(files::OWN_KEY)).unwrap();
    assert!(keys.refresh(now).is_err());
    assert_eq!(keys.certificates(), before, "half-copied files must change nothing");
    fs::write(dir.path().join(files::OWN_KEY), key).unwrap();
    assert!(keys.refresh(now).unwrap());
    assert_eq!(keys.certificates()[0].role, Role::Own);
    fs::remove_file(dir.path().join(files::OWN_KEY)).unwrap();
    fs::remove_file(dir.path().join(files::OWN_CERTIFICATE)).unwrap();
    assert!(keys.refresh(now).unwrap());
    assert_eq!(keys.certificates(), before);
}

#[tokio::test]
async fn a_renewal_beside_a_running_server_is_noticed() {
    let dir = dir();
    let keys = Keys::open(dir.path(), &["chat.lan".into()]).unwrap();
    let (hashes, ca, tcp) = (keys.hashes(), info(&keys, Role::Ca), info(&keys, Role::Tcp));
    let renewal = tokio::spawn(keys.clone().run_renewal_with(Duration::from_millis(20), OffsetDateTime::now_utc));
    let infos = renew(dir.path()).unwrap();
    while keys.certificates() != infos {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    renewal.abort();
    assert_eq!(info(&keys, Role::Ca), ca);
    assert_eq!(info(&keys, Role::Tcp).names, tcp.names);
    assert_ne!(info(&keys, Role::Tcp).sha256, tcp.sha256);
    assert!(keys.hashes().iter().all(|hash| !hashes.contains(hash)), "a hash of a key that may have been seen is listed");
}

#[test]
fn a_clock_that_was_never_set_makes_no_keys() {
    let dir = dir();
    let error = Keys::open_at(dir.path(), &[], OffsetDateTime::UNIX_EPOCH).unwrap_err();
    assert!(matches!(error, TlsError::Clock(_)));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_clock_before_the_first_day_is_to_be_set_before_anything_is_removed() {
    let dir = dir();
    let first = info(&open(&dir, day0()), Role::Ca).not_before;
    let early = day0() - Span::days(700);
    let text = refusal(&dir, early);
    for part in ["ca.pem", &day(early), &day(first), "set the clock first"] {
        assert!(text.contains(part), "no `{part}` in: {text}");
    }
    assert!(text.find("set the clock") < text.find("remove"), "{text}");
    // After the last day the clock may well be right.
    let text = refusal(&dir, day0() + Span::days(11 * 366));
    assert!(text.contains("is valid from") && !text.contains("set the clock"), "{text}");
}

#[test]
fn looking_changes_nothing() {
    let dir = dir();
    assert!(matches!(inspect(dir.path()), Err(TlsError::Empty(_))));
    let keys = open(&dir, day0());
    let stamp = files::stamp(dir.path());
    assert_eq!(inspect(dir.path()).unwrap(), keys.certificates());
    assert_eq!(files::stamp(dir.path()), stamp);
}
