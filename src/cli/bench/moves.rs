//! A session that changes its transport again and again while two people talk: what comes through, and how long nothing does.

use super::super::connect::at;
use super::child::{Folder, ServerChild};
use super::histogram::{Histogram, Quantiles};
use super::{BenchError, names, progress};
use clap::Args;
use serde::Serialize;
use std::fmt;
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use whimbrel_client::protocol::UserId;
use whimbrel_client::protocol::frame::{EventBody, Target};
use whimbrel_client::{Client, Connection, Events, Incoming, Transport, TransportKind, text};

/// How long a move, or what was sent last, may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long after a move what comes still belongs to it.
const AFTER: Duration = Duration::from_millis(20);

/// Moves a session between WebSocket and QUIC, with messages both ways.
#[derive(Debug, Clone, Args)]
pub(super) struct Moves {
    /// How often the session moves.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    count: u32,
    /// Milliseconds between two messages, each way.
    #[arg(long, value_name = "MS", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=1000))]
    pace: u64,
}

/// What moves cost.
#[derive(Debug, Clone, Serialize)]
pub(super) struct MovesReport {
    command: String,
    moves: u32,
    seconds: f64,
    pace_ms: u64,
    /// From the one who moves, and to them.
    messages: [usize; 2],
    /// The longest time without a message around each move, whichever way.
    to_quic: Quantiles,
    to_websocket: Quantiles,
}

impl fmt::Display for MovesReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} moves in {:.1} s, a message every {} ms each way", self.moves, self.seconds, self.pace_ms)?;
        let [from, to] = self.messages;
        writeln!(f, "{from} messages from the one who moves, {to} to them: none lost, doubled or out of order")?;
        writeln!(f, "longest time without a message   p50       p99       max")?;
        for (name, gaps) in [("WebSocket to QUIC", self.to_quic), ("QUIC to WebSocket", self.to_websocket)] {
            writeln!(f, "  {name:<24} {:>8.1} ms {:>6.1} ms {:>6.1} ms", gaps.p50_ms, gaps.p99_ms, gaps.max_ms)?;
        }
        Ok(())
    }
}

struct Move {
    to: TransportKind,
    begun: Instant,
    ended: Instant,
}

impl Moves {
    /// Does it against a server of its own.
    pub async fn run(&self) -> Result<MovesReport, BenchError> {
        let folder = Folder::new()?;
        let server = ServerChild::start(folder.path(), "moves", None)?;
        let tag = format!("{:08x}", rand::random::<u32>());
        let (moving, staying) = (names(&tag, "moving", 0)?, names(&tag, "staying", 0)?);
        let (mover, heard_by_mover) = connect(&server, &moving).await?;
        let (other, heard_by_other) = connect(&server, &staying).await?;
        progress(&format!("{} moves, a message every {} ms each way", self.count, self.pace));
        let pace = Duration::from_millis(self.pace);
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let writers = [(mover.clone(), staying.clone()), (other.clone(), moving.clone())].map(|(client, to)| {
            let mut stopped = stopped.clone();
            tokio::spawn(async move { write(&client, Target::User(to), pace, &mut stopped).await })
        });
        let [to_other, to_mover] = [heard_by_other, heard_by_mover].map(|events| {
            let (told, wanted) = tokio::sync::oneshot::channel();
            (tokio::spawn(hear(events, wanted)), told)
        });
        let begun = Instant::now();
        let moves = self.moves(&mover).await?;
        let seconds = begun.elapsed().as_secs_f64();
        // The writers hold the other end.
        let _ = stop.send(true);
        let [from_mover, from_other] = writers;
        let sent = [from_mover.await.map_err(BenchError::from_panic)??, from_other.await.map_err(BenchError::from_panic)??];
        let mut heard = Vec::new();
        for ((hearing, told), sent) in [to_other, to_mover].into_iter().zip(sent) {
            // Who hears has ended only if the client has, which it says itself.
            let _ = told.send(sent);
            heard.push(hearing.await.map_err(BenchError::from_panic)??);
        }
        mover.close().await;
        other.close().await;
        let faults: usize = heard.iter().zip(sent).map(|(heard, sent)| faults(heard, sent)).sum();
        if faults > 0 {
            let why = format!("of {} messages {faults} were lost, came twice or out of order", sent.iter().sum::<usize>());
            return Err(BenchError::Failed(why));
        }
        let gaps = |to: TransportKind| {
            let of = |one: &Move| heard.iter().map(|heard| longest_gap(heard, one.begun, one.ended + AFTER)).max().unwrap_or_default();
            let mut histogram = Histogram::new();
            moves.iter().filter(|one| one.to == to).map(of).for_each(|gap| histogram.record(gap));
            histogram.quantiles()
        };
        Ok(MovesReport {
            command: super::command_line(),
            moves: self.count,
            seconds,
            pace_ms: self.pace,
            messages: sent,
            to_quic: gaps(TransportKind::Quic),
            to_websocket: gaps(TransportKind::WebSocket),
        })
    }

    async fn moves(&self, mover: &Client) -> Result<Vec<Move>, BenchError> {
        let mut connection = mover.connection();
        let mut moves = Vec::new();
        for number in 0..self.count {
            let to = if number % 2 == 0 { TransportKind::Quic } else { TransportKind::WebSocket };
            let begun = Instant::now();
            mover.set_transport(Transport::from(to)).await.map_err(|why| BenchError::Failed(why.to_string()))?;
            let arrived = connection.wait_for(|state| matches!(state, Connection::Connected { transport } if *transport == to));
            match timeout(PATIENCE, arrived).await {
                Ok(Ok(_)) => {}
                Ok(Err(_)) => return Err(BenchError::Failed("the client has ended".into())),
                Err(_) => return Err(BenchError::Failed(format!("move {number}, to {to}, took more than {} s", PATIENCE.as_secs()))),
            }
            moves.push(Move { to, begun, ended: Instant::now() });
            // What comes after a move is not part of the next.
            tokio::time::sleep(AFTER).await;
        }
        Ok(moves)
    }
}

async fn connect(server: &ServerChild, user: &UserId) -> Result<(Client, Events), BenchError> {
    let builder = Client::builder(&server.url, user.as_str()).transport(Transport::WebSocket);
    builder.connect().await.map_err(|why| BenchError::Failed(why.to_string()))
}

/// Writes numbers, from 1 on, and waits until the last is durable. Returns how many.
async fn write(client: &Client, to: Target, pace: Duration, stopped: &mut tokio::sync::watch::Receiver<bool>) -> Result<usize, BenchError> {
    let mut ticks = interval(pace);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut sent = 0;
    loop {
        let last = *stopped.borrow();
        sent += 1;
        let ticket = client.send(to.clone(), text(sent.to_string())).await.map_err(|why| BenchError::Failed(why.to_string()))?;
        if last {
            let outcome = timeout(PATIENCE, ticket.outcome()).await;
            let outcome = outcome.map_err(|_| BenchError::Failed("the last message did not become durable".into()))?;
            return outcome.map(|_| sent).map_err(|why| BenchError::Failed(why.to_string()));
        }
        tokio::select! {
            _ = ticks.tick() => {}
            _ = stopped.changed() => {}
        }
    }
}

/// Takes numbers and when they came, until as many have come as were sent.
async fn hear(mut events: Events, mut wanted: tokio::sync::oneshot::Receiver<usize>) -> Result<Vec<(Instant, usize)>, BenchError> {
    let mut heard: Vec<(Instant, usize)> = Vec::new();
    let mut last = None;
    let mut until = None;
    while last.is_none_or(|last| heard.last().is_none_or(|(_, number)| *number < last)) {
        tokio::select! {
            incoming = events.next() => match incoming {
                Some(Incoming::Event { event, .. }) => {
                    if let EventBody::Message(message) = &event.body {
                        let number = message.content.text.parse().map_err(|_| BenchError::Failed("a message of somebody else's".into()))?;
                        heard.push((Instant::now(), number));
                    }
                }
                Some(_) => {}
                None => return Err(BenchError::Failed("a client has ended".into())),
            },
            told = &mut wanted, if last.is_none() => {
                last = told.ok();
                until = Some(Instant::now() + PATIENCE);
            }
            () = at(until) => break,
        }
    }
    events.done();
    Ok(heard)
}

/// How many of the numbers did not come where they should have.
fn faults(heard: &[(Instant, usize)], sent: usize) -> usize {
    let numbers = heard.iter().map(|(_, number)| *number);
    let mut expected = 1;
    let mut faults = 0;
    for number in numbers {
        if number == expected {
            expected += 1;
        } else {
            faults += 1;
            expected = expected.max(number + 1);
        }
    }
    faults + (sent + 1).saturating_sub(expected)
}

/// The longest time between two arrivals of which at least one end lies in a span.
fn longest_gap(heard: &[(Instant, usize)], from: Instant, to: Instant) -> Duration {
    let pairs = heard.windows(2).filter_map(|pair| if let [(one, _), (other, _)] = pair { Some((*one, *other)) } else { None });
    pairs.filter(|(one, other)| *other >= from && *one <= to).map(|(one, other)| other - one).max().unwrap_or_default()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    fn heard(numbers: &[usize]) -> Vec<(Instant, usize)> {
        let begun = Instant::now();
        numbers.iter().zip(0..).map(|(number, at)| (begun + Duration::from_millis(10 * at), *number)).collect()
    }

    #[test]
    fn what_is_lost_doubled_or_out_of_order_is_counted() {
        for (numbers, count) in
            [(&[1, 2, 3, 4][..], 0), (&[1, 2, 2, 3, 4], 1), (&[1, 3, 4], 1), (&[1, 3, 2, 4], 2), (&[1, 2, 3], 1), (&[], 4)]
        {
            assert_eq!(faults(&heard(numbers), 4), count, "{numbers:?}");
        }
    }

    #[test]
    fn a_gap_counts_if_it_touches_the_move() {
        let mut heard = heard(&[1, 2, 3, 4]);
        let begun = heard[0].0;
        heard[3].0 += Duration::from_millis(70);
        let at = |ms| begun + Duration::from_millis(ms);
        assert_eq!(longest_gap(&heard, at(0), at(15)), Duration::from_millis(10));
        assert_eq!(longest_gap(&heard, at(50), at(60)), Duration::from_millis(80), "it lies within");
        assert_eq!(longest_gap(&heard, at(200), at(300)), Duration::ZERO);
    }
}
