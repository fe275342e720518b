//! `whimbrel listen`: prints what comes, a line an event, and acknowledges what it printed.

use super::connect::{Connect, at, failed};
use super::exit;
use clap::Args;
use serde_json::{Value, json};
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;
use whimbrel_client::protocol::frame::{Event, EventBody, Origin, ResetReason, ServerSignal, Watch};
use whimbrel_client::{Events, Incoming, Outcome, TransportKind};

/// How it ends, for its help.
const ENDS: &str = "\
A device that is new begins with the oldest entry that is kept. Once there was a connection, restarts of the server and changes of the
network are waited for, however long they take. The first one is waited for until --timeout; without that, the first attempt counts.

Exit codes:
  0  done: --count messages were printed, or without --count the time was up, or it was interrupted
  1  the server refused, or another client took the device over
  2  the command line is wrong or does not fit the server (its certificate, no TLS), or something on this machine (the state folder,
     standard output) cannot be used
  3  there was no connection
  4  the time was up before --count messages came";

/// Whom to listen as.
#[derive(Debug, Clone, Args)]
#[command(after_help = ENDS)]
pub(super) struct Listen {
    #[command(flatten)]
    connect: Connect,
    /// End after this many messages.
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// End this many seconds after the start. The server may come up in the meantime.
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u64>,
    /// Print every other event too.
    #[arg(long)]
    all: bool,
    /// Print what is said in the lobby too, by clients that do not say who they are. It does not count.
    #[arg(long)]
    lobby: bool,
}

pub(super) async fn run(arguments: Listen) -> ExitCode {
    let deadline = super::deadline(arguments.timeout);
    let (client, mut events) = match arguments.connect.start("listen", Origin::Oldest, 1, Duration::ZERO).await {
        Ok(started) => started,
        Err(error) => return failed(&error.into()),
    };
    if let Err(error) = Connect::connected(&client, deadline).await {
        client.close().await;
        return failed(&error);
    }
    if arguments.lobby {
        let watch = Watch { users: Vec::new(), everyone: false, lobby: true };
        if let Err(why) = client.watch(watch).await {
            eprintln!("whimbrel: the lobby cannot be heard: {why}");
        }
    }
    let mut interrupt = std::pin::pin!(tokio::signal::ctrl_c());
    let code = tokio::select! {
        printed = print(&mut events, &arguments) => match printed {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => super::ended(&client),
            // Whoever read along has had enough, as `head` has.
            Err(why) if why.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
            Err(why) => {
                eprintln!("whimbrel: cannot write to standard output: {why}");
                ExitCode::from(exit::USAGE)
            }
        },
        () = at(deadline) => ExitCode::from(if arguments.count.is_some() { exit::TIMED_OUT } else { 0 }),
        _ = interrupt.as_mut() => ExitCode::SUCCESS,
    };
    client.close().await;
    code
}

/// Prints until enough was printed (`true`) or the client ended (`false`).
async fn print(events: &mut Events, arguments: &Listen) -> std::io::Result<bool> {
    let mut left = arguments.count.unwrap_or(u64::MAX);
    while left > 0 {
        // Asking for the next says that the one before was printed: only then is it acknowledged.
        let Some(incoming) = events.next().await else { return Ok(false) };
        let (line, is_message) = match incoming {
            Incoming::Event { event, transport } => {
                let is_message = matches!(event.body, EventBody::Message(_));
                (event_line(&event, transport, arguments.all), is_message)
            }
            Incoming::Outcome(outcome) => (outcome_line(&outcome), false),
            Incoming::Reset { reason } => {
                let why = match reason {
                    ResetReason::Trimmed => "this device was away for longer than entries are kept",
                    ResetReason::OtherLog => "the server's data was deleted, or restored from a backup",
                };
                eprintln!("whimbrel: the mailbox could not be continued: {why}; what is kept comes from its beginning");
                (json!({ "kind": "reset", "reason": reason }), false)
            }
            Incoming::Snapshot { conversations } => (json!({ "kind": "snapshot", "conversations": conversations }), false),
            Incoming::Disagreement(why) => {
                eprintln!("whimbrel: {why}");
                (json!({ "kind": "disagreement", "text": why.to_string() }), false)
            }
            Incoming::Signal(signal) => (signal_line(&signal), false),
            _ => continue,
        };
        let is_lobby = line["kind"] == "lobby";
        if is_message || arguments.all || is_lobby {
            let mut out = std::io::stdout().lock();
            writeln!(out, "{line}")?;
            out.flush()?;
        }
        left -= u64::from(is_message);
    }
    events.done();
    Ok(true)
}

fn event_line(event: &Event, transport: TransportKind, all: bool) -> Value {
    let mut line = match &event.body {
        EventBody::Message(message) => json!({
            "conversation": message.conversation.0,
            "message": message.seq.0,
            "from": message.from,
            "text": message.content.text,
        }),
        EventBody::Started(started) => json!({ "conversation": started.conversation.0, "members": started.members }),
        EventBody::Receipt(receipt) => json!({
            "conversation": receipt.conversation.0,
            "user": receipt.user,
            "delivered": receipt.delivered.0,
            "read": receipt.read.0,
        }),
        EventBody::Skip(skip) => json!({ "through": skip.through.0 }),
        EventBody::Sent(sent) => json!({ "cseq": sent.cseq.0, "conversation": sent.conversation.0, "message": sent.seq.0 }),
        EventBody::Rejected(rejected) => json!({ "cseq": rejected.cseq.0, "code": rejected.code, "text": rejected.message }),
        EventBody::Unknown(unknown) => json!({ "unknown": unknown.kind, "text": unknown.reason }),
    };
    line["seq"] = event.seq.0.into();
    line["time"] = event.time.0.into();
    line["transport"] = transport.name().into();
    if all {
        line["kind"] = event.body.kind_name().into();
    }
    line
}

fn outcome_line(outcome: &Outcome) -> Value {
    match &outcome.result {
        Ok(sent) => json!({ "kind": "sent", "cseq": sent.cseq.0, "conversation": sent.conversation.0, "message": sent.seq.0 }),
        Err(why) => json!({ "kind": "rejected", "cseq": outcome.cseq.0, "text": why.to_string() }),
    }
}

fn signal_line(signal: &ServerSignal) -> Value {
    match signal {
        ServerSignal::Typing(typing) => {
            json!({ "kind": "typing", "conversation": typing.conversation.0, "user": typing.user, "active": typing.active })
        }
        ServerSignal::Presence(list) => json!({ "kind": "presence", "users": list }),
        ServerSignal::Lobby(line) => json!({ "kind": "lobby", "text": line.text }),
    }
}
