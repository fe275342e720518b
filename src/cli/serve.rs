//! `whimbrel serve`.

use super::exit;
use crate::config::{Config, Flags};
use crate::server::{Server, ServerError};
use std::io::Write;
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};

pub(super) fn run(flags: &Flags) -> ExitCode {
    init_logs();
    // Each connection is a file, and the usual soft limit of 1,024 is there for old programs only.
    if let Err(why) = rlimit::increase_nofile_limit(u64::MAX) {
        tracing::warn!(%why, "cannot raise the number of files that may be open, and with it of connections (`ulimit -n`)");
    }
    let config = match Config::load(flags, std::env::var("PORT").ok().as_deref()) {
        Ok(config) => config,
        Err(error) => return fail(&error.into()),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(why) => return fail(&ServerError::System { what: "cannot start", why }),
    };
    let outcome = runtime.block_on(serve(config));
    // What is left is memory: to take thousands of connections apart would only keep the next server waiting.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn fail(error: &ServerError) -> ExitCode {
    eprintln!("whimbrel: {error}");
    ExitCode::from(exit::USAGE)
}

async fn serve(config: Config) -> Result<(), ServerError> {
    let system = |why| ServerError::System { what: "cannot listen for signals", why };
    let mut terminate = signal(SignalKind::terminate()).map_err(system)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(system)?;
    let server = Server::start(config).await?;
    announce(&server).map_err(|why| ServerError::System { what: "cannot write to standard output", why })?;
    tokio::select! {
        _ = terminate.recv() => tracing::info!("asked to stop; draining"),
        _ = interrupt.recv() => tracing::info!("interrupted; draining"),
    }
    server.shutdown().await;
    Ok(())
}

/// What to open, for people; then the line that scripts wait for.
fn announce(server: &Server) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "Whimbrel {}", env!("CARGO_PKG_VERSION"))?;
    writeln!(out, "  open     http://{}/", server.http)?;
    writeln!(out, "  or talk  whimbrel chat --as alice --to bob --url http://{}", server.http)?;
    writeln!(out, "whimbrel ready http={} secure={} quic={}", server.http, server.secure, server.quic)?;
    out.flush()
}

fn init_logs() {
    use tracing_subscriber::EnvFilter;
    // Empty is not set, as for every variable.
    let asked = std::env::var("WHIMBREL_LOG").ok().filter(|asked| !asked.is_empty());
    let filter = asked.and_then(|asked| EnvFilter::try_new(asked).ok()).unwrap_or_else(|| EnvFilter::new("warn,whimbrel=info"));
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    if subscriber.try_init().is_err() {
        eprintln!("whimbrel: logs are set up already");
    }
}
