//! `whimbrel send`: says something, and waits until it is durable.

use super::connect::{Connect, SLOTS, at, failed, messages};
use super::exit;
use clap::Args;
use serde_json::{Value, json};
use std::collections::HashSet;
use std::io::{BufRead, Write};
use std::process::ExitCode;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;
use whimbrel_client::protocol::codec::MAX_TEXT;
use whimbrel_client::protocol::frame::{Origin, Target};
use whimbrel_client::protocol::{CommandSeq, Nonce};
use whimbrel_client::{Client, ConnectError, Events, Incoming, Outcome, OutcomeError, SendError, Sent, StartError, StateError, text};

/// Whose devices these are.
const COMMAND: &str = "send";

/// Lines that wait to be sent; when more come, reading waits.
const LINES_MAX: usize = 256;

/// Messages on their way; when there are more, reading waits. Far fewer than an outbox holds, so that storing them never waits.
const WAITING_MAX: usize = 1024;

/// How it ends, for its help.
const ENDS: &str = "\
Each message that is durable at the server is a line of JSON: where it is, or nulls if this device can no longer be told. A message is
taken in once there was a connection: it is kept then, and what has not got through by the end is sent by the next run, once: a run for the
same user and server with the same --device and --state, if any. Restarts of the server and changes of the network are waited for then. The
first connection is waited for until --timeout; without that, the first attempt counts.

Exit codes:
  0  done: every message is durable
  1  the server refused a message or the session, a line could not be sent, or another client took the device over
  2  the command line is wrong or does not fit the server (its certificate, no TLS), or something on this machine (the state folder,
     standard output) cannot be used
  3  there was no connection: nothing was taken in
  4  the time was up: what was taken in is kept, and sent by the next run";

/// What to say to whom.
#[derive(Debug, Clone, Args)]
#[command(after_help = ENDS)]
pub(super) struct Send {
    #[command(flatten)]
    connect: Connect,
    /// To whom.
    #[arg(long, value_name = "USER")]
    to: String,
    /// Give up this many seconds after the start. The server may come up in the meantime.
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u64>,
    /// The words; `-` alone reads lines from standard input, each a message.
    #[arg(required = true, value_name = "TEXT")]
    text: Vec<String>,
}

pub(super) async fn run(arguments: Send) -> ExitCode {
    let to = match arguments.to.parse() {
        Ok(user) => Target::User(user),
        Err(why) => {
            eprintln!("whimbrel: {:?} cannot be the name of a user: {why}", arguments.to);
            return ExitCode::from(exit::USAGE);
        }
    };
    let deadline = super::deadline(arguments.timeout);
    let (client, events) = match arguments.connect.start(COMMAND, Origin::Now, SLOTS, Duration::ZERO).await {
        Ok(started) => started,
        Err(error) => return failed(&error.into()),
    };
    if let Err(error) = Connect::connected(&client, deadline).await {
        // Of a client that has ended nothing can be asked: what it keeps is not lost for that.
        let own = client.outbox().await.map_or(0, |left| messages(&left).count());
        let others = arguments.connect.left(COMMAND, SLOTS).await;
        let left = own + others.iter().map(|(_, waiting)| waiting).sum::<usize>();
        client.close().await;
        let code = failed(&error);
        let advice =
            if matches!(error, ConnectError::Unreachable(_)) { ": run it again, or with --timeout to wait for the server" } else { "" };
        eprintln!("whimbrel: nothing of this run was sent, and nothing of it is kept{advice}");
        match left {
            0 => {}
            1 => eprintln!("whimbrel: 1 message that an earlier run left is still kept for the next"),
            left => eprintln!("whimbrel: {left} messages that earlier runs left are still kept for the next"),
        }
        return code;
    }
    let lines = if arguments.text == ["-"] { standard_input() } else { one(arguments.text.join(" ")).await };
    // Beside each other: nobody waits for the end of a standard input that may stay open for days.
    let own = Sending::new(client, to.clone()).run("first", events, lines, deadline);
    let (code, others) = tokio::join!(own, send_left(&arguments.connect, &to, deadline));
    if code == ExitCode::SUCCESS { others } else { code }
}

/// Sends what earlier runs left that ran beside another: each was a device of its own, and goes on as that one.
async fn send_left(connect: &Connect, to: &Target, deadline: Option<Instant>) -> ExitCode {
    let mut code = ExitCode::SUCCESS;
    // One after the other: another process that starts now must find a device that is free.
    for (slot, _) in connect.left(COMMAND, SLOTS).await {
        let (client, events) = match connect.builder(COMMAND, slot, Origin::Now).start().await {
            Ok(started) => started,
            // Another process was faster, and sends it.
            Err(StartError::State(StateError::Locked { .. })) => continue,
            Err(error) => {
                code = failed(&error.into());
                continue;
            }
        };
        let (sender, no_lines) = mpsc::channel(1);
        drop(sender);
        let sent = Sending::new(client, to.clone()).run("also", events, no_lines, deadline).await;
        if sent != ExitCode::SUCCESS {
            code = sent;
        }
    }
    code
}

/// A message to send, or what was wrong with a line.
type Line = Result<String, String>;

async fn one(words: String) -> mpsc::Receiver<Line> {
    let (sender, lines) = mpsc::channel(1);
    // The receiver is in hand and has room for one.
    let _ = sender.send(Ok(words)).await;
    lines
}

/// Lines as they come, from a thread: reading standard input cannot be interrupted.
fn standard_input() -> mpsc::Receiver<Line> {
    let (sender, lines) = mpsc::channel(LINES_MAX);
    std::thread::spawn(move || {
        let mut input = std::io::stdin().lock();
        let mut bytes = Vec::new();
        for number in 1.. {
            bytes.clear();
            let (line, more) = match input.read_until(b'\n', &mut bytes) {
                Ok(0) => return,
                Ok(_) => (read_line(&bytes).map_err(|why| format!("line {number} was not sent: {why}")), true),
                Err(why) => (Err(format!("standard input cannot be read from line {number} on: {why}")), false),
            };
            if matches!(&line, Ok(line) if line.is_empty()) {
                continue;
            }
            if sender.blocking_send(line).is_err() || !more {
                return;
            }
        }
    });
    lines
}

/// What no server takes is not even stored: it would stand in the way of what follows.
fn read_line(bytes: &[u8]) -> Line {
    let line = std::str::from_utf8(bytes.strip_suffix(b"\n").unwrap_or(bytes)).map_err(|why| format!("it is not UTF-8 ({why})"))?;
    if line.len() > MAX_TEXT {
        return Err(format!("it has {} bytes, at most {MAX_TEXT} are allowed", line.len()));
    }
    Ok(line.to_owned())
}

struct Sending {
    client: Client,
    to: Target,
    /// Messages whose outcome is not known yet.
    waiting: HashSet<Nonce>,
    refused: bool,
}

impl Sending {
    fn new(client: Client, to: Target) -> Self {
        Self { client, to, waiting: HashSet::new(), refused: false }
    }

    /// Sends what is in the outbox (which is said to be done `when`) and the lines, and closes the client.
    async fn run(mut self, when: &str, events: Events, lines: mpsc::Receiver<Line>, deadline: Option<Instant>) -> ExitCode {
        let code = self.send_lines(when, events, lines, deadline).await;
        self.client.close().await;
        code
    }

    async fn send_lines(&mut self, when: &str, mut events: Events, mut lines: mpsc::Receiver<Line>, deadline: Option<Instant>) -> ExitCode {
        match self.client.outbox().await {
            Ok(left) => {
                self.waiting.extend(messages(&left).map(|waiting| waiting.nonce));
                match self.waiting.len() {
                    0 => {}
                    1 => eprintln!("whimbrel: {when} sending 1 message that an earlier run left"),
                    left => eprintln!("whimbrel: {when} sending {left} messages that earlier runs left"),
                }
            }
            Err(error) => return fail(&error),
        }
        let mut open = true;
        let mut batch = Vec::new();
        while open || !self.waiting.is_empty() {
            tokio::select! {
                read = lines.recv_many(&mut batch, LINES_MAX), if open && self.waiting.len() < WAITING_MAX => {
                    open = read > 0;
                    if let Err(code) = self.send(batch.drain(..)).await {
                        return code;
                    }
                }
                incoming = events.next() => match incoming {
                    Some(Incoming::Outcome(outcome)) => {
                        if let Err(why) = self.tell(&outcome) {
                            return fail(&format!("cannot write to standard output: {why}"));
                        }
                    }
                    Some(Incoming::Disagreement(why)) => eprintln!("whimbrel: {why}"),
                    Some(_) => {}
                    None => return self.ended(),
                },
                () = at(deadline) => {
                    self.tell_waiting();
                    return ExitCode::from(exit::TIMED_OUT);
                }
            }
        }
        events.done();
        ExitCode::from(if self.refused { exit::REFUSED } else { 0 })
    }

    async fn send(&mut self, lines: impl Iterator<Item = Line>) -> Result<(), ExitCode> {
        let mut messages = Vec::new();
        for line in lines {
            match line {
                Ok(line) => messages.push((self.to.clone(), text(line))),
                Err(why) => {
                    self.refused = true;
                    eprintln!("whimbrel: {why}");
                }
            }
        }
        if messages.is_empty() {
            return Ok(());
        }
        let tickets = match self.client.send_all(messages).await {
            Ok(tickets) => tickets,
            Err(SendError::Ended) => {
                // Only when it is over does the client say why.
                self.client.close().await;
                return Err(self.ended());
            }
            Err(error) => return Err(fail(&error)),
        };
        self.waiting.extend(tickets.iter().map(whimbrel_client::Ticket::nonce));
        Ok(())
    }

    /// One line a message that is durable; refusals go to standard error.
    fn tell(&mut self, outcome: &Outcome) -> std::io::Result<()> {
        let known = outcome.nonce.is_some_and(|nonce| self.waiting.remove(&nonce));
        if !known {
            return Ok(());
        }
        match line(outcome.cseq, &outcome.result) {
            Some(line) => {
                if let Err(why) = &outcome.result {
                    eprintln!("whimbrel: message {}: {why}", outcome.cseq);
                }
                let mut out = std::io::stdout().lock();
                writeln!(out, "{line}")?;
                out.flush()
            }
            None => {
                self.refused = true;
                if let Err(why) = &outcome.result {
                    eprintln!("whimbrel: {why}");
                }
                Ok(())
            }
        }
    }

    fn ended(&self) -> ExitCode {
        let code = super::ended(&self.client);
        self.tell_waiting();
        code
    }

    /// Says what becomes of messages that did not get through.
    fn tell_waiting(&self) {
        match self.waiting.len() {
            0 => {}
            1 => eprintln!("whimbrel: 1 message has not got through yet; it is kept, and the next run sends it"),
            waiting => eprintln!("whimbrel: {waiting} messages have not got through yet; they are kept, and the next run sends them"),
        }
    }
}

/// The line for a message that is durable: also if it cannot be told any more where. None for one that is not.
fn line(cseq: CommandSeq, result: &Result<Sent, OutcomeError>) -> Option<Value> {
    match result {
        Ok(sent) => Some(json!({
            "cseq": sent.cseq.0,
            "conversation": sent.conversation.0,
            "message": sent.seq.0,
            "time": sent.time.0,
            "transport": sent.transport.name(),
        })),
        Err(OutcomeError::Untold) => {
            Some(json!({ "cseq": cseq.0, "conversation": null, "message": null, "time": null, "transport": null }))
        }
        Err(_) => None,
    }
}

fn fail(error: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("whimbrel: {error}");
    ExitCode::from(exit::USAGE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use whimbrel_client::protocol::ErrorCode;

    #[test]
    fn what_is_durable_has_a_line_and_what_was_refused_has_none() {
        let cseq = CommandSeq(7);
        let untold = line(cseq, &Err(OutcomeError::Untold)).unwrap();
        assert_eq!((&untold["cseq"], &untold["message"], untold.as_object().unwrap().len()), (&7.into(), &Value::Null, 5));
        let refused = OutcomeError::Rejected { code: ErrorCode::Empty, message: String::new() };
        assert_eq!(line(cseq, &Err(refused)), None);
    }
}
