//! `whimbrel store check|backup|compact`: looking after the embedded store.

use super::{exit, fail, say};
use crate::config::{Config, Places};
use crate::store::StoreError;
use crate::store::sqlite::{self, Report};
use clap::{Args, Subcommand};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Which store, and what to do with it.
#[derive(Debug, Clone, Args)]
pub(super) struct StoreCommand {
    #[command(subcommand)]
    action: Action,
    #[command(flatten)]
    places: Places,
}

#[derive(Debug, Clone, Subcommand)]
enum Action {
    /// Prove that the store is sound: the log without a gap, every index what the log says. Changes nothing; a server may run.
    Check,
    /// Copy the store as it is at one moment, while a server may run, and check the copy. Never overwrites.
    Backup {
        /// The new file.
        to: PathBuf,
    },
    /// Give back the room that trimming left. The server must not run, and the store must be sound.
    Compact,
}

pub(super) fn run(arguments: StoreCommand) -> ExitCode {
    let path = match Config::locate(arguments.places).and_then(|config| config.store_path()) {
        Ok(path) => path,
        Err(error) => return fail(&error, exit::USAGE),
    };
    if matches!(path.try_exists(), Ok(false)) {
        let advice = "run this in the server's folder, or say where its store is (--data DIR, or --store sqlite:PATH)";
        return fail(&format!("there is no store at {}: {advice}", path.display()), exit::USAGE);
    }
    match act(&arguments.action, &path) {
        Ok((text, code)) => say(&text, code),
        Err(error @ StoreError::Damaged(_)) => fail(&error, exit::REFUSED),
        Err(error) => fail(&error, exit::USAGE),
    }
}

/// Does it. Returns what to print, and the code to end with.
fn act(action: &Action, path: &Path) -> Result<(String, u8), StoreError> {
    match action {
        Action::Check => {
            let report = sqlite::check(path)?;
            let told = tell(&report);
            Ok(if report.is_sound() {
                (told + "the store is sound\n", 0)
            } else {
                (told + "the store is damaged: stop the server, keep this folder, and put a backup in its place\n", exit::REFUSED)
            })
        }
        Action::Backup { to } => {
            let report = sqlite::backup(path, to)?;
            let copied = format!("{} is a copy of {}\n", to.display(), path.display());
            Ok(if report.is_sound() {
                let advice = "To restore it: stop the server, move the data folder away, and put the copy in a new one as whimbrel.db.\n";
                (copied + advice, 0)
            } else {
                let advice = "the copy is damaged, as the store is: keep it, but keep earlier backups too, and restore one of those\n";
                (copied + &tell(&report) + advice, exit::REFUSED)
            })
        }
        Action::Compact => {
            let compacted = sqlite::compact(path)?;
            Ok((format!("{}: {} bytes before, {} after\n", path.display(), compacted.bytes_before, compacted.bytes_after), 0))
        }
    }
}

fn tell(report: &Report) -> String {
    let mut told = format!("{} records, {} users, {} conversations\n", report.records, report.users, report.conversations);
    for problem in &report.problems {
        // A string takes everything.
        let _ = writeln!(told, "problem: {problem}");
    }
    if report.more > 0 {
        let _ = writeln!(told, "and {} more", report.more);
    }
    told
}
