//! Sessions that only stay: what each costs the server in memory.

use super::child::ServerChild;
use super::peer::Peer;
use super::{BenchError, machine, names};
use std::time::Duration;
use tokio::task::JoinSet;
use whimbrel_client::frames::Dialer;

/// Sessions that are opened and closed again before memory is looked at: what the first ones cost once belongs to none of them.
const WARM_UP: usize = 50;
/// Sessions that are opened at the same time.
const OPENING: usize = 64;
/// Sessions that share a UDP socket, where they need one.
const SHARING: usize = 500;
/// How long the server has to come to rest.
const REST: Duration = Duration::from_secs(2);

/// What idle sessions cost.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub(super) struct Idle {
    /// How many.
    pub sessions: usize,
    /// Resident memory of the server before they came, in KiB.
    pub before_kib: u64,
    /// And with them.
    pub with_kib: u64,
    /// The difference, for one.
    pub kib_each: f64,
}

impl Idle {
    fn new(sessions: usize, before_kib: u64, with_kib: u64) -> Self {
        let kib_each = with_kib.saturating_sub(before_kib) as f64 / sessions.max(1) as f64;
        Self { sessions, before_kib, with_kib, kib_each }
    }
}

/// Opens `count` sessions of distinct users, and looks.
pub(super) async fn measure(dialer: &Dialer, server: &ServerChild, count: usize, tag: &str) -> Result<Idle, BenchError> {
    let memory = || machine::resident_kib(server.id()).ok_or_else(|| BenchError::Failed("the server's memory cannot be read".into()));
    close(open(dialer, WARM_UP.min(count), tag, "warm").await?).await;
    tokio::time::sleep(REST).await;
    let before = memory()?;
    let peers = open(dialer, count, tag, "idle").await?;
    tokio::time::sleep(REST).await;
    let idle = Idle::new(count, before, memory()?);
    close(peers).await;
    Ok(idle)
}

/// Opens `count` sessions of users with this role, each another.
pub(super) async fn open(dialer: &Dialer, count: usize, tag: &str, role: &str) -> Result<Vec<Peer>, BenchError> {
    let mut shared = dialer.clone();
    let mut peers = Vec::with_capacity(count);
    let mut opening = JoinSet::new();
    for number in 0..count {
        if number % SHARING == 0 {
            shared = dialer.clone().with_one_socket()?;
        }
        if opening.len() >= OPENING
            && let Some(peer) = opening.join_next().await
        {
            peers.push(peer.map_err(BenchError::from_panic)??);
        }
        let (dialer, user) = (shared.clone(), names(tag, role, number)?);
        opening.spawn(async move { Peer::enter(&dialer, &user).await });
    }
    while let Some(peer) = opening.join_next().await {
        peers.push(peer.map_err(BenchError::from_panic)??);
    }
    Ok(peers)
}

async fn close(peers: Vec<Peer>) {
    let mut closing: JoinSet<()> = peers.into_iter().map(Peer::close).collect();
    while closing.join_next().await.is_some() {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_shared_out() {
        assert!((Idle::new(100, 1000, 2600).kib_each - 16.0).abs() < 1e-9);
        assert!(Idle::new(100, 1000, 900).kib_each.abs() < 1e-9, "memory that was given back is not counted against a session");
    }
}
