//! Clients of Socket.IO that talk in pairs, on the bare protocol over WebSockets; beside this server another one can be measured with the same
//! load. While it measures, it checks: each message comes once and in order.

use super::child::{Folder, OtherServer, ServerChild};
use super::histogram::{Histogram, Quantiles};
use super::{BenchError, machine, progress};
use clap::Args;
use futures_util::{SinkExt, StreamExt};
use serde::Serialize;
use serde_json::Value;
use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, client_async};

/// Bytes of content in each message.
const CONTENT_BYTES: usize = super::load::TEXT_BYTES;
/// Messages of a writer whose receipts have not come, at most.
const UNDER_WAY: usize = 32;
/// How long anything may take that is waited for.
const PATIENCE: Duration = Duration::from_secs(30);

/// Has clients of Socket.IO talk in pairs, as fast as it goes.
#[derive(Debug, Clone, Args)]
pub(super) struct SocketIo {
    /// Pairs of users: one writes, one reads.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pairs: u16,
    /// How long each load lasts.
    #[arg(long, value_name = "S", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// How often each server is measured; in turns, if there are two.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=100))]
    rounds: u16,
    /// Another server to measure beside this one: a command for the shell. It is to listen on 127.0.0.1, on the port in the environment variable `PORT`.
    #[arg(long, value_name = "COMMAND")]
    beside: Option<String>,
}

/// What all rounds gave.
#[derive(Debug, Serialize)]
pub(super) struct SocketIoReport {
    command: String,
    pairs: usize,
    seconds: u64,
    pinning: String,
    /// The file system of this server's store.
    store: String,
    rounds: Vec<Round>,
}

/// One measurement of one server.
#[derive(Debug, Serialize)]
struct Round {
    server: String,
    messages: u64,
    messages_a_second: f64,
    /// CPU time of the server for a message, and of the load.
    server_cpu_us: Option<f64>,
    load_cpu_us: Option<f64>,
    /// From sending a message to its receipt `sent`, and to its arrival.
    sent: Quantiles,
    arrived: Quantiles,
}

impl fmt::Display for SocketIoReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} pairs over Socket.IO (WebSocket), {} s each, {}; the store is on {}",
            self.pairs, self.seconds, self.pinning, self.store
        )?;
        for round in &self.rounds {
            let cpu = |time: Option<f64>| time.map_or_else(|| "unknown".into(), |time| format!("{time:.1}"));
            writeln!(
                f,
                "{:<10} {:>9.0} messages/s   CPU a message: server {} µs, load {} µs   sent p50 {:.1} ms, p99 {:.1} ms   arrived p50 {:.1} ms, p99 {:.1} ms",
                round.server,
                round.messages_a_second,
                cpu(round.server_cpu_us),
                cpu(round.load_cpu_us),
                round.sent.p50_ms,
                round.sent.p99_ms,
                round.arrived.p50_ms,
                round.arrived.p99_ms,
            )?;
        }
        Ok(())
    }
}

impl SocketIo {
    /// Measures, in turns.
    pub async fn run(&self) -> Result<SocketIoReport, BenchError> {
        let pairs = usize::from(self.pairs).min(machine::connections_max() / 2);
        let folder = Folder::new()?;
        let (cpu, pinning) = machine::apart();
        let mut rounds = Vec::new();
        for number in 1..=self.rounds {
            progress(&format!("round {number} of {}: whimbrel, {} s", self.rounds, self.seconds));
            let server = ServerChild::start(folder.path(), &format!("socketio-{number}"), cpu)?;
            rounds.push(self.measure("whimbrel", &server.url, server.id(), pairs).await?);
            drop(server);
            if let Some(command) = &self.beside {
                progress(&format!("round {number} of {}: {command}, {} s", self.rounds, self.seconds));
                let server = OtherServer::start(command, cpu).await?;
                rounds.push(self.measure("beside", &server.url, server.id(), pairs).await?);
            }
        }
        let store = machine::file_system(folder.path());
        Ok(SocketIoReport { command: super::command_line(), pairs, seconds: self.seconds, pinning, store, rounds })
    }

    async fn measure(&self, name: &str, url: &str, process: u32, pairs: usize) -> Result<Round, BenchError> {
        let address = url.trim_start_matches("http://");
        let mut coming = JoinSet::new();
        for number in 0..pairs {
            let address = address.to_owned();
            coming.spawn(async move { Pair::connect(&address, number).await });
        }
        let mut there = Vec::new();
        while let Some(pair) = coming.join_next().await {
            there.push(pair.map_err(BenchError::from_panic)??);
        }
        let cpu = || (machine::cpu_time(process), machine::cpu_time(std::process::id()));
        let (before, begun) = (cpu(), Instant::now());
        let end = begun + Duration::from_secs(self.seconds);
        let mut talking = JoinSet::new();
        for pair in there {
            talking.spawn(pair.talk(end));
        }
        let (mut messages, mut sent, mut arrived) = (0, Histogram::new(), Histogram::new());
        let mut pairs = Vec::new();
        while let Some(talked) = talking.join_next().await {
            let (pair, found) = talked.map_err(BenchError::from_panic)??;
            messages += found.messages;
            sent.merge(&found.sent);
            arrived.merge(&found.arrived);
            // Kept until all are through: who goes is told to the others, which is not what is measured.
            pairs.push(pair);
        }
        let (took, after) = (begun.elapsed(), cpu());
        let each = |before: Option<Duration>, after: Option<Duration>| Some((after? - before?).as_secs_f64() * 1e6 / messages as f64);
        Ok(Round {
            server: name.to_owned(),
            messages,
            messages_a_second: messages as f64 / took.as_secs_f64(),
            server_cpu_us: each(before.0, after.0),
            load_cpu_us: each(before.1, after.1),
            sent: sent.quantiles(),
            arrived: arrived.quantiles(),
        })
    }
}

/// A client that is logged in.
struct Client {
    socket: WebSocketStream<TcpStream>,
    id: String,
}

fn failed(what: &str, why: impl fmt::Display) -> BenchError {
    BenchError::Failed(format!("{what}: {why}"))
}

impl Client {
    async fn connect(address: &str, id: String) -> Result<Self, BenchError> {
        let stream = TcpStream::connect(address).await.map_err(|why| failed("no connection", why))?;
        stream.set_nodelay(true).map_err(|why| failed("no connection", why))?;
        let request = format!("ws://{address}/socket.io/?EIO=4&transport=websocket");
        let (socket, _) = client_async(request, stream).await.map_err(|why| failed("no WebSocket of Engine.IO", why))?;
        let mut client = Self { socket, id };
        client.expect("0").await?;
        client.say("40".into()).await?;
        client.expect("40").await?;
        let login = serde_json::json!(["user:login", { "id": client.id, "name": client.id, "avatar": "" }]);
        client.say(format!("42{login}")).await?;
        client.expect("42[\"user:login:success\"").await?;
        Ok(client)
    }

    async fn say(&mut self, packet: String) -> Result<(), BenchError> {
        self.socket.send(Message::text(packet)).await.map_err(|why| failed(&self.id, why))
    }

    /// Puts a packet where it waits to be sent.
    async fn feed(&mut self, packet: String) -> Result<(), BenchError> {
        self.socket.feed(Message::text(packet)).await.map_err(|why| failed(&self.id, why))
    }

    async fn flush(&mut self) -> Result<(), BenchError> {
        self.socket.flush().await.map_err(|why| failed(&self.id, why))
    }

    /// The next packet that is no ping.
    async fn next(&mut self) -> Result<String, BenchError> {
        loop {
            match timeout(PATIENCE, self.socket.next()).await {
                Ok(Some(Ok(Message::Text(packet)))) if packet.as_str() == "2" => self.say("3".into()).await?,
                Ok(Some(Ok(Message::Text(packet)))) => return Ok(packet.as_str().to_owned()),
                Ok(Some(Ok(Message::Ping(_) | Message::Pong(_)))) => {}
                Ok(other) => return Err(BenchError::Failed(format!("{}: a packet was expected, and {other:?} came", self.id))),
                Err(_) => return Err(BenchError::Failed(format!("{} was told nothing for {PATIENCE:?}", self.id))),
            }
        }
    }

    /// Waits for a packet that begins so.
    async fn expect(&mut self, beginning: &str) -> Result<(), BenchError> {
        while !self.next().await?.starts_with(beginning) {}
        Ok(())
    }

    /// The next event: its name and data.
    async fn event(&mut self) -> Result<(String, Value), BenchError> {
        loop {
            if let Some(event) = self.next().await?.strip_prefix("42") {
                let event: (String, Value) = serde_json::from_str(event).map_err(|why| failed(&self.id, why))?;
                if event.0 == "error" {
                    return Err(failed(&self.id, event.1));
                }
                return Ok(event);
            }
        }
    }
}

/// Two clients, one of whom writes to the other.
struct Pair {
    writer: Client,
    reader: Client,
}

/// What a pair found.
struct Found {
    messages: u64,
    sent: Histogram,
    arrived: Histogram,
}

/// Messages carry when they were sent, in microseconds from here.
fn micros(begun: Instant) -> u64 {
    u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX)
}

impl Pair {
    async fn connect(address: &str, number: usize) -> Result<Self, BenchError> {
        let writer = Client::connect(address, format!("writer-{number}")).await?;
        let reader = Client::connect(address, format!("reader-{number}")).await?;
        Ok(Self { writer, reader })
    }

    /// Talks until then, and waits for all of it.
    async fn talk(self, end: Instant) -> Result<(Self, Found), BenchError> {
        let Self { mut writer, mut reader } = self;
        let begun = Instant::now();
        let to = reader.id.clone();
        let writing = async {
            let (mut times, mut under_way, mut number) = (Histogram::new(), VecDeque::new(), 0u64);
            loop {
                while under_way.len() < UNDER_WAY && Instant::now() < end {
                    writer.feed(message(&writer.id, &to, number, micros(begun))).await?;
                    under_way.push_back((number, Instant::now()));
                    number += 1;
                }
                writer.flush().await?;
                let Some((first, at)) = under_way.front().copied() else { break };
                let (name, data) = writer.event().await?;
                if name == "message:sent" && data["status"] == "sent" {
                    if data["messageId"].as_str() != Some(first.to_string().as_str()) {
                        return Err(BenchError::Failed(format!("{}: instead of the receipt for {first} came {data}", writer.id)));
                    }
                    times.record(at.elapsed());
                    under_way.pop_front();
                }
            }
            // How many there are to read: the reader is told by a last one.
            writer.say(message(&writer.id, &to, u64::MAX, 0)).await?;
            Ok((writer, number, times))
        };
        let reading = async {
            let (mut times, mut next) = (Histogram::new(), 0u64);
            loop {
                let (name, data) = reader.event().await?;
                if name != "message" {
                    continue;
                }
                let id = data["id"].as_str().unwrap_or_default();
                if id == u64::MAX.to_string() {
                    return Ok((reader, next, times));
                }
                if id != next.to_string() {
                    return Err(BenchError::Failed(format!(
                        "{}: lost, doubled or out of order: {next} was to come, and {data} came",
                        reader.id
                    )));
                }
                let sent = data["timestamp"].as_u64().unwrap_or_default();
                times.record(Duration::from_micros(micros(begun).saturating_sub(sent)));
                next += 1;
            }
        };
        let ((writer, written, sent), (reader, read, arrived)) = tokio::try_join!(writing, reading)?;
        if written != read {
            return Err(BenchError::Failed(format!("{}: {written} messages were sent, {read} came", writer.id)));
        }
        Ok((Self { writer, reader }, Found { messages: read, sent, arrived }))
    }
}

fn message(from: &str, to: &str, number: u64, time: u64) -> String {
    let content = "x".repeat(CONTENT_BYTES);
    format!(
        r#"42["message",{{"id":"{number}","fromId":"{from}","fromName":"{from}","toId":"{to}","topic":"","content":"{content}","type":"text","timestamp":{time}}}]"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_as_the_contract_has_them() {
        let packet = message("ann", "bob", 7, 5);
        let event: Value = serde_json::from_str(&packet[2..]).unwrap_or_default();
        assert_eq!((&event[0], &event[1]["id"], &event[1]["toId"]), (&"message".into(), &"7".into(), &"bob".into()));
        assert_eq!(event[1]["content"].as_str().map(str::len), Some(CONTENT_BYTES));
    }
}
