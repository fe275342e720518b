//! `whimbrel doctor`: why can I not connect?

use super::exit;
use clap::Args;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use whimbrel_client::doctor::{Doctor, Finding, Outcome, Step};
use whimbrel_client::frames::Dialer;

/// How it ends, for its help.
const ENDS: &str = "\
Each step of connecting is tried by itself, with what to do about it where it fails. Nothing is sent to the server but what opens
connections, unless --as names a user: then a session begins as that user's device \"doctor\", and ends. The server's page /doctor is
the same for phones and other browsers.

Exit codes:
  0  a session can be had, over one transport at least
  1  the server can be reached, and refused the user
  2  the command line is wrong, or the CA cannot be read
  3  no session can be had";

/// Where the text of a step begins, and how wide it gets: it fits a terminal of 100 columns.
const TEXT_COLUMN: usize = 23;
const TEXT_WIDTH: usize = 76;

/// Where to look.
#[derive(Debug, Clone, Args)]
#[command(after_help = ENDS)]
pub(super) struct Examine {
    /// The server: `https://host:8443` or `http://host:8080`.
    #[arg(long, env = "WHIMBREL_URL", default_value = "http://127.0.0.1:8080")]
    url: String,
    /// Also try whether this user is let in.
    #[arg(long = "as", value_name = "USER")]
    user: Option<String>,
    /// With this token, where the server wants one.
    #[arg(long, env = "WHIMBREL_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// Believe certificates that this CA signed: a PEM file, or a server's certs directory.
    #[arg(long, value_name = "PATH")]
    ca: Option<PathBuf>,
    /// Believe the certificate with this SHA-256 hash, hexadecimal or base64.
    #[arg(long, value_name = "HASH")]
    pin: Vec<String>,
}

pub(super) async fn run(arguments: Examine) -> ExitCode {
    let Examine { url, user, token, ca, pin } = arguments;
    let mut doctor = Doctor::new(&url);
    if let Some(ca) = ca {
        doctor = doctor.ca(ca);
    } else if pin.is_empty() && Dialer::is_loopback(&url) && Path::new("certs/ca.pem").is_file() {
        doctor = doctor.ca("certs");
    }
    if let Some(user) = user {
        doctor = doctor.user(user, token.unwrap_or_default());
    }
    let doctor = pin.into_iter().fold(doctor, Doctor::pin);
    let mut written = Ok(());
    let (mut failed, mut mended) = (Vec::new(), String::new());
    let examined = doctor.examine(|finding| {
        if matches!(finding.outcome, Outcome::Fails { .. }) {
            failed.push(finding.step);
        }
        if written.is_ok() {
            written = write(&finding, &mut mended);
        }
    });
    let diagnosis = match examined.await {
        Ok(diagnosis) => diagnosis,
        Err(why) => return super::fail(&why, exit::USAGE),
    };
    // Whoever closed standard output (`| head -1`) has seen enough.
    if let Err(why) = written
        && why.kind() != ErrorKind::BrokenPipe
    {
        return super::fail(&format!("cannot write to standard output: {why}"), exit::USAGE);
    }
    let names: Vec<String> = diagnosis.usable.iter().map(ToString::to_string).collect();
    match (names.split_first(), diagnosis.refused) {
        (_, true) => super::say("\nThe way to the server is fine; it does not let this user in.\n", exit::REFUSED),
        (Some(_), false) if failed.contains(&Step::Session) => {
            super::say("\nConnections can be had, and no session over them.\n", exit::NO_CONNECTION)
        }
        (Some((best, [])), false) => super::say(&format!("\nClients connect, over {best} alone.\n"), 0),
        (Some((best, others)), false) => super::say(&format!("\nClients connect over {best}, or else {}.\n", others.join(" or ")), 0),
        (None, false) => super::say("\nClients cannot connect: mend the first step that fails.\n", exit::NO_CONNECTION),
    }
}

/// `mended` is what was advised last: nobody reads it twice.
fn write(finding: &Finding, mended: &mut String) -> std::io::Result<()> {
    let Finding { step, outcome, took } = finding;
    let (word, text, mend) = match outcome {
        Outcome::Works(what) if took.is_zero() => ("works", what.clone(), None),
        Outcome::Works(what) => ("works", format!("{what} ({:.1} ms)", took.as_secs_f64() * 1_000.0), None),
        Outcome::Skipped(why) => ("skipped", why.clone(), None),
        Outcome::Fails { why, mend } => ("FAILS", why.clone(), Some(mend)),
    };
    let mut out = std::io::stdout().lock();
    writeln!(out, "{:<14}{word:<9}{}", step.name(), wrapped(&text))?;
    if let Some(mend) = mend {
        let told = if mend == mended { "the same" } else { mend };
        writeln!(out, "{:<14}{:<9}{}", "", "mend", wrapped(told))?;
        mended.clone_from(mend);
    }
    out.flush()
}

/// Text in lines that stand below each other in the third column.
fn wrapped(text: &str) -> String {
    let (mut wrapped, mut width) = (String::new(), 0);
    for word in text.split_whitespace() {
        let long = word.chars().count();
        if width > 0 && width + 1 + long > TEXT_WIDTH {
            wrapped.push('\n');
            wrapped.extend(std::iter::repeat_n(' ', TEXT_COLUMN));
            width = 0;
        } else if width > 0 {
            wrapped.push(' ');
            width += 1;
        }
        wrapped.push_str(word);
        width += long;
    }
    wrapped
}
