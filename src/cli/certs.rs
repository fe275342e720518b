//! `whimbrel certs show|renew`: what keys are in use.

use crate::tls::{self, CertInfo, TlsError, day};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::fmt;
use std::path::{Path, PathBuf};
use time::OffsetDateTime;

/// What to do with the keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::Subcommand)]
pub enum CertsAction {
    /// Show what keys are in use, their hashes, and when they end.
    Show,
    /// Make new ones for everything but the local CA, at once; a running server takes them up by itself.
    Renew,
}

/// What lies in a directory of keys; its text is for people.
#[derive(Debug, Clone)]
pub struct CertsReport {
    /// What was done.
    pub action: CertsAction,
    /// Where.
    pub dir: PathBuf,
    /// When.
    pub now: OffsetDateTime,
    /// What lies there now.
    pub certificates: Vec<CertInfo>,
}

/// Does it, and says what lies there now. Blocks.
///
/// # Errors
/// If there are no keys, or they cannot be used; the text names the file and the mend.
pub fn run(action: CertsAction, dir: &Path) -> Result<CertsReport, TlsError> {
    let certificates = match action {
        CertsAction::Show => tls::inspect(dir)?,
        CertsAction::Renew => tls::renew(dir)?,
    };
    Ok(CertsReport { action, dir: dir.into(), now: OffsetDateTime::now_utc(), certificates })
}

/// A hash as web pages and `--pin` take it.
#[must_use]
pub fn hash_text(info: &CertInfo) -> String {
    STANDARD.encode(info.sha256)
}

impl fmt::Display for CertsReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "keys in {}", self.dir.display())?;
        for info in &self.certificates {
            let state = match (info.in_use, self.now < info.not_before, self.now >= info.not_after) {
                (_, _, true) => "over",
                (true, false, _) => "in use",
                (true, true, _) => "in use, but not valid yet",
                (false, true, _) => "waiting for its turn",
                (false, false, _) => "not in use",
            };
            let files: Vec<_> = info.files.iter().filter_map(|file| file.file_name()?.to_str()).collect();
            writeln!(f, "\n{:<14} {state}", info.role.name())?;
            writeln!(f, "  files        {}", files.join(", "))?;
            if !info.names.is_empty() {
                writeln!(f, "  names        {}", info.names.join(", "))?;
            }
            writeln!(f, "  valid        {} to {}", day(info.not_before), day(info.not_after))?;
            writeln!(f, "  sha256       {}", hash_text(info))?;
        }
        if self.action == CertsAction::Renew {
            writeln!(f, "\nA running server takes these up within seconds; web pages fetch the new hashes when they connect again.")?;
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn people_see_what_is_in_use_and_until_when() {
        let dir = tempfile::tempdir().unwrap();
        assert!(run(CertsAction::Show, dir.path()).unwrap_err().to_string().contains("certs renew"));
        let made = run(CertsAction::Renew, dir.path()).unwrap();
        assert!(made.to_string().contains("running server"));
        let shown = run(CertsAction::Show, dir.path()).unwrap();
        assert_eq!(shown.certificates, made.certificates);
        let text = shown.to_string();
        for part in ["ca.pem, ca.key", "quic           in use", "quic-next      waiting for its turn", "127.0.0.1, ::1, localhost"] {
            assert!(text.contains(part), "no `{part}` in\n{text}");
        }
        assert!(text.contains(&hash_text(&shown.certificates[2])));
    }
}
