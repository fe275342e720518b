//! The command line, one file a command.

pub mod certs;
mod serve;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Exit codes, the same for every command. 0: done.
pub(crate) mod exit {
    /// The server refused.
    pub const REFUSED: u8 = 1;
    /// The command line or configuration is wrong.
    pub const USAGE: u8 = 2;
    /// No connection.
    pub const NO_CONNECTION: u8 = 3;
    /// Time ran out.
    pub const TIMED_OUT: u8 = 4;
}

#[derive(Parser)]
#[command(version, about, long_about = None, args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Subcommands>,
}

#[derive(Subcommand)]
enum Subcommands {
    /// Run the server (the default).
    Serve(crate::config::Flags),
}

/// Parses the command line and runs it.
#[must_use]
pub fn main() -> ExitCode {
    // Every TLS user below takes the process's provider; there is one.
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        eprintln!("whimbrel: another TLS provider is installed already");
        return ExitCode::from(exit::USAGE);
    }
    let command = Arguments::parse().command.unwrap_or_else(|| Subcommands::Serve(serve::flags_from_environment()));
    match command {
        Subcommands::Serve(flags) => serve::run(&flags),
    }
}
