//! The devices that sockets are: the first of a user is `socket.io`, the next beside it `socket.io-2`. Nobody at the other end knows who
//! it was the last time, so all begin where the one of them that got furthest has got.

use super::Gateway;
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use whimbrel_protocol::frame::Error;
use whimbrel_protocol::{DeviceId, ErrorCode, MailboxSeq, UserId};

/// What all their names begin with.
const STEM: &str = "socket.io";

/// Who sits where, and how far they have got.
#[derive(Debug, Default)]
pub(super) struct Seats {
    rows: Mutex<HashMap<UserId, Row>>,
    /// Positions that are not in the store yet. Taken after `rows`.
    unsaved: Mutex<HashMap<UserId, MailboxSeq>>,
}

/// The seats of a user.
#[derive(Debug, Default)]
struct Row {
    taken: BTreeSet<u32>,
    /// How far the furthest has got, since the first of them came.
    cursor: Option<MailboxSeq>,
}

impl Seats {
    fn lock(&self) -> MutexGuard<'_, HashMap<UserId, Row>> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unsaved(&self) -> MutexGuard<'_, HashMap<UserId, MailboxSeq>> {
        self.unsaved.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Positions to be saved.
    pub fn to_save(&self) -> Vec<(UserId, MailboxSeq)> {
        self.unsaved().iter().map(|(user, seq)| (user.clone(), *seq)).collect()
    }

    /// These are.
    pub fn on_saved(&self, saved: &[(UserId, MailboxSeq)]) {
        let mut unsaved = self.unsaved();
        for (user, seq) in saved {
            if unsaved.get(user) == Some(seq) {
                unsaved.remove(user);
            }
        }
    }
}

/// The seat of one socket, until it is dropped.
pub(super) struct Seat {
    gateway: Arc<Gateway>,
    user: UserId,
    number: u32,
    device: DeviceId,
    begin: Option<MailboxSeq>,
}

fn name(number: u32) -> String {
    if number == 1 { STEM.to_owned() } else { format!("{STEM}-{number}") }
}

fn is_seat(device: &DeviceId) -> bool {
    let rest = device.as_str().strip_prefix(STEM);
    rest.is_some_and(|rest| rest.is_empty() || rest.strip_prefix('-').is_some_and(|number| number.parse::<u32>().is_ok()))
}

impl Seat {
    /// The first that is free.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn take(gateway: &Arc<Gateway>, user: &UserId) -> Result<Self, Error> {
        let (number, known) = {
            let mut seats = gateway.seats.lock();
            let row = seats.entry(user.clone()).or_default();
            let number = (1..).find(|number| !row.taken.contains(number)).unwrap_or(1);
            row.taken.insert(number);
            let known = row.cursor.or_else(|| gateway.seats.unsaved().get(user).copied());
            (number, known)
        };
        let id = name(number).parse().map_err(|_| Error {
            code: ErrorCode::Internal,
            message: "a device could not be named".into(),
            retry_after_ms: 0,
        });
        // From now on dropping it frees it.
        let mut seat = Self { gateway: gateway.clone(), user: user.clone(), number, device: id?, begin: known };
        if known.is_none() {
            let noted = gateway.context.engine.position_of(user).await?;
            seat.begin = match noted {
                Some(seq) => Some(seq),
                None => {
                    let devices = gateway.context.engine.devices_of(user).await?;
                    let furthest =
                        |of: &dyn Fn(&DeviceId) -> bool| devices.iter().filter(|(name, _)| of(name)).map(|(_, cursor)| *cursor).max();
                    // Who has only had clients of ours begins where the furthest of those is.
                    furthest(&is_seat).or_else(|| furthest(&|_| true))
                }
            };
        }
        if let Some(cursor) = seat.begin {
            seat.on_ack(cursor);
        }
        Ok(seat)
    }

    pub fn device(&self) -> &DeviceId {
        &self.device
    }

    /// The entry of the mailbox after which it begins; `None`: with the oldest.
    pub fn begin(&self) -> Option<MailboxSeq> {
        self.begin
    }

    /// Its client has so much.
    pub fn on_ack(&self, seq: MailboxSeq) {
        let mut seats = self.gateway.seats.lock();
        if let Some(row) = seats.get_mut(&self.user).filter(|row| row.cursor < Some(seq)) {
            row.cursor = Some(seq);
            self.gateway.seats.unsaved().insert(self.user.clone(), seq);
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut seats = self.gateway.seats.lock();
        if let Some(row) = seats.get_mut(&self.user) {
            row.taken.remove(&self.number);
            if row.taken.is_empty() {
                seats.remove(&self.user);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seats_have_names_that_are_known_again() {
        for number in [1, 2, 31] {
            assert!(is_seat(&name(number).parse().unwrap_or_else(|why| panic!("{why}"))));
        }
        for other in ["socket.iot", "socket.io-", "socket.io-x", "phone", "my-socket.io"] {
            assert!(!is_seat(&other.parse().unwrap_or_else(|why| panic!("{why}"))), "{other}");
        }
    }
}
