//! `whimbrel store check|backup|compact`: looking after the embedded store.

use super::exit;
use crate::store::StoreError;
use crate::store::sqlite;
use clap::{Args, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

/// Which store, and what to do with it.
#[derive(Debug, Clone, Args)]
pub(super) struct StoreCommand {
    #[command(subcommand)]
    action: Action,
    /// Folder of the embedded store.
    #[arg(long, env = "WHIMBREL_DATA", value_name = "DIR", default_value = "data", global = true)]
    data: PathBuf,
}

#[derive(Debug, Clone, Subcommand)]
enum Action {
    /// Prove that the store is sound: the log without a gap, every index what the log says. Changes nothing; a server may run.
    Check,
    /// Copy the store as it is at one moment, while a server may run. Never overwrites.
    Backup {
        /// The new file.
        to: PathBuf,
    },
    /// Give back the room that trimming left. The server must not run.
    Compact,
}

pub(super) fn run(arguments: StoreCommand) -> ExitCode {
    let path = arguments.data.join("whimbrel.db");
    let done = match arguments.action {
        Action::Check => sqlite::check(&path).map(|report| {
            println!("{} records, {} users, {} conversations", report.records, report.users, report.conversations);
            for problem in &report.problems {
                println!("problem: {problem}");
            }
            if report.more > 0 {
                println!("and {} more", report.more);
            }
            if report.is_sound() {
                println!("the store is sound");
                ExitCode::SUCCESS
            } else {
                println!("the store is damaged: stop the server, keep this folder, and put a backup in its place");
                ExitCode::from(exit::REFUSED)
            }
        }),
        Action::Backup { to } => sqlite::backup(&path, &to).map(|()| {
            println!("{} is a copy of {}", to.display(), path.display());
            println!("To restore it: stop the server, move the data folder away, and put the copy in a new one as whimbrel.db.");
            ExitCode::SUCCESS
        }),
        Action::Compact => sqlite::compact(&path).map(|compacted| {
            println!("{}: {} bytes before, {} after", path.display(), compacted.bytes_before, compacted.bytes_after);
            ExitCode::SUCCESS
        }),
    };
    done.unwrap_or_else(|error| fail(&error))
}

fn fail(error: &StoreError) -> ExitCode {
    eprintln!("whimbrel: {error}");
    ExitCode::from(exit::USAGE)
}
