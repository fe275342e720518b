//! The command line, one file a command.

mod bench;
pub mod certs;
mod chat;
mod connect;
mod doctor;
mod listen;
mod send;
mod serve;
mod store;

use crate::config::{Config, Places};
use clap::builder::{OsStr, Resettable};
use clap::{Parser, Subcommand};
use std::ffi::OsString;
use std::fmt::Display;
use std::future::Future;
use std::io::{ErrorKind, Write};
use std::process::ExitCode;
use whimbrel_client::{Client, Connection};

/// Exit codes, the same for every command. 0: done.
pub(crate) mod exit {
    /// The server refused.
    pub const REFUSED: u8 = 1;
    /// The command line or configuration is wrong, or something of this machine cannot be used.
    pub const USAGE: u8 = 2;
    /// No connection.
    pub const NO_CONNECTION: u8 = 3;
    /// Time ran out.
    pub const TIMED_OUT: u8 = 4;
}

#[derive(Parser)]
#[command(version, about, long_about = None)]
struct Arguments {
    #[command(subcommand)]
    command: Subcommands,
}

#[derive(Subcommand)]
enum Subcommands {
    /// Run the server: what is run without a command, too, also with flags (`whimbrel --http 127.0.0.1:9090`).
    Serve(crate::config::Flags),
    /// Talk, in the terminal.
    Chat(chat::Chat),
    /// Say something, and wait until it is durable.
    Send(send::Send),
    /// Print what comes, a line an event.
    Listen(listen::Listen),
    /// Why can I not connect? Each step by itself, with what to do about it.
    Doctor(doctor::Examine),
    /// Look after the embedded store.
    Store(store::StoreCommand),
    /// Put load on a server of this machine, and report.
    Bench(bench::Bench),
    /// Keys and certificates of a server.
    Certs {
        #[command(subcommand)]
        action: certs::CertsAction,
        #[command(flatten)]
        places: Places,
    },
}

/// Parses the command line and runs it.
#[must_use]
pub fn main() -> ExitCode {
    // Every TLS user below takes the process's provider; there is one.
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        eprintln!("whimbrel: another TLS provider is installed already");
        return ExitCode::from(exit::USAGE);
    }
    match parse::<Arguments>(with_command(std::env::args_os().collect())).command {
        Subcommands::Serve(flags) => serve::run(&flags),
        Subcommands::Chat(arguments) => chat::run(&arguments),
        Subcommands::Send(arguments) => on_runtime(send::run(arguments)),
        Subcommands::Listen(arguments) => on_runtime(listen::run(arguments)),
        Subcommands::Doctor(arguments) => on_runtime(doctor::run(arguments)),
        Subcommands::Store(arguments) => store::run(arguments),
        Subcommands::Bench(arguments) => on_runtime(bench::run(arguments)),
        Subcommands::Certs { action, places } => {
            let certs = match Config::locate(places) {
                Ok(config) => config.certs,
                Err(error) => return fail(&error, exit::USAGE),
            };
            match certs::run(action, &certs) {
                Ok(report) => say(&report.to_string(), 0),
                Err(error) => fail(&error, exit::USAGE),
            }
        }
    }
}

/// Without a command, and where flags come first, it is the server that is meant.
fn with_command(mut arguments: Vec<OsString>) -> Vec<OsString> {
    let of_its_own = ["-h", "--help", "-V", "--version"];
    let is_flag = |first: &OsString| first.as_encoded_bytes().starts_with(b"-") && !of_its_own.iter().any(|flag| first == flag);
    if arguments.get(1).is_none_or(is_flag) {
        arguments.insert(arguments.len().min(1), "serve".into());
    }
    arguments
}

/// Parses a command line. Malformed variables of the environment end the program here with clap's own message, as malformed flags do.
fn parse<T: Parser>(arguments: impl IntoIterator<Item = impl Into<OsString> + Clone>) -> T {
    let matches = without_empty(T::command()).get_matches_from(arguments);
    T::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
}

/// Leaves out variables of the environment that are empty: in the files of containers and services that is how one says "not set".
fn without_empty(command: clap::Command) -> clap::Command {
    let set = |argument: clap::Arg| match argument.get_env().and_then(std::env::var_os) {
        Some(value) if value.is_empty() => argument.env(Resettable::<OsStr>::Reset),
        _ => argument,
    };
    command.mut_args(set).mut_subcommands(without_empty)
}

/// Prints what a command found out, and ends with `code`. Whoever closed standard output (`| head -1`) has seen enough: that is no
/// failure, and what was found out does not depend on it.
fn say(text: &str, code: u8) -> ExitCode {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(why) if why.kind() != ErrorKind::BrokenPipe => fail(&format!("cannot write to standard output: {why}"), exit::USAGE),
        _ => ExitCode::from(code),
    }
}

fn fail(error: &impl Display, code: u8) -> ExitCode {
    eprintln!("whimbrel: {error}");
    ExitCode::from(code)
}

/// When so many seconds from now are over; never where no clock reaches that far.
fn deadline(seconds: Option<u64>) -> Option<tokio::time::Instant> {
    tokio::time::Instant::now().checked_add(std::time::Duration::from_secs(seconds?))
}

/// Runs a client's command: one thread is plenty.
fn on_runtime(command: impl Future<Output = ExitCode>) -> ExitCode {
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => {
            let code = runtime.block_on(command);
            // What reads standard input cannot be interrupted, and need not be waited for.
            runtime.shutdown_background();
            code
        }
        Err(why) => {
            eprintln!("whimbrel: cannot start: {why}");
            ExitCode::from(exit::USAGE)
        }
    }
}

/// Says why a client's events ended, and with which code to end.
fn ended(client: &Client) -> ExitCode {
    match &*client.connection().borrow() {
        Connection::Ended { error: Some(error) } => {
            eprintln!("whimbrel: {}", connect::reason(client, error));
            connect::code(error)
        }
        _ => {
            eprintln!("whimbrel: the connection has ended");
            ExitCode::from(exit::REFUSED)
        }
    }
}
